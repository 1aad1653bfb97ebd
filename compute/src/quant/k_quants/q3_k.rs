//! `Q3_K`: 110 bytes for 256 elements of 3 bits, in 16 sub-blocks with scales of 6 bits.
//!
//! 32 bytes of third bits, 64 bytes of lower bits (as in `Q2_K`), 12 bytes of sub-scales, `f16 d`;
//! `d * (scale - 32) * (q - 4)`. Bit `k` of third-bit byte `l` belongs to element `32 k + l`.
//! Sub-scale `i` has its lower four bits in a nibble of byte `i % 8` (low for the first eight),
//! its upper two in bits `2 (i / 4)` of byte `8 + i % 4`.

use super::super::dtype::{Format, decode_blocks, encode_blocks};
use super::super::lanes::with_widest_lanes;
use super::super::q8::read_f16;
use super::symmetric::{Levels, quantise};
use super::{ELEMENTS, pack_pairs};

const LEVELS: Levels =
    Levels { code_end: 4.0, scale_end: 32.0, stretches: &[-1.2, -0.9, -0.6, -0.3, 0.0, 0.3, 0.6] };

pub(in crate::quant) static Q3_K: Format = Format {
    tag: "Q3_K",
    elements: ELEMENTS,
    bytes: 110,
    decode: |bytes, out| {
        with_widest_lanes(
            #[inline(always)]
            || {
                decode_blocks::<ELEMENTS, 110>(
                    bytes,
                    out,
                    #[inline(always)]
                    |block, out| {
                        let d = read_f16(block, 108);
                        let packed = &block[96..108];
                        for (index, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                            let low = (packed[index % 8] >> (index / 8 * 4)) & 15;
                            let high = (packed[8 + index % 4] >> (index / 4 * 2)) & 3;
                            let scale = d * (i32::from(low | high << 4) - 32) as f32;
                            let (half, shift, first) =
                                (index / 8, index / 2 % 4 * 2, index % 2 * 16);
                            let codes = &block[32 + 32 * half + first..][..16];
                            let thirds = &block[first..][..16];
                            for ((out, &byte), &third) in out.iter_mut().zip(codes).zip(thirds) {
                                let code =
                                    ((byte >> shift) & 3) | ((third >> (index / 2)) & 1) << 2;
                                *out = scale * (i32::from(code) - 4) as f32;
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
                encode_blocks::<ELEMENTS, 110>(
                    values,
                    out,
                    #[inline(always)]
                    |values, block| {
                        let found = quantise(values, LEVELS);
                        for (l, byte) in block[..32].iter_mut().enumerate() {
                            let third = |k: usize| found.codes[32 * k + l] >> 2 << k;
                            *byte = (0..8).fold(0, |bits, k| bits | third(k));
                        }
                        pack_pairs(&found.codes, &mut block[32..96]);
                        let scales = found.scales.map(|scale| (scale + 32) as u8);
                        for (index, byte) in block[96..104].iter_mut().enumerate() {
                            *byte = (scales[index] & 15) | scales[index + 8] << 4;
                        }
                        for (index, byte) in block[104..108].iter_mut().enumerate() {
                            let upper = |k: usize| scales[index + 4 * k] >> 4 << (2 * k);
                            *byte = (0..4).fold(0, |bits, k| bits | upper(k));
                        }
                        block[108..].copy_from_slice(&found.d.to_le_bytes());
                    },
                );
            },
        );
    }),
};
