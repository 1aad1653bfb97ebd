//! EXTRACT: a checkpoint becomes a vindex.
//!
//! Work streams tensor by tensor from the mapped checkpoint, so memory stays near one layer whatever
//! the model's size: a transposed down matrix, and the products of a block of features with a block of
//! the vocabulary. What is complete survives a kill and is not written again on RESUME; until the last
//! rename there is nothing that could be mounted. The same source and options give the same bytes.
//!
//! Weights are written in the type asked for. What is learned about features (output tokens, input
//! tokens, score statistics) is computed from the source's own precision, so that it is the same at
//! every level.

mod features;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Architecture, Naming, Role, TensorSpec, WeightKey};
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::{ExtractComponent, ExtractDtype, Level, Quantisation};
use larql_storage::checkpoint::{Checkpoint, Tensor};
use larql_storage::file::Files;
use larql_storage::vindex::{
    Checksummer, LayerBands, ManifestHeader, Source, SourceFile, VindexWriter, WritePlan,
};
use sha2::{Digest as _, Sha256};

pub use self::features::{STATISTICS_SAMPLES, TOKENS_PER_FEATURE};
use self::weights::{WEIGHT_FILES, survey, tag};
use crate::failure::{Failure, code};
use crate::mounts::checkpoint_base_hash;
use crate::source::SourceModel;

/// Bytes that are hashed between two looks at the cancel token.
const CHUNK_BYTES: usize = 8 << 20;
/// Files beside the weights that go along as they are.
const SIDE_FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// What to extract, from where, to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint directory.
    pub source: PathBuf,
    /// The vindex directory to make.
    pub destination: PathBuf,
    /// How much.
    pub level: Level,
    /// Only these parts of it.
    pub components: Option<Vec<ExtractComponent>>,
    /// Only these layers, both inclusive.
    pub layers: Option<(u32, u32)>,
    /// In which type.
    pub dtype: ExtractDtype,
    /// In which block format the matrices are.
    pub quantisation: Option<Quantisation>,
    /// Replace an existing vindex.
    pub overwrite: bool,
    /// Continue an interrupted run.
    pub resume: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// The identity of the weights.
    pub base_hash: String,
    /// Layers extracted.
    pub layers: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// Features of all layers.
    pub features: u64,
    /// Remarks that the manifest keeps.
    pub notes: Vec<String>,
}

/// Is told how far the job is: stage, done, total, unit.
pub type Progress<'a> = dyn FnMut(&'static str, u64, u64, &'static str) -> Result<(), Failure> + 'a;

/// Runs the job.
///
/// # Errors
/// What is wrong with the source, the destination or the disk. Nothing that mounts is left behind;
/// what is complete can be resumed.
pub fn extract(
    files: &Arc<dyn Files>,
    pool: &Pool,
    options: &Options,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Extracted, Failure> {
    // Before anything long is begun: the writer looks again when it takes the lock.
    if let Some(quantisation) = options.quantisation {
        let message = format!("QUANT {} is not supported yet", quantisation.name());
        return Err(Failure::new(code::UNSUPPORTED_FORMAT, message).hint("leave it out"));
    }
    VindexWriter::check_destination(files, &options.destination, options.overwrite)?;
    let source = SourceModel::open(files, &options.source)?;
    let (checkpoint, architecture) = (source.checkpoint(), source.architecture());
    let job = Job::new(checkpoint, architecture, options, pool, cancel)?;
    progress("reading", 0, checkpoint.bytes(), "bytes")?;
    let total = checkpoint.bytes();
    let base_hash = checkpoint_base_hash(&source, dtype_name(options.dtype), &mut |read| {
        cancel.check()?;
        progress("reading", read.min(total), total, "bytes")
    })?;
    let plan = WritePlan {
        overwrite: options.overwrite,
        resume: options.resume,
        fingerprint: fingerprint(&base_hash, options),
    };
    let mut writer = VindexWriter::create(files, &options.destination, &plan)?;
    job.write_weights(&mut writer, progress)?;
    job.write_features(&mut writer, progress)?;
    for name in SIDE_FILES {
        if let Some(bytes) = checkpoint.side_file(name)? {
            writer.side_file(name, &bytes)?;
        }
    }
    checkpoint.check()?;
    progress("syncing", 0, 0, "")?;
    let header = job.header(&base_hash)?;
    let notes = header.notes.clone();
    let manifest = writer.finish(header)?;
    checkpoint.check()?;
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let features = manifest.features.iter().sum();
    let layers = job.layers.end() - job.layers.start() + 1;
    Ok(Extracted { base_hash, layers, bytes, features, notes })
}

fn dtype_name(dtype: ExtractDtype) -> &'static str {
    match dtype {
        ExtractDtype::F16 => "f16",
        ExtractDtype::F32 => "f32",
        ExtractDtype::Source => "source",
    }
}

