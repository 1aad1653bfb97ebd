//! Benchmarks of the real programs, release-built: what `docs/benchmarks/spine.md` records.
//!
//! Each figure is the median of several runs with its spread, beside the streaming read bandwidth that
//! was probed in the same run where bytes decide.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::daemon::{Daemon, machine, output};
use crate::shapes::LLAMA_1B;

mod durable;
mod edits;
mod extraction;
mod knowledge;
mod llama;
mod load;
mod planner;

/// A benchmark of its own, with a page of its own.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Subject {
    /// Extraction of the 1B-shaped model, stage by stage: docs/benchmarks/extraction.md
    Extraction,
    /// llama.cpp on the same files, by turns: docs/benchmarks/llama.md
    Llama,
    /// What DESCRIBE knows, on entities that labels never saw: docs/benchmarks/knowledge.md
    Knowledge,
    /// What edits do to answers, by mode and base: docs/benchmarks/edits.md
    Edits,
    /// Commits beside syncs of the disk: docs/benchmarks/durable.md
    Durable,
    /// Chosen plans beside all others, DESCRIBE, statements a second: docs/benchmarks/planner.md
    Planner,
}

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Measure only this, and more of it
    subject: Option<Subject>,
    /// Of `extraction`: how many of the model's layers
    #[arg(long, default_value_t = LLAMA_1B.layers as u32, value_parser = clap::value_parser!(u32).range(1..=LLAMA_1B.layers as i64))]
    layers: u32,
    /// Leave out the 1B-shaped model (2.5 GB, several minutes); of `planner` and `edits`: programs without optimisations
    #[arg(long)]
    small: bool,
    /// Of `llama`: the models, all unless named
    #[arg(long, value_enum, value_delimiter = ',')]
    models: Vec<llama::Model>,
    /// Of `llama`: pairs of measurements of each line
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(llama::PAIRS_MIN..))]
    pairs: u64,
    /// Of `planner`: the checkpoint or vindex that DESCRIBE is timed on
    #[arg(long, default_value = "target/bench/gemma-4b-Q4_K_M.gguf")]
    large: PathBuf,
    /// Of `edits`: single edits of each base and mode, edits on top of one another, facts in a statement of those
    #[arg(long, default_value_t = 500)]
    edits: u32,
    #[arg(long, default_value_t = 500)]
    sequential: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Of `edits`: bases and modes, all unless named
    #[arg(long, value_enum, value_delimiter = ',')]
    bases: Vec<edits::Base>,
    #[arg(long, value_enum, value_delimiter = ',')]
    modes: Vec<edits::Mode>,
    /// Of `edits`: entities of the half that methods are tuned on
    #[arg(long)]
    tuning: bool,
    /// Of `edits`: the model of another family
    #[arg(long, default_value = "../shared/models/atlas-llama")]
    llama: PathBuf,
    /// Of `knowledge` and `edits`: the checkpoint and the facts that answers are judged by; of `planner`: that queries are about
    #[arg(long, default_value = "larqld/assets/atlas")]
    model: PathBuf,
    #[arg(long, default_value = "larqld/assets/atlas/facts.tsv")]
    facts: PathBuf,
    /// Of `knowledge`: a sentence for each relation, to see which facts the model answers itself
    #[arg(long, default_value = "tests/data/atlas-prompts.tsv")]
    prompts: PathBuf,
    /// Of `knowledge`: parts that entities are divided into, and how many of them are scored
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    folds: u32,
    #[arg(long, default_value_t = 5)]
    folds_run: u32,
    /// Runs of each measurement
    #[arg(long, default_value_t = 7)]
    runs: u32,
    /// Write the page in docs/benchmarks
    #[arg(long)]
    record: bool,
}

