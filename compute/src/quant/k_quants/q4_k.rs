//! `Q4_K`: 144 bytes for 256 elements of 4 bits, in 8 sub-blocks with scales and minima of 6 bits.
//!
//! `f16 d`, `f16 dmin`, 12 bytes of sub-scales and minima, 128 bytes of elements;
//! `d * scale * q - dmin * min`. Each 64 elements have 32 bytes: the low nibbles are the first 32,
//! the high ones the second.

use super::super::dtype::{Format, decode_blocks};
use super::super::q8::read_f16;
use super::{ELEMENTS, scale_and_min};

pub(in crate::quant) static Q4_K: Format = Format {
    tag: "Q4_K",
    elements: ELEMENTS,
    bytes: 144,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 144>(bytes, out, |block, out| {
            let (d, dmin) = (read_f16(block, 0), read_f16(block, 2));
            for (index, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (scale, min) = scale_and_min(&block[4..16], index);
                let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
                let codes = &block[16 + index / 2 * 32..][..32];
                let shift = index % 2 * 4;
                for (out, &byte) in out.iter_mut().zip(codes) {
                    *out = scale * f32::from((byte >> shift) & 15) - min;
                }
            }
        });
    },
    encode: None,
};
