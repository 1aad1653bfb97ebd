//! What the statements say that look at features or run the model: WALK, INFER, DESCRIBE, TRACE,
//! GENERATE and EXPLAIN.

use super::{Flag, LayerNumber, Literal, Range, Text};
use crate::syntax::parser::SpannedStatement;
use crate::syntax::span::Spanned;

/// `WALK`
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// The prompt.
    pub prompt: Text,
    /// `TOP n`
    pub top: Option<u64>,
    /// `LAYERS a-b`; `LAYERS ALL` is `None`.
    pub layers: Option<Spanned<Range>>,
    /// `MODE …`
    pub mode: Option<Spanned<WalkMode>>,
    /// `COMPARE`
    pub compare: Flag,
}

/// The mode of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalkMode {
    /// Gate scores with output tokens and labels.
    Hybrid,
    /// Gate scores alone.
    Pure,
    /// Not a walk at all.
    Dense,
}

/// `INFER`
#[derive(Debug, Clone, PartialEq)]
pub struct Infer {
    /// The prompt.
    pub prompt: Text,
    /// `TOP n`
    pub top: Option<u64>,
    /// `COMPARE`
    pub compare: Flag,
}

/// `DESCRIBE`
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    /// What is described.
    pub entity: Text,
    /// Which layers; by default the knowledge band.
    pub layers: Option<LayerChoice>,
    /// `RELATIONS ONLY`
    pub relations_only: bool,
    /// `VERBOSE`, `BRIEF` or `RAW`
    pub display: Option<Display>,
    /// `STREAM`
    pub stream: bool,
    /// `LIMIT n`
    pub limit: Option<u64>,
}

/// Which layers a statement reads.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerChoice {
    /// `AT LAYER n`
    At(LayerNumber),
    /// `ALL LAYERS`
    All,
    /// `SYNTAX`, `KNOWLEDGE` or `OUTPUT`
    Band(Band),
}

/// A band of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Band {
    /// The first layers.
    Syntax,
    /// The middle layers.
    Knowledge,
    /// The last layers.
    Output,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Display {
    /// `BRIEF`
    Brief,
    /// `VERBOSE`
    Verbose,
    /// `RAW`
    Raw,
}

/// Bare `EXPLAIN WALK` and `EXPLAIN INFER`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainFeatures {
    /// `INFER`, else `WALK`.
    pub infer: bool,
    /// The prompt.
    pub prompt: Text,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// A band or `ALL LAYERS`.
    pub band: Option<Option<Band>>,
    /// `VERBOSE`
    pub verbose: bool,
    /// `TOP n`
    pub top: Option<u64>,
    /// `RELATIONS ONLY`
    pub relations_only: bool,
    /// `WITH ATTENTION`
    pub with_attention: Flag,
}

/// `EXPLAIN` that answers a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// `ANALYZE`
    pub analyze: bool,
    /// `FORMAT …`
    pub format: ExplainFormat,
    /// `RULES`
    pub rules: bool,
    /// What is explained.
    pub statement: SpannedStatement,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExplainFormat {
    /// One row an operator.
    #[default]
    Text,
    /// One row with one JSON document.
    Json,
}

/// `TRACE`
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The prompt.
    pub prompt: Text,
    /// `FOR token`
    pub target: Option<Text>,
    /// `DECOMPOSE`
    pub decompose: bool,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `POSITIONS`: all, else the last.
    pub all_positions: Option<bool>,
    /// `SAVE file`
    pub save: Option<Literal>,
    /// `DIFF prompt`
    pub diff: Option<Text>,
}

/// `GENERATE`
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// The prompt.
    pub prompt: Text,
    /// `MAX n`
    pub tokens_max: Option<u64>,
    /// `TEMPERATURE x`
    pub temperature: Option<f64>,
    /// `TOP_K n`
    pub top_k: Option<u64>,
    /// `TOP_P x`
    pub top_p: Option<f64>,
    /// `SEED n`
    pub seed: Option<u64>,
    /// `STOP text`, each one written.
    pub stop: Vec<Literal>,
}
