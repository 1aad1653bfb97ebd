//! The formats of stored weights: one enum, and one table of what each of them is.

use std::ops::Range;

use super::{ancestor, float8, fp4, fp8, iq4, k_quants, mxfp4, packed, q4, q5, q8};
use crate::kernels::convert;

/// Elements of the largest block of any format.
pub(super) const BLOCK_ELEMENTS_MAX: usize = 256;

/// The format of a stored matrix or vector.
///
/// A row is a whole number of blocks. Where a row's length is no multiple of the block, the last
/// block is padded, and what it holds beyond the row is never looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16, little-endian.
    F16,
    /// The upper half of an IEEE binary32, little-endian.
    BF16,
    /// One byte an element: 4 bits of exponent, 3 of mantissa, no infinities (OCP FP8 E4M3).
    F8E4M3,
    /// One byte an element: 5 bits of exponent, 2 of mantissa (OCP FP8 E5M2).
    F8E5M2,
    /// ggml: 4 bits and a scale for 32 elements.
    Q4_0,
    /// ggml: 4 bits, a scale and a minimum for 32 elements.
    Q4_1,
    /// ggml: 5 bits and a scale for 32 elements.
    Q5_0,
    /// ggml: 5 bits, a scale and a minimum for 32 elements.
    Q5_1,
    /// ggml: 8 bits and a scale for 32 elements.
    Q8_0,
    /// ggml: 2 bits, in blocks of 256 with sub-scales and sub-minima of 4 bits.
    Q2K,
    /// ggml: 3 bits, in blocks of 256 with sub-scales of 6 bits.
    Q3K,
    /// ggml: 4 bits, in blocks of 256 with sub-scales and sub-minima of 6 bits.
    Q4K,
    /// ggml: 5 bits, in blocks of 256 with sub-scales and sub-minima of 6 bits.
    Q5K,
    /// ggml: 6 bits, in blocks of 256 with sub-scales of 8 bits.
    Q6K,
    /// ggml: 4 bits that name one of 16 unevenly spaced levels, and a scale for 32 elements.
    Iq4Nl,
    /// ggml: the levels of `Iq4Nl`, in blocks of 256 with sub-scales of 6 bits.
    Iq4Xs,
    /// ggml: E2M1 elements and an E8M0 exponent for 32 elements.
    MxFp4,
    /// Ours: E2M1 elements, E4M3 sub-scales of 32 and a binary16 scale for 256 elements.
    Fp4,
    /// Ours: E4M3 elements and a binary16 scale for 256 elements.
    Fp8,
    /// The ancestor's `Fp4`, whose block scale is E4M3; read only.
    AncestorFp4,
    /// The ancestor's `Fp8`, whose block scale is E4M3; read only.
    AncestorFp8,
    /// `Q4_0` with the ancestor's order of elements; read only.
    AncestorQ4_0,
    /// `Q6K` with the ancestor's order of elements; read only.
    AncestorQ6K,
    /// E2M1 nibbles in order, whose exponents lie elsewhere ([`Scales::Mx`](super::Scales::Mx)).
    E2M1,
    /// Unsigned 4-bit integers in order, eight to a little-endian `u32`, whose scales lie
    /// elsewhere ([`Scales::Groups`](super::Scales::Groups)).
    U4,
    /// Unsigned 8-bit integers, four to a `u32`, whose scales lie elsewhere.
    U8,
}

/// Writes the numbers of a row's blocks; `out` may end within the last block.
pub(super) type Decode = fn(&[u8], &mut [f32]);
/// Writes the blocks of a row, the last one padded.
pub(super) type Encode = fn(&[f32], &mut [u8]);

/// What a format is: a row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// The name in manifests, in upper case.
    pub tag: &'static str,
    /// Elements of a block.
    pub elements: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Bytes to numbers.
    pub decode: Decode,
    /// Numbers to bytes, where we write the format.
    pub encode: Option<Encode>,
}

impl Dtype {
    /// Every dtype that this crate reads, in the order in which help and errors list them.
    pub const ALL: [Dtype; 27] = [
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::F8E4M3,
        Dtype::F8E5M2,
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q8_0,
        Dtype::Q2K,
        Dtype::Q3K,
        Dtype::Q4K,
        Dtype::Q5K,
        Dtype::Q6K,
        Dtype::Iq4Nl,
        Dtype::Iq4Xs,
        Dtype::MxFp4,
        Dtype::Fp4,
        Dtype::Fp8,
        Dtype::AncestorFp4,
        Dtype::AncestorFp8,
        Dtype::AncestorQ4_0,
        Dtype::AncestorQ6K,
        Dtype::E2M1,
        Dtype::U4,
        Dtype::U8,
    ];

    /// The dtypes whose elements are numbers by themselves, which the kernels read in place.
    pub const PLAIN: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

