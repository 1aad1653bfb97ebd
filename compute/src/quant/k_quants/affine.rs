//! The quantiser of the k-quants with minima (`Q2_K`, `Q4_K`, `Q5_K`): the search for scales.
//!
//! Everything minimises the sum of squared errors of the block as it will be decoded.
//!
//! 1. For each sub-block alone, several ranges of codes are laid over its values; the scale and
//!    minimum that fit the codes best (least squares) replace the range, and are improved by
//!    rounding and fitting again.
//! 2. The block's `d` and `dmin` come from the largest of both. For each sub-block the whole-number
//!    scales and minima around the ideal ones are tried, with codes rounded anew for each.
//! 3. `d` and `dmin` are fitted to all codes (least squares) and step 2 is repeated with them; the
//!    best round is kept.

use half::f16;

use super::super::lanes::{byte, range, round, sum, sums};
use super::{ELEMENTS, round_up};

/// How finely a format quantises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// The largest code of an element.
    pub code_max: f32,
    /// The largest code of a sub-scale or a minimum.
    pub scale_max: f32,
    /// By how much the ranges tried in step 1 exceed `code_max`.
    pub stretches: &'static [f32],
}

/// A block of `N` sub-blocks, quantised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<const N: usize> {
    pub d: f16,
    pub dmin: f16,
    pub scales: [u8; N],
    pub mins: [u8; N],
    pub codes: [u8; ELEMENTS],
}

/// Rounds of steps 2 and 3.
const ROUNDS: usize = 2;

/// Quantises a block as `N` sub-blocks of `L` elements; `N * L` is 256.
#[inline(always)]
pub(super) fn quantise<const N: usize, const L: usize>(
    values: &[f32; ELEMENTS],
    levels: Levels,
) -> Affine<N> {
    let parts = values.as_chunks::<L>().0;
    let mut ideal = [Fit::default(); N];
    for (fit, part) in ideal.iter_mut().zip(parts) {
        *fit = fit_alone(part, levels);
    }
    let largest = |of: fn(&Fit) -> f32| ideal.iter().map(of).fold(0.0, f32::max);
    let mut d = round_up(largest(|fit| fit.scale) / levels.scale_max);
    let mut dmin = round_up(largest(|fit| fit.min) / levels.scale_max);
    let mut choice = [(0.0, 0.0); N];
    for (choice, fit) in choice.iter_mut().zip(&ideal) {
        *choice = (whole(fit.scale, d, levels), whole(fit.min, dmin, levels));
    }
    let (mut best, mut best_error) = ((d, dmin, choice), f32::INFINITY);
    for round in 0..ROUNDS {
        let (scale, min) = (d.to_f32(), dmin.to_f32());
        let mut error = 0.0;
        for (choice, part) in choice.iter_mut().zip(parts) {
            let (chosen, least) = choose(part, *choice, scale, min, levels);
            (*choice, error) = (chosen, error + least);
        }
        if error < best_error {
            (best, best_error) = ((d, dmin, choice), error);
        } else if round > 0 {
            break;
        }
        if round + 1 < ROUNDS {
            (d, dmin) = fit_block(parts, &choice, d, dmin, levels);
        }
    }
    let (d, dmin, choice) = best;
    let mut block = Affine { d, dmin, scales: [0; N], mins: [0; N], codes: [0; ELEMENTS] };
    let outs = block.codes.as_chunks_mut::<L>().0;
    for (index, ((scale, min), part)) in choice.into_iter().zip(parts).enumerate() {
        (block.scales[index], block.mins[index]) = (scale as u8, min as u8);
        let codes = codes(part, d.to_f32() * scale, dmin.to_f32() * min, levels);
        for (out, code) in outs[index].iter_mut().zip(codes) {
            *out = byte(code);
        }
    }
    block
}

/// A scale and what is subtracted; both at least 0.
#[derive(Debug, Clone, Copy, Default)]
struct Fit {
    scale: f32,
    min: f32,
}

