//! Reachable only through `detect`, so holding the function is the proof that it may run.

use std::arch::x86_64::*;

use super::{Variant, scalar};
use crate::cpu::Isa;
use crate::kernels::load::avx512::{load_bf16, load_f16, load_f32};

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx512).then_some(Variant {
        // SAFETY: the closures leave this function only when the features were found.
        f32: |rows, out| unsafe { accumulate_f32(rows, out) },
        // SAFETY: as above.
        f16: |rows, out| unsafe { accumulate_f16(rows, out) },
        // SAFETY: as above.
        bf16: |rows, out| unsafe { accumulate_bf16(rows, out) },
    })
}

/// One function a dtype: `$bytes` bytes an element, `$load` for 16 of them as floats.
macro_rules! accumulate {
    ($name:ident, $bytes:literal, $load:ident) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn $name(rows: &[(&[u8], f32)], out: &mut [f32]) {
            let (eights, rest) = rows.as_chunks::<8>();
            let whole = out.len() / 16 * 16;
            for eight in eights {
                assert!(eight.iter().all(|(row, _)| row.len() == out.len() * $bytes));
                let weights = eight.map(|(_, weight)| _mm512_set1_ps(weight));
                for first in (0..whole).step_by(16) {
                    // SAFETY: `first + 16` is at most the length of `out` and of the eight rows.
                    unsafe {
                        let sum = out.as_mut_ptr().add(first);
                        let load = |row: usize| eight[row].0.as_ptr().add(first * $bytes);
                        let mut lanes = _mm512_loadu_ps(sum);
                        for row in 0..8 {
                            lanes = _mm512_fmadd_ps(weights[row], $load(load(row)), lanes);
                        }
                        _mm512_storeu_ps(sum, lanes);
                    }
                }
                let ends = eight.map(|(row, weight)| (&row[whole * $bytes..], weight));
                scalar::$name(&ends, &mut out[whole..]);
            }
            for (row, weight) in rest {
                assert!(row.len() == out.len() * $bytes);
                let lanes_weight = _mm512_set1_ps(*weight);
                for first in (0..whole).step_by(16) {
                    // SAFETY: `first + 16` is at most the length of `out` and of the row.
                    unsafe {
                        let sum = out.as_mut_ptr().add(first);
                        let lanes = $load(row.as_ptr().add(first * $bytes));
                        let lanes = _mm512_fmadd_ps(lanes_weight, lanes, _mm512_loadu_ps(sum));
                        _mm512_storeu_ps(sum, lanes);
                    }
                }
                scalar::$name(&[(&row[whole * $bytes..], *weight)], &mut out[whole..]);
            }
        }
    };
}

accumulate!(accumulate_f32, 4, load_f32);
accumulate!(accumulate_f16, 2, load_f16);
accumulate!(accumulate_bf16, 2, load_bf16);
