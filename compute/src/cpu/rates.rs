//! How fast the processor does small things: what a planner wants to know of a machine.
//!
//! Each rate is the best of a few runs that take milliseconds together, so that what else runs on the
//! machine is not mistaken for the machine.
//!
//! Elsewhere: streaming reads ([`super::streaming`]).

use std::hint::black_box;
use std::time::Instant;

use super::{Cancel, Pool};
use crate::kernels::gate_scan;
use crate::quant::{Dtype, MatrixView};

/// The most of several short runs of something that counts what it does.
fn best_rate(runs: usize, mut run: impl FnMut() -> usize) -> f64 {
    let rate = |_| {
        let began = Instant::now();
        run() as f64 / began.elapsed().as_secs_f64().max(1e-9)
    };
    (0..runs).map(rate).fold(0.0, f64::max)
}

/// Multiply-adds a second of gate scans over one small layer.
pub fn operations_per_second(pool: &Pool) -> f64 {
    const SHAPE: (usize, usize) = (1024, 256);
    const SCANS: usize = 8;
    let bytes: Vec<u8> = [0x3e, 0x00].repeat(SHAPE.0 * SHAPE.1);
    let query = vec![0.5_f32; SHAPE.1];
    let gates = MatrixView::new(Dtype::F16, SHAPE.0, SHAPE.1, &bytes).expect("two bytes a number");
    best_rate(8, || {
        for _ in 0..SCANS {
            black_box(gate_scan(pool, &gates, black_box(&query), &Cancel::new())).ok();
        }
        SCANS * SHAPE.0 * SHAPE.1
    })
}

/// Reads a second along a chain that leads through memory larger than the caches.
pub fn random_reads_per_second() -> f64 {
    const PLACES: usize = 1 << 23;
    const READS: usize = 1 << 15;
    // A full cycle of all places (Hull and Dobell, 1962), far apart.
    let next = |at: usize| (at.wrapping_mul(0x0005_DEEC_E66D) + 0xB) % PLACES;
    let mut chain = vec![0_u32; PLACES];
    let mut at = 0;
    for _ in 0..PLACES {
        chain[at] = next(at) as u32;
        at = next(at);
    }
    let mut at = 0_usize;
    best_rate(4, || {
        for _ in 0..READS {
            at = chain[at] as usize;
        }
        black_box(at);
        READS
    })
}

/// Multiplications a second, one after another.
pub fn steps_per_second() -> f64 {
    const STEPS: usize = 1 << 18;
    let mut value = black_box(1_u64);
    best_rate(8, || {
        for _ in 0..STEPS {
            value = black_box(value.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 1);
        }
        STEPS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_a_positive_number() {
        let pool = Pool::new(2);
        for rate in [operations_per_second(&pool), random_reads_per_second(), steps_per_second()] {
            assert!(rate.is_finite() && rate > 1e4, "{rate}");
        }
    }
}
