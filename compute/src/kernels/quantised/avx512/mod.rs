//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! VNNI multiplies unsigned by signed bytes and adds four products to 32 bits: weights are the
//! unsigned side, an offset above their value where they have signs, and the stored sums of the
//! activations' codes take the offset away again. A group of blocks is summed across lanes at
//! once, by a tree of transpositions. Formats that few models use run as AVX2.
//!
//! The functions that unpack and add up are generic over the format and carry no features of their
//! own: they are always inlined into `rows`, which has them.

mod blocks_of_256;
mod blocks_of_32;

use std::arch::x86_64::*;

use super::blocks::{E2M1, Iq4Nl, MxFp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use super::{Variant, avx2};
use crate::cpu::Isa;

pub(super) fn detect() -> Option<Variant> {
    let supported = Isa::best() >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
    let avx2 = supported.then(avx2::detect).flatten()?;
    Some(Variant {
        q2_k: blocks_of_256::product::<Q2K>,
        q3_k: blocks_of_256::product::<Q3K>,
        q4_k: blocks_of_256::product::<Q4K>,
        q5_k: blocks_of_256::product::<Q5K>,
        q6_k: blocks_of_256::product::<Q6K>,
        q4_0: blocks_of_32::product::<Q4_0>,
        q4_1: blocks_of_32::product::<Q4_1>,
        q5_0: blocks_of_32::product::<Q5_0>,
        q5_1: blocks_of_32::product::<Q5_1>,
        q8_0: blocks_of_32::product::<Q8_0>,
        iq4_nl: blocks_of_32::product::<Iq4Nl>,
        mxfp4: blocks_of_32::product::<MxFp4>,
        e2m1: blocks_of_32::product::<E2M1>,
        ..avx2
    })
}

/// Adds across: dword `i` of each 128 bits of the result is the sum of the same 128 bits of
/// `sums[i]`.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn transpose_sum(sums: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = sums;
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    }
}
