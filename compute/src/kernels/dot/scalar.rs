//! The definition: multiply, and add from left to right.

use super::{Q4K_BLOCK, Variant};
use crate::quant::{Dtype, to_f32};

pub(super) const VARIANT: Variant =
    Variant { f32: dot_f32, f16: dot_f16, bf16: dot_bf16, q4_k: dot_q4_k };

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

fn dot_q4_k(row: &[u8], x: &[f32]) -> f32 {
    let numbers = row.as_chunks::<Q4K_BLOCK>().0.iter().flat_map(|block| {
        let mut numbers = [0.0; 256];
        decode_q4_k(Some(block), &mut numbers);
        numbers
    });
    numbers.zip(x).map(|(a, b)| a * b).sum()
}

/// The first numbers of a block; there must be one unless none are asked for.
pub(super) fn decode_q4_k(block: Option<&[u8; Q4K_BLOCK]>, out: &mut [f32]) {
    if let (Some(block), false) = (block, out.is_empty()) {
        to_f32(Dtype::Q4K, block, out);
    }
}
