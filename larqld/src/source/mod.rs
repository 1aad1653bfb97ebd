//! A published model as the family that it says it is: tensors found, checked and given out by role.
//!
//! [`SourceModel`] joins a checkpoint (safetensors, GGUF or MLX) with the [`Architecture`] that its
//! configuration describes. Whoever reads a checkpoint (a mount that uses it directly, EXTRACT,
//! COMPILE) reads it through here, so there is one place that knows what a family's tensors are called
//! and how publishers store them: `resolve` compares, `stored` gives bytes meaning, `quantisation`
//! says which scales belong to which weights, `tied` whether the embedding is the unembedding too,
//! `unpack` takes apart what cannot be used in place, and
//! [`gguf`] turns a GGUF file's metadata into the texts that a hub checkpoint has beside its weights.
//!
//! Weights are views of the mapped files wherever rows lie as rows. Opening reads no weights.

pub mod gguf;

mod quantisation;
mod resolve;
mod stored;
mod tied;
mod unpack;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use larql_compute::model::{Architecture, Matrix, Naming, Orientation, WeightKey, Weights};
use larql_compute::quant::{MatrixView, ViewError};
use larql_storage::checkpoint::{Checkpoint, Tensor};
use larql_storage::file::Files;

pub use resolve::Resolved;
pub use stored::{ScalesLayout, Stored, StoredBytes};

use self::gguf::GgufDescription;
use self::quantisation::Quantisation;
use self::resolve::Resolver;
use self::unpack::Unpacked;
use crate::failure::{Failure, code};

/// A checkpoint, the model that it is, and where each of its weights lies.
#[derive(Debug)]
pub struct SourceModel {
    path: PathBuf,
    checkpoint: Checkpoint,
    architecture: Architecture,
    texts: Texts,
    /// What a user should know about how the checkpoint was read.
    notes: Vec<String>,
    /// In order of use.
    weights: Vec<Weight>,
    by_key: HashMap<WeightKey, usize>,
}

/// Configuration and tokenizer as their publisher wrote them.
#[derive(Debug)]
pub struct Identity<'a> {
    /// `config.json`, or the metadata of a GGUF file, which is both.
    pub config: Cow<'a, [u8]>,
    /// `tokenizer.json`; empty where there is none.
    pub tokenizer: Cow<'a, [u8]>,
}

/// Where the texts beside the weights come from.
#[derive(Debug)]
enum Texts {
    /// Files of the checkpoint; the one that everybody reads is kept.
    Hub { config: String },
    /// The metadata of a GGUF file, which says the same in its own way.
    Gguf(GgufDescription),
}

impl Texts {
    fn config(&self) -> &str {
        match self {
            Self::Hub { config } => config,
            Self::Gguf(description) => &description.config,
        }
    }
}

/// A resolved weight, and what was made of it when it was first used.
#[derive(Debug)]
struct Weight {
    resolved: Resolved,
    unpacked: OnceLock<Option<Unpacked>>,
    vector: OnceLock<Option<Vec<f32>>>,
}

