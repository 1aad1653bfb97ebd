//! COMPILE INTO VINDEX: a vindex and its edits as one vindex without any.
//!
//! Files that no edit is in are linked, so that they take no room; the others are written anew, rows that no
//! edit is in with the bytes that they have. A tensor with edits keeps its type where that is `f32` or `f16`,
//! and is `f32` otherwise: blocks would cost an edit the precision that it was measured with. What is learned of
//! features (output tokens, input tokens, score statistics) is learned anew for those that changed.
//!
//! What is retrieved is no weight. It goes along in [`EDITS`], a patch file, with which the first mount begins the
//! log of the new base.
//!
//! Promises: nothing is written to a file that the source has; the destination is as it was until the whole
//! vindex is beside it; the same source and edits give the same bytes and the same base hash.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::browse::{TokenList, Vocabulary};
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Orientation, Role, WeightKey, Weights as _};
use larql_compute::quant::{Dtype, MatrixView, from_f32};
use larql_planner::physical::plan::Level;
use larql_storage::file::Files;
use larql_storage::overlay::{Fact, Operation, Slot};
use larql_storage::patch::{PatchFile, Step};
use larql_storage::store::digest;
use larql_storage::vindex::down_meta::{self, FeatureRecord};
use larql_storage::vindex::gate_meta::{self, InputToken};
use larql_storage::vindex::knowledge::{EdgeRecord, EntityRecord};
use larql_storage::vindex::layout::{DOWN_META, FEATURE_LABELS, GATE_META, STATISTICS};
use larql_storage::vindex::{
    Checksum, Checksummer, FileEntry, KnowledgeFile, Layout, ManifestHeader, Sealed, Statistics,
    TensorKey, TensorRecord, TensorSlice, Vindex, VindexWriter, WritePlan,
};
use sha2::{Digest as _, Sha256};

use super::CHUNK_BYTES;
use crate::failure::{Failure, code};
use crate::mounts::{NO_SCORES, Samples, Source};
use crate::pipeline::Progress;
use crate::pipeline::edited::EditedModel;
use crate::pipeline::extract::level_of;

/// The file of a vindex with edits that are no weights: its log begins with them.
pub const EDITS: &str = "edits.vlp";

/// Numbers that are gathered and encoded at a time.
const BLOCK_NUMBERS: usize = 1 << 20;
/// Features whose tokens are looked for at a time.
const FEATURES_AT_ONCE: usize = 4096;

/// A fact that an edit states, and the feature that does, if one alone does.
#[derive(Debug, Clone, PartialEq)]
pub struct StatedFact {
    /// The fact.
    pub fact: Fact,
    /// Its feature, as the edits number it.
    pub slot: Option<Slot>,
    /// 0 to 1, where the edit says so.
    pub confidence: Option<f32>,
}

/// What is compiled, and where to.
pub struct VindexOptions<'a> {
    /// The directory to write.
    pub destination: PathBuf,
    /// Replace a vindex that is there.
    pub overwrite: bool,
    /// How much of the source is kept; `None` for all of it.
    pub level: Option<Level>,
    /// Edits that are no weights, of features as the product numbers them.
    pub carried: &'a [Operation],
    /// What the edits state.
    pub stated: &'a [StatedFact],
    /// Which edges of the source are none with the edits.
    pub said: &'a crate::editing::stated::Stated,
}

