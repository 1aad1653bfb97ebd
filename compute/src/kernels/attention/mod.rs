//! Attention over pages of keys and values: the inner loops of serving, for decode and prefill.
//!
//! A page holds [`PAGE_POSITIONS`] positions of one head, packed: keys as `[dim][position]`,
//! values as `[position][dim]`. A page is unpacked to `f32` once for all queries of a tile.
//!
//! What a query gets is defined by absolute positions alone, so it does not depend on the other
//! queries of its tile, on how a prompt was cut, or on threads:
//!
//! - A score is one chain of `fma` over the dimensions, of the scaled query with the key; then the
//!   soft cap.
//! - Positions are taken in blocks of [`BLOCK_POSITIONS`], ascending. A block's weights are
//!   `exp(score - max)`, where `max` is the largest score so far; their sum is added up in 16
//!   lanes, chunk after chunk, and the lanes by halving. The sums so far are multiplied by
//!   `exp(max before - max)`. A value's dimension is one chain of `fma` over the positions.
//! - Blocks of a range of [`RANGE_POSITIONS`] are joined in this way; ranges are computed each
//!   alone, and joined by [`Partial::join`], ascending. That is what lets threads share one query.
//!
//! Positions that a query does not see are left out, whatever lies there. A score that is no
//! number makes the result none.
//!
//! `scalar` defines the steps; every variant gives the same bits, because each sum above is one
//! chain of `fma` whatever the width of the vectors. There is no file for NEON: fixed arrays of
//! lanes and `mul_add`, as `scalar` has them, are NEON instructions on every AArch64 processor.
//!
//! Source: the online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867), blockwise as in
//! Dao et al. 2022 (arXiv:2205.14135).
//!
//! Elsewhere: which pages and which heads (`model::paged_attention`), one row at a time in `f32`
//! (`model::attention`).

mod scalar;
mod tile;
mod unpack;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;
use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};

pub(crate) use scalar::exp as exp_below_0;
pub(crate) use tile::{Partial, Queries, TileScratch};
pub(crate) use unpack::{Packed, PageHead, pack_f16, pack_q8};

/// Positions of a page.
pub const PAGE_POSITIONS: usize = 32;
/// Positions whose weights are computed against one maximum.
pub const BLOCK_POSITIONS: usize = 4 * PAGE_POSITIONS;
/// Positions that one task may take alone.
pub(crate) const RANGE_POSITIONS: usize = 2 * BLOCK_POSITIONS;
/// Lanes that a sum of weights is added up in; rows of values are padded to a multiple of them.
pub(crate) const LANES: usize = 16;

/// What a block adds to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockWeights {
    /// The largest score so far.
    pub max: f32,
    /// The sum of the block's weights.
    pub sum: f32,
    /// The factor on all sums before.
    pub correction: f32,
}

/// Queries, keys of a page, scores.
pub type Scores = fn(&[f32], &[[f32; PAGE_POSITIONS]], &mut [f32]);
/// Scores of a block, the positions seen, the soft cap, the largest score before.
pub type Weigh = fn(&mut [f32; BLOCK_POSITIONS], Range<usize>, Option<f32>, f32) -> BlockWeights;
/// Weights, positions of the page, its values, how long they are, sums.
pub type AddValues = fn(&[f32], Range<usize>, &[f32], usize, &mut [f32]);

/// One variant of each step.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// `scores[q * BLOCK_POSITIONS + p] = queries[q] · keys[.., p]` for the positions of a page.
    ///
    /// `queries`: `[n, dim]`; `keys`: `[dim, PAGE_POSITIONS]`; `scores` ends with the last row's
    /// page.
    pub scores: Scores,
    /// Turns the visible scores of a block into weights, capped where there is a cap.
    ///
    /// `visible` is not empty; scores outside of it, in its chunks of 16, become 0.
    pub weigh: Weigh,
    /// `sums[q] += Σ weights[q * BLOCK_POSITIONS + p] · values[p]` over some positions of a page.
    ///
    /// `values`: `[PAGE_POSITIONS, width]`; `sums`: `[n, width]`; `width` a multiple of 16.
    pub add_values: AddValues,
}

/// Every variant that this processor can run, slowest first.
pub fn variants() -> Vec<(Isa, Variant)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found = vec![(Isa::Scalar, scalar::VARIANT)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, variant)));
    found
}

