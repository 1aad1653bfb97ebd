//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! Eight queries at a time keep sixteen sums in registers, so that one load of a key feeds eight
//! multiply-adds; four queries by 64 numbers do the same for values.

use std::arch::x86_64::*;
use std::ops::Range;

use super::scalar::{EXP, EXP_MIN, LN_2, LOG2_E, ROUND};
use super::{BLOCK_POSITIONS, BlockWeights, LANES, PAGE_POSITIONS, Variant};
use crate::cpu::Isa;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx512).then_some(Variant {
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn scores(queries: &[f32], keys: &[[f32; PAGE_POSITIONS]], out: &mut [f32]) {
    let dim = keys.len();
    let n = queries.len() / dim;
    assert!(out.len() >= (n - 1) * BLOCK_POSITIONS + PAGE_POSITIONS, "too few scores");
    let mut row = 0;
    while row < n {
        let queries = &queries[row * dim..];
        let out = &mut out[row * BLOCK_POSITIONS..];
        row += match n - row {
            8.. => score_rows::<8>(queries, keys, out),
            4.. => score_rows::<4>(queries, keys, out),
            2.. => score_rows::<2>(queries, keys, out),
            _ => score_rows::<1>(queries, keys, out),
        };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn score_rows<const N: usize>(
    queries: &[f32],
    keys: &[[f32; PAGE_POSITIONS]],
    out: &mut [f32],
) -> usize {
    let dim = keys.len();
    assert!(queries.len() >= N * dim && out.len() >= (N - 1) * BLOCK_POSITIONS + PAGE_POSITIONS);
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for (d, key) in keys.iter().enumerate() {
        // SAFETY: both halves of the 32 positions.
        let (low, high) =
            unsafe { (_mm512_loadu_ps(key.as_ptr()), _mm512_loadu_ps(key.as_ptr().add(LANES))) };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `row` is below `N` and `d` below `dim`, by the check above.
            let query = _mm512_set1_ps(unsafe { *queries.get_unchecked(row * dim + d) });
            sums[0] = _mm512_fmadd_ps(query, low, sums[0]);
            sums[1] = _mm512_fmadd_ps(query, high, sums[1]);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * BLOCK_POSITIONS..][..PAGE_POSITIONS];
        // SAFETY: 32 numbers, at any alignment.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(LANES), sums[1]);
        }
    }
    N
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn exp(x: __m512) -> __m512 {
    let min = _mm512_set1_ps(EXP_MIN);
    // Of a NaN, `max` returns the second operand: it stays.
    let clamped = _mm512_max_ps(min, x);
    let round = _mm512_set1_ps(ROUND);
    let shifted = _mm512_fmadd_ps(clamped, _mm512_set1_ps(LOG2_E), round);
    let whole = _mm512_sub_ps(shifted, round);
    let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(LN_2[0]), clamped);
    let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(LN_2[1]), rest);
    let mut polynomial = _mm512_set1_ps(EXP[0]);
    for next in &EXP[1..] {
        polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(*next));
    }
    let result = _mm512_fmadd_ps(polynomial, _mm512_mul_ps(rest, rest), rest);
    let result = _mm512_add_ps(result, _mm512_set1_ps(1.0));
    let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let scaled = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(result), power));
    let scaled =
        _mm512_mask_mov_ps(scaled, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, min), _mm512_setzero_ps());
    _mm512_mask_mov_ps(scaled, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x), x)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn capped(cap: f32, score: __m512) -> __m512 {
    let (cap, one) = (_mm512_set1_ps(cap), _mm512_set1_ps(1.0));
    let x = _mm512_div_ps(score, cap);
    let e = exp(_mm512_mul_ps(_mm512_set1_ps(-2.0), _mm512_abs_ps(x)));
    let size = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    let sign = _mm512_set1_ps(-0.0);
    let signed = _mm512_or_ps(_mm512_andnot_ps(sign, size), _mm512_and_ps(sign, x));
    _mm512_mul_ps(cap, signed)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn weigh(
    scores: &mut [f32; BLOCK_POSITIONS],
    visible: Range<usize>,
    softcap: Option<f32>,
    max_before: f32,
) -> BlockWeights {
    let chunks = visible.start / LANES..visible.end.div_ceil(LANES);
    assert!(chunks.end <= BLOCK_POSITIONS / LANES, "positions outside of the block");
    let least = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut most = least;
    for chunk in chunks.clone() {
        let first = chunk * LANES;
        let from = visible.start.saturating_sub(first);
        let to = (visible.end - first).min(LANES);
        let seen = (((1_u32 << to) - 1) & !((1_u32 << from) - 1)) as __mmask16;
        // SAFETY: the chunk is within the block.
        let mut score = unsafe { _mm512_loadu_ps(scores.as_ptr().add(first)) };
        if let Some(cap) = softcap {
            score = capped(cap, score);
        }
        let score = _mm512_mask_mov_ps(least, seen, score);
        // Of a NaN, `max` returns the second operand: it is passed over.
        most = _mm512_max_ps(score, most);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(scores.as_mut_ptr().add(first), score) };
    }
    let most = _mm512_reduce_max_ps(most);
    let max = if most > max_before { most } else { max_before };
    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let bases = _mm512_set1_ps(base);
    let mut lanes = _mm512_setzero_ps();
    for chunk in chunks {
        // SAFETY: the chunk is within the block.
        unsafe {
            let place = scores.as_mut_ptr().add(chunk * LANES);
            let weight = exp(_mm512_sub_ps(_mm512_loadu_ps(place), bases));
            lanes = _mm512_add_ps(lanes, weight);
            _mm512_storeu_ps(place, weight);
        }
    }
    let half = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
    let two = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    let sum = _mm_add_ss(two, _mm_movehdup_ps(two));
    let correction = _mm512_cvtss_f32(exp(_mm512_set1_ps(max_before - base)));
    BlockWeights { max, sum: _mm_cvtss_f32(sum), correction }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
            4.. => value_rows::<4>(weights, positions.clone(), values, width, sums),
            2.. => value_rows::<2>(weights, positions.clone(), values, width, sums),
            _ => value_rows::<1>(weights, positions.clone(), values, width, sums),
        };
    }
}

