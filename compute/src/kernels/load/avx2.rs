//! Stored numbers to lanes of floats, for the kernels of this instruction set.

use std::arch::x86_64::*;

/// Loads eight floats.
///
/// # Safety
/// The pointer must be good for 32 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(in crate::kernels) unsafe fn load_f32(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_ps(from.cast()) }
}

/// Loads eight halves.
///
/// # Safety
/// The pointer must be good for 16 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(in crate::kernels) unsafe fn load_f16(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
}

/// Loads eight bfloats.
///
/// # Safety
/// The pointer must be good for 16 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(in crate::kernels) unsafe fn load_bf16(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise; `loadu` asks for no alignment.
    let halves = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(from.cast()) });
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
}
