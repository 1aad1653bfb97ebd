//! The quantiser of the k-quants without minima (`Q3_K`, `Q6_K`): the search for scales.
//!
//! As in `affine`: the sub-scales are found alone (several scales laid over the values, each
//! replaced by the one that fits its codes best), then as whole numbers around the ideal ones under
//! the block's `d`, then `d` is fitted to all codes and the round repeated. A sub-scale may be
//! negative, so that either end of the codes, which have one more below zero than above, can meet
//! the value farthest from zero.

use half::f16;

use super::super::lanes::{byte, range, round, sum, sums};
use super::super::q8::farthest;
use super::{ELEMENTS, round_up};

/// How finely a format quantises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// Codes lie from its negative to one less than it.
    pub code_end: f32,
    /// So do the sub-scales.
    pub scale_end: f32,
    /// What is added to the end of the codes for the ranges tried first.
    pub stretches: &'static [f32],
}

/// A block of 16 sub-blocks, quantised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symmetric {
    pub d: f16,
    pub scales: [i8; 16],
    /// Codes, raised to begin at 0.
    pub codes: [u8; ELEMENTS],
}

/// Elements of a sub-block.
const L: usize = 16;
/// Rounds of choosing sub-scales and fitting `d`.
const ROUNDS: usize = 3;

/// Quantises a block.
#[inline(always)]
pub(super) fn quantise(values: &[f32; ELEMENTS], levels: Levels) -> Symmetric {
    let parts = values.as_chunks::<L>().0;
    let mut ideal = [0.0; 16];
    for (scale, part) in ideal.iter_mut().zip(parts) {
        *scale = fit_alone(part, levels);
    }
    // The largest sub-scale takes the end of the whole numbers that reaches farther.
    let largest = farthest(&ideal);
    let sign = if largest > 0.0 { -1.0 } else { 1.0 };
    let mut d = round_up(largest.abs() / levels.scale_end);
    let unit = sign * if d.to_f32() > 0.0 { 1.0 / d.to_f32() } else { 0.0 };
    let mut choice = ideal.map(|scale| bounded(round(scale * unit), levels));
    let (mut best, mut best_error) = ((d, choice), f32::INFINITY);
    for round in 0..ROUNDS {
        let mut error = 0.0;
        for (choice, part) in choice.iter_mut().zip(parts) {
            let (chosen, least) = choose(part, *choice, sign * d.to_f32(), levels);
            (*choice, error) = (chosen, error + least);
        }
        if error < best_error {
            (best, best_error) = ((d, choice), error);
        } else if round > 0 {
            break;
        }
        if round + 1 < ROUNDS {
            d = fit_block(parts, &choice, d, sign, levels);
        }
    }
    let (d, choice) = best;
    let d = if sign < 0.0 { -d } else { d };
    let mut block = Symmetric { d, scales: [0; 16], codes: [0; ELEMENTS] };
    let outs = block.codes.as_chunks_mut::<L>().0;
    for (index, (scale, part)) in choice.into_iter().zip(parts).enumerate() {
        block.scales[index] = scale as i8;
        let codes = codes(part, d.to_f32() * scale, levels);
        for (out, code) in outs[index].iter_mut().zip(codes) {
            *out = byte(code + levels.code_end);
        }
    }
    block
}

#[inline(always)]
fn bounded(scale: f32, levels: Levels) -> f32 {
    scale.clamp(-levels.scale_end, levels.scale_end - 1.0)
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The nearest codes under a scale.
#[inline(always)]
fn codes(part: &[f32; L], scale: f32, levels: Levels) -> [f32; L] {
    let inverse = inverse(scale);
    let mut codes = [0.0; L];
    for (code, value) in codes.iter_mut().zip(part) {
        *code = round((value * inverse).clamp(-levels.code_end, levels.code_end - 1.0));
    }
    codes
}

/// The sum of squared errors under a scale.
#[inline(always)]
fn error(part: &[f32; L], scale: f32, levels: Levels) -> f32 {
    let inverse = inverse(scale);
    sum::<L>(|i| {
        let code = round((part[i] * inverse).clamp(-levels.code_end, levels.code_end - 1.0));
        let off = part[i] - code * scale;
        off * off
    })
}

/// The scale of one sub-block alone.
#[inline(always)]
fn fit_alone(part: &[f32; L], levels: Levels) -> f32 {
    let (low, high) = range(part, (0.0, 0.0));
    let far = if -low >= high { low } else { high };
    let (mut best, mut best_gain) = (0.0, 0.0);
    for stretch in levels.stretches {
        // The far value meets the lower end, which needs a scale of the opposite sign.
        let codes = codes(part, far / -(levels.code_end + stretch), levels);
        let [squares, products] = sums::<L, 2>(|i| [codes[i] * codes[i], codes[i] * part[i]]);
        let scale = if squares > 0.0 { products / squares } else { 0.0 };
        let gain = products * scale;
        if gain > best_gain {
            (best, best_gain) = (scale, gain);
        }
    }
    best
}

/// The best whole-number sub-scale around a choice, and its error.
#[inline(always)]
fn choose(part: &[f32; L], around: f32, d: f32, levels: Levels) -> (f32, f32) {
    let mut best = (around, f32::INFINITY);
    for step in [0.0, -1.0, 1.0, -2.0, 2.0] {
        let scale = bounded(around + step, levels);
        let error = error(part, d * scale, levels);
        if error < best.1 {
            best = (scale, error);
        }
    }
    best
}

/// `d` fitted to the codes of the whole block.
#[inline(always)]
fn fit_block(parts: &[[f32; L]], choice: &[f32; 16], d: f16, sign: f32, levels: Levels) -> f16 {
    let (mut squares, mut products) = (0.0_f32, 0.0_f32);
    for (&scale, part) in choice.iter().zip(parts) {
        let codes = codes(part, sign * d.to_f32() * scale, levels);
        squares += scale * scale * sum::<L>(|i| codes[i] * codes[i]);
        products += scale * sum::<L>(|i| codes[i] * part[i]);
    }
    match f16::from_f32(sign * products / squares) {
        found if found.is_finite() && found.to_f32() > 0.0 => found,
        _ => d,
    }
}
