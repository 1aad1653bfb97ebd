//! Text generation: a prompt or a chat in, tokens out one by one.
//!
//! [`Sequence`] is one generation as a state machine: it says which tokens to run, takes their
//! logits and answers with text; [`speculation`] guesses ahead.
//!
//! Elsewhere: what drives sequences, many at a time (`batch`), choosing a token
//! (`larql_compute::sample`), templates, tokenizers and constraints (`text`), wire types and streams
//! (`server`).

mod request;
mod sequence;
pub mod speculation;
mod stop;

use std::time::Duration;

pub use self::request::{
    LOGPROBS_MAX, Prompt, Reason, Request, STOP_BYTES_MAX, STOPS_MAX, TOKENS_MAX,
};
pub use self::sequence::{Advance, Alternative, Logprobs, Sequence, TokenEvent};
use self::speculation::Acceptance;

/// What a generation took.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Why it ended.
    pub reason: Reason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens made.
    pub generated_tokens: usize,
    /// Time to the first token.
    pub prefill: Duration,
    /// Time of the rest.
    pub decode: Duration,
    /// How guesses fared.
    pub acceptance: Acceptance,
}
