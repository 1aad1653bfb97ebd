//! Both engines on the same files, by turns: what `docs/benchmarks/llama.md` records.
//!
//! Each measurement is a pair: ours through the daemon (`larql bench`), llama.cpp's through its own
//! programs, with the same threads, one right after the other. What counts is the ratio within a pair,
//! and of the ratios' interval its lower end. Who else took the processors meanwhile stands beside it.
//!
//! Elsewhere: turns (`pairs`), intervals (`statistics`), llama.cpp's programs (`opponent`), the targets and the page
//! (`page`), the models (`shapes::gguf`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use serde_json::Value;

use super::load::{self, Seen, Watch};
use crate::daemon::{Daemon, output};
use crate::llama_cpp::{self, LlamaCpp};
use crate::shapes::gguf;
use crate::statistics;
use opponent::Opponent;
use pairs::Pair;

mod opponent;
mod page;
mod pairs;

/// Pairs below this have no interval.
pub(super) const PAIRS_MIN: u64 = 7;

/// Generations at once, with so many tokens in each prompt and so many made.
const CLIENTS: u32 = 8;
const CLIENT_PROMPT: u32 = 32;
const CLIENT_TOKENS: u32 = 64;
/// The prompts whose first token is waited for.
const FIRST_TOKEN_PROMPTS: [u32; 2] = [16, 512];
/// The context at which memory is looked at, the answer included.
const MEMORY_CONTEXT: u32 = 2048;

/// A model that both engines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Model {
    /// The shape of Llama 3.2 1B
    #[value(name = "1b")]
    OneB,
    /// The shape of Gemma 3 4B
    #[value(name = "4b")]
    FourB,
    /// Eight experts, two at a time, in a Mixtral of 3 billion weights
    #[value(name = "moe")]
    Moe,
}

impl Model {
    fn shape(self) -> &'static gguf::Shape {
        match self {
            Self::OneB => &gguf::LLAMA_1B,
            Self::FourB => &gguf::GEMMA_4B,
            Self::Moe => &gguf::MOE_8X400M,
        }
    }

    fn name(self) -> &'static str {
        self.shape().name
    }

    /// What is measured by pairs.
    fn kinds(self) -> &'static [Kind] {
        use Kind::{Decode, Prefill, Serve};
        match self {
            Self::OneB => &[Decode, Prefill(128), Prefill(512), Prefill(2048), Serve],
            Self::FourB | Self::Moe => &[Decode, Prefill(512)],
        }
    }

    /// Tokens decoded in one measurement: some seconds' worth.
    fn decoded(self) -> u32 {
        match self {
            Self::OneB | Self::Moe => 64,
            Self::FourB => 32,
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decode,
    Prefill(u32),
    /// Several generations at once: the rate of all, prompts included in the time.
    Serve,
    /// The same, while all of them decode.
    ServeDecoding,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decode => write!(out, "decode"),
            Self::Prefill(tokens) => write!(out, "prefill of {tokens} tokens"),
            Self::Serve => write!(out, "{CLIENTS} generations, prompts included"),
            Self::ServeDecoding => write!(out, "{CLIENTS} generations, while all decode"),
        }
    }
}

/// One line of the table.
struct Line {
    model: Model,
    kind: Kind,
    pairs: Vec<Pair>,
    /// Ours: weights read in a second, and the better of the two probes, in GB.
    bandwidth: Option<(f64, f64)>,
    seen: Seen,
}

