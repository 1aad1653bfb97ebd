//! Choosing a token from logits.
//!
//! The order is the usual one: temperature, then the `top_k` best, then the smallest set whose
//! probabilities reach `top_p`, then a seeded draw. A logit that is NaN is never chosen; of equal
//! ones the lowest token comes first.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kernels::{softmax, top_k};

/// Why no token can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A temperature that makes no distribution.
    #[error("temperature is {found}; it must be a finite number from 0, and 0 is greedy")]
    Temperature {
        /// The value given.
        found: f32,
    },
    /// A nucleus that holds nothing, or more than everything.
    #[error("top_p is {found}; it must be above 0 and at most 1")]
    TopP {
        /// The value given.
        found: f32,
    },
    /// A choice among no tokens.
    #[error("top_k is 0; it must be at least 1, or absent for the whole vocabulary")]
    TopK,
    /// Nothing to choose: no logits, or none that is a number.
    #[error("none of {count} logits is a number; the weights may be damaged")]
    NoNumber {
        /// Logits given.
        count: usize,
    },
}

/// How to choose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplerOptions {
    /// Divisor of the logits; 0, the default, takes the best token.
    pub temperature: f32,
    /// Keep so many of the best; `None` keeps all.
    pub top_k: Option<usize>,
    /// Keep the smallest set of the best whose probabilities reach this; `None` keeps all.
    pub top_p: Option<f32>,
    /// Seed of the draws; `None` takes one from the system.
    pub seed: Option<u64>,
}

/// Chooses tokens by one set of options, with its own stream of random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    random: StdRng,
}

impl Sampler {
    /// Checks the options.
    ///
    /// # Errors
    /// `Temperature`, `TopP` and `TopK` for values that make no choice.
    pub fn new(options: SamplerOptions) -> Result<Sampler, SampleError> {
        let found = options.temperature;
        if !(found.is_finite() && found >= 0.0) {
            return Err(SampleError::Temperature { found });
        }
        if let Some(found) = options.top_p
            && !(found > 0.0 && found <= 1.0)
        {
            return Err(SampleError::TopP { found });
        }
        if options.top_k == Some(0) {
            return Err(SampleError::TopK);
        }
        let random = match options.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        };
        Ok(Sampler { options, random })
    }

    /// Chooses a token.
    ///
    /// # Shapes
    /// `logits`: `[vocabulary]`; they stay as they are.
    /// # Errors
    /// `NoNumber`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        let SamplerOptions { temperature, top_k: k, top_p, .. } = self.options;
        if temperature == 0.0 || k == Some(1) {
            return greedy(logits);
        }
        // Only a nucleus and a list of the best need the tokens in order.
        let mut kept: Vec<(usize, f32)> = match (k, top_p) {
            (None, None) => {
                logits.iter().copied().enumerate().filter(|(_, logit)| !logit.is_nan()).collect()
            }
            (k, _) => top_k(logits, k.unwrap_or(logits.len())),
        };
        let best = greedy(logits)?;
        let top = logits[best as usize];
        // The best logit is taken off first, so that a tiny temperature overflows nothing.
        let mut weights: Vec<f32> = kept
            .iter()
            .map(|(_, logit)| if *logit == top { 0.0 } else { (logit - top) / temperature })
            .collect();
        softmax(&mut weights);
        if let Some(top_p) = top_p {
            let mut sum = 0.0_f64;
            let inside = weights.iter().take_while(|weight| {
                let open = sum < f64::from(top_p);
                sum += f64::from(**weight);
                open
            });
            let count = inside.count().max(1);
            kept.truncate(count);
            weights.truncate(count);
        }
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut left = self.random.random::<f64>() * total;
        for ((token, _), weight) in kept.iter().zip(&weights) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Ok(*token as u32);
            }
        }
        // Rounding may leave a crumb after the last token: it goes to the best.
        Ok(best)
    }
}

/// The token with the largest logit, of equal ones the lowest.
///
/// # Errors
/// `NoNumber`.
pub fn greedy(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best: Option<(usize, f32)> = None;
    for (token, &logit) in logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan()) {
        if best.is_none_or(|(_, best)| logit > best) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token as u32).ok_or(SampleError::NoNumber { count: logits.len() })
}

