//! `Q5_K`: 176 bytes for 256 elements of 5 bits, in 8 sub-blocks with scales and minima of 6 bits.
//!
//! `f16 d`, `f16 dmin`, 12 bytes of sub-scales and minima, 32 bytes of fifth bits, 128 bytes of
//! nibbles as in `Q4_K`; `d * scale * q - dmin * min`. Bit `k` of fifth-bit byte `l` belongs to
//! element `32 k + l`.

use super::super::dtype::{Format, decode_blocks};
use super::super::q8::read_f16;
use super::{ELEMENTS, scale_and_min};

pub(in crate::quant) static Q5_K: Format = Format {
    tag: "Q5_K",
    elements: ELEMENTS,
    bytes: 176,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 176>(bytes, out, |block, out| {
            let (d, dmin) = (read_f16(block, 0), read_f16(block, 2));
            let fifths = &block[16..48];
            for (index, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (scale, min) = scale_and_min(&block[4..16], index);
                let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
                let codes = &block[48 + index / 2 * 32..][..32];
                let shift = index % 2 * 4;
                for ((out, &byte), &fifth) in out.iter_mut().zip(codes).zip(fifths) {
                    let code = ((byte >> shift) & 15) | ((fifth >> index) & 1) << 4;
                    *out = scale * f32::from(code) - min;
                }
            }
        });
    },
    encode: None,
};
