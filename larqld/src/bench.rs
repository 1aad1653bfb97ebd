//! Measurements of one model on this machine: decode, prefill, gate scan, DESCRIBE.
//!
//! A bench uses the threads that serving uses unless told otherwise, and probes the streaming read
//! bandwidth in the same run, so that a figure can be read as a share of what the machine gives.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use larql_compute::cpu::{Cancel, Isa, Pool};
use larql_compute::model::{DenseFfn, Precision};
use larql_compute::sample::greedy;
use parking_lot::Mutex;
use serde_json::json;

use crate::engine::Engine;
use crate::exec::{Output, OutputSink, SinkClosed, run_script};
use crate::failure::{Failure, code};
use crate::inference::{self, Run};
use crate::machine;
use crate::mounts::{Model, Mounted};
use crate::session::{self, Script};
use crate::text::is_content;

/// How many words `describe` asks about in a run.
const WORDS: usize = 64;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Request {
    /// `decode`, `prefill`, `gate-scan` or `describe`.
    pub kind: String,
    /// Tokens decoded, or of the prompt; 0 for the default.
    pub tokens: u32,
    /// Tokens read before, untimed.
    pub context: u32,
    /// How often; 0 for the default.
    pub runs: u32,
    /// Threads; 0 for those of serving.
    pub threads: u32,
}

/// Measures, and returns the object of `larql bench --json`.
///
/// # Errors
/// `INVALID_PARAMETER` for another kind or sizes that do not fit the model; as the model's own runs.
pub fn bench(
    engine: &Arc<Engine>,
    mounted: &Arc<Mounted>,
    request: &Request,
    cancel: &Cancel,
    progress: &mut dyn FnMut(String),
) -> Result<serde_json::Value, Failure> {
    let model = &*mounted.model;
    let own;
    let pool = if request.threads == 0 {
        engine.pool()
    } else {
        own = Pool::new((request.threads as usize).min(1024));
        &own
    };
    let runs = if request.runs == 0 { 5 } else { request.runs.min(10_000) };
    let measured = match request.kind.as_str() {
        "decode" => decode(model, pool, request, runs, cancel, progress)?,
        "prefill" => prefill(model, pool, request, runs, cancel, progress)?,
        "gate-scan" => {
            refuse(request, &[("tokens", request.tokens), ("context", request.context)])?;
            scan(model, pool, runs, cancel, progress)?
        }
        "describe" => {
            let meaningless = [
                ("tokens", request.tokens),
                ("context", request.context),
                // Statements run on the daemon's own threads.
                ("threads", request.threads),
            ];
            refuse(request, &meaningless)?;
            describe(engine, mounted, runs, cancel, progress)?
        }
        other => {
            let message = format!("{other:?} is not a bench");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("decode, prefill, gate-scan or describe"));
        }
    };
    let probed = machine::streaming_bytes_per_second(pool, 256 << 20, 5);
    let Measured { per_step_ms, step, bytes_per_step } = measured;
    let sorted = sorted(per_step_ms);
    let median = quantile(&sorted, 0.5);
    Ok(json!({
        format!("{step}s_per_s"): 1e3 / median,
        format!("ms_per_{step}"):
            { "median": median, "p10": quantile(&sorted, 0.1), "p90": quantile(&sorted, 0.9) },
        format!("bytes_per_{step}"): bytes_per_step,
        "isa": Isa::best().name(),
        "gb_per_s": bytes_per_step as f64 / median / 1e6,
        "probed_gb_per_s": probed / 1e9,
        "threads": pool.threads(),
        "runs": runs,
        "model": model.path().file_name().unwrap_or_default().to_string_lossy(),
        "quant": model.stored_type(),
    }))
}

/// Refuses options that would have no effect.
fn refuse(request: &Request, meaningless: &[(&str, u32)]) -> Result<(), Failure> {
    match meaningless.iter().find(|(_, value)| *value != 0) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("{name} means nothing to the bench {}", request.kind);
            Err(Failure::new(code::INVALID_PARAMETER, message).hint(format!("leave out --{name}")))
        }
    }
}

struct Measured {
    /// Milliseconds of each step, in the order measured.
    per_step_ms: Vec<f64>,
    /// What a step is: `token`, `scan`, `statement`.
    step: &'static str,
    /// Weights read in one step.
    bytes_per_step: u64,
}

/// Any tokens do: their values decide nothing about the work.
fn some_tokens(model: &Model, count: usize) -> Vec<u32> {
    let vocabulary = model.architecture().vocabulary_size as u64;
    (0..count as u64).map(|index| (index * 7919 % vocabulary) as u32).collect()
}

fn decode(
    model: &Model,
    pool: &Pool,
    request: &Request,
    runs: u32,
    cancel: &Cancel,
    progress: &mut dyn FnMut(String),
) -> Result<Measured, Failure> {
    let context = request.context.max(1) as usize;
    let room = model.architecture().context_max.saturating_sub(context);
    let wanted = if request.tokens == 0 { room.min(64) } else { request.tokens as usize };
    let start = some_tokens(model, context);
    inference::check_tokens(model, &start, wanted)?;
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, Precision::Serving, context + wanted)?;
    run.prefill(&start, None, cancel)?;
    timed_tokens(&mut run, wanted, runs, progress, &mut |run| {
        let mut token = start[context - 1];
        for _ in 0..wanted {
            run.decode(token, cancel)?;
            token = greedy(run.logits())?;
        }
        Ok(())
    })
}

