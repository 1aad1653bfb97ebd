//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! AVX2 too multiplies signed by unsigned bytes, and adds two products in 16 bits: magnitudes of the
//! lanes times rows with the lanes' signs, which fit (2 * 127 * 127). Two rows and all four registers
//! of lanes make eight sums.

use std::arch::x86_64::*;

use super::{LANE_OFFSET, Lanes, Product, ROWS, Rows, Tile};
use crate::cpu::Isa;

/// Rows whose sums are kept in registers at a time.
const STRIP: usize = 2;

pub(super) fn detect() -> Option<Product> {
    (Isa::best() >= Isa::Avx2).then_some(|rows, row_sums, lanes, tile| {
        // SAFETY: the closure leaves this function only when the features were found.
        unsafe { product(rows, row_sums, lanes, tile) }
    })
}

#[target_feature(enable = "avx2")]
fn product(rows: &[Rows], _row_sums: &[i32; ROWS], lanes: &[Lanes], tile: &mut Tile) {
    let (ones, offset) = (_mm256_set1_epi16(1), _mm256_set1_epi8(LANE_OFFSET.cast_signed()));
    for first in (0..ROWS).step_by(STRIP) {
        let mut sums = [[_mm256_setzero_si256(); 4]; STRIP];
        for (rows, lanes) in rows.iter().zip(lanes) {
            let quads: [_; STRIP] = std::array::from_fn(|row| {
                _mm256_set1_epi32(i32::from_le_bytes(rows[first + row].map(i8::cast_unsigned)))
            });
            for part in 0..4 {
                // SAFETY: eight lanes of four bytes, at any alignment.
                let lanes = unsafe { _mm256_loadu_si256(lanes[8 * part..].as_ptr().cast()) };
                let signed = _mm256_xor_si256(lanes, offset);
                let sizes = _mm256_abs_epi8(signed);
                for (sums, &quad) in sums.iter_mut().zip(&quads) {
                    let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(quad, signed));
                    sums[part] = _mm256_add_epi32(sums[part], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for (out, sums) in tile[first..].iter_mut().zip(sums) {
            for (part, sum) in sums.into_iter().enumerate() {
                let out = &mut out[8 * part..8 * part + 8];
                // SAFETY: eight numbers of 32 bits, at any alignment.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
            }
        }
    }
}
