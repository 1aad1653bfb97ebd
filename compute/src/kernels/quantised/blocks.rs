//! Blocks of stored weights as small integers: what each format means to an integer product.
//!
//! A format of 256-blocks is `d · scale[e / 16] · code[e] - dmin · min[e / 16]`, one of 32-blocks
//! `d · code[e] + m`, both with exact integers; floats are `d`, `dmin` and `m` alone. The layouts
//! are those of `crate::quant`, whose decoders are the test of this file.

use crate::quant::e8m0_to_f32;

/// A block of 256 weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block256 {
    pub d: f32,
    pub dmin: f32,
    pub codes: [i8; 256],
    pub scales: [i8; 16],
    pub mins: [u8; 16],
}

/// A block of 32 weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block32 {
    pub d: f32,
    pub m: f32,
    pub codes: [i8; 32],
}

/// A format of 256-blocks.
pub(super) trait Format256 {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether there are minima.
    const MINS: bool;

    /// `d` and `dmin` of a block of `BYTES` bytes.
    fn read_factors(block: &[u8]) -> (f32, f32);

    /// Scales and minima, one for each 16 elements.
    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]);

    /// Codes of all elements.
    fn read_codes(block: &[u8]) -> [i8; 256];

    /// Reads one block of `BYTES` bytes.
    fn read(block: &[u8]) -> Block256 {
        let ((d, dmin), (scales, mins)) = (Self::read_factors(block), Self::read_scales(block));
        Block256 { d, dmin, codes: Self::read_codes(block), scales, mins }
    }
}

/// A format of 32-blocks.
pub(super) trait Format32 {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether `m` counts.
    const MINS: bool;
    /// Whether an exponent a block lies elsewhere.
    const EXPONENTS: bool = false;

    /// `d` and `m` of a block of `BYTES` bytes; `exponent` is what lies elsewhere, or 0.
    fn read_factors(block: &[u8], exponent: u8) -> (f32, f32);

    /// Codes of all elements.
    fn read_codes(block: &[u8]) -> [i8; 32];

    /// Reads one block of `BYTES` bytes; `exponent` is what lies elsewhere, or 0.
    fn read(block: &[u8], exponent: u8) -> Block32 {
        let (d, m) = Self::read_factors(block, exponent);
        Block32 { d, m, codes: Self::read_codes(block) }
    }
}

pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;
pub(super) struct Iq4Xs;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;
pub(super) struct Iq4Nl;
/// ggml's MXFP4: the exponent lies in the block.
pub(super) struct MxFp4;
/// Bare E2M1 nibbles in order, whose exponents lie elsewhere.
pub(super) struct E2M1;

/// The levels of `IQ4_NL` and `IQ4_XS`.
pub(super) const IQ4_LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The numbers of E2M1, doubled.
pub(super) const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The scale of doubled E2M1 numbers: half of `2^(exponent - 127)`, NaN for 255.
#[inline]
pub(super) fn half_of_exponent(exponent: u8) -> f32 {
    e8m0_to_f32(exponent) * 0.5
}

#[inline(always)]
pub(super) fn read_f16(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

impl Format256 for Q2K {
    const BYTES: usize = 84;
    const MINS: bool = true;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 80), read_f16(block, 82))
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        (std::array::from_fn(|j| (block[j] & 15) as i8), std::array::from_fn(|j| block[j] >> 4))
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        pairs(&block[16..80])
    }
}

impl Format256 for Q3K {
    const BYTES: usize = 110;
    const MINS: bool = false;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 108), 0.0)
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        let packed = &block[96..108];
        let scale = |j: usize| {
            let low = (packed[j % 8] >> (j / 8 * 4)) & 15;
            let high = (packed[8 + j % 4] >> (j / 4 * 2)) & 3;
            (low | high << 4) as i8 - 32
        };
        (std::array::from_fn(scale), [0; 16])
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        let low = pairs(&block[32..96]);
        std::array::from_fn(|e| low[e] + (((block[e % 32] >> (e / 32)) & 1) << 2) as i8 - 4)
    }
}

impl Format256 for Q4K {
    const BYTES: usize = 144;
    const MINS: bool = true;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 0), read_f16(block, 2))
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        scales_and_mins(&block[4..16])
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        nibbles(&block[16..144])
    }
}

impl Format256 for Q5K {
    const BYTES: usize = 176;
    const MINS: bool = true;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 0), read_f16(block, 2))
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        scales_and_mins(&block[4..16])
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        let (low, fifths) = (nibbles(&block[48..176]), &block[16..48]);
        std::array::from_fn(|e| low[e] | (((fifths[e % 32] >> (e / 32)) & 1) << 4) as i8)
    }
}

