//! Whether plans are the right ones, and how fast answers come: what `docs/benchmarks/planner.md` records.
//!
//! Every query of a mix is run by every access path that can answer it, by turns, and the path that the
//! planner chooses is compared with the best of them. DESCRIBE is timed on a larger model, by scan, by
//! index and from memory; statements a second are counted with many clients at once.

mod mix;
mod page;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::daemon::{Daemon, output};
use crate::statistics::median;

/// What `access_path` and `enable_hash_join` may be, the planner's own choice first.
const WAYS: [(&str, &str); 6] = [
    ("auto", "on"),
    ("scan", "on"),
    ("slots", "on"),
    ("postings", "on"),
    ("gate_index", "on"),
    ("auto", "off"),
];
/// Clients at once, and how long they ask.
const CLIENTS: usize = 16;
const SECONDS: f64 = 5.0;
/// Words that DESCRIBE is timed with.
const WORDS: usize = 100;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint that queries are planned on.
    pub model: PathBuf,
    /// The checkpoint or vindex that DESCRIBE is timed on; left out where it is not there.
    pub large: PathBuf,
    /// Programs without optimisations, and few runs: to see that everything works.
    pub small: bool,
    /// Runs of each query by each path.
    pub runs: u32,
    /// Write the page.
    pub record: bool,
}

