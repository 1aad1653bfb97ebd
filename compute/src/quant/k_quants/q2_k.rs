//! `Q2_K`: 84 bytes for 256 elements of 2 bits, in 16 sub-blocks with scales and minima of 4 bits.
//!
//! 16 bytes of sub-scales (low nibble) and minima (high), 64 bytes of elements, `f16 d`,
//! `f16 dmin`; `d * scale * q - dmin * min`. Each half of 128 elements has 32 bytes: byte `l` holds
//! the elements `l`, `l + 32`, `l + 64` and `l + 96`, two bits each, low bits first.

use super::super::dtype::{Format, decode_blocks, encode_blocks};
use super::super::lanes::with_widest_lanes;
use super::super::q8::read_f16;
use super::affine::{Levels, quantise};
use super::{ELEMENTS, pack_pairs};

const LEVELS: Levels =
    Levels { code_max: 3.0, scale_max: 15.0, stretches: &[-1.2, -0.9, -0.6, -0.3, 0.0, 0.4] };

pub(in crate::quant) static Q2_K: Format = Format {
    tag: "Q2_K",
    elements: ELEMENTS,
    bytes: 84,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 84>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let (d, dmin) = (read_f16(block, 80), read_f16(block, 82));
                        for (index, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                            let scale = d * f32::from(block[index] & 15);
                            let min = dmin * f32::from(block[index] >> 4);
                            let (half, shift, first) =
                                (index / 8, index / 2 % 4 * 2, index % 2 * 16);
                            let codes = &block[16 + 32 * half + first..][..16];
                            for (out, &byte) in out.iter_mut().zip(codes) {
                                *out = scale * f32::from((byte >> shift) & 3) - min;
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
                encode_blocks::<ELEMENTS, 84>(
                    values,
                    out,
                    #[inline(always)]
                    |values, block| {
                        let found = quantise::<16, 16>(values, LEVELS);
                        for (index, byte) in block[..16].iter_mut().enumerate() {
                            *byte = found.scales[index] | found.mins[index] << 4;
                        }
                        pack_pairs(&found.codes, &mut block[16..80]);
                        block[80..82].copy_from_slice(&found.d.to_le_bytes());
                        block[82..].copy_from_slice(&found.dmin.to_le_bytes());
                    },
                );
            },
        );
    }),
};