fn prefill(
    model: &Model,
    pool: &Pool,
    request: &Request,
    runs: u32,
    cancel: &Cancel,
    progress: &mut dyn FnMut(String),
) -> Result<Measured, Failure> {
    let context = request.context as usize;
    let room = model.architecture().context_max.saturating_sub(context);
    let wanted = if request.tokens == 0 { room.min(512) } else { request.tokens as usize };
    let tokens = some_tokens(model, context + wanted);
    inference::check_tokens(model, &tokens, 0)?;
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, Precision::Serving, context + wanted)?;
    if context > 0 {
        run.prefill(&tokens[..context], None, cancel)?;
    }
    timed_tokens(&mut run, wanted, runs, progress, &mut |run| {
        run.prefill(&tokens[context..], None, cancel)
    })
}

/// Times `read`, which reads `count` tokens, from the same position each time.
fn timed_tokens<'a>(
    run: &mut Run<'a>,
    count: usize,
    runs: u32,
    progress: &mut dyn FnMut(String),
    read: &mut dyn FnMut(&mut Run<'a>) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let start = run.position();
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    for number in 0..runs {
        run.truncate(start);
        let before = run.bytes_touched();
        let began = Instant::now();
        read(run)?;
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / count as f64;
        bytes_per_step = (run.bytes_touched() - before) / count as u64;
        per_step_ms.push(elapsed);
        progress(format!("run {} of {runs}: {:.1} tokens/s", number + 1, 1e3 / elapsed));
    }
    Ok(Measured { per_step_ms, step: "token", bytes_per_step })
}

fn scan(
    model: &Model,
    pool: &Pool,
    runs: u32,
    cancel: &Cancel,
    progress: &mut dyn FnMut(String),
) -> Result<Measured, Failure> {
    let query = vec![1.0; model.architecture().hidden_size];
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    for number in 0..runs {
        let (mut layers, mut bytes) = (0, 0);
        let began = Instant::now();
        for layer in 0..model.layers() {
            for (_, gates) in model.gates(layer) {
                black_box(inference::gate_scores(pool, &gates, &query, cancel)?);
                bytes += gates.view.bytes_touched();
            }
            layers += u32::from(model.features(layer) > 0);
        }
        if layers == 0 {
            return Err(Failure::new(code::MISSING_COMPONENT, "the model has no gate vectors"));
        }
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / f64::from(layers);
        bytes_per_step = bytes / u64::from(layers);
        per_step_ms.push(elapsed);
        progress(format!("run {} of {runs}: {elapsed:.3} ms a layer", number + 1));
    }
    Ok(Measured { per_step_ms, step: "scan", bytes_per_step })
}

fn describe(
    engine: &Arc<Engine>,
    mounted: &Arc<Mounted>,
    runs: u32,
    cancel: &Cancel,
    progress: &mut dyn FnMut(String),
) -> Result<Measured, Failure> {
    let words = some_words(&mounted.model)?;
    // A session of its own, with the model in use: the statement takes the way of every other.
    let context = engine.open_session(0, "bench", session::Role::Reader, false);
    context.state().current = Some(mounted.clone());
    let statement = |word: &Arc<str>| -> Result<(f64, u64), Failure> {
        let text = format!("DESCRIBE \"{word}\"");
        let sink = Outcome::default();
        let began = Instant::now();
        run_script(&context, &Script { text, ..Script::default() }, cancel, &sink);
        let elapsed = began.elapsed().as_secs_f64() * 1e3;
        Ok((elapsed, sink.0.into_inner()?))
    };
    // The first pass brings the pages in.
    for word in &words {
        statement(word)?;
    }
    let mut per_step_ms = Vec::new();
    let mut bytes = 0;
    for number in 0..runs {
        let first = per_step_ms.len();
        for word in &words {
            let (elapsed, touched) = statement(word)?;
            per_step_ms.push(elapsed);
            bytes += touched;
        }
        let median = quantile(&sorted(per_step_ms[first..].to_vec()), 0.5);
        progress(format!("run {} of {runs}: {median:.3} ms a statement", number + 1));
    }
    let bytes_per_step = bytes / per_step_ms.len() as u64;
    Ok(Measured { per_step_ms, step: "statement", bytes_per_step })
}

/// Words of the vocabulary, evenly spaced, that stand in a string as they are.
fn some_words(model: &Model) -> Result<Vec<Arc<str>>, Failure> {
    let tokenizer = model.tokenizer()?;
    let plain = |word: &Arc<str>| is_content(word) && word.chars().all(char::is_alphanumeric);
    let all: Vec<Arc<str>> = (0..model.architecture().vocabulary_size as u32)
        .map(|id| tokenizer.word(id))
        .filter(plain)
        .collect();
    if all.is_empty() {
        return Err(Failure::new(code::UNSUPPORTED_FORMAT, "no token of the model is a word"));
    }
    let count = all.len().min(WORDS);
    Ok((0..count).map(|index| all[index * all.len() / count].clone()).collect())
}

/// What became of one statement: the bytes that it read, or why it failed.
struct Outcome(Mutex<Result<u64, Failure>>);

impl Default for Outcome {
    fn default() -> Self {
        Self(Mutex::new(Ok(0)))
    }
}

impl OutputSink for Outcome {
    fn send(&self, output: Output) -> Result<(), SinkClosed> {
        match output {
            Output::Rows(rows) => drop(black_box(rows)),
            Output::Summary(summary) => *self.0.lock() = Ok(summary.bytes_touched),
            Output::Failure { failure, .. } => *self.0.lock() = Err(failure),
            _ => {}
        }
        Ok(())
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which a share of sorted values lies, interpolated.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values = sorted(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!(quantile(&values, 0.5), 2.5);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 1.0), 4.0);
    }
}
