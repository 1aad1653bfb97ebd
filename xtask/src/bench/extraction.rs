//! Extraction of the 1B-shaped model, stage by stage: what `docs/benchmarks/extraction.md` records.
//!
//! Stages are timed by the daemon, which logs each when it ends. What the tokens of features need is
//! a number of multiply-adds, and the rate of the kernel alone is measured in the same run: so the
//! page tells how near that stage comes to what the machine can do.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::{Extracted, extract, load};
use crate::daemon::{Daemon, machine, output};
use crate::shapes::LLAMA_1B;

/// Multiply-adds of one processor in a cycle, where it has 64-byte registers and one unit for them.
const PER_CYCLE: f64 = 64.0;

/// Parts of a stage, as the daemon logs them, with what they make.
const OUTPUT_TOKENS: (&str, &str) = ("features, output tokens", "down_meta");
const INPUT_TOKENS: (&str, &str) = ("features, input tokens", "gate_meta");

/// Measures, prints the page and, if it is to be recorded, writes it.
pub(super) fn run(root: &Path, layers: u32, record: bool) -> anyhow::Result<()> {
    let binaries = crate::build(true)?;
    let work = crate::target_directory().join("bench");
    let _ = std::fs::remove_dir_all(work.join("data"));
    std::fs::create_dir_all(&work)?;
    let source = LLAMA_1B.checkpoint(&work)?;
    let mut command = crate::cargo();
    command.args(["run", "--quiet", "--release", "--locked", "-p", "larql-compute"]);
    let rate = output(command.args(["--example", "int8_rate"]))?;
    let rate: Value = serde_json::from_str(&rate).with_context(|| rate.clone())?;
    let before = load::average();
    let daemon = Daemon::start(&binaries, &work.join("data"))?;
    let destination = daemon.data.join("whole.vindex");
    let statement = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE LAYERS 0-{} OVERWRITE WITHOUT LABELS",
        source.display(),
        destination.display(),
        layers - 1
    );
    let extracted = extract(&daemon, &statement, &destination)?;
    let log = daemon.log()?;
    drop(daemon);
    let text = page(root, layers, &before, &rate, &extracted, &log)?;
    println!("{text}");
    if record {
        let path = root.join("docs/benchmarks/extraction.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn page(
    root: &Path,
    layers: u32,
    load_before: &str,
    rate: &Value,
    extracted: &Extracted,
    log: &[Value],
) -> anyhow::Result<String> {
    let mut text = String::from("# Extraction, measured\n\n");
    writeln!(
        text,
        "{}; load average {load_before} before, {} after;",
        machine(root)?,
        load::average()
    )?;
    writeln!(
        text,
        "command: `cargo xtask bench extraction --record`. One run of the release build.\n"
    )?;
    writeln!(
        text,
        "The model: random f16 weights in the shape of Llama 3.2 1B ({} features in each of {layers} layers, rows of\n\
         {}, {} tokens); level inference, f16.\n",
        LLAMA_1B.features, LLAMA_1B.hidden, LLAMA_1B.vocabulary
    )?;
    writeln!(text, "| stage | seconds | share |\n|---|---|---|")?;
    let mut stages = 0.0;
    let mut row = |name: &str, seconds: f64| {
        writeln!(text, "| {name} | {seconds:.1} | {:.1} % |", 100.0 * seconds / extracted.seconds)
    };
    for (stage, seconds) in logged(log) {
        row(stage, seconds)?;
        stages += if stage.contains(", ") { 0.0 } else { seconds };
    }
    row("around the stages", extracted.seconds - stages)?;
    row("all, as the client sees it", extracted.seconds)?;
    writeln!(
        text,
        "\nMemory: {:.0} MB anonymous at the peak, {:.0} MB before. Output: {:.0} MB.\n",
        extracted.peak as f64 / 1e6,
        extracted.before as f64 / 1e6,
        extracted.written as f64 / 1e6
    )?;
    let number = |name: &str| rate[name].as_f64().unwrap_or(f64::NAN);
    let products = LLAMA_1B.features as f64
        * LLAMA_1B.vocabulary as f64
        * LLAMA_1B.hidden as f64
        * f64::from(layers);
    writeln!(
        text,
        "Tokens of features: every feature against every token is {:.2e} multiply-adds for `down_meta`, and as many for\n\
         `gate_meta`. The integer product alone does {:.0} G a second on one thread and {:.0} on {} ({}), of {:.0} a thread that\n\
         {:.2} GHz allow at {PER_CYCLE} a cycle. So each of the two takes at least {:.1} s here.",
        products,
        number("one"),
        number("all"),
        rate["threads"],
        rate["isa"].as_str().unwrap_or_default(),
        number("gigahertz") * PER_CYCLE,
        number("gigahertz"),
        products / number("all") / 1e9
    )?;
    for (stage, file) in [OUTPUT_TOKENS, INPUT_TOKENS] {
        let (_, seconds) = logged(log)
            .find(|(found, _)| *found == stage)
            .with_context(|| format!("the daemon logged no {stage:?}"))?;
        let achieved = products / seconds / 1e9;
        let share = 100.0 * achieved / number("all");
        writeln!(
            text,
            "`{file}` took {seconds:.1} s: {achieved:.0} G multiply-adds a second, {share:.0} % of the product alone."
        )?;
    }
    Ok(text)
}

/// The stages that the daemon logged, with their seconds.
fn logged(log: &[Value]) -> impl Iterator<Item = (&str, f64)> {
    log.iter().filter_map(|entry| {
        let fields = &entry["fields"];
        Some((fields["stage"].as_str()?, fields["seconds"].as_f64()?))
    })
}