/// Measures and prints a table.
pub fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.subject {
        Some(Subject::Extraction) => {
            return extraction::run(root, arguments.layers, arguments.record);
        }
        Some(Subject::Llama) => {
            let pairs = usize::try_from(arguments.pairs)?;
            return llama::run(root, &arguments.models, pairs, arguments.record);
        }
        Some(Subject::Knowledge) => {
            let options = knowledge::Options {
                model: root.join(&arguments.model),
                facts: root.join(&arguments.facts),
                prompts: root.join(&arguments.prompts),
                folds: arguments.folds as usize,
                folds_run: arguments.folds_run as usize,
                record: arguments.record,
            };
            return knowledge::run(root, &options);
        }
        Some(Subject::Edits) => {
            let options = edits::Options {
                model: root.join(&arguments.model),
                facts: root.join(&arguments.facts),
                llama: root.join(&arguments.llama),
                bases: arguments.bases.clone(),
                modes: arguments.modes.clone(),
                edits: arguments.edits,
                sequential: arguments.sequential,
                batch: arguments.batch,
                tuning: arguments.tuning,
                small: arguments.small,
                record: arguments.record,
            };
            return edits::run(root, &options);
        }
        Some(Subject::Durable) => return durable::run(root, arguments.runs, arguments.record),
        Some(Subject::Planner) => {
            let options = planner::Options {
                model: root.join(&arguments.model),
                large: root.join(&arguments.large),
                small: arguments.small,
                runs: arguments.runs,
                record: arguments.record,
            };
            return planner::run(root, &options);
        }
        None => {}
    }
    let binaries = crate::build(true)?;
    let work = crate::target_directory().join("bench");
    let _ = std::fs::remove_dir_all(work.join("data"));
    std::fs::create_dir_all(&work)?;
    let daemon = Daemon::start(&binaries, &work.join("data"))?;
    let mut table = Table::default();
    parser(&mut table)?;
    let atlas = daemon.data.join("atlas.vindex");
    let atlas_source = root.join("larqld/assets/atlas");
    extraction(&daemon, &mut table, "atlas", &atlas_source, &atlas, "")?;
    model(&daemon, &mut table, "atlas, f16 vindex", &atlas, arguments.runs, true)?;
    if !arguments.small {
        let source = LLAMA_1B.checkpoint(&work)?;
        model(&daemon, &mut table, "1B shape, f16 checkpoint", &source, arguments.runs, false)?;
        let part = daemon.data.join("part.vindex");
        extraction(&daemon, &mut table, "1B shape, 2 of 16 layers", &source, &part, "LAYERS 0-1")?;
        // DESCRIBE reads the knowledge band, which these layers have no part in.
        gate_scan(&daemon, &mut table, "1B shape, 2 layers", &part, arguments.runs)?;
        mount(&daemon, &mut table, "1B shape, 2 layers", &part, arguments.runs)?;
    }
    drop(daemon);
    let text = table.render(root)?;
    println!("{text}");
    if arguments.record {
        let path = root.join("docs/benchmarks/spine.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[derive(Default)]
struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    fn row(&mut self, what: &str, median: String, spread: String, note: String) {
        println!("{what}: {median} ({spread}) {note}");
        self.rows.push([what.to_owned(), median, spread, note]);
    }

    fn render(&self, root: &Path) -> anyhow::Result<String> {
        let mut text = String::from("# The spine, measured\n\n");
        writeln!(text, "{}; load average at the end {};", machine(root)?, load::average())?;
        writeln!(
            text,
            "command: `cargo xtask bench --record`. Medians; the spread is the 10th to the 90th percentile of the runs.\n"
        )?;
        writeln!(text, "| what | median | spread | note |\n|---|---|---|---|")?;
        for [what, median, spread, note] in &self.rows {
            writeln!(text, "| {what} | {median} | {spread} | {note} |")?;
        }
        Ok(text)
    }
}

fn parser(table: &mut Table) -> anyhow::Result<()> {
    let mut command = crate::cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "larql-planner",
        "--example",
        "parser_rate",
    ]);
    let text = output(&mut command)?;
    let measured: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let number = |name: &str| measured[name].as_f64().unwrap_or(f64::NAN);
    table.row(
        "parser, mixed statements, one core",
        format!("{:.2} million/s", number("median") / 1e6),
        format!("{:.2} to {:.2}", number("p10") / 1e6, number("p90") / 1e6),
        format!("{:.0} bytes a statement", number("bytes_per_statement")),
    );
    Ok(())
}

fn extraction(
    daemon: &Daemon,
    table: &mut Table,
    name: &str,
    source: &Path,
    destination: &Path,
    options: &str,
) -> anyhow::Result<()> {
    let statement = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE {options} OVERWRITE WITHOUT LABELS",
        source.display(),
        destination.display()
    );
    let Extracted { seconds, before, peak, written } = extract(daemon, &statement, destination)?;
    table.row(
        &format!("extraction of {name}, inference level"),
        format!("{seconds:.1} s"),
        "one run".to_owned(),
        format!(
            "{:.0} MB written; anonymous memory at most {:.0} MB above {:.0} MB",
            written as f64 / 1e6,
            (peak - before) as f64 / 1e6,
            before as f64 / 1e6
        ),
    );
    Ok(())
}

/// One extraction: its time, the daemon's anonymous memory before it and at its peak, bytes on disk.
struct Extracted {
    seconds: f64,
    before: u64,
    peak: u64,
    written: u64,
}

