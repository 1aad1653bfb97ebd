//! What EXTRACT, COMPILE, DIFF and USE say, and the other statements about whole vindexes.

use super::{Flag, LayerNumber, Literal, Name, Range, Reference};
use crate::syntax::span::Spanned;

/// `EXTRACT`
#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// The checkpoint.
    pub source: Literal,
    /// The vindex to write.
    pub destination: Literal,
    /// `COMPONENTS …`
    pub components: Option<Vec<ExtractComponent>>,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `WITH …`
    pub level: Option<ExtractLevel>,
    /// `DTYPE …`
    pub dtype: Option<ExtractDtype>,
    /// `QUANT …`
    pub quant: Option<Spanned<ExtractQuant>>,
    /// `DOWN Q4K`
    pub down_q4k: Flag,
    /// `DROP GATE VECTORS`
    pub drop_gate_vectors: Flag,
    /// `WITHOUT LABELS`
    pub without_labels: bool,
    /// `OVERWRITE`
    pub overwrite: bool,
    /// `RESUME`
    pub resume: bool,
}

/// A part named after `COMPONENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractComponent {
    /// `FFN_GATE`
    FfnGate,
    /// `FFN_DOWN`
    FfnDown,
    /// `FFN_UP`
    FfnUp,
    /// `EMBEDDINGS`
    Embeddings,
    /// `ATTN_OV`
    AttentionOv,
    /// `ATTN_QK`
    AttentionQk,
}

/// The level after `WITH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractLevel {
    /// `ATTENTION`
    Attention,
    /// `INFERENCE`
    Inference,
    /// `ALL`
    All,
    /// `WEIGHTS`: the common core's other word for `ALL`.
    Weights,
}

/// The type of written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractDtype {
    /// `F16`
    F16,
    /// `F32`
    F32,
    /// `SOURCE`: as in the checkpoint.
    Source,
}

/// The block format after `QUANT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractQuant {
    /// `Q4K`, also `Q4_K`
    Q4K,
    /// `Q8_0`
    Q8_0,
    /// `FP4`
    Fp4,
    /// `FP8`
    Fp8,
}

/// `COMPILE`
#[derive(Debug, Clone, PartialEq)]
pub struct Compile {
    /// What is compiled.
    pub source: Reference,
    /// `MODEL`, else `VINDEX`.
    pub into_model: bool,
    /// The directory or file to write.
    pub destination: Literal,
    /// `FORMAT …`
    pub format: Option<CompileFormat>,
    /// `DTYPE …`: the type of the written weights, by its name.
    pub dtype: Option<Name>,
    /// `WITH …`: how much of the source a vindex holds, by the level's name.
    pub level: Option<Name>,
    /// `ON CONFLICT …`
    pub conflict: Option<CompileConflict>,
    /// `OVERWRITE`
    pub overwrite: bool,
    /// `VERIFY`
    pub verify: bool,
}

/// The file format of a compiled model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompileFormat {
    /// `SAFETENSORS`
    Safetensors,
    /// `GGUF`
    Gguf,
}

/// Which of two patches wins a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompileConflict {
    /// `LAST_WINS`
    LastWins,
    /// `HIGHEST_CONFIDENCE`
    HighestConfidence,
    /// `FAIL`
    Fail,
}

/// Which side of a merge wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MergeConflict {
    /// `KEEP_SOURCE`
    KeepSource,
    /// `KEEP_TARGET`
    KeepTarget,
    /// `HIGHEST_CONFIDENCE`
    HighestConfidence,
}

/// `DIFF`
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The old side.
    pub left: Reference,
    /// The new side.
    pub right: Reference,
    /// `LAYER n`
    pub layer: Option<LayerNumber>,
    /// `RELATION name`
    pub relation: Option<Literal>,
    /// `LIMIT n`
    pub limit: Option<u64>,
    /// `INTO PATCH name`
    pub into_patch: Option<Literal>,
}

/// `USE`
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// A mount, vindex or `CURRENT`, perhaps on another branch.
    Vindex {
        /// What to use.
        reference: Reference,
        /// `BRANCH name`
        branch: Option<Name>,
    },
    /// `USE MODEL path`
    Model {
        /// The checkpoint directory.
        path: Literal,
        /// `AUTO_EXTRACT`
        auto_extract: Flag,
    },
    /// `USE REMOTE url`
    Remote(Literal),
}
