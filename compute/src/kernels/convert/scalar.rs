//! The definition: one number at a time.

use super::Variant;

pub(super) const VARIANT: Variant = Variant { f16: convert_f16, bf16: convert_bf16 };

pub(super) fn convert_f16(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = half::f16::from_le_bytes(*bytes).to_f32();
    }
}

pub(super) fn convert_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = half::bf16::from_le_bytes(*bytes).to_f32();
    }
}