/// What is measured of ours alone.
#[derive(Default)]
struct Alone {
    /// Tokens of the prompt, milliseconds to the first token.
    first_tokens: Vec<(f64, f64)>,
    /// Anonymous memory at its peak, at a context of `MEMORY_CONTEXT`, in bytes.
    memory: Option<f64>,
    /// Type of the gate vectors, GB/s, GB/s probed.
    gate_scans: Vec<(&'static str, f64, f64)>,
}

struct Bench {
    work: PathBuf,
    binaries: PathBuf,
    daemon: Daemon,
    opponent: Opponent,
    external_probe: PathBuf,
    threads: u64,
}

/// Measures these models, or all, prints the page and, if it is to be recorded, writes it.
pub(super) fn run(root: &Path, models: &[Model], pairs: usize, record: bool) -> anyhow::Result<()> {
    let binaries = crate::build(true)?;
    let llama = LlamaCpp::prepare(root, &["llama-bench", "llama-server"])?;
    llama.require_fast()?;
    let system_info = llama.system_info(root)?;
    println!("{}: {system_info}", llama.version()?);
    let work = crate::target_directory().join("bench");
    std::fs::create_dir_all(&work)?;
    let models = if models.is_empty() { Model::value_variants() } else { models };
    for model in models {
        model.shape().file(&work)?;
    }
    let external_probe = llama_cpp::home()?.join("streaming_read");
    let mut compiler = Command::new("cc");
    compiler.args(["-O3", "-march=native", "-pthread", "-o"]).arg(&external_probe);
    crate::run(compiler.arg(root.join("tests/reference/streaming_read.c")))?;
    let _ = std::fs::remove_dir_all(work.join("data"));
    let daemon = Daemon::start(&binaries, &work.join("data"))?;
    let status = daemon.json(&["-F", "json", "admin", "status"])?;
    let threads = status["threads"].as_u64().context("the daemon's threads")?;
    let opponent = Opponent::new(&llama, threads);
    let bench = Bench { work, binaries, daemon, opponent, external_probe, threads };
    let began = Instant::now();
    let load_before = load::average();
    println!("load average before: {load_before}");
    let (mut lines, mut alone) = (Vec::new(), Alone::default());
    let mut failures = Vec::new();
    // One measurement that fails does not take the others with it.
    let mut failed = |model: Model, error: anyhow::Error| {
        println!("  FAILED: {error:#}");
        failures.push(format!("{}: {error:#}", model.name()));
    };
    for &model in models {
        bench.mount(model)?;
        for &kind in model.kinds() {
            match bench.line(model, kind, pairs) {
                Ok(measured) => lines.extend(measured),
                Err(error) => failed(model, error),
            }
        }
        bench.alone(model, &mut alone).unwrap_or_else(|error| failed(model, error));
        bench.unmount(model)?;
    }
    let head = page::Head {
        pairs,
        threads,
        minutes: began.elapsed().as_secs_f64() / 60.0,
        load: (load_before, load::average()),
        opponent: llama.version()?,
        system_info,
        failures,
    };
    let path = root.join("docs/benchmarks/llama.md");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let text = page::page(root, &head, &lines, &alone, &kept)?;
    println!("\n{text}");
    if record {
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    ensure!(head.failures.is_empty(), "{} measurements failed", head.failures.len());
    Ok(())
}

impl Bench {
    fn mount(&self, model: Model) -> anyhow::Result<()> {
        self.mount_in(&self.daemon, model)
    }

    fn mount_in(&self, daemon: &Daemon, model: Model) -> anyhow::Result<()> {
        let file = model.shape().file(&self.work)?;
        let statement = format!("MOUNT \"{}\" AS \"{}\"", file.display(), model.name());
        output(&mut daemon.larql(&["-q", "-c", &statement])).map(drop)
    }

    fn unmount(&self, model: Model) -> anyhow::Result<()> {
        let statement = format!("UNMOUNT \"{}\"", model.name());
        output(&mut self.daemon.larql(&["-q", "-c", &statement])).map(drop)
    }

    /// One bench of ours.
    fn ours(&self, kind: &str, model: &str, options: &[(&str, u32)]) -> anyhow::Result<Value> {
        ours(&self.daemon, kind, model, options)
    }

    /// The better of both probes at this moment, in GB/s.
    fn probed(&self, ours: &Value) -> anyhow::Result<f64> {
        let threads = self.threads.to_string();
        let mut probe = Command::new(&self.external_probe);
        let external = output(probe.args(["256", &threads, "5"]))?;
        let external: f64 = external.parse().with_context(|| external.clone())?;
        Ok(number(ours, "probed_gb_per_s").max(external / 1e9))
    }

    /// Measures by pairs; two lines where the rate depends on what is counted.
    fn line(&self, model: Model, kind: Kind, pairs: usize) -> anyhow::Result<Vec<Line>> {
        let what = format!("{}, {kind}", model.name());
        println!("{what}");
        let file = model.shape().file(&self.work)?;
        let (mut seen, mut bandwidth) = (Seen::default(), Vec::new());
        let mut decoding = Vec::new();
        let mut theirs_decoding = Vec::new();
        let daemon = self.daemon.id();
        let mut watch = Watch::new(daemon);
        let measured = pairs::alternate(
            pairs,
            || match kind {
                Kind::Decode => {
                    let options = [("tokens", model.decoded()), ("runs", 1)];
                    let json = self.ours("decode", model.name(), &options)?;
                    bandwidth.push((number(&json, "gb_per_s"), self.probed(&json)?));
                    Ok(number(&json, "tokens_per_s"))
                }
                Kind::Prefill(tokens) => {
                    let options = [("tokens", tokens), ("runs", 1)];
                    Ok(number(&self.ours("prefill", model.name(), &options)?, "tokens_per_s"))
                }
                Kind::Serve | Kind::ServeDecoding => {
                    let options = [
                        ("clients", CLIENTS),
                        ("context", CLIENT_PROMPT),
                        ("tokens", CLIENT_TOKENS),
                        ("runs", 1),
                    ];
                    let json = self.ours("serve", model.name(), &options)?;
                    decoding.push(number(&json, "tokens_per_s_decoding"));
                    Ok(number(&json, "tokens_per_s"))
                }
            },
            || match kind {
                Kind::Decode => self.opponent.rate(&file, 0, model.decoded()),
                Kind::Prefill(tokens) => self.opponent.rate(&file, tokens, 0),
                Kind::Serve | Kind::ServeDecoding => {
                    let served =
                        self.opponent.serve(&file, CLIENTS, CLIENT_PROMPT, CLIENT_TOKENS)?;
                    theirs_decoding.push(served.decoding);
                    Ok(served.rate)
                }
            },
            |Pair { ours, theirs }| {
                let now = watch.seen();
                let warning = now.warning().map(|warning| format!("; WARNING: {warning}"));
                println!(
                    "  ours {ours:.1}, llama.cpp {theirs:.1}: {:.3}{}",
                    ours / theirs,
                    warning.unwrap_or_default()
                );
                seen = seen.worse(now);
                watch = Watch::new(daemon);
            },
        )?;
        let of = |index: fn(&(f64, f64)) -> f64| statistics::median(bandwidth.iter().map(index));
        let bandwidth = (!bandwidth.is_empty()).then(|| (of(|both| both.0), of(|both| both.1)));
        let mut lines = vec![Line { model, kind, pairs: measured, bandwidth, seen }];
        if kind == Kind::Serve {
            let pair = |(&ours, &theirs)| Pair { ours, theirs };
            let pairs = decoding.iter().zip(&theirs_decoding).map(pair).collect();
            let kind = Kind::ServeDecoding;
            lines.push(Line { model, kind, pairs, bandwidth: None, seen });
        }
        Ok(lines)
    }

    /// Anonymous memory at its peak, in bytes, of a daemon that serves one generation and has done nothing
    /// else. One that has served others keeps their prefixes too, as many as its configuration allows.
    fn memory(&self, model: Model) -> anyhow::Result<f64> {
        let data = self.work.join("data-memory");
        let _ = std::fs::remove_dir_all(&data);
        let daemon = Daemon::start(&self.binaries, &data)?;
        self.mount_in(&daemon, model)?;
        let options =
            [("clients", 1), ("context", MEMORY_CONTEXT - 32), ("tokens", 32), ("runs", 1)];
        let json = ours(&daemon, "serve", model.name(), &options)?;
        Ok(number(&json["anonymous_bytes"], "peak"))
    }

    /// What has no counterpart in llama.cpp's programs.
    fn alone(&self, model: Model, alone: &mut Alone) -> anyhow::Result<()> {
        match model {
            Model::OneB => {
                for prompt in FIRST_TOKEN_PROMPTS {
                    let options = [("clients", 1), ("context", prompt), ("tokens", 4), ("runs", 9)];
                    let json = self.ours("serve", model.name(), &options)?;
                    let first = number(&json["ttft_ms"], "median");
                    let prompt = number(&json, "prompt_tokens");
                    println!("{}, first token after {prompt}: {first:.1} ms", model.name());
                    alone.first_tokens.push((prompt, first));
                }
                let peak = self.memory(model)?;
                println!("{}, anonymous memory at most {:.0} MB", model.name(), peak / 1e6);
                alone.memory = Some(peak);
            }
            Model::FourB => {
                let vindex = self.work.join("gates-f16.vindex").display().to_string();
                let source = model.shape().file(&self.work)?.display().to_string();
                let arguments = [
                    "-q",
                    "extract",
                    &source,
                    "-o",
                    &vindex,
                    "--level",
                    "browse",
                    "--f16",
                    "--layers",
                    "0-0",
                    "--no-labels",
                    "--overwrite",
                ];
                output(&mut self.daemon.larql(&arguments))?;
                for (kind, model) in [("f16", vindex.as_str()), ("q4k", model.name())] {
                    let json = self.ours("gate-scan", model, &[("runs", 31)])?;
                    let (rate, probed) = (number(&json, "gb_per_s"), self.probed(&json)?);
                    println!("gate scan, {kind}: {rate:.1} GB/s of {probed:.1}");
                    alone.gate_scans.push((kind, rate, probed));
                }
            }
            Model::Moe => {}
        }
        Ok(())
    }
}

/// One bench of ours, by this daemon.
fn ours(
    daemon: &Daemon,
    kind: &str,
    model: &str,
    options: &[(&str, u32)],
) -> anyhow::Result<Value> {
    let mut arguments = vec!["bench".to_owned(), kind.to_owned(), model.to_owned()];
    for (name, value) in options {
        arguments.extend([format!("--{name}"), value.to_string()]);
    }
    arguments.push("--json".to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    daemon.json(&arguments)
}

/// A number of a bench's object; NaN where it has none.
fn number(json: &Value, name: &str) -> f64 {
    json[name].as_f64().unwrap_or(f64::NAN)
}
