//! Reachable only through `detect`, so holding the function is the proof that it may run.

use std::arch::x86_64::*;

use super::{Quantise, ROUND, for_blocks, inverse_of};
use crate::cpu::Isa;

pub(super) fn detect<const ELEMENTS: usize>() -> Option<Quantise> {
    (Isa::best() >= Isa::Avx2).then_some(|x, codes, scales| {
        // SAFETY: the closure leaves this function only when the features were found.
        unsafe { quantise::<ELEMENTS>(x, codes, scales) }
    })
}

#[target_feature(enable = "avx2")]
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
#[target_feature(enable = "avx2")]
fn block<const ELEMENTS: usize>(x: &[f32; ELEMENTS], codes: &mut [i8; ELEMENTS]) -> f32 {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    // SAFETY: eight floats, at any alignment.
    let load = |x: &[f32]| unsafe { _mm256_loadu_ps(x[..8].as_ptr()) };
    let mut sizes = [_mm256_setzero_si256(); 4];
    for x in x.as_chunks::<32>().0 {
        for (part, sizes) in sizes.iter_mut().enumerate() {
            let size = _mm256_and_si256(_mm256_castps_si256(load(&x[8 * part..])), magnitude);
            *sizes = _mm256_max_epi32(*sizes, size);
        }
    }
    let [a, b, c, d] = sizes;
    let sizes = _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d));
    // SAFETY: both types are eight integers.
    let lanes: [i32; 8] = unsafe { std::mem::transmute(sizes) };
    let (inverse, d) = match inverse_of(lanes.into_iter().fold(0, i32::max)) {
        Ok(found) => found,
        Err(d) => {
            *codes = [0; ELEMENTS];
            return d;
        }
    };
    let (inverse, round) = (_mm256_set1_ps(inverse), _mm256_set1_ps(ROUND));
    // A code is the low byte of each word. Packing works on halves of a register, so that the four
    // registers' words end up in turns, which `order` undoes.
    let low = _mm256_set1_epi32(0xff);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (x, codes) in x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0) {
        let part = |part: usize| {
            let whole = _mm256_add_ps(_mm256_mul_ps(load(&x[8 * part..]), inverse), round);
            _mm256_and_si256(_mm256_castps_si256(whole), low)
        };
        let (first, second) =
            (_mm256_packus_epi32(part(0), part(1)), _mm256_packus_epi32(part(2), part(3)));
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order);
        // SAFETY: thirty-two codes, at any alignment.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    }
    d
}
