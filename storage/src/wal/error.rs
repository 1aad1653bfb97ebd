//! Why the log refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::PAYLOAD_BYTES_MAX;

/// Why the log refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Records that were acknowledged are missing or damaged.
    #[error("{0}")]
    Lost(Box<Lost>),
    /// The mark that says what was acknowledged cannot be read.
    #[error("{} is damaged: {problem}", .path.display())]
    Mark {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A large payload could not be kept; nothing of what was appended with it is in the log, which goes on.
    #[error("could not write a segment in {}: {source}", .path.display())]
    Segment {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A record is larger than the log takes.
    #[error(
        "an edit of {bytes} bytes is larger than a record, which holds at most {PAYLOAD_BYTES_MAX}"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// An earlier write failed, so the state of the disk is unknown.
    #[error("the log takes no changes after an earlier I/O error")]
    Poisoned,
    /// Another process has it open.
    #[error("the log in {} is in use by another process", .path.display())]
    Locked {
        /// Its directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not {action} the log in {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What is missing of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The log's directory.
    pub directory: PathBuf,
    /// Inclusive ranges of numbers without a whole record.
    pub missing: Vec<(u64, u64)>,
    /// The first number that should be there.
    pub first: u64,
    /// The last number that was acknowledged.
    pub acknowledged: u64,
    /// What is wrong with the first that is damaged; empty where records are simply gone.
    pub detail: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "the log in {} ", self.directory.display())?;
        if self.missing.is_empty() {
            write!(f, "has a damaged end, and so has the mark of what was acknowledged")?;
        } else {
            write!(f, "is missing LSN ")?;
        }
        for (at, (first, last)) in self.missing.iter().take(SHOWN).enumerate() {
            let separator = if at > 0 { ", " } else { "" };
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}..{last}")?,
            }
        }
        if self.missing.len() > SHOWN {
            write!(f, " and {} more ranges", self.missing.len() - SHOWN)?;
        }
        write!(f, " of {}..{} that were acknowledged", self.first, self.acknowledged)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}
