//! The k-quants of ggml: blocks of 256 elements whose sub-scales are quantised themselves.
//!
//! One file a format, and two searches for the best scales, `affine` and `symmetric`. What they
//! share stands here: how `Q4_K` and `Q5_K` pack eight 6-bit scales and minima into 12 bytes.

mod affine;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod symmetric;

pub(super) use q2_k::Q2_K;
pub(super) use q3_k::Q3_K;
pub(super) use q4_k::Q4_K;
pub(super) use q5_k::Q5_K;
pub(super) use q6_k::Q6_K;

use half::f16;

/// Elements of a block.
const ELEMENTS: usize = 256;

/// The 6-bit scale and minimum of a sub-block of `Q4_K` and `Q5_K`.
///
/// The first four scales are the lower six bits of bytes 0 to 3, the first four minima those of
/// bytes 4 to 7; of the others, bytes 8 to 11 hold the lower four bits (scale low, minimum high),
/// and the free upper two bits of the first eight bytes the rest.
#[inline(always)]
fn scale_and_min(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        (
            (packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4,
            (packed[index + 4] >> 4) | (packed[index] >> 6) << 4,
        )
    }
}

/// The opposite of [`scale_and_min`], for all eight sub-blocks.
#[inline(always)]
fn pack_scales_and_mins(scales: &[u8; 8], mins: &[u8; 8], packed: &mut [u8]) {
    for index in 0..4 {
        packed[index] = scales[index] | scales[index + 4] >> 4 << 6;
        packed[index + 4] = mins[index] | mins[index + 4] >> 4 << 6;
        packed[index + 8] = (scales[index + 4] & 15) | mins[index + 4] << 4;
    }
}

/// The least binary16 that is not below a positive number; the largest one for larger numbers.
#[inline(always)]
fn round_up(value: f32) -> f16 {
    let nearest = f16::from_f32(value.min(f16::MAX.to_f32()));
    if nearest.to_f32() < value.min(f16::MAX.to_f32()) {
        f16::from_bits(nearest.to_bits() + 1)
    } else {
        nearest
    }
}

/// Packs codes as `Q4_K` has them: of each 64, the first 32 as low nibbles, the others as high ones.
#[inline(always)]
fn pack_nibbles(codes: &[u8; ELEMENTS], packed: &mut [u8]) {
    for (index, byte) in packed.iter_mut().enumerate() {
        let first = index / 32 * 64 + index % 32;
        *byte = (codes[first] & 15) | codes[first + 32] << 4;
    }
}

/// Packs the lower two bits of codes as `Q2_K` and `Q3_K` have them: byte `l` of each half of 128
/// elements takes the elements `l`, `l + 32`, `l + 64` and `l + 96`.
#[inline(always)]
fn pack_pairs(codes: &[u8; ELEMENTS], packed: &mut [u8]) {
    for (index, byte) in packed.iter_mut().enumerate() {
        let first = index / 32 * 128 + index % 32;
        *byte = (0..4).fold(0, |bits, k| bits | (codes[first + 32 * k] & 3) << (2 * k));
    }
}