/// Everything that decides the bytes to be written.
fn fingerprint(base_hash: &str, options: &Options) -> String {
    let text = format!(
        "{} {base_hash} {} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        options.level.name(),
        options.layers,
        options.components
    );
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tensor of the source with its place in the model and in the vindex.
struct Planned<'a> {
    spec: TensorSpec,
    tensor: Tensor<'a>,
    source: Dtype,
    stored: Dtype,
    file: &'static str,
}

struct Job<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'a Architecture,
    options: &'a Options,
    pool: &'a Pool,
    cancel: &'a Cancel,
    layers: std::ops::RangeInclusive<u32>,
    /// In the order of writing.
    planned: Vec<Planned<'a>>,
    notes: Vec<String>,
}

impl<'a> Job<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        architecture: &'a Architecture,
        options: &'a Options,
        pool: &'a Pool,
        cancel: &'a Cancel,
    ) -> Result<Self, Failure> {
        let last = architecture.layers() as u32 - 1;
        let layers = match options.layers {
            Some((first, end)) if end <= last => first..=end,
            Some((_, end)) => {
                let message =
                    format!("there is no layer {end}: the model has the layers 0 to {last}");
                return Err(Failure::new(code::INVALID_PARAMETER, message));
            }
            None => 0..=last,
        };
        let mut job = Self {
            checkpoint,
            architecture,
            options,
            pool,
            cancel,
            layers,
            planned: Vec::new(),
            notes: Vec::new(),
        };
        job.plan()?;
        Ok(job)
    }

    /// Finds every tensor of the level, and checks shape and type before anything is written.
    fn plan(&mut self) -> Result<(), Failure> {
        let specs = self.architecture.tensors(Naming::Hub);
        for file in WEIGHT_FILES.iter().filter(|file| file.level <= self.options.level) {
            let per_layer = self.layers.clone().map(Some).chain([None]);
            for layer in per_layer {
                for &role in file.roles {
                    let key = WeightKey { role, layer, expert: None };
                    let Some(spec) = specs.iter().find(|spec| spec.key == key) else {
                        continue;
                    };
                    // A tied model's unembedding is its embedding, which is stored once.
                    let copy = role == Role::Unembedding && self.architecture.tied_embeddings;
                    if copy || !self.wants(role) {
                        continue;
                    }
                    if let Some(planned) = self.planned_tensor(spec, file.name)? {
                        self.planned.push(planned);
                    }
                }
            }
        }
        Ok(())
    }

    fn planned_tensor(
        &mut self,
        spec: &TensorSpec,
        file: &'static str,
    ) -> Result<Option<Planned<'a>>, Failure> {
        let Some((tensor, source)) = self.find(spec)? else { return Ok(None) };
        let wanted = match self.options.dtype {
            ExtractDtype::F16 => Dtype::F16,
            ExtractDtype::F32 => Dtype::F32,
            ExtractDtype::Source => source,
        };
        let mut stored = wanted;
        let numbers = survey(source, tensor.bytes, self.cancel)?;
        if wanted == Dtype::F16 && source != Dtype::F16 && numbers.overflow_f16 {
            stored = source;
            self.notes.push(format!(
                "{} stays {}: f16 cannot hold its values",
                tensor.name,
                tag(source)
            ));
        }
        if numbers.not_finite > 0 {
            let count = numbers.not_finite;
            self.notes.push(format!("{} has {count} values that are not finite", tensor.name));
        }
        Ok(Some(Planned { spec: spec.clone(), tensor, source, stored, file }))
    }

    /// The tensor that a spec describes, checked; `None` where it is optional and absent.
    fn find(&self, spec: &TensorSpec) -> Result<Option<(Tensor<'a>, Dtype)>, Failure> {
        let wrong = |name: &str, reason: String| {
            let message = format!("{}: the tensor {name} {reason}", self.options.source.display());
            Failure::new(code::UNSUPPORTED_FORMAT, message)
                .hint("download config.json and the weights again, both of one model")
        };
        let Some(tensor) = spec.whole().find_map(|name| self.checkpoint.tensor(name)) else {
            return if spec.required {
                Err(wrong(spec.name(), "is missing".to_owned()))
            } else {
                Ok(None)
            };
        };
        if tensor.shape != spec.shape {
            let reason =
                format!("has the shape {:?}; config.json makes it {:?}", tensor.shape, spec.shape);
            return Err(wrong(tensor.name, reason));
        }
        let dtype = Dtype::from_tag(tensor.format).ok_or_else(|| {
            wrong(tensor.name, format!("has the type {}, which EXTRACT cannot read", tensor.format))
        })?;
        Ok(Some((tensor, dtype)))
    }

    /// Whether the components asked for include a role.
    fn wants(&self, role: Role) -> bool {
        let Some(components) = &self.options.components else { return true };
        let component = match role {
            Role::Gate | Role::GateBias => ExtractComponent::FfnGate,
            Role::Up | Role::UpBias => ExtractComponent::FfnUp,
            Role::Down | Role::DownBias => ExtractComponent::FfnDown,
            Role::Embedding => ExtractComponent::Embeddings,
            Role::Value | Role::ValueBias | Role::Output | Role::OutputBias => {
                ExtractComponent::AttentionOv
            }
            Role::Query
            | Role::QueryBias
            | Role::QueryNorm
            | Role::Key
            | Role::KeyBias
            | Role::KeyNorm => ExtractComponent::AttentionQk,
            _ => return true,
        };
        components.contains(&component)
    }

    fn header(&self, base_hash: &str) -> Result<ManifestHeader, Failure> {
        let architecture = self.architecture;
        let mut files = Vec::new();
        for (name, bytes) in self.checkpoint.weight_files() {
            let mut checksummer = Checksummer::new();
            for chunk in bytes.chunks(CHUNK_BYTES) {
                self.cancel.check()?;
                checksummer.update(chunk);
            }
            files.push(SourceFile { name: name.to_owned(), sha256: checksummer.finish() });
        }
        let features = (0..architecture.layers() as u32).map(|layer| {
            if self.layers.contains(&layer) {
                architecture.features(layer as usize) as u64
            } else {
                0
            }
        });
        let name = directory_name(&self.options.source);
        Ok(ManifestHeader {
            generator: concat!("larqld ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: name.clone(),
            family: architecture.family().to_owned(),
            level: self.options.level.name().to_owned(),
            dtype: dtype_name(self.options.dtype).to_owned(),
            quantisation: self.options.quantisation.map(|found| found.name().to_owned()),
            base_hash: base_hash.to_owned(),
            source: Source { name, files },
            layers: architecture.layers() as u32,
            hidden_size: architecture.hidden_size as u64,
            vocabulary_size: architecture.vocabulary_size as u64,
            features: features.collect(),
            embed_scale: f64::from(architecture.embed_scale),
            bands: architecture.bands().map(|bands| LayerBands {
                syntax: [bands.syntax.0 as u32, bands.syntax.1 as u32],
                knowledge: [bands.knowledge.0 as u32, bands.knowledge.1 as u32],
                output: [bands.output.0 as u32, bands.output.1 as u32],
            }),
            tied_embeddings: architecture.tied_embeddings,
            notes: self.notes.clone(),
        })
    }
}

fn directory_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
