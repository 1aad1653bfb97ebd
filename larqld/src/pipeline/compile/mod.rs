//! COMPILE: a mounted model becomes files that other programs read, or (module [`vindex`]) another vindex, with
//! its edits in the weights.
//!
//! Tensors get the names, shapes and order that the family's publisher (safetensors) or llama.cpp's
//! converter (GGUF) gives them; [`assembly`] puts parts together again, [`packed`] those of quantised
//! tensors, [`types`] chooses what each is stored in. A safetensors checkpoint that nothing was asked to change about is copied tensor by
//! tensor, also what is no part of the model. Everything streams: memory is a block of rows.
//!
//! The model is put together beside its destination and moved in whole; until then, and after any
//! failure, the destination is as it was. The same model and options give the same bytes.

mod assembly;
mod config;
mod naming;
mod packed;
mod types;
mod vindex;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Architecture, Naming, WeightKey, Weights};
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::{CompileFormat, WeightType};
use larql_storage::checkpoint::{
    Checkpoint, CheckpointKind, GgufMetadata, GgufWriter, ModelStaging, SHARD_BYTES_DEFAULT,
    SafetensorsWriter, Tensor, TensorDescription,
};
use larql_storage::file::Files;
use larql_storage::vindex::{Checksum, Checksummer};

use self::assembly::{Assembly, Numbers, Piece};
pub use self::packed::Packed;
pub use self::vindex::{
    Compiled as CompiledVindex, EDITS, StatedFact, VindexOptions, compile_vindex,
};
use super::edited::EditedModel;
use super::{Progress, SIDE_FILES};
use crate::failure::{Failure, code};
use crate::source::gguf::{self, GgufTexts};
use crate::text::template_source;

/// Bytes that are copied between two looks at the cancel token.
const CHUNK_BYTES: usize = 8 << 20;
/// What to write, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory to write, or a file whose name ends in `.gguf`.
    pub destination: PathBuf,
    /// The format of the weights.
    pub format: CompileFormat,
    /// The type of the weights; `None` for the source's.
    pub dtype: Option<WeightType>,
    /// Replace a model that is there.
    pub overwrite: bool,
    /// Read everything back and compare.
    pub verify: bool,
}

/// Reads a file that lies beside the weights, if there is one of that name.
pub type SideFile<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, Failure> + 'a;

/// What is compiled.
pub struct Origin<'a> {
    /// The model's description.
    pub architecture: &'a Architecture,
    /// Its weights.
    pub weights: &'a dyn Weights,
    /// What edits make of them; `architecture` is then as wide as they need.
    pub edited: Option<&'a EditedModel<'a>>,
    /// The stored tensor that each weight comes from, where that is known.
    pub names: HashMap<WeightKey, String>,
    /// The type in which each weight is stored, where vectors have one that the model does not name.
    pub types: HashMap<WeightKey, Dtype>,
    /// Weights that are quantised in a safetensors checkpoint's way, as their publisher stored them.
    pub packed: HashMap<WeightKey, Packed<'a>>,
    /// Tensors of the source that are no part of any weight.
    pub others: Vec<Other<'a>>,
    /// The format of the checkpoint that `names` and `others` are of.
    pub source_kind: CheckpointKind,
    /// Whether the weights lie as their publisher stored them.
    pub at_source_precision: bool,
    /// The checkpoint that is mounted, if it is one.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The metadata of the GGUF file that the model comes from, if it comes from one.
    pub metadata: Option<&'a GgufMetadata>,
    /// A file beside the weights by its name.
    pub side_file: &'a SideFile<'a>,
    /// A name for the model.
    pub name: String,
}

/// A tensor of the source that the model has no use for.
#[derive(Debug, Clone)]
pub struct Other<'a> {
    /// Name, type and shape as the source's file calls them.
    pub description: TensorDescription,
    /// Its bytes there.
    pub bytes: &'a [u8],
}

impl<'a> From<Tensor<'a>> for Other<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        let description = TensorDescription {
            name: tensor.name.to_owned(),
            format: tensor.format.to_owned(),
            shape: tensor.shape.to_vec(),
        };
        Self { description, bytes: tensor.bytes }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Files written.
    pub files: u64,
    /// Tensors written.
    pub tensors: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A tensor of the model to be written.
