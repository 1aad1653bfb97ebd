//! `Q8_0` of ggml, and what the simple formats of 32 elements share.
//!
//! `f16 d`, 32 bytes of signed elements; `q * d`.
//!
//! The simple formats are quantised as ggml's reference does it, to the byte: the element farthest
//! from zero (or the smallest and the largest) sets the scale, and every element is rounded by the
//! scale before that is rounded to `f16`.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::lanes::with_widest_lanes;

pub(super) static Q8_0: Format = Format {
    tag: "Q8_0",
    elements: 32,
    bytes: 34,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<32, 34>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let d = read_f16(block, 0);
                        for (out, &code) in out.iter_mut().zip(&block[2..]) {
                            *out = f32::from(code as i8) * d;
                        }
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        encode_blocks::<32, 34>(values, out, |values, block| {
            let d = farthest(values).abs() / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
            for (byte, value) in block[2..].iter_mut().zip(values) {
                *byte = (value * inverse).round() as i8 as u8;
            }
        });
    }),
};

/// The binary16 at a place of a block.
#[inline(always)]
pub(super) fn read_f16(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The value farthest from zero, the first of several; NaN is passed over.
#[inline(always)]
pub(super) fn farthest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |far, &value| if value.abs() > far.abs() { value } else { far })
}

/// The smallest and the largest value; NaN is passed over.
#[inline(always)]
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(min, max), &value| {
        (if value < min { value } else { min }, if value > max { value } else { max })
    })
}
