//! Attention of a block of positions over everything read so far.
//!
//! One task a position and query head: scores over the positions in its window, softmax, weighted
//! sum of values. Positions are absolute: row `j` of keys and values is position `j`.

use super::AttentionDescription;
use crate::cpu::with_scratch;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::accumulate::accumulate;
use crate::kernels::activation::softcap;
use crate::kernels::{dot, softmax};
use crate::quant::Dtype;

/// Values added up in one call of the kernel.
const VALUES_AT_ONCE: usize = 32;

/// What attention reads.
pub(super) struct Heads<'a> {
    /// `[n, heads * head_dim]`.
    pub(super) queries: &'a [f32],
    /// `[first + n, kv_heads * head_dim]`.
    pub(super) keys: &'a [f32],
    /// `[first + n, kv_heads * value_dim]`.
    pub(super) values: &'a [f32],
    /// A further score of each head: `[heads]`.
    pub(super) sinks: Option<&'a [f32]>,
}

/// Writes the heads' outputs.
///
/// # Shapes
/// `out`: `[n, heads * value_dim]`, for positions `first ..`.
/// # Source
/// Vaswani et al. 2017, section 3.2; grouped queries from Ainslie et al. 2023 (arXiv:2305.13245).
pub(super) fn attend(
    pool: &Pool,
    description: &AttentionDescription,
    input: &Heads<'_>,
    first: usize,
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let &AttentionDescription { heads, kv_heads, head_dim, value_dim, scale, .. } = description;
    let &Heads { queries, keys, values, sinks } = input;
    let group = heads / kv_heads;
    pool.run_chunks(out, value_dim, &|start, out| {
        if cancel.check().is_err() {
            return;
        }
        let task = start / value_dim;
        let (position, head) = (first + task / heads, task % heads);
        let oldest = description.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let row = |position: usize, dim: usize| {
            let start = (position * kv_heads + head / group) * dim;
            start..start + dim
        };
        let query = &queries[task * head_dim..(task + 1) * head_dim];
        let sink = sinks.map(|sinks| sinks[head]);
        let seen = position + 1 - oldest;
        with_scratch(seen + usize::from(sink.is_some()), |scores| {
            for (offset, score) in scores[..seen].iter_mut().enumerate() {
                *score = dot(query, &keys[row(oldest + offset, head_dim)]) * scale;
            }
            if let Some(cap) = description.softcap {
                softcap(cap, &mut scores[..seen]);
            }
            if let Some(sink) = sink {
                scores[seen] = sink;
            }
            // A score that is no number would get no weight, and damaged weights would pass unseen.
            let damaged = scores.iter().any(|score| score.is_nan());
            softmax(scores);
            out.fill(if damaged { f32::NAN } else { 0.0 });
            for (chunk, weights) in scores[..seen].chunks(VALUES_AT_ONCE).enumerate() {
                let mut rows: [(&[u8], f32); VALUES_AT_ONCE] = [(&[], 0.0); VALUES_AT_ONCE];
                for (offset, weight) in weights.iter().enumerate() {
                    let position = oldest + chunk * VALUES_AT_ONCE + offset;
                    let value = &values[row(position, value_dim)];
                    rows[offset] = (bytemuck::cast_slice(value), *weight);
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

    /// Four query heads of 6 numbers over two key and value heads, values of 4.
    fn description(window: Option<usize>, softcap: Option<f32>) -> AttentionDescription {
        let plain = AttentionDescription::plain(4, 2, 6);
        AttentionDescription { value_dim: 4, scale: 0.4, softcap, window, ..plain }
    }

    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step % 41) as f32 - 20.0) / 10.0).collect()
    }

    /// One number of one head's output from the definition.
    fn expected(
        description: &AttentionDescription,
        input: &Heads<'_>,
        position: usize,
        (query, head): (usize, usize),
        i: usize,
    ) -> f64 {
        let oldest = description.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let score = |j: usize| {
            let query = &input.queries[query * 24 + head * 6..][..6];
            let key = &input.keys[j * 12 + head / 2 * 6..][..6];
            let products = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k));
            let score = products.sum::<f64>() * 0.4;
            let cap = description.softcap.map(f64::from);
            cap.map_or(score, |cap| cap * (score / cap).tanh()).exp()
        };
        let sink = input.sinks.map_or(0.0, |sinks| f64::from(sinks[head]).exp());
        let total: f64 = sink + (oldest..=position).map(score).sum::<f64>();
        let value = |j: usize| f64::from(input.values[j * 8 + head / 2 * 4 + i]);
        (oldest..=position).map(|j| score(j) / total * value(j)).sum()
    }

    #[test]
    fn heads_see_their_window_and_equal_the_definition() {
        let (first, n) = (70, 3);
        let (keys, values) = (numbers((first + n) * 12, 7), numbers((first + n) * 8, 11));
        let (queries, sinks) = (numbers(n * 24, 17), [2.0, -1.0, 5.0, 0.0]);
        let pool = Pool::new(2);
        for (window, cap, sinks) in [
            (None, None, None),
            (Some(1), None, Some(&sinks[..])),
            (Some(40), Some(2.0), None),
            (Some(999), None, Some(&sinks[..])),
        ] {
            let description = description(window, cap);
            let input = Heads { queries: &queries, keys: &keys, values: &values, sinks };
            let mut out = vec![f32::NAN; n * 16];
            attend(&pool, &description, &input, first, &mut out, &Cancel::new()).unwrap();
            for (index, &found) in out.iter().enumerate() {
                let (p, head, i) = (index / 16, index / 4 % 4, index % 4);
                let expected = expected(&description, &input, first + p, (p, head), i);
                let error = (f64::from(found) - expected).abs();
                assert!(error < 1e-5, "{window:?} {p} {head} {i}: {error:e}");
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_makes_the_head_no_number() {
        let (keys, values) = ([1.0; 12], [1.0; 8]);
        let mut queries = [1.0; 24];
        queries[7] = f32::NAN;
        let mut out = [0.0; 16];
        let (pool, cancel) = (Pool::new(1), Cancel::new());
        let input = Heads { queries: &queries, keys: &keys, values: &values, sinks: None };
        attend(&pool, &description(None, None), &input, 0, &mut out, &cancel).unwrap();
        for (index, value) in out.iter().enumerate() {
            assert_eq!(value.is_nan(), index / 4 == 1, "{index}");
        }
    }
}
