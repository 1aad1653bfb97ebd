//! One open model: tensors by role, tokens, labels, and what is missing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use larql_compute::cpu::Cancel;
use larql_compute::model::{Architecture, Matrix, Naming, Orientation, Role, WeightKey, Weights};
use larql_compute::quant::{Dtype, MatrixView, to_f32};
use larql_planner::catalog::{Bands, Component, Extraction, INFERENCE_COMPONENTS};
use larql_planner::physical::plan::Quantisation;
use larql_storage::checkpoint::Checkpoint;
use larql_storage::file::Files;
use larql_storage::vindex::{DownMeta, GateMeta, Layout, TensorKey, Vindex};

use super::checkpoint_base_hash;
use crate::failure::{Failure, code};
use crate::text::{ChatTemplate, ChatTemplateError, Tokenizer};

/// What a directory turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An extracted vindex.
    Vindex,
    /// A published checkpoint, used as it is.
    Checkpoint,
}

impl Kind {
    /// The kind's word, as in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vindex => "vindex",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Where a model's bytes come from.
#[derive(Debug)]
pub enum Source {
    /// An extracted vindex.
    Vindex(Box<Vindex>),
    /// A published checkpoint.
    Checkpoint(Box<Checkpoint>),
}

/// Where one tensor lies and how it is to be read.
#[derive(Debug, Clone)]
struct Placed {
    /// How the source finds it: a manifest key, or a tensor name.
    key: PlacedKey,
    dtype: Dtype,
    rows: usize,
    columns: usize,
    orientation: Orientation,
    bytes: u64,
}

#[derive(Debug, Clone)]
enum PlacedKey {
    Vindex(TensorKey),
    Checkpoint(String),
}

/// An open model.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    source: Source,
    architecture: Architecture,
    placed: HashMap<WeightKey, Placed>,
    base_hash: String,
    tokenizer: OnceLock<Result<Tokenizer, Failure>>,
    /// Where the checkpoint lies that the vindex was made from, as far as this daemon knows.
    extracted_from: Option<PathBuf>,
}

impl Model {
    /// Opens a directory, whichever of the two it is.
    ///
    /// # Errors
    /// A failure that names the directory and what is wrong with it.
    pub fn open(files: &Arc<dyn Files>, path: &Path, cancel: &Cancel) -> Result<Self, Failure> {
        if files.metadata(&path.join("index.json")).is_ok() {
            Self::open_vindex(files, path)
        } else {
            Self::open_checkpoint(files, path, cancel)
        }
    }

