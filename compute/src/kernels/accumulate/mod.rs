//! Scaled rows added up: `out += Σ weight · row`, the inner loop of products whose inputs, not
//! outputs, are rows (a feature-major down projection, attention's sum over values).
//!
//! `scalar` defines it: row after row. The variants take eight rows at a time, so that `out` is
//! loaded and stored once for the eight.

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};
use crate::quant::Dtype;

/// Stored rows with their weights, and the numbers to add them to; rows are as long as `out`.
pub type Accumulate = fn(&[(&[u8], f32)], &mut [f32]);

/// One variant: a function a dtype.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Rows of binary32.
    pub f32: Accumulate,
    /// Rows of binary16.
    pub f16: Accumulate,
    /// Rows of bfloat16.
    pub bf16: Accumulate,
}

impl Variant {
    /// The function for rows of one plain dtype; panics for another.
    pub fn of(&self, dtype: Dtype) -> Accumulate {
        match dtype {
            Dtype::F32 => self.f32,
            Dtype::F16 => self.f16,
            Dtype::BF16 => self.bf16,
            other => panic!("{other} is not plain"),
        }
    }
}

/// Every variant that this processor can run, slowest first.
pub fn variants() -> Vec<(Isa, Variant)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found = vec![(Isa::Scalar, scalar::VARIANT)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, variant)));
    found
}

/// Adds `weight · row` to `out` for every row of a plain dtype; panics if one has another length
/// than `out` or the dtype is not plain.
///
/// Variants may differ within `(rows + 1) * eps * (|out| + Σ |weight · row|)`, element by element.
pub fn accumulate(dtype: Dtype, rows: &[(&[u8], f32)], out: &mut [f32]) {
    static FASTEST: LazyLock<Variant> = LazyLock::new(|| fastest(variants()));
    let row_bytes = dtype.bytes_for(out.len());
    assert!(rows.iter().all(|(row, _)| Some(row.len()) == row_bytes), "rows of different length");
    FASTEST.of(dtype)(rows, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{from_f32, to_f32};

    #[test]
    fn every_variant_stays_within_the_rounding_bound() {
        for (count, length) in [(0, 5), (1, 1), (3, 255), (8, 257), (19, 2880), (7, 33)] {
            for dtype in Dtype::PLAIN {
                let row_bytes = dtype.bytes_for(length).unwrap();
                let values: Vec<f32> =
                    (0..count * length).map(|i| ((i * 37 % 103) as f32 - 51.0) / 9.0).collect();
                let mut bytes = vec![0; count * row_bytes];
                from_f32(dtype, &values, &mut bytes);
                let mut stored = vec![0.0; values.len()];
                to_f32(dtype, &bytes, &mut stored);
                let rows: Vec<(&[u8], f32)> = bytes
                    .chunks(row_bytes)
                    .enumerate()
                    .map(|(index, row)| (row, index as f32 * 0.7 - 1.3))
                    .collect();
                for (isa, variant) in variants() {
                    let mut out = vec![0.25; length];
                    variant.of(dtype)(&rows, &mut out);
                    for column in 0..length {
                        let terms = || {
                            rows.iter().enumerate().map(|(index, (_, weight))| {
                                f64::from(*weight) * f64::from(stored[index * length + column])
                            })
                        };
                        let expected = 0.25 + terms().sum::<f64>();
                        let size = 0.25 + terms().map(f64::abs).sum::<f64>();
                        let bound = (count + 1) as f64 * f64::from(f32::EPSILON) * size;
                        let error = (f64::from(out[column]) - expected).abs();
                        assert!(error <= bound, "{isa:?} {dtype}: {error:e} > {bound:e}");
                    }
                }
            }
        }
    }
}
