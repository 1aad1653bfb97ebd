//! Stored numbers to lanes of floats, for the kernels of this instruction set.

use std::arch::x86_64::*;

/// Loads sixteen floats.
///
/// # Safety
/// The pointer must be good for 64 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(in crate::kernels) unsafe fn load_f32(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_ps(from.cast()) }
}

/// Loads sixteen halves.
///
/// # Safety
/// The pointer must be good for 32 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(in crate::kernels) unsafe fn load_f16(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// Loads sixteen bfloats.
///
/// # Safety
/// The pointer must be good for 32 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(in crate::kernels) unsafe fn load_bf16(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    let halves = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(from.cast()) });
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
}