enum Content<'a> {
    /// Put together from weights.
    Assembled(Assembly),
    /// Put together from the bytes of quantised weights.
    Packed(packed::Stacked<'a>),
    /// As it lies in the source.
    Copied(&'a [u8]),
    /// Computed from the model's description.
    Numbers(Vec<f32>),
}

struct Planned<'a> {
    description: TensorDescription,
    content: Content<'a>,
}

/// Runs the job.
///
/// `inspect` may look at the whole model before it is moved to its destination, if VERIFY is asked for.
///
/// # Errors
/// What is missing in the model, what the format cannot hold, what is wrong with the destination or
/// the disk. The destination is as it was then.
pub fn compile(
    files: &Arc<dyn Files>,
    pool: &Pool,
    origin: &Origin<'_>,
    options: &Options,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
    inspect: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<Compiled, Failure> {
    let mut job = Job { origin, options, pool, cancel, keeps_quantised: false };
    job.keeps_quantised = job.can_keep_quantised();
    let is_file = options.destination.extension().is_some_and(|extension| extension == "gguf");
    let mut staging = match (options.format, is_file) {
        (CompileFormat::Safetensors, true) => {
            return Err(Failure::new(
                code::INVALID_PARAMETER,
                format!("{} names a GGUF file", options.destination.display()),
            )
            .hint("write FORMAT GGUF, or name a directory"));
        }
        (_, true) => ModelStaging::file(files, &options.destination, options.overwrite)?,
        (_, false) => ModelStaging::directory(files, &options.destination, options.overwrite)?,
    };
    let (written, mut notes) = match options.format {
        CompileFormat::Safetensors => job.safetensors(&mut staging, progress)?,
        CompileFormat::Gguf => job.gguf(&mut staging, progress)?,
    };
    progress("syncing", 0, 0, "")?;
    // What is at the destination stays until the new model has proved itself.
    let bytes = {
        let checkpoint = Checkpoint::open(files, &staging.path())?;
        if options.verify {
            job.verify(&checkpoint, &written, progress)?;
            inspect(&staging.path())?;
        }
        checkpoint.bytes()
    };
    if let Some(checkpoint) = origin.checkpoint {
        checkpoint.check()?;
    }
    let count = staging.file_count() as u64;
    staging.finish()?;
    notes.dedup();
    Ok(Compiled { files: count, tensors: written.len() as u64, bytes, notes })
}

struct Job<'a> {
    origin: &'a Origin<'a>,
    options: &'a Options,
    pool: &'a Pool,
    cancel: &'a Cancel,
    /// Whether quantised weights go back as they were stored.
    keeps_quantised: bool,
}

/// Every tensor by name, with the checksum of its bytes.
type Written = Vec<(String, Checksum)>;

impl<'a> Job<'a> {
    fn safetensors(
        &self,
        staging: &mut ModelStaging,
        progress: &mut Progress<'_>,
    ) -> Result<(Written, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let (planned, copied) = match self.origin.checkpoint {
            Some(checkpoint)
                if self.options.dtype.is_none()
                    && checkpoint.kind() == CheckpointKind::Safetensors =>
            {
                (checkpoint.tensors().map(|tensor| copy(tensor.into())).collect(), true)
            }
            _ => (self.plan_safetensors(&mut notes)?, false),
        };
        for name in iter::once("config.json").chain(SIDE_FILES) {
            let Some(bytes) = (self.origin.side_file)(name)? else { continue };
            let bytes = if name == "config.json" && !(copied || self.keeps_quantised) {
                self.config(&bytes, &planned)?
            } else {
                bytes
            };
            staging.side_file(name, &bytes)?;
        }
        let descriptions = planned.iter().map(|tensor| tensor.description.clone()).collect();
        let metadata = [("format", "pt")];
        let mut writer =
            SafetensorsWriter::create(staging, descriptions, &metadata, SHARD_BYTES_DEFAULT)?;
        let order: Vec<String> = writer.order().map(str::to_owned).collect();
        let by_name: HashMap<&str, &Planned<'_>> =
            planned.iter().map(|tensor| (&*tensor.description.name, tensor)).collect();
        let mut written = Vec::new();
        for (done, name) in order.iter().enumerate() {
            progress("writing", done as u64, order.len() as u64, "tensors")?;
            let tensor = by_name[&**name];
            let mut checksum = None;
            writer.tensor(name, &mut |out| {
                checksum = Some(self.write(tensor, out)?);
                Ok(())
            })?;
            written.extend(checksum.map(|checksum| (name.clone(), checksum)));
        }
        writer.finish()?;
        Ok((written, notes))
    }

