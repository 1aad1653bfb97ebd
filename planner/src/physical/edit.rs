//! Operands of statements that edit what a model knows, or look at its edits.

use std::sync::Arc;

use crate::syntax::ast::{Harm, InsertMode, MergeConflict};

/// A statement that edits.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// INSERT
    Insert(InsertFacts),
    /// MERGE
    Merge(MergeModel),
    /// DELETE of the edges that the operator reads: rows of EDGES with the columns of `*`
    Delete {
        /// What harm is allowed.
        harm: Option<Harm>,
    },
    /// UPDATE of the edges that the operator reads, as for DELETE
    Update {
        /// What changes.
        set: Assignments,
        /// What harm is allowed.
        harm: Option<Harm>,
    },
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

/// What REBALANCE says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rebalance {
    /// Rounds at most.
    pub rounds: u64,
    /// The least probability that a fact is to be answered with.
    pub floor: f64,
    /// The most.
    pub ceiling: f64,
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

/// What MERGE says.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeModel {
    /// The model that is merged: a mount's name or a path.
    pub source: String,
    /// The mount that it is merged into, where the statement names it.
    pub into: Option<String>,
    /// Which side of a conflict stands.
    pub conflict: MergeConflict,
    /// What harm is allowed.
    pub harm: Option<Harm>,
}

/// What UPDATE sets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    /// What the edges are to answer.
    pub target: Option<String>,
    /// What they are to show as confidence.
    pub confidence: Option<f64>,
}

impl Edit {
    /// The statement's first keyword.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Insert(_) => "INSERT",
            Self::Merge(_) => "MERGE",
            Self::Delete { .. } => "DELETE",
            Self::Update { .. } => "UPDATE",
        }
    }
}
