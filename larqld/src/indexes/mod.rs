//! Indexes of an open vindex: which there are, whether they can be used, and what they find.
//!
//! An index is a file beside the vindex (`docs/formats/index.md`). It is usable while the weights, and
//! whatever else it was made from, are what they were then; else it is stale, and plans do without it.
//! One whose file is not what was written is damaged, and plans do without it too: no index changes an
//! answer, and none keeps a vindex from being mounted.
//!
//! Elsewhere: how they are made ([`build`]), the file (`storage::vindex::index`), when plans use them
//! (`planner/src/physical/rules`), statements about them (`exec::indexes`).

pub mod build;
pub mod gates;
pub mod hnsw;
pub mod sketch;

use std::path::Path;
use std::sync::Arc;

use larql_planner::catalog::{GateIndex, IndexTarget, PostingLists};
use larql_planner::layers::{LayerSet, Slot};
use larql_planner::physical::plan::IndexMethod;
use larql_storage::file::Files;
use larql_storage::vindex::index::postings::{Posting, Postings};
use larql_storage::vindex::index::{IndexFile, index_names, index_path};
use larql_storage::vindex::{Checksum, IndexError, IndexHeader};

use self::gates::GateSearch;
use self::hnsw::GateGraphs;
use self::sketch::Sketch;
use crate::mounts::{Model, Source};

/// Most indexes of a vindex.
pub const INDEXES_MAX: usize = 64;

/// The name of a target in index files.
pub fn target_name(target: IndexTarget) -> &'static str {
    match target {
        IndexTarget::Gates => "gates",
        IndexTarget::Targets => "targets",
        IndexTarget::Labels => "labels",
    }
}

/// What an index file says that it indexes, and how; `None` for what this build does not know.
fn kind(header: &IndexHeader) -> Option<(IndexTarget, IndexMethod)> {
    IndexMethod::ALL
        .iter()
        .flat_map(|(method, targets)| targets.iter().map(move |target| (*target, *method)))
        .find(|(target, method)| {
            target_name(*target) == header.target && method.name() == header.method
        })
}

/// Whether an index can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can.
    Ready,
    /// It was made from something else than what is there now.
    Stale,
    /// Its file is not what was written, and why.
    Damaged(String),
}

impl State {
    /// As SHOW INDEXES shows it.
    pub fn words(&self) -> String {
        match self {
            Self::Ready => "ready".to_owned(),
            Self::Stale => "stale".to_owned(),
            Self::Damaged(reason) => format!("damaged: {reason}"),
        }
    }
}

/// What an index that can be used holds.
#[derive(Debug, Clone)]
enum Content {
    Nothing,
    Postings(Arc<Postings>),
    Gates(Arc<dyn GateSearch>),
}

/// One index of a vindex.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// What it says of itself; `None` where that cannot be read.
    pub header: Option<IndexHeader>,
    /// What it indexes, and how, where it says so.
    pub kind: Option<(IndexTarget, IndexMethod)>,
    /// Length of its file.
    pub bytes: u64,
    /// Whether it can be used.
    pub state: State,
    content: Content,
}

impl Index {
    /// Opens the index of that name.
    pub fn open(files: &Arc<dyn Files>, model: &Model, name: &str) -> Self {
        let path = index_path(model.path(), name);
        let mut index = Self {
            name: name.to_owned(),
            header: None,
            kind: None,
            bytes: files.metadata(&path).map_or(0, |found| found.length),
            state: State::Stale,
            content: Content::Nothing,
        };
        if let Err(error) = index.read(files, model, &path) {
            tracing::warn!(index = name, "not used: {error}");
            index.state = State::Damaged(error.to_string());
            index.content = Content::Nothing;
        }
        index
    }

    fn read(
        &mut self,
        files: &Arc<dyn Files>,
        model: &Model,
        path: &Path,
    ) -> Result<(), IndexError> {
        let file = IndexFile::open(files, path)?;
        self.kind = kind(file.header());
        self.header = Some(file.header().clone());
        let Some((target, method)) = self.kind else { return Ok(()) };
        if !is_fresh(file.header(), target, model) {
            return Ok(());
        }
        self.content = match method {
            IndexMethod::Postings => {
                let features: Vec<u64> =
                    (0..model.layers()).map(|layer| model.features(layer)).collect();
                Content::Postings(Arc::new(Postings::read(&file, &features)?))
            }
            IndexMethod::Sketch | IndexMethod::CoarseSketch => {
                Content::Gates(Arc::new(Sketch::open(file, method, model)?))
            }
            IndexMethod::Hnsw => Content::Gates(Arc::new(GateGraphs::open(file, model)?)),
        };
        self.state = State::Ready;
        Ok(())
    }

    /// What it indexes.
    pub fn target(&self) -> Option<IndexTarget> {
        self.kind.map(|(target, _)| target)
    }

    /// The posting lists of a target, where these are they.
    fn postings(&self, of: IndexTarget) -> Option<&Arc<Postings>> {
        match &self.content {
            Content::Postings(postings) if self.target() == Some(of) => Some(postings),
            _ => None,
        }
    }
}