impl SourceModel {
    /// Opens a checkpoint directory or file and finds every weight of the model in it.
    ///
    /// # Errors
    /// A failure that names the path, and the key or tensor that is missing, unknown or of another
    /// shape or type than the model's family and configuration make it.
    pub fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::open(files, path)?;
        let (naming, texts) = match checkpoint.gguf() {
            None => (Naming::Hub, Texts::Hub { config: hub_config(path, &checkpoint)? }),
            Some(metadata) => {
                let description = gguf::describe(metadata, &checkpoint);
                (Naming::Gguf, Texts::Gguf(description.map_err(|failure| at(path, failure))?))
            }
        };
        let mut architecture = architecture(path, texts.config().as_bytes())?;
        if naming == Naming::Gguf {
            gguf::check_all_used(&checkpoint, &architecture)
                .map_err(|failure| at(path, failure))?;
        }
        let quantisation = Quantisation::from_config(path, texts.config())?;
        let resolver = Resolver { path, checkpoint: &checkpoint, quantisation: &quantisation };
        let mut notes = match &texts {
            Texts::Hub { .. } => Vec::new(),
            Texts::Gguf(description) => description.notes.clone(),
        };
        if architecture.tied_embeddings && !tied::holds(&resolver, &architecture, naming)? {
            architecture.tied_embeddings = false;
            notes.push(tied::NOTE.to_owned());
        }
        let mut weights: Vec<Weight> = Vec::new();
        for spec in architecture.tensors(naming) {
            let resolved = resolver.resolve(&spec)?;
            let new = |found: &Resolved| spec.required || !tied::is_there(&weights, found);
            weights.extend(resolved.filter(new).map(Weight::new));
        }
        let by_key = weights.iter().enumerate().map(|(at, weight)| (weight.resolved.key, at));
        let by_key = by_key.collect();
        let path = path.to_owned();
        Ok(Self { path, checkpoint, architecture, texts, notes, weights, by_key })
    }

    /// What was named when it was opened: a directory or a file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files underneath.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The model's description.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The `config.json` that describes the model: the checkpoint's own, or one made from the
    /// metadata of a GGUF file.
    pub fn config(&self) -> &str {
        self.texts.config()
    }

    /// What a user should know about how the checkpoint was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Every weight that the checkpoint holds, in order of use.
    pub fn weights(&self) -> impl Iterator<Item = &Resolved> {
        self.weights.iter().map(|weight| &weight.resolved)
    }

    /// Every weight that the checkpoint holds, with the bytes that reading it takes.
    pub fn held(&self) -> HashMap<WeightKey, u64> {
        let bytes = |weight: &Weight| weight.resolved.bytes_touched(&self.checkpoint);
        self.weights.iter().map(|weight| (weight.resolved.key, bytes(weight))).collect()
    }

    /// What makes up the model's identity beside its tensors.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn identity(&self) -> Result<Identity<'_>, Failure> {
        if let Some(metadata) = self.checkpoint.gguf() {
            let config = Cow::Borrowed(metadata.encoded_entries());
            return Ok(Identity { config, tokenizer: Cow::Borrowed(&[]) });
        }
        let tokenizer = self.checkpoint.side_file("tokenizer.json")?.unwrap_or_default();
        let config = Cow::Borrowed(self.texts.config().as_bytes());
        Ok(Identity { config, tokenizer: Cow::Owned(tokenizer) })
    }

    /// Where a weight lies.
    pub fn weight(&self, key: WeightKey) -> Option<&Resolved> {
        self.by_key.get(&key).map(|&at| &self.weights[at].resolved)
    }

    /// The name of the tensor that holds a weight.
    pub fn name(&self, weight: &Resolved) -> &str {
        self.stored_tensors(weight).next().map_or("", |tensor| tensor.name)
    }

    /// The bytes of the stored slice that holds a weight, with its scales.
    pub fn stored_bytes(&self, weight: &Resolved) -> StoredBytes<'_> {
        self.weight(weight.key).map(|own| own.bytes(&self.checkpoint)).unwrap_or_default()
    }

    /// The stored slice that holds a weight: `[total, inputs]`, `[inputs, total]` where it is
    /// transposed, or one row for a vector. Which part of it the weight is says [`Resolved::part`].
    ///
    /// # Errors
    /// When the file underneath is no longer what it was.
    pub fn slice(&self, weight: &Resolved) -> Result<MatrixView<'_>, ViewError> {
        weight.stored.view(self.stored_bytes(weight))
    }

    /// The numbers of a vector, which are not kept in memory as those of [`Weights::vector`] are.
    ///
    /// # Errors
    /// `DAMAGED` when the weight is no vector, or the file underneath is no longer what it was.
    pub fn read_vector(&self, weight: &Resolved) -> Result<Vec<f32>, Failure> {
        let broken = || Failure::new(code::DAMAGED, format!("{} cannot be read", weight.key));
        let &[count] = &weight.shape[..] else { return Err(broken()) };
        let slice = self.slice(weight).map_err(|_| broken())?;
        unpack::vector(&slice, count, weight.order(), weight.part.minus).map_err(|_| broken())
    }

    /// The stored tensors that make up a weight, the elements first and its scales after them. The
    /// same tensors serve several weights where a publisher joined them.
    pub fn stored_tensors(&self, weight: &Resolved) -> impl Iterator<Item = Tensor<'_>> {
        weight.positions().map(|position| self.checkpoint.tensor_at(position))
    }

    /// The tensors of the checkpoint that are no part of any weight, sorted by name.
    pub fn other_tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        let used: HashSet<usize> =
            self.weights.iter().flat_map(|weight| weight.resolved.positions()).collect();
        let positions = self.checkpoint.tensors().enumerate();
        positions.filter(move |(position, _)| !used.contains(position)).map(|(_, tensor)| tensor)
    }

    /// A text that lies beside the weights, such as `tokenizer.json`: the checkpoint's file, or what
    /// the metadata of a GGUF file says in its place.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Texts::Gguf(description) = &self.texts else {
            return Ok(self.checkpoint.side_file(name)?);
        };
        let text = |text: &str| text.as_bytes().to_vec();
        Ok(match name {
            "config.json" => Some(text(&description.config)),
            "tokenizer.json" => description.tokenizer.clone(),
            "tokenizer_config.json" => description.tokenizer_config.clone(),
            "generation_config.json" => description.generation_config.as_deref().map(text),
            _ => None,
        })
    }

    /// Fails if a file changed under its mapping.
    ///
    /// # Errors
    /// `DAMAGED`, naming the file.
    pub fn check(&self) -> Result<(), Failure> {
        Ok(self.checkpoint.check()?)
    }
}

