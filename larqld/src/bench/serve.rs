//! The bench `serve`: clients that generate at the same time, each as a request of the Generate service.
//!
//! Prompts are letters drawn anew for every client and run, so that no client profits from another's
//! prefix. Tokens are chosen greedily, and a model that ends its text early makes fewer of them: only
//! those that were made are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larql_compute::cpu::Cancel;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Measured, Request, Spread, Tell};
use crate::batch;
use crate::engine::Engine;
use crate::failure::{Failure, code};
use crate::generation::{self, Prompt};
use crate::inference;
use crate::mounts::{Model, Mounted};
use crate::session::Principal;

/// Clients, unless told how many.
const CLIENTS: u32 = 8;
const CLIENTS_MAX: u32 = 1024;
/// Tokens of each prompt, unless told how many.
const PROMPT_TOKENS: u32 = 16;
/// Tokens made for each client, unless told how many.
const TOKENS: u32 = 64;
/// The most tokens of the prompt that is read before the clock starts: they fill every buffer of a pass.
const WARM_UP_TOKENS: u32 = 256;
/// Events that may wait for a client of the bench: it never reads slowly.
const EVENTS_AHEAD: usize = 64;

/// Rounds of this daemon so far: each has other prompts, that of an earlier bench too.
static ROUNDS: AtomicU32 = AtomicU32::new(0);

/// What one client saw.
struct Served {
    prompt_tokens: usize,
    /// When each token came, from the moment at which all clients set out.
    arrivals: Vec<Duration>,
}

/// Measures the rate of all clients together, and what each of them waits for.
pub(super) fn serve(
    engine: &Arc<Engine>,
    mounted: &Arc<Mounted>,
    request: &Request,
    cancel: &Cancel,
    tell: &mut Tell<'_>,
) -> Result<Measured, Failure> {
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let clients = or(request.clients, CLIENTS);
    let (prompt_tokens, tokens) = (or(request.context, PROMPT_TOKENS), or(request.tokens, TOKENS));
    if clients > CLIENTS_MAX {
        let message = format!("{clients} clients: at most {CLIENTS_MAX}");
        return Err(Failure::new(code::INVALID_PARAMETER, message).hint("ask for fewer"));
    }
    mounted.model.require_inference()?;
    let round = |clients: u32, (prompt_tokens, tokens): (u32, u32)| {
        let number = ROUNDS.fetch_add(1, Ordering::Relaxed);
        let ask = |client: u32| letters(&mounted.model, prompt_tokens as usize, (number, client));
        let prompts = (0..clients).map(ask).collect::<Result<Vec<_>, _>>()?;
        generate_together(engine, mounted, &prompts, tokens, cancel)
    };
    // What the first request alone would pay for.
    round(1, (prompt_tokens.min(WARM_UP_TOKENS), tokens.min(2)))?;
    let before = bytes_touched(engine, mounted);
    let mut rounds = Vec::new();
    for _ in 0..tell.runs {
        let served = round(clients, (prompt_tokens, tokens))?;
        tell.run(&format!("{:.1} tokens/s together", rate(&served)));
        rounds.push(served);
    }
    // A runner that ended meanwhile counts from the beginning.
    let bytes = bytes_touched(engine, mounted).zip(before);
    let bytes = bytes.and_then(|(now, before)| now.checked_sub(before));
    Ok(measured(clients, &rounds, bytes))
}

/// Weights that the model's runner has read so far.
fn bytes_touched(engine: &Arc<Engine>, mounted: &Arc<Mounted>) -> Option<u64> {
    let path = mounted.model.path().display().to_string();
    let states = engine.batching().states();
    states.into_iter().find(|state| state.model == path).map(|state| state.bytes_touched)
}

/// Runs one generation for each prompt, all at the same time.
fn generate_together(
    engine: &Arc<Engine>,
    mounted: &Arc<Mounted>,
    prompts: &[String],
    tokens: u32,
    cancel: &Cancel,
) -> Result<Vec<Served>, Failure> {
    let began = Instant::now();
    let one = |prompt: &String| {
        let request = generation::Request {
            tokens_max: tokens,
            ..generation::Request::new(Prompt::Text(prompt.clone()))
        };
        let (events, mut receiver) = mpsc::channel(EVENTS_AHEAD);
        let (batching, model) = (engine.batching(), &mounted.model);
        batching.generate(model, &Principal::Daemon, &request, cancel, events, Box::new(()))?;
        let mut arrivals = Vec::new();
        while let Some(event) = receiver.blocking_recv() {
            match event? {
                batch::Event::Token(_) => arrivals.push(began.elapsed()),
                batch::Event::Done { finished, .. } => {
                    arrivals.truncate(finished.generated_tokens);
                    return Ok(Served { prompt_tokens: finished.prompt_tokens, arrivals });
                }
            }
        }
        Err(Failure::new(code::INTERNAL, "a generation ended without an end"))
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            prompts.iter().map(|prompt| scope.spawn(move || one(prompt))).collect();
        let joined = clients.into_iter().map(|client| {
            client.join().unwrap_or_else(|_| {
                Err(Failure::new(code::INTERNAL, "a client of the bench met a defect of larqld"))
            })
        });
        joined.collect()
    })
}

