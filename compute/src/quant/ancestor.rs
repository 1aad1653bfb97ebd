//! Layouts of the ancestor's vindexes of version 2, which are only read.
//!
//! `ANCESTOR_FP4`, 256 elements in 137 bytes: 128 bytes of E2M1 nibbles (the even element low), 8
//! E4M3 sub-scales, 1 E4M3 block scale; `E2M1 * sub * block / 6`. `ANCESTOR_FP8`, 257 bytes: 256
//! E4M3 elements, 1 E4M3 scale. `ANCESTOR_Q4_0` is `Q4_0` whose byte `j` holds the elements `2 j`
//! and `2 j + 1`. `ANCESTOR_Q6_K` has the fields of `Q6_K`, but element `i` is nibble `i % 2` of
//! byte `i / 2`, with the two bits from `2 (i % 4)` of upper byte `i / 4`, under scale `i / 16`.

use super::dtype::{Format, decode_blocks};
use super::float8::{E2M1_MAX, E4M3_NUMBERS};
use super::mxfp4::unpack_e2m1;
use super::q8::read_f16;

pub(super) static FP4: Format = Format {
    tag: "ANCESTOR_FP4",
    elements: 256,
    bytes: 137,
    decode: |bytes, out| {
        decode_blocks::<256, 137>(bytes, out, |block, out| {
            let scale = E4M3_NUMBERS[usize::from(block[136])];
            let parts = block[..128].as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for ((nibbles, out), &sub) in parts.zip(&block[128..136]) {
                let sub = E4M3_NUMBERS[usize::from(sub)];
                unpack_e2m1(nibbles, sub * scale / E2M1_MAX, out);
            }
        });
    },
    encode: None,
};

pub(super) static FP8: Format = Format {
    tag: "ANCESTOR_FP8",
    elements: 256,
    bytes: 257,
    decode: |bytes, out| {
        decode_blocks::<256, 257>(bytes, out, |block, out| {
            let scale = E4M3_NUMBERS[usize::from(block[256])];
            for (out, &code) in out.iter_mut().zip(block) {
                *out = E4M3_NUMBERS[usize::from(code)] * scale;
            }
        });
    },
    encode: None,
};

pub(super) static Q4_0: Format = Format {
    tag: "ANCESTOR_Q4_0",
    elements: 32,
    bytes: 18,
    decode: |bytes, out| {
        decode_blocks::<32, 18>(bytes, out, |block, out| {
            let d = read_f16(block, 0);
            for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&block[2..]) {
                *pair = [byte & 15, byte >> 4].map(|code| (i32::from(code) - 8) as f32 * d);
            }
        });
    },
    encode: None,
};

pub(super) static Q6_K: Format = Format {
    tag: "ANCESTOR_Q6_K",
    elements: 256,
    bytes: 210,
    decode: |bytes, out| {
        decode_blocks::<256, 210>(bytes, out, |block, out| {
            let d = read_f16(block, 208);
            for (i, out) in out.iter_mut().enumerate() {
                let low = (block[i / 2] >> (4 * (i % 2))) & 15;
                let high = (block[128 + i / 4] >> (2 * (i % 4))) & 3;
                let scale = f32::from(block[192 + i / 16] as i8);
                *out = (i32::from(low | high << 4) - 32) as f32 * (d * scale);
            }
        });
    },
    encode: None,
};
