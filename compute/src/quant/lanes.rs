//! Loops compiled for the widest lanes of this processor.

#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use crate::cpu::{Isa, fastest};

/// How a loop is run: as it is, or inlined into a function that may use wider lanes.
///
/// Rust neither reorders sums nor joins a multiplication with an addition, so that every version
/// gives the same bits.
#[inline(always)]
pub(crate) fn with_widest_lanes<R>(run: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        static WIDEST: LazyLock<Isa> = LazyLock::new(|| {
            let levels = [Isa::Scalar, Isa::Avx2, Isa::Avx512];
            let available = levels.into_iter().filter(|isa| *isa <= Isa::best());
            fastest(available.map(|isa| (isa, isa)).collect())
        });
        if *WIDEST >= Isa::Avx2 {
            // SAFETY: the processor has the features, as `fastest` offers nothing else.
            return unsafe { avx2(run) };
        }
    }
    run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<R>(run: impl FnOnce() -> R) -> R {
    run()
}

/// Adds 2²³ + 2²² and takes it away: rounds numbers below 2²² to the nearest whole, ties to even.
#[inline(always)]
pub(super) fn round(value: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    (value + WHOLE) - WHOLE
}

/// Sums `terms(i)` for `i` below `L`, each sum in eight lanes that are added in a fixed order.
#[inline(always)]
pub(super) fn sums<const L: usize, const K: usize>(terms: impl Fn(usize) -> [f32; K]) -> [f32; K] {
    let mut lanes = [[0.0_f32; 8]; K];
    for first in (0..L).step_by(8) {
        for lane in 0..8 {
            let terms = terms(first + lane);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    lanes.map(|[a, b, c, d, e, f, g, h]| ((a + e) + (b + f)) + ((c + g) + (d + h)))
}

/// One such sum.
#[inline(always)]
pub(super) fn sum<const L: usize>(term: impl Fn(usize) -> f32) -> f32 {
    sums::<L, 1>(|i| [term(i)])[0]
}

/// The smallest and the largest number, both at most and at least what `start` says; NaN is passed
/// over.
#[inline(always)]
pub(super) fn range<const L: usize>(part: &[f32; L], start: (f32, f32)) -> (f32, f32) {
    let (mut lows, mut highs) = ([start.0; 8], [start.1; 8]);
    for first in (0..L).step_by(8) {
        for lane in 0..8 {
            let value = part[first + lane];
            lows[lane] = if value < lows[lane] { value } else { lows[lane] };
            highs[lane] = if value > highs[lane] { value } else { highs[lane] };
        }
    }
    let low = lows.into_iter().fold(start.0, |low, lane| if lane < low { lane } else { low });
    let high = highs.into_iter().fold(start.1, |high, lane| if lane > high { lane } else { high });
    (low, high)
}

/// A whole number from 0 to 255 as a byte.
#[inline(always)]
pub(super) fn byte(whole: f32) -> u8 {
    // From 2^23 on, the last bits of a float count ones.
    (whole + 8_388_608.0).to_bits() as u8
}
