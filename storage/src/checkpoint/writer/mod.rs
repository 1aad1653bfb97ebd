//! Writing what others read: model directories with safetensors or GGUF weights.
//!
//! A [`ModelStaging`] is where a model is put together, beside its destination and under a lock:
//! side files, then weights through [`SafetensorsWriter`] or [`GgufWriter`]. Those know every tensor's
//! name, format and shape first and take the bytes afterwards, in the order that they ask for, so that
//! nothing is held in memory. [`ModelStaging::finish`] moves the model in whole; until then, and
//! after any failure, the destination is as it was.
//!
//! The same tensors give the same bytes. Nobody retries a failed sync.

mod gguf;
mod safetensors;
mod staging;

pub use gguf::GgufWriter;
pub use safetensors::{SHARD_BYTES_DEFAULT, SafetensorsWriter};
pub use staging::ModelStaging;

use crate::file::{ExactWriter, FileWrite};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a tensor will be, before its bytes are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDescription {
    /// Its name.
    pub name: String,
    /// Its element format as the file calls it: `BF16`, `F8_E4M3`; in GGUF also `Q4_K`, ….
    pub format: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointWriteError {
    /// Something is at the destination.
    #[error("{} exists already", .destination.display())]
    DestinationExists {
        /// The destination.
        destination: PathBuf,
    },
    /// What is to be overwritten is no model.
    #[error("{} is not a model, so it is not overwritten", .destination.display())]
    DestinationIsNotAModel {
        /// The destination.
        destination: PathBuf,
    },
    /// Another writer works on the same destination.
    #[error("{} is being written by somebody else", .destination.display())]
    Busy {
        /// The destination.
        destination: PathBuf,
    },
    /// Something that no writer left is where the model would be put together.
    #[error("{} is in the way", .staging.display())]
    StagingOccupied {
        /// The staging directory.
        staging: PathBuf,
    },
    /// A name that no file of a model has, or that is taken.
    #[error("{name:?} cannot be a file of the model: {problem}")]
    FileName {
        /// The name.
        name: String,
        /// Why not.
        problem: &'static str,
    },
    /// The format cannot hold the tensor.
    #[error("tensor {name:?} cannot be written: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// Another number of bytes arrived than format and shape ask for.
    #[error("tensor {name:?} takes {expected} bytes, {written} were written")]
    WrongLength {
        /// Its name.
        name: String,
        /// Bytes that it takes.
        expected: u64,
        /// Bytes written, up to the first too many.
        written: u64,
    },
    /// The tensors did not come as announced.
    #[error("{got} was written where {expected} was to come")]
    Order {
        /// What was to come.
        expected: String,
        /// What came.
        got: String,
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

impl CheckpointWriteError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DestinationExists { .. } => "add OVERWRITE to replace it, or name another path",
            Self::DestinationIsNotAModel { .. } => "name another path, or remove it yourself",
            Self::Busy { .. } => "wait for the other COMPILE to end, or cancel it",
            Self::StagingOccupied { .. } => "look at it, and remove it",
            Self::FileName { .. } => "name another file",
            Self::Tensor { .. } => "write another format or element type",
            Self::WrongLength { .. } | Self::Order { .. } => {
                "this is a fault of the program: report it"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk, then try again"
            }
            Self::Io { .. } => "check the path, its permissions and the disk",
        }
    }
}

type Result<T, E = CheckpointWriteError> = std::result::Result<T, E>;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointWriteError {
    let path = path.to_path_buf();
    move |source| CheckpointWriteError::Io { action, path, source }
}

/// One weight file in the making.
struct WeightFile {
    path: PathBuf,
    write: Box<dyn FileWrite>,
}

impl WeightFile {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write.write_all(bytes).map_err(io_error("write", &self.path))
    }

    /// Zeros up to a multiple of `alignment`.
    fn pad(&mut self, alignment: u64) -> Result<()> {
        let wanted = self.write.position().next_multiple_of(alignment) - self.write.position();
        let zeros = [0; 4_096];
        let mut left = wanted as usize;
        while left > 0 {
            let now = left.min(zeros.len());
            self.put(&zeros[..now])?;
            left -= now;
        }
        Ok(())
    }

    /// Takes the bytes of a tensor, exactly as many as it has.
    fn tensor(
        &mut self,
        name: &str,
        expected: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let mut exact = ExactWriter::new(&mut *self.write, expected);
        match write(&mut exact) {
            Err(error) if !exact.is_surplus() => Err(io_error("write", &self.path)(error)),
            _ => exact.finish().map_err(|written| {
                let name = name.to_owned();
                CheckpointWriteError::WrongLength { name, expected, written }
            }),
        }
    }

    fn sync(mut self) -> Result<()> {
        self.write.sync().map_err(io_error("sync", &self.path))
    }
}

/// Refuses a tensor that is not the next one.
fn require_next(expected: Option<&str>, got: &str) -> Result<()> {
    if expected == Some(got) {
        return Ok(());
    }
    let expected = expected.map_or("the end".to_owned(), |name| format!("tensor {name:?}"));
    Err(CheckpointWriteError::Order { expected, got: format!("tensor {got:?}") })
}

/// Refuses the end while there is more to come.
fn require_end(expected: Option<&str>) -> Result<()> {
    match expected {
        None => Ok(()),
        Some(name) => {
            let expected = format!("tensor {name:?}");
            Err(CheckpointWriteError::Order { expected, got: "the end".to_owned() })
        }
    }
}

/// Refuses two tensors of one name.
fn require_distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(twins) => {
            let problem = "another tensor has this name".to_owned();
            Err(CheckpointWriteError::Tensor { name: twins[0].to_owned(), problem })
        }
    }
}
