//! Formats of 256-blocks, four blocks of a row at a time, and within a block 32 codes at a time.
//!
//! Weights are unpacked once for up to four rows of activations.

use std::arch::x86_64::*;

use super::{nibbles, pairs_of_products, sums_across, table};
use crate::kernels::quantised::blocks::{Format256, IQ4_LEVELS, Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::kernels::quantised::scalar::join_4;
use crate::kernels::quantised::{ActivationRow, Row, ask_ahead, define_product};

/// Blocks whose sums are joined.
const GROUP: usize = 4;

/// A format as registers.
pub(super) trait Registers: Format256 {
    /// By how much codes are above their value, as a power of two, if they are.
    const OFFSET_BITS: Option<i32> = None;
    /// Whether codes may be negative.
    const SIGNED: bool = false;
    /// Where `d` is; `dmin` follows it.
    const D: usize;

    /// Sixteen scales and, where there are any, sixteen minima, a byte each.
    ///
    /// # Safety
    /// The pointer is good for `BYTES` bytes, and the processor has the features of this file.
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i);

    /// Codes `32 part` to `32 part + 31`.
    ///
    /// # Safety
    /// As for [`Registers::scales`]; `part` is below 8.
    unsafe fn codes(block: *const u8, part: usize) -> __m256i;
}

define_product!(
    #[target_feature(enable = "avx2,fma,f16c")]
    BlockSize::K256, exponents: false, F: Registers
);

/// One row of weights times rows of activations.
///
/// # Safety
/// The processor must have the features; every `x` has at least as many blocks as `row`, rounded
/// up to whole groups.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn row_product<F: Registers, const N: usize>(row: Row, x: &[ActivationRow; N]) -> [f32; N] {
    let row = row.bytes;
    let blocks = row.len() / F::BYTES;
    let mut chains = [_mm_setzero_ps(); N];
    for first in (0..blocks).step_by(GROUP) {
        let count = GROUP.min(blocks - first);
        // SAFETY: `count` blocks of the row are left.
        unsafe { group::<F, N>(row.as_ptr().add(first * F::BYTES), x, first, count, &mut chains) };
    }
    chains.map(|chains| {
        // SAFETY: a register of four floats is four floats.
        join_4(unsafe { std::mem::transmute::<__m128, [f32; 4]>(chains) })
    })
}

/// Adds the products of `count` blocks, from block `first` on, to the four chains.
///
/// # Safety
/// As for [`row_product`]; `start` is good for `count` blocks.
#[inline(always)]
unsafe fn group<F: Registers, const N: usize>(
    start: *const u8,
    x: &[ActivationRow; N],
    first: usize,
    count: usize,
    chains: &mut [__m128; N],
) {
    ask_ahead(start, count * F::BYTES);
    // SAFETY: the caller's promise.
    unsafe {
        let mut products = [[_mm256_setzero_si256(); GROUP]; N];
        let mut minima = [[_mm256_setzero_si256(); GROUP]; N];
        // `d` of each block, then `dmin`; of blocks that are not there they are zero.
        let mut factors = [[0_i16; GROUP]; 2];
        for index in 0..count {
            {
                let block = start.add(index * F::BYTES);
                factors[0][index] = block.add(F::D).cast::<i16>().read_unaligned();
                if F::MINS {
                    factors[1][index] = block.add(F::D + 2).cast::<i16>().read_unaligned();
                }
                let (scales, mins) = F::scales(block);
                let block_sums = block_products::<F, N>(block, scales, x, first + index);
                let (scales, mins) = (_mm256_cvtepi8_epi16(scales), _mm256_cvtepu8_epi16(mins));
                for p in 0..N {
                    products[p][index] = block_sums[p];
                    let sums = x[p].sums.as_ptr().add((first + index) * 16);
                    let sums = _mm256_loadu_si256(sums.cast());
                    if let Some(bits) = F::OFFSET_BITS {
                        let above = _mm256_sll_epi32(
                            _mm256_madd_epi16(scales, sums),
                            _mm_cvtsi32_si128(bits),
                        );
                        products[p][index] = _mm256_sub_epi32(products[p][index], above);
                    }
                    if F::MINS {
                        minima[p][index] = _mm256_madd_epi16(mins, sums);
                    }
                }
            }
        }
        let factors = _mm256_cvtph_ps(_mm_loadu_si128(factors.as_ptr().cast()));
        let (d, dmin) = (_mm256_castps256_ps128(factors), _mm256_extractf128_ps::<1>(factors));
        for (p, chains) in chains.iter_mut().enumerate() {
            let d_x = _mm_loadu_ps(x[p].scales.as_ptr().add(first));
            let s = _mm_cvtepi32_ps(sums_across(products[p]));
            *chains = _mm_fmadd_ps(_mm_mul_ps(d, d_x), s, *chains);
            if F::MINS {
                let m = _mm_cvtepi32_ps(sums_across(minima[p]));
                *chains = _mm_fnmadd_ps(_mm_mul_ps(dmin, d_x), m, *chains);
            }
        }
    }
}

