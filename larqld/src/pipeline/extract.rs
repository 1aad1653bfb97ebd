//! EXTRACT: a checkpoint becomes a vindex.
//!
//! Work streams tensor by tensor from the mapped checkpoint, so memory stays near one layer whatever
//! the model's size: a transposed down matrix, and the products of a block of features with a block of
//! the vocabulary. What is complete survives a kill and is not written again on RESUME; until the last rename there is nothing that could be mounted. The same source
//! and options give the same bytes.
//!
//! Weights are written in the type asked for. What is learned about features (output tokens, input
//! tokens, score statistics) is computed from the source's own precision, so that it is the same at
//! every level.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::browse::{score_statistics, top_tokens};
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Architecture, Role, TensorSpec};
use larql_compute::quant::{Dtype, MatrixView, from_f32, to_f32};
use larql_planner::physical::plan::{ExtractComponent, ExtractDtype, Level};
use larql_storage::checkpoint::{Checkpoint, Tensor};
use larql_storage::file::Files;
use larql_storage::vindex::down_meta::{self, FeatureRecord};
use larql_storage::vindex::gate_meta::{self, InputToken};
use larql_storage::vindex::layout::{DOWN_META, GATE_META, STATISTICS};
use larql_storage::vindex::{
    Checksummer, LayerBands, LayerScores, Layout, ManifestHeader, Source, SourceFile, Statistics,
    TensorKey, TensorRecord, VindexWriter, WritePlan,
};
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, code};
use crate::mounts::{architecture, checkpoint_base_hash};

/// Output tokens kept for each feature.
pub const TOKENS_PER_FEATURE: usize = 10;
/// Vocabulary rows whose gate scores make a layer's statistics.
pub const STATISTICS_SAMPLES: usize = 1000;
/// Features that are transposed at a time.
const TRANSPOSE_FEATURES: usize = 64;
/// Bytes that are hashed between two looks at the cancel token.
const CHUNK_BYTES: usize = 8 << 20;
/// Numbers that are converted at a time.
const CONVERT_NUMBERS: usize = 1 << 16;

/// Files beside the weights that go along as they are.
const SIDE_FILES: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// One file of weights: the roles in it, in order within a layer, and the level that brings it.
struct WeightFile {
    name: &'static str,
    level: Level,
    roles: &'static [Role],
}

/// Every file of weights, in the order in which they are written.
const WEIGHT_FILES: &[WeightFile] = &[
    WeightFile { name: "gate_vectors.bin", level: Level::Browse, roles: &[Role::Gate] },
    WeightFile { name: "embeddings.bin", level: Level::Browse, roles: &[Role::Embedding] },
    WeightFile {
        name: "attn_weights.bin",
        level: Level::Attention,
        roles: &[
            Role::Query,
            Role::QueryBias,
            Role::Key,
            Role::KeyBias,
            Role::Value,
            Role::ValueBias,
            Role::Output,
            Role::OutputBias,
            Role::QueryNorm,
            Role::KeyNorm,
        ],
    },
    WeightFile {
        name: "norms.bin",
        level: Level::Attention,
        roles: &[
            Role::AttentionNorm,
            Role::PostAttentionNorm,
            Role::FfnNorm,
            Role::PostFfnNorm,
            Role::FinalNorm,
        ],
    },
    WeightFile {
        name: "up_weights.bin",
        level: Level::Inference,
        roles: &[Role::Up, Role::UpBias, Role::GateBias],
    },
    WeightFile {
        name: "down_features.bin",
        level: Level::Inference,
        roles: &[Role::Down, Role::DownBias],
    },
    WeightFile { name: "lm_head.bin", level: Level::Inference, roles: &[Role::Unembedding] },
];

