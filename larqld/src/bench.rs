//! Measurements of one model on this machine: decode, prefill, gate scan, DESCRIBE.
//!
//! A bench uses the threads that serving uses unless told otherwise, and probes the streaming read
//! bandwidth in the same run, so that a figure can be read as a share of what the machine gives.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use larql_compute::cpu::{Cancel, Isa, Pool};
use larql_compute::kernels::gate_scan::gate_scan;
use larql_compute::model::{DenseFfn, Precision, Role, Weights as _};
use larql_compute::sample::greedy;
use parking_lot::Mutex;
use serde_json::json;

use crate::engine::Engine;
use crate::exec::{Output, OutputSink, SinkClosed, run_script};
use crate::failure::{Failure, code};
use crate::inference::{self, Run};
use crate::machine;
use crate::mounts::{Model, Mounted};
use crate::session::{Role, Script};
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
        "gate-scan" => scan(model, pool, runs, cancel, progress)?,
        other => {
            let message = format!("{other:?} is not a bench of the daemon");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("decode, prefill or gate-scan; describe is measured by the client"));
        }
    };
    let probed = machine::streaming_bytes_per_second(pool, 256 << 20, 5);
    let Measured { per_step_ms, steps_unit, bytes_per_step } = measured;
    let sorted = sorted(per_step_ms);
    let median = quantile(&sorted, 0.5);
    let steps = if steps_unit == "token" { "ms_per_token" } else { "ms_per_scan" };
    let mut object = json!({
        steps: { "median": median, "p10": quantile(&sorted, 0.1), "p90": quantile(&sorted, 0.9) },
        format!("bytes_per_{steps_unit}"): bytes_per_step,
        "isa": Isa::best().name(),
        "gb_per_s": bytes_per_step as f64 / median / 1e6,
        "probed_gb_per_s": probed / 1e9,
        "threads": pool.threads(),
        "runs": runs,
        "model": model.path().file_name().unwrap_or_default().to_string_lossy(),
        "quant": model.stored_type(),
    });
    if steps_unit == "token" {
        object["tokens_per_s"] = json!(1e3 / median);
    }
    Ok(object)
}

struct Measured {
    /// Milliseconds of each step, in the order measured.
    per_step_ms: Vec<f64>,
    /// What a step is.
    steps_unit: &'static str,
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
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    for number in 0..runs {
        run.truncate(context);
        let mut token = start[context - 1];
        let before = run.bytes_touched();
        let began = Instant::now();
        for _ in 0..wanted {
            run.decode(token, cancel)?;
            token = greedy(run.logits())?;
        }
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / wanted as f64;
        bytes_per_step = (run.bytes_touched() - before) / wanted as u64;
        per_step_ms.push(elapsed);
        progress(format!("run {} of {runs}: {:.1} tokens/s", number + 1, 1e3 / elapsed));
    }
    Ok(Measured { per_step_ms, steps_unit: "token", bytes_per_step })
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
    let mut per_step_ms = Vec::new();
    let mut bytes_per_step = 0;
    for number in 0..runs {
        run.truncate(context);
        let before = run.bytes_touched();
        let began = Instant::now();
        run.prefill(&tokens[context..], None, cancel)?;
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / wanted as f64;
        bytes_per_step = (run.bytes_touched() - before) / wanted as u64;
        per_step_ms.push(elapsed);
        progress(format!("run {} of {runs}: {:.1} tokens/s", number + 1, 1e3 / elapsed));
    }
    Ok(Measured { per_step_ms, steps_unit: "token", bytes_per_step })
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
        for layer in 0..model.architecture().layers() {
            let Some(gates) = model.matrix(Role::Gate, Some(layer)) else { continue };
            black_box(gate_scan(pool, &gates.view, &query, cancel)?);
            layers += 1;
            bytes += gates.view.bytes().len() as u64;
        }
        if layers == 0 {
            return Err(Failure::new(code::MISSING_COMPONENT, "the model has no gate vectors"));
        }
        let elapsed = began.elapsed().as_secs_f64() * 1e3 / f64::from(layers);
        bytes_per_step = bytes / u64::from(layers as u32);
        per_step_ms.push(elapsed);
        progress(format!("run {} of {runs}: {elapsed:.3} ms a layer", number + 1));
    }
    Ok(Measured { per_step_ms, steps_unit: "scan", bytes_per_step })
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
