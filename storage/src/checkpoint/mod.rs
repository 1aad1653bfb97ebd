//! What others publish: a model's weights and the files beside them, read in place.
//!
//! A [`Checkpoint`] joins the weight files of a directory into one sorted list of tensors. Formats are
//! files of this folder (`safetensors.rs` reads one file, `hub.rs` finds and joins them); each
//! yields names, opaque format tags, shapes and byte ranges, checked against the file's length.
//!
//! Nothing is trusted: a shard index names plain files in its own directory, a symbolic link leads
//! nowhere but into the blob store of the hub's own cache, and no count costs memory before it was
//! compared with the bytes that are there. Tensor data may lie at any address: bytes only.

mod error;
mod hub;
mod json;
mod safetensors;

pub use error::CheckpointError;

use crate::file::{Files, Mapping, is_plain_name};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest `config.json` and other side file that is read.
const SIDE_FILE_BYTES_MAX: u64 = 1 << 20;
/// Largest tokenizer that is read.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;

/// The weights that somebody published, and the files beside them.
#[derive(Debug)]
pub struct Checkpoint {
    files: Arc<dyn Files>,
    directory: PathBuf,
    shards: Vec<Shard>,
    /// Sorted by name.
    tensors: Vec<TensorEntry>,
}

/// One weight file.
#[derive(Debug)]
struct Shard {
    name: String,
    mapping: Arc<dyn Mapping>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct TensorEntry {
    name: String,
    format: String,
    shape: Vec<usize>,
    shard: usize,
    range: Range<usize>,
}

/// One tensor of a checkpoint, read in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element format as the file calls it: `F32`, `F16`, `BF16`, …
    pub format: &'a str,
    /// Its dimensions, outermost first.
    pub shape: &'a [usize],
    /// Its bytes, at any alignment; as many as format and shape ask for.
    pub bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens a hub-layout directory, or a single `.safetensors` file.
    ///
    /// Weights are `model.safetensors`, else the shards that `model.safetensors.index.json` names,
    /// else the one `.safetensors` file there is.
    pub fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self, CheckpointError> {
        let (directory, names) = hub::find_weights(files, path)?;
        let mut shards = Vec::with_capacity(names.len());
        let mut tensors = Vec::new();
        for name in names.shards() {
            let mapping = hub::map(files, &directory, name)?;
            let found = safetensors::parse(mapping.bytes()).map_err(|problem| {
                CheckpointError::Damaged { path: directory.join(name), problem }
            })?;
            let shard = shards.len();
            tensors.extend(found.into_iter().map(|tensor| TensorEntry {
                name: tensor.name,
                format: tensor.format,
                shape: tensor.shape,
                shard,
                range: tensor.range,
            }));
            shards.push(Shard { name: name.to_owned(), mapping });
        }
        let tensors = names.select(&directory, &shards, tensors)?;
        if tensors.is_empty() {
            return Err(CheckpointError::NoWeights { directory });
        }
        Ok(Self { files: files.clone(), directory, shards, tensors })
    }

    /// The directory that holds the files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().map(|entry| self.view(entry))
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let found = self.tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(self.view(&self.tensors[found]))
    }

    fn view<'a>(&'a self, entry: &'a TensorEntry) -> Tensor<'a> {
        // The parser compared every range with this very mapping.
        let bytes = &self.shards[entry.shard].mapping.bytes()[entry.range.clone()];
        Tensor { name: &entry.name, format: &entry.format, shape: &entry.shape, bytes }
    }

    /// Hints that a tensor is about to be read.
    pub fn will_need(&self, name: &str) {
        if let Ok(found) = self.tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)) {
            let entry = &self.tensors[found];
            self.shards[entry.shard].mapping.will_need(entry.range.clone());
        }
    }

    /// Name and bytes of every weight file, in the order that they were read.
    pub fn weight_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.shards.iter().map(|shard| (shard.name.as_str(), shard.mapping.bytes()))
    }

    /// A file beside the weights, such as `config.json` (at most 1 MiB) or `tokenizer.json` (at most
    /// 256 MiB); `None` when there is none.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        if !is_plain_name(name) {
            let file = self.directory.clone();
            return Err(CheckpointError::FileName { file, name: name.to_owned() });
        }
        let path = match hub::resolve(&self.files, &self.directory, name) {
            Err(CheckpointError::MissingFile { .. }) => return Ok(None),
            path => path?,
        };
        let tokenizer =
            name.starts_with("tokenizer") || name.starts_with("vocab") || name == "merges.txt";
        let bytes_max = if tokenizer { TOKENIZER_BYTES_MAX } else { SIDE_FILE_BYTES_MAX };
        match self.files.read(&path, bytes_max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Io { action: "read", path, source }),
        }
    }

    /// Says whether every weight file is still as long as when it was mapped.
    ///
    /// # Errors
    /// `Changed`, naming the file; whatever was read in the meantime may have been zeros.
    pub fn check(&self) -> Result<(), CheckpointError> {
        let mut mappings = self.shards.iter().map(|shard| &shard.mapping);
        mappings.try_for_each(|mapping| mapping.check()).map_err(CheckpointError::Changed)
    }

    /// Bytes of all weight files.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.mapping.bytes().len() as u64).sum()
    }
}