fn extract(daemon: &Daemon, statement: &str, destination: &Path) -> anyhow::Result<Extracted> {
    let before = daemon.anonymous_bytes();
    let mut child = daemon
        .larql(&["-q", "-c", statement])
        .stdout(Stdio::null())
        .stdin(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    let mut peak = before;
    let status = loop {
        peak = peak.max(daemon.anonymous_bytes());
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{statement} ended with {status}");
    }
    let written = std::fs::read_dir(destination)?
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum();
    Ok(Extracted { seconds, before, peak, written })
}

fn model(
    daemon: &Daemon,
    table: &mut Table,
    name: &str,
    path: &Path,
    runs: u32,
    vindex: bool,
) -> anyhow::Result<()> {
    let path_text = path.display().to_string();
    let runs_text = runs.to_string();
    let decode = daemon
        .json(&["bench", "decode", &path_text, "--tokens", "32", "--runs", &runs_text, "--json"])?;
    let ms = |at: &str| decode["ms_per_token"][at].as_f64().unwrap_or(f64::NAN);
    let bandwidth = |json: &Value| {
        format!(
            "{:.1} GB/s of {:.1} probed, {} threads, {}",
            json["gb_per_s"].as_f64().unwrap_or(f64::NAN),
            json["probed_gb_per_s"].as_f64().unwrap_or(f64::NAN),
            json["threads"],
            json["isa"].as_str().unwrap_or_default()
        )
    };
    table.row(
        &format!("decode, {name}"),
        format!("{:.1} tokens/s", 1e3 / ms("median")),
        format!("{:.1} to {:.1}", 1e3 / ms("p90"), 1e3 / ms("p10")),
        bandwidth(&decode),
    );
    let prefill = daemon.json(&[
        "bench", "prefill", &path_text, "--tokens", "128", "--runs", &runs_text, "--json",
    ])?;
    let ms = |at: &str| prefill["ms_per_token"][at].as_f64().unwrap_or(f64::NAN);
    table.row(
        &format!("prefill of 128 tokens, {name}"),
        format!("{:.0} tokens/s", 1e3 / ms("median")),
        format!("{:.0} to {:.0}", 1e3 / ms("p90"), 1e3 / ms("p10")),
        String::new(),
    );
    if vindex {
        gate_scan(daemon, table, name, path, runs)?;
        describe(daemon, table, name, path, runs)?;
        mount(daemon, table, name, path, runs)?;
    }
    Ok(())
}

/// Milliseconds of a bench's object at one of its quantiles.
fn ms(json: &Value, of: &str, at: &str) -> f64 {
    json[of][at].as_f64().unwrap_or(f64::NAN)
}

fn gate_scan(
    daemon: &Daemon,
    table: &mut Table,
    name: &str,
    path: &Path,
    runs: u32,
) -> anyhow::Result<()> {
    let (path, runs) = (path.display().to_string(), runs.to_string());
    let scan = daemon.json(&["bench", "gate-scan", &path, "--runs", &runs, "--json"])?;
    table.row(
        &format!("gate scan of one layer, {name}"),
        format!("{:.3} ms", ms(&scan, "ms_per_scan", "median")),
        format!("{:.3} to {:.3}", ms(&scan, "ms_per_scan", "p10"), ms(&scan, "ms_per_scan", "p90")),
        format!(
            "{:.1} GB/s of {:.1} probed",
            scan["gb_per_s"].as_f64().unwrap_or(f64::NAN),
            scan["probed_gb_per_s"].as_f64().unwrap_or(f64::NAN)
        ),
    );
    Ok(())
}

fn describe(
    daemon: &Daemon,
    table: &mut Table,
    name: &str,
    path: &Path,
    runs: u32,
) -> anyhow::Result<()> {
    let (path, runs) = (path.display().to_string(), runs.to_string());
    let describe = daemon.json(&["bench", "describe", &path, "--runs", &runs, "--json"])?;
    table.row(
        &format!("DESCRIBE, {name}"),
        format!("{:.2} ms", ms(&describe, "ms_per_statement", "median")),
        format!(
            "{:.2} to {:.2}",
            ms(&describe, "ms_per_statement", "p10"),
            ms(&describe, "ms_per_statement", "p90")
        ),
        "one session, in the daemon".to_owned(),
    );
    Ok(())
}

/// Time of MOUNT alone, as the daemon reports it, nobody else having the vindex open.
fn mount(
    daemon: &Daemon,
    table: &mut Table,
    name: &str,
    path: &Path,
    runs: u32,
) -> anyhow::Result<()> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut times = Vec::new();
    for _ in 0..runs {
        daemon.milliseconds(&format!("UNMOUNT {stem}"))?;
        times.push(daemon.milliseconds(&format!("MOUNT \"{}\" AS {stem}", path.display()))?);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    table.row(
        &format!("MOUNT, {name}"),
        format!("{:.1} ms", at(0.5)),
        format!("{:.1} to {:.1}", at(0.1), at(0.9)),
        "the catalog's sync included".to_owned(),
    );
    Ok(())
}
