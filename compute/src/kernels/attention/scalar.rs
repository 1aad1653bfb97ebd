//! The definition of each step, one number at a time.

use std::ops::Range;

use super::{BLOCK_POSITIONS, BlockWeights, LANES, PAGE_POSITIONS, Variant};

pub(super) const VARIANT: Variant = Variant { scores, weigh, add_values };

/// Below, `exp` is 0.
pub(super) const EXP_MIN: f32 = -87.0;
/// Added to a number and taken away again, it leaves the nearest whole number, which then stands
/// in the sum's low bits too.
pub(super) const ROUND: f32 = 12_582_912.0;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 as a short number and the rest.
pub(super) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `exp(r) = 1 + r + r² · polynomial(r)` for `|r| <= ln 2 / 2`, highest power first.
///
/// Source: the single-precision `expf` of the Cephes library.
pub(super) const EXP: [f32; 6] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// `exp` of a number that is at most 0, to about 1e-7 of its value; NaN of NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = if x < EXP_MIN { EXP_MIN } else { x };
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = (-whole).mul_add(LN_2[0], clamped);
    let rest = (-whole).mul_add(LN_2[1], rest);
    let [first, others @ ..] = EXP;
    let polynomial = others.iter().fold(first, |sum, next| sum.mul_add(rest, *next));
    let result = polynomial.mul_add(rest * rest, rest) + 1.0;
    let scaled = f32::from_bits(result.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x.is_nan() {
        x
    } else if x < EXP_MIN {
        0.0
    } else {
        scaled
    }
}

/// `cap · tanh(score / cap)`, by `exp` of what is below 0.
#[inline(always)]
pub(super) fn capped(cap: f32, score: f32) -> f32 {
    let x = score / cap;
    let e = exp(-2.0 * x.abs());
    cap * ((1.0 - e) / (1.0 + e)).copysign(x)
}

fn scores(queries: &[f32], keys: &[[f32; PAGE_POSITIONS]], scores: &mut [f32]) {
    let rows = scores.chunks_mut(BLOCK_POSITIONS);
    for (query, row) in queries.chunks_exact(keys.len()).zip(rows) {
        let mut sums = [0.0_f32; PAGE_POSITIONS];
        for (q, key) in query.iter().zip(keys) {
            for (sum, k) in sums.iter_mut().zip(key) {
                *sum = q.mul_add(*k, *sum);
            }
        }
        row[..PAGE_POSITIONS].copy_from_slice(&sums);
    }
}

fn weigh(
    scores: &mut [f32; BLOCK_POSITIONS],
    visible: Range<usize>,
    softcap: Option<f32>,
    max_before: f32,
) -> BlockWeights {
    let chunks = visible.start / LANES..visible.end.div_ceil(LANES);
    let mut max = max_before;
    let (first, end) = (chunks.start * LANES, chunks.end * LANES);
    for (index, score) in scores[first..end].iter_mut().enumerate() {
        if !visible.contains(&(first + index)) {
            *score = f32::NEG_INFINITY;
            continue;
        }
        if let Some(cap) = softcap {
            *score = capped(cap, *score);
        }
        if *score > max {
            max = *score;
        }
    }
    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (score, lane) in scores[chunk * LANES..][..LANES].iter_mut().zip(&mut lanes) {
            *score = exp(*score - base);
            *lane += *score;
        }
    }
    BlockWeights { max, sum: sum(lanes), correction: exp(max_before - base) }
}

/// Adds lanes by halving.
#[inline(always)]
pub(super) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

fn add_values(
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    for (weights, sums) in weights.chunks(BLOCK_POSITIONS).zip(sums.chunks_exact_mut(width)) {
        for position in positions.clone() {
            let value = &values[position * width..(position + 1) * width];
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum = weights[position].mul_add(*value, *sum);
            }
        }
    }
}
