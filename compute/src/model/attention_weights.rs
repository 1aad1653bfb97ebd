//! How much each head of one position attends to every position: for looking at, not for running.
//!
//! The same scores as attention's own (`attention`, `paged_attention`), computed again for one position
//! at a time from its query and the keys in the cache, so that attention itself keeps none.

use super::AttentionDescription;
use super::kv_cache::LayerCache;
use crate::kernels::activation::softcap;
use crate::kernels::attention::PAGE_POSITIONS;
use crate::kernels::{dot, softmax};

/// Writes the weights of one position.
///
/// # Shapes
/// `query`: `[heads * head_dim]`, as it meets the keys; `sinks`: `[heads]`; `weights`: resized to
/// `[heads, position + 1]`, 0 for what lies before the window. What a sink takes is missing from a
/// head's sum.
pub(super) fn weights(
    description: &AttentionDescription,
    query: &[f32],
    cache: &LayerCache<'_>,
    position: usize,
    sinks: Option<&[f32]>,
    weights: &mut Vec<f32>,
) {
    let &AttentionDescription { heads, kv_heads, head_dim, scale, .. } = description;
    let group = heads / kv_heads;
    let seen = position + 1;
    let oldest = description.window.map_or(0, |window| seen.saturating_sub(window));
    weights.clear();
    weights.resize(heads * seen, 0.0);
    let mut page = vec![[0.0; PAGE_POSITIONS]; head_dim];
    for (head, (scores, query)) in
        weights.chunks_exact_mut(seen).zip(query.chunks_exact(head_dim)).enumerate()
    {
        match cache {
            LayerCache::Rows(keys, _) => {
                for (position, score) in scores.iter_mut().enumerate().skip(oldest) {
                    let first = (position * kv_heads + head / group) * head_dim;
                    *score = dot(query, &keys[first..first + head_dim]) * scale;
                }
            }
            LayerCache::Paged(pages) => {
                for index in oldest / PAGE_POSITIONS..seen.div_ceil(PAGE_POSITIONS) {
                    pages.head(index, head / group).unpack_keys(&mut page);
                    let first = index * PAGE_POSITIONS;
                    let positions = scores[first..].iter_mut().take(PAGE_POSITIONS).enumerate();
                    for (within, score) in positions {
                        let products =
                            query.iter().zip(&page).map(|(query, key)| query * key[within]);
                        *score = products.sum::<f32>() * scale;
                    }
                }
            }
        }
        let visible = &mut scores[oldest..];
        if let Some(cap) = description.softcap {
            softcap(cap, visible);
        }
        match sinks {
            None => softmax(visible),
            Some(sinks) => {
                let mut with_sink = [&*visible, &[sinks[head]]].concat();
                softmax(&mut with_sink);
                visible.copy_from_slice(&with_sink[..visible.len()]);
            }
        }
        scores[..oldest].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Cancel, Pool};
    use crate::model::attention::{Heads, attend};

    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step % 41) as f32 - 20.0) / 10.0).collect()
    }

    #[test]
    fn values_weighed_by_them_are_what_attention_gives() {
        let (heads, dim, positions) = (4, 6, 70);
        let (keys, values) = (numbers(positions * 2 * dim, 7), numbers(positions * 2 * dim, 11));
        let (query, sinks) = (numbers(heads * dim, 17), [2.0, -1.0, 5.0, 0.0]);
        let plain = AttentionDescription::plain(heads, 2, dim);
        for (window, softcap, sinks) in [
            (None, None, None),
            (Some(1), None, None),
            (Some(40), Some(2.0), Some(&sinks[..])),
            (Some(999), None, Some(&sinks[..])),
        ] {
            let description = AttentionDescription { scale: 0.4, softcap, window, ..plain.clone() };
            let input = Heads { queries: &query, keys: &keys, values: &values, sinks };
            let mut expected = vec![0.0; heads * dim];
            let (pool, cancel) = (Pool::new(1), Cancel::new());
            attend(&pool, &description, &input, positions - 1, &mut expected, &cancel).unwrap();
            let mut found = Vec::new();
            let cache = LayerCache::Rows(&keys, &values);
            weights(&description, &query, &cache, positions - 1, sinks, &mut found);
            for (index, expected) in expected.iter().enumerate() {
                let (head, i) = (index / dim, index % dim);
                let weights = &found[head * positions..(head + 1) * positions];
                let value = |position: usize| values[(position * 2 + head / 2) * dim + i];
                let sum: f32 =
                    weights.iter().enumerate().map(|(at, weight)| weight * value(at)).sum();
                assert!((sum - expected).abs() < 1e-5, "{window:?} {head} {i}: {sum}");
            }
        }
    }
}
