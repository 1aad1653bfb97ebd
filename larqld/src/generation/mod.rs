//! Text generation: a prompt or a chat in, tokens out one by one.
//!
//! [`Sequence`] is one generation as a state machine: it says which tokens to run, takes their
//! logits and answers with text. [`generate`] drives one to its end with a decoder of its own.
//!
//! Elsewhere: choosing a token (`larql_compute::sample`), templates and tokenizers (`text`), wire
//! types and streams (`server`).

mod end_tokens;
mod request;
mod sequence;
mod stop;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{DenseFfn, Precision};

pub use self::request::{Prompt, Reason, Request, STOP_BYTES_MAX, STOPS_MAX, TOKENS_MAX};
pub use self::sequence::{Advance, Sequence, TokenEvent};
use crate::failure::Failure;
use crate::inference::Run;
use crate::mounts::Model;

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

/// Generates, alone on the pool; `on_event` gets each token with the text that became whole with it.
///
/// # Errors
/// As [`Sequence::new`] and [`Sequence::advance`]; `CANCELLED`.
pub fn generate(
    model: &Arc<Model>,
    pool: &Pool,
    request: &Request,
    cancel: &Cancel,
    on_event: &mut dyn FnMut(TokenEvent) -> ControlFlow<()>,
) -> Result<Finished, Failure> {
    let mut sequence = Sequence::new(model, request)?;
    let began = Instant::now();
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, Precision::Serving, sequence.positions_max())?;
    run.prefill(sequence.feed(), None, cancel)?;
    model.check()?;
    let prefill = began.elapsed();
    let began = Instant::now();
    loop {
        let advance = sequence.advance(run.logits())?;
        for event in advance.events {
            if on_event(event).is_break() {
                return Err(Failure::cancelled());
            }
        }
        if let Some(reason) = advance.finished {
            return Ok(Finished {
                reason,
                prompt_tokens: sequence.prompt().len(),
                generated_tokens: sequence.generated(),
                prefill,
                decode: began.elapsed(),
            });
        }
        for &token in sequence.feed() {
            run.decode(token, cancel)?;
        }
        model.check()?;
    }
}
