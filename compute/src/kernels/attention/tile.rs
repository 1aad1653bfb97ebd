//! A tile of queries over a range of positions, and how ranges are joined.

use std::ops::Range;

use super::scalar::exp;
use super::unpack::padded;
use super::{BLOCK_POSITIONS, LANES, PAGE_POSITIONS, PageHead, RANGE_POSITIONS, Variant, dispatch};
use crate::quant::with_widest_lanes;

/// Queries that read the same key and value head.
pub(crate) struct Queries<'q> {
    /// Scaled, `[n, head_dim]`; `group` rows after one another are of one position.
    pub(crate) rows: &'q [f32],
    /// Numbers of a query or key.
    pub(crate) head_dim: usize,
    /// Numbers of a value.
    pub(crate) value_dim: usize,
    /// Query heads of a position.
    pub(crate) group: usize,
    /// The position of the first rows.
    pub(crate) first: usize,
    /// Positions seen, the own one included.
    pub(crate) window: Option<usize>,
    /// Cap of scores.
    pub(crate) softcap: Option<f32>,
}

impl Queries<'_> {
    fn count(&self) -> usize {
        self.rows.len() / self.head_dim
    }

    /// The positions that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let position = self.first + row / self.group;
        let oldest = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        oldest..position + 1
    }

    /// All positions that some row sees.
    pub(crate) fn span(&self) -> Range<usize> {
        self.visible(0).start..self.visible(self.count() - 1).end
    }
}

/// Memory of a task; what is in it is overwritten.
pub(crate) struct TileScratch<'s> {
    keys: &'s mut [[f32; PAGE_POSITIONS]],
    values: &'s mut [f32],
    scores: &'s mut [f32],
}

impl<'s> TileScratch<'s> {
    /// Numbers that it takes for `n` queries.
    pub(crate) fn length(n: usize, head_dim: usize, value_dim: usize) -> usize {
        head_dim * PAGE_POSITIONS + PAGE_POSITIONS * padded(value_dim) + n * BLOCK_POSITIONS
    }

    /// Takes its part of `memory` and returns the rest.
    pub(crate) fn take(
        memory: &'s mut [f32],
        n: usize,
        head_dim: usize,
        value_dim: usize,
    ) -> (TileScratch<'s>, &'s mut [f32]) {
        let (keys, rest) = memory.split_at_mut(head_dim * PAGE_POSITIONS);
        let (values, rest) = rest.split_at_mut(PAGE_POSITIONS * padded(value_dim));
        let (scores, rest) = rest.split_at_mut(n * BLOCK_POSITIONS);
        (TileScratch { keys: keys.as_chunks_mut().0, values, scores }, rest)
    }
}

/// What queries have gathered from some positions: of each the largest score, the sum of weights,
/// and the weighted sum of values (padded to whole lanes).
pub(crate) struct Partial<'p> {
    max: &'p mut [f32],
    sum: &'p mut [f32],
    values: &'p mut [f32],
}

impl<'p> Partial<'p> {
    /// Numbers that it takes for `n` queries.
    pub(crate) fn length(n: usize, value_dim: usize) -> usize {
        2 * n.next_multiple_of(LANES) + n * padded(value_dim)
    }

    /// Takes its part of `memory`, whatever it holds, and returns the rest.
    pub(crate) fn take(
        memory: &'p mut [f32],
        n: usize,
        value_dim: usize,
    ) -> (Partial<'p>, &'p mut [f32]) {
        let (max, rest) = memory.split_at_mut(n.next_multiple_of(LANES));
        let (sum, rest) = rest.split_at_mut(n.next_multiple_of(LANES));
        let (values, rest) = rest.split_at_mut(n * padded(value_dim));
        (Partial { max: &mut max[..n], sum: &mut sum[..n], values }, rest)
    }

    /// Nothing seen but the sinks: the score of each of the position's heads that takes its weight
    /// and adds no value.
    pub(crate) fn begin(&mut self, sinks: Option<&[f32]>) {
        self.values.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        if let Some(sinks) = sinks {
            for (index, (max, sum)) in self.max.iter_mut().zip(&mut *self.sum).enumerate() {
                (*max, *sum) = (sinks[index % sinks.len()], 1.0);
            }
        }
    }