    /// The table.
    pub(super) const fn format(self) -> &'static Format {
        match self {
            Dtype::F32 => &PLAIN_F32,
            Dtype::F16 => &PLAIN_F16,
            Dtype::BF16 => &PLAIN_BF16,
            Dtype::F8E4M3 => &float8::E4M3,
            Dtype::F8E5M2 => &float8::E5M2,
            Dtype::Q4_0 => &q4::Q4_0,
            Dtype::Q4_1 => &q4::Q4_1,
            Dtype::Q5_0 => &q5::Q5_0,
            Dtype::Q5_1 => &q5::Q5_1,
            Dtype::Q8_0 => &q8::Q8_0,
            Dtype::Q2K => &k_quants::Q2_K,
            Dtype::Q3K => &k_quants::Q3_K,
            Dtype::Q4K => &k_quants::Q4_K,
            Dtype::Q5K => &k_quants::Q5_K,
            Dtype::Q6K => &k_quants::Q6_K,
            Dtype::Iq4Nl => &iq4::IQ4_NL,
            Dtype::Iq4Xs => &iq4::IQ4_XS,
            Dtype::MxFp4 => &mxfp4::MXFP4,
            Dtype::Fp4 => &fp4::FP4,
            Dtype::Fp8 => &fp8::FP8,
            Dtype::AncestorFp4 => &ancestor::FP4,
            Dtype::AncestorFp8 => &ancestor::FP8,
            Dtype::AncestorQ4_0 => &ancestor::Q4_0,
            Dtype::AncestorQ6K => &ancestor::Q6_K,
            Dtype::E2M1 => &mxfp4::E2M1,
            Dtype::U4 => &packed::U4,
            Dtype::U8 => &packed::U8,
        }
    }

    /// The length of a block in elements and in bytes; a plain dtype has blocks of one element.
    pub const fn block(self) -> (usize, usize) {
        let format = self.format();
        (format.elements, format.bytes)
    }

    /// The length in bytes of a row of so many elements, padded to whole blocks, or `None` where
    /// it does not fit `usize`.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let (block, bytes) = self.block();
        elements.div_ceil(block).checked_mul(bytes)
    }

    /// Whether elements are numbers by themselves: `f32`, `f16` or `bf16`.
    pub fn is_plain(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Whether [`from_f32`] writes this format.
    pub fn can_encode(self) -> bool {
        self.format().encode.is_some()
    }

    /// The dtype named by a tag, in upper or lower case, or `None` for a tag unknown here.
    pub fn from_tag(tag: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.tag().eq_ignore_ascii_case(tag))
    }

    /// The tag of manifests, of safetensors headers and of ggml, such as `F16` or `Q4_K`.
    pub fn tag(self) -> &'static str {
        self.format().tag
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.tag())
    }
}

/// The number of a plain element; panics if there are too few bytes or the dtype is not plain.
pub(super) fn plain_number(dtype: Dtype, bytes: &[u8], index: usize) -> f32 {
    let half = || [bytes[2 * index], bytes[2 * index + 1]];
    match dtype {
        Dtype::F16 => half::f16::from_le_bytes(half()).to_f32(),
        Dtype::BF16 => half::bf16::from_le_bytes(half()).to_f32(),
        _ => {
            assert_eq!(dtype, Dtype::F32, "not a plain dtype");
            let bytes = &bytes[4 * index..4 * index + 4];
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
    }
}

/// The number of a plain dtype that is nearest to `value`.
#[inline]
pub(super) fn round_to(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F16 => half::f16::from_f32(value).to_f32(),
        Dtype::BF16 => half::bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

static PLAIN_F32: Format = Format {
    tag: "F32",
    elements: 1,
    bytes: 4,
    decode: |bytes, out| convert::to_f32(Dtype::F32, bytes, out),
    encode: Some(|values, out| out.copy_from_slice(bytemuck::cast_slice(values))),
};

static PLAIN_F16: Format = Format {
    tag: "F16",
    elements: 1,
    bytes: 2,
    decode: |bytes, out| convert::to_f32(Dtype::F16, bytes, out),
    encode: Some(|values, out| {
        for (bytes, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            *bytes = half::f16::from_f32(value).to_le_bytes();
        }
    }),
};

static PLAIN_BF16: Format = Format {
    tag: "BF16",
    elements: 1,
    bytes: 2,
    decode: |bytes, out| convert::to_f32(Dtype::BF16, bytes, out),
    encode: Some(|values, out| {
        for (bytes, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            *bytes = half::bf16::from_f32(value).to_le_bytes();
        }
    }),
};

/// Converts a stored row to numbers, as the format defines them, in `f32`.
///
/// Of the formats whose scales lie elsewhere (`E2M1`, `U4`, `U8`, `F8_*` in blocks) these are the
/// elements alone; [`MatrixView`](super::MatrixView) applies the scales. A scale that is NaN or
/// infinite gives numbers that are.
///
/// # Shapes
/// `bytes`: `dtype.bytes_for(out.len())` bytes at any alignment; panics if their lengths differ.
pub fn to_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), dtype.bytes_for(out.len()), "bytes and numbers differ in count");
    (dtype.format().decode)(bytes, out);
}

