//! One open model: weights by key, tokens, labels, and what is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Architecture, Matrix, Network, Orientation, Role, WeightKey, Weights};
use larql_planner::catalog::{Bands, Component, Extraction, INFERENCE_COMPONENTS};
use larql_planner::physical::plan::Quantisation;
use larql_storage::file::Files;
use larql_storage::vindex::{
    DownMeta, GateMeta, KnowledgeFile, KnowledgeLimits, Labels, LayerScores, Vindex,
};
use serde_json::Value;

use super::checkpoint_base_hash;
use super::gate_statistics::Learned;
use super::inventory::{Inventory, LayerInventory};
use super::vindex_model::VindexModel;
use crate::editing::Kept;
use crate::failure::{Failure, code};
use crate::indexes::Indexes;
use crate::knowledge::Knowledge;
use crate::machine;
use crate::source::SourceModel;
use crate::text::{ChatTemplate, Guides, Tokenizer};

/// The number of the next model that is opened.
static NUMBER: AtomicU64 = AtomicU64::new(1);

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
    Vindex(Box<VindexModel>),
    /// A published checkpoint.
    Checkpoint(Box<SourceModel>),
}

/// An open model.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    /// What its bytes were opened by; what is kept beside it is written by the same.
    files: Arc<dyn Files>,
    source: Source,
    inventory: Inventory,
    base_hash: String,
    tokenizer: OnceLock<Result<Tokenizer, Failure>>,
    guides: OnceLock<Result<Guides, Failure>>,
    /// Gate score statistics that the source does not hold.
    learned: Learned,
    /// How steady the order of gate hits is, measured when it is first asked for.
    strongest_kept: OnceLock<Option<f64>>,
    /// What LABEL learned, replaced whole when it learns anew.
    knowledge: ArcSwapOption<Knowledge>,
    /// What is kept of it for edits.
    edits: Kept,
    /// What finds features without a scan, replaced whole when it changes.
    indexes: ArcSwap<Indexes>,
    /// A number that no other model of this process has.
    number: u64,
    /// How often labels or indexes have changed.
    changes: AtomicU64,
    /// Where the checkpoint lies that the vindex was made from, as far as this daemon knows.
    extracted_from: Option<PathBuf>,
}

