//! Operands of operators that use or make indexes.

use std::sync::Arc;

use super::plan::{FeatureColumn, GateScan};
use crate::layers::LayerSet;
use crate::syntax::ast::IndexTarget;

/// Operands of [`super::plan::Operator::PostingLookup`].
#[derive(Debug, Clone, PartialEq)]
pub struct PostingLookup {
    /// What is indexed: targets or labels.
    pub of: IndexTarget,
    /// The index's name.
    pub index: String,
    /// The texts that are looked up, ascending, without repeats.
    pub texts: Vec<Arc<str>>,
    /// Which layers.
    pub layers: LayerSet,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`super::plan::Operator::GateIndexScan`].
#[derive(Debug, Clone, PartialEq)]
pub struct GateIndexScan {
    /// The index's name.
    pub index: String,
    /// What is looked for.
    pub scan: GateScan,
}

/// How an index finds what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexMethod {
    /// Lists of features by text.
    Postings,
    /// Gates in 8 bits, with a bound of the error of each: the hits are those of the scan.
    Sketch,
    /// Gates in 4 bits, with a guess of the error of each: few hits are missed.
    CoarseSketch,
    /// A graph that leads from gate to gate towards the hits, and may miss some.
    Hnsw,
}

impl IndexMethod {
    /// Every one there is, with what it can index.
    pub const ALL: [(Self, &'static [IndexTarget]); 4] = [
        (Self::Postings, &[IndexTarget::Targets, IndexTarget::Labels]),
        (Self::Sketch, &[IndexTarget::Gates]),
        (Self::CoarseSketch, &[IndexTarget::Gates]),
        (Self::Hnsw, &[IndexTarget::Gates]),
    ];

    /// Its name, as after USING.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postings => "postings",
            Self::Sketch => "sketch",
            Self::CoarseSketch => "coarse_sketch",
            Self::Hnsw => "hnsw",
        }
    }
}

/// Operands of [`super::plan::Operator::CreateIndex`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateIndex {
    /// Its name, in lower case.
    pub name: String,
    /// What is indexed.
    pub target: IndexTarget,
    /// How.
    pub method: IndexMethod,
}