/// The whole-number factor nearest to a quotient.
#[inline(always)]
fn whole(value: f32, unit: f16, levels: Levels) -> f32 {
    round((value * inverse(unit.to_f32())).min(levels.scale_max))
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The nearest codes under a scale and a minimum.
#[inline(always)]
fn codes<const L: usize>(part: &[f32; L], scale: f32, min: f32, levels: Levels) -> [f32; L] {
    let inverse = inverse(scale);
    let mut codes = [0.0; L];
    for (code, value) in codes.iter_mut().zip(part) {
        *code = round(((value + min) * inverse).clamp(0.0, levels.code_max));
    }
    codes
}

/// The sum of squared errors under a scale and a minimum.
#[inline(always)]
fn error<const L: usize>(part: &[f32; L], scale: f32, min: f32, levels: Levels) -> f32 {
    let inverse = inverse(scale);
    sum::<L>(|i| {
        let shifted = part[i] + min;
        let code = round((shifted * inverse).clamp(0.0, levels.code_max));
        let off = shifted - code * scale;
        off * off
    })
}

/// Step 1: the scale and minimum of one sub-block alone.
#[inline(always)]
fn fit_alone<const L: usize>(part: &[f32; L], levels: Levels) -> Fit {
    let (low, high) = range(part, (0.0, f32::MIN));
    if high <= low {
        // One number only, and it is not positive.
        return Fit { scale: 0.0, min: -low };
    }
    let total = sum::<L>(|i| part[i]);
    let (mut best, mut best_gain) = (Fit::default(), f32::NEG_INFINITY);
    for stretch in levels.stretches {
        let scale = (high - low) / (levels.code_max + stretch);
        let (fit, gain) = refit(part, &codes(part, scale, -low, levels), total);
        if gain > best_gain {
            (best, best_gain) = (fit, gain);
        }
    }
    for _ in 0..2 {
        let (fit, gain) = refit(part, &codes(part, best.scale, best.min, levels), total);
        if gain > best_gain {
            (best, best_gain) = (fit, gain);
        }
    }
    best
}

/// The scale and minimum that fit given codes best, and by how much the sum of squared errors is
/// less than that of the values themselves.
#[inline(always)]
fn refit<const L: usize>(part: &[f32; L], codes: &[f32; L], total: f32) -> (Fit, f32) {
    let [ones, squares, products] =
        sums::<L, 3>(|i| [codes[i], codes[i] * codes[i], codes[i] * part[i]]);
    let count = L as f32;
    let determinant = count * squares - ones * ones;
    let mut scale = (count * products - ones * total) / determinant;
    let mut min = (ones * products - squares * total) / determinant;
    if determinant <= 0.0 || min < 0.0 {
        // A minimum cannot raise the values: the best without one.
        min = 0.0;
        scale = if squares > 0.0 { products / squares } else { 0.0 };
    }
    if scale < 0.0 {
        return (Fit::default(), f32::NEG_INFINITY);
    }
    let gain = 2.0 * (scale * products - min * total) - scale * scale * squares
        + 2.0 * scale * min * ones
        - count * min * min;
    (Fit { scale, min }, gain)
}

/// Step 2: the best whole-number scale and minimum around a choice, and its error.
#[inline(always)]
fn choose<const L: usize>(
    part: &[f32; L],
    around: (f32, f32),
    d: f32,
    dmin: f32,
    levels: Levels,
) -> ((f32, f32), f32) {
    let mut best = (around, f32::INFINITY);
    for step in [0.0, -1.0, 1.0] {
        let scale = around.0 + step;
        if !(0.0..=levels.scale_max).contains(&scale) {
            continue;
        }
        for step in [0.0, -1.0, 1.0] {
            let min = around.1 + step;
            if !(0.0..=levels.scale_max).contains(&min) {
                continue;
            }
            let error = error(part, d * scale, dmin * min, levels);
            if error < best.1 {
                best = ((scale, min), error);
            }
        }
    }
    best
}

/// Step 3: `d` and `dmin` fitted to the codes of the whole block.
#[inline(always)]
fn fit_block<const N: usize, const L: usize>(
    parts: &[[f32; L]],
    choice: &[(f32, f32); N],
    d: f16,
    dmin: f16,
    levels: Levels,
) -> (f16, f16) {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0_f32, 0.0, 0.0, 0.0, 0.0);
    for (&(scale, min), part) in choice.iter().zip(parts) {
        let codes = codes(part, d.to_f32() * scale, dmin.to_f32() * min, levels);
        let [ones, squares, products, total] =
            sums::<L, 4>(|i| [codes[i], codes[i] * codes[i], codes[i] * part[i], part[i]]);
        aa += scale * scale * squares;
        ab += scale * min * ones;
        bb += min * min * L as f32;
        ax += scale * products;
        bx += min * total;
    }
    // x = d a - dmin b, with `a` the scaled codes and `b` the minima.
    let determinant = aa * bb - ab * ab;
    let (fitted, fitted_min) = if determinant > aa * bb * 1e-6 {
        ((bb * ax - ab * bx) / determinant, (ab * ax - aa * bx) / determinant)
    } else if aa > 0.0 {
        (ax / aa, dmin.to_f32())
    } else {
        (d.to_f32(), dmin.to_f32())
    };
    let valid = |value: f32, or: f16| match f16::from_f32(value) {
        found if value > 0.0 && found.is_finite() && found.to_f32() > 0.0 => found,
        _ => or,
    };
    (valid(fitted, d), valid(fitted_min, dmin))
}