impl Model {
    /// Opens a directory or a file, whichever of the two it is.
    ///
    /// # Errors
    /// A failure that names the path and what is wrong with it.
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
        let vindex = VindexModel::new(Vindex::open(files, path)?)?;
        let inventory = Inventory::new(vindex.architecture(), &vindex.held());
        let manifest = vindex.vindex().manifest();
        let base_hash = manifest.base_hash.clone();
        let limits = KnowledgeLimits {
            base_hash: &base_hash,
            hidden_size: manifest.hidden_size,
            features: &manifest.features,
        };
        let knowledge = KnowledgeFile::read(files, path, &limits).map_err(|error| {
            let failure = Failure::from(error);
            Failure { message: format!("{}: {}", path.display(), failure.message), ..failure }
        })?;
        let source = Source::Vindex(Box::new(vindex));
        let model = Self::new(files, path, source, inventory, base_hash);
        model.set_knowledge(knowledge);
        model.indexes.store(Arc::new(Indexes::open(files, &model)));
        Ok(model)
    }

    /// Opens a checkpoint (a directory, a safetensors or a GGUF file) for use as it is.
    ///
    /// # Errors
    /// As [`Model::open`]; also when a tensor that the family requires is missing.
    pub fn open_checkpoint(
        files: &Arc<dyn Files>,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let source = SourceModel::open(files, path)?;
        let base_hash = checkpoint_base_hash(&source, "source", &mut |_| Ok(cancel.check()?))?;
        let inventory = Inventory::new(source.architecture(), &source.held());
        Ok(Self::new(files, path, Source::Checkpoint(Box::new(source)), inventory, base_hash))
    }

    fn new(
        files: &Arc<dyn Files>,
        path: &Path,
        source: Source,
        inventory: Inventory,
        base_hash: String,
    ) -> Self {
        let learned = Learned::new(inventory.layers.len() as u32);
        Self {
            path: path.to_owned(),
            files: files.clone(),
            source,
            inventory,
            base_hash,
            tokenizer: OnceLock::new(),
            guides: OnceLock::new(),
            learned,
            strongest_kept: OnceLock::new(),
            knowledge: ArcSwapOption::empty(),
            edits: Kept::default(),
            indexes: ArcSwap::default(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            changes: AtomicU64::new(0),
            extracted_from: None,
        }
    }

    /// The directory or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What reads and writes beside it.
    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
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
        match &self.source {
            Source::Vindex(vindex) => vindex.architecture(),
            Source::Checkpoint(source) => source.architecture(),
        }
    }

    /// The identity of the weights, in hexadecimal.
    pub fn base_hash(&self) -> &str {
        &self.base_hash
    }

    /// Number of layers.
    pub fn layers(&self) -> u32 {
        self.architecture().layers() as u32
    }

    /// Number of features of a layer, all its networks together; 0 for one whose gates are not here.
    pub fn features(&self, layer: u32) -> u64 {
        self.layer(layer).features
    }

    /// The networks of a layer whose features are here, each with its gate vectors, in the order in
    /// which features are numbered.
    pub fn gates(&self, layer: u32) -> impl Iterator<Item = (Network, Matrix<'_>)> {
        let here = self.features(layer) > 0;
        let networks = here.then(|| self.architecture().networks(layer as usize));
        networks.into_iter().flatten().filter_map(move |network| {
            let key = WeightKey { role: Role::Gate, layer: Some(layer), expert: network.expert };
            Some((network, self.matrix(key)?))
        })
    }

    /// Bytes of all gate vectors of a layer.
    pub fn gate_bytes(&self, layer: u32) -> u64 {
        self.layer(layer).gate_bytes
    }

    /// Bytes of weights that a layer's feed-forward networks read for one position.
    pub fn ffn_bytes(&self, layer: u32) -> u64 {
        self.layer(layer).ffn_bytes
    }

    /// Bytes of weights that a layer's attention reads.
    pub fn attention_bytes(&self, layer: u32) -> u64 {
        self.layer(layer).attention_bytes
    }

    /// Bytes of the matrix that scores the vocabulary.
    pub fn unembedding_bytes(&self) -> u64 {
        self.inventory.unembedding_bytes
    }

    fn layer(&self, layer: u32) -> LayerInventory {
        self.inventory.layers.get(layer as usize).copied().unwrap_or_default()
    }

    /// The model's layer bands.
    pub fn bands(&self) -> Option<Bands> {
        let narrow = |(first, last): (usize, usize)| (first as u32, last as u32);
        self.architecture().bands().map(|bands| Bands {
            syntax: narrow(bands.syntax),
            knowledge: narrow(bands.knowledge),
            output: narrow(bands.output),
        })
    }

    /// `browse`, `attention`, `inference` or `all`; a checkpoint has it all.
    pub fn level(&self) -> &str {
        match &self.source {
            Source::Vindex(vindex) => &vindex.vindex().manifest().level,
            Source::Checkpoint(_) => "checkpoint",
        }
    }

    /// The type in which the gate vectors lie, in lower case; what benches and STATS report.
    pub fn stored_type(&self) -> String {
        let first = (0..self.layers()).find_map(|layer| self.gates(layer).next());
        let tag = |(_, gates): (Network, Matrix<'_>)| gates.view.dtype().tag().to_lowercase();
        first.map_or_else(|| "none".to_owned(), tag)
    }

    /// All bytes of the directory's files.
    pub fn bytes(&self) -> u64 {
        match &self.source {
            Source::Vindex(vindex) => vindex.vindex().bytes(),
            Source::Checkpoint(source) => source.checkpoint().bytes(),
        }
    }

    /// What to name as the source in a hint that suggests EXTRACT.
    pub fn source_hint(&self) -> String {
        match &self.source {
            Source::Vindex(vindex) => match &self.extracted_from {
                Some(path) => path.display().to_string(),
                None => vindex.vindex().manifest().source.name.clone(),
            },
            Source::Checkpoint(_) => self.path.display().to_string(),
        }
    }

    /// The type in which the weights are stored: `f16`, `f32` or `source`.
    pub fn weights_type(&self) -> &str {
        match &self.source {
            Source::Vindex(vindex) => &vindex.vindex().manifest().dtype,
            Source::Checkpoint(_) => "source",
        }
    }

    /// The block format that EXTRACT gave the matrices.
    pub fn quantisation(&self) -> Option<Quantisation> {
        match &self.source {
            Source::Vindex(vindex) => {
                vindex.vindex().manifest().quantisation.as_deref().and_then(Quantisation::from_name)
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
            Source::Vindex(vindex) => vindex.vindex().is_replaced(files),
            Source::Checkpoint(_) => false,
        }
    }

    /// Whether a component is here, for every layer that was extracted.
    pub fn has(&self, component: Component) -> bool {
        match component {
            // One that is damaged is there, and says so itself.
            Component::Tokenizer => {
                !matches!(self.tokenizer(), Err(failure) if failure.code == code::MISSING_COMPONENT)
            }
            // Where none are stored they are computed.
            Component::DownMeta => self.down_meta().is_some() || self.computes_output_tokens(),
            Component::GateMeta => self.gate_meta().is_some(),
            // Where none are stored they can be learned.
            Component::Statistics => {
                matches!(
                    &self.source,
                    Source::Vindex(vindex) if vindex.vindex().statistics().is_some()
                ) || self.has(Component::Gates) && self.has(Component::Embeddings)
            }
            Component::KnownEdges => self.knowledge.load().is_some(),
            Component::Labels => {
                self.knowledge.load().is_some()
                    || matches!(
                        &self.source,
                        Source::Vindex(vindex) if vindex.vindex().labels().is_some()
                    )
            }
            weights => self.inventory.has(weights),
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
            let tokenizer = Tokenizer::from_bytes(&bytes, self.architecture().vocabulary_size);
            drop(bytes);
            // A vocabulary's text is parsed into many times its size.
            machine::return_freed_memory();
            tokenizer.map_err(|error| {
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
        Ok(ChatTemplate::from_files(config.as_deref(), jinja.as_deref())?)
    }

    /// The tokens that end a text or a turn, in ascending order: `eos_token_id` of
    /// `generation_config.json` and of `config.json`, and the end marker that
    /// `tokenizer_config.json` names.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn end_tokens(&self) -> Result<Vec<u32>, Failure> {
        let mut ends = self.architecture().eos_tokens.clone();
        let parse = |bytes: Option<Vec<u8>>| {
            bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).unwrap_or_default()
        };
        let generation = parse(self.side_file("generation_config.json")?);
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &generation["eos_token_id"] {
            Value::Array(list) => ends.extend(list.iter().filter_map(id)),
            one => ends.extend(id(one)),
        }
        let tokenizer_config = parse(self.side_file("tokenizer_config.json")?);
        let marker = &tokenizer_config["eos_token"];
        let marker = marker.as_str().or_else(|| marker["content"].as_str());
        ends.extend(marker.and_then(|marker| self.tokenizer().ok()?.id_of(marker)));
        ends.sort_unstable();
        ends.dedup();
        Ok(ends)
    }

    /// What makes constraints on generated text, made when first asked for.
    ///
    /// # Errors
    /// The same failure each time, for a tokenizer whose tokens are no bytes.
    pub fn guides(&self) -> Result<&Guides, Failure> {
        let make = || {
            let guides = Guides::new(self.tokenizer()?, &self.end_tokens()?);
            machine::return_freed_memory();
            Ok(guides?)
        };
        self.guides.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// A file that lies beside the weights, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match &self.source {
            Source::Vindex(vindex) => vindex.vindex().side_file(name)?,
            Source::Checkpoint(source) => source.side_file(name)?,
        })
    }

    /// What a user should know about how the model was extracted or read.
    pub fn notes(&self) -> &[String] {
        match &self.source {
            Source::Vindex(vindex) => vindex.notes(),
            Source::Checkpoint(source) => source.notes(),
        }
    }

    /// What had to be assumed about the model, or how its files were understood: to be told to
    /// whoever begins to use it.
    pub fn assumptions(&self) -> &[String] {
        match &self.source {
            Source::Vindex(vindex) => vindex.assumptions(),
            Source::Checkpoint(source) => source.notes(),
        }
    }

    /// The output tokens of features.
    pub fn down_meta(&self) -> Option<&DownMeta> {
        match &self.source {
            Source::Vindex(vindex) => vindex.vindex().down_meta(),
            Source::Checkpoint(_) => None,
        }
    }

    /// The strongest input tokens of features.
    pub fn gate_meta(&self) -> Option<&GateMeta> {
        match &self.source {
            Source::Vindex(vindex) => vindex.vindex().gate_meta(),
            Source::Checkpoint(_) => None,
        }
    }

    /// Mean and standard deviation of the gate scores of a layer: those that are stored, or that
    /// [`Model::learn_gate_scores`] learned.
    pub fn gate_scores(&self, layer: u32) -> Option<(f64, f64)> {
        let scores = self.stored_gate_scores(layer).or_else(|| self.learned.get(layer))?;
        Some((scores.mean, scores.deviation))
    }

    /// The share of a word's strongest features that another rounding of coarse gates would keep;
    /// `None` where gates are not coarse, or not here.
    ///
    /// # Errors
    /// When cancelled.
    pub fn strongest_features_kept(&self, cancel: &Cancel) -> Result<Option<f64>, Failure> {
        if let Some(&kept) = self.strongest_kept.get() {
            return Ok(kept);
        }
        let kept = super::rounding::strongest_features_kept(self, cancel)?;
        Ok(*self.strongest_kept.get_or_init(|| kept))
    }

    /// Sees to it that the statistics of a layer are known, if its gates and the embeddings are here.
    /// Those that are not stored are learned once, which takes the products of the layer's gates with
    /// [`STATISTICS_SAMPLES`](super::STATISTICS_SAMPLES) embeddings.
    ///
    /// # Errors
    /// When cancelled.
    pub fn learn_gate_scores(
        &self,
        layer: u32,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        if self.features(layer) == 0 || self.gate_scores(layer).is_some() {
            return Ok(());
        }
        let table = self.matrix(WeightKey::model(Role::Embedding));
        let Some(table) = table.filter(|table| table.orientation == Orientation::OutIn) else {
            return Ok(());
        };
        let scale = self.architecture().embed_scale;
        let gates = self.gates(layer).map(|(_, gates)| gates);
        self.learned.learn(layer, (&table.view, scale), gates, pool, cancel)
    }

    fn stored_gate_scores(&self, layer: u32) -> Option<LayerScores> {
        let Source::Vindex(vindex) = &self.source else { return None };
        *vindex.vindex().statistics()?.gate_scores.get(layer as usize)?
    }

    /// The relation that a feature is labelled with: by LABEL, else by the labels that came with the
    /// vindex.
    pub fn label(&self, layer: u32, feature: u32) -> Option<Arc<str>> {
        let learned = self.knowledge.load();
        let learned = learned.as_ref().and_then(|knowledge| knowledge.label(layer, feature));
        let came_with = || match &self.source {
            Source::Vindex(vindex) => vindex.vindex().labels()?.get(layer, feature),
            Source::Checkpoint(_) => None,
        };
        learned.or_else(came_with).map(Arc::from)
    }

    /// What LABEL learned, as of now.
    pub fn knowledge(&self) -> Option<Arc<Knowledge>> {
        self.knowledge.load_full()
    }

    /// Answers from other labels from now on; statements that run keep those they began with.
    pub fn set_knowledge(&self, file: Option<KnowledgeFile>) {
        self.knowledge.store(file.map(|file| Arc::new(Knowledge::new(file))));
        self.change_indexes(|indexes| indexes.after_labels_changed(self));
    }

    /// Every label, by layer and feature: what LABEL learned, and what came with the vindex beside it.
    pub fn labels(&self) -> BTreeMap<(u32, u32), Arc<str>> {
        let came_with = match &self.source {
            Source::Vindex(vindex) => vindex.vindex().labels(),
            Source::Checkpoint(_) => None,
        };
        let came_with = came_with.into_iter().flat_map(Labels::iter);
        let mut labels: BTreeMap<(u32, u32), Arc<str>> =
            came_with.map(|(layer, feature, label)| ((layer, feature), label.into())).collect();
        if let Some(knowledge) = self.knowledge() {
            let learned = knowledge.file().features.iter();
            labels.extend(learned.filter_map(|one| {
                let label = knowledge.label(one.layer, one.feature)?;
                Some(((one.layer, one.feature), label.into()))
            }));
        }
        labels
    }

    /// What is kept of it for edits.
    pub fn kept_edits(&self) -> &Kept {
        &self.edits
    }

    /// What finds features without a scan, as of now.
    pub fn indexes(&self) -> Arc<Indexes> {
        self.indexes.load_full()
    }

    /// Plans with other indexes from now on; statements that run keep those they began with.
    pub fn change_indexes(&self, change: impl Fn(&Indexes) -> Indexes) {
        self.indexes.rcu(|indexes| change(indexes));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Which open model this is, and how often what it answers from has changed: as long as both stay, so
    /// do its answers.
    pub fn moment(&self) -> (u64, u64) {
        (self.number, self.changes.load(Ordering::Acquire))
    }

    /// Fails if a file changed under its mapping, so that what was read may not be what was written.
    ///
    /// # Errors
    /// `DAMAGED`, naming the file.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.source {
            Source::Vindex(vindex) => vindex.vindex().check()?,
            Source::Checkpoint(source) => source.check()?,
        }
        Ok(())
    }
}

impl Weights for Model {
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>> {
        match &self.source {
            Source::Vindex(vindex) => vindex.matrix(key),
            Source::Checkpoint(source) => source.matrix(key),
        }
    }

    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>> {
        match &self.source {
            Source::Vindex(vindex) => vindex.vector(key),
            Source::Checkpoint(source) => source.vector(key),
        }
    }
}
