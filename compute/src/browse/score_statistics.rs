//! Mean and spread of gate scores, against which a score is judged.

use std::sync::Mutex;

use super::gemm::gemm;
use crate::cpu::with_scratch;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::quant::MatrixView;

/// Gate rows in a tile.
const TILE_GATES: usize = 64;
/// Queries multiplied at once: bounds scratch memory.
const TILE_QUERIES: usize = 256;

/// Returns mean and population standard deviation of `gate row · query` over all pairs.
///
/// Scores are products in `f32`, their moments are taken in `f64` tile by tile and joined in the
/// order of the tiles, so that the result does not depend on the pool. Without a pair both are 0.
///
/// # Shapes
/// `gates`: `[features, d]`; `queries`: `[n, d]` row-major; panics if they differ.
/// # Units
/// Scratch memory: a thread takes `64 * d + 64 * 256` numbers.
/// # Errors
/// `Cancelled`, asked before every tile.
/// # Source
/// Chan, Golub and LeVeque 1983, for joining moments.
pub fn score_statistics(
    pool: &Pool,
    gates: &MatrixView,
    queries: &[f32],
    cancel: &Cancel,
) -> Result<(f64, f64), Cancelled> {
    let (features, d) = (gates.rows(), gates.columns());
    let count = queries.len().checked_div(d).unwrap_or(0);
    assert_eq!(queries.len(), count * d, "queries and gate rows differ");
    let moments = Mutex::new(vec![Moments::default(); features.div_ceil(TILE_GATES)]);
    pool.run(features.div_ceil(TILE_GATES), &|tile| {
        let first = tile * TILE_GATES;
        let rows = TILE_GATES.min(features - first);
        let mut sum = Moments::default();
        with_scratch(rows * d + rows * TILE_QUERIES, |scratch| {
            let (unpacked, scores) = scratch.split_at_mut(rows * d);
            for (offset, row) in unpacked.chunks_exact_mut(d.max(1)).enumerate() {
                gates.row_f32(first + offset, row);
            }
            for queries in queries.chunks(TILE_QUERIES * d.max(1)) {
                if cancel.check().is_err() {
                    return;
                }
                let n = queries.len() / d;
                let scores = &mut scores[..n * rows];
                // SAFETY: `queries` is [n, d], `unpacked` [rows, d], `scores` [n, rows], ours.
                unsafe {
                    gemm(
                        (n, rows, d),
                        (scores.as_mut_ptr(), rows, 1),
                        false,
                        (queries.as_ptr(), d, 1),
                        (unpacked.as_ptr(), 1, d),
                    );
                }
                sum = sum.join(Moments::of(scores));
            }
        });
        // Nobody panics while holding this lock, and a poisoned one guards the same numbers.
        moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[tile] = sum;
    });
    cancel.check()?;
    let moments = moments.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let all = moments.into_iter().fold(Moments::default(), Moments::join);
    Ok((all.mean, if all.count == 0.0 { 0.0 } else { (all.squares / all.count).sqrt() }))
}

/// Count, mean, and sum of squared distances from the mean.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(scores: &[f32]) -> Moments {
        let count = scores.len() as f64;
        let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
        let square = |&score: &f32| (f64::from(score) - mean).powi(2);
        Moments { count, mean, squares: scores.iter().map(square).sum() }
    }

    fn join(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        if self.count == 0.0 || other.count == 0.0 {
            return if self.count == 0.0 { other } else { self };
        }
        let distance = other.mean - self.mean;
        Moments {
            count,
            mean: self.mean + distance * other.count / count,
            squares: self.squares
                + other.squares
                + distance * distance * self.count * other.count / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_all_pairs_for_any_pool() {
        let number = |i: usize, step: usize| ((i * step % 41) as f32 - 12.0) / 10.0;
        let gates: Vec<f32> = (0..150 * 9).map(|i| number(i, 7)).collect();
        let queries: Vec<f32> = (0..300 * 9).map(|i| number(i, 11)).collect();
        let scores: Vec<f64> = gates
            .chunks(9)
            .flat_map(|gate| queries.chunks(9).map(move |query| (gate, query)))
            .map(|(gate, query)| gate.iter().zip(query).map(|(a, b)| f64::from(a * b)).sum())
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let squares = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
        let deviation = (squares / scores.len() as f64).sqrt();
        let view = MatrixView::from_f32(150, 9, &gates).unwrap();
        let run = |threads| {
            score_statistics(&Pool::new(threads), &view, &queries, &Cancel::new()).unwrap()
        };
        let (found_mean, found_deviation) = run(2);
        assert!((found_mean - mean).abs() < 1e-6, "{found_mean} {mean}");
        assert!((found_deviation / deviation - 1.0).abs() < 1e-6, "{found_deviation} {deviation}");
        assert_eq!(run(1), run(3));
        let none = score_statistics(&Pool::new(1), &view, &[], &Cancel::new());
        assert_eq!(none, Ok((0.0, 0.0)));
    }
}
