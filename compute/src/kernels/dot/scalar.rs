//! The definition: multiply, and add from left to right.

use super::Variant;

pub(super) const VARIANT: Variant = Variant { f32: dot_f32, f16: dot_f16, bf16: dot_bf16 };

pub(super) fn dot_f32(row: &[u8], x: &[f32]) -> f32 {
    row.as_chunks::<4>().0.iter().zip(x).map(|(&a, b)| f32::from_le_bytes(a) * b).sum()
}

pub(super) fn dot_f16(row: &[u8], x: &[f32]) -> f32 {
    let numbers = row.as_chunks::<2>().0.iter().map(|&a| half::f16::from_le_bytes(a).to_f32());
    numbers.zip(x).map(|(a, b)| a * b).sum()
}

pub(super) fn dot_bf16(row: &[u8], x: &[f32]) -> f32 {
    let numbers = row.as_chunks::<2>().0.iter().map(|&a| half::bf16::from_le_bytes(a).to_f32());
    numbers.zip(x).map(|(a, b)| a * b).sum()
}
