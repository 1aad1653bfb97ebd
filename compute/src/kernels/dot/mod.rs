//! Dot product: the inner loop of every projection. `scalar` (zip, multiply, sum) defines it.
//!
//! The left side is a row of weights as it lies in its file, the right side activations. A packed
//! weight is unpacked exactly, so that all dtypes share one error bound. `Q4_K` rows, which scans
//! read most, are multiplied as they are dequantised, block by block, to the same bits.

mod scalar;
mod wide;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::LazyLock;

pub(crate) use self::wide::dot_f64;
use crate::cpu::{Isa, fastest};
use crate::quant::Dtype;

/// Row of weights (bytes at any alignment) times activations.
pub type Dot = fn(&[u8], &[f32]) -> f32;

/// One variant: a function a dtype.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Rows of binary32.
    pub f32: Dot,
    /// Rows of binary16.
    pub f16: Dot,
    /// Rows of bfloat16.
    pub bf16: Dot,
    /// Rows of `Q4_K`, each a whole number of blocks.
    pub q4_k: Dot,
}

impl Variant {
    /// The function for rows of a dtype that is read in place; panics for another.
    pub fn of(&self, dtype: Dtype) -> Dot {
        match dtype {
            Dtype::F32 => self.f32,
            Dtype::F16 => self.f16,
            Dtype::BF16 => self.bf16,
            Dtype::Q4K => self.q4_k,
            other => panic!("rows of {other} are not read in place"),
        }
    }
}

/// Every variant that this processor can run, slowest first: read by dispatch and by the test.
pub fn variants() -> Vec<(Isa, Variant)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found = vec![(Isa::Scalar, scalar::VARIANT)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, variant)));
    found
}

/// Returns `sum(a[i] * b[i])` over two rows of shape `[n]`; panics if their lengths differ.
///
/// Sums in `f32` in no promised order, so variants may differ within Higham's bound for inner
/// products: `n * eps * sum(|a[i] * b[i]|)` (*Accuracy and Stability*, chapter 3).
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "rows of different length");
    dispatch(Dtype::F32)(bytemuck::cast_slice(a), b)
}

/// Returns `sum(row[i] * x[i])` for a stored row of a plain dtype; panics if their lengths differ
/// or the dtype is not plain.
pub fn dot_row(dtype: Dtype, row: &[u8], x: &[f32]) -> f32 {
    assert_eq!(Some(row.len()), dtype.bytes_for(x.len()), "rows of different length");
    dispatch(dtype)(row, x)
}

/// Whether there is a function for rows of a dtype as they are stored.
pub(crate) fn reads_in_place(dtype: Dtype) -> bool {
    dtype.is_plain() || dtype == Dtype::Q4K
}

/// Bytes of a block of `Q4_K`.
const Q4K_BLOCK: usize = 144;

/// The eight scales and the eight minima of a block of `Q4_K`, a byte each, first ones low.
#[cfg(target_arch = "x86_64")]
#[inline]
fn q4_k_scales(block: &[u8; Q4K_BLOCK]) -> (u64, u64) {
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (a, b, c) = (word(4), word(8), word(12));
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    (
        join(a & 0x3f3f_3f3f, (c & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030)),
        join(b & 0x3f3f_3f3f, ((c >> 4) & 0x0f0f_0f0f) | ((b >> 2) & 0x3030_3030)),
    )
}

/// The function for a loop over many rows, whose lengths the caller has checked.
pub(crate) fn dispatch(dtype: Dtype) -> Dot {
    static FASTEST: LazyLock<Variant> = LazyLock::new(|| fastest(variants()));
    FASTEST.of(dtype)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quant::{from_f32, to_f32};

    fn check(a: &[f32], b: &[f32]) {
        for dtype in Dtype::PLAIN {
            // One byte off: rows of a mapped file promise no alignment.
            let mut bytes = vec![0; 1 + dtype.bytes_for(a.len()).unwrap()];
            from_f32(dtype, a, &mut bytes[1..]);
            let mut stored = vec![0.0; a.len()];
            to_f32(dtype, &bytes[1..], &mut stored);
            let terms = || stored.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
            let bound =
                a.len() as f64 * f64::from(f32::EPSILON) * terms().map(f64::abs).sum::<f64>();
            let expected = terms().sum::<f64>();
            for (isa, variant) in variants() {
                let error = (f64::from(variant.of(dtype)(&bytes[1..], b)) - expected).abs();
                assert!(error <= bound, "{isa:?} {dtype} is off by {error:e}, bound {bound:e}");
            }
            assert!((dot_f64(&stored, b) - expected).abs() <= bound * 1e-6);
        }
    }

    proptest! {
        #[test]
        fn every_variant_stays_within_the_rounding_bound(
            rows in prop::collection::vec((-9f32..9., -9f32..9.), 0..99),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            check(&a, &b);
        }
    }

    #[test]
    fn every_variant_stays_within_the_bound_at_awkward_lengths() {
        for length in [1, 15, 17, 63, 65, 255, 257, 2880] {
            let a: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let b: Vec<f32> = (0..length).map(|i| ((i * 53 % 97) as f32 - 48.0) / 11.0).collect();
            check(&a, &b);
        }
    }

    #[test]
    fn a_row_of_q4_k_gives_the_bits_of_its_dequantised_row_in_every_variant() {
        for columns in [1_usize, 17, 255, 256, 257, 511, 700, 2560, 2880] {
            let blocks = columns.div_ceil(256);
            let mut bytes: Vec<u8> =
                (0..blocks * Q4K_BLOCK).map(|i| (i * i * 31 + i * 7 + columns) as u8).collect();
            for (index, block) in bytes.as_chunks_mut::<Q4K_BLOCK>().0.iter_mut().enumerate() {
                // Factors of ordinary size, and now and then any at all.
                if index % 5 < 4 {
                    (block[1], block[3]) = (0x20 | block[1] & 0x8f, 0x1c | block[3] & 0x83);
                }
            }
            let x: Vec<f32> = (0..columns).map(|i| ((i * 53 % 97) as f32 - 48.0) / 11.0).collect();
            let mut numbers = vec![0.0; columns];
            to_f32(Dtype::Q4K, &bytes, &mut numbers);
            for (isa, variant) in variants() {
                let expected = (variant.f32)(bytemuck::cast_slice(&numbers), &x);
                let found = (variant.q4_k)(&bytes, &x);
                let same = found.to_bits() == expected.to_bits();
                let none = found.is_nan() && expected.is_nan();
                assert!(same || none, "{isa:?}, {columns} columns: {found}, not {expected}");
            }
        }
    }
}
