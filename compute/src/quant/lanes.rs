//! Loops compiled for the widest lanes of this processor.

use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};

/// How a loop is run: as it is, or inlined into a function that may use wider lanes.
///
/// Rust neither reorders sums nor joins a multiplication with an addition, so that every version
/// gives the same bits.
#[inline(always)]
pub(super) fn with_widest_lanes<R>(run: impl FnOnce() -> R) -> R {
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

/// Sums `term(i)` for `i` below `L`, in eight lanes that are added in a fixed order.
#[inline(always)]
pub(super) fn sum<const L: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    for first in (0..L).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}
