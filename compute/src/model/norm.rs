//! A norm with its weights, ready to be applied to rows.

use std::borrow::Cow;

use super::{NormDescription, NormKind};
use crate::cpu::Pool;
use crate::kernels::layer_norm::{layer_norm, layer_norm_in_place};
use crate::kernels::rms_norm::{rms_norm, rms_norm_in_place};

/// One norm of a model; the family's offset is in the weight already.
pub(super) struct Norm<'a> {
    kind: NormKind,
    epsilon: f32,
    weight: Vec<f32>,
    bias: Option<Cow<'a, [f32]>>,
}

/// What a norm multiplies a row with, beside its weight: one over the row's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormFactor {
    kind: NormKind,
    epsilon: f32,
}

impl NormFactor {
    /// The factor of one row; sums in `f64`.
    pub(super) fn of(&self, row: &[f32]) -> f64 {
        let count = row.len() as f64;
        let mean = match self.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => row.iter().map(|&x| f64::from(x)).sum::<f64>() / count,
        };
        let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
        1.0 / (squares / count + f64::from(self.epsilon)).sqrt()
    }
}

impl<'a> Norm<'a> {
    /// From a weight with the offset added.
    pub(super) fn new(
        description: &NormDescription,
        weight: Vec<f32>,
        bias: Option<Cow<'a, [f32]>>,
    ) -> Norm<'a> {
        Norm { kind: description.kind, epsilon: description.epsilon, weight, bias }
    }

    /// Norms one row.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Rms => rms_norm(x, &self.weight, self.epsilon, out),
            NormKind::Layer => {
                layer_norm(x, &self.weight, self.bias.as_deref(), self.epsilon, out);
            }
        }
    }

    /// Norms one row where it lies.
    pub(super) fn apply_in_place(&self, x: &mut [f32]) {
        match self.kind {
            NormKind::Rms => rms_norm_in_place(x, &self.weight, self.epsilon),
            NormKind::Layer => {
                layer_norm_in_place(x, &self.weight, self.bias.as_deref(), self.epsilon);
            }
        }
    }

    /// What a gradient by the normed row is by the row before the norm.
    ///
    /// # Shapes
    /// All `[n]`.
    pub(super) fn gradient(&self, x: &[f32], by_output: &[f32]) -> Vec<f32> {
        let count = x.len() as f64;
        let mean = |numbers: &mut dyn Iterator<Item = f64>| numbers.sum::<f64>() / count;
        let centre = match self.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => mean(&mut x.iter().map(|&x| f64::from(x))),
        };
        let factor = self.factor().of(x);
        let unit: Vec<f64> = x.iter().map(|&x| (f64::from(x) - centre) * factor).collect();
        let weighted = by_output.iter().zip(&self.weight);
        let by_unit: Vec<f64> =
            weighted.map(|(&by, &weight)| f64::from(by) * f64::from(weight)).collect();
        let along = mean(&mut unit.iter().zip(&by_unit).map(|(unit, by)| unit * by));
        let level = match self.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => mean(&mut by_unit.iter().copied()),
        };
        let each = unit.iter().zip(&by_unit);
        each.map(|(unit, by)| (factor * (by - level - unit * along)) as f32).collect()
    }

    /// What the norm multiplies a row with, beside its weight.
    pub(super) fn factor(&self) -> NormFactor {
        NormFactor { kind: self.kind, epsilon: self.epsilon }
    }

    /// Turns a direction in normed rows into the one in rows before the norm, so that its product
    /// with a row times the row's [`NormFactor`] plus the returned constant is the
    /// product with the normed row.
    pub(super) fn unfold(&self, direction: &mut [f64]) -> f64 {
        let biased = |bias: &[f32]| {
            bias.iter().zip(&*direction).map(|(&bias, direction)| f64::from(bias) * direction).sum()
        };
        let constant = self.bias.as_deref().map_or(0.0, biased);
        for (direction, &weight) in direction.iter_mut().zip(&self.weight) {
            *direction *= f64::from(weight);
        }
        if self.kind == NormKind::Layer {
            let mean = direction.iter().sum::<f64>() / direction.len() as f64;
            direction.iter_mut().for_each(|direction| *direction -= mean);
        }
        constant
    }

    /// Norms every position's row, each alone.
    pub(super) fn rows(&self, pool: &Pool, rows: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        pool.run_chunks(out, width, &|first, out| self.apply(&rows[first..first + width], out));
    }

    /// Norms every position's row where it lies.
    pub(super) fn rows_in_place(&self, pool: &Pool, rows: &mut [f32]) {
        pool.run_chunks(rows, self.weight.len(), &|_, row| self.apply_in_place(row));
    }
}
