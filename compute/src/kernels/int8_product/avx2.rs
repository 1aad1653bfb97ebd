//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! Two bytes of a lane times two of a row are added in 16 bits (they fit: 2 * 255 * 63), then in
//! 32. Three rows and all four registers of lanes make twelve sums, which leaves four registers.

use std::arch::x86_64::*;

use super::{Lanes, Product, ROWS, Rows, Tile};
use crate::cpu::Isa;

/// Rows whose sums are kept in registers at a time.
const STRIP: usize = 3;

pub(super) fn detect() -> Option<Product> {
    (Isa::best() >= Isa::Avx2).then_some(|rows, lanes, start, tile| {
        // SAFETY: the closure leaves this function only when the features were found.
        unsafe { product(rows, lanes, start, tile) }
    })
}

#[target_feature(enable = "avx2")]
fn product(rows: &[Rows], lanes: &[Lanes], start: &[i32; ROWS], tile: &mut Tile) {
    let ones = _mm256_set1_epi16(1);
    for first in (0..ROWS).step_by(STRIP) {
        let mut sums = [[_mm256_setzero_si256(); 4]; STRIP];
        for (row, sums) in sums.iter_mut().enumerate() {
            *sums = [_mm256_set1_epi32(start[first + row]); 4];
        }
        for (rows, lanes) in rows.iter().zip(lanes) {
            for part in 0..4 {
                // SAFETY: eight lanes of four bytes, at any alignment.
                let lanes = unsafe { _mm256_loadu_si256(lanes[8 * part..].as_ptr().cast()) };
                for row in 0..STRIP {
                    let quad =
                        _mm256_set1_epi32(i32::from_le_bytes(rows[first + row].map(|n| n as u8)));
                    let pairs = _mm256_maddubs_epi16(lanes, quad);
                    let quads = _mm256_madd_epi16(pairs, ones);
                    sums[row][part] = _mm256_add_epi32(sums[row][part], quads);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (part, &sum) in sums.iter().enumerate() {
                let out = &mut tile[first + row][8 * part..8 * part + 8];
                // SAFETY: eight numbers of 32 bits, at any alignment.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) };
            }
        }
    }
}
