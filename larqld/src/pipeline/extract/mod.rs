//! EXTRACT: a checkpoint becomes a vindex.
//!
//! Work streams from the mapped checkpoint, so memory does not grow with the model: a window of
//! converted rows ([`WINDOW_BYTES`]) or a block of features ([`FEATURE_BLOCK_BYTES`],
//! [`FEATURE_BLOCK_MIN`]), the tokens that `compute::browse` packs at once, and a tile of rows a
//! thread. The whole bound is in docs/formats/vindex.md.
//!
//! What is complete survives a kill and is not written again on RESUME; until the last
//! rename there is nothing that could be mounted. The same source and options give the same bytes.
//!
//! Weights are written in the type asked for. What is learned about features (output tokens, input
//! tokens, score statistics) is computed from the source's own precision, so that it is the same at
//! every level.

mod features;
mod formats;
mod placement;
mod survey;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_planner::physical::plan::{ExtractComponent, ExtractDtype, Level, Quantisation};
use larql_storage::file::Files;
use larql_storage::vindex::{
    LayerBands, ManifestHeader, Source, SourceFile, VindexWriter, WritePlan,
};
use sha2::{Digest as _, Sha256};

pub use self::features::{FEATURE_BLOCK_BYTES, FEATURE_BLOCK_MIN, TOKENS_PER_FEATURE};
pub(super) use self::placement::level_of;
use self::weights::Planned;
pub use self::weights::WINDOW_BYTES;
use super::{Progress, SIDE_FILES, SOURCE_METADATA};
use crate::failure::{Failure, code};
use crate::mounts::checkpoint_hashes;
use crate::source::SourceModel;

/// What to extract, from where, to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint: a directory, or a file of weights.
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
    VindexWriter::check_destination(files, &options.destination, options.overwrite)?;
    let model = SourceModel::open(files, &options.source)?;
    let job = Job::new(&model, options, pool, cancel)?;
    let total = model.checkpoint().bytes();
    progress("reading", 0, total, "bytes")?;
    let (base_hash, files_read) =
        checkpoint_hashes(&model, &stored_as(options), pool, &mut |read| {
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
    job.write_side_files(&mut writer)?;
    model.check()?;
    progress("syncing", 0, 0, "")?;
    let header = job.header(&base_hash, files_read);
    let notes = header.notes.clone();
    let manifest = writer.finish(header)?;
    model.check()?;
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

/// What the base hash says about how weights are stored.
fn stored_as(options: &Options) -> String {
    match options.quantisation {
        Some(quantisation) => format!("{} {}", dtype_name(options.dtype), quantisation.name()),
        None => dtype_name(options.dtype).to_owned(),
    }
}

struct Job<'a> {
    model: &'a SourceModel,
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
        model: &'a SourceModel,
        options: &'a Options,
        pool: &'a Pool,
        cancel: &'a Cancel,
    ) -> Result<Self, Failure> {
        let last = model.architecture().layers() as u32 - 1;
        let layers = match options.layers {
            Some((first, end)) if end <= last => first..=end,
            Some((_, end)) => {
                let message =
                    format!("there is no layer {end}: the model has the layers 0 to {last}");
                return Err(Failure::new(code::INVALID_PARAMETER, message));
            }
            None => 0..=last,
        };
        let notes = model.notes().to_vec();
        let planned = Vec::new();
        let mut job = Self { model, options, pool, cancel, layers, planned, notes };
        job.plan()?;
        Ok(job)
    }

    /// The files beside the weights: the configuration, the tokenizer, and of a GGUF source its
    /// metadata, from which those were made.
    fn write_side_files(&self, writer: &mut VindexWriter) -> Result<(), Failure> {
        writer.side_file("config.json", self.model.config().as_bytes())?;
        for name in SIDE_FILES {
            if let Some(bytes) = self.model.side_file(name)? {
                writer.side_file(name, &bytes)?;
            }
        }
        if let Some(metadata) = self.model.checkpoint().gguf() {
            writer.side_file(SOURCE_METADATA, &metadata.to_file())?;
        }
        Ok(())
    }

    fn header(&self, base_hash: &str, files: Vec<SourceFile>) -> ManifestHeader {
        let architecture = self.model.architecture();
        let features = (0..architecture.layers() as u32).map(|layer| {
            if self.layers.contains(&layer) {
                architecture.features(layer as usize) as u64
            } else {
                0
            }
        });
        let name = directory_name(&self.options.source);
        ManifestHeader {
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
        }
    }
}

fn directory_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
