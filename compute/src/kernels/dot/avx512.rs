//! Reachable only through `detect`, so holding the function is the proof that it may run.
//!
//! Four sums run side by side to hide the latency of the multiply-add. One row is read at a time
//! and nothing is asked for ahead: in AVX-512 on one Zen 4 machine (f16, rows of 5 KB) software
//! prefetch cost a third of the bandwidth, and two to eight rows at once cost up to half of it.

use std::arch::x86_64::*;

use super::{Variant, scalar};
use crate::cpu::Isa;
use crate::kernels::load::avx512::{load_bf16, load_f16, load_f32};

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx512).then_some(Variant {
        // SAFETY: the closures leave this function only when the features were found.
        f32: |row, x| unsafe { dot_f32(row, x) },
        // SAFETY: as above.
        f16: |row, x| unsafe { dot_f16(row, x) },
        // SAFETY: as above.
        bf16: |row, x| unsafe { dot_bf16(row, x) },
    })
}

/// One function a dtype: `$bytes` bytes an element, `$load` for 16 of them as floats.
macro_rules! dot {
    ($name:ident, $bytes:literal, $load:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn $name(row: &[u8], x: &[f32]) -> f32 {
            let (rows, row_rest) = row.as_chunks::<{ 4 * 16 * $bytes }>();
            let (xs, x_rest) = x.as_chunks::<{ 4 * 16 }>();
            let mut sums = [_mm512_setzero_ps(); 4];
            for (row, x) in rows.iter().zip(xs) {
                for lane in 0..4 {
                    // SAFETY: quarter `lane` of both chunks: 16 elements, at any alignment.
                    let (a, b) = unsafe {
                        let a = $load(row.as_ptr().add(lane * 16 * $bytes));
                        (a, _mm512_loadu_ps(x.as_ptr().add(lane * 16)))
                    };
                    sums[lane] = _mm512_fmadd_ps(a, b, sums[lane]);
                }
            }
            let (rows, row_rest) = row_rest.as_chunks::<{ 16 * $bytes }>();
            let (xs, x_rest) = x_rest.as_chunks::<16>();
            for (row, x) in rows.iter().zip(xs) {
                // SAFETY: 16 elements of each, at any alignment.
                let (a, b) = unsafe { ($load(row.as_ptr()), _mm512_loadu_ps(x.as_ptr())) };
                sums[0] = _mm512_fmadd_ps(a, b, sums[0]);
            }
            let sum =
                _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
            // SAFETY: both types are 16 floats.
            let lanes: [f32; 16] = unsafe { std::mem::transmute(sum) };
            lanes.iter().sum::<f32>() + scalar::$name(row_rest, x_rest)
        }
    };
}

dot!(dot_f32, 4, load_f32);
dot!(dot_f16, 2, load_f16);
dot!(dot_bf16, 2, load_bf16);
