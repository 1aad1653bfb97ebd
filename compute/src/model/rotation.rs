//! Rotary embeddings at work: frequencies of a description, and the angles of a block of positions.
//!
//! # Source
//! Su et al. 2021 (arXiv:2104.09864); the `llama3` blend from the Llama 3.1 release; YaRN from
//! Peng et al. 2023 (arXiv:2309.00071); LongRoPE from Ding et al. 2024 (arXiv:2402.13753), with the
//! choice of its list as transformers makes it: by the length that a call ends at. A paged cache
//! goes by the most that it may hold instead, so that keys do not depend on how a prompt is cut.

use std::f64::consts::TAU;

use super::block::Part;
use super::{RopeDescription, RopePairing, RopeScaling};
use crate::kernels::rotary;

/// A rotary embedding that some layers share, and its angles for the block at hand.
pub(super) struct Rotation {
    description: RopeDescription,
    head_dim: usize,
    /// Angles per position of each pair that turns, `[dims / 2]`.
    frequencies: Vec<f32>,
    /// The same for runs that end beyond so many positions.
    long: Option<(usize, Vec<f32>)>,
    /// Factor on cosines and sines.
    factor: f32,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    /// For heads of `head_dim` numbers, of which `dims` turn.
    pub(super) fn new(description: &RopeDescription, head_dim: usize) -> Rotation {
        let (long, factor) = match &description.scaling {
            RopeScaling::LongRope { long, context_original, attention_factor, .. } => {
                let frequencies = divided(description, head_dim, long);
                (Some((*context_original, frequencies)), *attention_factor)
            }
            RopeScaling::Yarn { attention_factor, .. } => (None, *attention_factor),
            _ => (None, 1.0),
        };
        Rotation {
            description: description.clone(),
            head_dim,
            frequencies: frequencies(description, head_dim),
            long,
            factor: factor as f32,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    /// Whether it is the one of this description and head.
    pub(super) fn is(&self, description: &RopeDescription, head_dim: usize) -> bool {
        self.description == *description && self.head_dim == head_dim
    }

    /// Computes the angles of a block's rows.
    pub(super) fn turn_to(&mut self, parts: &[Part]) {
        let rows = parts.last().map_or(0, |part| part.row + part.count);
        let half = self.frequencies.len();
        self.cos.resize(rows * half, 0.0);
        self.sin.resize(rows * half, 0.0);
        for part in parts {
            let frequencies = match &self.long {
                Some((context_original, long)) if part.context > *context_original => long,
                _ => &self.frequencies,
            };
            let cos = part.of_mut(&mut self.cos, half).chunks_exact_mut(half);
            let sin = part.of_mut(&mut self.sin, half).chunks_exact_mut(half);
            for (index, (cos, sin)) in cos.zip(sin).enumerate() {
                rotary::angles(part.first + index, frequencies, cos, sin);
                if self.factor != 1.0 {
                    cos.iter_mut().chain(sin).for_each(|number| *number *= self.factor);
                }
            }
        }
    }

    /// Turns one head of the block's row `index`.
    pub(super) fn rotate(&self, index: usize, head: &mut [f32]) {
        let half = self.frequencies.len();
        let angles = index * half..(index + 1) * half;
        let (cos, sin) = (&self.cos[angles.clone()], &self.sin[angles]);
        let distance = match self.description.pairing {
            RopePairing::Interleaved => {
                return rotary::rotate_interleaved(&mut head[..2 * half], cos, sin);
            }
            RopePairing::SplitHalf => half,
            RopePairing::Proportional => self.head_dim / 2,
        };
        let (low, high) = head.split_at_mut(distance);
        rotary::rotate(&mut low[..half], &mut high[..half], cos, sin);
    }
}

/// The frequency of each pair before any scaling.
fn unscaled(rope: &RopeDescription, head_dim: usize) -> impl Iterator<Item = f64> {
    let denominator = match rope.pairing {
        RopePairing::Proportional => head_dim,
        _ => rope.dims,
    } as f32;
    // The exponent is rounded to f32 as in reference implementations.
    let exponent = move |pair: usize| f64::from((2 * pair) as f32 / denominator);
    let base = rope.base;
    (0..rope.dims / 2).map(move |pair| 1.0 / base.powf(exponent(pair)))
}

fn divided(rope: &RopeDescription, head_dim: usize, divisors: &[f64]) -> Vec<f32> {
    assert_eq!(divisors.len(), rope.dims / 2, "one divisor for each pair");
    let pairs = unscaled(rope, head_dim).zip(divisors);
    pairs.map(|(frequency, divisor)| (frequency / divisor) as f32).collect()
}

fn frequencies(rope: &RopeDescription, head_dim: usize) -> Vec<f32> {
    // From a frequency and the share of it that is kept: 0 for all divided, 1 for all kept.
    let blend = |frequency: f64, kept: f64, factor: f64| frequency * (kept + (1.0 - kept) / factor);
    let plain = unscaled(rope, head_dim);
    match &rope.scaling {
        scaling @ (RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. }) => {
            plain.filter_map(|frequency| Some(scaling.scaled(frequency)? as f32)).collect()
        }
        &RopeScaling::Yarn { factor, beta_fast, beta_slow, context_original, truncate, .. } => {
            // The dimension whose pair turns so often within the original context.
            let dims = rope.dims as f64;
            let dimension = |turns: f64| {
                dims * (context_original / (turns * TAU)).ln() / (2.0 * rope.base.ln())
            };
            let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(dims - 1.0));
            if low == high {
                high += 0.001;
            }
            plain
                .enumerate()
                .map(|(pair, frequency)| {
                    let divided = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    blend(frequency, 1.0 - divided, factor) as f32
                })
                .collect()
        }
        RopeScaling::LongRope { short: divisors, .. } | RopeScaling::Factors(divisors) => {
            divided(rope, head_dim, divisors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(scaling: RopeScaling) -> RopeDescription {
        RopeDescription { base: 5e5, dims: 128, pairing: RopePairing::SplitHalf, scaling }
    }

    fn part(first: usize, count: usize, context: usize) -> Part {
        Part { segment: 0, first, row: 0, count, context }
    }

    #[test]
    fn scaling_divides_low_frequencies_and_keeps_high_ones() {
        let plain = frequencies(&description(RopeScaling::None), 128);
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            context_original: 8192.0,
        };
        let yarn = |truncate| RopeScaling::Yarn {
            factor: 8.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            context_original: 8192.0,
            truncate,
            attention_factor: 1.2,
        };
        assert_eq!(plain[0], 1.0);
        for scaling in [llama3, yarn(true), yarn(false)] {
            let scaled = frequencies(&description(scaling), 128);
            assert_eq!(scaled[0], 1.0);
            assert!((scaled[63] * 8.0 / plain[63] - 1.0).abs() < 1e-6);
            assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]));
        }
        let linear = frequencies(&description(RopeScaling::Linear { factor: 4.0 }), 128);
        let factors = frequencies(&description(RopeScaling::Factors(vec![4.0; 64])), 128);
        assert_eq!(linear, factors);
        let divided = |(plain, linear): (&f32, &f32)| (linear * 4.0 / plain - 1.0).abs() < 1e-6;
        assert!(plain.iter().zip(&linear).all(divided));
    }

    #[test]
    fn pairings_turn_the_numbers_that_they_say_and_leave_the_rest() {
        for (pairing, pairs) in [
            (RopePairing::SplitHalf, [(0, 2), (1, 3)]),
            (RopePairing::Interleaved, [(0, 1), (2, 3)]),
            (RopePairing::Proportional, [(0, 4), (1, 5)]),
        ] {
            let rope = RopeDescription { base: 16.0, dims: 4, pairing, scaling: RopeScaling::None };
            let mut rotation = Rotation::new(&rope, 8);
            rotation.turn_to(&[part(3, 2, 5)]);
            let before: Vec<f32> = (1..=8).map(|number| number as f32).collect();
            let mut head = before.clone();
            rotation.rotate(1, &mut head);
            let second: f32 = if pairing == RopePairing::Proportional { 0.5 } else { 0.25 };
            let mut expected = before.clone();
            for ((x, y), frequency) in pairs.into_iter().zip([1.0, second]) {
                let (sin, cos) = (4.0 * frequency).sin_cos();
                expected[x] = before[x] * cos - before[y] * sin;
                expected[y] = before[y] * cos + before[x] * sin;
            }
            for (found, expected) in head.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{pairing:?}: {head:?} {expected:?}");
            }
        }
    }

    #[test]
    fn long_factors_count_from_the_call_that_leaves_the_original_context() {
        let scaling = RopeScaling::LongRope {
            short: vec![1.0; 64],
            long: vec![2.0; 64],
            context_original: 10,
            attention_factor: 1.5,
        };
        let mut rotation = Rotation::new(&description(scaling), 128);
        rotation.turn_to(&[part(3, 1, 10)]);
        let short = rotation.cos[0];
        rotation.turn_to(&[part(3, 1, 11)]);
        assert!((short - 1.5 * 3.0_f32.cos()).abs() < 1e-6);
        assert!((rotation.cos[0] - 1.5 * 1.5_f32.cos()).abs() < 1e-6);
    }
}
