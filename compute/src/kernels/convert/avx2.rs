//! Reachable only through `detect`, so holding the function is the proof that it may run.

use std::arch::x86_64::*;

use super::{Variant, scalar};
use crate::cpu::Isa;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx2).then_some(Variant {
        // SAFETY: the closures leave this function only when the features were found.
        f16: |bytes, out| unsafe { convert_f16(bytes, out) },
        // SAFETY: as above.
        bf16: |bytes, out| unsafe { convert_bf16(bytes, out) },
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn convert_f16(bytes: &[u8], out: &mut [f32]) {
    let (packed, packed_rest) = bytes.as_chunks::<16>();
    let (numbers, numbers_rest) = out.as_chunks_mut::<8>();
    for (packed, numbers) in packed.iter().zip(numbers) {
        // SAFETY: sixteen bytes are read and eight floats written, with no alignment asked for.
        unsafe {
            let halves = _mm_loadu_si128(packed.as_ptr().cast());
            _mm256_storeu_ps(numbers.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
    scalar::convert_f16(packed_rest, numbers_rest);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn convert_bf16(bytes: &[u8], out: &mut [f32]) {
    let (packed, packed_rest) = bytes.as_chunks::<16>();
    let (numbers, numbers_rest) = out.as_chunks_mut::<8>();
    for (packed, numbers) in packed.iter().zip(numbers) {
        // SAFETY: sixteen bytes are read and eight floats written, with no alignment asked for.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(packed.as_ptr().cast()));
            let floats = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves));
            _mm256_storeu_ps(numbers.as_mut_ptr(), floats);
        }
    }
    scalar::convert_bf16(packed_rest, numbers_rest);
}
