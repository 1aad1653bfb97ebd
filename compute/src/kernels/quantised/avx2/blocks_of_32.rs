//! Formats of 32-blocks, eight blocks of a row at a time: one for each chain.
//!
//! Weights are unpacked once for up to four rows of activations.

use std::arch::x86_64::*;

use super::{nibbles, pairs_of_products, sums_across, table};
use crate::kernels::quantised::blocks::{
    E2M1, E2M1_DOUBLED, Format32, IQ4_LEVELS, Iq4Nl, MxFp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0,
    half_of_exponent,
};
use crate::kernels::quantised::scalar::join_8;
use crate::kernels::quantised::{ActivationRow, Row, define_product};

/// Blocks whose sums are joined.
const GROUP: usize = 8;
/// The largest block.
const BYTES_MAX: usize = 34;

/// A format as registers.
pub(super) trait Registers: Format32 {
    /// By how much codes are above their value.
    const OFFSET: i32 = 0;
    /// Whether codes may be negative.
    const SIGNED: bool = false;

    /// The codes of a block in order.
    ///
    /// # Safety
    /// The pointer is good for `BYTES` bytes, and the processor has the features of this file.
    unsafe fn codes(block: *const u8) -> __m256i;

    /// `d` of eight blocks.
    ///
    /// # Safety
    /// The pointers are good for eight blocks and, where exponents lie elsewhere, for eight of
    /// them; the processor has the features of this file.
    unsafe fn scales(start: *const u8, exponents: *const u8) -> __m256;
}

define_product!(
    #[target_feature(enable = "avx2,fma,f16c")]
    BlockSize::K32, exponents: F::EXPONENTS, F: Registers
);

/// One row of weights times rows of activations.
///
/// # Safety
/// The processor must have the features; every `x` has at least as many blocks as `row`, rounded
/// up to whole groups, and so has `row` exponents where the format needs them.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn row_product<F: Registers, const N: usize>(row: Row, x: &[ActivationRow; N]) -> [f32; N] {
    let blocks = row.bytes.len() / F::BYTES;
    let mut chains = [_mm256_setzero_ps(); N];
    let mut first = 0;
    while first + GROUP <= blocks {
        // SAFETY: the group is within the row; no format but those with exponents reads them.
        unsafe {
            let start = row.bytes.as_ptr().add(first * F::BYTES);
            let exponents = row.exponents.as_ptr().wrapping_add(first);
            group::<F, N>(start, exponents, x, first, &mut chains);
        }
        first += GROUP;
    }
    if first < blocks {
        // Blocks of zeros add zeros, which change no chain.
        let (mut bytes, mut exponents) = ([0; GROUP * BYTES_MAX], [0; GROUP]);
        let rest = &row.bytes[first * F::BYTES..];
        bytes[..rest.len()].copy_from_slice(rest);
        if F::EXPONENTS {
            exponents[..blocks - first].copy_from_slice(&row.exponents[first..]);
        }
        // SAFETY: both arrays hold eight blocks.
        unsafe { group::<F, N>(bytes.as_ptr(), exponents.as_ptr(), x, first, &mut chains) };
    }
    chains.map(|chains| {
        // SAFETY: both types are eight floats.
        join_8(unsafe { std::mem::transmute::<__m256, [f32; 8]>(chains) })
    })
}

/// Adds the products of eight blocks, from block `first` on, to the eight chains.
///
/// # Safety
/// As for [`row_product`]; the pointers are good for eight blocks.
#[inline(always)]
unsafe fn group<F: Registers, const N: usize>(
    start: *const u8,
    exponents: *const u8,
    x: &[ActivationRow; N],
    first: usize,
    chains: &mut [__m256; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut products = [[_mm256_setzero_si256(); GROUP]; N];
        for index in 0..GROUP {
            let codes = F::codes(start.add(index * F::BYTES));
            for (x, products) in x.iter().zip(&mut products) {
                let x = x.codes.as_ptr().add((first + index) * 32);
                let pairs = pairs_of_products(codes, F::SIGNED, _mm256_load_si256(x.cast()));
                products[index] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            }
        }
        let scales = F::scales(start, exponents);
        for ((x, products), chains) in x.iter().zip(products).zip(chains) {
            let [a, b, c, d, e, f, g, h] = products;
            let low = _mm256_castsi128_si256(sums_across([a, b, c, d]));
            let s = _mm256_inserti128_si256::<1>(low, sums_across([e, f, g, h]));
            let sums = _mm_loadu_si128(x.sums.as_ptr().add(first).cast());
            let sums = _mm256_cvtepi16_epi32(sums);
            let above = _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::OFFSET));
            let s = _mm256_cvtepi32_ps(_mm256_sub_epi32(s, above));
            let d = _mm256_loadu_ps(x.scales.as_ptr().add(first));
            *chains = _mm256_fmadd_ps(_mm256_mul_ps(scales, d), s, *chains);
            if F::MINS {
                let factors = _mm256_mul_ps(halves::<F>(start, 2), d);
                *chains = _mm256_fmadd_ps(factors, _mm256_cvtepi32_ps(sums), *chains);
            }
        }
    }
}