/// `N` rows, in columns of 64 and then of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
                64.. => tile::<N, 4>(weights, positions.clone(), values, width, sums, column),
                _ => tile::<N, 1>(weights, positions.clone(), values, width, sums, column),
            }
        };
    }
    N
}

/// # Safety
/// `column + 16 C` is within `width`; there are `N` rows of weights and sums and 32 of values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
        let mut lanes = [[_mm512_setzero_ps(); C]; N];
        for (row, lanes) in lanes.iter_mut().enumerate() {
            for (part, lane) in lanes.iter_mut().enumerate() {
                *lane = _mm512_loadu_ps(place.add(row * width + part * LANES));
            }
        }
        for position in positions {
            let value = values.as_ptr().add(position * width + column);
            let mut parts = [_mm512_setzero_ps(); C];
            for (index, part) in parts.iter_mut().enumerate() {
                *part = _mm512_loadu_ps(value.add(index * LANES));
            }
            for (row, lanes) in lanes.iter_mut().enumerate() {
                let weight =
                    _mm512_set1_ps(*weights.get_unchecked(row * BLOCK_POSITIONS + position));
                for (lane, part) in lanes.iter_mut().zip(parts) {
                    *lane = _mm512_fmadd_ps(weight, part, *lane);
                }
            }
        }
        for (row, lanes) in lanes.iter().enumerate() {
            for (part, lane) in lanes.iter().enumerate() {
                _mm512_storeu_ps(place.add(row * width + part * LANES), *lane);
            }
        }
    }
    C * LANES
}
