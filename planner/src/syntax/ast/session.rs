//! What SHOW and SET say.

use super::{Display, Expression, LayerNumber, Name, Range};
use crate::syntax::span::Spanned;

/// `SHOW`
#[derive(Debug, Clone, PartialEq)]
pub enum Show {
    /// `RELATIONS …`
    Relations {
        /// `AT LAYER n`
        layer: Option<LayerNumber>,
        /// `WITH EXAMPLES`
        examples: bool,
        /// `VERBOSE`, `BRIEF` or `RAW`
        display: Option<Spanned<Display>>,
    },
    /// `LAYERS [a-b]`
    Layers(Option<Spanned<Range>>),
    /// `FEATURES n …`
    Features {
        /// The layer.
        layer: LayerNumber,
        /// `WHERE …`
        filter: Option<Expression>,
        /// `LIMIT n`
        limit: Option<u64>,
    },
    /// `ENTITIES …`
    Entities {
        /// `AT LAYER n`
        layer: Option<LayerNumber>,
        /// `LIMIT n`
        limit: Option<u64>,
    },
    /// `MODELS`
    Models,
    /// `MOUNTS`
    Mounts,
    /// `PATCHES`
    Patches,
    /// `COMPACT STATUS`
    CompactStatus,
    /// `BRANCHES`
    Branches,
    /// `ASSERTIONS`
    Assertions,
    /// `INDEXES`
    Indexes,
    /// `SESSIONS`
    Sessions,
    /// A setting by name; `ALL` shows every one.
    Setting(Name),
}

/// A value after `SET name =`.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingLiteral {
    /// A string or a bare word.
    Word(String),
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
}
