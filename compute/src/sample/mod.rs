//! Choosing a token from logits.
//!
//! The steps, in this order: tokens that are not allowed are taken out; `logit_bias` is added;
//! penalties ([`penalties`] defines them); division by the temperature; the `top_k` best; of those
//! the shortest list, best first, whose probabilities reach `top_p`; of those the ones with at least
//! `min_p` of the best one's probability; a seeded draw among what is left. Temperature 0 takes the
//! best token after penalties. Of equal logits the lowest token comes first.
//!
//! One draw takes one random number, so that a seed and the logits decide what is made: it does not
//! matter when, and beside whom. Log probabilities ([`log_probabilities`]) are the model's own, before
//! all of these steps.
//!
//! A logit of minus infinity is a token that cannot be chosen. One that is NaN or plus infinity is
//! refused: the weights are damaged.
//!
//! Sources: nucleus sampling (top-p), Holtzman et al. 2020 (arXiv:1904.09751); min-p, Nguyen et al.
//! 2024 (arXiv:2407.01082).

mod options;
mod penalties;
#[cfg(test)]
mod tests;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use self::options::{BIAS_MAX, PENALTY_MAX, SampleError, SamplerOptions};
use self::penalties::Penalties;
use crate::kernels::{softmax, top_k};

/// Candidates that the search for a nucleus looks at first; real ones are rarely larger.
const NUCLEUS_FIRST: usize = 256;

/// Chooses the tokens of one sequence by one set of options, with its own stream of random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    penalties: Penalties,
    random: StdRng,
    /// Logits after bias and penalties.
    scores: Vec<f32>,
    /// Weights of all tokens, or of the candidates.
    weights: Vec<f32>,
    candidates: Vec<(usize, f32)>,
}

impl Sampler {
    /// Checks the options, for a sequence that begins with `prompt`.
    ///
    /// # Errors
    /// One that names the option, for values that make no choice.
    pub fn new(
        options: SamplerOptions,
        prompt: &[u32],
        vocabulary: usize,
    ) -> Result<Sampler, SampleError> {
        options.check()?;
        if let Some(&(token, _)) =
            options.logit_bias.iter().find(|(token, _)| *token as usize >= vocabulary)
        {
            return Err(SampleError::BiasToken { token, vocabulary });
        }
        let mut penalties = Penalties::new(&options);
        for &token in prompt {
            penalties.push(token, false);
        }
        let random = match options.seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => StdRng::from_os_rng(),
        };
        let (scores, weights, candidates) = Default::default();
        Ok(Sampler { options, penalties, random, scores, weights, candidates })
    }

    /// Chooses the sequence's next token and takes note of it.
    ///
    /// # Shapes
    /// `logits`: `[vocabulary]`; they stay as they are. `allowed`: a bit for each token, token `t` at
    /// bit `t % 32` of word `t / 32`; tokens beyond its end are not allowed; `None` allows all.
    /// # Errors
    /// `NotFinite` and `NoToken`.
    pub fn sample(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Result<u32, SampleError> {
        let unchanged =
            allowed.is_none() && !self.penalties.is_active() && self.options.logit_bias.is_empty();
        let token = if unchanged && self.is_greedy() {
            greedy(logits)?
        } else {
            self.draw(logits, allowed)?
        };
        self.penalties.push(token, true);
        Ok(token)
    }

    fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0 || self.options.top_k == Some(1)
    }

    fn draw(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Result<u32, SampleError> {
        peak(logits)?;
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        if let Some(allowed) = allowed {
            forbid_others(&mut self.scores, allowed);
        }
        for &(token, bias) in &self.options.logit_bias {
            if let Some(score) = self.scores.get_mut(token as usize) {
                *score = (*score + bias).min(f32::MAX);
            }
        }
        self.penalties.apply(&mut self.scores);
        if self.is_greedy() {
            return greedy(&self.scores);
        }
        let best = greedy(&self.scores)?;
        self.find_candidates(self.scores[best as usize]);
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut left = self.random.random::<f64>() * total;
        for ((token, _), weight) in self.candidates.iter().zip(&self.weights) {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Ok(*token as u32);
            }
        }
        // Rounding may leave a crumb after the last token: it goes to the best.
        Ok(best)
    }

    /// Leaves the tokens that may be drawn in `candidates` and how likely they are in `weights`;
    /// `top` is the best score.
    fn find_candidates(&mut self, top: f32) {
        let SamplerOptions { temperature, top_k: k, top_p, min_p, .. } = self.options;
        let top_p = top_p.filter(|&top_p| top_p < 1.0);
        // The best score is taken off first, so that a tiny temperature overflows nothing.
        let tempered = |score: f32| if score == top { 0.0 } else { (score - top) / temperature };
        let candidates = &mut self.candidates;
        let weights = &mut self.weights;
        candidates.clear();
        weights.clear();
        match (k, top_p) {
            (Some(k), top_p) => {
                candidates.extend(top_k(&self.scores, k));
                weights.extend(candidates.iter().map(|&(_, score)| tempered(score)));
                softmax(weights);
                if let Some(count) = top_p.and_then(|top_p| nucleus(weights, top_p)) {
                    candidates.truncate(count);
                    weights.truncate(count);
                }
            }
            (None, None) => {
                candidates.extend(self.scores.iter().copied().enumerate());
                weights.extend(self.scores.iter().map(|&score| tempered(score)));
                softmax(weights);
            }
            // Only as many are put in order as the nucleus turns out to need.
            (None, Some(top_p)) => {
                let mut all: Vec<f32> = self.scores.iter().map(|&score| tempered(score)).collect();
                softmax(&mut all);
                let mut count = NUCLEUS_FIRST;
                loop {
                    *candidates = top_k(&self.scores, count);
                    weights.clear();
                    weights.extend(candidates.iter().map(|&(token, _)| all[token]));
                    match nucleus(weights, top_p) {
                        Some(count) => {
                            candidates.truncate(count);
                            weights.truncate(count);
                            break;
                        }
                        None if candidates.len() < count => break,
                        None => count *= 8,
                    }
                }
            }
        }
        let least = min_p.map_or(0.0, |min_p| min_p * weights.iter().copied().fold(0.0, f32::max));
        let mut weight = weights.iter();
        candidates.retain(|_| weight.next().is_some_and(|&weight| weight > 0.0 && weight >= least));
        weights.retain(|&weight| weight > 0.0 && weight >= least);
    }
}