    /// Opens a vindex directory.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_vindex(files: &Arc<dyn Files>, path: &Path) -> Result<Self, Failure> {
        let vindex = Vindex::open(files, path)?;
        let config = vindex.side_file("config.json")?.ok_or_else(|| lacks(path, "config.json"))?;
        let architecture = architecture(path, &config)?;
        check_manifest(path, &vindex, &architecture)?;
        let mut placed = HashMap::new();
        for spec in architecture.tensors(Naming::Hub) {
            let WeightKey { role, layer, expert } = spec.key;
            let key = TensorKey { role: role.as_str().into(), layer, expert };
            let Some(found) = vindex.tensor(&key) else { continue };
            let (orientation, transposed) = match found.record.layout {
                Layout::RowMajor => (Orientation::OutIn, false),
                Layout::FeatureMajor => (Orientation::InOut, true),
                other => {
                    let message =
                        format!("{}: the layout {other:?} is of a newer version", path.display());
                    return Err(Failure::new(code::UNSUPPORTED_FORMAT, message));
                }
            };
            let dtype = &found.record.dtype;
            let place = place(
                path,
                &spec,
                dtype,
                &found.record.shape,
                orientation,
                transposed,
                found.bytes,
            )?;
            placed.insert(spec.key, Placed { key: PlacedKey::Vindex(key), ..place });
        }
        let base_hash = vindex.manifest().base_hash.clone();
        Ok(Self {
            path: path.to_owned(),
            source: Source::Vindex(Box::new(vindex)),
            architecture,
            placed,
            base_hash,
            tokenizer: OnceLock::new(),
            extracted_from: None,
        })
    }

    /// Opens a checkpoint directory for use as it is.
    ///
    /// # Errors
    /// As [`Model::open`]; also when a tensor that the family requires is missing.
    pub fn open_checkpoint(
        files: &Arc<dyn Files>,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::open(files, path)?;
        let config =
            checkpoint.side_file("config.json")?.ok_or_else(|| lacks(path, "config.json"))?;
        let architecture = architecture(path, &config)?;
        let mut placed = HashMap::new();
        for spec in architecture.tensors(Naming::Hub) {
            let Some(tensor) = spec.whole().find_map(|name| checkpoint.tensor(name)) else {
                if spec.required {
                    return Err(lacks(path, &format!("the tensor {}", spec.name())));
                }
                continue;
            };
            let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
            let place =
                place(path, &spec, tensor.format, &shape, Orientation::OutIn, false, tensor.bytes)?;
            let key = PlacedKey::Checkpoint(tensor.name.to_owned());
            placed.insert(spec.key, Placed { key, ..place });
        }
        let base_hash = checkpoint_base_hash(&checkpoint, "source", &mut |_| Ok(cancel.check()?))?;
        Ok(Self {
            path: path.to_owned(),
            source: Source::Checkpoint(Box::new(checkpoint)),
            architecture,
            placed,
            base_hash,
            tokenizer: OnceLock::new(),
            extracted_from: None,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Vindex or checkpoint.
    pub fn kind(&self) -> Kind {
        match self.source {
            Source::Vindex(_) => Kind::Vindex,
            Source::Checkpoint(_) => Kind::Checkpoint,
        }
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The model's description.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The identity of the weights, in hexadecimal.
    pub fn base_hash(&self) -> &str {
        &self.base_hash
    }

    /// Number of layers.
    pub fn layers(&self) -> u32 {
        self.architecture.layers() as u32
    }

    /// Number of features of a layer; 0 for a layer whose gates are not here.
    pub fn features(&self, layer: u32) -> u64 {
        let gate = self.placed.get(&WeightKey::layer(Role::Gate, layer as usize));
        gate.map_or(0, |placed| placed.rows as u64)
    }

    /// The model's layer bands.
    pub fn bands(&self) -> Option<Bands> {
        let narrow = |(first, last): (usize, usize)| (first as u32, last as u32);
        self.architecture.bands().map(|bands| Bands {
            syntax: narrow(bands.syntax),
            knowledge: narrow(bands.knowledge),
            output: narrow(bands.output),
        })
    }

    /// `browse`, `attention`, `inference` or `all`; a checkpoint has it all.
    pub fn level(&self) -> &str {
        match &self.source {
            Source::Vindex(vindex) => &vindex.manifest().level,
            Source::Checkpoint(_) => "checkpoint",
        }
    }

    /// The stored bytes of one tensor; 0 if it is not here.
    pub fn tensor_bytes(&self, role: Role, layer: Option<u32>) -> u64 {
        self.placed.get(&WeightKey { role, layer, expert: None }).map_or(0, |placed| placed.bytes)
    }

    /// The type in which the gate vectors lie, in lower case; what benches and STATS report.
    pub fn stored_type(&self) -> String {
        let gates = self.placed.iter().find(|(key, _)| key.role == Role::Gate);
        gates.map_or_else(|| "none".to_owned(), |(_, placed)| placed.dtype.tag().to_lowercase())
    }

    /// All bytes of the directory's files.
    pub fn bytes(&self) -> u64 {
        match &self.source {
            Source::Vindex(vindex) => vindex.bytes(),
            Source::Checkpoint(checkpoint) => checkpoint.bytes(),
        }
    }

    /// What to name as the source in a hint that suggests EXTRACT.
    pub fn source_hint(&self) -> String {
        match &self.source {
            Source::Vindex(vindex) => match &self.extracted_from {
                Some(path) => path.display().to_string(),
                None => vindex.manifest().source.name.clone(),
            },
            Source::Checkpoint(_) => self.path.display().to_string(),
        }
    }

    /// The type in which the weights are stored: `f16`, `f32` or `source`.
    pub fn weights_type(&self) -> &str {
        match &self.source {
            Source::Vindex(vindex) => &vindex.manifest().dtype,
            Source::Checkpoint(_) => "source",
        }
    }

    /// The block format that EXTRACT gave the matrices.
    pub fn quantisation(&self) -> Option<Quantisation> {
        match &self.source {
            Source::Vindex(vindex) => {
                vindex.manifest().quantisation.as_deref().and_then(Quantisation::from_name)
            }
            Source::Checkpoint(_) => None,
        }
    }

    /// The same model, whose weights are known to come from the checkpoint at `path`.
    #[must_use]
    pub fn extracted_from(mut self, path: Option<PathBuf>) -> Self {
        self.extracted_from = path;
        self
    }

    /// Whether the directory holds another vindex by now than the one that is open.
    pub fn is_replaced(&self, files: &Arc<dyn Files>) -> bool {
        match &self.source {
            Source::Vindex(vindex) => vindex.is_replaced(files),
            Source::Checkpoint(_) => false,
        }
    }

    /// Whether a component is here, for every layer that was extracted.
    pub fn has(&self, component: Component) -> bool {
        let every_layer = |roles: &[Role]| {
            (0..self.architecture.layers()).all(|layer| {
                roles.iter().all(|&role| self.placed.contains_key(&WeightKey::layer(role, layer)))
            })
        };
        let any_layer = |role| {
            (0..self.architecture.layers())
                .any(|layer| self.placed.contains_key(&WeightKey::layer(role, layer)))
        };
        match component {
            Component::Gates => any_layer(Role::Gate),
            Component::Embeddings => self.placed.contains_key(&WeightKey::model(Role::Embedding)),
            // One that is damaged is there, and says so itself.
            Component::Tokenizer => {
                !matches!(self.tokenizer(), Err(failure) if failure.code == code::MISSING_COMPONENT)
            }
            Component::DownMeta => self.down_meta().is_some(),
            Component::GateMeta => self.gate_meta().is_some(),
            Component::Statistics => {
                matches!(&self.source, Source::Vindex(vindex) if vindex.statistics().is_some())
            }
            Component::Labels => {
                matches!(&self.source, Source::Vindex(vindex) if vindex.labels().is_some())
            }
            Component::Attention => {
                every_layer(&[Role::Query, Role::Key, Role::Value, Role::Output])
            }
            Component::Norms => {
                every_layer(&[Role::AttentionNorm])
                    && self.placed.contains_key(&WeightKey::model(Role::FinalNorm))
            }
            Component::Up => every_layer(&[Role::Up]),
            Component::Down => every_layer(&[Role::Down]),
            Component::Unembedding => {
                self.placed.contains_key(&WeightKey::model(Role::Unembedding))
                    || (self.architecture.tied_embeddings
                        && self.placed.contains_key(&WeightKey::model(Role::Embedding)))
            }
        }
    }

    /// Fails with the missing component's name unless the model can run.
    ///
    /// # Errors
    /// `MISSING_COMPONENT` with the EXTRACT that adds it.
    pub fn require_inference(&self) -> Result<(), Failure> {
        let Some(missing) =
            INFERENCE_COMPONENTS.into_iter().find(|&component| !self.has(component))
        else {
            return Ok(());
        };
        let message =
            format!("{} has no {} ({} level)", self.path.display(), missing.words(), self.level());
        let extraction = Extraction {
            source: self.source_hint(),
            destination: self.path.display().to_string(),
            level: self.level().to_owned(),
            stored_type: self.weights_type().to_owned(),
            quantisation: self.quantisation(),
            overwrite: self.kind() == Kind::Vindex,
        };
        let hint = extraction.statement_that_adds(missing);
        Err(Failure::new(code::MISSING_COMPONENT, message).hint(hint))
    }

    /// The tokenizer, read when first asked for.
    ///
    /// # Errors
    /// The same failure each time, if there is none or it cannot be read.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Failure> {
        let read = || {
            let bytes = self.side_file("tokenizer.json")?.ok_or_else(|| {
                let message = format!("{} has no tokenizer.json", self.path.display());
                Failure::new(code::MISSING_COMPONENT, message).hint("copy it to the weights")
            })?;
            Tokenizer::from_bytes(&bytes, self.architecture.vocabulary_size).map_err(|error| {
                let message = format!("{}: {error}", self.path.display());
                Failure::new(code::UNSUPPORTED_FORMAT, message)
                    .hint("download tokenizer.json again")
            })
        };
        self.tokenizer.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// When there is none, or it does not parse.
    pub fn chat_template(&self) -> Result<ChatTemplate, Failure> {
        let config = self.side_file("tokenizer_config.json")?;
        let jinja = self.side_file("chat_template.jinja")?;
        ChatTemplate::from_files(config.as_deref(), jinja.as_deref()).map_err(|error| {
            let code = match error {
                ChatTemplateError::Absent => code::MISSING_COMPONENT,
                _ => code::UNSUPPORTED_FORMAT,
            };
            Failure::new(code, error.to_string()).hint("give a prompt instead of a chat")
        })
    }

    /// A file that lies beside the weights, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match &self.source {
            Source::Vindex(vindex) => vindex.side_file(name)?,
            Source::Checkpoint(checkpoint) => checkpoint.side_file(name)?,
        })
    }

    /// The output tokens of features.
    pub fn down_meta(&self) -> Option<&DownMeta> {
        match &self.source {
            Source::Vindex(vindex) => vindex.down_meta(),
            Source::Checkpoint(_) => None,
        }
    }

    /// The strongest input tokens of features.
    pub fn gate_meta(&self) -> Option<&GateMeta> {
        match &self.source {
            Source::Vindex(vindex) => vindex.gate_meta(),
            Source::Checkpoint(_) => None,
        }
    }

    /// Mean and standard deviation of the gate scores of a layer.
    pub fn gate_scores(&self, layer: u32) -> Option<(f64, f64)> {
        let Source::Vindex(vindex) = &self.source else { return None };
        let scores = vindex.statistics()?.gate_scores.get(layer as usize)?.as_ref()?;
        Some((scores.mean, scores.deviation))
    }

    /// The relation that a feature is labelled with.
    pub fn label(&self, layer: u32, feature: u32) -> Option<&str> {
        match &self.source {
            Source::Vindex(vindex) => vindex.labels()?.get(layer, feature),
            Source::Checkpoint(_) => None,
        }
    }

    /// Fails if a file changed under its mapping, so that what was read may not be what was written.
    ///
    /// # Errors
    /// `DAMAGED`, naming the file.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.source {
            Source::Vindex(vindex) => vindex.check()?,
            Source::Checkpoint(checkpoint) => checkpoint.check()?,
        }
        Ok(())
    }

    fn bytes_of(&self, placed: &Placed) -> Option<&[u8]> {
        match (&self.source, &placed.key) {
            (Source::Vindex(vindex), PlacedKey::Vindex(key)) => Some(vindex.tensor(key)?.bytes),
            (Source::Checkpoint(checkpoint), PlacedKey::Checkpoint(name)) => {
                Some(checkpoint.tensor(name)?.bytes)
            }
            _ => None,
        }
    }
}