    fn gguf(
        &self,
        staging: &mut ModelStaging,
        progress: &mut Progress<'_>,
    ) -> Result<(Written, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let mut planned = self.plan_gguf(&mut notes)?;
        let origin = self.origin;
        let [tokenizer, tokenizer_config, jinja] =
            ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
                .map(|name| (origin.side_file)(name));
        let (tokenizer, tokenizer_config, jinja) = (tokenizer?, tokenizer_config?, jinja?);
        let template = template_source(tokenizer_config.as_deref(), jinja.as_deref());
        let texts = GgufTexts {
            tokenizer: tokenizer.as_deref(),
            tokenizer_config: tokenizer_config.as_deref(),
            chat_template: template.as_deref(),
        };
        let most = most_common(&planned);
        let mixture = self.options.dtype == Some(WeightType::Q4KM);
        let composed = gguf::compose(
            origin.architecture,
            &origin.name,
            types::file_type(most, mixture),
            &texts,
            origin.metadata,
        )?;
        notes.extend(composed.notes);
        self.add_others(&mut planned, CheckpointKind::Gguf, &mut notes);
        let from_gguf = origin.checkpoint.is_some_and(|from| from.kind() == CheckpointKind::Gguf);
        for extra in composed.tensors.into_iter().rev().filter(|_| !from_gguf) {
            if planned.iter().any(|tensor| tensor.description.name == extra.name) {
                continue;
            }
            let description = TensorDescription {
                name: extra.name.to_owned(),
                format: "F32".to_owned(),
                shape: vec![extra.values.len()],
            };
            planned.insert(0, Planned { description, content: Content::Numbers(extra.values) });
        }
        let name = match staging.single_name() {
            Some(name) => name.to_owned(),
            None => format!("{}-{}.gguf", file_stem(&origin.name), most.tag()),
        };
        let descriptions: Vec<TensorDescription> =
            planned.iter().map(|tensor| tensor.description.clone()).collect();
        let mut writer = GgufWriter::create(staging, &name, &composed.metadata, &descriptions)?;
        let mut written = Vec::new();
        for (done, tensor) in planned.iter().enumerate() {
            progress("writing", done as u64, planned.len() as u64, "tensors")?;
            let mut checksum = None;
            writer.tensor(&tensor.description.name, &mut |out| {
                checksum = Some(self.write(tensor, out)?);
                Ok(())
            })?;
            let name = tensor.description.name.clone();
            written.extend(checksum.map(|checksum| (name, checksum)));
        }
        writer.finish()?;
        Ok((written, notes))
    }