/// Seconds from the start until the last token.
fn seconds(served: &[Served]) -> f64 {
    let last = served.iter().filter_map(|client| client.arrivals.last()).max();
    last.map_or(f64::NAN, Duration::as_secs_f64)
}

/// Tokens that all clients made in a second, prompts included in the time.
fn rate(served: &[Served]) -> f64 {
    let made: usize = served.iter().map(|client| client.arrivals.len()).sum();
    made as f64 / seconds(served)
}

/// Tokens in a second while every client was decoding: from the first token of the last client to have
/// one, to the end of the first to end. None if there was no such time.
fn rate_decoding(served: &[Served]) -> Option<f64> {
    let from = served.iter().map(|client| client.arrivals.first()).max()??;
    let to = served.iter().map(|client| client.arrivals.last()).min()??;
    let window = to.checked_sub(*from)?.as_secs_f64();
    let within = |at: &&Duration| from < *at && *at <= to;
    let made = served.iter().flat_map(|client| &client.arrivals).filter(within).count();
    (made > 0).then(|| made as f64 / window)
}

fn measured(clients: u32, rounds: &[Vec<Served>], bytes: Option<u64>) -> Measured {
    let all = || rounds.iter().flatten();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let per_token = rounds.iter().map(|served| 1e3 / rate(served)).collect();
    let firsts = all().filter_map(|client| client.arrivals.first().map(|first| ms(*first)));
    let gaps = all().flat_map(|client| client.arrivals.windows(2).map(|two| ms(two[1] - two[0])));
    let gaps: Vec<f64> = gaps.collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let prompts: usize = all().map(|client| client.prompt_tokens).sum();
    let made: usize = all().map(|client| client.arrivals.len()).sum();
    let decoding: Vec<f64> = rounds.iter().filter_map(|served| rate_decoding(served)).collect();
    let per_made = bytes.and_then(|bytes| bytes.checked_div(made as u64));
    let mut measured = Measured::new(per_token, "token", per_made);
    let mut add = |name: &str, value| measured.more.insert(name.to_owned(), value);
    add("clients", clients.into());
    add("prompt_tokens", (prompts as f64 / all().count() as f64).into());
    add("generated_tokens", (made as f64 / all().count() as f64).into());
    add("ttft_ms", Spread::of(firsts.collect()).json());
    let mut between = Spread::of(gaps).json();
    between["max"] = longest.into();
    add("ms_between_tokens", between);
    add(
        "tokens_per_s_decoding",
        json!((!decoding.is_empty()).then(|| Spread::of(decoding).median)),
    );
    measured
}

/// A text of about so many tokens, the special ones included, and at least one: single letters, drawn by
/// `seed`, which nearly every vocabulary has with the space before them.
fn letters(model: &Model, tokens: usize, seed: (u32, u32)) -> Result<String, Failure> {
    let tokenizer = model.tokenizer()?;
    let mut state = u64::from(seed.0) << 32 | u64::from(seed.1);
    let words: Vec<char> = (0..tokens.max(1)).map(|_| letter(&mut state)).collect();
    let mut count = words.len();
    loop {
        let text: String = words[..count].iter().flat_map(|&letter| [' ', letter]).collect();
        let found = tokenizer.encode(&text, true)?.len();
        if found <= tokens || count == 1 {
            inference::prompt_tokens(model, &text)?;
            return Ok(text);
        }
        // Each letter may be several tokens, and special ones stand around them.
        count = (count * tokens / found).clamp(1, count - 1);
    }
}

/// The next letter of a stream (SplitMix64; Steele, Lea and Flood 2014).
fn letter(state: &mut u64) -> char {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    char::from(b'a' + ((mixed ^ mixed >> 31) % 26) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(arrivals: &[u64]) -> Served {
        let arrivals = arrivals.iter().copied().map(Duration::from_millis).collect();
        Served { prompt_tokens: 4, arrivals }
    }

    #[test]
    fn the_rate_of_decoding_counts_only_while_every_client_decodes() {
        let served = [client(&[100, 300, 400, 500]), client(&[200, 350, 450, 600, 900])];
        // From 200 ms to 500 ms: three tokens of the first, two of the second.
        let rate = rate_decoding(&served).unwrap();
        assert!((rate - 5.0 / 0.3).abs() < 1e-9, "{rate}");
        assert!((super::rate(&served) - 9.0 / 0.9).abs() < 1e-9);
    }

    #[test]
    fn clients_one_after_the_other_have_no_time_in_which_all_decode() {
        assert_eq!(rate_decoding(&[client(&[100, 200]), client(&[300, 400])]), None);
        assert_eq!(rate_decoding(&[client(&[100, 200]), client(&[])]), None);
    }
}
