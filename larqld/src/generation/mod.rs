//! Text generation: a prompt or a chat in, tokens out one by one.
//!
//! [`Sequence`] is one generation as a state machine: it says which tokens to run, takes their
//! logits and answers with text.
//!
//! Elsewhere: what drives sequences, many at a time (`batch`), choosing a token (`larql_compute::sample`), templates and tokenizers (`text`), wire
//! types and streams (`server`).

mod end_tokens;
mod request;
mod sequence;
mod stop;

use std::time::Duration;

pub use self::request::{Prompt, Reason, Request, STOP_BYTES_MAX, STOPS_MAX, TOKENS_MAX};
pub use self::sequence::{Advance, Sequence, TokenEvent};

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
}
