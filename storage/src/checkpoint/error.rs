//! Why a checkpoint was refused.

use std::io;
use std::path::PathBuf;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is nothing at this path.
    #[error("{} does not exist", .path.display())]
    NoSuchPath {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The directory holds no weights that are read here.
    #[error("{} holds no weights: neither .safetensors nor .gguf files", .directory.display())]
    NoWeights {
        /// The directory.
        directory: PathBuf,
    },
    /// Several weight files, and nothing says which belong together.
    #[error("{} holds {count} .safetensors files but no model.safetensors.index.json", .directory.display())]
    NoIndex {
        /// The directory.
        directory: PathBuf,
        /// Weight files in it.
        count: usize,
    },
    /// Several GGUF models, and nothing says which is meant.
    #[error("{} holds {count} GGUF models", .directory.display())]
    SeveralModels {
        /// The directory.
        directory: PathBuf,
        /// Models in it, each counted once however many files it has.
        count: usize,
    },
    /// A file is named that cannot lie in this directory.
    #[error("{} names {name:?}, which is not a plain file name", .file.display())]
    FileName {
        /// Who names it.
        file: PathBuf,
        /// The name.
        name: String,
    },
    /// A file is a symbolic link out of the checkpoint.
    #[error("{} is a symbolic link that leaves the checkpoint", .path.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
    },
    /// A file that the index names is not there.
    #[error("{} is missing", .path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file contradicts itself or its index.
    #[error("{} cannot be used: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file changed under the mapping.
    #[error("the checkpoint changed while it was in use: {0}")]
    Changed(#[source] io::Error),
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

impl CheckpointError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoSuchPath { .. } => "check the path",
            Self::NoWeights { .. } => {
                "name a directory with safetensors weights, as the hub lays it out, or a .gguf file"
            }
            Self::NoIndex { .. } => "download model.safetensors.index.json too, or name one file",
            Self::SeveralModels { .. } => "name one of its .gguf files",
            Self::FileName { .. } | Self::LinkOutside { .. } => {
                "copy the files into one directory, and download the index again"
            }
            Self::MissingFile { .. } => "the download is incomplete: download it again",
            Self::Damaged { .. } => "download the file again, or convert the model again",
            Self::Changed(_) => "restore the file and open the checkpoint again",
            Self::Io { .. } => "check that it is a readable regular file",
        }
    }
}
