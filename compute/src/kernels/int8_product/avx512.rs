//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! VNNI adds four products of bytes to 32 bits in one instruction. Twelve rows by two registers of
//! lanes make 24 sums; each quad of a row is broadcast once for both, so that loads (14 for 24
//! products) stay clear of being the limit even when the panels come from the second-level cache.

use std::arch::x86_64::*;

use super::{LANE_OFFSET, Lanes, Product, ROWS, Rows, Tile};
use crate::cpu::Isa;

pub(super) fn detect() -> Option<Product> {
    let supported = Isa::best() >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
    supported.then_some(|rows, row_sums, lanes, tile| {
        // SAFETY: the closure leaves this function only when the features were found.
        unsafe { product(rows, row_sums, lanes, tile) }
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn product(rows: &[Rows], row_sums: &[i32; ROWS], lanes: &[Lanes], tile: &mut Tile) {
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (sums, &row_sum) in sums.iter_mut().zip(row_sums) {
        // Lanes are too high by the offset, for every number of the row.
        *sums = [_mm512_set1_epi32(-i32::from(LANE_OFFSET) * row_sum); 2];
    }
    for (rows, lanes) in rows.iter().zip(lanes) {
        // SAFETY: two times sixteen lanes of four bytes, at any alignment.
        let (low, high) = unsafe {
            (
                _mm512_loadu_si512(lanes.as_ptr().cast()),
                _mm512_loadu_si512(lanes[16..].as_ptr().cast()),
            )
        };
        for (sums, row) in sums.iter_mut().zip(rows) {
            let quad = _mm512_set1_epi32(i32::from_le_bytes(row.map(i8::cast_unsigned)));
            sums[0] = _mm512_dpbusd_epi32(sums[0], low, quad);
            sums[1] = _mm512_dpbusd_epi32(sums[1], high, quad);
        }
    }
    for (out, sums) in tile.iter_mut().zip(sums) {
        // SAFETY: two times sixteen numbers of 32 bits, at any alignment.
        unsafe {
            _mm512_storeu_si512(out.as_mut_ptr().cast(), sums[0]);
            _mm512_storeu_si512(out[16..].as_mut_ptr().cast(), sums[1]);
        }
    }
}
