//! What a generation is asked for, checked before any work.

use std::sync::Arc;

use larql_compute::sample::SamplerOptions;

use super::speculation::Speculation;
use crate::editing::applied::Applied;
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::text::{Chat, Constraint};

/// Tokens that a request may ask for.
pub const TOKENS_MAX: u32 = 1 << 20;
/// Stop strings that a request may have.
pub const STOPS_MAX: usize = 16;
/// Bytes of one stop string: a text is held back for as long as it may begin one.
pub const STOP_BYTES_MAX: usize = 1024;
/// Alternatives that log probabilities may be asked for, as many as OpenAI's interface has.
pub const LOGPROBS_MAX: usize = 20;

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A text, with the tokens that the model expects around one.
    Text(String),
    /// A chat, through the model's template.
    Chat(Chat),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// The most tokens to make; 0 makes as many as the context has room for.
    pub tokens_max: u32,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Texts that end the generation and are not given out.
    pub stop: Vec<String>,
    /// Report each token's log probability and those of so many alternatives.
    pub logprobs: Option<usize>,
    /// What the text has to look like. When it ends for another reason than [`Reason::Stop`], or by a
    /// stop string, it is the beginning of such a text.
    pub constraint: Option<Constraint>,
    /// What was edited in the moment that the request sees.
    pub edits: Arc<Applied>,
    /// How tokens are guessed ahead.
    pub speculation: Option<Speculation>,
    /// The draft model that `speculation` names, once it was found.
    pub draft: Option<Arc<Model>>,
}

impl Request {
    /// A greedy request for as much as the context has room for.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            tokens_max: 0,
            sampler: SamplerOptions::default(),
            stop: Vec::new(),
            logprobs: None,
            constraint: None,
            edits: Arc::default(),
            speculation: None,
            draft: None,
        }
    }

    /// Checks what needs no model.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` with the name of the option and what it may be.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.tokens_max > TOKENS_MAX {
            let message = format!("tokens_max is {}: at most {TOKENS_MAX}", self.tokens_max);
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("0 asks for as many as the context has room for"));
        }
        if self.stop.len() > STOPS_MAX {
            let message = format!("{} stop strings: at most {STOPS_MAX}", self.stop.len());
            return Err(Failure::new(code::INVALID_PARAMETER, message).hint("send fewer"));
        }
        for stop in &self.stop {
            if stop.is_empty() || stop.len() > STOP_BYTES_MAX {
                let bytes = stop.len();
                let message =
                    format!("a stop string of {bytes} bytes: it has 1 to {STOP_BYTES_MAX} bytes");
                return Err(Failure::new(code::INVALID_PARAMETER, message)
                    .hint("a stop string is text that ends the answer"));
            }
        }
        if let Some(count) = self.logprobs.filter(|&count| count > LOGPROBS_MAX) {
            let message = format!("logprobs is {count}: at most {LOGPROBS_MAX} alternatives");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("0 reports the chosen token's alone"));
        }
        self.speculation.iter().try_for_each(Speculation::check)
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model ended its text, or a stop string came.
    Stop,
    /// `tokens_max` was reached.
    Length,
    /// The context is full.
    Context,
}

impl Reason {
    /// The reason's word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
        }
    }
}
