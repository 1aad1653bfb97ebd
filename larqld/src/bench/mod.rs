//! Measurements of one model on this machine: decode, prefill, gate scan, DESCRIBE, serving.
//!
//! A bench uses the threads that serving uses unless told otherwise, and probes the streaming read
//! bandwidth in the same run, before the measurement and after it, so that a figure can be read as a
//! share of what the machine gives. What the first run alone would pay for (pages of weights, buffers)
//! is paid before the clock starts.
//!
//! Elsewhere: several clients at once (`serve`), the probe (`machine`).

mod serve;

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

/// Runs, unless told how many.
const RUNS: u32 = 5;
const RUNS_MAX: u32 = 10_000;
/// How many words `describe` asks about in a run.
const WORDS: usize = 64;
/// What a session says that wants no answer that is kept.
const UNCACHED: &str = "SET result_cache = off";
/// The most tokens that are decoded before the clock starts.
const WARM_UP_DECODE: usize = 4;
/// The most tokens of a prompt that are read before the clock starts.
const WARM_UP_PREFILL: usize = 128;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Request {
    /// `decode`, `prefill`, `gate-scan`, `describe` or `serve`.
    pub kind: String,
    /// Tokens decoded, of the prompt, or made for each client; 0 for the default.
    pub tokens: u32,
    /// Tokens read before, untimed; of `serve`: of each client's prompt, which is timed.
    pub context: u32,
    /// Clients of `serve` at once; 0 for the default.
    pub clients: u32,
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
    let runs = if request.runs == 0 { RUNS } else { request.runs.min(RUNS_MAX) };
    refuse_meaningless(request)?;
    let probe = || machine::streaming_bytes_per_second(pool, 256 << 20, 3);
    let (probed, anonymous_before) = (probe(), machine::anonymous_bytes());
    let mut tell = Tell { number: 0, runs, anonymous_peak: anonymous_before, progress };
    let measured = match request.kind.as_str() {
        "decode" => decode(model, pool, request, cancel, &mut tell)?,
        "prefill" => prefill(model, pool, request, cancel, &mut tell)?,
        "gate-scan" => scan(model, pool, cancel, &mut tell)?,
        "describe" => describe(engine, mounted, cancel, &mut tell)?,
        "serve" => serve::serve(engine, mounted, request, cancel, &mut tell)?,
        other => {
            let message = format!("{other:?} is not a bench");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("decode, prefill, gate-scan, describe or serve"));
        }
    };
    let anonymous_peak = tell.anonymous_peak;
    // A neighbour can only take bandwidth away, so the better of the two is the machine's.
    let probed = probed.max(probe());
    let Measured { per_step_ms, step, bytes_per_step, more } = measured;
    let spread = Spread::of(per_step_ms);
    let median = spread.median;
    let mut object = json!({
        format!("{step}s_per_s"): 1e3 / median,
        format!("ms_per_{step}"): spread.json(),
        format!("bytes_per_{step}"): bytes_per_step,
        "isa": Isa::selected().map_or("unknown", Isa::name),
        "gb_per_s": bytes_per_step.map(|bytes| bytes as f64 / median / 1e6),
        "probed_gb_per_s": probed / 1e9,
        "threads": pool.threads(),
        "runs": runs,
        "model": model.path().file_name().unwrap_or_default().to_string_lossy(),
        "quant": model.stored_type(),
        "anonymous_bytes": { "before": anonymous_before, "peak": anonymous_peak },
    });
    if let Some(object) = object.as_object_mut() {
        object.extend(more);
    }
    Ok(object)
}

/// Refuses options that would have no effect.
fn refuse_meaningless(request: &Request) -> Result<(), Failure> {
    let meaningless: &[&str] = match request.kind.as_str() {
        "decode" | "prefill" => &["clients"],
        "gate-scan" => &["tokens", "context", "clients"],
        // Statements and generations run on the daemon's own threads.
        "describe" => &["tokens", "context", "clients", "threads"],
        "serve" => &["threads"],
        _ => &[],
    };
    let values = [
        ("tokens", request.tokens),
        ("context", request.context),
        ("clients", request.clients),
        ("threads", request.threads),
    ];
    let given = |(name, value): &(&str, u32)| *value != 0 && meaningless.contains(name);
    match values.iter().find(|option| given(option)) {
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
    /// Bytes of weights read in one step, where they are counted.
    bytes_per_step: Option<u64>,
    /// Fields that only this kind has.
    more: serde_json::Map<String, serde_json::Value>,
}

impl Measured {
    fn new(per_step_ms: Vec<f64>, step: &'static str, bytes_per_step: Option<u64>) -> Self {
        Self { per_step_ms, step, bytes_per_step, more: serde_json::Map::new() }
    }
}

/// Tells how far a bench is, and looks at the daemon's memory after each run, while the run's buffers
/// are still held.
struct Tell<'a> {
    number: u32,
    runs: u32,
    anonymous_peak: Option<u64>,
    progress: &'a mut dyn FnMut(String),
}

