//! Penalties on tokens that came before.
//!
//! Repetition: Keskar et al. 2019 (CTRL, arXiv:1909.05858), section 4.1, divides the logit of every
//! token of the context, prompt included, by a constant. As that would favour tokens whose logit is
//! negative, those are multiplied, as in `transformers` and llama.cpp.
//!
//! Presence and frequency: OpenAI's API reference, `logit - count * frequency - (count > 0) *
//! presence`, where `count` is how often the token was sampled; the prompt does not count.

use std::collections::{HashMap, VecDeque};

use super::SamplerOptions;

/// What came before, as far as the window reaches.
#[derive(Debug, Clone, Default)]
pub(super) struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
    window: Option<usize>,
    seen: HashMap<u32, Seen>,
    /// The tokens inside the window with whether they were made; empty without a window.
    recent: VecDeque<(u32, bool)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Times in prompt and answer.
    times: u32,
    /// Times in the answer.
    made: u32,
}

impl Penalties {
    pub(super) fn new(options: &SamplerOptions) -> Self {
        Self {
            repetition: options.repetition_penalty,
            presence: options.presence_penalty,
            frequency: options.frequency_penalty,
            window: options.penalty_window,
            ..Self::default()
        }
    }

    /// Whether any logit may change.
    pub(super) fn is_active(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }

    /// Takes note of a token of the prompt, or of one that was made.
    pub(super) fn push(&mut self, token: u32, made: bool) {
        if !self.is_active() || self.window == Some(0) {
            return;
        }
        let seen = self.seen.entry(token).or_default();
        seen.times += 1;
        seen.made += u32::from(made);
        let Some(window) = self.window else { return };
        self.recent.push_back((token, made));
        if self.recent.len() > window
            && let Some((token, made)) = self.recent.pop_front()
            && let Some(seen) = self.seen.get_mut(&token)
        {
            seen.times -= 1;
            seen.made -= u32::from(made);
            if seen.times == 0 {
                self.seen.remove(&token);
            }
        }
    }

    /// Applies the penalties to `scores`, a logit for each token.
    pub(super) fn apply(&self, scores: &mut [f32]) {
        for (&token, seen) in &self.seen {
            let Some(score) = scores.get_mut(token as usize) else { continue };
            let mut changed =
                if *score > 0.0 { *score / self.repetition } else { *score * self.repetition };
            if seen.made > 0 {
                changed -= seen.made as f32 * self.frequency + self.presence;
            }
            // A token that was possible stays so, whatever overflows.
            if *score > f32::NEG_INFINITY {
                *score = changed.clamp(f32::MIN, f32::MAX);
            }
        }
    }
}
