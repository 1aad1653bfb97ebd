//! The rows of a projection, read a few at a time whichever way a checkpoint stores it.
//!
//! A pipeline writes a projection with a row for each output, or (down, in a vindex) with a row for
//! each input. Checkpoints have it either way around, alone or as a part of a joined tensor, in any
//! format. [`Rows`] gives the numbers of any range of rows without unpacking the rest, so whoever
//! copies a model needs memory for a tile of rows, and not for a matrix.
//!
//! Elsewhere: where a weight lies (`source`), what formats mean (`compute::quant`).

use std::ops::Range;

use larql_compute::model::Orientation;
use larql_compute::quant::MatrixView;

use crate::failure::{Failure, code};
use crate::source::{Resolved, SourceModel};

/// Numbers that are read at once where rows lie as rows.
const TILE_NUMBERS: usize = 1 << 16;
/// Rows that are read at once where they are stored as columns.
const TURNED_ROWS: usize = 64;
/// Stored rows whose columns are turned together: a cache line of each row that is written.
const STRIP: usize = 16;

/// A projection as rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    stored: MatrixView<'a>,
    /// Rows are columns of `stored`.
    turned: bool,
    /// Which columns of `stored` take part: `first`, `first + step` and so on.
    first: usize,
    step: usize,
    rows: usize,
    columns: usize,
    /// Subtracted from every number.
    minus: f32,
}

impl<'a> Rows<'a> {
    /// The rows of a projection of `model`: its outputs ([`Orientation::OutIn`]) or its inputs.
    ///
    /// # Errors
    /// `DAMAGED` if the weight is no matrix, or its bytes are not what they were at opening.
    pub fn of(
        model: &'a SourceModel,
        weight: &Resolved,
        orientation: Orientation,
    ) -> Result<Self, Failure> {
        let broken = || Failure::new(code::DAMAGED, format!("{} cannot be read", weight.key));
        let &[outputs, inputs] = &weight.shape[..] else { return Err(broken()) };
        let slice = model.slice(weight).map_err(|_| broken())?;
        let part = &weight.part;
        let (stored, first, step) = match part.transposed {
            true => (slice, part.first, part.step),
            false => (slice.select(outputs, weight.order()).map_err(|_| broken())?, 0, 1),
        };
        let turned = part.transposed == (orientation == Orientation::OutIn);
        let (rows, columns) = match orientation {
            Orientation::OutIn => (outputs, inputs),
            Orientation::InOut => (inputs, outputs),
        };
        Ok(Self { stored, turned, first, step, rows, columns, minus: part.minus })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The matrix that the rows are taken from.
    pub fn stored(&self) -> &MatrixView<'a> {
        &self.stored
    }

    /// How many rows are best read at once; ranges should begin at a multiple of it.
    pub fn tile(&self) -> usize {
        match self.turned {
            // Reading a part of a block costs as much as reading all of it.
            true => self.stored.dtype().block().0.max(TURNED_ROWS),
            false => (TILE_NUMBERS / self.columns.max(1)).clamp(1, 256),
        }
    }

    /// Whether the stored bytes of each row are the row, nothing else and nothing less (apart from
    /// scales that lie elsewhere).
    pub fn are_stored_rows(&self) -> bool {
        let whole = self.first == 0 && self.step == 1 && self.columns == self.stored.columns();
        whole && !self.turned && self.minus == 0.0
    }

    /// Reads the numbers of some rows.
    ///
    /// # Shapes
    /// `out`: `[range, columns]`; panics if it is not, or if there are no such rows.
    pub fn read(&self, range: Range<usize>, out: &mut [f32]) {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?}");
        assert_eq!(out.len(), range.len() * self.columns, "numbers of other rows");
        if out.is_empty() {
            return;
        }
        match self.turned {
            true => self.read_columns(range, out),
            false => self.read_rows(range, out),
        }
        if self.minus != 0.0 {
            out.iter_mut().for_each(|value| *value -= self.minus);
        }
    }

    fn read_rows(&self, range: Range<usize>, out: &mut [f32]) {
        let span = (self.columns - 1) * self.step + 1;
        let within = self.first..self.first + span;
        let mut joined = vec![0.0; if self.step == 1 { 0 } else { span }];
        for (row, out) in range.zip(out.chunks_exact_mut(self.columns)) {
            if self.step == 1 {
                self.stored.part_f32(row, within.clone(), out);
                continue;
            }
            self.stored.part_f32(row, within.clone(), &mut joined);
            for (value, &found) in out.iter_mut().zip(joined.iter().step_by(self.step)) {
                *value = found;
            }
        }
    }

    fn read_columns(&self, range: Range<usize>, out: &mut [f32]) {
        let span = (range.len() - 1) * self.step + 1;
        let first = self.first + self.step * range.start;
        let mut strip = vec![0.0; STRIP * span];
        for start in (0..self.columns).step_by(STRIP) {
            let count = STRIP.min(self.columns - start);
            for (offset, part) in strip.chunks_exact_mut(span).take(count).enumerate() {
                self.stored.part_f32(start + offset, first..first + span, part);
            }
            for (row, out) in out.chunks_exact_mut(self.columns).enumerate() {
                for (offset, value) in out[start..start + count].iter_mut().enumerate() {
                    *value = strip[offset * span + row * self.step];
                }
            }
        }
    }
}
