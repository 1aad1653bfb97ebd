//! Attention of a block of positions over everything read so far.
//!
//! One task a position and query head: scores over the positions in its window, softmax, weighted
//! sum of values. Positions are absolute: row `j` of keys and values is position `j`.

use super::AttentionDescription;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::accumulate::accumulate;
use crate::kernels::activation::softcap;
use crate::kernels::matmul::with_scratch;
use crate::kernels::{dot, softmax};
use crate::quant::Dtype;

/// Values added up in one call of the kernel.
const VALUES_AT_ONCE: usize = 32;

/// Writes the heads' outputs.
///
/// # Shapes
/// `queries` and `out`: `[n, heads * head_dim]` for positions `first ..`; `keys` and `values`:
/// `[first + n, kv_heads * head_dim]`.
/// # Source
/// Vaswani et al. 2017, section 3.2; grouped queries from Ainslie et al. 2023 (arXiv:2305.13245).
pub(super) fn attend(
    pool: &Pool,
    description: &AttentionDescription,
    queries: &[f32],
    (keys, values): (&[f32], &[f32]),
    first: usize,
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let &AttentionDescription { heads, kv_heads, head_dim, scale, .. } = description;
    let width = kv_heads * head_dim;
    let group = heads / kv_heads;
    pool.run_chunks(out, head_dim, &|start, out| {
        if cancel.check().is_err() {
            return;
        }
        let task = start / head_dim;
        let (position, head) = (first + task / heads, task % heads);
        let oldest = description.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let column = head / group * head_dim;
        let row = |rows: &'_ [f32], position: usize| -> std::ops::Range<usize> {
            debug_assert!((position + 1) * width <= rows.len());
            position * width + column..position * width + column + head_dim
        };
        let query = &queries[start..start + head_dim];
        with_scratch(position + 1 - oldest, |scores| {
            for (offset, score) in scores.iter_mut().enumerate() {
                *score = dot(query, &keys[row(keys, oldest + offset)]) * scale;
            }
            if let Some(cap) = description.softcap {
                softcap(cap, scores);
            }
            // A score that is no number would get no weight, and damaged weights would pass unseen.
            let damaged = scores.iter().any(|score| score.is_nan());
            softmax(scores);
            out.fill(if damaged { f32::NAN } else { 0.0 });
            for (chunk, weights) in scores.chunks(VALUES_AT_ONCE).enumerate() {
                let mut rows: [(&[u8], f32); VALUES_AT_ONCE] = [(&[], 0.0); VALUES_AT_ONCE];
                for (offset, weight) in weights.iter().enumerate() {
                    let position = oldest + chunk * VALUES_AT_ONCE + offset;
                    rows[offset] = (bytemuck::cast_slice(&values[row(values, position)]), *weight);
                }
                accumulate(Dtype::F32, &rows[..weights.len()], out);
            }
        });
    });
    cancel.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(window: Option<usize>, softcap: Option<f32>) -> AttentionDescription {
        AttentionDescription { scale: 0.4, softcap, window, ..AttentionDescription::plain(4, 2, 6) }
    }

    #[test]
    fn heads_see_their_window_and_equal_the_definition() {
        let numbers = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * step % 41) as f32 - 20.0) / 10.0).collect()
        };
        let (first, n) = (70, 3);
        let (keys, values) = (numbers((first + n) * 12, 7), numbers((first + n) * 12, 11));
        let queries = numbers(n * 24, 17);
        for (window, cap) in
            [(None, None), (Some(1), None), (Some(40), Some(2.0)), (Some(999), None)]
        {
            let description = description(window, cap);
            let mut out = vec![f32::NAN; n * 24];
            let pool = Pool::new(2);
            attend(
                &pool,
                &description,
                &queries,
                (&keys, &values),
                first,
                &mut out,
                &Cancel::new(),
            )
            .unwrap();
            for p in 0..n {
                for head in 0..4 {
                    let oldest = window.map_or(0, |window| (first + p + 1).saturating_sub(window));
                    let number = |rows: &[f32], j: usize, i: usize| {
                        f64::from(rows[j * 12 + head / 2 * 6 + i])
                    };
                    let weights: Vec<f64> = (oldest..=first + p)
                        .map(|j| {
                            let score = (0..6)
                                .map(|i| {
                                    f64::from(queries[p * 24 + head * 6 + i]) * number(&keys, j, i)
                                })
                                .sum::<f64>()
                                * 0.4;
                            cap.map_or(score, |cap| {
                                f64::from(cap) * (score / f64::from(cap)).tanh()
                            })
                            .exp()
                        })
                        .collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..6 {
                        let expected: f64 = weights
                            .iter()
                            .enumerate()
                            .map(|(offset, weight)| {
                                weight / total * number(&values, oldest + offset, i)
                            })
                            .sum();
                        let found = f64::from(out[p * 24 + head * 6 + i]);
                        assert!((found - expected).abs() < 1e-5, "{window:?} {p} {head} {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_makes_the_head_no_number() {
        let (keys, values) = ([1.0; 12], [1.0; 12]);
        let mut queries = [1.0; 24];
        queries[7] = f32::NAN;
        let mut out = [0.0; 24];
        let (pool, cancel) = (Pool::new(1), Cancel::new());
        let description = description(None, None);
        attend(&pool, &description, &queries, (&keys, &values), 0, &mut out, &cancel).unwrap();
        for (index, value) in out.iter().enumerate() {
            assert_eq!(value.is_nan(), index / 6 == 1, "{index}");
        }
    }
}
