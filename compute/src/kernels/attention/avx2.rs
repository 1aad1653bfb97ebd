//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! Two queries at a time keep eight sums in registers; two queries by 32 numbers do for values.

use std::arch::x86_64::*;
use std::ops::Range;

use super::scalar::{EXP, EXP_MIN, LN_2, LOG2_E, ROUND, sum};
use super::{BLOCK_POSITIONS, BlockWeights, LANES, PAGE_POSITIONS, Variant};
use crate::cpu::Isa;

/// Numbers in a register.
const WIDE: usize = 8;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx2).then_some(Variant {
        // SAFETY: the closures leave this function only when the features were found.
        scores: |queries, keys, out| unsafe { scores(queries, keys, out) },
        // SAFETY: as above.
        weigh: |scores, visible, cap, before| unsafe { weigh(scores, visible, cap, before) },
        // SAFETY: as above.
        add_values: |weights, positions, values, width, sums| unsafe {
            add_values(weights, positions, values, width, sums)
        },
    })
}

#[target_feature(enable = "avx2,fma")]
fn scores(queries: &[f32], keys: &[[f32; PAGE_POSITIONS]], out: &mut [f32]) {
    let dim = keys.len();
    let n = queries.len() / dim;
    let mut row = 0;
    while row < n {
        let queries = &queries[row * dim..];
        let out = &mut out[row * BLOCK_POSITIONS..];
        row += match n - row {
            2.. => score_rows::<2>(queries, keys, out),
            _ => score_rows::<1>(queries, keys, out),
        };
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn score_rows<const N: usize>(
    queries: &[f32],
    keys: &[[f32; PAGE_POSITIONS]],
    out: &mut [f32],
) -> usize {
    let dim = keys.len();
    assert!(queries.len() >= N * dim && out.len() >= (N - 1) * BLOCK_POSITIONS + PAGE_POSITIONS);
    let mut sums = [[_mm256_setzero_ps(); PAGE_POSITIONS / WIDE]; N];
    for (d, key) in keys.iter().enumerate() {
        let mut parts = [_mm256_setzero_ps(); PAGE_POSITIONS / WIDE];
        for (index, part) in parts.iter_mut().enumerate() {
            // SAFETY: eight of the 32 positions.
            *part = unsafe { _mm256_loadu_ps(key.as_ptr().add(index * WIDE)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row` is below `N` and `d` below `dim`, by the check above.
            let query = _mm256_set1_ps(unsafe { *queries.get_unchecked(row * dim + d) });
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = _mm256_fmadd_ps(query, part, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * BLOCK_POSITIONS..][..PAGE_POSITIONS];
        for (sum, out) in sums.iter().zip(out.as_chunks_mut::<WIDE>().0) {
            // SAFETY: eight numbers, at any alignment.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *sum) };
        }
    }
    N
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn exp(x: __m256) -> __m256 {
    let min = _mm256_set1_ps(EXP_MIN);
    // Of a NaN, `max` returns the second operand: it stays.
    let clamped = _mm256_max_ps(min, x);
    let round = _mm256_set1_ps(ROUND);
    let shifted = _mm256_fmadd_ps(clamped, _mm256_set1_ps(LOG2_E), round);
    let whole = _mm256_sub_ps(shifted, round);
    let rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(LN_2[0]), clamped);
    let rest = _mm256_fnmadd_ps(whole, _mm256_set1_ps(LN_2[1]), rest);
    let mut polynomial = _mm256_set1_ps(EXP[0]);
    for next in &EXP[1..] {
        polynomial = _mm256_fmadd_ps(polynomial, rest, _mm256_set1_ps(*next));
    }
    let result = _mm256_fmadd_ps(polynomial, _mm256_mul_ps(rest, rest), rest);
    let result = _mm256_add_ps(result, _mm256_set1_ps(1.0));
    let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(result), power));
    let scaled = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, min), scaled);
    _mm256_blendv_ps(scaled, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn capped(cap: f32, score: __m256) -> __m256 {
    let (cap, one, sign) = (_mm256_set1_ps(cap), _mm256_set1_ps(1.0), _mm256_set1_ps(-0.0));
    let x = _mm256_div_ps(score, cap);
    let e = exp(_mm256_mul_ps(_mm256_set1_ps(-2.0), _mm256_andnot_ps(sign, x)));
    let size = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    let signed = _mm256_or_ps(_mm256_andnot_ps(sign, size), _mm256_and_ps(sign, x));
    _mm256_mul_ps(cap, signed)
}

#[target_feature(enable = "avx2,fma")]
fn weigh(
    scores: &mut [f32; BLOCK_POSITIONS],
    visible: Range<usize>,
    softcap: Option<f32>,
    max_before: f32,
) -> BlockWeights {
    // Whole chunks of 16, as the sums' lanes are.
    let chunks = visible.start / LANES..visible.end.div_ceil(LANES);
    let places = chunks.start * LANES..chunks.end * LANES;
    let indices = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let (from, to) =
        (_mm256_set1_epi32(visible.start as i32 - 1), _mm256_set1_epi32(visible.end as i32));
    let least = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut most = least;
    for (index, part) in scores[places.clone()].as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
        let first = (places.start + index * WIDE) as i32;
        let place = _mm256_add_epi32(indices, _mm256_set1_epi32(first));
        let seen = _mm256_and_si256(_mm256_cmpgt_epi32(place, from), _mm256_cmpgt_epi32(to, place));
        // SAFETY: eight numbers, at any alignment.
        let mut score = unsafe { _mm256_loadu_ps(part.as_ptr()) };
        if let Some(cap) = softcap {
            score = capped(cap, score);
        }
        let score = _mm256_blendv_ps(least, score, _mm256_castsi256_ps(seen));
        // Of a NaN, `max` returns the second operand: it is passed over.
        most = _mm256_max_ps(score, most);
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), score) };
    }
    // SAFETY: both types are eight floats.
    let most: [f32; WIDE] = unsafe { std::mem::transmute(most) };
    let max = most.into_iter().fold(max_before, |max, most| if most > max { most } else { max });
    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let bases = _mm256_set1_ps(base);
    let mut lanes = [_mm256_setzero_ps(); LANES / WIDE];
    for (index, part) in scores[places].as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
        // SAFETY: eight numbers, at any alignment.
        let weight = exp(_mm256_sub_ps(unsafe { _mm256_loadu_ps(part.as_ptr()) }, bases));
        lanes[index % 2] = _mm256_add_ps(lanes[index % 2], weight);
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), weight) };
    }
    // SAFETY: both types are sixteen floats.
    let lanes: [f32; LANES] = unsafe { std::mem::transmute(lanes) };
    let correction = _mm256_cvtss_f32(exp(_mm256_set1_ps(max_before - base)));
    BlockWeights { max, sum: sum(lanes), correction }
}

#[target_feature(enable = "avx2,fma")]
fn add_values(
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    assert!(width.is_multiple_of(LANES) && values.len() >= PAGE_POSITIONS * width);
    assert!(positions.end <= PAGE_POSITIONS, "positions outside of the page");
    let n = sums.len() / width;
    assert!(weights.len() >= (n - 1) * BLOCK_POSITIONS + PAGE_POSITIONS, "too few weights");
    let mut row = 0;
    while row < n {
        let weights = &weights[row * BLOCK_POSITIONS..];
        let sums = &mut sums[row * width..];
        row += match n - row {
            2.. => value_rows::<2>(weights, positions.clone(), values, width, sums),
            _ => value_rows::<1>(weights, positions.clone(), values, width, sums),
        };
    }
}

/// `N` rows, in columns of 32 and then of 16.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn value_rows<const N: usize>(
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    width: usize,
    sums: &mut [f32],
) -> usize {
    assert!(sums.len() >= N * width && weights.len() >= (N - 1) * BLOCK_POSITIONS + PAGE_POSITIONS);
    let mut column = 0;
    while column < width {
        // SAFETY: the caller's checks and those above: `N` rows of sums, each `width` long, 32
        // rows of values as long, and a weight for each row and position of the page.
        column += unsafe {
            match width - column {
                32.. => tile::<N, 4>(weights, positions.clone(), values, width, sums, column),
                _ => tile::<N, 2>(weights, positions.clone(), values, width, sums, column),
            }
        };
    }
    N
}

/// # Safety
/// `column + 8 C` is within `width`; there are `N` rows of weights and sums and 32 of values.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile<const N: usize, const C: usize>(
    weights: &[f32],
    positions: Range<usize>,
    values: &[f32],
    width: usize,
    sums: &mut [f32],
    column: usize,
) -> usize {
    // SAFETY: the caller's promise, for every access.
    unsafe {
        let place = sums.as_mut_ptr().add(column);
        let mut lanes = [[_mm256_setzero_ps(); C]; N];
        for (row, lanes) in lanes.iter_mut().enumerate() {
            for (part, lane) in lanes.iter_mut().enumerate() {
                *lane = _mm256_loadu_ps(place.add(row * width + part * WIDE));
            }
        }
        for position in positions {
            let value = values.as_ptr().add(position * width + column);
            let mut parts = [_mm256_setzero_ps(); C];
            for (index, part) in parts.iter_mut().enumerate() {
                *part = _mm256_loadu_ps(value.add(index * WIDE));
            }
            for (row, lanes) in lanes.iter_mut().enumerate() {
                let weight =
                    _mm256_set1_ps(*weights.get_unchecked(row * BLOCK_POSITIONS + position));
                for (lane, part) in lanes.iter_mut().zip(parts) {
                    *lane = _mm256_fmadd_ps(weight, part, *lane);
                }
            }
        }
        for (row, lanes) in lanes.iter().enumerate() {
            for (part, lane) in lanes.iter().enumerate() {
                _mm256_storeu_ps(place.add(row * width + part * WIDE), *lane);
            }
        }
    }
    C * WIDE
}
