//! A block of positions at work: which sequences its rows are of, and how they are projected.

use std::cell::RefCell;

use super::projection::{Projection, project_together};
use super::rotation::Rotation;
use super::{DecodeError, Precision};
use crate::cpu::{Cancel, Pool};
use crate::kernels::quantised::ServingScratch;

/// Rows of a block that are positions of one segment, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Index of the segment.
    pub(super) segment: usize,
    /// Where in its context the first position stands.
    pub(super) first: usize,
    /// Its first row in the block.
    pub(super) row: usize,
    /// How many rows there are.
    pub(super) count: usize,
    /// The length of context that the choice of rotary frequencies goes by.
    pub(super) context: usize,
}

impl Part {
    /// The part's rows of a buffer that has `width` numbers for each row of the block.
    pub(super) fn of<'b>(&self, rows: &'b [f32], width: usize) -> &'b [f32] {
        &rows[self.row * width..(self.row + self.count) * width]
    }

    /// As [`of`](Part::of), to be written.
    pub(super) fn of_mut<'b>(&self, rows: &'b mut [f32], width: usize) -> &'b mut [f32] {
        &mut rows[self.row * width..(self.row + self.count) * width]
    }
}

/// A block of positions at work: where they stand, and how they are computed.
#[derive(Clone, Copy)]
pub(super) struct Block<'r> {
    pub(super) pool: &'r Pool,
    pub(super) precision: Precision,
    /// Turned to the positions of the block.
    pub(super) rotations: &'r [Rotation],
    /// Whose the rows are; together they are all rows.
    pub(super) parts: &'r [Part],
    pub(super) scratch: &'r RefCell<ServingScratch>,
    pub(super) cancel: &'r Cancel,
}

impl Block<'_> {
    /// Applies a projection to every row; returns the bytes of weights read.
    ///
    /// # Shapes
    /// `x`: `[n, inputs]`; `out`: `[n, outputs]`.
    /// # Errors
    /// `Cancelled`.
    pub(super) fn project(
        &self,
        projection: &Projection<'_>,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<u64, DecodeError> {
        self.project_together([(projection, out)], x)
    }

    /// Applies projections to the same rows, together where the precision permits.
    ///
    /// # Shapes
    /// `x`: `[n, inputs]`; each output: `[n, outputs]`.
    /// # Errors
    /// `Cancelled`.
    pub(super) fn project_together<const N: usize>(
        &self,
        projections: [(&Projection<'_>, &mut [f32]); N],
        x: &[f32],
    ) -> Result<u64, DecodeError> {
        let scratch = &mut *self.scratch.borrow_mut();
        let how = (self.precision, scratch, self.cancel);
        project_together(self.pool, how, projections.map(|(tensor, out)| tensor.with(out)), x)
    }
}