impl Tell<'_> {
    /// A run has ended.
    fn run(&mut self, result: &str) {
        self.number += 1;
        self.anonymous_peak = self.anonymous_peak.max(machine::anonymous_bytes());
        (self.progress)(format!("run {} of {}: {result}", self.number, self.runs));
    }
}

/// Median and the 10th and 90th percentile.
struct Spread {
    median: f64,
    p10: f64,
    p90: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Self { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "median": self.median, "p10": self.p10, "p90": self.p90 })
    }
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
    cancel: &Cancel,
    tell: &mut Tell<'_>,
) -> Result<Measured, Failure> {
    let context = request.context.max(1) as usize;
    let room = model.architecture().context_max.saturating_sub(context);
    let wanted = if request.tokens == 0 { room.min(64) } else { request.tokens as usize };
    let start = some_tokens(model, context);
    inference::check_tokens(model, &start, wanted)?;
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, Precision::Serving, context + wanted)?;
    run.prefill(&start, None, cancel)?;
    timed_tokens(&mut run, wanted, WARM_UP_DECODE, tell, &mut |run, count| {
        let mut token = start[context - 1];
        for _ in 0..count {
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
    cancel: &Cancel,
    tell: &mut Tell<'_>,
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
    timed_tokens(&mut run, wanted, WARM_UP_PREFILL, tell, &mut |run, count| {
        run.prefill(&tokens[context..][..count], None, cancel)
    })
}

/// Times `read`, which reads so many tokens as it is told, from the same position each time; first a few
/// untimed.
fn timed_tokens<'a>(
    run: &mut Run<'a>,
    count: usize,
    warm_up: usize,
    tell: &mut Tell<'_>,
    read: &mut dyn FnMut(&mut Run<'a>, usize) -> Result<(), Failure>,
) -> Result<Measured, Failure> {
    let start = run.position();
    read(run, count.min(warm_up))?;
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    for _ in 0..tell.runs {
        run.truncate(start);
        let before = run.bytes_touched();
        let began = Instant::now();
        read(run, count)?;
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / count as f64;
        bytes_per_step = (run.bytes_touched() - before) / count as u64;
        per_step_ms.push(elapsed);
        tell.run(&format!("{:.1} tokens/s", 1e3 / elapsed));
    }
    Ok(Measured::new(per_step_ms, "token", Some(bytes_per_step)))
}

fn scan(
    model: &Model,
    pool: &Pool,
    cancel: &Cancel,
    tell: &mut Tell<'_>,
) -> Result<Measured, Failure> {
    let query = vec![1.0; model.architecture().hidden_size];
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    // The first pass brings the pages in.
    for number in 0..=tell.runs {
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
        if number > 0 {
            per_step_ms.push(elapsed);
            tell.run(&format!("{elapsed:.3} ms a layer"));
        }
    }
    Ok(Measured::new(per_step_ms, "scan", Some(bytes_per_step)))
}

fn describe(
    engine: &Arc<Engine>,
    mounted: &Arc<Mounted>,
    cancel: &Cancel,
    tell: &mut Tell<'_>,
) -> Result<Measured, Failure> {
    let words = some_words(&mounted.model)?;
    // A session of its own, with the model in use: the statement takes the way of every other.
    let context = engine.open_session(0, &session::Principal::Daemon, session::Role::Reader, false);
    context.state().current = Some(mounted.clone());
    // What is measured is finding an answer, not having it.
    run_script(
        &context,
        &Script { text: UNCACHED.into(), ..Script::default() },
        cancel,
        &Outcome::default(),
    );
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
    for _ in 0..tell.runs {
        let first = per_step_ms.len();
        for word in &words {
            let (elapsed, touched) = statement(word)?;
            per_step_ms.push(elapsed);
            bytes += touched;
        }
        let median = Spread::of(per_step_ms[first..].to_vec()).median;
        tell.run(&format!("{median:.3} ms a statement"));
    }
    let bytes_per_step = bytes / per_step_ms.len() as u64;
    Ok(Measured::new(per_step_ms, "statement", Some(bytes_per_step)))
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
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0, 4.0]).median, 2.5);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 1.0), 4.0);
    }
}
