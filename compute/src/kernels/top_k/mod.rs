//! The largest of many scores, in one order for everybody: value down, then index up.
//!
//! NaN ranks below every number and is never returned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The `k` largest scores with their indices, best first; fewer if there are fewer numbers.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    largest(scores.iter().copied(), k)
        .into_iter()
        .map(|(index, _)| (index, scores[index]))
        .collect()
}

/// The `k` scores of the largest magnitude with their indices and signs, best first.
pub fn top_k_by_magnitude(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    largest(scores.iter().map(|score| score.abs()), k)
        .into_iter()
        .map(|(index, _)| (index, scores[index]))
        .collect()
}

/// The order of results: a larger score first, of equal ones the lower index.
pub fn rank(a: (usize, f32), b: (usize, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// A score in a heap whose top is the worst.
#[derive(Clone, Copy, PartialEq)]
struct Worst(usize, f32);

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Worst) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Worst) -> Ordering {
        rank((self.0, self.1), (other.0, other.1))
    }
}

fn largest(scores: impl Iterator<Item = f32>, k: usize) -> Vec<(usize, f32)> {
    if k == 0 {
        return Vec::new();
    }
    let mut kept = BinaryHeap::new();
    // The score that the next one must exceed: an equal one with a higher index ranks lower.
    let mut worst = f32::NEG_INFINITY;
    for (index, score) in scores.enumerate().filter(|(_, score)| !score.is_nan()) {
        if kept.len() < k {
            kept.push(Worst(index, score));
        } else if score > worst {
            *kept.peek_mut().expect("k is above 0") = Worst(index, score);
        } else {
            continue;
        }
        if kept.len() == k {
            worst = kept.peek().map_or(f32::INFINITY, |worst| worst.1);
        }
    }
    let mut found: Vec<(usize, f32)> = kept.into_iter().map(|Worst(i, score)| (i, score)).collect();
    found.sort_unstable_by(|a, b| rank(*a, *b));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            scores in prop::collection::vec(
                prop_oneof![(-4..4_i8).prop_map(f32::from), Just(f32::NAN), Just(f32::NEG_INFINITY)],
                0..60,
            ),
            k in 0..70_usize,
        ) {
            let mut sorted: Vec<(usize, f32)> =
                scores.iter().copied().enumerate().filter(|(_, score)| !score.is_nan()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(k);
            prop_assert_eq!(top_k(&scores, k), sorted);
            let mut sorted: Vec<(usize, f32)> =
                scores.iter().copied().enumerate().filter(|(_, score)| !score.is_nan()).collect();
            sorted.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            sorted.truncate(k);
            prop_assert_eq!(top_k_by_magnitude(&scores, k), sorted);
        }
    }
}
