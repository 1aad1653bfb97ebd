//! `Q6_K`: 210 bytes for 256 elements of 6 bits, in 16 sub-blocks with scales of 8 bits.
//!
//! 128 bytes of nibbles, 64 bytes of upper bits, 16 signed sub-scales, `f16 d`;
//! `d * scale * (q - 32)`. Each half of 128 elements has 64 bytes of nibbles and 32 of upper bits:
//! element `32 k + l` of it has the low (`k` below 2) or high nibble of byte `32 (k % 2) + l`, and
//! the bits from `2 k` of upper byte `l`.

use super::super::dtype::{Format, decode_blocks, encode_blocks};
use super::super::lanes::with_widest_lanes;
use super::super::q8::read_f16;
use super::ELEMENTS;
use super::symmetric::{Levels, quantise};

const LEVELS: Levels =
    Levels { code_end: 32.0, scale_end: 128.0, stretches: &[-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9] };

pub(in crate::quant) static Q6_K: Format = Format {
    tag: "Q6_K",
    elements: ELEMENTS,
    bytes: 210,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 210>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let d = read_f16(block, 208);
                        for (index, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                            let scale = d * f32::from(block[192 + index] as i8);
                            let (half, k, first) = (index / 8, index / 2 % 4, index % 2 * 16);
                            let nibbles = &block[64 * half + 32 * (k % 2) + first..][..16];
                            let uppers = &block[128 + 32 * half + first..][..16];
                            for ((out, &nibble), &upper) in out.iter_mut().zip(nibbles).zip(uppers)
                            {
                                let code =
                                    ((nibble >> (k / 2 * 4)) & 15) | ((upper >> (2 * k)) & 3) << 4;
                                *out = scale * (i32::from(code) - 32) as f32;
                            }
                        }
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                encode_blocks::<ELEMENTS, 210>(
                    values,
                    out,
                    #[inline(always)]
                    |values, block| {
                        let found = quantise(values, LEVELS);
                        for (index, byte) in block[..128].iter_mut().enumerate() {
                            let first = index / 64 * 128 + index % 64;
                            *byte = (found.codes[first] & 15) | found.codes[first + 64] << 4;
                        }
                        for (index, byte) in block[128..192].iter_mut().enumerate() {
                            let first = index / 32 * 128 + index % 32;
                            let upper = |k: usize| found.codes[first + 32 * k] >> 4 << (2 * k);
                            *byte = (0..4).fold(0, |bits, k| bits | upper(k));
                        }
                        block[192..208].copy_from_slice(&found.scales.map(|scale| scale as u8));
                        block[208..].copy_from_slice(&found.d.to_le_bytes());
                    },
                );
            },
        );
    }),
};
