//! Runs the fuzz targets under libFuzzer, each for a while, and says how many executions that were.
//!
//! The targets stand in `fuzz/`, outside the workspace, because everything they call is built with
//! instrumentation. What libFuzzer finds interesting goes to the target folder; the inputs that are
//! kept, and replayed as ordinary tests, are in `fuzz/corpus/`. What breaks a target is written to
//! `fuzz/artifacts/`, with the command that replays it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// One target; all of them without it
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Memory that a target may take, in MiB
    #[arg(long, default_value_t = 2_048)]
    memory_mib: u32,
}

/// Seconds that one input may take.
const TIMEOUT_S: u32 = 20;

/// Longest input, in bytes.
const INPUT_BYTES_MAX: u32 = 1 << 16;

/// Runs one target, or all.
pub fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    require(
        cargo_fuzz().arg("--version"),
        "cargo-fuzz is not installed: run `cargo install cargo-fuzz --locked`",
    )?;
    require(
        Command::new("c++").arg("--version"),
        "there is no C++ compiler (c++), which libFuzzer is built with",
    )?;
    let known = targets(root)?;
    let chosen: Vec<_> = match &arguments.target {
        None => known,
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no target {name}; there are {}", known.join(", ")),
    };
    let mut report = Vec::new();
    for target in &chosen {
        let executions = fuzz(root, target, arguments)?;
        report.push(format!("{target:<20} {:>6} s {executions:>12} executions", arguments.seconds));
    }
    println!("\nnothing found:\n{}", report.join("\n"));
    Ok(())
}

/// The targets there are, by the files in `fuzz/fuzz_targets`.
fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// `cargo fuzz`, on a stable compiler too: instrumentation is one of its unstable options.
fn cargo_fuzz() -> Command {
    let mut command = crate::cargo();
    command.env("RUSTC_BOOTSTRAP", "1").arg("fuzz");
    command
}

fn require(command: &mut Command, otherwise: &str) -> anyhow::Result<()> {
    let found = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        bail!("{otherwise}");
    }
    Ok(())
}

/// Runs one target and returns the number of its executions.
fn fuzz(root: &Path, target: &str, arguments: &Arguments) -> anyhow::Result<u64> {
    let built = crate::target_directory().join("fuzz");
    let found = built.join("corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let mut command = cargo_fuzz();
    // Memory errors are not what is looked for: nearly all of what the targets call is safe Rust.
    command.args(["run", "--sanitizer", "none", "--codegen-units", "16", "--target-dir"]);
    command.arg(&built);
    let program = root.join("fuzz/fuzz_targets").join(target).with_extension("rs");
    let text = std::fs::read_to_string(&program).with_context(|| program.display().to_string())?;
    if !text.contains("larql_fuzz::daemon::") {
        // The daemon takes minutes to build instrumented.
        command.arg("--no-default-features");
    }
    command.arg(target);
    command.arg(&found).arg(root.join("fuzz/corpus").join(target)).arg("--");
    command.arg(format!("-max_total_time={}", arguments.seconds));
    command.arg(format!("-rss_limit_mb={}", arguments.memory_mib));
    command.arg(format!("-timeout={TIMEOUT_S}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.args(["-print_final_stats=1", "-verbosity=1"]);
    println!("fuzzing {target} for {} s", arguments.seconds);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        eprintln!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        bail!("{target} ended with {}", output.status);
    }
    let executions =
        log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    executions
        .and_then(|count| count.trim().parse().ok())
        .with_context(|| format!("{target} did not say how often it ran"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_fuzzing_has_a_row_for_each_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        let page = std::fs::read_to_string(root.join("docs/fuzzing.md")).expect("the page");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let mut rows: Vec<&str> = rows.map(|(name, _)| name).collect();
        rows.sort_unstable();
        let mut targets = targets(root).expect("the targets");
        targets.sort_unstable();
        assert_eq!(rows, targets);
    }
}