    fn numbers(&self) -> Numbers<'a> {
        Numbers { weights: self.origin.weights, edited: self.origin.edited }
    }

    /// Writes a tensor's bytes and sums them up.
    fn write(&self, tensor: &Planned<'_>, out: &mut dyn Write) -> io::Result<Checksum> {
        let mut out = Summing { out, sum: Checksummer::new() };
        match &tensor.content {
            Content::Packed(stacked) => stacked.write(self.cancel, &mut out)?,
            Content::Copied(bytes) => {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    self.cancel.check().map_err(io::Error::other)?;
                    out.write_all(chunk)?;
                }
            }
            Content::Numbers(numbers) => {
                for number in numbers {
                    out.write_all(&number.to_le_bytes())?;
                }
            }
            Content::Assembled(assembly) => {
                assembly.write(self.numbers(), self.pool, self.cancel, &mut out)?;
            }
        }
        Ok(out.sum.finish())
    }

    /// Compares what was written with what is read.
    fn verify(
        &self,
        checkpoint: &Checkpoint,
        written: &Written,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        for (done, (name, expected)) in written.iter().enumerate() {
            progress("verifying", done as u64, written.len() as u64, "tensors")?;
            let mut sum = Checksummer::new();
            let bytes = checkpoint.tensor(name).map(|tensor| tensor.bytes).unwrap_or_default();
            for chunk in bytes.chunks(CHUNK_BYTES) {
                self.cancel.check()?;
                sum.update(chunk);
            }
            if sum.finish() != *expected {
                let path = self.options.destination.display();
                let message = format!("{path}: the tensor {name} reads other than it was written");
                return Err(Failure::new(code::DAMAGED, message).hint("compile again"));
            }
        }
        Ok(())
    }

    /// The weights as a publisher's tensors, in the order of the family's list.
    fn plan_safetensors(&self, notes: &mut Vec<String>) -> Result<Vec<Planned<'a>>, Failure> {
        let asked = self.options.dtype.map(types::base);
        let published = self.published_type()?;
        let (mut dequantised, mut narrowed) = (None, Narrowed::default());
        let choose = |pieces: &[Piece]| {
            let stored = self.stored_type(pieces);
            match (asked, stored) {
                (Some(dtype), _) => dtype,
                // A small change of a large number needs the bits that it would be lost without.
                (None, _) if self.is_updated(pieces) => Dtype::F32,
                (None, Some(dtype)) if self.origin.at_source_precision && dtype.is_plain() => dtype,
                (None, stored) => {
                    let dtype = plain_type(published, stored);
                    if stored.is_some_and(|stored| !stored.is_plain()) {
                        dequantised = Some(dtype);
                    }
                    narrowed.note(stored, dtype);
                    dtype
                }
            }
        };
        let mut planned = self.plan(Naming::Hub, choose)?;
        self.add_others(&mut planned, CheckpointKind::Safetensors, notes);
        if let Some(dtype) = dequantised {
            let tag = dtype.tag();
            notes.push(format!("quantised weights are written as their values in {tag}"));
        }
        notes.extend(narrowed.notice());
        Ok(planned)
    }

    /// Adds what the source has beside the model's weights, where it comes from a file of that kind.
    fn add_others(
        &self,
        planned: &mut Vec<Planned<'a>>,
        kind: CheckpointKind,
        notes: &mut Vec<String>,
    ) {
        let origin = self.origin;
        // Without the configuration that tells what packed bytes are, only numbers make sense.
        let dequantises = !origin.packed.is_empty() && !self.keeps_quantised;
        let is_plain = |other: &Other<'_>| {
            Dtype::from_tag(&other.description.format).is_some_and(Dtype::is_plain)
        };
        let names: HashSet<String> =
            planned.iter().map(|tensor| tensor.description.name.clone()).collect();
        let mut left_out = 0;
        for other in &origin.others {
            if names.contains(&other.description.name) {
                continue;
            }
            if origin.source_kind != kind || (dequantises && !is_plain(other)) {
                left_out += 1;
                continue;
            }
            planned.push(copy(other.clone()));
        }
        if left_out > 0 {
            notes.push(format!(
                "{left_out} tensors of the source that are no part of the model are left out"
            ));
        }
    }

    /// Whether quantised weights go back as they were stored: nothing else is asked for, and all of
    /// the model's are there, so that its configuration stays true.
    fn can_keep_quantised(&self) -> bool {
        let packed = &self.origin.packed;
        let asked = self.options.dtype.is_some() || self.origin.edited.is_some();
        if asked || self.options.format != CompileFormat::Safetensors || packed.is_empty() {
            return false;
        }
        let in_tiles = packed.values().any(|weight| weight.in_tiles);
        self.origin.architecture.tensors(Naming::Hub).iter().all(|spec| {
            let own = self.own_candidate(spec);
            match packed.contains_key(&spec.key) {
                true => own.is_some(),
                // Extraction widens parts of a tensor whose tiles cover rows of other weights too.
                false => {
                    if own.is_none() {
                        return !spec.required || !self.origin.names.contains_key(&spec.key);
                    }
                    let is_part = own.is_some_and(|own| own.part.total != spec.shape[0]);
                    let stored = self.origin.types.get(&spec.key);
                    !(in_tiles && is_part && stored == Some(&Dtype::F32))
                }
            }
        })
    }

    /// The weights as llama.cpp's converter stores them.
    fn plan_gguf(&self, notes: &mut Vec<String>) -> Result<Vec<Planned<'a>>, Failure> {
        let published = self.published_type()?;
        let architecture = self.origin.architecture;
        let (mut fallen, mut narrowed) = (Vec::new(), Narrowed::default());
        let choose = |pieces: &[Piece]| {
            let piece = &pieces[0];
            let Some(inputs) = piece.inputs else { return Dtype::F32 };
            if types::stays_wide(piece.key.role) {
                return Dtype::F32;
            }
            match self.options.dtype {
                Some(kind) => {
                    let place = types::Place {
                        role: piece.key.role,
                        layer: piece.key.layer,
                        layers: architecture.layers() as u32,
                        tied: architecture.tied_embeddings,
                    };
                    let dtype = types::of_matrix(kind, place, inputs);
                    if dtype != types::base(kind) && kind != WeightType::Q4KM {
                        fallen.push((dtype, inputs));
                    }
                    dtype
                }
                None if self.is_updated(pieces) => Dtype::F32,
                None => match self.stored_type(pieces) {
                    // Rows of edits keep more bits than blocks have.
                    Some(dtype) if self.is_of_gguf(dtype) && !self.needs_more(dtype, pieces) => {
                        dtype
                    }
                    stored => {
                        let dtype = plain_type(published, stored);
                        narrowed.note(stored, dtype);
                        dtype
                    }
                },
            }
        };
        let planned = self.plan(Naming::Gguf, choose)?;
        notes.extend(narrowed.notice());
        if let (Some((dtype, columns)), Some(kind)) = (fallen.first(), self.options.dtype) {
            notes.push(format!(
                "{} tensors are {} instead of {}: rows of {columns} numbers are no whole blocks",
                fallen.len(),
                dtype.tag(),
                kind.name()
            ));
        }
        Ok(planned)
    }

    /// Whether a stored type can go to GGUF as it is: plain types at source precision, ggml's blocks.
    fn is_of_gguf(&self, dtype: Dtype) -> bool {
        if dtype.is_plain() {
            return self.origin.at_source_precision;
        }
        let tag = dtype.tag();
        larql_storage::checkpoint::gguf::ElementType::from_name(tag).is_some()
    }

    /// Whether a low-rank update is in one of the pieces.
    fn is_updated(&self, pieces: &[Piece]) -> bool {
        let matrices = pieces.iter().filter(|piece| piece.inputs.is_some());
        matrices
            .filter_map(|piece| self.numbers().matrix(piece.key))
            .any(|matrix| matrix.is_updated())
    }

    /// Whether edits put rows of their own into a tensor of blocks.
    fn needs_more(&self, dtype: Dtype, pieces: &[Piece]) -> bool {
        let mut matrices = pieces.iter().filter_map(|piece| self.numbers().matrix(piece.key));
        !dtype.is_plain() && matrices.any(|matrix| matrix.has_new_numbers())
    }

    /// The type in which all pieces of a tensor lie, without scales beside them.
    fn stored_type(&self, pieces: &[Piece]) -> Option<Dtype> {
        let of = |piece: &Piece| match piece.inputs {
            Some(_) => Some(self.origin.weights.matrix(piece.key)?.view.dtype()),
            None => self.origin.types.get(&piece.key).copied(),
        };
        let first = pieces.first().and_then(of)?;
        pieces.iter().all(|piece| of(piece) == Some(first)).then_some(first)
    }

    /// Gathers the weights that are parts of one stored tensor, and chooses its type.
    fn plan(
        &self,
        naming: Naming,
        mut choose: impl FnMut(&[Piece]) -> Dtype,
    ) -> Result<Vec<Planned<'a>>, Failure> {
        let architecture = self.origin.architecture;
        let mut order: Vec<String> = Vec::new();
        let mut gathered: HashMap<String, (Vec<usize>, Vec<Piece>)> = HashMap::new();
        for spec in architecture.tensors(naming) {
            let there = match spec.shape.len() {
                1 => self.origin.weights.vector(spec.key).is_some(),
                _ => self.origin.weights.matrix(spec.key).is_some(),
            };
            match (there, spec.required) {
                (true, _) => {}
                (false, false) => continue,
                (false, true) => return Err(self.missing(spec.key)),
            }
            let candidate = self.candidate(naming, &spec)?;
            let shape = candidate.part.stored_shape(&spec.shape);
            let piece = Piece {
                key: spec.key,
                part: candidate.part,
                outputs: spec.shape[0],
                inputs: spec.shape.get(1).copied(),
            };
            let entry = gathered.entry(candidate.name.clone()).or_insert_with(|| {
                order.push(candidate.name.clone());
                (shape, Vec::new())
            });
            entry.1.push(piece);
        }
        let mut planned = Vec::with_capacity(order.len());
        let keeps = naming == Naming::Hub && self.keeps_quantised;
        for name in order {
            let (shape, pieces) = gathered.remove(&name).expect("gathered above");
            let packed = pieces.iter().map(|piece| self.origin.packed.get(&piece.key));
            let packed = packed.collect::<Option<Vec<_>>>().filter(|_| keeps);
            if let Some(stored) = packed.and_then(|packed| packed::plan(&pieces, &packed, &shape)) {
                planned.extend(stored);
                continue;
            }
            let dtype = choose(&pieces);
            let assembly = Assembly { shape: shape.clone(), dtype, pieces };
            if assembly.gap().is_some() {
                let message = format!("parts of the tensor {name} are missing in this model");
                return Err(Failure::new(code::MISSING_COMPONENT, message));
            }
            let description = TensorDescription { name, format: dtype.tag().to_owned(), shape };
            planned.push(Planned { description, content: Content::Assembled(assembly) });
        }
        Ok(planned)
    }

    fn missing(&self, key: WeightKey) -> Failure {
        let message = format!("{} has no {key}, which a model needs", self.origin.name);
        Failure::new(code::MISSING_COMPONENT, message)
            .hint("EXTRACT … WITH ALL keeps everything, and a checkpoint can be compiled as it is")
    }
}

