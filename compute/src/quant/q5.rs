//! `Q5_0` and `Q5_1` of ggml: 32 elements of 5 bits under one scale, with and without a minimum.
//!
//! `Q5_0`: `f16 d`, `u32` of fifth bits, 16 bytes of nibbles; `(q - 16) * d`. `Q5_1`: `f16 d`,
//! `f16 m`, the same; `q * d + m`. Nibbles lie as in `Q4_0`; bit `j` of the `u32` is the fifth bit
//! of element `j`.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::q8::{farthest, range, read_f16};

/// Elements of a block.
const ELEMENTS: usize = 32;

pub(super) static Q5_0: Format = Format {
    tag: "Q5_0",
    elements: ELEMENTS,
    bytes: 22,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 22>(bytes, out, |block, out| {
            let d = read_f16(block, 0);
            unpack(&block[2..], |j, code| out[j] = (code as i32 - 16) as f32 * d);
        });
    },
    encode: Some(|values, out| {
        encode_blocks::<ELEMENTS, 22>(values, out, |values, block| {
            let d = farthest(values) / -16.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
            let code = |value: f32| ((value * inverse + 16.5) as i32).clamp(0, 31) as u32;
            pack(&values.map(code), &mut block[2..]);
        });
    }),
};

pub(super) static Q5_1: Format = Format {
    tag: "Q5_1",
    elements: ELEMENTS,
    bytes: 24,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 24>(bytes, out, |block, out| {
            let (d, m) = (read_f16(block, 0), read_f16(block, 2));
            unpack(&block[4..], |j, code| out[j] = code as f32 * d + m);
        });
    },
    encode: Some(|values, out| {
        encode_blocks::<ELEMENTS, 24>(values, out, |values, block| {
            let (min, max) = range(values);
            let d = (max - min) / 31.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
            block[2..4].copy_from_slice(&half::f16::from_f32(min).to_le_bytes());
            let code = |value: f32| (((value - min) * inverse + 0.5) as i32).clamp(0, 31) as u32;
            pack(&values.map(code), &mut block[4..]);
        });
    }),
};

/// Calls `write` with each element's place and code; `bytes`: fifth bits, then nibbles.
#[inline(always)]
fn unpack(bytes: &[u8], mut write: impl FnMut(usize, u32)) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (j, &byte) in bytes[4..20].iter().enumerate() {
        write(j, u32::from(byte & 15) | ((high >> j) & 1) << 4);
        write(j + 16, u32::from(byte >> 4) | ((high >> (j + 16)) & 1) << 4);
    }
}

/// The opposite of [`unpack`].
#[inline(always)]
fn pack(codes: &[u32; ELEMENTS], bytes: &mut [u8]) {
    let high = codes.iter().enumerate().fold(0, |bits, (j, code)| bits | (code >> 4) << j);
    bytes[..4].copy_from_slice(&u32::to_le_bytes(high));
    for (j, byte) in bytes[4..20].iter_mut().enumerate() {
        *byte = (codes[j] & 15) as u8 | ((codes[j + 16] & 15) << 4) as u8;
    }
}