/// A vindex that is whole, beside its destination.
#[derive(Debug)]
pub struct Compiled {
    /// Where it is until it is moved.
    pub sealed: Sealed,
    /// Files that are the source's.
    pub linked: usize,
    /// Tensors.
    pub tensors: u64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Writes the vindex beside its destination.
///
/// # Errors
/// What is wrong with the source, the edits, the destination or the disk. Nothing is left behind, and the
/// destination is as it was.
pub fn compile_vindex(
    files: &Arc<dyn Files>,
    pool: &Pool,
    edited: &EditedModel<'_>,
    options: &VindexOptions<'_>,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Compiled, Failure> {
    let model = edited.model();
    let Source::Vindex(source) = model.source() else {
        let message = format!("{} is a checkpoint", model.path().display());
        return Err(Failure::new(code::MISSING_COMPONENT, message)
            .hint("EXTRACT makes a vindex of it; INTO MODEL compiles it as it is"));
    };
    let vindex = source.vindex();
    if vindex.ancestor().is_some() {
        let message = format!("{} is a vindex of version 2", model.path().display());
        return Err(Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("COMPILE … INTO MODEL, then EXTRACT the model"));
    }
    let is_source = files
        .canonicalize(&options.destination)
        .is_ok_and(|path| files.canonicalize(model.path()).is_ok_and(|own| own == path));
    if is_source {
        let message = format!("{} is what is compiled", options.destination.display());
        return Err(Failure::new(code::INVALID_PARAMETER, message).hint("name another directory"));
    }
    let own = &vindex.manifest().level;
    if let Some(level) = options.level
        && Level::from_name(own).is_none_or(|own| level > own)
    {
        let message =
            format!("{} has the level {own}, and not {}", model.path().display(), level.name());
        return Err(
            Failure::new(code::MISSING_COMPONENT, message).hint("EXTRACT … WITH that level first")
        );
    }
    let mut job = Job {
        edited,
        vindex,
        pool,
        cancel,
        options,
        contents: BTreeMap::new(),
        linked: 0,
        widened: HashSet::new(),
    };
    let plan = WritePlan {
        overwrite: options.overwrite,
        resume: false,
        fingerprint: format!("compile {}", vindex.manifest().base_hash),
    };
    let mut writer = VindexWriter::create(files, &options.destination, &plan)?;
    let written =
        job.write(&mut writer, files, progress).and_then(|header| {
            model.check()?;
            match model.is_replaced(files) {
                true => Err(Failure::new(code::BUSY, "the vindex was replaced meanwhile")
                    .hint("compile again")),
                false => Ok(header),
            }
        });
    let header = match written {
        Ok(header) => header,
        Err(failure) => {
            // What is left is replaced by the next that writes there; the first failure is told.
            let _ = writer.abandon();
            return Err(failure);
        }
    };
    let mut notes = edited.notes();
    if !job.widened.is_empty() {
        let types: Vec<&str> = {
            let mut types: Vec<&str> = job.widened.iter().map(|dtype| dtype.tag()).collect();
            types.sort_unstable();
            types
        };
        notes.push(format!("tensors with edits are F32, where they were {}", types.join(", ")));
    }
    let linked = job.linked;
    progress("syncing", 0, 0, "")?;
    let sealed = writer.seal(header)?;
    let tensors = sealed.manifest().files.iter().map(|file| file.tensors.len() as u64).sum();
    Ok(Compiled { sealed, linked, tensors, notes })
}

struct Job<'a> {
    edited: &'a EditedModel<'a>,
    vindex: &'a Vindex,
    pool: &'a Pool,
    cancel: &'a Cancel,
    options: &'a VindexOptions<'a>,
    /// What was written anew: the identity of the new weights.
    contents: BTreeMap<TensorKey, (String, Vec<u64>, Checksum)>,
    linked: usize,
    /// Types that were too coarse for edits.
    widened: HashSet<Dtype>,
}