impl Format256 for Q6K {
    const BYTES: usize = 210;
    const MINS: bool = false;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 208), 0.0)
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        (std::array::from_fn(|j| block[192 + j].cast_signed()), [0; 16])
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        std::array::from_fn(|e| {
            let (half, k, l) = (e / 128, e % 128 / 32, e % 32);
            let nibble = (block[64 * half + 32 * (k % 2) + l] >> (k / 2 * 4)) & 15;
            let upper = (block[128 + 32 * half + l] >> (2 * k)) & 3;
            (nibble | upper << 4) as i8 - 32
        })
    }
}

impl Format256 for Iq4Xs {
    const BYTES: usize = 136;
    const MINS: bool = false;

    fn read_factors(block: &[u8]) -> (f32, f32) {
        (read_f16(block, 0), 0.0)
    }

    fn read_scales(block: &[u8]) -> ([i8; 16], [u8; 16]) {
        let high = u16::from_le_bytes([block[2], block[3]]);
        let scale = |j: usize| {
            let low = (block[4 + j / 4] >> (j / 2 % 2 * 4)) & 15;
            (low | ((high >> (j / 2 * 2)) as u8 & 3) << 4) as i8 - 32
        };
        (std::array::from_fn(scale), [0; 16])
    }

    fn read_codes(block: &[u8]) -> [i8; 256] {
        std::array::from_fn(|e| {
            let nibbles = block[8 + e / 32 * 16 + e % 16] >> (e % 32 / 16 * 4);
            IQ4_LEVELS[usize::from(nibbles & 15)]
        })
    }
}

/// Scales and minima of `Q4_K` and `Q5_K`, each for both sixteens of its 32 elements.
fn scales_and_mins(packed: &[u8]) -> ([i8; 16], [u8; 16]) {
    let scale = |j: usize| match j {
        0..4 => packed[j] & 63,
        _ => packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
    };
    let min = |j: usize| match j {
        0..4 => packed[j + 4] & 63,
        _ => packed[j + 4] >> 4 | packed[j] >> 6 << 4,
    };
    (std::array::from_fn(|j| scale(j / 2) as i8), std::array::from_fn(|j| min(j / 2)))
}

/// The nibbles of `Q4_K`: of each 64 elements, the low ones are the first 32.
fn nibbles(bytes: &[u8]) -> [i8; 256] {
    std::array::from_fn(|e| (bytes[e / 64 * 32 + e % 32] >> (e % 64 / 32 * 4) & 15) as i8)
}

/// The pairs of bits of `Q2_K` and `Q3_K`.
fn pairs(bytes: &[u8]) -> [i8; 256] {
    std::array::from_fn(|e| (bytes[e / 128 * 32 + e % 32] >> (e % 128 / 32 * 2) & 3) as i8)
}

impl Format32 for Q4_0 {
    const BYTES: usize = 18;
    const MINS: bool = false;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| nibble(&block[2..], e) as i8 - 8)
    }
}

impl Format32 for Q4_1 {
    const BYTES: usize = 20;
    const MINS: bool = true;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), read_f16(block, 2))
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| nibble(&block[4..], e) as i8)
    }
}

impl Format32 for Q5_0 {
    const BYTES: usize = 22;
    const MINS: bool = false;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| (nibble(&block[6..], e) | fifth(&block[2..], e)) as i8 - 16)
    }
}

impl Format32 for Q5_1 {
    const BYTES: usize = 24;
    const MINS: bool = true;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), read_f16(block, 2))
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| (nibble(&block[8..], e) | fifth(&block[4..], e)) as i8)
    }
}

impl Format32 for Q8_0 {
    const BYTES: usize = 34;
    const MINS: bool = false;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| block[2 + e].cast_signed())
    }
}

impl Format32 for Iq4Nl {
    const BYTES: usize = 18;
    const MINS: bool = false;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (read_f16(block, 0), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| IQ4_LEVELS[usize::from(nibble(&block[2..], e))])
    }
}

impl Format32 for MxFp4 {
    const BYTES: usize = 17;
    const MINS: bool = false;

    fn read_factors(block: &[u8], _exponent: u8) -> (f32, f32) {
        (half_of_exponent(block[0]), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| E2M1_DOUBLED[usize::from(nibble(&block[1..], e))])
    }
}

impl Format32 for E2M1 {
    const BYTES: usize = 16;
    const MINS: bool = false;
    const EXPONENTS: bool = true;

    fn read_factors(_block: &[u8], exponent: u8) -> (f32, f32) {
        (half_of_exponent(exponent), 0.0)
    }

    fn read_codes(block: &[u8]) -> [i8; 32] {
        std::array::from_fn(|e| E2M1_DOUBLED[usize::from((block[e / 2] >> (e % 2 * 4)) & 15)])
    }
}

/// The nibble of an element of the simple formats: low ones are the first 16.
fn nibble(bytes: &[u8], element: usize) -> u8 {
    bytes[element % 16] >> (element / 16 * 4) & 15
}

/// The fifth bit of an element of `Q5_0` and `Q5_1`, in its place.
fn fifth(bytes: &[u8], element: usize) -> u8 {
    (bytes[element / 8] >> (element % 8) & 1) << 4
}
