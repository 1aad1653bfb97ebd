//! `Q5_K`: 176 bytes for 256 elements of 5 bits, in 8 sub-blocks with scales and minima of 6 bits.
//!
//! `f16 d`, `f16 dmin`, 12 bytes of sub-scales and minima, 32 bytes of fifth bits, 128 bytes of
//! nibbles as in `Q4_K`; `d * scale * q - dmin * min`. Bit `k` of fifth-bit byte `l` belongs to
//! element `32 k + l`.

use super::super::dtype::{Format, decode_blocks, encode_blocks};
use super::super::lanes::with_widest_lanes;
use super::super::q8::read_f16;
use super::affine::{Levels, quantise};
use super::{ELEMENTS, pack_nibbles, pack_scales_and_mins, scale_and_min};

const LEVELS: Levels =
    Levels { code_max: 31.0, scale_max: 63.0, stretches: &[-1.5, -0.9, -0.4, 0.0, 0.5] };

pub(in crate::quant) static Q5_K: Format = Format {
    tag: "Q5_K",
    elements: ELEMENTS,
    bytes: 176,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 176>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
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
                    },
                );
            },
        );
    },
    encode: Some(|values, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                encode_blocks::<ELEMENTS, 176>(
                    values,
                    out,
                    #[inline(always)]
                    |values, block| {
                        let found = quantise::<8, 32>(values, LEVELS);
                        block[..2].copy_from_slice(&found.d.to_le_bytes());
                        block[2..4].copy_from_slice(&found.dmin.to_le_bytes());
                        pack_scales_and_mins(&found.scales, &found.mins, &mut block[4..16]);
                        for (l, byte) in block[16..48].iter_mut().enumerate() {
                            let fifth = |k: usize| found.codes[32 * k + l] >> 4 << k;
                            *byte = (0..8).fold(0, |bits, k| bits | fifth(k));
                        }
                        pack_nibbles(&found.codes, &mut block[48..]);
                    },
                );
            },
        );
    }),
};
