//! What others publish: a model's weights and the files beside them, read in place.
//!
//! A [`Checkpoint`] joins the weight files of a model into one sorted list of tensors. Each format
//! (`safetensors.rs`, [`gguf`]) reads one file and yields names, opaque format tags, shapes and byte
//! ranges, checked against the file's length; `hub.rs` finds the files and joins them. The other
//! direction is `writer/`.
//!
//! Nothing is trusted: a shard index names plain files in its own directory, a symbolic link leads
//! nowhere but into the blob store of the hub's own cache, and no count costs memory before it was
//! compared with the bytes that are there. Tensor data may lie at any address: bytes only.

pub mod gguf;

mod error;
mod hub;
mod json;
mod safetensors;
mod writer;

pub use error::CheckpointError;
pub use gguf::GgufMetadata;
pub use writer::{
    CheckpointWriteError, GgufWriter, ModelStaging, SHARD_BYTES_DEFAULT, SafetensorsWriter,
    TensorDescription,
};

use crate::file::{Files, Mapping, is_plain_name};
use std::borrow::Cow;
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
    gguf: Option<GgufMetadata>,
}

/// The format of the weight files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointKind {
    /// safetensors, single or in shards, with the hub's files beside them.
    Safetensors,
    /// GGUF, whole or in parts, with configuration and tokenizer in its metadata.
    Gguf,
}

/// One weight file.
#[derive(Debug)]
struct Shard {
    name: String,
    mapping: Arc<dyn Mapping>,
}

/// A tensor of one file; `range` lies inside its bytes.
struct Found {
    name: String,
    /// The element format as the file calls it.
    format: Cow<'static, str>,
    /// Outermost first.
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A stranger's name, quoted and short enough for a message.
fn shorten(name: &str) -> String {
    const CHARS_MAX: usize = 100;
    match name.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// Where a tensor lies.
#[derive(Debug)]
struct TensorEntry {
    name: String,
    format: Cow<'static, str>,
    shape: Vec<usize>,
    shard: usize,
    range: Range<usize>,
}

/// One tensor of a checkpoint, read in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element format as the file calls it: `F32`, `F16`, `BF16`, `Q4_K`, …
    pub format: &'a str,
    /// Its dimensions, outermost first.
    pub shape: &'a [usize],
    /// Its bytes, at any alignment; as many as format and shape ask for.
    pub bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens a hub-layout directory, or a single `.safetensors` or `.gguf` file.
    ///
    /// The weights of a directory are `model.safetensors`, else the shards that
    /// `model.safetensors.index.json` names, else the one `.safetensors` file there is, else the one
    /// GGUF model. Of a GGUF model in parts (`NAME-00001-of-00003.gguf`) any part stands for all.
    ///
    /// # Errors
    /// Everything that is wrong with the files, each named; nothing is kept open.
    pub fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self, CheckpointError> {
        let (directory, names) = hub::find_weights(files, path)?;
        let mut shards = Vec::new();
        let mut tensors = Vec::new();
        let mut metadata = Vec::new();
        for name in names.shards() {
            let damaged =
                |problem| CheckpointError::Damaged { path: directory.join(name), problem };
            let mapping = hub::map(files, &directory, name)?;
            let found = match names.kind() {
                CheckpointKind::Safetensors => {
                    safetensors::parse(mapping.bytes()).map_err(damaged)?
                }
                CheckpointKind::Gguf => {
                    let (part, found) = gguf::parse(&mapping).map_err(damaged)?;
                    metadata.push(part);
                    found
                }
            };
            let shard = shards.len();
            tensors.extend(found.into_iter().map(|Found { name, format, shape, range }| {
                TensorEntry { name, format, shape, shard, range }
            }));
            shards.push(Shard { name: name.to_owned(), mapping });
        }
        if names.kind() == CheckpointKind::Gguf {
            gguf::check_parts(&metadata, tensors.len()).map_err(|(part, problem)| {
                CheckpointError::Damaged { path: directory.join(&shards[part].name), problem }
            })?;
        }
        let tensors = names.select(&directory, &shards, tensors)?;
        if tensors.is_empty() {
            return Err(CheckpointError::NoWeights { directory });
        }
        let gguf = metadata.into_iter().next();
        Ok(Self { files: files.clone(), directory, shards, tensors, gguf })
    }

    /// The format of the weight files.
    pub fn kind(&self) -> CheckpointKind {
        if self.gguf.is_some() { CheckpointKind::Gguf } else { CheckpointKind::Safetensors }
    }

    /// The metadata of a GGUF model, of its first part where it has several.
    pub fn gguf(&self) -> Option<&GgufMetadata> {
        self.gguf.as_ref()
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
        Some(self.tensor_at(self.position(name)?))
    }

    /// Where a tensor stands among [`Checkpoint::tensors`]: for those who look it up often.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()
    }

    /// The tensor at a position; panics if there is none.
    pub fn tensor_at(&self, position: usize) -> Tensor<'_> {
        self.view(&self.tensors[position])
    }

    /// Which of [`Checkpoint::weight_files`] holds the tensor at a position, and which of its bytes
    /// are the tensor's; panics if there is none.
    pub fn place(&self, position: usize) -> (usize, Range<usize>) {
        let entry = &self.tensors[position];
        (entry.shard, entry.range.clone())
    }

    fn view<'a>(&'a self, entry: &'a TensorEntry) -> Tensor<'a> {
        // The parser compared every range with this very mapping.
        let bytes = &self.shards[entry.shard].mapping.bytes()[entry.range.clone()];
        Tensor { name: &entry.name, format: &entry.format, shape: &entry.shape, bytes }
    }

    /// Hints that a tensor is about to be read.
    pub fn will_need(&self, name: &str) {
        if let Some(position) = self.position(name) {
            let entry = &self.tensors[position];
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
