//! Operands of operators that use or make indexes.

use std::sync::Arc;

use super::plan::FeatureColumn;
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

/// How an index finds what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexMethod {
    /// Lists of features by text.
    Postings,
}

impl IndexMethod {
    /// Every one there is, with what it can index.
    pub const ALL: [(Self, &'static [IndexTarget]); 1] =
        [(Self::Postings, &[IndexTarget::Targets, IndexTarget::Labels])];

    /// Its name, as after USING.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postings => "postings",
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
