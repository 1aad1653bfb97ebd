//! What the planner asks of the world: mounts, their sizes and components, settings and machine
//! constants. The daemon implements these traits; the planner never opens anything.

use std::fmt;
use std::sync::Arc;

pub use crate::bind::prepared::Prepared;
pub use crate::cost::CostConstants;
use crate::layers::LayerSet;
use crate::physical::plan::Quantisation;
pub use crate::settings::Settings;
pub use crate::syntax::ast::IndexTarget;
use crate::syntax::ast::{Extract, ExtractDtype, ExtractLevel, ExtractQuant, Statement};
use crate::syntax::{Span, Spanned};
use crate::value::Column;

/// What is mounted, and what the session chose.
pub trait Catalog {
    /// The mount that the session uses, if any.
    fn current(&self) -> Option<Arc<dyn Mount>>;
    /// A mount by its name.
    fn mount(&self, name: &str) -> Option<Arc<dyn Mount>>;
    /// A table beside those of a model, by its name in whatever case; with a schema, one of that
    /// schema.
    ///
    /// # Errors
    /// Why a table that is there cannot be read, in words.
    fn table(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<dyn Table>>, String>;
    /// The names of all such tables, with their schemas, for messages.
    fn table_names(&self) -> Vec<String>;
    /// What the session prepared under a name.
    fn prepared(&self, name: &str) -> Option<Arc<Prepared>>;
    /// The session's settings.
    fn settings(&self) -> &Settings;
    /// What this machine's reads and operations cost.
    fn costs(&self) -> &CostConstants;
}

/// A table beside those of a model, as far as planning needs to know it.
pub trait Table: Send + Sync + fmt::Debug {
    /// Its name, in the case it was made with.
    fn name(&self) -> &str;
    /// Its columns.
    fn columns(&self) -> &[Column];
    /// How many rows it has.
    fn rows(&self) -> u64;
}

/// One mounted model, as far as planning needs to know it.
pub trait Mount: Send + Sync + fmt::Debug {
    /// The name under which it is mounted.
    fn name(&self) -> &str;
    /// A vindex, or a checkpoint used directly.
    fn kind(&self) -> MountKind;
    /// Number of layers.
    fn layers(&self) -> u32;
    /// Number of features of a layer; 0 for a layer that was not extracted.
    fn features(&self, layer: u32) -> u64;
    /// The same with those that the session's edits add.
    fn features_edited(&self, layer: u32) -> u64 {
        self.features(layer)
    }
    /// Whether the session sees edits of it.
    fn is_edited(&self) -> bool {
        false
    }
    /// Width of the residual stream.
    fn hidden_size(&self) -> u64;
    /// Number of tokens.
    fn vocabulary_size(&self) -> u64;
    /// The layer bands, if the family declares them.
    fn bands(&self) -> Option<Bands>;
    /// Whether a component is there.
    fn has(&self, component: Component) -> bool;
    /// `browse`, `attention`, `inference` or `all`.
    fn level(&self) -> &str;
    /// Bytes of one layer's gate matrix.
    fn gate_bytes(&self, layer: u32) -> u64;
    /// Bytes of one feature's record of output tokens.
    fn down_meta_record_bytes(&self) -> u64;
    /// Bytes of one layer's gate, up and down matrices together.
    fn ffn_bytes(&self, layer: u32) -> u64;
    /// Bytes of one layer's attention matrices.
    fn attention_bytes(&self, layer: u32) -> u64;
    /// Bytes of the unembedding matrix.
    fn unembedding_bytes(&self) -> u64;
    /// Whether output tokens of features are not stored and are computed when they are asked for, which
    /// reads the unembedding for every layer.
    fn computes_output_tokens(&self) -> bool {
        false
    }
    /// The source to name in an EXTRACT hint: a checkpoint's path, or the model's name.
    fn source_hint(&self) -> String;
    /// The destination to name in an EXTRACT hint; by default the mount's name.
    fn destination_hint(&self) -> String {
        format!("{}.vindex", self.name())
    }
    /// The type in which the weights are stored: `f16`, `f32` or `source`.
    fn stored_type(&self) -> &str {
        "f16"
    }
    /// The block format that an EXTRACT gave the matrices.
    fn quantisation(&self) -> Option<Quantisation> {
        None
    }
    /// The indexes of gates that can be used now.
    fn gate_indexes(&self) -> Vec<GateIndex> {
        Vec::new()
    }
    /// The posting lists that are there of targets or labels and can be used now.
    fn postings(&self, _of: IndexTarget) -> Option<Arc<dyn PostingLists>> {
        None
    }
}

/// An index of gates, as far as planning needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct GateIndex {
    /// Its name.
    pub name: String,
    /// What a query reads.
    pub reads: GateReads,
    /// The share of exact hits that it was measured to find; `None` where it finds all.
    pub recall: Option<f64>,
}

/// What an index of gates reads for a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GateReads {
    /// So many bytes of the index for each gate, and the few gates that may be hits.
    EachGate {
        /// Bytes a gate.
        row_bytes: u64,
    },
    /// So large a share of the gates themselves, one here and one there.
    SomeGates {
        /// From 0 to 1, as measured when the index was made.
        share: f64,
    },
}

/// The recall from which on an index of gates is as good as the scan: it is used unasked.
pub const RECALL_MIN: f64 = 0.99;

