//! Our FP8: 256 E4M3 elements under a binary16 scale, 258 bytes.
//!
//! `f16 d`, 256 bytes; `E4M3 * d`. The largest element is brought near the top of E4M3's range, but
//! `d` stays a normal number, so that a block of small numbers keeps its precision: nothing above
//! 2⁻²⁴ is flushed to zero.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::float8::{E4M3_MAX, E4M3_NUMBERS, e4m3_from_f32, look_up};
use super::q8::{farthest, read_f16};

/// The least normal binary16, below which scales would lose precision.
const SCALE_MIN: f32 = 6.103_515_6e-5;

pub(super) static FP8: Format = Format {
    tag: "FP8",
    elements: 256,
    bytes: 258,
    decode: |bytes, out| {
        decode_blocks::<256, 258>(bytes, out, |block, out| {
            let d = read_f16(block, 0);
            look_up(&E4M3_NUMBERS, &block[2..], out);
            out.iter_mut().for_each(|value| *value *= d);
        });
    },
    encode: Some(|values, out| {
        encode_blocks::<256, 258>(values, out, |values, block| {
            let d = scale(farthest(values).abs() / E4M3_MAX);
            block[..2].copy_from_slice(&d.to_le_bytes());
            let inverse = 1.0 / d.to_f32();
            for (byte, value) in block[2..].iter_mut().zip(values) {
                *byte = e4m3_from_f32(value * inverse);
            }
        });
    }),
};

/// The nearest normal binary16.
pub(super) fn scale(wanted: f32) -> half::f16 {
    half::f16::from_f32(wanted.clamp(SCALE_MIN, half::f16::MAX.to_f32()))
}