impl Job<'_> {
    fn write(
        &mut self,
        writer: &mut VindexWriter,
        files: &Arc<dyn Files>,
        progress: &mut Progress<'_>,
    ) -> Result<ManifestHeader, Failure> {
        let (vindex, edited) = (self.vindex, self.edited);
        let entries = &vindex.manifest().files;
        let total = entries.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        for entry in entries {
            self.cancel.check()?;
            progress("weights", done, total, "bytes")?;
            done += entry.bytes;
            let beyond = self.options.level.zip(level_of(&entry.name));
            match &*entry.name {
                _ if beyond.is_some_and(|(kept, own)| own > kept) => {}
                "config.json" if edited.config().is_some() => {
                    writer.side_file("config.json", edited.config().unwrap_or_default())?;
                }
                DOWN_META if self.is_changed(Role::Down) => self.down_meta(writer)?,
                GATE_META if self.is_changed(Role::Gate) => self.gate_meta(writer)?,
                STATISTICS if self.is_changed(Role::Gate) => self.statistics(writer)?,
                // Written below, with what the edits say.
                FEATURE_LABELS | EDITS => {}
                _ if entry.tensors.iter().any(|tensor| self.edits_of(tensor).is_some()) => {
                    self.tensors(writer, entry, progress, (done - entry.bytes, total))?;
                }
                name => {
                    let content = vindex.file_bytes(name).unwrap_or_default();
                    writer.adopt(entry, &vindex.directory().join(name), content)?;
                    self.linked += 1;
                }
            }
        }
        self.labels(writer)?;
        let base_hash = self.base_hash();
        if !self.options.carried.is_empty() {
            let file = PatchFile {
                base_model: vindex.manifest().model.clone(),
                base_checksum: Some(base_hash.clone()),
                steps: self.options.carried.iter().cloned().map(Step::Operation).collect(),
                ..PatchFile::default()
            };
            let mut bytes = Vec::new();
            file.write(&mut bytes).map_err(|error| Failure::io(EDITS, &error))?;
            writer.side_file(EDITS, &bytes)?;
        }
        self.knowledge(writer.staging(), files, &base_hash)?;
        Ok(self.header(base_hash))
    }

    /// The weight that a record holds, where edits change it.
    fn edits_of(&self, record: &TensorRecord) -> Option<WeightKey> {
        let role: Role = record.role.parse().ok()?;
        let key = WeightKey { role, layer: record.layer, expert: record.expert };
        self.edited.changes(key).then_some(key)
    }

    /// Whether edits change a projection of any layer, or how many features there are.
    fn is_changed(&self, role: Role) -> bool {
        let layers = self.edited.architecture().layers() as u32;
        self.edited.config().is_some()
            || (0..layers).any(|layer| !self.edited.changed_features(layer, role).is_empty())
    }

    /// Writes a file of tensors anew.
    fn tensors(
        &mut self,
        writer: &mut VindexWriter,
        entry: &FileEntry,
        progress: &mut Progress<'_>,
        (done, total): (u64, u64),
    ) -> Result<(), Failure> {
        // The scales of what is written as numbers go.
        let dropped: HashSet<TensorKey> = entry
            .tensors
            .iter()
            .filter(|record| self.edits_of(record).is_some())
            .flat_map(|record| {
                let suffixes = record.scales.iter().flat_map(|scales| scales.suffixes());
                suffixes.map(|suffix| record.companion(suffix))
            })
            .collect();
        for record in &entry.tensors {
            self.cancel.check()?;
            progress("weights", done + record.offset, total, "bytes")?;
            let Some(tensor) = self.vindex.tensor(&record.key()) else { continue };
            match self.edits_of(record) {
                Some(key) if self.edited.matrix(key).is_some() && record.shape.len() == 2 => {
                    self.matrix(writer, &entry.name, &tensor, key)?;
                }
                Some(key) => self.vector(writer, &entry.name, &tensor, key)?,
                None if dropped.contains(&record.key()) => {}
                None => {
                    let cancel = self.cancel;
                    writer.tensor(&entry.name, record.clone(), &mut |out| {
                        for chunk in tensor.bytes.chunks(CHUNK_BYTES) {
                            cancel.check().map_err(io::Error::other)?;
                            out.write_all(chunk)?;
                        }
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Writes a projection with a row for each feature.
    fn matrix(
        &mut self,
        writer: &mut VindexWriter,
        file: &str,
        tensor: &TensorSlice<'_>,
        key: WeightKey,
    ) -> Result<(), Failure> {
        let lost = || Failure::new(code::DAMAGED, format!("{key} cannot be read"));
        let matrix = self.edited.matrix(key).ok_or_else(lost)?;
        let (is_down, hidden) = (key.role == Role::Down, self.edited.architecture().hidden_size);
        let shape = self.edited.architecture().shape(key).ok_or_else(lost)?;
        let features = if is_down { shape[1] } else { shape[0] };
        let block = (BLOCK_NUMBERS / hidden.max(1)).clamp(1, features.max(1));
        let blocks = || (0..features).step_by(block).map(|at| at..features.min(at + block));
        let mut numbers = vec![0.0; block * hidden];
        let stored = matrix.base().view.dtype();
        let plain_rows = matrix.base().view.has_plain_rows();
        let dtype = match stored {
            Dtype::F32 => Dtype::F32,
            Dtype::F16 if matrix.has_new_numbers() => {
                let mut largest = 0.0_f32;
                for range in blocks() {
                    self.cancel.check()?;
                    let numbers = &mut numbers[..range.len() * hidden];
                    matrix.read_features(range, hidden, is_down, numbers);
                    largest = numbers.iter().fold(largest, |most, number| most.max(number.abs()));
                }
                if largest <= F16_MAX { Dtype::F16 } else { Dtype::F32 }
            }
            other if !matrix.has_new_numbers() && other.can_encode() && plain_rows => other,
            _ => Dtype::F32,
        };
        if dtype != stored {
            self.widened.insert(stored);
        }
        let too_large = || Failure::new(code::LIMIT, format!("{key} is too large"));
        let row_bytes = dtype.bytes_for(hidden).ok_or_else(too_large)?;
        let bytes = row_bytes.checked_mul(features).ok_or_else(too_large)?;
        let padded = hidden.next_multiple_of(dtype.block().0);
        let record = TensorRecord {
            dtype: dtype.tag().to_lowercase(),
            shape: vec![features as u64, hidden as u64],
            columns_padded: (padded > hidden).then_some(padded as u64),
            scales: None,
            layout: if is_down { Layout::FeatureMajor } else { Layout::RowMajor },
            bytes: bytes as u64,
            ..tensor.record.clone()
        };
        let (cancel, mut sum) = (self.cancel, Checksummer::new());
        let mut encoded = vec![0; block * row_bytes];
        writer.tensor(file, record.clone(), &mut |out| {
            for range in blocks() {
                cancel.check().map_err(io::Error::other)?;
                let encoded = &mut encoded[..range.len() * row_bytes];
                let kept = |feature: usize| match dtype == stored {
                    true => matrix.stored_feature(feature, is_down),
                    false => None,
                };
                if range.clone().any(|feature| kept(feature).is_none()) {
                    let numbers = &mut numbers[..range.len() * hidden];
                    matrix.read_features(range.clone(), hidden, is_down, numbers);
                    let rows = encoded.chunks_exact_mut(row_bytes.max(1));
                    rows.zip(numbers.chunks_exact(hidden.max(1)))
                        .for_each(|(bytes, numbers)| from_f32(dtype, numbers, bytes));
                }
                for (feature, bytes) in range.zip(encoded.chunks_exact_mut(row_bytes.max(1))) {
                    if let Some(stored) = kept(feature).filter(|row| row.len() == row_bytes) {
                        bytes.copy_from_slice(stored);
                    }
                }
                sum.update(encoded);
                out.write_all(encoded)?;
            }
            Ok(())
        })?;
        self.contents.insert(record.key(), (record.dtype, record.shape, sum.finish()));
        Ok(())
    }

    /// Writes a bias with a number for each feature.
    fn vector(
        &mut self,
        writer: &mut VindexWriter,
        file: &str,
        tensor: &TensorSlice<'_>,
        key: WeightKey,
    ) -> Result<(), Failure> {
        let lost = || Failure::new(code::DAMAGED, format!("{key} cannot be read"));
        let values = self.edited.vector(key).ok_or_else(lost)?;
        let stored = Dtype::from_tag(&tensor.record.dtype);
        let dtype = stored.filter(|dtype| dtype.is_plain()).unwrap_or(Dtype::F32);
        let mut bytes = vec![0; dtype.bytes_for(values.len()).ok_or_else(lost)?];
        from_f32(dtype, &values, &mut bytes);
        let record = TensorRecord {
            dtype: dtype.tag().to_lowercase(),
            shape: vec![values.len() as u64],
            columns_padded: None,
            bytes: bytes.len() as u64,
            ..tensor.record.clone()
        };
        writer.tensor(file, record.clone(), &mut |out| out.write_all(&bytes))?;
        self.contents.insert(record.key(), (record.dtype, record.shape, Checksum::of(&bytes)));
        Ok(())
    }

    /// Whether the source has the features of a layer at all.
    fn has(&self, layer: u32) -> bool {
        self.vindex.manifest().features.get(layer as usize).is_some_and(|&count| count > 0)
    }

    fn features(&self, layer: u32) -> u32 {
        self.edited.architecture().features(layer as usize) as u32
    }

    /// Vectors of some features of a layer, which may be of several networks: `[features, hidden]`.
    fn vectors(&self, layer: u32, role: Role, features: &[u32]) -> Vec<f32> {
        let hidden = self.edited.architecture().hidden_size;
        let networks = self.edited.architecture().networks(layer as usize);
        let mut numbers = vec![0.0; features.len() * hidden];
        for (&feature, out) in features.iter().zip(numbers.chunks_exact_mut(hidden.max(1))) {
            let feature = feature as usize;
            let of =
                networks.iter().find(|of| (of.first..of.first + of.features).contains(&feature));
            let Some(network) = of else { continue };
            let key = WeightKey { role, layer: Some(layer), expert: network.expert };
            if let Some(matrix) = self.edited.matrix(key) {
                let within = feature - network.first;
                matrix.read_features(within..within + 1, hidden, role == Role::Down, out);
            }
        }
        numbers
    }

    /// The tokens of features that changed, by their numbers.
    fn tokens(
        &self,
        layer: u32,
        role: Role,
        vocabulary: &Vocabulary<'_>,
        count: usize,
    ) -> Result<BTreeMap<u32, TokenList>, Failure> {
        let hidden = self.edited.architecture().hidden_size;
        let mut found = BTreeMap::new();
        for features in self.edited.changed_features(layer, role).chunks(FEATURES_AT_ONCE) {
            self.cancel.check()?;
            let numbers = self.vectors(layer, role, features);
            let view = MatrixView::from_f32(features.len(), hidden, &numbers)
                .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
            let tokens = vocabulary.top_tokens(self.pool, &view, count, self.cancel)?;
            // A feature that answers nothing has no tokens.
            let rows = numbers.chunks_exact(hidden.max(1)).zip(tokens);
            found.extend(features.iter().copied().zip(rows).filter_map(
                |(feature, (row, tokens))| {
                    row.iter().any(|&number| number != 0.0).then_some((feature, tokens))
                },
            ));
        }
        Ok(found)
    }

    /// A table with a vector for each token, as the vindex has it.
    fn table(&self, role: Role) -> Result<Vocabulary<'_>, Failure> {
        let table = self.edited.model().matrix(WeightKey::model(role));
        let table =
            table.filter(|table| table.orientation == Orientation::OutIn).ok_or_else(|| {
                Failure::new(code::MISSING_COMPONENT, format!("the vindex has no {role} table"))
                    .hint("EXTRACT … WITH INFERENCE")
            })?;
        Ok(Vocabulary::new(self.pool, table.view, self.cancel)?)
    }

    fn down_meta(&self, writer: &mut VindexWriter) -> Result<(), Failure> {
        let Some(meta) = self.vindex.down_meta() else { return Ok(()) };
        let tied = self.edited.architecture().tied_embeddings;
        let vocabulary = self.table(if tied { Role::Embedding } else { Role::Unembedding })?;
        let header = down_meta::encode_header(meta.layers(), meta.top_k());
        writer.append_part(DOWN_META, "header", &header)?;
        for layer in 0..meta.layers() {
            let mut records = Vec::new();
            if meta.features(layer) > 0 {
                let top_k = meta.top_k() as usize;
                let mut changed = self.tokens(layer, Role::Down, &vocabulary, top_k)?;
                let silent: HashSet<u32> =
                    self.edited.changed_features(layer, Role::Down).into_iter().collect();
                records.extend((0..self.features(layer)).map(|feature| {
                    if silent.contains(&feature) {
                        let tokens = changed.remove(&feature).unwrap_or_default();
                        return FeatureRecord { tokens };
                    }
                    let origin = self.edited.origin(layer, feature);
                    let found = origin.and_then(|origin| meta.feature(layer, origin));
                    let tokens = found.map(|found| found.tokens().collect()).unwrap_or_default();
                    FeatureRecord { tokens }
                }));
            }
            let mut bytes = Vec::new();
            down_meta::encode_layer(&mut bytes, meta.top_k(), &records);
            writer.append_part(DOWN_META, &format!("layer {layer}"), &bytes)?;
        }
        Ok(())
    }

    fn gate_meta(&self, writer: &mut VindexWriter) -> Result<(), Failure> {
        let Some(meta) = self.vindex.gate_meta() else { return Ok(()) };
        let vocabulary = self.table(Role::Embedding)?;
        let scale = self.edited.architecture().embed_scale;
        writer.append_part(GATE_META, "header", &gate_meta::encode_header(meta.layers()))?;
        for layer in 0..meta.layers() {
            let mut tokens: Vec<Option<InputToken>> = Vec::new();
            if meta.features(layer) > 0 {
                let changed = self.tokens(layer, Role::Gate, &vocabulary, 1)?;
                tokens.extend((0..self.features(layer)).map(|feature| {
                    match changed.get(&feature).map(|tokens| tokens.first()) {
                        Some(first) => first.map(|&(token_id, score)| InputToken {
                            token_id,
                            score: score * scale,
                        }),
                        None => {
                            let origin = self.edited.origin(layer, feature)?;
                            meta.feature(layer, origin)
                        }
                    }
                }));
            }
            let mut bytes = Vec::new();
            gate_meta::encode_layer(&mut bytes, &tokens);
            writer.append_part(GATE_META, &format!("layer {layer}"), &bytes)?;
        }
        Ok(())
    }

    fn statistics(&self, writer: &mut VindexWriter) -> Result<(), Failure> {
        let Some(statistics) = self.vindex.statistics() else { return Ok(()) };
        let mut statistics: Statistics = statistics.clone();
        let table = self.edited.model().matrix(WeightKey::model(Role::Embedding));
        let Some(table) = table.filter(|table| table.orientation == Orientation::OutIn) else {
            writer.side_file(STATISTICS, &statistics.encode())?;
            return Ok(());
        };
        let samples = Samples::of(&table.view, self.edited.architecture().embed_scale);
        let hidden = self.edited.architecture().hidden_size;
        for (layer, scores) in (0..).zip(&mut statistics.gate_scores) {
            let changed = self.edited.changed_features(layer, Role::Gate);
            if scores.is_none() || changed.is_empty() {
                continue;
            }
            // What only fills a wider layer is no gate.
            let is_gate = |feature: &u32| {
                self.edited.origin(layer, *feature).is_some()
                    || changed.binary_search(feature).is_ok()
            };
            let gates: Vec<u32> = (0..self.features(layer)).filter(is_gate).collect();
            let mut all = NO_SCORES;
            for features in gates.chunks(FEATURES_AT_ONCE) {
                let numbers = self.vectors(layer, Role::Gate, features);
                let view = MatrixView::from_f32(features.len(), hidden, &numbers)
                    .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
                samples.add(&mut all, &view, self.pool, self.cancel)?;
            }
            *scores = Some(all);
        }
        writer.side_file(STATISTICS, &statistics.encode())?;
        Ok(())
    }

    fn labels(&self, writer: &mut VindexWriter) -> Result<(), Failure> {
        let mut labels = larql_storage::vindex::Labels::default();
        for (layer, feature, label) in
            self.vindex.labels().into_iter().flat_map(|labels| labels.iter())
        {
            if let Some(feature) = self.edited.place(Slot { layer, feature }) {
                labels.insert(layer, feature, label);
            }
        }
        for stated in self.options.stated {
            let Some(slot) = stated.slot else { continue };
            if let Some(feature) = self.edited.place(slot).filter(|_| self.has(slot.layer)) {
                labels.insert(slot.layer, feature, &stated.fact.relation);
            }
        }
        if !labels.is_empty() {
            writer.side_file(FEATURE_LABELS, &labels.encode())?;
        }
        Ok(())
    }

    /// What LABEL learned, of the new base: features by their new numbers, and edges that edits state.
    fn knowledge(
        &self,
        staging: &Path,
        files: &Arc<dyn Files>,
        base_hash: &str,
    ) -> Result<(), Failure> {
        let Some(knowledge) = self.edited.model().knowledge() else { return Ok(()) };
        let mut file: KnowledgeFile = knowledge.file().clone();
        base_hash.clone_into(&mut file.base_hash);
        // What edits say otherwise, or took back, is known no more.
        for entity in &mut file.entities {
            let name = &entity.name;
            entity.edges.retain(|edge| {
                let relation = knowledge.relation(edge.relation).unwrap_or_default();
                !self.options.said.hides(name, relation, (edge.layer, edge.feature))
            });
        }
        let place = |layer: u32, feature: &mut u32| {
            if let Some(found) = self.edited.place(Slot { layer, feature: *feature }) {
                *feature = found;
            }
        };
        file.features.iter_mut().for_each(|one| place(one.layer, &mut one.feature));
        let clusters = file.clusters.iter_mut().flat_map(|cluster| &mut cluster.features);
        clusters.for_each(|(layer, feature)| place(*layer, feature));
        let edges = file.entities.iter_mut().flat_map(|entity| &mut entity.edges);
        edges.for_each(|edge| place(edge.layer, &mut edge.feature));
        for stated in self.options.stated {
            let Some(relation) = knowledge.relation_index(&stated.fact.relation) else { continue };
            self.state(&mut file, stated, relation as u32);
        }
        file.write(files, staging)?;
        Ok(())
    }

    fn state(&self, file: &mut KnowledgeFile, stated: &StatedFact, relation: u32) {
        let named = file.entities.iter().position(|entity| entity.name == stated.fact.entity);
        let at = named.unwrap_or_else(|| {
            let name = stated.fact.entity.clone();
            file.entities.push(EntityRecord { name, edges: Vec::new() });
            file.entities.len() - 1
        });
        let edges = &mut file.entities[at].edges;
        let slot = stated.slot.and_then(|slot| Some((slot.layer, self.edited.place(slot)?)));
        let known = edges.iter().position(|edge| edge.relation == relation);
        let known = known.map(|known| edges.remove(known));
        let (layer, feature) =
            slot.or(known.as_ref().map(|edge| (edge.layer, edge.feature))).unwrap_or_default();
        let edge = EdgeRecord {
            relation,
            target: stated.fact.target.clone(),
            confidence: stated.confidence.unwrap_or(1.0),
            layer,
            feature,
            effect: known.as_ref().map_or(0.0, |edge| edge.effect),
            gate_score: known.as_ref().map_or(0.0, |edge| edge.gate_score),
        };
        // Most certain first.
        let at = edges.partition_point(|other| other.confidence > edge.confidence);
        edges.insert(at, edge);
    }

    /// The identity of the new weights: what they were made from and every byte that is new. The source's own
    /// where nothing is.
    fn base_hash(&self) -> String {
        let parent = &self.vindex.manifest().base_hash;
        if !self.edited.is_changed() && self.options.carried.is_empty() {
            return parent.clone();
        }
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(b"larql compiled base 1");
        field(parent.as_bytes());
        field(self.edited.config().unwrap_or_default());
        for (key, (dtype, shape, content)) in &self.contents {
            field(key.to_string().as_bytes());
            field(dtype.as_bytes());
            let shape: Vec<u8> = shape.iter().flat_map(|size| size.to_le_bytes()).collect();
            field(&shape);
            field(content.as_bytes());
        }
        field(&digest(self.options.carried).0);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn header(&self, base_hash: String) -> ManifestHeader {
        let mut header = self.vindex.manifest().header.clone();
        let parent = std::mem::replace(&mut header.base_hash, base_hash);
        for (layer, count) in
            header.features.iter_mut().enumerate().filter(|(_, count)| **count > 0)
        {
            *count = self.edited.architecture().features(layer) as u64;
        }
        if let Some(level) = self.options.level {
            level.name().clone_into(&mut header.level);
        }
        if header.base_hash != parent {
            header.notes.push(format!("compiled from {parent} with edits"));
        }
        concat!("larqld ", env!("CARGO_PKG_VERSION")).clone_into(&mut header.generator);
        header
    }
}

/// The largest number that 16-bit floats hold.
const F16_MAX: f32 = 65504.0;