/// The file for source tensors that no role reads.
const OTHER_WEIGHTS: &str = "other_weights.bin";

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
    let checkpoint = Checkpoint::open(files, &options.source)?;
    let config = checkpoint.side_file("config.json")?.ok_or_else(|| {
        Failure::new(
            code::UNSUPPORTED_FORMAT,
            format!("{} has no config.json", options.source.display()),
        )
        .hint("name a checkpoint directory in the layout of the hub")
    })?;
    let architecture = architecture(&options.source, &config)?;
    let job = Job::new(&checkpoint, &architecture, options, pool, cancel)?;
    progress("reading", 0, checkpoint.bytes(), "bytes")?;
    let total = checkpoint.bytes();
    let base_hash = checkpoint_base_hash(&checkpoint, dtype_name(options.dtype), &mut |read| {
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
        let specs = self.architecture.tensors();
        for file in WEIGHT_FILES.iter().filter(|file| file.level <= self.options.level) {
            let per_layer = self.layers.clone().map(|layer| Some(layer as usize)).chain([None]);
            for layer in per_layer {
                for &role in file.roles {
                    let Some(spec) =
                        specs.iter().find(|spec| spec.role == role && spec.layer == layer)
                    else {
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
        let Some(tensor) = spec.names.iter().find_map(|name| self.checkpoint.tensor(name)) else {
            return if spec.required {
                Err(wrong(&spec.name, "is missing".to_owned()))
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

    fn write_weights(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let others = self.other_tensors();
        let total: u64 =
            self.planned.iter().map(|planned| planned.tensor.bytes.len() as u64).sum::<u64>()
                + others.iter().map(|tensor| tensor.bytes.len() as u64).sum::<u64>();
        let mut done = 0;
        for planned in &self.planned {
            progress("weights", done, total, "bytes")?;
            self.cancel.check()?;
            self.write_tensor(writer, planned)?;
            done += planned.tensor.bytes.len() as u64;
        }
        for tensor in others {
            progress("weights", done, total, "bytes")?;
            self.cancel.check()?;
            let role = format!("source:{}", tensor.name);
            if !writer.has(OTHER_WEIGHTS, &TensorKey::model(role.clone())) {
                let record = TensorRecord {
                    name: tensor.name.to_owned(),
                    role,
                    layer: None,
                    expert: None,
                    dtype: tensor.format.to_lowercase(),
                    shape: tensor.shape.iter().map(|&size| size as u64).collect(),
                    layout: Layout::RowMajor,
                    offset: 0,
                    bytes: tensor.bytes.len() as u64,
                };
                writer.tensor(OTHER_WEIGHTS, record, &mut |out| out.write_all(tensor.bytes))?;
            }
            done += tensor.bytes.len() as u64;
        }
        Ok(())
    }

    /// What the level `all` adds: every tensor of the source that no role reads.
    fn other_tensors(&self) -> Vec<Tensor<'a>> {
        if self.options.level < Level::All || self.options.components.is_some() {
            return Vec::new();
        }
        let specs = self.architecture.tensors();
        let tied = self.architecture.tied_embeddings;
        let known = |name: &str| {
            specs.iter().any(|spec| {
                let copy = spec.role == Role::Unembedding && tied;
                !copy && spec.names.iter().any(|known| known == name)
            })
        };
        self.checkpoint.tensors().filter(|tensor| !known(tensor.name)).collect()
    }

    fn write_tensor(
        &self,
        writer: &mut VindexWriter,
        planned: &Planned<'_>,
    ) -> Result<(), Failure> {
        let Planned { spec, tensor, source, stored, file } = planned;
        let role = spec.role.as_str();
        let layer = spec.layer.map(|layer| layer as u32);
        let key = TensorKey { role: role.into(), layer, expert: None };
        if writer.has(file, &key) {
            return Ok(());
        }
        let mut shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
        let transposed = spec.role == Role::Down;
        if transposed {
            shape.reverse();
        }
        let count = tensor.shape.iter().product();
        let too_large =
            || Failure::new(code::LIMIT, format!("the tensor {} is too large", tensor.name));
        let record = TensorRecord {
            name: tensor.name.to_owned(),
            role: role.to_owned(),
            layer,
            expert: None,
            dtype: tag(*stored),
            shape,
            layout: if transposed { Layout::FeatureMajor } else { Layout::RowMajor },
            offset: 0,
            bytes: stored.bytes_for(count).ok_or_else(too_large)? as u64,
        };
        let cancel = self.cancel;
        let write = &mut |out: &mut dyn Write| {
            if transposed {
                write_transposed(out, tensor, *source, *stored, cancel)
            } else {
                write_converted(out, tensor.bytes, *source, *stored, cancel)
            }
        };
        match writer.tensor(file, record, write) {
            Err(_) if cancel.check().is_err() => Err(Failure::cancelled()),
            result => Ok(result?),
        }
    }

    /// Output tokens, input tokens and score statistics, layer by layer.
    fn write_features(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let embedding = self.matrix(Role::Embedding, None)?;
        let unembedding = match self.architecture.tied_embeddings {
            true => embedding,
            false => self.matrix(Role::Unembedding, None)?,
        };
        let layers = self.architecture.layers() as u32;
        let count = u64::from(*self.layers.end() - *self.layers.start() + 1);
        let (outputs, inputs) = (self.wants(Role::Down), self.wants(Role::Gate));
        if outputs && !writer.has_part(DOWN_META, "header") {
            let header = down_meta::encode_header(layers, TOKENS_PER_FEATURE as u32);
            writer.append_part(DOWN_META, "header", &header)?;
        }
        if inputs && !writer.has_part(GATE_META, "header") {
            writer.append_part(GATE_META, "header", &gate_meta::encode_header(layers))?;
        }
        let queries = self.statistics_queries(&embedding);
        let mut gate_scores = Vec::new();
        for layer in 0..layers {
            let part = format!("layer {layer}");
            let within = self.layers.contains(&layer);
            if within {
                progress("features", u64::from(layer - self.layers.start()), count, "layers")?;
            }
            if outputs && !writer.has_part(DOWN_META, &part) {
                let records =
                    if within { self.output_tokens(layer, &unembedding)? } else { Vec::new() };
                let mut bytes = Vec::new();
                down_meta::encode_layer(&mut bytes, TOKENS_PER_FEATURE as u32, &records);
                writer.append_part(DOWN_META, &part, &bytes)?;
            }
            if inputs && !writer.has_part(GATE_META, &part) {
                let tokens =
                    if within { self.input_tokens(layer, &embedding)? } else { Vec::new() };
                let mut bytes = Vec::new();
                gate_meta::encode_layer(&mut bytes, &tokens);
                writer.append_part(GATE_META, &part, &bytes)?;
            }
            gate_scores.push(if within && inputs {
                Some(self.layer_scores(layer, &queries)?)
            } else {
                None
            });
            if within {
                writer.commit()?;
            }
        }
        progress("features", count, count, "layers")?;
        if inputs {
            writer.side_file(STATISTICS, &Statistics { gate_scores }.encode())?;
        }
        Ok(())
    }

    /// The source's matrix of a role, whether or not the level stores it.
    fn matrix(&self, role: Role, layer: Option<u32>) -> Result<MatrixView<'a>, Failure> {
        let layer = layer.map(|layer| layer as usize);
        let specs = self.architecture.tensors();
        let spec = specs.iter().find(|spec| spec.role == role && spec.layer == layer);
        let missing = || {
            let message = format!("{} has no {role} tensor", self.options.source.display());
            Failure::new(code::UNSUPPORTED_FORMAT, message)
        };
        let (tensor, dtype) = self.find(spec.ok_or_else(missing)?)?.ok_or_else(missing)?;
        let [rows, columns] = tensor.shape[..] else { return Err(missing()) };
        MatrixView::new(dtype, rows, columns, tensor.bytes).map_err(|error| {
            Failure::new(code::DAMAGED, format!("the tensor {}: {error}", tensor.name))
        })
    }

    fn output_tokens(
        &self,
        layer: u32,
        unembedding: &MatrixView<'_>,
    ) -> Result<Vec<FeatureRecord>, Failure> {
        let down = self.matrix(Role::Down, Some(layer))?;
        let transposed = transpose(&down);
        let features = MatrixView::from_f32(down.columns(), down.rows(), &transposed)
            .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
        let tokens =
            top_tokens(self.pool, unembedding, &features, TOKENS_PER_FEATURE, self.cancel)?;
        Ok(tokens.into_iter().map(|tokens| FeatureRecord { tokens }).collect())
    }

    fn input_tokens(
        &self,
        layer: u32,
        embedding: &MatrixView<'_>,
    ) -> Result<Vec<Option<InputToken>>, Failure> {
        let gates = self.matrix(Role::Gate, Some(layer))?;
        let scale = self.architecture.embed_scale;
        let tokens = top_tokens(self.pool, embedding, &gates, 1, self.cancel)?;
        let strongest = |tokens: Vec<(u32, f32)>| {
            tokens.first().map(|&(token_id, score)| InputToken { token_id, score: score * scale })
        };
        Ok(tokens.into_iter().map(strongest).collect())
    }

    /// Scaled embeddings of evenly spaced tokens, `[samples, hidden]`.
    fn statistics_queries(&self, embedding: &MatrixView<'_>) -> Vec<f32> {
        let (vocabulary, hidden) = (embedding.rows(), embedding.columns());
        let samples = STATISTICS_SAMPLES.min(vocabulary);
        let mut queries = vec![0.0; samples * hidden];
        for (index, query) in queries.chunks_exact_mut(hidden).enumerate() {
            embedding
                .row_f32((index as u128 * vocabulary as u128 / samples as u128) as usize, query);
            query.iter_mut().for_each(|value| *value *= self.architecture.embed_scale);
        }
        queries
    }

    fn layer_scores(&self, layer: u32, queries: &[f32]) -> Result<LayerScores, Failure> {
        let gates = self.matrix(Role::Gate, Some(layer))?;
        let (mean, deviation) = score_statistics(self.pool, &gates, queries, self.cancel)?;
        let samples = (queries.len() / gates.columns().max(1) * gates.rows()) as u64;
        if !mean.is_finite() || !deviation.is_finite() {
            let source = self.options.source.display();
            let message = format!("{source}: gate scores of layer {layer} are not finite");
            return Err(Failure::new(code::DAMAGED, message)
                .hint("its gates or embeddings are damaged: download the weights again"));
        }
        Ok(LayerScores { mean, deviation, samples })
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

/// The tag of a type in manifests.
fn tag(dtype: Dtype) -> String {
    dtype.tag().to_lowercase()
}

/// What the numbers of a tensor are like.
#[derive(Default)]
struct Survey {
    /// Some finite number turns infinite in f16.
    overflow_f16: bool,
    /// How many are infinite or no number.
    not_finite: u64,
}

fn survey(source: Dtype, bytes: &[u8], cancel: &Cancel) -> Result<Survey, Failure> {
    let width = source.bytes_for(1).unwrap_or(1);
    let mut values = vec![0.0_f32; CONVERT_NUMBERS];
    let mut survey = Survey::default();
    for chunk in bytes.chunks(CONVERT_NUMBERS * width) {
        cancel.check()?;
        let values = &mut values[..chunk.len() / width];
        to_f32(source, chunk, values);
        for value in values {
            survey.not_finite += u64::from(!value.is_finite());
            // 65,520 is where rounding to nearest reaches infinity.
            survey.overflow_f16 |= value.is_finite() && value.abs() >= 65_520.0;
        }
    }
    Ok(survey)
}

fn write_converted(
    out: &mut dyn Write,
    bytes: &[u8],
    source: Dtype,
    stored: Dtype,
    cancel: &Cancel,
) -> io::Result<()> {
    let width = source.bytes_for(1).unwrap_or(1);
    let mut values = vec![0.0; CONVERT_NUMBERS];
    let mut converted = Vec::new();
    for chunk in bytes.chunks(CONVERT_NUMBERS * width) {
        cancel.check().map_err(io::Error::other)?;
        if source == stored {
            out.write_all(chunk)?;
            continue;
        }
        let values = &mut values[..chunk.len() / width];
        to_f32(source, chunk, values);
        converted.resize(stored.bytes_for(values.len()).unwrap_or(0), 0);
        from_f32(stored, values, &mut converted);
        out.write_all(&converted)?;
    }
    Ok(())
}

/// Writes a matrix `[outputs, inputs]` with its inputs as rows.
fn write_transposed(
    out: &mut dyn Write,
    tensor: &Tensor<'_>,
    source: Dtype,
    stored: Dtype,
    cancel: &Cancel,
) -> io::Result<()> {
    let [outputs, inputs] = tensor.shape[..] else {
        return write_converted(out, tensor.bytes, source, stored, cancel);
    };
    let view = MatrixView::new(source, outputs, inputs, tensor.bytes).map_err(io::Error::other)?;
    let mut block = vec![0.0; TRANSPOSE_FEATURES * outputs];
    let mut converted = Vec::new();
    for first in (0..inputs).step_by(TRANSPOSE_FEATURES) {
        cancel.check().map_err(io::Error::other)?;
        let columns = first..(first + TRANSPOSE_FEATURES).min(inputs);
        let block = &mut block[..columns.len() * outputs];
        transpose_columns(&view, columns, block);
        converted.resize(stored.bytes_for(block.len()).unwrap_or(0), 0);
        from_f32(stored, block, &mut converted);
        out.write_all(&converted)?;
    }
    Ok(())
}

/// Some columns of a matrix as rows: `block[column][row]`.
fn transpose_columns(view: &MatrixView<'_>, columns: std::ops::Range<usize>, block: &mut [f32]) {
    let mut part = vec![0.0; columns.len()];
    for row in 0..view.rows() {
        view.part_f32(row, columns.clone(), &mut part);
        for (column, &value) in part.iter().enumerate() {
            block[column * view.rows() + row] = value;
        }
    }
}

/// All columns of a matrix as rows.
fn transpose(view: &MatrixView<'_>) -> Vec<f32> {
    let mut transposed = vec![0.0; view.rows() * view.columns()];
    let width = TRANSPOSE_FEATURES * view.rows();
    for (index, block) in transposed.chunks_mut(width.max(1)).enumerate() {
        let first = index * TRANSPOSE_FEATURES;
        transpose_columns(view, first..first + block.len() / view.rows(), block);
    }
    transposed
}
