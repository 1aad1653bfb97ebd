//! Dot products in `f64` in one fixed order, so that every machine ranks candidates alike.
//!
//! Eight partial sums, element by element in turn, added pairwise at the end. A product of two
//! `f32` is exact in `f64`, so a fused multiply-add rounds as multiply and add do, and every
//! variant gives the same bits.

use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};

/// The eight partial sums over whole chunks.
type Lanes = fn(&[[f32; 8]], &[[f32; 8]]) -> [f64; 8];

/// Returns `sum(a[i] * b[i])`; both of one length.
pub(crate) fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    static FASTEST: LazyLock<Lanes> = LazyLock::new(|| fastest(variants()));
    debug_assert_eq!(a.len(), b.len(), "rows of different length");
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let [s, t, u, v, w, x, y, z] = FASTEST(a, b);
    let rest = a_rest.iter().zip(b_rest).map(|(&x, &y)| f64::from(x) * f64::from(y));
    ((s + t) + (u + v)) + ((w + x) + (y + z)) + rest.sum::<f64>()
}

fn variants() -> Vec<(Isa, Lanes)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found: Vec<(Isa, Lanes)> = vec![(Isa::Scalar, scalar)];
    #[cfg(target_arch = "x86_64")]
    {
        found.extend(x86::avx2().map(|variant| (Isa::Avx2, variant)));
        found.extend(x86::avx512().map(|variant| (Isa::Avx512, variant)));
    }
    found
}

fn scalar(a: &[[f32; 8]], b: &[[f32; 8]]) -> [f64; 8] {
    let mut lanes = [0.0_f64; 8];
    for (x, y) in a.iter().zip(b) {
        for lane in 0..8 {
            lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    lanes
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Reachable only through `avx2` and `avx512`, so holding a function is the proof that it may run.

    use std::arch::x86_64::*;

    use super::Lanes;
    use crate::cpu::Isa;

    pub(super) fn avx2() -> Option<Lanes> {
        // SAFETY: the closure leaves this function only when the features were found.
        (Isa::best() >= Isa::Avx2).then_some(|a, b| unsafe { lanes_avx2(a, b) })
    }

    pub(super) fn avx512() -> Option<Lanes> {
        // SAFETY: the closure leaves this function only when the features were found.
        (Isa::best() >= Isa::Avx512).then_some(|a, b| unsafe { lanes_avx512(a, b) })
    }

    #[target_feature(enable = "avx2,fma")]
    fn lanes_avx2(a: &[[f32; 8]], b: &[[f32; 8]]) -> [f64; 8] {
        let mut sums = [_mm256_setzero_pd(); 2];
        for (x, y) in a.iter().zip(b) {
            for half in 0..2 {
                // SAFETY: four of the eight floats, at any alignment.
                let (x, y) = unsafe {
                    (_mm_loadu_ps(x[4 * half..].as_ptr()), _mm_loadu_ps(y[4 * half..].as_ptr()))
                };
                sums[half] = _mm256_fmadd_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(y), sums[half]);
            }
        }
        // SAFETY: both types are eight doubles.
        unsafe { std::mem::transmute(sums) }
    }

    #[target_feature(enable = "avx512f")]
    fn lanes_avx512(a: &[[f32; 8]], b: &[[f32; 8]]) -> [f64; 8] {
        let mut sums = _mm512_setzero_pd();
        for (x, y) in a.iter().zip(b) {
            // SAFETY: eight floats each, at any alignment.
            let (x, y) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(y.as_ptr())) };
            sums = _mm512_fmadd_pd(_mm512_cvtps_pd(x), _mm512_cvtps_pd(y), sums);
        }
        // SAFETY: both types are eight doubles.
        unsafe { std::mem::transmute(sums) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_gives_the_same_bits() {
        let number =
            |i: usize| ((i * 7919 % 1009) as f32 - 504.3) * 10_f32.powi(i as i32 % 60 - 30);
        for chunks in [0, 1, 2, 33, 360] {
            let a: Vec<[f32; 8]> =
                (0..chunks).map(|i| std::array::from_fn(|j| number(i * 8 + j))).collect();
            let b: Vec<[f32; 8]> =
                (0..chunks).map(|i| std::array::from_fn(|j| number(i * 5 + 3 * j + 1))).collect();
            let expected = scalar(&a, &b).map(f64::to_bits);
            for (isa, variant) in variants() {
                assert_eq!(variant(&a, &b).map(f64::to_bits), expected, "{isa:?}, {chunks} chunks");
            }
        }
    }
}
