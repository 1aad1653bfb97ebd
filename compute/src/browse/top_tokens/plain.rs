//! The scan in `f32`: for the few rows and the odd numbers that 8 bits are no help with.
//!
//! Scores of a tile of tokens and a block of features come from one matrix product in `f32`. They
//! only choose candidates: a token stays in play while its score, plus what rounding may have
//! taken from it, reaches the worst of the best so far. What stays is scored again by [`exact`].

use super::{TokenList, exact};
use crate::browse::gemm::gemm;
use crate::cpu::Cancel;
use crate::cpu::with_scratch;
use crate::kernels::dot::dot_f64;
use crate::kernels::top_k::rank;
use crate::quant::MatrixView;

/// Feature rows in a block.
pub(super) const BLOCK_FEATURES: usize = 128;
/// Tokens in a tile.
const TILE_TOKENS: usize = 256;
/// Candidates of a feature beyond `k` before they are scored again.
const SHORTLIST: usize = 48;

/// The lists of one block of features, or `None` when cancelled; `norms` are the tokens' lengths.
///
/// Scratch memory: `4 * ((128 + 256) * H + 128 * 256) + 8 * 128 * (k + 48)` bytes.
pub(super) fn scan_block(
    unembedding: &MatrixView,
    norms: &dyn Fn(usize) -> f64,
    vectors: &MatrixView,
    k: usize,
    cancel: &Cancel,
) -> Option<Vec<TokenList>> {
    let (features, width) = (vectors.rows(), vectors.columns());
    let unpacked = (features + TILE_TOKENS) * width;
    with_scratch(unpacked + features * TILE_TOKENS, |scratch| {
        let (rows, scratch) = scratch.split_at_mut(features * width);
        let (tokens, scores) = scratch.split_at_mut(TILE_TOKENS * width);
        let mut lists = Vec::with_capacity(features);
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            vectors.row_f32(index, row);
            lists.push(Shortlist::new(dot_f64(row, row).sqrt(), k));
        }
        for first in (0..unembedding.rows()).step_by(TILE_TOKENS) {
            cancel.check().ok()?;
            let count = TILE_TOKENS.min(unembedding.rows() - first);
            let tokens = &mut tokens[..count * width];
            for (offset, row) in tokens.chunks_exact_mut(width).enumerate() {
                unembedding.row_f32(first + offset, row);
            }
            let scores = &mut scores[..features * count];
            // SAFETY: `rows` is [features, width], `tokens` [count, width], `scores`
            // [features, count], all parts of this thread's scratch that do not overlap.
            unsafe {
                gemm(
                    (features, count, width),
                    (scores.as_mut_ptr(), count, 1),
                    false,
                    (rows.as_ptr(), width, 1),
                    (tokens.as_ptr(), 1, width),
                );
            }
            // A length of NaN is passed over: such a token is in no list.
            let norm_max = (first..first + count).map(norms).fold(0.0, f64::max);
            let per_feature = lists.iter_mut().zip(rows.chunks_exact(width));
            for ((list, row), scores) in per_feature.zip(scores.chunks_exact(count)) {
                list.offer_tile(unembedding, row, first, scores, norm_max);
            }
        }
        let rows = rows.chunks_exact(width);
        Some(lists.into_iter().zip(rows).map(|(list, row)| list.finish(unembedding, row)).collect())
    })
}

/// The best tokens of one feature so far, scored for good, and those that may yet join them.
struct Shortlist {
    k: usize,
    /// Length of the feature's row.
    norm: f64,
    best: Vec<(usize, f32)>,
    waiting: Vec<usize>,
}

impl Shortlist {
    fn new(norm: f64, k: usize) -> Shortlist {
        Shortlist { k, norm, best: Vec::new(), waiting: Vec::with_capacity(SHORTLIST) }
    }

    /// Offers a tile's tokens by their scores in `f32`.
    ///
    /// A score is off by at most `n * eps * Σ|a·b|` (Higham), which is at most `n * eps` times
    /// both lengths; rounding the final score to `f32` may move it by another `eps` of that.
    fn offer_tile(
        &mut self,
        unembedding: &MatrixView,
        row: &[f32],
        first: usize,
        scores: &[f32],
        norm_max: f64,
    ) {
        let size = self.norm * norm_max;
        let slack = (row.len() + 2) as f64 * f64::from(f32::EPSILON) * size;
        let mut least = self.least(slack);
        for (offset, &score) in scores.iter().enumerate() {
            // Written so that an overflow to NaN, or a slack of NaN, is a candidate.
            if score < least {
                continue;
            }
            self.waiting.push(first + offset);
            if self.waiting.len() >= SHORTLIST {
                self.settle(unembedding, row);
                least = self.least(slack);
            }
        }
    }

    /// The score in `f32` below which a token cannot be among the best.
    fn least(&self, slack: f64) -> f32 {
        match self.best.last() {
            Some(&(_, worst)) if self.best.len() == self.k => {
                // One step down, lest the rounding to f32 exclude the bound itself.
                ((f64::from(worst) - slack) as f32).next_down()
            }
            _ => f32::NEG_INFINITY,
        }
    }

    /// Scores those that wait in `f64`, and keeps the best.
    fn settle(&mut self, unembedding: &MatrixView, row: &[f32]) {
        let mut token_row = vec![0.0; row.len()];
        for token in self.waiting.drain(..) {
            let score = exact(unembedding, token, row, &mut token_row);
            let candidate = (token, score);
            let full = self.best.len() == self.k;
            let worst = self.best.last().copied();
            if score.is_nan() || full && worst.is_some_and(|worst| rank(candidate, worst).is_gt()) {
                continue;
            }
            if full {
                self.best.pop();
            }
            let place = self.best.partition_point(|&other| rank(other, candidate).is_lt());
            self.best.insert(place, candidate);
        }
    }

    fn finish(mut self, unembedding: &MatrixView, row: &[f32]) -> TokenList {
        self.settle(unembedding, row);
        self.best.into_iter().map(|(token, score)| (token as u32, score)).collect()
    }
}