/// How many of the weights, in order, it takes to reach `top_p`; `None` if all of them do not.
fn nucleus(weights: &[f32], top_p: f32) -> Option<usize> {
    let mut sum = 0.0_f64;
    let reached = weights.iter().position(|&weight| {
        sum += f64::from(weight);
        sum >= f64::from(top_p)
    });
    reached.map(|last| last + 1)
}

/// Takes out the tokens whose bit is not set.
fn forbid_others(scores: &mut [f32], allowed: &[u32]) {
    for (index, scores) in scores.chunks_mut(32).enumerate() {
        match allowed.get(index).copied().unwrap_or(0) {
            0 => scores.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, score) in scores.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *score = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// The token with the largest logit, of equal ones the lowest.
///
/// # Errors
/// `NotFinite` for a logit that is NaN or plus infinity, `NoToken` where none is above minus infinity.
pub fn greedy(logits: &[f32]) -> Result<u32, SampleError> {
    let best = peak(logits)?;
    let token = logits.iter().position(|&logit| logit == best && best > f32::NEG_INFINITY);
    token.map(|token| token as u32).ok_or(SampleError::NoToken { count: logits.len() })
}

/// The largest logit, all of them checked.
fn peak(logits: &[f32]) -> Result<f32, SampleError> {
    const LANES: usize = 16;
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut finite = [true; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut see = |lane: usize, logit: f32| {
        most[lane] = if logit > most[lane] { logit } else { most[lane] };
        finite[lane] &= logit < f32::INFINITY;
    };
    for chunk in chunks {
        for (lane, &logit) in chunk.iter().enumerate() {
            see(lane, logit);
        }
    }
    for (lane, &logit) in rest.iter().enumerate() {
        see(lane, logit);
    }
    if finite != [true; LANES] {
        let broken = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        let token = logits.iter().position(broken).expect("a lane saw it");
        return Err(SampleError::NotFinite { token, found: logits[token] });
    }
    Ok(most.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// The `k` best tokens with logit and probability among all, best first, of equal ones the lowest
/// token first; NaN counts for nothing.
pub fn softmax_top_k(logits: &[f32], k: usize) -> Vec<(u32, f32, f32)> {
    let mut probabilities = logits.to_vec();
    softmax(&mut probabilities);
    let best = top_k(logits, k).into_iter();
    best.map(|(token, logit)| (token as u32, logit, probabilities[token])).collect()
}

/// The place of `token` among all, 1 for the best, and its probability: what [`softmax_top_k`] says
/// of it. Of equal logits the lowest token comes first; NaN counts for nothing.
///
/// # Shapes
/// `logits`: `[vocabulary]`, `token` one of them.
pub fn rank_and_probability(logits: &[f32], token: u32) -> (usize, f32) {
    let (token, own) = (token as usize, logits[token as usize]);
    let better = |(other, &logit): (usize, &f32)| logit > own || (logit == own && other < token);
    let rank = 1 + logits.iter().enumerate().filter(|&each| better(each)).count();
    let mut probabilities = logits.to_vec();
    softmax(&mut probabilities);
    (rank, probabilities[token])
}

/// A token with the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProbability {
    /// The token.
    pub token: u32,
    /// At most 0; minus infinity for a token that cannot come.
    pub value: f32,
}

/// The log probability of `token` and the `alternatives` most likely tokens with theirs, best first.
///
/// They are of the distribution that the logits define, softmax at temperature 1: the model's own,
/// whatever options bend it for a draw.
///
/// # Shapes
/// `logits`: `[vocabulary]`, `token` one of them.
pub fn log_probabilities(
    logits: &[f32],
    token: u32,
    alternatives: usize,
) -> (LogProbability, Vec<LogProbability>) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    let total = f64::from(best) + sum.ln();
    let value = |token: usize| LogProbability {
        token: token as u32,
        value: (f64::from(logits[token]) - total).min(0.0) as f32,
    };
    let best = top_k(logits, alternatives).into_iter();
    (value(token as usize), best.map(|(token, _)| value(token)).collect())
}
