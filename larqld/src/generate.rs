//! Text generation: a prompt or a chat in, tokens out one by one.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{DenseFfn, Precision};
use larql_compute::sample::{Sampler, SamplerOptions};

use crate::failure::{Failure, code};
use crate::inference::{self, Run};
use crate::mounts::Model;
use crate::text::{ChatMessage, TextStream};

/// Tokens that a request may ask for.
pub const TOKENS_MAX: u32 = 1 << 20;
/// Stop strings that a request may have.
const STOPS_MAX: usize = 16;

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A text, with the tokens that the model expects around one.
    Text(String),
    /// A chat, through the model's template.
    Chat(Vec<ChatMessage>),
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

/// What a generation took.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Why it ended.
    pub reason: Reason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens made.
    pub generated_tokens: u32,
    /// Time to the first token.
    pub prefill: Duration,
    /// Time of the rest.
    pub decode: Duration,
}

/// Generates; `on_token` gets each token's id and the text that became whole with it.
///
/// # Errors
/// `INVALID_PARAMETER` for options that make no sense, `LIMIT` for a prompt that is too long,
/// `CANCELLED`.
pub fn generate(
    model: &Model,
    pool: &Pool,
    request: &Request,
    cancel: &Cancel,
    on_token: &mut dyn FnMut(u32, String) -> ControlFlow<()>,
) -> Result<Finished, Failure> {
    check(request)?;
    let mut sampler = Sampler::new(request.sampler.clone())?;
    let tokenizer = model.tokenizer()?;
    let prompt = match &request.prompt {
        Prompt::Text(text) => inference::prompt_tokens(model, text)?,
        Prompt::Chat(messages) => {
            let rendered = model.chat_template()?.render(messages, true);
            let rendered = rendered.map_err(|error| {
                Failure::new(code::INVALID_PARAMETER, error.to_string())
                    .hint("the template comes with the model")
            })?;
            // The template writes the model's markers itself.
            let tokens = tokenizer.encode(&rendered, false)?;
            inference::check_tokens(model, &tokens, 0)?;
            tokens
        }
    };
    let context_max = model.architecture().context_max;
    let room = context_max - prompt.len();
    let wanted = if request.tokens_max == 0 { TOKENS_MAX } else { request.tokens_max } as usize;
    let most = room.min(wanted);
    let ends = end_tokens(model)?;
    let began = Instant::now();
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, Precision::Serving, prompt.len() + most)?;
    run.prefill(&prompt, None, cancel)?;
    model.check()?;
    let prefill = began.elapsed();
    let began = Instant::now();
    let mut stream = TextStream::new(tokenizer, &prompt);
    let mut held = StopFilter::new(&request.stop);
    let mut generated = 0;
    let mut reason = if room == 0 { Reason::Context } else { Reason::Length };
    while generated < most {
        let token = sampler.sample(run.logits())?;
        if ends.contains(&token) {
            reason = Reason::Stop;
            break;
        }
        generated += 1;
        let (text, stopped) = held.push(&stream.push(token)?);
        if on_token(token, text).is_break() {
            return Err(Failure::cancelled());
        }
        if stopped {
            reason = Reason::Stop;
            break;
        }
        if generated < most {
            run.decode(token, cancel)?;
            model.check()?;
        } else if most == room && room < wanted {
            reason = Reason::Context;
        }
    }
    let rest = stream.finish()?;
    let rest = if held.stopped { String::new() } else { held.push(&rest).0 + &held.rest() };
    if !rest.is_empty() && on_token(u32::MAX, rest).is_break() {
        return Err(Failure::cancelled());
    }
    Ok(Finished {
        reason,
        prompt_tokens: prompt.len(),
        generated_tokens: generated as u32,
        prefill,
        decode: began.elapsed(),
    })
}

fn check(request: &Request) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(code::INVALID_PARAMETER, message));
    if request.tokens_max > TOKENS_MAX {
        return invalid(format!("{} tokens: at most {TOKENS_MAX}", request.tokens_max));
    }
    if request.stop.len() > STOPS_MAX || request.stop.iter().any(String::is_empty) {
        return invalid(format!("at most {STOPS_MAX} stop strings, none of them empty"));
    }
    Ok(())
}

/// The tokens that end a text: those of `generation_config.json`, of `config.json`, and the end
/// marker that `tokenizer_config.json` names.
fn end_tokens(model: &Model) -> Result<Vec<u32>, Failure> {
    let mut ends = model.architecture().eos_tokens.clone();
    let parse = |bytes: Option<Vec<u8>>| {
        bytes
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
            .unwrap_or_default()
    };
    let generation = parse(model.side_file("generation_config.json")?);
    let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &generation["eos_token_id"] {
        serde_json::Value::Array(list) => ends.extend(list.iter().filter_map(id)),
        one => ends.extend(id(one)),
    }
    let tokenizer_config = parse(model.side_file("tokenizer_config.json")?);
    let marker = &tokenizer_config["eos_token"];
    let marker = marker.as_str().or_else(|| marker["content"].as_str());
    ends.extend(marker.and_then(|marker| model.tokenizer().ok()?.id_of(marker)));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// Holds text back for as long as it may be the beginning of a stop string.
struct StopFilter<'a> {
    stops: &'a [String],
    held: String,
    stopped: bool,
}

impl<'a> StopFilter<'a> {
    fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes text; returns what may be given out, and whether a stop string came.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held += text;
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.stopped = true;
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let safe = (0..=self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| {
                self.stops
                    .iter()
                    .any(|stop| stop.starts_with(&self.held[at..]) && at < self.held.len())
            })
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(safe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            out += &text;
            if stopped {
                return (out, true);
            }
        }
        (out + &filter.rest(), false)
    }

    #[test]
    fn a_stop_string_that_comes_in_pieces_is_found_and_not_given_out() {
        assert_eq!(filtered(&["STOP"], &["ab", "S", "TO", "P", "cd"]), ("ab".to_owned(), true));
        assert_eq!(filtered(&["\n\n"], &["a\n", "b\n", "\nc"]), ("a\nb".to_owned(), true));
    }

    #[test]
    fn text_that_only_begins_like_a_stop_string_is_given_out_in_the_end() {
        assert_eq!(filtered(&["STOP"], &["ab", "ST", "x"]), ("abSTx".to_owned(), false));
        assert_eq!(filtered(&["STOP"], &["ab", "ST"]), ("abST".to_owned(), false));
        assert_eq!(filtered(&[], &["é", "日"]), ("é日".to_owned(), false));
    }

    #[test]
    fn the_first_of_several_stop_strings_counts() {
        assert_eq!(filtered(&["c", "b"], &["abc"]), ("a".to_owned(), true));
    }
}