    /// Writes what the queries gather from the positions of one range, `range` (within whole
    /// ranges of [`RANGE_POSITIONS`]); `page` lends a page by its index.
    pub(crate) fn gather<'k>(
        &mut self,
        queries: &Queries<'_>,
        range: Range<usize>,
        page: impl Fn(usize) -> PageHead<'k>,
        scratch: &mut TileScratch<'_>,
    ) {
        debug_assert!(range.start / RANGE_POSITIONS == (range.end - 1) / RANGE_POSITIONS);
        self.begin(None);
        let variant = dispatch();
        for block in range.start / BLOCK_POSITIONS..range.end.div_ceil(BLOCK_POSITIONS) {
            let first = block * BLOCK_POSITIONS;
            let block = first.max(range.start)..(first + BLOCK_POSITIONS).min(range.end);
            let pages = block.start / PAGE_POSITIONS..block.end.div_ceil(PAGE_POSITIONS);
            for index in pages.clone() {
                page(index).unpack_keys(scratch.keys);
                let at = index * PAGE_POSITIONS - first;
                (variant.scores)(queries.rows, scratch.keys, &mut scratch.scores[at..]);
            }
            self.weigh(variant, queries, first, &block, scratch.scores);
            for index in pages {
                page(index).unpack_values(queries.value_dim, scratch.values);
                self.add_page(variant, queries, index * PAGE_POSITIONS, first, scratch);
            }
        }
    }

    /// Turns the scores of the block that begins at `first` into weights.
    fn weigh(
        &mut self,
        variant: &Variant,
        queries: &Queries<'_>,
        first: usize,
        block: &Range<usize>,
        scores: &mut [f32],
    ) {
        let width = padded(queries.value_dim);
        let rows = scores.as_chunks_mut::<BLOCK_POSITIONS>().0.iter_mut();
        for (row, scores) in rows.enumerate() {
            let seen = queries.visible(row);
            let seen = seen.start.max(block.start)..seen.end.min(block.end);
            if seen.is_empty() {
                continue;
            }
            let seen = seen.start - first..seen.end - first;
            let added = (variant.weigh)(scores, seen, queries.softcap, self.max[row]);
            self.max[row] = added.max;
            self.sum[row] = self.sum[row] * added.correction + added.sum;
            if added.correction != 1.0 {
                let values = &mut self.values[row * width..(row + 1) * width];
                values.iter_mut().for_each(|value| *value *= added.correction);
            }
        }
    }

    /// Adds the values of the page that begins at `page`, in the block that begins at `first`:
    /// rows that see the same positions of it together.
    fn add_page(
        &mut self,
        variant: &Variant,
        queries: &Queries<'_>,
        page: usize,
        first: usize,
        scratch: &TileScratch<'_>,
    ) {
        let width = padded(queries.value_dim);
        let count = queries.count();
        let seen = |row: usize| {
            let seen = queries.visible(row);
            let within = |position: usize| position.clamp(page, page + PAGE_POSITIONS) - page;
            within(seen.start)..within(seen.end)
        };
        let mut row = 0;
        while row < count {
            let positions = seen(row);
            let mut end = row + queries.group;
            while end < count && seen(end) == positions {
                end += queries.group;
            }
            if !positions.is_empty() {
                let weights = &scratch.scores[row * BLOCK_POSITIONS + page - first..];
                let weights = &weights[..(end - row - 1) * BLOCK_POSITIONS + PAGE_POSITIONS];
                let sums = &mut self.values[row * width..end * width];
                (variant.add_values)(weights, positions, scratch.values, width, sums);
            }
            row = end;
        }
    }

    /// Joins what the next range has given.
    pub(crate) fn join(&mut self, next: &Partial<'_>) {
        let width = self.values.len() / self.max.len();
        with_widest_lanes(
            #[inline(always)]
            || {
                for row in 0..self.max.len() {
                    let (before, other) = (self.max[row], next.max[row]);
                    let max = if other > before { other } else { before };
                    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
                    let (old, new) = (exp(before - base), exp(other - base));
                    self.max[row] = max;
                    self.sum[row] = next.sum[row].mul_add(new, self.sum[row] * old);
                    let values = row * width..(row + 1) * width;
                    let pairs = self.values[values.clone()].iter_mut().zip(&next.values[values]);
                    for (value, next) in pairs {
                        *value = next.mul_add(new, *value * old);
                    }
                }
            },
        );
    }

    /// Writes the weighted mean of one row; as long as a value.
    pub(crate) fn finish(&self, row: usize, out: &mut [f32]) {
        let width = self.values.len() / self.max.len();
        let factor = 1.0 / self.sum[row];
        for (out, value) in out.iter_mut().zip(&self.values[row * width..]) {
            *out = value * factor;
        }
    }
}
