//! Floats of 8 and 4 bits: E4M3, E5M2, E8M0 and E2M1, the parts of the small formats.
//!
//! Source: OCP 8-bit Floating Point Specification (OFP8) 1.0, and OCP Microscaling Formats (MX)
//! 1.0 for E8M0 and E2M1.

use super::dtype::Format;

/// The largest number of E4M3.
pub(super) const E4M3_MAX: f32 = 448.0;

/// The largest number of E2M1.
pub(super) const E2M1_MAX: f32 = 6.0;

/// One byte an element, E4M3.
pub(super) static E4M3: Format = Format {
    tag: "F8_E4M3",
    elements: 1,
    bytes: 1,
    decode: |bytes, out| look_up(&E4M3_NUMBERS, bytes, out),
    encode: Some(|values, out| {
        out.iter_mut().zip(values).for_each(|(byte, &value)| *byte = e4m3_from_f32(value));
    }),
};

/// One byte an element, E5M2.
pub(super) static E5M2: Format = Format {
    tag: "F8_E5M2",
    elements: 1,
    bytes: 1,
    decode: |bytes, out| look_up(&E5M2_NUMBERS, bytes, out),
    encode: Some(|values, out| {
        out.iter_mut().zip(values).for_each(|(byte, &value)| *byte = e5m2_from_f32(value));
    }),
};

/// The number of every E4M3 code.
pub(super) static E4M3_NUMBERS: [f32; 256] = numbers(3, false);

/// The number of every E5M2 code.
static E5M2_NUMBERS: [f32; 256] = numbers(2, true);

/// The numbers of the E2M1 codes: the upper eight are the lower ones, negated.
pub(super) const E2M1_NUMBERS: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Writes the number of each byte.
pub(super) fn look_up(numbers: &[f32; 256], bytes: &[u8], out: &mut [f32]) {
    out.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = numbers[usize::from(byte)]);
}

/// The numbers of a format of 8 bits with so many bits of mantissa; `infinities` as in IEEE 754,
/// otherwise only the code of all ones is no number.
const fn numbers(mantissa_bits: u32, infinities: bool) -> [f32; 256] {
    let exponent_max = (1 << (7 - mantissa_bits)) - 1;
    let bias = exponent_max / 2;
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let exponent = (code as u32 >> mantissa_bits) & exponent_max;
        let mantissa = code as u32 & ((1 << mantissa_bits) - 1);
        let all_ones = mantissa == (1 << mantissa_bits) - 1;
        let size = if exponent == exponent_max && infinities && mantissa == 0 {
            f32::INFINITY
        } else if exponent == exponent_max && (infinities || all_ones) {
            f32::NAN
        } else {
            let (whole, exponent) = if exponent == 0 {
                (mantissa, 1)
            } else {
                (mantissa + (1 << mantissa_bits), exponent)
            };
            whole as f32 * power_of_two(exponent as i32 - bias as i32 - mantissa_bits as i32)
        };
        table[code] = if code < 128 { size } else { -size };
        code += 1;
    }
    table
}

/// `2^exponent`, for normal numbers.
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The number of an E8M0 code, `2^(code - 127)`; 255 is NaN.
#[inline]
pub(crate) fn e8m0_to_f32(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        code => f32::from_bits(u32::from(code) << 23),
    }
}

/// The nearest E4M3 code, ties to even; what is too large, infinities included, becomes the
/// largest number, NaN stays NaN.
#[inline]
pub(super) fn e4m3_from_f32(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    narrow(value, 3, 6, 0x7e)
}

/// The nearest E5M2 code, ties to even; what is too large, infinities included, becomes the
/// largest number, NaN stays NaN.
#[inline]
fn e5m2_from_f32(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    narrow(value, 2, 14, 0x7b)
}

/// Rounds to a format of 8 bits: `mantissa_bits` of mantissa, least normal exponent
/// `-exponent_min`, largest finite code `code_max`.
#[inline]
fn narrow(value: f32, mantissa_bits: u32, exponent_min: i32, code_max: u8) -> u8 {
    let sign = ((value.to_bits() >> 24) & 0x80) as u8;
    let size = value.abs();
    let code = if size < power_of_two(-exponent_min) {
        // Subnormal numbers are evenly spaced: adding 2^23 steps rounds to a whole number of them.
        let steps = size * power_of_two(exponent_min + mantissa_bits as i32);
        (steps + 8_388_608.0).to_bits() & 0xff
    } else {
        let bits = size.to_bits();
        let dropped = 23 - mantissa_bits;
        let odd = (bits >> dropped) & 1;
        let rounded = (bits + (1 << (dropped - 1)) - 1 + odd) >> dropped;
        // The exponent of the format is that of f32 less 127, plus its own bias.
        rounded - (((127 - exponent_min - 1) as u32) << mantissa_bits)
    };
    sign | code.min(u32::from(code_max)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_trip_through_f32() {
        for code in 0..=255_u8 {
            let e4m3 = E4M3_NUMBERS[usize::from(code)];
            assert!(e4m3.is_nan() || e4m3_from_f32(e4m3) == code, "E4M3 {code:#04x} {e4m3}");
            let e5m2 = E5M2_NUMBERS[usize::from(code)];
            assert!(!e5m2.is_finite() || e5m2_from_f32(e5m2) == code, "E5M2 {code:#04x} {e5m2}");
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_code_and_ties_to_the_even_one() {
        for (numbers, encode, last) in [
            (&E4M3_NUMBERS, e4m3_from_f32 as fn(f32) -> u8, 0x7e),
            (&E5M2_NUMBERS, e5m2_from_f32 as fn(f32) -> u8, 0x7b),
        ] {
            for code in 0..last {
                let (low, high) = (numbers[usize::from(code)], numbers[usize::from(code) + 1]);
                let middle = (low + high) / 2.0;
                let even = if code % 2 == 0 { code } else { code + 1 };
                assert_eq!(encode(middle), even, "between {low} and {high}");
                assert_eq!(encode(middle.next_down()), code);
                assert_eq!(encode(middle.next_up()), code + 1);
                assert_eq!(encode(-middle), even | 0x80);
            }
            assert_eq!(encode(1e9), last);
            assert_eq!(encode(f32::NEG_INFINITY), last | 0x80);
            assert!(numbers[usize::from(encode(f32::NAN))].is_nan());
        }
    }

    #[test]
    fn exponents_are_powers_of_two_down_to_the_subnormal_one() {
        assert_eq!(e8m0_to_f32(127), 1.0);
        assert_eq!(e8m0_to_f32(0), 2.0_f32.powi(-126) / 2.0);
        assert_eq!(e8m0_to_f32(254), 2.0_f32.powi(127));
        assert!(e8m0_to_f32(255).is_nan());
    }
}
