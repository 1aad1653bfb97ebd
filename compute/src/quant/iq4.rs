//! `IQ4_NL` and `IQ4_XS` of ggml, which are only read: 4 bits that name one of 16 levels.
//!
//! `IQ4_NL`: `f16 d`, 16 bytes of nibbles as in `Q4_0`; `level * d`. `IQ4_XS`, 256 elements:
//! `f16 d`, `u16` with the upper two bits of eight sub-scales, 4 bytes with their lower four, 128
//! bytes: 16 for each sub-block of 32, nibbles as in `Q4_0`; `level * (scale - 32) * d`.

use super::dtype::{Format, decode_blocks};
use super::q8::read_f16;

/// The levels, denser around zero.
const LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

pub(super) static IQ4_NL: Format = Format {
    tag: "IQ4_NL",
    elements: 32,
    bytes: 18,
    decode: |bytes, out| {
        decode_blocks::<32, 18>(bytes, out, |block, out| {
            unpack(&block[2..], read_f16(block, 0), out);
        });
    },
    encode: None,
};

pub(super) static IQ4_XS: Format = Format {
    tag: "IQ4_XS",
    elements: 256,
    bytes: 136,
    decode: |bytes, out| {
        decode_blocks::<256, 136>(bytes, out, |block, out| {
            let d = read_f16(block, 0);
            let high = u16::from_le_bytes([block[2], block[3]]);
            let parts = block[8..].as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for (index, (nibbles, out)) in parts.enumerate() {
                let low = (block[4 + index / 2] >> (4 * (index % 2))) & 15;
                let scale = i32::from(low) | i32::from((high >> (2 * index)) & 3) << 4;
                unpack(nibbles, d * (scale - 32) as f32, out);
            }
        });
    },
    encode: None,
};

#[inline(always)]
fn unpack(nibbles: &[u8], scale: f32, out: &mut [f32; 32]) {
    for (j, &byte) in nibbles.iter().enumerate() {
        out[j] = LEVELS[usize::from(byte & 15)] * scale;
        out[j + 16] = LEVELS[usize::from(byte >> 4)] * scale;
    }
}
