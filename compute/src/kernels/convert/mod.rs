//! Unpacking: stored bytes to `f32`, exactly. `scalar` defines it.

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};
use crate::quant::Dtype;

/// Unpacks a row: bytes, at any alignment, to as many numbers as `out` holds.
pub type Convert = fn(&[u8], &mut [f32]);

/// One variant: a function a packed dtype (`f32` rows are copied).
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Unpacks binary16.
    pub f16: Convert,
    /// Unpacks bfloat16.
    pub bf16: Convert,
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

/// Unpacks one row of a plain dtype; panics if it is not, or if `bytes` and `out` differ in count.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    static FASTEST: LazyLock<Variant> = LazyLock::new(|| fastest(variants()));
    match dtype {
        Dtype::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
        Dtype::F16 => (FASTEST.f16)(bytes, out),
        Dtype::BF16 => (FASTEST.bf16)(bytes, out),
        other => panic!("{other} is not plain"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_unpacks_every_half_as_the_definition_does() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (isa, variant) in variants() {
            for count in [1, 255, 257, 2880, 1 << 16] {
                for (run, define) in
                    [(variant.f16, scalar::VARIANT.f16), (variant.bf16, scalar::VARIANT.bf16)]
                {
                    let (mut is, mut expected) = (vec![0.0; count], vec![0.0; count]);
                    run(&bytes[..2 * count], &mut is);
                    define(&bytes[..2 * count], &mut expected);
                    for (is, expected) in is.iter().zip(&expected) {
                        let equal = is.to_bits() == expected.to_bits();
                        assert!(
                            equal || is.is_nan() && expected.is_nan(),
                            "{isa:?}: {is} {expected}"
                        );
                    }
                }
            }
        }
    }
}