impl Weights for SourceModel {
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>> {
        self.weights[*self.by_key.get(&key)?].matrix(&self.checkpoint)
    }

    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>> {
        self.weights[*self.by_key.get(&key)?].vector(&self.checkpoint).map(Cow::Borrowed)
    }
}

impl Weight {
    fn new(resolved: Resolved) -> Self {
        Self { resolved, unpacked: OnceLock::new(), vector: OnceLock::new() }
    }

    fn matrix<'a>(&'a self, checkpoint: &'a Checkpoint) -> Option<Matrix<'a>> {
        let weight = &self.resolved;
        let &[outputs, inputs] = &weight.shape[..] else { return None };
        // Lengths, types and ranges were checked when the weight was resolved.
        let slice = weight.stored.view(weight.bytes(checkpoint)).ok()?;
        let part = &weight.part;
        if part.transposed && weight.is_whole() {
            return Some(Matrix { view: slice, orientation: Orientation::InOut });
        }
        if !part.transposed && part.minus == 0.0 {
            let view = slice.select(outputs, weight.order()).ok()?;
            return Some(Matrix { view, orientation: Orientation::OutIn });
        }
        let unpacked = self.unpacked.get_or_init(|| match part.transposed {
            true => Some(unpack::columns(part, &slice, outputs)),
            false => {
                let rows = slice.select(outputs, weight.order()).ok()?;
                Some(unpack::rows_less(&rows, part.minus))
            }
        });
        let Unpacked { dtype, bytes } = unpacked.as_ref()?;
        let view = MatrixView::new(*dtype, outputs, inputs, bytes).ok()?;
        Some(Matrix { view, orientation: Orientation::OutIn })
    }

    fn vector<'a>(&'a self, checkpoint: &Checkpoint) -> Option<&'a [f32]> {
        let weight = &self.resolved;
        let &[count] = &weight.shape[..] else { return None };
        let decode = || {
            let slice = weight.stored.view(weight.bytes(checkpoint)).ok()?;
            unpack::vector(&slice, count, weight.order(), weight.part.minus).ok()
        };
        self.vector.get_or_init(decode).as_deref()
    }
}

/// Reads a `config.json` whose model lies at `path`.
///
/// # Errors
/// `UNSUPPORTED_FORMAT`, naming the directory and the key, with what can be done.
pub(crate) fn architecture(path: &Path, config: &[u8]) -> Result<Architecture, Failure> {
    let text = String::from_utf8_lossy(config);
    Architecture::from_config(&text).map_err(|error| at(path, Failure::from(error)))
}

/// The same failure, of the model at `path`.
fn at(path: &Path, failure: Failure) -> Failure {
    Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
}

fn hub_config(path: &Path, checkpoint: &Checkpoint) -> Result<String, Failure> {
    let config = checkpoint.side_file("config.json")?.ok_or_else(|| {
        let message = format!("{} has no config.json", path.display());
        Failure::new(code::UNSUPPORTED_FORMAT, message).hint(
            "name a vindex directory, a GGUF file, or a checkpoint directory with config.json and \
             safetensors files",
        )
    })?;
    Ok(String::from_utf8_lossy(&config).into_owned())
}
