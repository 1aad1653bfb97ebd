//! What runs of a model leave in files: the residual stream of a prompt, whole or at the ends of
//! windows.
//!
//! Three formats, the ancestor's version 1 of each, told apart by their first four bytes:
//! [`TraceChain`] holds every token and layer, [`BoundaryStore`] the stream at the end of each window
//! of tokens, [`TieredContext`] that and what some layers added. Where the ancestor reserves bytes,
//! files written here name the model (the SHA-256 of its base); files without it are read as well.
//!
//! Promises: a reader checks every count against the file's length before anything is read, and reads
//! from the mapping in place; a writer puts a file together beside its destination and moves it in
//! whole, never over something that is there.
//!
//! Elsewhere: bytes in words (`docs/formats/trace.md`), what the numbers mean (`larqld/src/exec/trace`).

mod boundaries;
mod chain;
mod context;
mod header;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use boundaries::{BOUNDARIES_MAX, BoundaryHeader, BoundaryStore, BoundaryWriter};
pub use chain::{ChainHeader, ChainWriter, Node, TraceChain};
pub use context::{
    CRITICAL_LAYERS_MAX, ContextHeader, ContextVectors, ContextWriter, Tier, TieredContext,
};

use crate::file::{Files, Mapping};
use crate::vindex::Checksum;

/// The version of all three formats that is read and written.
pub const VERSION: u32 = 1;

/// A window of tokens whose end is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first token's position.
    pub token_first: u32,
    /// Tokens in it.
    pub tokens: u32,
}

impl Window {
    /// The position that is kept: the last one.
    pub fn boundary(&self) -> u64 {
        (u64::from(self.token_first) + u64::from(self.tokens)).saturating_sub(1)
    }

    /// The windows of so many tokens, each of `size` tokens but the last, which may be shorter.
    pub fn of(tokens: u32, size: u32) -> impl ExactSizeIterator<Item = Self> {
        let count = tokens.div_ceil(size.max(1));
        (0..count).map(move |index| {
            let token_first = index * size;
            Self { token_first, tokens: size.min(tokens - token_first) }
        })
    }
}

/// Any of the three files.
#[derive(Debug)]
pub enum TraceFile {
    /// Every token and layer.
    Chain(TraceChain),
    /// Ends of windows.
    Boundaries(BoundaryStore),
    /// Ends of windows with what some layers added.
    Context(TieredContext),
}

impl TraceFile {
    /// Maps a file and checks it, whichever of the three it is.
    ///
    /// # Errors
    /// `Io`; what is wrong with the file.
    pub fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self, TraceFileError> {
        let mapping = files.map(path).map_err(|source| TraceFileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(mapping)
    }

    /// Checks a mapped file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, TraceFileError> {
        let magic = mapping.bytes().first_chunk::<4>().copied();
        match magic.as_ref() {
            Some(&chain::MAGIC) => TraceChain::parse(mapping).map(Self::Chain),
            Some(&boundaries::MAGIC) => BoundaryStore::parse(mapping).map(Self::Boundaries),
            Some(&context::MAGIC) => TieredContext::parse(mapping).map(Self::Context),
            _ => Err(TraceFileError::Magic { found: magic }),
        }
    }

    /// Numbers in a vector.
    pub fn hidden(&self) -> u32 {
        match self {
            Self::Chain(chain) => chain.header().hidden,
            Self::Boundaries(store) => store.header().hidden,
            Self::Context(context) => context.header().hidden,
        }
    }

    /// Layers of the model, where the file says so.
    pub fn layers(&self) -> Option<u32> {
        match self {
            Self::Chain(chain) => Some(chain.header().layers),
            Self::Boundaries(_) => None,
            Self::Context(context) => Some(context.header().layers),
        }
    }

    /// The base of the model, where the file names it.
    pub fn base(&self) -> Option<Checksum> {
        match self {
            Self::Chain(chain) => chain.header().base,
            Self::Boundaries(store) => store.header().base,
            Self::Context(context) => context.header().base,
        }
    }

    /// As [`Mapping::check`].
    ///
    /// # Errors
    /// When the file was truncated under the mapping.
    pub fn check(&self) -> io::Result<()> {
        match self {
            Self::Chain(chain) => chain.check(),
            Self::Boundaries(store) => store.check(),
            Self::Context(context) => context.check(),
        }
    }
}

/// Why a trace file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceFileError {
    /// The first bytes are those of something else.
    #[error("it is no trace: it does not begin with TRAC, BNDX or CTXT{}", .found.map_or(String::new(), |found| format!(" ({})", found.escape_ascii())))]
    Magic {
        /// The first four bytes, if there are so many.
        found: Option<[u8; 4]>,
    },
    /// Another version of the format.
    #[error("its version is {found}, this program reads {VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// The file is shorter than what it says it holds.
    #[error("it ends inside {what}: {wanted} bytes are needed, it has {bytes}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes up to its end, saturated.
        wanted: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// The file is longer than what it says it holds.
    #[error("{surplus} bytes follow its last vector")]
    TrailingBytes {
        /// How many.
        surplus: u64,
    },
    /// A field that makes no trace.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        expected: String,
    },
    /// The format cannot hold so much.
    #[error("{what} is {count}, and the format holds at most {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        count: u64,
        /// How much there may be.
        max: u64,
    },
    /// Something is at the destination.
    #[error("{} exists already", .path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Another writer works on the same destination.
    #[error("{} is being written by somebody else", .path.display())]
    Busy {
        /// The destination.
        path: PathBuf,
    },
    /// Another number of vectors was written than announced.
    #[error("{written} numbers were written, {announced} were announced")]
    Incomplete {
        /// Numbers announced.
        announced: u64,
        /// Numbers written, up to the first row too many.
        written: u64,
    },
    /// The system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl TraceFileError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Magic { .. } => "TRACE … SAVE \"file.trace\" writes one",
            Self::Version { .. } => "write it again with this version",
            Self::Truncated { .. } | Self::TrailingBytes { .. } | Self::Field { .. } => {
                "the file is damaged or incomplete: write it again"
            }
            Self::TooLarge { .. } => "trace a shorter prompt, or SET trace_window to more",
            Self::Exists { .. } => "name another file, or remove it yourself",
            Self::Busy { .. } => "wait for the other TRACE to end, or cancel it",
            Self::Incomplete { .. } => "this is a fault of the program: report it",
            Self::Io { .. } => "",
        }
    }
}