impl Weights for Model {
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>> {
        let placed = self.placed.get(&key)?;
        let bytes = self.bytes_of(placed)?;
        let view = MatrixView::new(placed.dtype, placed.rows, placed.columns, bytes).ok()?;
        Some(Matrix { view, orientation: placed.orientation })
    }

    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>> {
        let placed = self.placed.get(&key)?;
        let bytes = self.bytes_of(placed)?;
        let mut values = vec![0.0; placed.rows.checked_mul(placed.columns)?];
        to_f32(placed.dtype, bytes, &mut values);
        Some(Cow::Owned(values))
    }
}

fn lacks(path: &Path, what: &str) -> Failure {
    Failure::new(code::UNSUPPORTED_FORMAT, format!("{} has no {what}", path.display())).hint(
        "name a vindex directory, or a checkpoint directory with config.json and safetensors files",
    )
}

/// Reads the `config.json` of the directory at `path`.
///
/// # Errors
/// `UNSUPPORTED_FORMAT`, naming the directory and the key, with what can be done.
pub(crate) fn architecture(path: &Path, config: &[u8]) -> Result<Architecture, Failure> {
    let text = String::from_utf8_lossy(config);
    Architecture::from_config(&text).map_err(|error| {
        let failure = Failure::from(error);
        Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
    })
}