/// For every row of activations eight numbers whose sum is `S` of a block, offset included.
///
/// # Safety
/// As for [`row_product`]; every `x` has the block `index`.
#[inline(always)]
unsafe fn block_products<F: Registers, const N: usize>(
    block: *const u8,
    scales: __m128i,
    x: &[ActivationRow; N],
    index: usize,
) -> [__m256i; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = _mm256_broadcastsi128_si256(scales);
        let mut sums = [_mm256_setzero_si256(); N];
        for (part, spread) in SPREAD.iter().enumerate() {
            {
                let codes = F::codes(block, part);
                let spread = _mm256_loadu_si256(spread.as_ptr().cast());
                let scale = _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(scales, spread));
                for (x, sum) in x.iter().zip(&mut sums) {
                    let x = x.codes.as_ptr().add(index * 256 + part * 32);
                    let x = _mm256_load_si256(x.cast());
                    let pairs = pairs_of_products(codes, F::SIGNED, x);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, scale));
                }
            }
        }
        sums
    }
}

/// For each 32 elements, where their two scales go: to the upper bytes of 16 bits each.
static SPREAD: [[u8; 32]; 8] = {
    let mut spread = [[0x80; 32]; 8];
    let mut place = 0;
    while place < 8 * 16 {
        let (part, word) = (place / 16, place % 16);
        spread[part][2 * word + 1] = (2 * part + word / 8) as u8;
        place += 1;
    }
    spread
};

/// Scales and minima of `Q4_K` and `Q5_K`, each twice.
///
/// # Safety
/// The pointer is good for 16 bytes.
#[inline(always)]
unsafe fn scales_and_mins(block: *const u8) -> (__m128i, __m128i) {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c] = [4, 8, 12].map(|at| block.add(at).cast::<u32>().read_unaligned());
        let join = |low: u32, high: u32| {
            i64::from_le_bytes((u64::from(low) | u64::from(high) << 32).to_le_bytes())
        };
        let scales = join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030);
        let mins = join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030);
        let twice = |bytes: i64| {
            let bytes = _mm_cvtsi64_si128(bytes);
            _mm_unpacklo_epi8(bytes, bytes)
        };
        (twice(scales), twice(mins))
    }
}

/// Some bits of 32 bytes, `shift` of them lower.
///
/// # Safety
/// The pointer is good for 32 bytes.
#[inline(always)]
unsafe fn bits(from: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm256_loadu_si256(from.cast());
        let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
    }
}

impl Registers for Q4K {
    const D: usize = 0;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe { scales_and_mins(block) }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bits(block.add(16 + part / 2 * 32), part % 2 * 4, 15) }
    }
}

impl Registers for Q5K {
    const D: usize = 0;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe { scales_and_mins(block) }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, fifth) = (
                bits(block.add(48 + part / 2 * 32), part % 2 * 4, 15),
                bits(block.add(16), part, 1),
            );
            _mm256_or_si256(low, _mm256_slli_epi16::<4>(fifth))
        }
    }
}

impl Registers for Q6K {
    const D: usize = 208;
    const OFFSET_BITS: Option<i32> = Some(5);

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe { (_mm_loadu_si128(block.add(192).cast()), _mm_setzero_si128()) }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let (half, k) = (part / 4, part % 4);
            let (low, upper) = (
                bits(block.add(64 * half + 32 * (k % 2)), k / 2 * 4, 15),
                bits(block.add(128 + 32 * half), 2 * k, 3),
            );
            _mm256_or_si256(low, _mm256_slli_epi16::<4>(upper))
        }
    }
}

impl Registers for Q3K {
    const D: usize = 108;
    const OFFSET_BITS: Option<i32> = Some(2);

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = (
                block.add(96).cast::<u64>().read_unaligned(),
                block.add(104).cast::<u32>().read_unaligned(),
            );
            let nibbles = _mm_set_epi64x(
                (low >> 4 & 0x0f0f_0f0f_0f0f_0f0f).cast_signed(),
                (low & 0x0f0f_0f0f_0f0f_0f0f).cast_signed(),
            );
            let pairs =
                _mm_srlv_epi32(_mm_set1_epi32(high.cast_signed()), _mm_setr_epi32(0, 2, 4, 6));
            let pairs = _mm_slli_epi32::<4>(_mm_and_si128(pairs, _mm_set1_epi8(3)));
            let scales = _mm_sub_epi8(_mm_or_si128(nibbles, pairs), _mm_set1_epi8(32));
            (scales, _mm_setzero_si128())
        }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, third) =
                (bits(block.add(32 + part / 4 * 32), part % 4 * 2, 3), bits(block, part, 1));
            _mm256_or_si256(low, _mm256_slli_epi16::<2>(third))
        }
    }
}

impl Registers for Q2K {
    const D: usize = 80;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm_loadu_si128(block.cast());
            let low = _mm_set1_epi8(15);
            (_mm_and_si128(packed, low), _mm_and_si128(_mm_srli_epi16::<4>(packed), low))
        }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { bits(block.add(16 + part / 4 * 32), part % 4 * 2, 3) }
    }
}

impl Registers for Iq4Xs {
    const D: usize = 0;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (__m128i, __m128i) {
        // SAFETY: the caller's promise.
        unsafe {
            let (high, low) = (
                block.add(2).cast::<u16>().read_unaligned(),
                block.add(4).cast::<i32>().read_unaligned(),
            );
            let scales: [u8; 8] = std::array::from_fn(|j| {
                (low >> (4 * j) & 15) as u8 | ((high >> (2 * j) & 3) << 4) as u8
            });
            let scales = _mm_cvtsi64_si128(i64::from_le_bytes(scales));
            let scales = _mm_sub_epi8(_mm_unpacklo_epi8(scales, scales), _mm_set1_epi8(32));
            (scales, _mm_setzero_si128())
        }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_shuffle_epi8(table(&IQ4_LEVELS), nibbles(block.add(8 + 16 * part))) }
    }
}
