//! Rows as bytes, with rounding that owes nothing to the numbers rounded.
//!
//! A number `x` becomes `floor(x / step + r)` with `r` uniform in [0, 1) from a fixed table, so
//! that it is right on average whatever the rows are, and its error is below one step. The errors
//! of one row are independent of each other and of those of the other side, which has its own
//! table; what that says about a sum of products stands in `shortlist`.

use std::sync::LazyLock;

use crate::cpu::{compiled_for_each_isa, fastest};
use crate::kernels::dot::dot_f64;
use crate::kernels::int8_product::{CODE_MAX, LANE_OFFSET};

/// Rows of a table differ in where they start to read it: so many places, this far apart.
const STARTS: usize = 256;
const START_STEP: usize = 16;

/// The random part of rounding, the same in every run.
pub(super) struct Dither(Vec<f32>);

impl Dither {
    /// A table for rows of `width` numbers; sides that meet in a product take different seeds.
    pub(super) fn new(width: usize, seed: u64) -> Dither {
        let mut state = seed;
        let number = |_| {
            // SplitMix64 (Steele, Lea and Flood 2014); fifteen bits, so that sums below are exact.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            f32::from(LANE_OFFSET) + ((bits ^ (bits >> 31)) >> 49) as f32 / 32_768.0
        };
        Dither((0..width + STARTS * START_STEP).map(number).collect())
    }

    fn of(&self, row: usize, width: usize) -> &[f32] {
        let start = row.wrapping_mul(0x9e37_79b9) % STARTS * START_STEP;
        &self.0[start..start + width]
    }

    /// The codes of a row, each [`LANE_OFFSET`] above its value: `largest` has that of [`CODE_MAX`].
    ///
    /// `row` picks the part of the table; `largest` is the largest magnitude among `values`, above
    /// 1e-30 and finite. What is beyond the values in `codes` is left alone.
    pub(super) fn encode(&self, row: usize, values: &[f32], largest: f32, codes: &mut [u8]) {
        static FASTEST: LazyLock<Encode> = LazyLock::new(|| {
            fastest(compiled_for_each_isa!(
                encode,
                fn(values: &[f32], dither: &[f32], inverse: f32, codes: &mut [u8])
            ))
        });
        let inverse = f32::from(CODE_MAX) / largest;
        FASTEST(values, self.of(row, values.len()), inverse, codes);
    }
}

type Encode = fn(&[f32], &[f32], f32, &mut [u8]);

/// Shifts values by their dither and cuts off what is behind the point: `|value * inverse|` is at
/// most [`CODE_MAX`], but for rounding.
#[inline(always)]
fn encode(values: &[f32], dither: &[f32], inverse: f32, codes: &mut [u8]) {
    for ((code, &value), &dither) in codes.iter_mut().zip(values).zip(dither) {
        let shifted = value * inverse + dither;
        // SAFETY: this is at least 128 - 127 and below 256: sixteen bits behind the point hold it
        // exactly but for the product's rounding.
        *code = unsafe { shifted.to_int_unchecked::<i32>() } as u8;
    }
}

/// The largest magnitude and the length of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Size {
    /// Undefined where the length is not finite.
    pub(super) largest: f32,
    /// Infinite or NaN where a number is.
    pub(super) norm: f64,
}

impl Size {
    pub(super) fn of(row: &[f32]) -> Size {
        // Magnitudes of floats order as their bits do; sixteen at once, as no `max` of floats can.
        let magnitude = |value: f32| (value.to_bits() & 0x7fff_ffff).cast_signed();
        let (chunks, rest) = row.as_chunks::<16>();
        let mut lanes = [0; 16];
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = magnitude(value).max(*lane);
            }
        }
        let largest = rest.iter().map(|&value| magnitude(value)).chain(lanes).fold(0, i32::max);
        let largest = f32::from_bits(largest.cast_unsigned());
        Size { largest, norm: dot_f64(row, row).sqrt() }
    }

    /// Whether bytes can stand for the row; a row of zeros counts as one.
    pub(super) fn is_tame(self) -> bool {
        self.norm == 0.0 || self.norm.is_finite() && self.largest > 1e-30
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_within_a_step_and_right_on_average() {
        let width = 400;
        let dither = Dither::new(width, 7);
        let values: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let largest = Size::of(&values).largest;
        let step = f64::from(largest) / 127.0;
        let mut bias = 0.0;
        for row in 0..STARTS {
            let mut codes = vec![0; width];
            dither.encode(row, &values, largest, &mut codes);
            for (&code, &value) in codes.iter().zip(&values) {
                let error = (f64::from(code) - 128.0) * step - f64::from(value);
                assert!(error.abs() < step * 1.001, "{value}: {error} of {step}");
                bias += error / step;
            }
        }
        // The table repeats itself over rows, so it is `width + 4096` numbers that average.
        assert!((bias / (STARTS * width) as f64).abs() < 0.02, "{bias}");
    }

    #[test]
    fn the_extremes_keep_their_place() {
        let dither = Dither::new(2, 1);
        for largest in [1e-29_f32, 0.3, 1.0, 3e38] {
            for row in 0..STARTS {
                let mut codes = [0; 2];
                dither.encode(row, &[largest, -largest], largest, &mut codes);
                assert!(codes[0] >= 254 && codes[1] <= 2, "{largest} {codes:?}");
            }
        }
    }
}
