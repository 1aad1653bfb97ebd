//! How fast edits become durable, beside what the disk can do: what `docs/benchmarks/durable.md` records.
//!
//! The program is `storage/examples/durable_edits.rs`: every round measures the disk's own syncs and the store's commits in one run. The same is
//! measured with every fdatasync made longer, since what a group costs beside its syncs tells only where syncs are short.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::load;
use crate::daemon::{machine, output};
use crate::statistics::{Interval, confidence};

const WRITERS: u64 = 16;
const SECONDS: u64 = 3;

/// Microseconds by which each fdatasync takes longer.
const LONGER: [u64; 3] = [0, 500, 1000];

/// Commits for each half of the disk's rate of syncs: at least.
const COMMITS_MIN: f64 = 10.0;
/// The 99th percentile of a commit, in those of two syncs: at most.
const P99_MAX: f64 = 3.0;

/// Measures, prints the page and, if it is to be recorded, writes it.
pub(super) fn run(root: &Path, rounds: u32, record: bool) -> anyhow::Result<()> {
    let work = crate::target_directory().join("bench");
    std::fs::create_dir_all(&work)?;
    let library = work.join("slow_sync.so");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library);
    output(compile.arg(root.join("xtask/src/bench/slow_sync.c")).arg("-ldl"))?;
    let before = load::average();
    let mut measured = vec![Vec::new(); LONGER.len()];
    for _ in 0..rounds {
        for (longer, measured) in LONGER.iter().zip(&mut measured) {
            measured.push(one(&work, &library, *longer)?);
        }
    }
    let text = page(root, &before, rounds, &measured)?;
    println!("{text}");
    if record {
        let path = root.join("docs/benchmarks/durable.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn one(work: &Path, library: &Path, longer: u64) -> anyhow::Result<Value> {
    let mut command = crate::cargo();
    command.args(["run", "--quiet", "--release", "--locked", "-p", "larql-storage", "--example"]);
    command.args(["durable_edits", "--", &WRITERS.to_string(), &SECONDS.to_string()]).arg(work);
    if longer > 0 {
        command.env("LD_PRELOAD", library).env("SLOW_SYNC_US", longer.to_string());
    }
    let text = output(&mut command)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

fn page(root: &Path, before: &str, rounds: u32, measured: &[Vec<Value>]) -> anyhow::Result<String> {
    let mut text = String::from("# Durable edits, measured\n\n");
    writeln!(
        text,
        "{}; load average {before} before, {} after; command: `cargo xtask bench durable --runs {rounds} --record`.\n",
        machine(root)?,
        load::average()
    )?;
    writeln!(
        text,
        "{WRITERS} writers commit an INSERT each, again and again, with its vector given (256 numbers, 1.1 KB in the log) and without receipt, for {SECONDS} seconds; in the same run \
         one thread syncs a record of 2 KB, and {WRITERS} threads two each. Medians of {rounds} runs by turns, with an interval of {:.0} %. A commit is answered after two fdatasyncs \
         in a row, of the log and of its mark, which those of a group share: so half the rate of the disk's fdatasyncs is what groups of one could reach. \
         *Longer*: each fdatasync of the program, the disk's own included, is followed by a pause.\n",
        confidence(rounds as usize)
    )?;
    writeln!(
        text,
        "| fdatasync longer by | fdatasyncs/s, one thread | commits/s | commits for half an fdatasync/s (≥ {COMMITS_MIN:.0}) | commits in a group | p99 of a commit, ms | \
         p99 for that of two fdatasyncs under the same load (≤ {P99_MAX:.0}) |\n|---|---|---|---|---|---|---|"
    )?;
    for (longer, runs) in LONGER.iter().zip(measured) {
        let interval = |name: &str| {
            Interval::of(runs.iter().map(|run| run[name].as_f64().unwrap_or(f64::NAN)))
        };
        let cell = |name: &str, digits: usize| {
            let Interval { low, median, high } = interval(name);
            format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
        };
        let met = |met: bool| if met { "met" } else { "**missed**" };
        let (commits, p99) = ("commits_per_half_fdatasync", "p99_per_two_fdatasyncs");
        writeln!(
            text,
            "| {} | {} | {} | {}, {} | {} | {} | {}, {} |",
            if *longer == 0 {
                "nothing".to_owned()
            } else {
                format!("{} ms", *longer as f64 / 1e3)
            },
            cell("fdatasyncs_per_s", 0),
            cell("commits_per_s", 0),
            cell(commits, 1),
            met(interval(commits).median >= COMMITS_MIN),
            cell("commits_per_group", 1),
            cell("commit_p99_ms", 1),
            cell(p99, 2),
            met(interval(p99).median <= P99_MAX),
        )?;
    }
    writeln!(
        text,
        "\nWhat a group costs beside its syncs: [ADR 12](../adr/0012-edits-in-a-log-with-a-mark.md)."
    )?;
    Ok(text)
}
