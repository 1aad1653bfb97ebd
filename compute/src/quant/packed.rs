//! The packed unsigned integers of MLX: 4 or 8 bits, low bits first in little-endian `u32`.
//!
//! A row is a whole number of `u32`. The numbers are integers; scales and biases are other tensors.

use super::dtype::{Format, decode_blocks};

pub(super) static U4: Format = Format {
    tag: "U4",
    elements: 8,
    bytes: 4,
    decode: |bytes, out| {
        decode_blocks::<8, 4>(bytes, out, |block, out| {
            for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(block) {
                *pair = [f32::from(byte & 15), f32::from(byte >> 4)];
            }
        });
    },
    encode: None,
};

pub(super) static U8: Format = Format {
    tag: "U8",
    elements: 4,
    bytes: 4,
    decode: |bytes, out| {
        decode_blocks::<4, 4>(bytes, out, |block, out| *out = block.map(f32::from));
    },
    encode: None,
};
