//! The loops, once for every register of floats; compiled into each variant.

use super::{Chains, REGISTERS};
use crate::kernels::quantised::gemm::lanes::{Lanes, Pointers};
use crate::kernels::quantised::gemm::tile::{Line, ROWS};

/// A register of floats.
///
/// # Safety
/// Methods may be called only where the variant that implements them may run. They are inlined
/// into functions that enable its instructions.
pub(super) trait Floats: Copy {
    /// How many floats.
    const COUNT: usize;

    /// The same number in every lane.
    unsafe fn splat(number: f32) -> Self;
    /// The numbers of a line from a lane on; they lie at a multiple of the register's size.
    unsafe fn load(line: &Line, lane: usize) -> Self;
    /// The opposite of [`load`](Floats::load).
    unsafe fn store(self, line: &mut Line, lane: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + sum`, rounded once.
    unsafe fn fma(self, factor: Self, sum: Self) -> Self;
}

/// Both registers of a line from a lane on.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn load_2<F: Floats>(line: &Line, lane: usize) -> [F; 2] {
    // SAFETY: the caller's promise, here and below: `F` may be used.
    unsafe { [F::load(line, lane), F::load(line, lane + F::COUNT)] }
}

/// One chain over some columns: weights `[columns]`, activations `[columns][P]`.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn chain<F: Floats, const P: usize>(
    weights: &[Line],
    x: &[f32],
    lane: usize,
) -> [[F; 2]; P] {
    // SAFETY: as above.
    unsafe {
        let mut sums = [[F::splat(0.0); 2]; P];
        for (weights, x) in weights.iter().zip(x.as_chunks::<P>().0) {
            let weights = load_2::<F>(weights, lane);
            for p in 0..P {
                let x = F::splat(x[p]);
                for side in 0..2 {
                    sums[p][side] = weights[side].fma(x, sums[p][side]);
                }
            }
        }
        sums
    }
}

/// [`Walk`](super::Walk) for `P` positions.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
pub(super) unsafe fn walk<F: Floats, const P: usize>(
    chains: Chains,
    weights: &[Line],
    x: &[f32],
    lanes: usize,
    sums: &mut [Line],
) {
    let each = chains.a_lane();
    assert!(weights.len() >= lanes * each && x.len() == lanes * each * P && sums.len() == P);
    let lengths = [chains.first, chains.others, chains.others, chains.others];
    for side in (0..ROWS).step_by(2 * F::COUNT) {
        for lane in 0..lanes {
            let mut at = lane * each;
            // SAFETY: as above.
            unsafe {
                let mut found = [[[F::splat(0.0); 2]; P]; REGISTERS];
                for (found, length) in found.iter_mut().zip(lengths) {
                    let x = &x[at * P..(at + length) * P];
                    *found = chain::<F, P>(&weights[at..at + length], x, side);
                    at += length;
                }
                for p in 0..P {
                    let sum = load_2::<F>(&sums[p], side);
                    for half in 0..2 {
                        let low = found[0][p][half].add(found[1][p][half]);
                        let high = found[2][p][half].add(found[3][p][half]);
                        let sum = sum[half].add(low.add(high));
                        sum.store(&mut sums[p], side + half * F::COUNT);
                    }
                }
            }
        }
    }
}

/// Adds the sum of a chain; [`Columns`](super::Columns) for `P` positions.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
pub(super) unsafe fn add_chain<F: Floats, const P: usize>(
    weights: &[Line],
    x: &[f32],
    sums: &mut [Line],
) {
    assert!(x.len() == weights.len() * P && sums.len() == P);
    for side in (0..ROWS).step_by(2 * F::COUNT) {
        // SAFETY: as above.
        unsafe {
            let found = chain::<F, P>(weights, x, side);
            for p in 0..P {
                let sum = load_2::<F>(&sums[p], side);
                for half in 0..2 {
                    let sum = sum[half].add(found[p][half]);
                    sum.store(&mut sums[p], side + half * F::COUNT);
                }
            }
        }
    }
}

/// Adds the sum of rounded products, begun with `nothing`, for any number of positions.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
pub(super) unsafe fn add_tail<F: Floats>(
    weights: &[Line],
    x: &[f32],
    nothing: f32,
    sums: &mut [Line],
) {
    let positions = sums.len();
    assert_eq!(x.len(), weights.len() * positions, "columns and positions differ");
    for (p, sums) in sums.iter_mut().enumerate() {
        for lane in (0..ROWS).step_by(F::COUNT) {
            // SAFETY: as above.
            unsafe {
                let mut tail = F::splat(nothing);
                for (weights, x) in weights.iter().zip(x.chunks_exact(positions)) {
                    tail = tail.add(F::load(weights, lane).mul(F::splat(x[p])));
                }
                F::load(sums, lane).add(tail).store(sums, lane);
            }
        }
    }
}

/// [`LayOut`](super::LayOut), by registers of words.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
pub(super) unsafe fn lay_out<V: Lanes>(
    rows: &[&[f32]; ROWS],
    chains: Chains,
    groups: std::ops::Range<usize>,
    lanes: std::ops::Range<usize>,
    weights: &mut [Line],
) {
    let columns = groups.len() * chains.lanes;
    assert!(rows.iter().all(|row| row.len() >= columns), "rows without those columns");
    assert!(lanes.end <= chains.lanes && lanes.len().is_multiple_of(4), "no whole quads of lanes");
    let each = chains.a_lane();
    for side in (0..ROWS).step_by(V::COUNT) {
        let mut starts: Pointers = [std::ptr::null(); 16];
        for (start, row) in starts.iter_mut().zip(&rows[side..side + V::COUNT]) {
            *start = row.as_ptr().cast::<u8>();
        }
        for (index, group) in groups.clone().enumerate() {
            let place = chains.place(group);
            for lane in lanes.clone().step_by(4) {
                // SAFETY: four floats of the group, which every row has; `V` may be used.
                unsafe {
                    let at = 4 * (index * chains.lanes + lane);
                    let words = V::words_4(&starts, at);
                    for (next, words) in words.into_iter().enumerate() {
                        let line = (lane - lanes.start + next) * each + place;
                        words.store(&mut weights[line], side);
                    }
                }
            }
        }
    }
}
