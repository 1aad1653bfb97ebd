//! Why the store refused.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::overlay::{DecodeError, Problem, Touched};
use crate::wal::WalError;

/// Why a store refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The log refused.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log refused a group of transactions, and this is one of them: it is not visible, and whether it
    /// is when the store is opened again is unknown.
    #[error("the edit could not be made durable: {0}")]
    NotDurable(Arc<WalError>),
    /// The records that were acknowledged could not be put into a checkpoint, which makes room for more.
    #[error("the log is full, and {0}")]
    NoCheckpoint(Arc<StoreError>),
    /// Another transaction changed the same thing first.
    #[error("{touched} was changed by another transaction (LSN {lsn}) after this one began")]
    Conflict {
        /// What both changed.
        touched: Touched,
        /// The other's LSN.
        lsn: u64,
    },
    /// There is no such branch.
    #[error("there is no branch {0:?}")]
    NoBranch(String),
    /// There is such a branch.
    #[error("there is a branch {0:?} already")]
    BranchExists(String),
    /// `main` stays.
    #[error("the branch \"main\" cannot be dropped")]
    MainStays,
    /// There is no such patch on the branch.
    #[error("no patch {patch:?} is applied to branch {branch:?}")]
    NoPatch {
        /// The branch.
        branch: String,
        /// The patch.
        patch: String,
    },
    /// There is no such transaction in force on the branch.
    #[error("transaction {lsn} is not in force on branch {branch:?}")]
    NoTransaction {
        /// The branch.
        branch: String,
        /// Its number.
        lsn: u64,
    },
    /// The branch has assertions, and they were not checked against what it is now.
    #[error("the assertions of branch {branch:?} have to be checked at LSN {lsn}")]
    Unasserted {
        /// The branch.
        branch: String,
        /// Its last change.
        lsn: u64,
    },
    /// There is such a patch on the branch.
    #[error("a patch {patch:?} is applied to branch {branch:?} already")]
    PatchExists {
        /// The branch.
        branch: String,
        /// The patch.
        patch: String,
    },
    /// There is such an assertion.
    #[error("there is an assertion {0:?} already")]
    AssertionExists(String),
    /// There is no such assertion.
    #[error("there is no assertion {0:?}")]
    NoAssertion(String),
    /// A name that is none.
    #[error("{name:?} is no name of a {what}: {problem}")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name, cut at some length.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An operation that could not be read again.
    #[error("the edit cannot be kept: {0}")]
    Operation(#[from] Problem),
    /// A moment before what is retained.
    #[error("LSN {lsn} is before the history that is kept, which begins at LSN {first}")]
    Forgotten {
        /// The moment.
        lsn: u64,
        /// The first that is kept.
        first: u64,
    },
    /// A moment that has not been.
    #[error("LSN {lsn} is in the future: the last is {last}")]
    Future {
        /// The moment.
        lsn: u64,
        /// The last.
        last: u64,
    },
    /// A record is whole and makes no sense.
    #[error("record {lsn} of the log in {} {problem}", .directory.display())]
    Record {
        /// Its number.
        lsn: u64,
        /// The store's directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: DecodeError,
    },
    /// The store's files are of another version, base or kind.
    #[error("{} {problem}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The store holds something already.
    #[error("the store in {} is not empty: it is at LSN {lsn}", .directory.display())]
    NotEmpty {
        /// Its directory.
        directory: PathBuf,
        /// Its last LSN.
        lsn: u64,
    },
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// The system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the same transaction, begun anew, may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::NoTransaction { .. } | Self::Unasserted { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotDurable(error) => wal_hint(error),
            Self::NoCheckpoint(error) => error.hint(),
            Self::Wal(error) => wal_hint(error),
            Self::Conflict { .. } | Self::NoTransaction { .. } | Self::Unasserted { .. } => {
                "ROLLBACK, look again and repeat the statement"
            }
            Self::NoBranch(_) => {
                "USE CURRENT BRANCH main; SHOW BRANCHES then lists those that there are"
            }
            Self::BranchExists(_) | Self::MainStays => "SHOW BRANCHES lists those that there are",
            Self::NoPatch { .. } | Self::PatchExists { .. } => {
                "SHOW PATCHES lists those that are applied"
            }
            Self::AssertionExists(_) | Self::NoAssertion(_) => {
                "SHOW ASSERTIONS lists those that there are"
            }
            Self::Name { .. } => "choose another name",
            Self::Operation(_) => "check the numbers and the texts of the edit",
            Self::Forgotten { .. } => {
                "COMPACT MAJOR and the setting history_lsns end history; later moments can be read"
            }
            Self::Future { .. } => "SELECT * FROM larql.wal lists the moments that there are",
            Self::Record { .. } | Self::Format { .. } => SALVAGE,
            Self::NotEmpty { .. } => "import into a data directory without edits of that base",
            Self::Closed | Self::Io { .. } => RESTART,
        }
    }
}

const SALVAGE: &str =
    "larql admin wal salvage says what can be saved; restore a backup or import an export";
const RESTART: &str = "check the disk, then restart the daemon: what was acknowledged is kept";

fn wal_hint(error: &WalError) -> &'static str {
    match error {
        WalError::Lost(_) | WalError::Mark { .. } => SALVAGE,
        WalError::TooLarge { .. } => "split the patch",
        WalError::Segment { .. } => "free some space, then repeat the statement",
        WalError::Locked { .. } => {
            "connect to the daemon that runs, or give this one another --data-dir"
        }
        WalError::Poisoned | WalError::Io { .. } => RESTART,
    }
}
