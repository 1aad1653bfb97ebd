//! `Q4_0` and `Q4_1` of ggml: 32 elements of 4 bits under one scale, with and without a minimum.
//!
//! `Q4_0`: `f16 d`, 16 bytes; `(q - 8) * d`. `Q4_1`: `f16 d`, `f16 m`, 16 bytes; `q * d + m`.
//! The low nibble of byte `j` is element `j`, the high one element `j + 16`.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::lanes::with_widest_lanes;
use super::q8::{farthest, range, read_f16};

/// Elements of a block.
const ELEMENTS: usize = 32;

pub(super) static Q4_0: Format = Format {
    tag: "Q4_0",
    elements: ELEMENTS,
    bytes: 18,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 18>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let d = read_f16(block, 0);
                        for (j, &byte) in block[2..].iter().enumerate() {
                            out[j] = (i32::from(byte & 15) - 8) as f32 * d;
                            out[j + 16] = (i32::from(byte >> 4) - 8) as f32 * d;
                        }
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        encode_blocks::<ELEMENTS, 18>(values, out, |values, block| {
            let d = farthest(values) / -8.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
            let code = |value: f32| ((value * inverse + 8.5) as i32).clamp(0, 15) as u8;
            for (j, byte) in block[2..].iter_mut().enumerate() {
                *byte = code(values[j]) | code(values[j + 16]) << 4;
            }
        });
    }),
};

pub(super) static Q4_1: Format = Format {
    tag: "Q4_1",
    elements: ELEMENTS,
    bytes: 20,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 20>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let (d, m) = (read_f16(block, 0), read_f16(block, 2));
                        for (j, &byte) in block[4..].iter().enumerate() {
                            out[j] = f32::from(byte & 15) * d + m;
                            out[j + 16] = f32::from(byte >> 4) * d + m;
                        }
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        encode_blocks::<ELEMENTS, 20>(values, out, |values, block| {
            let (min, max) = range(values);
            let d = (max - min) / 15.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
            block[2..4].copy_from_slice(&half::f16::from_f32(min).to_le_bytes());
            let code = |value: f32| (((value - min) * inverse + 0.5) as i32).clamp(0, 15) as u8;
            for (j, byte) in block[4..].iter_mut().enumerate() {
                *byte = code(values[j]) | code(values[j + 16]) << 4;
            }
        });
    }),
};
