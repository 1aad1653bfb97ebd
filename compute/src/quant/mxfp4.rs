//! MXFP4 in two forms: ggml's blocks, and the bare nibbles that GPT-OSS publishes.
//!
//! `MXFP4` (ggml), 32 elements: the E8M0 exponent, then 16 bytes; the low nibble of byte `j` is
//! element `j`, the high one element `j + 16`. `E2M1` (safetensors): 16 bytes for 32 elements, the
//! low nibble of byte `j` is element `2 j`, the high one `2 j + 1`; exponents are another tensor.
//! Either way a number is `E2M1 * 2^(exponent - 127)`.

use super::dtype::{Format, decode_blocks, encode_blocks};
use super::float8::{E2M1_MAX, E2M1_NUMBERS, e8m0_to_f32};
use super::q8::farthest;

/// Elements that share an exponent.
const ELEMENTS: usize = 32;

pub(super) static MXFP4: Format = Format {
    tag: "MXFP4",
    elements: ELEMENTS,
    bytes: 17,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 17>(bytes, out, |block, out| {
            let scale = e8m0_to_f32(block[0]);
            for (j, &byte) in block[1..].iter().enumerate() {
                out[j] = E2M1_NUMBERS[usize::from(byte & 15)] * scale;
                out[j + 16] = E2M1_NUMBERS[usize::from(byte >> 4)] * scale;
            }
        });
    },
    encode: Some(|values, out| {
        encode_blocks::<ELEMENTS, 17>(values, out, |values, block| {
            block[0] = best_exponent(values);
            let inverse = inverse_of_exponent(block[0]);
            for (j, byte) in block[1..].iter_mut().enumerate() {
                *byte = e2m1_from_f32(values[j] * inverse)
                    | e2m1_from_f32(values[j + 16] * inverse) << 4;
            }
        });
    }),
};

pub(super) static E2M1: Format = Format {
    tag: "E2M1",
    elements: ELEMENTS,
    bytes: 16,
    decode: |bytes, out| {
        decode_blocks::<ELEMENTS, 16>(bytes, out, |block, out| unpack_e2m1(block, 1.0, out));
    },
    encode: None,
};

/// Unpacks nibbles in order and multiplies them; `out` is twice as long as `nibbles`.
#[inline(always)]
pub(super) fn unpack_e2m1(nibbles: &[u8], scale: f32, out: &mut [f32]) {
    for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(nibbles) {
        pair[0] = E2M1_NUMBERS[usize::from(byte & 15)] * scale;
        pair[1] = E2M1_NUMBERS[usize::from(byte >> 4)] * scale;
    }
}

/// The nearest E2M1 code, ties to the even code; what is too large becomes ±6, NaN becomes 0.
#[inline(always)]
pub(super) fn e2m1_from_f32(value: f32) -> u8 {
    let size = value.abs();
    let code = u32::from(size > 0.25)
        + u32::from(size >= 0.75)
        + u32::from(size > 1.25)
        + u32::from(size >= 1.75)
        + u32::from(size > 2.5)
        + u32::from(size >= 3.5)
        + u32::from(size > 5.0);
    code as u8 | ((value.to_bits() >> 28) & 8) as u8
}

/// The nearest number of E2M1.
#[inline(always)]
pub(super) fn round_to_e2m1(value: f32) -> f32 {
    let size = value.abs();
    // Steps of ½ below 2, of 1 below 4, of 2 above: adding 2^23 steps rounds to a whole number.
    let round = |step: f32| (size + step * 8_388_608.0) - step * 8_388_608.0;
    let fine = round(0.5);
    let middle = round(1.0);
    let coarse = round(2.0).min(E2M1_MAX);
    let rounded = if size < 2.0 {
        fine
    } else if size < 4.0 {
        middle
    } else {
        coarse
    };
    rounded.copysign(value)
}

/// The exponent whose rounding errors are least, of those around the largest value's.
fn best_exponent(values: &[f32; ELEMENTS]) -> u8 {
    let size = farthest(values).abs();
    // The biased exponent of the largest value, less the 2 of the largest E2M1 number.
    let usual = ((size.to_bits() >> 23) as u8).saturating_sub(2);
    let mut best = (usual.min(254), f32::INFINITY);
    for exponent in usual.saturating_sub(1)..=usual.saturating_add(1).min(254) {
        let (scale, inverse) = (e8m0_to_f32(exponent), inverse_of_exponent(exponent));
        let mut error = 0.0;
        for &value in values {
            let off = value - round_to_e2m1(value * inverse) * scale;
            error += off * off;
        }
        if error < best.1 {
            best = (exponent, error);
        }
    }
    best.0
}

/// `2^(127 - exponent)`, exactly but for the largest exponents, whose inverse is subnormal.
#[inline(always)]
fn inverse_of_exponent(exponent: u8) -> f32 {
    1.0 / e8m0_to_f32(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_the_nearest_number_and_ties_go_to_the_even_code() {
        for step in -1700..=1700 {
            let value = step as f32 / 256.0;
            let code = e2m1_from_f32(value);
            let number = E2M1_NUMBERS[usize::from(code)];
            assert_eq!(number.to_bits(), round_to_e2m1(value).to_bits(), "{value}");
            for (other, &level) in E2M1_NUMBERS.iter().enumerate() {
                let (is, might) = ((value - number).abs(), (value - level).abs());
                let tie =
                    is == might && (code.is_multiple_of(2) || other % 2 == 1 || level == number);
                assert!(is < might || tie, "{value}: {number} or {level}");
            }
        }
        assert_eq!(e2m1_from_f32(1e9), 7);
        assert_eq!(e2m1_from_f32(f32::NEG_INFINITY), 15);
    }
}
