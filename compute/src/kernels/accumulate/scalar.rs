//! The definition: row after row, element after element.

use super::Variant;

pub(super) const VARIANT: Variant =
    Variant { f32: accumulate_f32, f16: accumulate_f16, bf16: accumulate_bf16 };

pub(super) fn accumulate_f32(rows: &[(&[u8], f32)], out: &mut [f32]) {
    for (row, weight) in rows {
        for (sum, bytes) in out.iter_mut().zip(row.as_chunks::<4>().0) {
            *sum += weight * f32::from_le_bytes(*bytes);
        }
    }
}

pub(super) fn accumulate_f16(rows: &[(&[u8], f32)], out: &mut [f32]) {
    for (row, weight) in rows {
        for (sum, bytes) in out.iter_mut().zip(row.as_chunks::<2>().0) {
            *sum += weight * half::f16::from_le_bytes(*bytes).to_f32();
        }
    }
}

pub(super) fn accumulate_bf16(rows: &[(&[u8], f32)], out: &mut [f32]) {
    for (row, weight) in rows {
        for (sum, bytes) in out.iter_mut().zip(row.as_chunks::<2>().0) {
            *sum += weight * half::bf16::from_le_bytes(*bytes).to_f32();
        }
    }
}
