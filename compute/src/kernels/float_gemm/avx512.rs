//! Reachable only through `detect`, so holding the functions is the proof that they may run.
//!
//! Two registers of rows by twelve positions are 24 sums.

use std::arch::x86_64::*;
use std::ops::Range;

use super::loops::{self, Floats};
use super::{Chains, Variant, nothing};
use crate::cpu::Isa;
use crate::kernels::quantised::gemm::tile::{Line, ROWS};

/// Lanes of a register, and so of `dot` on this instruction set.
const LANES: usize = 16;
/// Positions of a panel.
const POSITIONS: usize = 12;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx512).then_some(Variant {
        lanes: LANES,
        positions: POSITIONS,
        // SAFETY: the closures leave this function only when the features were found.
        lay_out: |rows, chains, groups, lanes, weights| unsafe {
            lay_out(rows, chains, groups, lanes, weights);
        },
        // SAFETY: as above.
        walk: |chains, weights, x, lanes, sums| unsafe { walk(chains, weights, x, lanes, sums) },
        // SAFETY: as above.
        tail: |weights, x, sums| unsafe { tail(weights, x, sums) },
        // SAFETY: as above.
        chain: |weights, x, sums| unsafe { chain(weights, x, sums) },
    })
}

/// Runs `$run` with the number of positions as a constant.
macro_rules! for_positions {
    ($positions:expr, $run:ident $arguments:tt) => {
        match $positions {
            1 => for_positions!(@ $run 1 $arguments),
            2 => for_positions!(@ $run 2 $arguments),
            3 => for_positions!(@ $run 3 $arguments),
            4 => for_positions!(@ $run 4 $arguments),
            5 => for_positions!(@ $run 5 $arguments),
            6 => for_positions!(@ $run 6 $arguments),
            7 => for_positions!(@ $run 7 $arguments),
            8 => for_positions!(@ $run 8 $arguments),
            9 => for_positions!(@ $run 9 $arguments),
            10 => for_positions!(@ $run 10 $arguments),
            11 => for_positions!(@ $run 11 $arguments),
            12 => for_positions!(@ $run 12 $arguments),
            other => panic!("a panel of {other} positions"),
        }
    };
    (@ $run:ident $count:literal ($($argument:expr),*)) => {
        // SAFETY: the function around this enables what the registers stand for.
        unsafe { loops::$run::<__m512, $count>($($argument),*) }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn lay_out(
    rows: &[&[f32]; ROWS],
    chains: Chains,
    groups: Range<usize>,
    lanes: Range<usize>,
    weights: &mut [Line],
) {
    // SAFETY: this function enables what the registers stand for.
    unsafe { loops::lay_out::<__m512i>(rows, chains, groups, lanes, weights) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn walk(chains: Chains, weights: &[Line], x: &[f32], lanes: usize, sums: &mut [Line]) {
    for_positions!(sums.len(), walk(chains, weights, x, lanes, sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn tail(weights: &[Line], x: &[f32], sums: &mut [Line]) {
    // SAFETY: this function enables what the registers stand for.
    unsafe { loops::add_tail::<__m512>(weights, x, nothing(), sums) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn chain(weights: &[Line], x: &[f32], sums: &mut [Line]) {
    for_positions!(sums.len(), add_chain(weights, x, sums))
}

// A line begins at a cache line, and lanes are multiples of a register's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl Floats for __m512 {
    const COUNT: usize = LANES;

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        unsafe { _mm512_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(line: &Line, lane: usize) -> Self {
        unsafe { _mm512_load_ps(line.0[lane..][..LANES].as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, line: &mut Line, lane: usize) {
        unsafe { _mm512_store_ps(line.0[lane..][..LANES].as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn fma(self, factor: Self, sum: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }
}
