//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! AVX2 multiplies unsigned by signed bytes and adds two products in 16 bits, which hold them:
//! weights are the unsigned side, above their value or as magnitudes, with their signs given to
//! the activations.
//!
//! The functions that unpack and add up are generic over the format and carry no features of their
//! own: they are always inlined into `rows`, which has them.

mod blocks_of_256;
mod blocks_of_32;

use std::arch::x86_64::*;

use super::Variant;
use super::blocks::*;
use crate::cpu::Isa;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx2).then_some(Variant {
        q2_k: blocks_of_256::product::<Q2K>,
        q3_k: blocks_of_256::product::<Q3K>,
        q4_k: blocks_of_256::product::<Q4K>,
        q5_k: blocks_of_256::product::<Q5K>,
        q6_k: blocks_of_256::product::<Q6K>,
        iq4_xs: blocks_of_256::product::<Iq4Xs>,
        q4_0: blocks_of_32::product::<Q4_0>,
        q4_1: blocks_of_32::product::<Q4_1>,
        q5_0: blocks_of_32::product::<Q5_0>,
        q5_1: blocks_of_32::product::<Q5_1>,
        q8_0: blocks_of_32::product::<Q8_0>,
        iq4_nl: blocks_of_32::product::<Iq4Nl>,
        mxfp4: blocks_of_32::product::<MxFp4>,
        e2m1: blocks_of_32::product::<E2M1>,
    })
}

/// Sums of pairs of products; `weights` are unsigned unless `signed`.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn pairs_of_products(weights: __m256i, signed: bool, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        if signed {
            _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
        } else {
            _mm256_maddubs_epi16(weights, x)
        }
    }
}

/// The four sums of all lanes.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn sums_across(sums: [__m256i; 4]) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = sums;
        let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums))
    }
}

/// Sixteen levels in both lanes of 128 bits, to be looked up by nibbles.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn table(levels: &[i8; 16]) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(levels.as_ptr().cast())) }
}

/// Sixteen bytes as their low nibbles, then their high ones.
///
/// # Safety
/// The pointer must be good for 16 bytes, and the processor have the features.
#[inline(always)]
unsafe fn nibbles(from: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm_loadu_si128(from.cast());
        let both =
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), _mm_srli_epi16::<4>(bytes));
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
}
