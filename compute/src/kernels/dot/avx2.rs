//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! Four sums run side by side to hide the latency of the multiply-add. One row is read at a time
//! and nothing is asked for ahead: in AVX-512 on one Zen 4 machine (f16, rows of 5 KB) software
//! prefetch cost a third of the bandwidth, and two to eight rows at once cost up to half of it.

use std::arch::x86_64::*;

use super::{Q4K_BLOCK, Variant, q4_k_scales, scalar};
use crate::cpu::Isa;
use crate::kernels::load::avx2::{load_bf16, load_f16, load_f32};

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx2).then_some(Variant {
        // SAFETY: the closures leave this function only when the features were found.
        f32: |row, x| unsafe { dot_f32(row, x) },
        // SAFETY: as above.
        f16: |row, x| unsafe { dot_f16(row, x) },
        // SAFETY: as above.
        bf16: |row, x| unsafe { dot_bf16(row, x) },
        // SAFETY: as above.
        q4_k: |row, x| unsafe { dot_q4_k(row, x) },
    })
}

/// Two functions a dtype: the product of a row, and the same from sums on that earlier elements
/// have left; `$bytes` bytes an element, `$load` for 8 of them as floats.
macro_rules! dot {
    ($name:ident, $resume:ident, $bytes:literal, $load:ident) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name(row: &[u8], x: &[f32]) -> f32 {
            $resume([_mm256_setzero_ps(); 4], row, x)
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline]
        fn $resume(mut sums: [__m256; 4], row: &[u8], x: &[f32]) -> f32 {
            let (rows, row_rest) = row.as_chunks::<{ 4 * 8 * $bytes }>();
            let (xs, x_rest) = x.as_chunks::<{ 4 * 8 }>();
            for (row, x) in rows.iter().zip(xs) {
                for lane in 0..4 {
                    // SAFETY: quarter `lane` of both chunks: 8 elements, at any alignment.
                    let (a, b) = unsafe {
                        let a = $load(row.as_ptr().add(lane * 8 * $bytes));
                        (a, _mm256_loadu_ps(x.as_ptr().add(lane * 8)))
                    };
                    sums[lane] = _mm256_fmadd_ps(a, b, sums[lane]);
                }
            }
            let (rows, row_rest) = row_rest.as_chunks::<{ 8 * $bytes }>();
            let (xs, x_rest) = x_rest.as_chunks::<8>();
            for (row, x) in rows.iter().zip(xs) {
                // SAFETY: 8 elements of each, at any alignment.
                let (a, b) = unsafe { ($load(row.as_ptr()), _mm256_loadu_ps(x.as_ptr())) };
                sums[0] = _mm256_fmadd_ps(a, b, sums[0]);
            }
            let sum =
                _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
            // SAFETY: both types are 8 floats.
            let lanes: [f32; 8] = unsafe { std::mem::transmute(sum) };
            lanes.iter().sum::<f32>() + scalar::$name(row_rest, x_rest)
        }
    };
}

dot!(dot_f32, resume_f32, 4, load_f32);
dot!(dot_f16, resume_f16, 2, load_f16);
dot!(dot_bf16, resume_bf16, 2, load_bf16);

/// A row of `Q4_K` blocks, with the numbers and the order of sums of its dequantised row.
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_q4_k(row: &[u8], x: &[f32]) -> f32 {
    let (blocks, (x, x_rest)) = (row.as_chunks::<Q4K_BLOCK>().0, x.as_chunks::<256>());
    let mut sums = [_mm256_setzero_ps(); 4];
    for (block, x) in blocks.iter().zip(x) {
        let (scales, mins) = scales_and_mins(block);
        for (index, x) in x.as_chunks::<32>().0.iter().enumerate() {
            let (scale, min) = (_mm256_set1_ps(scales[index]), _mm256_set1_ps(mins[index]));
            let shift = _mm_cvtsi32_si128((index % 2 * 4) as i32);
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 8 of the 32 bytes of codes from `16 + 32 (index / 2)` on, and 8 floats.
                let (codes, x) = unsafe {
                    let codes = block.as_ptr().add(16 + index / 2 * 32 + 8 * lane);
                    (_mm_loadl_epi64(codes.cast()), _mm256_loadu_ps(x.as_ptr().add(8 * lane)))
                };
                let codes = _mm256_srl_epi32(_mm256_cvtepu8_epi32(codes), shift);
                let codes = _mm256_and_si256(codes, _mm256_set1_epi32(15));
                let products = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(codes));
                *sum = _mm256_fmadd_ps(_mm256_sub_ps(products, min), x, *sum);
            }
        }
    }
    let mut rest = [0.0; 256];
    let rest = &mut rest[..x_rest.len()];
    scalar::decode_q4_k(blocks.get(x.len()), rest);
    resume_f32(sums, bytemuck::cast_slice(rest), x_rest)
}

/// The scales and minima of the sub-blocks, each times its block's factor.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales_and_mins(block: &[u8; Q4K_BLOCK]) -> ([f32; 8], [f32; 8]) {
    let (scales, mins) = q4_k_scales(block);
    // SAFETY: the first four bytes.
    let factors = unsafe { block.as_ptr().cast::<i32>().read_unaligned() };
    let factors = _mm_cvtph_ps(_mm_cvtsi32_si128(factors));
    let times = |factor: __m128, bytes: u64| {
        let bytes = _mm_cvtsi64_si128(bytes.cast_signed());
        let numbers = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        // SAFETY: both types are eight floats.
        unsafe {
            std::mem::transmute::<__m256, [f32; 8]>(_mm256_mul_ps(
                _mm256_broadcastss_ps(factor),
                numbers,
            ))
        }
    };
    (times(factors, scales), times(_mm_movehdup_ps(factors), mins))
}
