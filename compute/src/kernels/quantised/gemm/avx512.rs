//! Reachable only through `detect`, so holding the functions is the proof that they may run.
//!
//! Elsewhere: the multiplications (`products`).

mod products;

use std::arch::x86_64::*;

use super::lanes::{Lanes, Pointers};
use super::tile::{Line, Tile};
use super::{Variant, unpack};
use crate::cpu::Isa;

/// Positions of a panel.
const POSITIONS: usize = 8;
/// Rows in a register.
const LANES: usize = 16;

pub(super) fn detect() -> Option<Variant> {
    let supported = Isa::best() >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
    supported.then_some(Variant {
        positions: POSITIONS,
        // On one core of a Zen 4 (`gemm_rate`), three rows of `Q4_K` do 67 giga multiply-adds a
        // second this way and 53 row by row, of `Q8_0` 58 and 43; two rows are no faster.
        rows_min: 3,
        // SAFETY: the closures leave this function only when the features were found.
        unpack: |dtype, rows, first, blocks, tile| unsafe {
            unpack_rows(dtype, rows, first, blocks, tile);
        },
        // SAFETY: as above.
        multiply: |layout, tile, panel, ahead, sums| unsafe {
            products::of_tile(layout, tile, panel, ahead, sums);
        },
        // SAFETY: as above.
        fused: Some(|dtype, rows, first, panel, ahead, sums| unsafe {
            products::of_rows(dtype, rows, first, panel, ahead, sums);
        }),
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn unpack_rows(
    dtype: crate::quant::Dtype,
    rows: &super::TileRows<'_>,
    first: usize,
    blocks: usize,
    tile: &mut Tile,
) {
    // SAFETY: this function enables what the registers stand for.
    unsafe { unpack::unpack::<__m512i, _>(dtype, rows, first, blocks, tile) }
}

/// Sixteen bytes of the rows `i`, `4 + i`, `8 + i` and `12 + i`.
///
/// # Safety
/// As [`Lanes::words_4`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarter(rows: &Pointers, i: usize, at: usize) -> __m512i {
    // SAFETY: the caller's promise; no alignment is asked for.
    unsafe {
        let all = _mm512_castsi128_si512(_mm_loadu_si128(rows[i].add(at).cast()));
        // A broadcast under a mask costs no shuffle, as an insertion would.
        let next = |row: usize| _mm_loadu_si128(rows[row + i].add(at).cast());
        let all = _mm512_mask_broadcast_i32x4(all, 0x00f0, next(4));
        let all = _mm512_mask_broadcast_i32x4(all, 0x0f00, next(8));
        _mm512_mask_broadcast_i32x4(all, 0xf000, next(12))
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl Lanes for __m512i {
    const COUNT: usize = LANES;

    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        unsafe { _mm512_loadu_si512(words.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, line: &mut Line, first: usize) {
        unsafe { _mm512_store_si512(line.0[first..][..LANES].as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { _mm512_or_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shl(self, bits: u32) -> Self {
        unsafe { _mm512_sll_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn shr(self, bits: u32) -> Self {
        unsafe { _mm512_srl_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, self)
        }
    }

    #[inline(always)]
    unsafe fn widen_half(self) -> Self {
        unsafe { _mm512_castps_si512(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(self))) }
    }

    #[inline(always)]
    unsafe fn words_4(rows: &Pointers, at: usize) -> [Self; 4] {
        unsafe {
            let (a, b) = (quarter(rows, 0, at), quarter(rows, 1, at));
            let (c, d) = (quarter(rows, 2, at), quarter(rows, 3, at));
            let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (low_2, high_2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(low, low_2),
                _mm512_unpackhi_epi64(low, low_2),
                _mm512_unpacklo_epi64(high, high_2),
                _mm512_unpackhi_epi64(high, high_2),
            ]
        }
    }
}
