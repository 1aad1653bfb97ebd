//! The seam to whoever holds the weights: views by role, whatever lies behind them.

use std::borrow::Cow;

use super::Role;
use crate::quant::MatrixView;

/// What the rows of a stored projection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// A row for each output, as checkpoints store projections: `[outputs, inputs]`.
    OutIn,
    /// A row for each input: `[inputs, outputs]`, as in a feature-major down projection.
    InOut,
}

/// A projection as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The numbers.
    pub view: MatrixView<'a>,
    /// What a row is.
    pub orientation: Orientation,
}

impl Matrix<'_> {
    /// How many numbers the projection takes.
    pub fn inputs(&self) -> usize {
        match self.orientation {
            Orientation::OutIn => self.view.columns(),
            Orientation::InOut => self.view.rows(),
        }
    }

    /// How many numbers the projection returns.
    pub fn outputs(&self) -> usize {
        match self.orientation {
            Orientation::OutIn => self.view.rows(),
            Orientation::InOut => self.view.columns(),
        }
    }
}

/// The weights of one model, in whatever dtype and place they lie.
///
/// `layer` is `None` for what the model has once (embedding, final norm, unembedding). An answer
/// must stay the same while a decoder lives.
pub trait Weights: Send + Sync {
    /// A projection or an embedding table, or `None` if these weights lack it.
    fn matrix(&self, role: Role, layer: Option<usize>) -> Option<Matrix<'_>>;

    /// A norm weight or a bias as numbers, or `None` if these weights lack it.
    fn vector(&self, role: Role, layer: Option<usize>) -> Option<Cow<'_, [f32]>>;
}
