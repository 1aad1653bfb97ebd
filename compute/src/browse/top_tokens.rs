//! The tokens that feature rows point at: the top of `unembedding · row` for many rows at once.
//!
//! Scores of a tile of tokens and a block of features come from one matrix product in `f32`. They
//! only choose candidates: a token stays in play while its score, plus what rounding may have
//! taken from it, reaches the worst of the best so far. What stays is scored again in `f64` in a
//! fixed order, and those scores alone decide. So the result is that of scoring every pair in
//! `f64`, on every machine, whatever the tiles and threads.

use std::sync::Mutex;

use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::dot::dot_f64;
use crate::kernels::matmul::{gemm, with_scratch};
use crate::kernels::top_k::rank;
use crate::quant::MatrixView;

/// Feature rows in a block.
const BLOCK_FEATURES: usize = 128;
/// Tokens in a tile.
const TILE_TOKENS: usize = 256;
/// Candidates of a feature beyond `k` before they are scored again.
const SHORTLIST: usize = 48;

/// Returns for each row of `vectors` the `k` tokens with the largest `unembedding row · vector`.
///
/// Best first, of equal scores (as `f32`) the lowest token first; NaN is never returned, and a
/// vocabulary smaller than `k` gives fewer. Gate rows against the embedding, with `k` of 1, give each
/// feature's strongest input token (a positive scale of the embedding changes the scores alone).
///
/// # Shapes
/// `unembedding`: `[V, H]`; `vectors`: `[F, H]`; result: `[F]` lists; panics if `H` differs.
/// # Units
/// Memory beside the result: `4 * V` bytes, and for each thread
/// `4 * ((128 + 256) * H + 128 * 256) + 8 * 128 * (k + 48)` bytes.
/// # Errors
/// `Cancelled`, asked before every tile.
pub fn top_tokens(
    pool: &Pool,
    unembedding: &MatrixView,
    vectors: &MatrixView,
    k: usize,
    cancel: &Cancel,
) -> Result<Vec<Vec<(u32, f32)>>, Cancelled> {
    let width = unembedding.columns();
    assert_eq!(vectors.columns(), width, "feature rows and unembedding differ");
    assert!(u32::try_from(unembedding.rows()).is_ok(), "tokens are 32-bit");
    let features = vectors.rows();
    let k = k.min(unembedding.rows());
    if k == 0 || features == 0 || width == 0 {
        return Ok(vec![Vec::new(); features]);
    }
    let norms = row_norms(pool, unembedding, cancel)?;
    // Fewer features than make full blocks for every thread are spread over smaller ones.
    let block = features.div_ceil(4 * pool.threads()).clamp(8, BLOCK_FEATURES);
    let found = Mutex::new(vec![Vec::new(); features]);
    pool.run(features.div_ceil(block), &|task| {
        let first = task * block;
        let rows = vectors.rows_range(first..features.min(first + block));
        if let Some(lists) = scan_block(unembedding, &norms, &rows, k, cancel) {
            let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            found[first..first + lists.len()].clone_from_slice(&lists);
        }
    });
    cancel.check()?;
    Ok(found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The Euclidean length of every row.
fn row_norms(pool: &Pool, matrix: &MatrixView, cancel: &Cancel) -> Result<Vec<f32>, Cancelled> {
    let mut norms = vec![0.0; matrix.rows()];
    pool.run_chunks(&mut norms, TILE_TOKENS, &|first, norms| {
        if cancel.check().is_ok() {
            with_scratch(matrix.columns(), |row| {
                for (offset, norm) in norms.iter_mut().enumerate() {
                    matrix.row_f32(first + offset, row);
                    *norm = dot_f64(row, row).sqrt() as f32;
                }
            });
        }
    });
    cancel.check()?;
    Ok(norms)
}

/// The lists of one block of features, or `None` when cancelled.
fn scan_block(
    unembedding: &MatrixView,
    norms: &[f32],
    vectors: &MatrixView,
    k: usize,
    cancel: &Cancel,
) -> Option<Vec<Vec<(u32, f32)>>> {
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
            let norm_max = norms[first..first + count].iter().copied().fold(0.0, f32::max);
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
        norm_max: f32,
    ) {
        let size = self.norm * f64::from(norm_max);
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
            unembedding.row_f32(token, &mut token_row);
            let score = dot_f64(&token_row, row) as f32;
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

    fn finish(mut self, unembedding: &MatrixView, row: &[f32]) -> Vec<(u32, f32)> {
        self.settle(unembedding, row);
        self.best.into_iter().map(|(token, score)| (token as u32, score)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Dtype, from_f32};

    /// Every pair in `f64`, sorted: the definition.
    fn definition(e: &[f32], v: &[f32], width: usize, k: usize) -> Vec<Vec<(u32, f32)>> {
        let row = |vector: &[f32]| {
            let mut scores: Vec<(u32, f32)> = e
                .chunks(width)
                .enumerate()
                .map(|(token, row)| {
                    let score: f64 =
                        row.iter().zip(vector).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    (token as u32, score as f32)
                })
                .filter(|(_, score)| !score.is_nan())
                .collect();
            scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            scores.truncate(k);
            scores
        };
        v.chunks(width).map(row).collect()
    }

    #[test]
    fn tokens_are_those_of_scoring_every_pair_also_where_many_tie() {
        let width = 33;
        // Small whole numbers tie often and add without rounding in any order.
        let e: Vec<f32> = (0..700 * width).map(|i| ((i * i + i / 7) % 5) as f32 - 2.0).collect();
        let mut v: Vec<f32> =
            (0..150 * width).map(|i| ((i * 13 + i / 11) % 7) as f32 - 3.0).collect();
        v[..width].fill(0.0);
        v[width] = f32::NAN;
        let unembedding = MatrixView::from_f32(700, width, &e).unwrap();
        for k in [1, 10, 699, 5000] {
            let expected = definition(&e, &v, width, k);
            let vectors = MatrixView::from_f32(150, width, &v).unwrap();
            for threads in [1, 3] {
                let found =
                    top_tokens(&Pool::new(threads), &unembedding, &vectors, k, &Cancel::new());
                assert_eq!(found.unwrap(), expected, "k = {k}, {threads} threads");
            }
        }
    }

    #[test]
    fn packed_rows_give_the_same_lists_for_any_number_of_threads() {
        let width = 257;
        let pack = |count: usize, step: usize, dtype: Dtype| {
            let values: Vec<f32> =
                (0..count * width).map(|i| ((i * step % 1009) as f32 - 504.0) / 301.0).collect();
            let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap()];
            from_f32(dtype, &values, &mut bytes);
            bytes
        };
        let (e, v) = (pack(900, 37, Dtype::BF16), pack(70, 53, Dtype::F16));
        let unembedding = MatrixView::new(Dtype::BF16, 900, width, &e).unwrap();
        let vectors = MatrixView::new(Dtype::F16, 70, width, &v).unwrap();
        let run = |threads| {
            top_tokens(&Pool::new(threads), &unembedding, &vectors, 10, &Cancel::new()).unwrap()
        };
        let found = run(1);
        assert_eq!(found, run(4));
        let mut row = vec![0.0; width];
        let mut token_row = vec![0.0; width];
        for (feature, list) in found.iter().enumerate() {
            vectors.row_f32(feature, &mut row);
            assert_eq!(list.len(), 10);
            let worst = list[9].1;
            for token in 0..900 {
                unembedding.row_f32(token, &mut token_row);
                let score = dot_f64(&token_row, &row) as f32;
                let listed = list.iter().any(|&(listed, _)| listed as usize == token);
                assert!(listed || score <= worst, "feature {feature} misses token {token}");
            }
        }
    }

    #[test]
    fn a_cancelled_scan_gives_no_lists() {
        let cancel = Cancel::new();
        cancel.cancel();
        let values = [1.0; 4];
        let view = MatrixView::from_f32(2, 2, &values).unwrap();
        assert!(top_tokens(&Pool::new(1), &view, &view, 1, &cancel).is_err());
    }
}
