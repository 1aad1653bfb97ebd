//! What INSERT and the other edits say.

use super::{Expression, Name, Range};
use crate::syntax::span::Spanned;

/// `INSERT`
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The columns.
    pub columns: Vec<Name>,
    /// One tuple a row, each as long as the columns.
    pub rows: Vec<Vec<Expression>>,
    /// `AT LAYER n` or `AT LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `CONFIDENCE x`
    pub confidence: Option<Spanned<f64>>,
    /// `ALPHA x`
    pub alpha: Option<Spanned<f64>>,
    /// `MODE …`
    pub mode: Option<InsertMode>,
    /// The budget of harm.
    pub harm: Option<Harm>,
}

/// How a fact is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InsertMode {
    /// `KNN`
    Knn,
    /// `COMPOSE`
    Compose,
    /// `MEMIT`
    Memit,
}

/// What harm an edit may do to neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    /// `WITH MAX HARM x [POINTS]`
    Max {
        /// The budget.
        budget: f64,
        /// In percentage points.
        points: bool,
    },
    /// `WITHOUT RECEIPT`: not measured.
    WithoutReceipt,
}

/// What an index covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexTarget {
    /// `GATES`
    Gates,
    /// `TARGETS`
    Targets,
    /// `LABELS`
    Labels,
}