/// Whether what an index was made from is what the model has now.
fn is_fresh(header: &IndexHeader, target: IndexTarget, model: &Model) -> bool {
    header.base_hash == model.base_hash() && header.made_from == made_from(model, target)
}

/// What an index of that target is made from, beside weights, in one word.
pub fn made_from(model: &Model, target: IndexTarget) -> String {
    let mut text = String::new();
    match target {
        // Made from labels alone, wherever they came from.
        IndexTarget::Labels => {
            for ((layer, feature), label) in model.labels() {
                text += &format!("{layer} {feature} {label}\n");
            }
        }
        // Made from files as they are.
        IndexTarget::Targets | IndexTarget::Gates => {
            if let Source::Vindex(vindex) = model.source() {
                for file in &vindex.vindex().manifest().files {
                    let sum = file.sha256.map(|sum| sum.to_string()).unwrap_or_default();
                    text += &format!("{} {} {sum}\n", file.name, file.bytes);
                }
            }
        }
    }
    Checksum::of(text.as_bytes()).to_string()
}

/// The indexes of a vindex, by name.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    list: Vec<Arc<Index>>,
}

impl Indexes {
    /// Opens those beside a vindex. One that cannot be used is there, and says why.
    pub fn open(files: &Arc<dyn Files>, model: &Model) -> Self {
        let names = index_names(files, model.path()).unwrap_or_else(|error| {
            tracing::warn!("{}: no indexes: {error}", model.path().display());
            Vec::new()
        });
        let open = |name: &String| Arc::new(Index::open(files, model, name));
        Self { list: names.iter().take(INDEXES_MAX).map(open).collect() }
    }

    /// The index of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Index>> {
        self.list.iter().find(|index| index.name == name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Index>> {
        self.list.iter()
    }

    /// The same with another index, in place of one of its name.
    #[must_use]
    pub fn with(&self, index: Index) -> Self {
        let mut list = self.without(&index.name).list;
        let at = list.partition_point(|there| there.name < index.name);
        list.insert(at, Arc::new(index));
        Self { list }
    }

    /// The same without the index of that name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self { list: self.list.iter().filter(|index| index.name != name).cloned().collect() }
    }

    /// The same after the model's labels changed: what was made from others is stale.
    #[must_use]
    pub fn after_labels_changed(&self, model: &Model) -> Self {
        let judged = |index: &Arc<Index>| match (&index.header, &index.state) {
            (Some(header), State::Ready)
                if index.target() == Some(IndexTarget::Labels)
                    && !is_fresh(header, IndexTarget::Labels, model) =>
            {
                let stale = (State::Stale, Content::Nothing);
                Arc::new(Index { state: stale.0, content: stale.1, ..Index::clone(index) })
            }
            _ => index.clone(),
        };
        Self { list: self.list.iter().map(judged).collect() }
    }

    /// The indexes of gates that can be used, as plans see them.
    pub fn gate_indexes(&self) -> Vec<GateIndex> {
        let usable = self.list.iter().filter_map(|index| match &index.content {
            Content::Gates(gates) => Some(GateIndex {
                name: index.name.clone(),
                reads: gates.reads(),
                recall: index.header.as_ref().and_then(|header| header.recall),
            }),
            _ => None,
        });
        usable.collect()
    }

    /// The index of gates of that name, where it can be used.
    pub fn gates(&self, name: &str) -> Option<Arc<dyn GateSearch>> {
        match &self.get(name)?.content {
            Content::Gates(gates) => Some(gates.clone()),
            _ => None,
        }
    }

    /// The posting lists of targets or labels that can be used.
    pub fn postings(&self, of: IndexTarget) -> Option<Lists> {
        self.list.iter().find_map(|index| {
            let postings = index.postings(of)?.clone();
            Some(Lists { name: index.name.clone(), postings })
        })
    }
}

/// Posting lists under the name of their index.
#[derive(Debug)]
pub struct Lists {
    name: String,
    postings: Arc<Postings>,
}

impl Lists {
    /// The features of some layers that have one of the texts, in order of layer and feature.
    pub fn slots(&self, texts: &[Arc<str>], layers: &LayerSet) -> Vec<Slot> {
        let slot = |one: &Posting| Slot { layer: one.layer, feature: one.feature.into() };
        let mut slots: Vec<Slot> = self.listed(texts, layers).map(slot).collect();
        slots.sort_unstable();
        slots
    }

    /// Every text with its features.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Posting])> {
        self.postings.iter()
    }

    fn listed<'a>(
        &'a self,
        texts: &'a [Arc<str>],
        layers: &'a LayerSet,
    ) -> impl Iterator<Item = &'a Posting> {
        let lists = texts.iter().flat_map(|text| self.postings.list(text));
        lists.filter(|one| layers.contains(one.layer))
    }
}

impl PostingLists for Lists {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> u64 {
        self.postings.keys() as u64
    }

    fn entries(&self) -> u64 {
        self.postings.entries() as u64
    }

    fn count(&self, texts: &[Arc<str>], layers: &LayerSet) -> u64 {
        self.listed(texts, layers).count() as u64
    }
}