/// Posting lists: which features have a text as their target or label.
pub trait PostingLists: Send + Sync + fmt::Debug {
    /// The index's name.
    fn name(&self) -> &str;
    /// How many texts have a list.
    fn keys(&self) -> u64;
    /// How many features are in all lists.
    fn entries(&self) -> u64;
    /// How many features of some layers have one of the texts.
    fn count(&self, texts: &[Arc<str>], layers: &LayerSet) -> u64;
}

/// What a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// An extracted vindex directory.
    Vindex,
    /// A checkpoint directory, used without extraction: output tokens of features are computed.
    Checkpoint,
}

/// Three inclusive ranges of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bands {
    /// First and last layer of the syntax band.
    pub syntax: (u32, u32),
    /// First and last layer of the knowledge band.
    pub knowledge: (u32, u32),
    /// First and last layer of the output band.
    pub output: (u32, u32),
}

/// A part of a mount that a statement may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// Gate vectors, one row a feature.
    Gates,
    /// The embedding matrix.
    Embeddings,
    /// The tokenizer.
    Tokenizer,
    /// The output tokens of each feature.
    DownMeta,
    /// The strongest input token of each feature's gate.
    GateMeta,
    /// Per-layer gate score statistics.
    Statistics,
    /// Feature labels.
    Labels,
    /// Edges that LABEL found.
    KnownEdges,
    /// Attention matrices.
    Attention,
    /// Norms.
    Norms,
    /// Up vectors.
    Up,
    /// Down vectors.
    Down,
    /// The unembedding matrix (its own or tied).
    Unembedding,
}

impl Component {
    /// The component in words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gates => "gate vectors",
            Self::Embeddings => "embeddings",
            Self::Tokenizer => "tokenizer",
            Self::DownMeta => "output tokens of features (down_meta)",
            Self::GateMeta => "input tokens of features (gate_meta)",
            Self::Statistics => "gate score statistics",
            Self::Labels => "feature labels",
            Self::KnownEdges => "edges that LABEL found",
            Self::Attention => "attention weights",
            Self::Norms => "norms",
            Self::Up => "up vectors",
            Self::Down => "down vectors",
            Self::Unembedding => "unembedding matrix",
        }
    }

    /// Whether only inference reads the component, so that the level `browse` lacks it.
    pub fn is_for_inference(self) -> bool {
        match self {
            Self::Gates
            | Self::Embeddings
            | Self::Tokenizer
            | Self::DownMeta
            | Self::GateMeta
            | Self::Statistics
            | Self::Labels
            | Self::KnownEdges => false,
            Self::Attention | Self::Norms | Self::Up | Self::Down | Self::Unembedding => true,
        }
    }
}

/// What the EXTRACT that made, or could make, a vindex would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    /// The checkpoint.
    pub source: String,
    /// The vindex directory.
    pub destination: String,
    /// The level that is there: `browse`, `attention`, `inference` or `all`.
    pub level: String,
    /// The type in which weights are stored: `f16`, `f32` or `source`.
    pub stored_type: String,
    /// The block format of the matrices.
    pub quantisation: Option<Quantisation>,
    /// Whether a vindex is at the destination.
    pub overwrite: bool,
}

impl Extraction {
    /// The EXTRACT of a mount.
    pub fn of(mount: &dyn Mount) -> Self {
        Self {
            source: mount.source_hint(),
            destination: mount.destination_hint(),
            level: mount.level().to_owned(),
            stored_type: mount.stored_type().to_owned(),
            quantisation: mount.quantisation(),
            overwrite: mount.kind() == MountKind::Vindex,
        }
    }

    /// The statement that adds a component, ready to be run: it keeps the type of the weights, loses
    /// nothing of the level, and replaces the vindex where there is one.
    pub fn statement_that_adds(&self, component: Component) -> String {
        let literal = |text: &str| Spanned::new(text.to_owned(), Span::default());
        let level = match self.level.as_str() {
            "all" => Some(ExtractLevel::All),
            "inference" => Some(ExtractLevel::Inference),
            _ if component.is_for_inference() => Some(ExtractLevel::Inference),
            "attention" => Some(ExtractLevel::Attention),
            _ => None,
        };
        let dtype = match self.stored_type.as_str() {
            "f32" => Some(ExtractDtype::F32),
            "source" => Some(ExtractDtype::Source),
            _ => None,
        };
        let at = |quant| Spanned::new(quant, Span::default());
        let quant = self.quantisation.map(|quantisation| match quantisation {
            Quantisation::Q4K { .. } => ExtractQuant::Q4K,
            Quantisation::Q8_0 => ExtractQuant::Q8_0,
            Quantisation::Fp4 => ExtractQuant::Fp4,
            Quantisation::Fp8 => ExtractQuant::Fp8,
        });
        let down_q4k = self.quantisation == Some(Quantisation::Q4K { down_q4k: true });
        let extract = Extract {
            source: literal(&self.source),
            destination: literal(&self.destination),
            components: None,
            layers: None,
            level,
            dtype,
            quant: quant.map(at),
            down_q4k: down_q4k.then(|| Spanned::new((), Span::default())),
            drop_gate_vectors: None,
            without_labels: false,
            overwrite: self.overwrite,
            resume: false,
        };
        Statement::Extract(Box::new(extract)).to_string()
    }
}

/// What every inference statement reads.
pub const INFERENCE_COMPONENTS: [Component; 8] = [
    Component::Tokenizer,
    Component::Embeddings,
    Component::Attention,
    Component::Norms,
    Component::Gates,
    Component::Up,
    Component::Down,
    Component::Unembedding,
];