/// Checks that a tensor is what the family expects, and how it is to be read.
fn place(
    path: &Path,
    spec: &larql_compute::model::TensorSpec,
    tag: &str,
    shape: &[u64],
    orientation: Orientation,
    transposed: bool,
    bytes: &[u8],
) -> Result<Placed, Failure> {
    let name = spec.name();
    let wrong = |reason: String| {
        Failure::new(
            code::UNSUPPORTED_FORMAT,
            format!("{}: the tensor {name} {reason}", path.display()),
        )
        .hint("download config.json and the weights again, both of one model")
    };
    let dtype = Dtype::from_tag(tag)
        .ok_or_else(|| wrong(format!("has the type {tag}, which this build cannot read")))?;
    let mut expected: Vec<u64> = spec.shape.iter().map(|&size| size as u64).collect();
    if transposed {
        expected.reverse();
    }
    if shape != expected {
        return Err(wrong(format!("has the shape {shape:?}; config.json makes it {expected:?}")));
    }
    let (rows, columns) = match expected[..] {
        [columns] => (1, columns as usize),
        [rows, columns] => (rows as usize, columns as usize),
        _ => return Err(wrong("is neither a vector nor a matrix".to_owned())),
    };
    MatrixView::new(dtype, rows, columns, bytes).map_err(|error| wrong(error.to_string()))?;
    let key = PlacedKey::Checkpoint(String::new());
    Ok(Placed { key, dtype, rows, columns, orientation, bytes: bytes.len() as u64 })
}

/// Fails where a manifest's own numbers differ from what its config.json says.
fn check_manifest(
    path: &Path,
    vindex: &Vindex,
    architecture: &Architecture,
) -> Result<(), Failure> {
    let manifest = vindex.manifest();
    let claims = [
        ("layers", manifest.layers as u64, architecture.layers() as u64),
        ("hidden_size", manifest.hidden_size, architecture.hidden_size as u64),
        ("vocabulary_size", manifest.vocabulary_size, architecture.vocabulary_size as u64),
    ];
    for (what, claimed, expected) in claims {
        if claimed != expected {
            let message = format!(
                "{}: index.json says {what} = {claimed}, config.json makes it {expected}",
                path.display()
            );
            return Err(Failure::new(code::DAMAGED, message).hint("extract the vindex again"));
        }
    }
    Ok(())
}