/// The variant to use in this process.
pub(crate) fn dispatch() -> &'static Variant {
    static FASTEST: LazyLock<Variant> = LazyLock::new(|| fastest(variants()));
    &FASTEST
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, between -2 and 2.
    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }

    #[test]
    fn scores_of_every_variant_have_the_same_bits() {
        for (n, dim) in [(1, 1), (3, 64), (8, 80), (13, 6), (64, 128), (5, 192)] {
            let queries = numbers(1, n * dim);
            let keys: Vec<[f32; 32]> =
                (0..dim).map(|d| numbers(d as u64 + 9, 32).try_into().unwrap()).collect();
            let length = (n - 1) * BLOCK_POSITIONS + PAGE_POSITIONS;
            let mut expected = vec![7.0; length];
            (scalar::VARIANT.scores)(&queries, &keys, &mut expected);
            for (q, query) in queries.chunks(dim).enumerate() {
                for p in 0..32 {
                    let terms =
                        query.iter().zip(&keys).map(|(q, k)| f64::from(*q) * f64::from(k[p]));
                    let error = f64::from(expected[q * BLOCK_POSITIONS + p]) - terms.sum::<f64>();
                    assert!(error.abs() < 1e-4, "{error:e}");
                }
            }
            for (isa, variant) in variants() {
                let mut found = vec![7.0; length];
                (variant.scores)(&queries, &keys, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{isa:?} {n} {dim}");
            }
        }
    }

    #[test]
    fn weights_of_every_variant_have_the_same_bits_and_are_their_definition() {
        for (seed, visible) in
            [(1, 0..128), (2, 0..1), (3, 5..16), (4, 15..97), (5, 127..128), (6, 32..64)]
        {
            for softcap in [None, Some(1.5)] {
                for before in [f32::NEG_INFINITY, -3.0, 1.0, 90.0] {
                    let scores: [f32; 128] = numbers(seed, 128).try_into().unwrap();
                    let mut expected = scores;
                    let result =
                        (scalar::VARIANT.weigh)(&mut expected, visible.clone(), softcap, before);
                    let capped = |p: usize| {
                        let score = f64::from(scores[p]);
                        softcap
                            .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    };
                    let max = visible.clone().map(capped).fold(f64::from(before), f64::max);
                    let weights = visible.clone().map(|p| (capped(p) - max).exp());
                    assert!((f64::from(result.max) - max).abs() < 1e-6);
                    assert!((f64::from(result.sum) - weights.clone().sum::<f64>()).abs() < 1e-4);
                    let correction = (f64::from(before) - max).exp();
                    assert!((f64::from(result.correction) - correction).abs() < 1e-6);
                    for (p, weight) in visible.clone().zip(weights) {
                        assert!((f64::from(expected[p]) - weight).abs() < 1e-6);
                    }
                    for (isa, variant) in variants() {
                        let mut found = scores;
                        // What is not seen does not count, whatever it is.
                        found[..visible.start].fill(f32::NAN);
                        found[visible.end..].fill(f32::NAN);
                        let again = (variant.weigh)(&mut found, visible.clone(), softcap, before);
                        assert_eq!(again, result, "{isa:?} {visible:?}");
                        let seen = visible.clone();
                        assert_eq!(bits(&found[seen.clone()]), bits(&expected[seen]), "{isa:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_score_that_is_no_number_or_infinite_is_treated_alike_by_every_variant() {
        for (isa, variant) in variants() {
            let mut scores = [0.5; 128];
            scores[70] = f32::NAN;
            let result = (variant.weigh)(&mut scores, 3..100, None, f32::NEG_INFINITY);
            assert!(result.sum.is_nan() && scores[70].is_nan() && scores[71] == 1.0, "{isa:?}");
            let mut scores = [f32::NEG_INFINITY; 128];
            let result = (variant.weigh)(&mut scores, 0..128, None, f32::NEG_INFINITY);
            assert_eq!((result.sum, result.correction), (0.0, 0.0), "{isa:?}");
            let mut scores = [f32::NEG_INFINITY; 128];
            scores[9] = -1e30;
            scores[10] = 0.0;
            let result = (variant.weigh)(&mut scores, 8..20, Some(50.0), -200.0);
            assert_eq!((result.max, result.correction), (0.0, 0.0), "{isa:?}");
            assert!((result.sum - 1.0).abs() < 1e-6, "{isa:?}");
        }
    }

    #[test]
    fn values_of_every_variant_have_the_same_bits() {
        for (n, width) in [(1, 16), (2, 64), (3, 80), (7, 128), (64, 64), (5, 208)] {
            for positions in [0..32, 3..4, 0..7, 20..32] {
                let weights = numbers(3, (n - 1) * BLOCK_POSITIONS + PAGE_POSITIONS);
                let values = numbers(4, PAGE_POSITIONS * width);
                let start = numbers(5, n * width);
                let mut expected = start.clone();
                (scalar::VARIANT.add_values)(
                    &weights,
                    positions.clone(),
                    &values,
                    width,
                    &mut expected,
                );
                for q in 0..n {
                    for d in 0..width {
                        let terms = positions.clone().map(|p| {
                            f64::from(weights[q * BLOCK_POSITIONS + p])
                                * f64::from(values[p * width + d])
                        });
                        let sum = f64::from(start[q * width + d]) + terms.sum::<f64>();
                        assert!((f64::from(expected[q * width + d]) - sum).abs() < 1e-4);
                    }
                }
                for (isa, variant) in variants() {
                    let mut found = start.clone();
                    let seen = positions.clone();
                    (variant.add_values)(&weights, seen, &values, width, &mut found);
                    assert_eq!(bits(&found), bits(&expected), "{isa:?} {n} {width}");
                }
            }
        }
    }
}
