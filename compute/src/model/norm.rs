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
