//! Rows of any view as the plain numbers that the inner loops read: in place where they are plain,
//! otherwise decoded to `f32` in memory of the thread.
//!
//! So every product accepts every format, and is `f32` arithmetic over the dequantised weights.

use super::dot::reads_in_place;
use crate::cpu::with_scratch;
use crate::quant::{Dtype, MatrixView};

/// The rows of a view, to be read one at a time or several at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'v, 'a> {
    view: &'v MatrixView<'a>,
    in_place: bool,
}

impl<'v, 'a> Rows<'v, 'a> {
    /// Rows as plain numbers.
    pub(crate) fn of(view: &'v MatrixView<'a>) -> Rows<'v, 'a> {
        Rows { view, in_place: view.has_plain_rows() }
    }

    /// Rows as [`dot`](super::dot) reads them: plain numbers, or blocks that it reads itself.
    pub(crate) fn for_dot(view: &'v MatrixView<'a>) -> Rows<'v, 'a> {
        let blocks = reads_in_place(view.dtype()) && !view.dtype().is_plain();
        Rows { view, in_place: view.has_plain_rows() || blocks }
    }

    /// The dtype in which single rows are lent.
    pub(crate) fn dtype(&self) -> Dtype {
        if self.in_place { self.view.dtype() } else { Dtype::F32 }
    }

    /// Lends one row; panics if there is no such row.
    #[inline]
    pub(crate) fn lend<R>(&self, row: usize, run: impl FnOnce(&[u8]) -> R) -> R {
        if self.in_place {
            return run(self.view.row(row));
        }
        with_scratch(self.view.columns(), |numbers| {
            self.view.row_f32(row, numbers);
            run(bytemuck::cast_slice(numbers))
        })
    }

    /// Lends rows with their weights, as [`accumulate`](super::accumulate::accumulate) takes them:
    /// all at once where they are read in place, otherwise eight at a time, which is how many it
    /// joins, so that either way gives the same sums.
    pub(crate) fn lend_weighted(
        &self,
        weighted: &[(usize, f32)],
        mut run: impl FnMut(&[(&[u8], f32)]),
    ) {
        if self.view.has_plain_rows() {
            let rows: Vec<(&[u8], f32)> =
                weighted.iter().map(|&(row, weight)| (self.view.row(row), weight)).collect();
            return run(&rows);
        }
        let columns = self.view.columns();
        for eight in weighted.chunks(8) {
            with_scratch(eight.len() * columns, |numbers| {
                let mut rows: [(&[u8], f32); 8] = [(&[], 0.0); 8];
                let mut numbers = numbers.chunks_exact_mut(columns.max(1));
                for (lent, &(row, weight)) in rows.iter_mut().zip(eight) {
                    let numbers = numbers.next().unwrap_or_default();
                    self.view.row_f32(row, numbers);
                    *lent = (bytemuck::cast_slice(numbers), weight);
                }
                run(&rows[..eight.len()]);
            });
        }
    }
}