/// One query, by every path.
#[derive(Debug)]
pub struct Measured {
    /// The statement.
    pub statement: String,
    /// The operator that found features for the planner's own choice.
    pub chosen: String,
    /// Median milliseconds of the planner's own choice.
    pub chosen_ms: f64,
    /// The path that took least, with its milliseconds.
    pub best: (&'static str, f64),
}

impl Measured {
    /// How many times as long as the best the chosen plan takes.
    pub fn ratio(&self) -> f64 {
        self.chosen_ms / self.best.1
    }
}

/// Times of DESCRIBE in one way.
#[derive(Debug)]
pub struct Latency {
    /// How.
    pub way: String,
    /// Milliseconds at the median and at the 99th percentile.
    pub ms: (f64, f64),
}

/// Statements a second in one way.
#[derive(Debug)]
pub struct Rate {
    /// What was asked, and how.
    pub what: String,
    /// What the clients saw.
    pub seen: Value,
}

/// Measures, prints the page, and writes it where asked.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = crate::build(!options.small)?;
    let work = crate::target_directory().join("bench/planner");
    let _ = std::fs::remove_dir_all(&work);
    let daemon = Daemon::start(&binaries, &work)?;
    let vindex = extracted(&daemon, &options.model, "queries")?;
    let on = format!("USE \"{}\"; ", vindex.display());
    daemon.json(&[
        "-F",
        "json",
        "-c",
        &format!("{on}CREATE INDEX sketch ON GATES USING sketch"),
    ])?;
    let queries = mix::queries(&texts(&daemon, &on, "SELECT entity FROM ENTITIES LIMIT 40")?);
    let mut measured = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        println!("query {} of {}: {query}", number + 1, queries.len());
        measured.push(measure(&daemon, &on, query, options.runs)?);
    }
    let rates = rates(&daemon, &on, options.small)?;
    let latencies = match options.large.exists() {
        true => latencies(&daemon, &options.large, options.small)?,
        false => {
            println!("{} is not there: DESCRIBE is not timed on it", options.large.display());
            Vec::new()
        }
    };
    let text = page::render(root, options, &measured, &rates, &latencies)?;
    println!("{text}");
    if options.record {
        let path = root.join("docs/benchmarks/planner.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// A vindex of a checkpoint with labels; a vindex as it is.
fn extracted(daemon: &Daemon, model: &Path, name: &str) -> anyhow::Result<PathBuf> {
    if model.join("index.json").is_file() {
        return Ok(model.to_owned());
    }
    let destination = daemon.data.join(format!("{name}.vindex"));
    let statement = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE",
        model.display(),
        destination.display()
    );
    output(&mut daemon.larql(&["-q", "-c", &statement]))?;
    Ok(destination)
}

/// The answers of a script, statement by statement.
fn answers(daemon: &Daemon, script: &str) -> anyhow::Result<Vec<Value>> {
    match daemon.json(&["-F", "json", "-c", script])? {
        Value::Array(answers) => Ok(answers),
        one => Ok(vec![one]),
    }
}

fn milliseconds(answer: &Value) -> anyhow::Result<f64> {
    answer["summary"]["milliseconds"].as_f64().with_context(|| format!("no summary in {answer}"))
}

/// The rows of an answer's column, as texts.
fn cells(answer: &Value, column: &str) -> Vec<String> {
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    rows.iter().filter_map(|row| row[column].as_str().map(str::to_owned)).collect()
}

fn texts(daemon: &Daemon, on: &str, statement: &str) -> anyhow::Result<Vec<String>> {
    let answers = answers(daemon, &format!("{on}{statement}"))?;
    let answer = answers.last().context("no answer")?;
    let plain = |text: &String| text.chars().all(char::is_alphanumeric);
    Ok(cells(answer, "entity").into_iter().filter(plain).collect())
}

/// A plan in words: its operators and what they do.
fn plan(explained: &Value) -> Vec<(String, String)> {
    cells(explained, "operator").into_iter().zip(cells(explained, "detail")).collect()
}

/// The operator that finds features in a plan: the first without an input.
fn access(explained: &Value) -> String {
    let operators = cells(explained, "operator");
    let sources = ["FeatureScan", "SlotLookup", "PostingLookup", "EntityLookup", "GateScan"];
    let more = ["GateSlots", "GateIndexScan", "Nearest"];
    let is_source = |operator: &&String| {
        sources.contains(&operator.as_str()) || more.contains(&operator.as_str())
    };
    operators.iter().find(is_source).cloned().unwrap_or_default()
}

/// The settings of a way to answer.
fn settings((path, hash_join): (&str, &str)) -> String {
    format!("SET access_path = {path}; SET enable_hash_join = {hash_join};")
}

/// Runs a query by every path that makes another plan than the scan, by turns.
fn measure(daemon: &Daemon, on: &str, query: &str, runs: u32) -> anyhow::Result<Measured> {
    let mut script = format!("{on}SET result_cache = off; ");
    for way in WAYS {
        script += &format!("{} EXPLAIN (FORMAT TEXT) {query}; ", settings(way));
    }
    let explained = answers(daemon, &script)?;
    let plans: Vec<&Value> = explained[2..].iter().skip(2).step_by(3).collect();
    if plans.len() != WAYS.len() {
        bail!("{query}: {} plans", plans.len());
    }
    // A plan that several paths come to is run once; the planner's own choice mostly is one of them.
    let described: Vec<_> = plans.iter().map(|explained| plan(explained)).collect();
    let first_of = |path: usize| {
        (1..WAYS.len()).find(|&other| described[other] == described[path]).unwrap_or(path)
    };
    let able: Vec<usize> = (0..WAYS.len()).filter(|&path| first_of(path) == path).collect();
    let mut script = format!("{on}SET result_cache = off; ");
    for _ in 0..=runs {
        for &path in &able {
            script += &format!("{} {query}; ", settings(WAYS[path]));
        }
    }
    let all = answers(daemon, &script)?;
    let mut times = vec![Vec::new(); WAYS.len()];
    // The first turn brings pages in.
    for turn in all[2..].chunks(3 * able.len()).skip(1) {
        for (&path, answers) in able.iter().zip(turn.chunks(3)) {
            times[path].push(milliseconds(&answers[2])?);
        }
    }
    let medians: Vec<f64> = times.iter().map(|of| median(of.iter().copied())).collect();
    let name = |path: usize| match WAYS[path] {
        (_, "off") => "nested loop",
        (path, _) => path,
    };
    let all = able.iter().map(|&path| (name(path), medians[path]));
    let best = all.min_by(|(_, a), (_, b)| a.total_cmp(b)).context("no path")?;
    Ok(Measured {
        statement: query.to_owned(),
        chosen: access(plans[0]),
        chosen_ms: medians[first_of(0)],
        best,
    })
}

/// Statements a second of many clients, found anew each time and kept.
fn rates(daemon: &Daemon, on: &str, small: bool) -> anyhow::Result<Vec<Rate>> {
    let words = texts(daemon, on, "SELECT entity FROM ENTITIES LIMIT 64")?;
    let describe: Vec<String> = words.iter().map(|word| format!("DESCRIBE \"{word}\"")).collect();
    let select = words
        .iter()
        .map(|word| format!("SELECT layer, feature, logit FROM EDGES WHERE target = \"{word}\""));
    let select: Vec<String> = select.collect();
    let seconds = if small { 1.0 } else { SECONDS };
    // What labels know of each word is asked once: the model runs for nobody afterwards.
    answers(daemon, &format!("{on}{}", describe.join("; ")))?;
    let mut rates = Vec::new();
    for (kind, statements) in [("DESCRIBE", describe), ("SELECT", select)] {
        for (cache, called) in [("on", "cached"), ("off", "uncached")] {
            let setup = format!("{on}SET result_cache = {cache}");
            let mut command = crate::cargo();
            command.args(["run", "--quiet", "--locked", "-p", "larql-client"]);
            if !small {
                command.arg("--release");
            }
            let socket = daemon.data.join("run/larqld.sock");
            let socket = socket.to_str().context("a path that is text")?;
            command.args(["--example", "statement_rate", "--", socket]);
            command.args([&CLIENTS.to_string(), &seconds.to_string(), &setup]);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("clients")?;
            let mut input = child.stdin.take().context("their input")?;
            input.write_all(statements.join("\n").as_bytes())?;
            drop(input);
            let done = child.wait_with_output()?;
            if !done.status.success() {
                bail!("statement_rate ended with {}", done.status);
            }
            let seen: Value = serde_json::from_slice(&done.stdout)?;
            println!("{kind}, {called}: {seen}");
            rates.push(Rate { what: format!("{kind}, {called}"), seen });
        }
    }
    Ok(rates)
}

/// DESCRIBE on a larger model, warm: by scan, by each kind of index, and from memory.
fn latencies(daemon: &Daemon, model: &Path, small: bool) -> anyhow::Result<Vec<Latency>> {
    let vindex = extracted(daemon, model, "large")?;
    let on = format!("USE \"{}\"; ", vindex.display());
    let limit = if small { 10 } else { WORDS };
    let words = texts(daemon, &on, &format!("SELECT entity FROM ENTITIES LIMIT {limit}"))?;
    let mut latencies = Vec::new();
    let mut time = |way: String, setup: &str| -> anyhow::Result<()> {
        let mut script = format!("{on}{setup}; ");
        for _ in 0..2 {
            words.iter().for_each(|word| script += &format!("DESCRIBE \"{word}\"; "));
        }
        let all = answers(daemon, &script)?;
        // The first half is to warm up.
        let timed = &all[all.len() - words.len()..];
        let mut ms = timed.iter().map(milliseconds).collect::<anyhow::Result<Vec<f64>>>()?;
        ms.sort_by(f64::total_cmp);
        let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
        println!("DESCRIBE {way}: {:.2} ms, {:.2} ms at the 99th percentile", at(0.5), at(0.99));
        latencies.push(Latency { way, ms: (at(0.5), at(0.99)) });
        Ok(())
    };
    const UNCACHED: &str = "SET result_cache = off; SET access_path =";
    time("by an exact scan".to_owned(), &format!("{UNCACHED} scan"))?;
    for method in ["sketch", "coarse_sketch"] {
        let script = format!("{on}CREATE INDEX bench ON GATES USING {method}");
        let made = answers(daemon, &script)?;
        let row = &made.last().context("no index")?["rows"][0];
        let recall = match row["recall"].as_f64() {
            Some(recall) => format!("recall {recall:.4}"),
            None => "exact".to_owned(),
        };
        let megabytes = row["bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
        let way = format!("by an index {method} of {megabytes:.0} MB, {recall}");
        time(way, &format!("{UNCACHED} gate_index"))?;
        answers(daemon, &format!("{on}DROP INDEX bench"))?;
    }
    time("of an answer that is kept".to_owned(), "SET result_cache = on")?;
    Ok(latencies)
}