/// A tensor that goes along as it is.
fn copy(other: Other<'_>) -> Planned<'_> {
    Planned { description: other.description, content: Content::Copied(other.bytes) }
}

/// The type of a tensor for which none is asked: the configuration's, else the stored one, else, for
/// the values of quantised weights, F16.
fn plain_type(published: Option<Dtype>, stored: Option<Dtype>) -> Dtype {
    published.or(stored.filter(|stored| stored.is_plain())).unwrap_or(Dtype::F16)
}

/// Tensors whose plain type loses bits because the configuration names a narrower one.
#[derive(Debug, Default)]
struct Narrowed {
    tensors: usize,
    first: Option<(Dtype, Dtype)>,
}

impl Narrowed {
    fn note(&mut self, stored: Option<Dtype>, dtype: Dtype) {
        let Some(stored) = stored.filter(|stored| stored.is_plain() && *stored != dtype) else {
            return;
        };
        if dtype != Dtype::F32 {
            self.tensors += 1;
            self.first.get_or_insert((stored, dtype));
        }
    }

    fn notice(&self) -> Option<String> {
        let (stored, dtype) = self.first?;
        let (count, stored, dtype) = (self.tensors, stored.tag(), dtype.tag());
        Some(format!(
            "{count} tensors are rounded from {stored} to {dtype}, the type that config.json names; \
             DTYPE asks for another"
        ))
    }
}

/// The type that holds the most numbers.
fn most_common(planned: &[Planned<'_>]) -> Dtype {
    let mut numbers: Vec<(Dtype, usize)> = Vec::new();
    for tensor in planned {
        let Content::Assembled(assembly) = &tensor.content else { continue };
        let count: usize = assembly.shape.iter().product();
        match numbers.iter_mut().find(|(dtype, _)| *dtype == assembly.dtype) {
            Some((_, sum)) => *sum += count,
            None => numbers.push((assembly.dtype, count)),
        }
    }
    numbers.into_iter().max_by_key(|(_, sum)| *sum).map_or(Dtype::F16, |(dtype, _)| dtype)
}

/// A name as part of a file name.
fn file_stem(name: &str) -> String {
    let plain = |character: char| {
        if character.is_alphanumeric() || "-_.".contains(character) { character } else { '-' }
    };
    let stem: String = name.chars().map(plain).collect();
    match stem.trim_start_matches('.') {
        "" => "model".to_owned(),
        stem => stem.to_owned(),
    }
}

/// Passes bytes on and sums them up.
struct Summing<'a> {
    out: &'a mut dyn Write,
    sum: Checksummer,
}

impl Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
