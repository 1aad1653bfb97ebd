//! The seam to whoever holds the weights: views by key, whatever lies behind them.

use std::borrow::Cow;
use std::fmt;

use super::Role;
use crate::quant::MatrixView;

/// Which tensor of a model: what it does, in which layer, in which expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightKey {
    /// What it does.
    pub role: Role,
    /// In which layer; `None` for what the model has once.
    pub layer: Option<u32>,
    /// In which routed expert; `None` for all else.
    pub expert: Option<u32>,
}

impl WeightKey {
    /// A tensor that the model has once.
    pub const fn model(role: Role) -> WeightKey {
        WeightKey { role, layer: None, expert: None }
    }

    /// A tensor of a layer.
    pub const fn layer(role: Role, layer: usize) -> WeightKey {
        WeightKey { role, layer: Some(layer as u32), expert: None }
    }

    /// A tensor of a layer's expert.
    pub const fn expert(role: Role, layer: usize, expert: usize) -> WeightKey {
        WeightKey { role, layer: Some(layer as u32), expert: Some(expert as u32) }
    }

    /// The same place with another role.
    #[must_use]
    pub const fn with(self, role: Role) -> WeightKey {
        WeightKey { role, ..self }
    }
}

impl fmt::Display for WeightKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.role.as_str())?;
        if let Some(expert) = self.expert {
            write!(formatter, " of expert {expert}")?;
        }
        if let Some(layer) = self.layer {
            write!(formatter, " of layer {layer}")?;
        }
        Ok(())
    }
}

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
/// An answer must stay the same while a decoder lives.
pub trait Weights: Send + Sync {
    /// A projection or an embedding table, or `None` if these weights lack it.
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>>;

    /// A norm weight or a bias as numbers, or `None` if these weights lack it.
    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>>;
}
