//! The page of the planner bench.

use std::fmt::Write as _;
use std::path::Path;

use super::{CLIENTS, Latency, Measured, Options, Rate};
use crate::bench::load;
use crate::daemon::machine;

/// What a chosen plan may take, as a multiple of the best.
const RATIO_MAX: f64 = 1.5;

/// Writes the page.
pub fn render(
    root: &Path,
    options: &Options,
    measured: &[Measured],
    rates: &[Rate],
    latencies: &[Latency],
) -> anyhow::Result<String> {
    let mut text = String::from("# The planner, measured\n\n");
    writeln!(
        text,
        "{}; load average at the end {}; command: `cargo xtask bench planner --runs {}{} --record`.\n",
        machine(root)?,
        load::average(),
        options.runs,
        if options.small { " --small" } else { "" }
    )?;
    let right = measured.iter().filter(|query| query.ratio() <= RATIO_MAX).count();
    let share = 100.0 * right as f64 / measured.len().max(1) as f64;
    writeln!(
        text,
        "Queries on the bundled model, extracted at inference level with labels, each by every access path (and kind of join) that can answer it, by turns, median of {} runs as the daemon reports them, without answers that are kept. \
         **The chosen plan is within {RATIO_MAX} times the best of all paths on {right} of {} queries ({share:.0} %).**\n",
        options.runs,
        measured.len()
    )?;
    writeln!(
        text,
        "| query | chosen | ms | best path | ms | times the best |\n|---|---|---|---|---|---|"
    )?;
    for query in measured {
        let statement = query.statement.replace('|', "\\|");
        let short: String = statement.chars().take(90).collect();
        let ratio = query.ratio();
        writeln!(
            text,
            "| `{short}{}` | {} | {:.3} | {} | {:.3} | {}{ratio:.2} |",
            if short.len() < statement.len() { "…" } else { "" },
            query.chosen,
            query.chosen_ms,
            query.best.0,
            query.best.1,
            if ratio > RATIO_MAX { "**missed** " } else { "" }
        )?;
    }
    writeln!(
        text,
        "\nStatements a second on the bundled model, {CLIENTS} clients over gRPC on the unix socket, each waiting for its answer. \
         Uncached is without kept plans and answers; what labels had to ask the model about an entity was asked once before:\n"
    )?;
    writeln!(text, "| what | a second | median | 99th percentile |\n|---|---|---|---|")?;
    for Rate { what, seen } in rates {
        let number = |name: &str| seen[name].as_f64().unwrap_or(f64::NAN);
        let (rate, median, last) = (number("per_s"), number("p50_ms"), number("p99_ms"));
        writeln!(text, "| {what} | {rate:.0} | {median:.2} ms | {last:.2} ms |")?;
    }
    if latencies.is_empty() {
        writeln!(text, "\nDESCRIBE on a large model was not timed: no such model was there.")?;
        return Ok(text);
    }
    let model = options.large.file_name().unwrap_or_default().to_string_lossy();
    writeln!(text, "\nDESCRIBE on {model}, extracted at browse level, warm, one client:\n")?;
    writeln!(text, "| how | median | 99th percentile |\n|---|---|---|")?;
    for Latency { way, ms } in latencies {
        writeln!(text, "| {way} | {:.2} ms | {:.2} ms |", ms.0, ms.1)?;
    }
    Ok(text)
}
