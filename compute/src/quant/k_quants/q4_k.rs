//! `Q4_K`: 144 bytes for 256 elements of 4 bits, in 8 sub-blocks with scales and minima of 6 bits.
//!
//! `f16 d`, `f16 dmin`, 12 bytes of sub-scales and minima, 128 bytes of elements;
//! `d * scale * q - dmin * min`. Each 64 elements have 32 bytes: the low nibbles are the first 32,
//! the high ones the second.

use super::super::dtype::{Format, decode_blocks, encode_blocks};
use super::super::lanes::with_widest_lanes;
use super::super::q8::read_f16;
use super::affine::{Levels, quantise};
use super::{ELEMENTS, pack_nibbles, pack_scales_and_mins, scale_and_min};

const LEVELS: Levels =
    Levels { code_max: 15.0, scale_max: 63.0, stretches: &[-1.5, -0.9, -0.4, 0.0, 0.5] };

pub(in crate::quant) static Q4_K: Format = Format {
    tag: "Q4_K",
    elements: ELEMENTS,
    bytes: 144,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 144>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
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
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                encode_blocks::<ELEMENTS, 144>(
                    values,
                    out,
                    #[inline(always)]
                    |values, block| {
                        let found = quantise::<8, 32>(values, LEVELS);
                        block[..2].copy_from_slice(&found.d.to_le_bytes());
                        block[2..4].copy_from_slice(&found.dmin.to_le_bytes());
                        pack_scales_and_mins(&found.scales, &found.mins, &mut block[4..16]);
                        pack_nibbles(&found.codes, &mut block[16..]);
                    },
                );
            },
        );
    }),
};
