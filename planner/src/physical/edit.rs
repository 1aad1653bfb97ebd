//! Operands of statements that edit what a model knows, or look at its edits.

use std::sync::Arc;

use crate::syntax::ast::{Harm, InsertMode};

/// A statement that edits.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// INSERT
    Insert(InsertFacts),
    /// DELETE, of edits
    Delete(EditedRows),
    /// UPDATE … SET target
    Update(EditedRows, String),
}

/// Moves facts down a tier, where they still answer there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compact {
    /// Retrieved facts become composed features.
    Minor,
    /// Composed features become closed-form updates, and history ends.
    Major {
        /// Retrieved facts too, and updates that there are are solved anew.
        full: bool,
        /// How much what the base does otherwise counts; `None` for the weight that INSERT uses.
        lambda: Option<f64>,
    },
}

/// What BLAME says.
#[derive(Debug, Clone, PartialEq)]
pub struct Blame {
    /// The prompt.
    pub prompt: Arc<str>,
    /// The answer whose probability is looked at; `None` for the likeliest.
    pub target: Option<Arc<str>>,
    /// Rows at most.
    pub top: u64,
}

/// What INSERT says.
#[derive(Debug, Clone, PartialEq)]
pub struct InsertFacts {
    /// Entity, relation and target of each fact.
    pub facts: Vec<[String; 3]>,
    /// How they are stored; `None` for the mode that was measured to be best.
    pub mode: Option<InsertMode>,
    /// The layers, both ends included; `None` for those that fit the mode.
    pub layers: Option<(u32, u32)>,
    /// What the rows are to show as confidence.
    pub confidence: Option<f64>,
    /// A factor on what is added.
    pub alpha: f64,
    /// What harm is allowed.
    pub harm: Option<Harm>,
}

/// Which edges a statement is about: those for which everything that is said holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EditedRows {
    /// The entity, as it is written.
    pub entity: Option<String>,
    /// The relation.
    pub relation: Option<String>,
    /// The target.
    pub target: Option<String>,
    /// The layer.
    pub layer: Option<u32>,
    /// The feature.
    pub feature: Option<u64>,
    /// `knn` or `patch`.
    pub source: Option<String>,
    /// What harm is allowed.
    pub harm: Option<Harm>,
}

impl Edit {
    /// The statement's first keyword.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Insert(_) => "INSERT",
            Self::Delete(_) => "DELETE",
            Self::Update(..) => "UPDATE",
        }
    }
}
