//! `Q6_K`: 210 bytes for 256 elements of 6 bits, in 16 sub-blocks with scales of 8 bits.
//!
//! 128 bytes of nibbles, 64 bytes of upper bits, 16 signed sub-scales, `f16 d`;
//! `d * scale * (q - 32)`. Each half of 128 elements has 64 bytes of nibbles and 32 of upper bits:
//! element `32 k + l` of it has the low (`k` below 2) or high nibble of byte `32 (k % 2) + l`, and
//! the bits from `2 k` of upper byte `l`.

use super::super::dtype::{Format, decode_blocks};
use super::super::q8::read_f16;
use super::ELEMENTS;

pub(in crate::quant) static Q6_K: Format = Format {
    tag: "Q6_K",
    elements: ELEMENTS,
    bytes: 210,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 210>(bytes, out, |block, out| {
            let d = read_f16(block, 208);
            for (index, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let scale = d * f32::from(block[192 + index] as i8);
                let (half, k, first) = (index / 8, index / 2 % 4, index % 2 * 16);
                let nibbles = &block[64 * half + 32 * (k % 2) + first..][..16];
                let uppers = &block[128 + 32 * half + first..][..16];
                for ((out, &nibble), &upper) in out.iter_mut().zip(nibbles).zip(uppers) {
                    let code = ((nibble >> (k / 2 * 4)) & 15) | ((upper >> (2 * k)) & 3) << 4;
                    *out = scale * (i32::from(code) - 32) as f32;
                }
            }
        });
    },
    encode: None,
};
