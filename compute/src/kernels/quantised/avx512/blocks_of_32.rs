//! Formats of 32-blocks, eight blocks of a row at a time: one for each chain.
//!
//! Block `b` shares a register with block `b + 4`, so that the tree of transpositions leaves the
//! eight sums in order. Weights are unpacked once for up to four rows of activations.

use std::arch::x86_64::*;

use super::transpose_sum;
use crate::kernels::quantised::blocks::{
    E2M1, E2M1_DOUBLED, Format32, IQ4_LEVELS, Iq4Nl, MxFp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0,
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
    const OFFSET: i32;

    /// The codes of two blocks in order, none negative.
    ///
    /// # Safety
    /// Each pointer is good for `BYTES` bytes, and the processor has the features of this file.
    unsafe fn codes(a: *const u8, b: *const u8) -> __m512i;

    /// `d` of eight blocks.
    ///
    /// # Safety
    /// The pointers are good for eight blocks and, where exponents lie elsewhere, for eight of
    /// them; the processor has the features of this file.
    unsafe fn scales(start: *const u8, exponents: *const u8) -> __m256;

    /// `m` of eight blocks; called only where there are minima.
    ///
    /// # Safety
    /// As for [`Registers::scales`].
    unsafe fn minima(start: *const u8) -> __m256;
}

define_product!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
    BlockSize::K32, exponents: F::EXPONENTS, F: Registers
);

/// One row of weights times rows of activations.
///
/// # Safety
/// The processor must have the features; every `x` has at least as many blocks as `row`, rounded
/// up to whole groups, and so has `row` exponents where the format needs them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
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
        let mut products = [[_mm512_setzero_si512(); 4]; N];
        for index in 0..4 {
            let codes = F::codes(start.add(index * F::BYTES), start.add((index + 4) * F::BYTES));
            for (x, products) in x.iter().zip(&mut products) {
                let x = x.codes.as_ptr().add((first + index) * 32);
                let low = _mm512_castsi256_si512(_mm256_load_si256(x.cast()));
                let x = _mm512_inserti64x4::<1>(low, _mm256_load_si256(x.add(4 * 32).cast()));
                products[index] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, x);
            }
        }
        let scales = F::scales(start, exponents);
        for ((x, products), chains) in x.iter().zip(products).zip(chains) {
            let sums = _mm_loadu_si128(x.sums.as_ptr().add(first).cast());
            let sums = _mm256_cvtepi16_epi32(sums);
            let above = _mm256_mullo_epi32(sums, _mm256_set1_epi32(F::OFFSET));
            let s = _mm256_sub_epi32(add_lanes(transpose_sum(products)), above);
            let d = _mm256_loadu_ps(x.scales.as_ptr().add(first));
            *chains = _mm256_fmadd_ps(_mm256_mul_ps(scales, d), _mm256_cvtepi32_ps(s), *chains);
            if F::MINS {
                let factors = _mm256_mul_ps(F::minima(start), d);
                *chains = _mm256_fmadd_ps(factors, _mm256_cvtepi32_ps(sums), *chains);
            }
        }
    }
}

/// Adds lanes 0 and 1 and lanes 2 and 3 of 128 bits.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn add_lanes(sums: __m512i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let sums = _mm512_add_epi32(sums, _mm512_shuffle_i32x4::<0b10_11_00_01>(sums, sums));
        _mm512_castsi512_si256(_mm512_shuffle_i32x4::<0b00_00_10_00>(sums, sums))
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
        let read = |block: usize| start.add(block * F::BYTES + at).cast::<i16>().read_unaligned();
        let halves =
            _mm_setr_epi16(read(0), read(1), read(2), read(3), read(4), read(5), read(6), read(7));
        _mm256_cvtph_ps(halves)
    }
}

/// The nibbles of two times 16 bytes, each time the low ones first.
///
/// # Safety
/// The pointers must be good for 16 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn nibbles(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
        let (a, b) = (_mm256_broadcastsi128_si256(a), _mm256_broadcastsi128_si256(b));
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
        let both = _mm512_mask_srli_epi16::<4>(both, 0xff00_ff00, both);
        _mm512_and_si512(both, _mm512_set1_epi8(15))
    }
}

/// Adds the fifth bits of two times four bytes to codes of two blocks.
///
/// # Safety
/// The pointers must be good for four bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn with_fifths(codes: __m512i, a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (a.cast::<u32>().read_unaligned(), b.cast::<u32>().read_unaligned());
        let fifths = u64::from(a) | u64::from(b) << 32;
        _mm512_mask_add_epi8(codes, fifths, codes, _mm512_set1_epi8(16))
    }
}