/// The binary16 numbers at one place of each of eight blocks.
///
/// # Safety
/// The pointer must be good for eight blocks of `F`, and the processor have the features.
#[inline(always)]
unsafe fn halves<F: Format32>(start: *const u8, at: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let halves: [u16; GROUP] = std::array::from_fn(|block| {
            start.add(block * F::BYTES + at).cast::<u16>().read_unaligned()
        });
        _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()))
    }
}

/// Adds the fifth bits of four bytes to the codes of a block.
///
/// # Safety
/// The pointer must be good for four bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn with_fifths(codes: __m256i, fifths: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let fifths = _mm256_set1_epi32(fifths.cast::<i32>().read_unaligned());
        // Byte `j` takes the byte of the four that holds its bit, and asks for that bit.
        let bytes = _mm256_setr_epi64x(
            0,
            0x0101_0101_0101_0101,
            0x0202_0202_0202_0202,
            0x0303_0303_0303_0303,
        );
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        let found = _mm256_and_si256(_mm256_shuffle_epi8(fifths, bytes), bit);
        let sixteen = _mm256_and_si256(_mm256_cmpeq_epi8(found, bit), _mm256_set1_epi8(16));
        _mm256_or_si256(codes, sixteen)
    }
}

/// A format whose `d` is a binary16 in front, and whose codes are an expression.
macro_rules! registers {
    ($format:ident, offset $offset:literal, signed $signed:literal, |$block:ident| $codes:expr) => {
        impl Registers for $format {
            const OFFSET: i32 = $offset;
            const SIGNED: bool = $signed;

            /// # Safety
            /// The processor must have this variant's instructions; pointers, what is read through them.
            #[inline(always)]
            unsafe fn codes($block: *const u8) -> __m256i {
                // SAFETY: the caller's promise.
                unsafe { $codes }
            }

            /// # Safety
            /// The processor must have this variant's instructions; pointers, what is read through them.
            #[inline(always)]
            unsafe fn scales(start: *const u8, _exponents: *const u8) -> __m256 {
                // SAFETY: the caller's promise.
                unsafe { halves::<$format>(start, 0) }
            }
        }
    };
}

registers!(Q4_0, offset 8, signed false, |block| nibbles(block.add(2)));
registers!(Q4_1, offset 0, signed false, |block| nibbles(block.add(4)));
registers!(Q5_0, offset 16, signed false, |block| with_fifths(nibbles(block.add(6)), block.add(2)));
registers!(Q5_1, offset 0, signed false, |block| with_fifths(nibbles(block.add(8)), block.add(4)));
registers!(Q8_0, offset 0, signed true, |block| _mm256_loadu_si256(block.add(2).cast()));
registers!(Iq4Nl, offset 0, signed true, |block| {
    _mm256_shuffle_epi8(table(&IQ4_LEVELS), nibbles(block.add(2)))
});

impl Registers for MxFp4 {
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_shuffle_epi8(table(&E2M1_DOUBLED), nibbles(block.add(1))) }
    }

    #[inline(always)]
    unsafe fn scales(start: *const u8, _exponents: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let scales: [f32; GROUP] = std::array::from_fn(|block| {
                half_of_exponent(start.add(block * Self::BYTES).read())
            });
            _mm256_loadu_ps(scales.as_ptr())
        }
    }
}

impl Registers for E2M1 {
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(block.cast()));
            // Byte `j` holds elements `2 j` and `2 j + 1`: it is the low byte of 16 bits now, and its
            // upper nibble moves to the high one.
            let both = _mm256_or_si256(bytes, _mm256_slli_epi16::<4>(bytes));
            let nibbles = _mm256_and_si256(both, _mm256_set1_epi8(15));
            _mm256_shuffle_epi8(table(&E2M1_DOUBLED), nibbles)
        }
    }

    #[inline(always)]
    unsafe fn scales(_start: *const u8, exponents: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = exponents.cast::<[u8; GROUP]>().read().map(half_of_exponent);
            _mm256_loadu_ps(scales.as_ptr())
        }
    }
}
