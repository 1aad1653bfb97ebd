//! Reachable only through `detect`, so holding the function is the proof that it may run.

use std::arch::x86_64::*;

use super::{Quantise, ROUND, for_blocks, inverse_of};
use crate::cpu::Isa;

pub(super) fn detect<const ELEMENTS: usize>() -> Option<Quantise> {
    (Isa::best() >= Isa::Avx512).then_some(|x, codes, scales| {
        // SAFETY: the closure leaves this function only when the features were found.
        unsafe { quantise::<ELEMENTS>(x, codes, scales) }
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantise<const ELEMENTS: usize>(x: &[f32], codes: &mut [i8], scales: &mut [f32]) {
    for_blocks::<ELEMENTS>(
        x,
        codes,
        scales,
        #[inline]
        |x, codes| block(x, codes),
    );
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn block<const ELEMENTS: usize>(x: &[f32; ELEMENTS], codes: &mut [i8; ELEMENTS]) -> f32 {
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    // SAFETY: sixteen floats, at any alignment.
    let load = |x: &[f32; 16]| unsafe { _mm512_loadu_ps(x.as_ptr()) };
    let parts = x.as_chunks::<16>().0;
    let mut sizes = [_mm512_setzero_si512(); 2];
    for (index, x) in parts.iter().enumerate() {
        let size = _mm512_and_si512(_mm512_castps_si512(load(x)), magnitude);
        sizes[index % 2] = _mm512_max_epi32(sizes[index % 2], size);
    }
    let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(sizes[0], sizes[1]));
    let (inverse, d) = match inverse_of(largest) {
        Ok(found) => found,
        Err(d) => {
            *codes = [0; ELEMENTS];
            return d;
        }
    };
    let (inverse, round) = (_mm512_set1_ps(inverse), _mm512_set1_ps(ROUND));
    for (x, codes) in parts.iter().zip(codes.as_chunks_mut::<16>().0) {
        let whole = _mm512_add_ps(_mm512_mul_ps(load(x), inverse), round);
        // SAFETY: sixteen codes, at any alignment.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(whole));
            _mm_storeu_si128(codes.as_mut_ptr().cast(), bytes);
        }
    }
    d
}