/// The `k` best tokens with logit and probability among all, best first, of equal ones the lowest
/// token first; NaN counts for nothing.
pub fn softmax_top_k(logits: &[f32], k: usize) -> Vec<(u32, f32, f32)> {
    let mut probabilities = logits.to_vec();
    softmax(&mut probabilities);
    let best = top_k(logits, k).into_iter();
    best.map(|(token, logit)| (token as u32, logit, probabilities[token])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_k: Option<usize>, top_p: Option<f32>) -> Sampler {
        Sampler::new(SamplerOptions { temperature, top_k, top_p, seed: Some(7) }).unwrap()
    }

    fn counts(sampler: &mut Sampler, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        let logits = [0.0, 2.0 * 2.0_f32.ln(), 2.0 * 3.0_f32.ln()];
        let counts = counts(&mut sampler(2.0, None, None), &logits, 60_000);
        for (count, share) in counts.iter().zip([1.0, 2.0, 3.0]) {
            assert!((*count as f64 / 10_000.0 - share).abs() < 0.05, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_rest_undrawn() {
        let logits = [1.0, 3.0, f32::NAN, 2.0, 2.0];
        let drawn = counts(&mut sampler(1.0, Some(2), None), &logits, 2000);
        assert!(drawn[1] > 0 && drawn[3] > 0, "{drawn:?}");
        assert_eq!((drawn[0], drawn[2], drawn[4]), (0, 0, 0));
        // exp(3) is 52 % of the whole, so that two tokens reach 60 %.
        let drawn = counts(&mut sampler(1.0, None, Some(0.6)), &logits, 2000);
        assert!(drawn[1] > 0 && drawn[3] > 0, "{drawn:?}");
        assert_eq!((drawn[0], drawn[4]), (0, 0));
        let drawn = counts(&mut sampler(1.0, None, Some(0.01)), &logits, 100);
        assert_eq!(drawn[1], 100);
    }

    #[test]
    fn one_seed_draws_one_sequence() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
        let draw = |seed| {
            let options =
                SamplerOptions { temperature: 1.0, seed: Some(seed), ..Default::default() };
            let mut sampler = Sampler::new(options).unwrap();
            (0..20).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn options_that_make_no_choice_are_refused() {
        let new = |temperature, top_k, top_p| {
            Sampler::new(SamplerOptions { temperature, top_k, top_p, seed: None }).err()
        };
        for temperature in [-1.0, f32::NAN, f32::INFINITY] {
            let error = new(temperature, None, None);
            assert!(matches!(error, Some(SampleError::Temperature { .. })), "{temperature}");
        }
        for top_p in [0.0, -0.5, 1.5, f32::NAN] {
            assert!(matches!(new(1.0, None, Some(top_p)), Some(SampleError::TopP { .. })));
        }
        assert_eq!(new(1.0, Some(0), None), Some(SampleError::TopK));
        assert_eq!(new(1.0, Some(1), Some(1.0)), None);
    }

    #[test]
    fn extreme_logits_and_temperatures_choose_the_best() {
        assert_eq!(greedy(&[f32::NAN, 1.0, 1.0]), Ok(1));
        assert_eq!(greedy(&[f32::NAN]), Err(SampleError::NoNumber { count: 1 }));
        assert_eq!(greedy(&[]), Err(SampleError::NoNumber { count: 0 }));
        assert_eq!(sampler(1e-30, None, None).sample(&[1e30, 2e30, 0.0]), Ok(1));
        assert_eq!(sampler(1.0, None, None).sample(&[f32::INFINITY, 1.0]), Ok(0));
        assert_eq!(sampler(0.0, None, None).sample(&[f32::NEG_INFINITY, 1.0]), Ok(1));
    }

    #[test]
    fn the_best_come_with_their_share_of_the_whole() {
        let best = softmax_top_k(&[0.0, 2.0_f32.ln(), f32::NAN, 2.0_f32.ln()], 2);
        assert_eq!((best[0].0, best[1].0), (1, 3));
        assert!((best[0].2 - 0.4).abs() < 1e-6 && (best[1].2 - 0.4).abs() < 1e-6);
    }
}
