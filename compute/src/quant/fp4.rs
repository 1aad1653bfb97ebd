//! Our FP4: 256 E2M1 elements under E4M3 sub-scales and a binary16 scale, 138 bytes.
//!
//! `f16 d`, 8 E4M3 sub-scales of 32 elements, 128 bytes of nibbles (the even element low);
//! `E2M1 * sub * d`. As `d` is a normal number and spans what E4M3 cannot, blocks of small numbers
//! keep their precision.
//!
//! Quantising tries, for each sub-block, the sub-scales around the one that brings its largest
//! element to 6, from a little below (which clips it) to the one that brings it to 4, and keeps
//! that with the least sum of squared errors.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::float8::{E2M1_MAX, E4M3_NUMBERS, e4m3_from_f32};
use super::fp8::scale;
use super::mxfp4::{e2m1_from_f32, round_to_e2m1, unpack_e2m1};
use super::q8::{farthest, read_f16};

/// The sub-scale of the sub-block with the largest element: a power of two with room above it for
/// the search.
const SUB_SCALE_TOP: f32 = 256.0;
/// Sub-scales tried below and above the usual one; E4M3 has eight from a number to its double.
const TRIED: (u8, u8) = (2, 5);

pub(super) static FP4: Format = Format {
    tag: "FP4",
    elements: 256,
    bytes: 138,
    decode: |bytes, out| {
        decode_blocks::<256, 138>(bytes, out, |block, out| {
            let d = read_f16(block, 0);
            let parts = block[10..].as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for ((nibbles, out), &sub) in parts.zip(&block[2..10]) {
                unpack_e2m1(nibbles, E4M3_NUMBERS[usize::from(sub)] * d, out);
            }
        });
    },
    encode: Some(|values, out| {
        encode_blocks::<256, 138>(values, out, |values, block| {
            let d = scale(farthest(values).abs() / (E2M1_MAX * SUB_SCALE_TOP));
            block[..2].copy_from_slice(&d.to_le_bytes());
            let (subs, nibbles) = block[2..].split_at_mut(8);
            let parts = values.as_chunks::<32>().0.iter().zip(nibbles.as_chunks_mut::<16>().0);
            for ((values, nibbles), sub) in parts.zip(subs) {
                *sub = best_sub_scale(values, d.to_f32());
                let inverse = inverse(*sub, d.to_f32());
                for (pair, byte) in values.as_chunks::<2>().0.iter().zip(nibbles) {
                    *byte =
                        e2m1_from_f32(pair[0] * inverse) | e2m1_from_f32(pair[1] * inverse) << 4;
                }
            }
        });
    }),
};

/// The E4M3 code of the sub-scale with the least sum of squared errors.
fn best_sub_scale(values: &[f32; 32], d: f32) -> u8 {
    let usual = e4m3_from_f32(farthest(values).abs() / (E2M1_MAX * d));
    let mut best = (usual, f32::INFINITY);
    // 0x7e is the largest number.
    for sub in usual.saturating_sub(TRIED.0)..=(usual + TRIED.1).min(0x7e) {
        let (scale, inverse) = (E4M3_NUMBERS[usize::from(sub)] * d, inverse(sub, d));
        let mut error = 0.0;
        for &value in values {
            let off = value - round_to_e2m1(value * inverse) * scale;
            error += off * off;
        }
        if error < best.1 {
            best = (sub, error);
        }
    }
    best.0
}

/// The factor that brings numbers to E2M1; 0 where the scale is 0.
fn inverse(sub: u8, d: f32) -> f32 {
    let scale = E4M3_NUMBERS[usize::from(sub)] * d;
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