/// Converts some elements of a stored row, which may begin and end within a block.
///
/// # Shapes
/// `row`: whole blocks; `elements`: within them; `out`: as long; panics otherwise.
pub(super) fn part_to_f32(dtype: Dtype, row: &[u8], elements: Range<usize>, out: &mut [f32]) {
    assert_eq!(elements.len(), out.len(), "elements and numbers differ in count");
    let (block, bytes) = dtype.block();
    let (mut first, mut out) = (elements.start / block, out);
    let within = elements.start % block;
    if within > 0 {
        let mut numbers = [0.0; BLOCK_ELEMENTS_MAX];
        let numbers = &mut numbers[..block];
        to_f32(dtype, &row[first * bytes..(first + 1) * bytes], numbers);
        let (head, rest) = out.split_at_mut(out.len().min(block - within));
        head.copy_from_slice(&numbers[within..within + head.len()]);
        (first, out) = (first + 1, rest);
    }
    let last = first + out.len().div_ceil(block);
    if last > first {
        to_f32(dtype, &row[first * bytes..last * bytes], out);
    }
}

/// Converts numbers to a stored row: the nearest that the format has, or the best quantisation
/// that we know of. The same numbers give the same bytes on every machine.
///
/// Plain dtypes round to the nearest, ties to even; what is too large becomes an infinity and NaN
/// stays NaN. Other formats saturate.
///
/// # Shapes
/// `out`: `dtype.bytes_for(values.len())` bytes; panics if their lengths differ, or if the dtype is
/// one that is only read ([`Dtype::can_encode`]).
pub fn from_f32(dtype: Dtype, values: &[f32], out: &mut [u8]) {
    assert_eq!(Some(out.len()), dtype.bytes_for(values.len()), "bytes and numbers differ in count");
    let encode = dtype.format().encode.unwrap_or_else(|| panic!("{dtype} is only read"));
    encode(values, out);
}

/// Decodes a row block by block; the last block may hold more than is asked for.
#[inline(always)]
pub(super) fn decode_blocks<const ELEMENTS: usize, const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    let (whole, rest) = out.as_chunks_mut::<ELEMENTS>();
    for (block, out) in blocks.iter().zip(whole.iter_mut()) {
        decode(block, out);
    }
    if let (Some(block), false) = (blocks.get(whole.len()), rest.is_empty()) {
        let mut numbers = [0.0; ELEMENTS];
        decode(block, &mut numbers);
        rest.copy_from_slice(&numbers[..rest.len()]);
    }
}

/// Encodes a row block by block; a last block that is not full is filled with its own numbers,
/// over and over, so that padding bends no scale.
#[inline(always)]
pub(super) fn encode_blocks<const ELEMENTS: usize, const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; ELEMENTS], &mut [u8; BYTES]),
) {
    let (whole, rest) = values.as_chunks::<ELEMENTS>();
    let blocks = out.as_chunks_mut::<BYTES>().0;
    for (values, block) in whole.iter().zip(blocks.iter_mut()) {
        encode(values, block);
    }
    if let (Some(block), false) = (blocks.get_mut(whole.len()), rest.is_empty()) {
        let padded: [f32; ELEMENTS] = std::array::from_fn(|index| rest[index % rest.len()]);
        encode(&padded, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_its_dtype_in_either_case_and_nothing_else() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_tag(dtype.tag()), Some(dtype));
            assert_eq!(Dtype::from_tag(&dtype.tag().to_lowercase()), Some(dtype));
            assert!(dtype.block().0 <= BLOCK_ELEMENTS_MAX);
        }
        assert_eq!(Dtype::from_tag("I8"), None);
        assert_eq!(Dtype::from_tag(""), None);
    }

    #[test]
    fn a_length_that_overflows_is_none() {
        assert_eq!(Dtype::F32.bytes_for(usize::MAX / 2), None);
        assert_eq!(Dtype::BF16.bytes_for(3), Some(6));
        assert_eq!(Dtype::Q4K.bytes_for(2880), Some(12 * 144));
        assert_eq!(Dtype::Q4_0.bytes_for(0), Some(0));
    }

    #[test]
    fn every_half_survives_the_trip_through_f32() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut numbers = vec![0.0; 1 << 16];
            to_f32(dtype, &bytes, &mut numbers);
            let mut back = vec![0; bytes.len()];
            from_f32(dtype, &numbers, &mut back);
            for (index, (was, is)) in bytes.chunks(2).zip(back.chunks(2)).enumerate() {
                assert!(was == is || numbers[index].is_nan(), "{dtype} {index:#06x}");
            }
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        let mut bytes = [0; 2];
        from_f32(Dtype::BF16, &[f32::from_bits(0x3f80_8000)], &mut bytes);
        assert_eq!(u16::from_le_bytes(bytes), 0x3f80);
        from_f32(Dtype::BF16, &[f32::from_bits(0x3f81_8000)], &mut bytes);
        assert_eq!(u16::from_le_bytes(bytes), 0x3f82);
        from_f32(Dtype::F16, &[1e9], &mut bytes);
        assert_eq!(u16::from_le_bytes(bytes), 0x7c00);
    }
}