/// Levels above the least of them, by the nibbles that name them.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn look_up(levels: &[i8; 16], offset: i32, nibbles: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let levels = _mm_loadu_si128(levels.as_ptr().cast());
        let levels = _mm_add_epi8(levels, _mm_set1_epi8(offset as i8));
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), nibbles)
    }
}

/// Half of `2^(exponent - 127)` for eight exponents, NaN for 255.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn halves_of_exponents(exponents: [u8; 8]) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let exponents = _mm_cvtsi64_si128(i64::from_le_bytes(exponents));
        let exponents = _mm256_cvtepu8_epi32(exponents);
        let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)));
        let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(1 << 21), exponents);
        let small = _mm256_cmplt_epi32_mask(exponents, _mm256_set1_epi32(2));
        let scales = _mm256_mask_mov_epi32(normal, small, subnormal);
        let none = _mm256_cmpeq_epi32_mask(exponents, _mm256_set1_epi32(255));
        let nan = _mm256_set1_epi32(f32::NAN.to_bits().cast_signed());
        _mm256_castsi256_ps(_mm256_mask_mov_epi32(scales, none, nan))
    }
}

/// A format whose `d` is a binary16 in front, whose `m` perhaps follows, and whose codes of two
/// blocks are an expression.
macro_rules! registers {
    ($format:ident, offset $offset:literal, |$a:ident, $b:ident| $codes:expr) => {
        impl Registers for $format {
            const OFFSET: i32 = $offset;

            /// # Safety
            /// The processor must have this variant's instructions; pointers, what is read through them.
            #[inline(always)]
            unsafe fn codes($a: *const u8, $b: *const u8) -> __m512i {
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

            /// # Safety
            /// The processor must have this variant's instructions; pointers, what is read through them.
            #[inline(always)]
            unsafe fn minima(start: *const u8) -> __m256 {
                // SAFETY: the caller's promise.
                unsafe { halves::<$format>(start, 2) }
            }
        }
    };
}

registers!(Q4_0, offset 8, |a, b| nibbles(a.add(2), b.add(2)));
registers!(Q4_1, offset 0, |a, b| nibbles(a.add(4), b.add(4)));
registers!(Q5_0, offset 16, |a, b| {
    with_fifths(nibbles(a.add(6), b.add(6)), a.add(2), b.add(2))
});
registers!(Q5_1, offset 0, |a, b| {
    with_fifths(nibbles(a.add(8), b.add(8)), a.add(4), b.add(4))
});
registers!(Iq4Nl, offset 127, |a, b| look_up(&IQ4_LEVELS, 127, nibbles(a.add(2), b.add(2))));
registers!(Q8_0, offset 128, |a, b| {
    let low = _mm512_castsi256_si512(_mm256_loadu_si256(a.add(2).cast()));
    let both = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(b.add(2).cast()));
    // Adding 128 to a byte turns its highest bit.
    _mm512_xor_si512(both, _mm512_set1_epi8(-128))
});

impl Registers for MxFp4 {
    const OFFSET: i32 = 12;

    #[inline(always)]
    unsafe fn codes(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { look_up(&E2M1_DOUBLED, Self::OFFSET, nibbles(a.add(1), b.add(1))) }
    }

    #[inline(always)]
    unsafe fn scales(start: *const u8, _exponents: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let read = |block: usize| start.add(block * Self::BYTES).read();
            halves_of_exponents(std::array::from_fn(read))
        }
    }

    #[inline(always)]
    unsafe fn minima(_start: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_setzero_ps() }
    }
}

impl Registers for E2M1 {
    const OFFSET: i32 = 12;

    #[inline(always)]
    unsafe fn codes(a: *const u8, b: *const u8) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
            // Byte `j` holds elements `2 j` and `2 j + 1`: a byte becomes the low byte of 16 bits, and
            // its upper nibble moves to the high one.
            let both =
                _mm512_cvtepu8_epi16(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b));
            let both = _mm512_or_si512(both, _mm512_slli_epi16::<4>(both));
            let nibbles = _mm512_and_si512(both, _mm512_set1_epi8(15));
            look_up(&E2M1_DOUBLED, Self::OFFSET, nibbles)
        }
    }

    #[inline(always)]
    unsafe fn scales(_start: *const u8, exponents: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { halves_of_exponents(exponents.cast::<[u8; 8]>().read()) }
    }

    #[inline(always)]
    unsafe fn minima(_start: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_setzero_ps() }
    }
}
