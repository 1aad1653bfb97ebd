//! The plain dtypes, one number an element: `f32`, `f16` (IEEE binary16) and `bf16`.

use crate::kernels::convert;

/// The format of a stored matrix or vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16, little-endian.
    F16,
    /// The upper half of an IEEE binary32, little-endian.
    BF16,
}

impl Dtype {
    /// Every dtype that this crate reads, in the order in which help and errors list them.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

    /// The length in bytes of a row of so many elements, or `None` where it does not fit `usize`.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        match self {
            Dtype::F32 => elements.checked_mul(4),
            Dtype::F16 | Dtype::BF16 => elements.checked_mul(2),
        }
    }

    /// The dtype named by a tag, in upper or lower case, or `None` for a tag unknown here.
    pub fn from_tag(tag: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.tag().eq_ignore_ascii_case(tag))
    }

    /// The tag of manifests and of safetensors headers: `F32`, `F16` or `BF16`.
    pub fn tag(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.tag())
    }
}

/// Converts stored bytes to numbers, without loss.
///
/// # Shapes
/// `bytes`: `dtype.bytes_for(out.len())` bytes at any alignment; panics if their lengths differ.
pub fn to_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), dtype.bytes_for(out.len()), "bytes and numbers differ in count");
    convert::to_f32(dtype, bytes, out);
}

/// Converts numbers to stored bytes, rounding to the nearest, ties to even.
///
/// What is too large for the format becomes an infinity; NaN stays NaN.
///
/// # Shapes
/// `out`: `dtype.bytes_for(values.len())` bytes; panics if their lengths differ.
pub fn from_f32(dtype: Dtype, values: &[f32], out: &mut [u8]) {
    assert_eq!(Some(out.len()), dtype.bytes_for(values.len()), "bytes and numbers differ in count");
    match dtype {
        Dtype::F32 => out.copy_from_slice(bytemuck::cast_slice(values)),
        Dtype::F16 => {
            for (bytes, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = half::f16::from_f32(value).to_le_bytes();
            }
        }
        Dtype::BF16 => {
            for (bytes, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = half::bf16::from_f32(value).to_le_bytes();
            }
        }
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
        }
        assert_eq!(Dtype::from_tag("I8"), None);
        assert_eq!(Dtype::from_tag(""), None);
    }

    #[test]
    fn a_length_that_overflows_is_none() {
        assert_eq!(Dtype::F32.bytes_for(usize::MAX / 2), None);
        assert_eq!(Dtype::BF16.bytes_for(3), Some(6));
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
