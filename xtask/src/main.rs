//! Project tasks, run as `cargo xtask TASK`: what a person or CI does with the whole repository.
//!
//! `demo` and `test` are the README's two commands; `tidy` keeps the shape of the tree; `bench`
//! measures; `fuzz` runs the parsers on inputs that nobody thought of. Anything that is not Rust or a C compiler is used where it is found and reported by
//! name where it is not.

mod bench;
mod daemon;
mod emulated;
mod fuzz;
mod llama_cpp;
mod reference;
mod shapes;
mod statistics;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the larqld repository")]
enum Task {
    /// Build what is needed and run `larql demo`: a tour on the bundled model
    Demo {
        /// Stay in the shell after the tour
        #[arg(long)]
        shell: bool,
        /// Build with optimisations first
        #[arg(long)]
        release: bool,
    },
    /// Run every test there is
    Test {
        /// Only tests whose name contains this
        filter: Vec<String>,
        /// Compare exported models with transformers and llama.cpp too, which are fetched first
        #[arg(long)]
        reference: bool,
        /// With `--reference`: write docs/benchmarks/reference.md
        #[arg(long, requires = "reference")]
        record: bool,
    },
    /// Check the shape of the tree: dependency direction, names, safety notes
    Tidy,
    /// Measure this machine: mount, DESCRIBE, gate scan, parser, decode, extraction
    Bench(bench::Arguments),
    /// Kill a process that edits, at random moments, and look for what it was told
    Crash {
        /// How often
        #[arg(long, default_value_t = 3_000)]
        rounds: u64,
        /// Where randomness begins
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the fuzz targets, each for a minute, or one of them
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Demo { shell, release } => demo(shell, release),
        Task::Test { filter, reference, record } => test(&filter, reference.then_some(record)),
        Task::Tidy => tidy::run(&root()),
        Task::Bench(arguments) => bench::run(&root(), &arguments),
        Task::Crash { rounds, seed } => crash(rounds, seed),
        Task::Fuzz(arguments) => fuzz::run(&root(), &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// The `cargo` that runs us.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Where cargo puts what it builds.
fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the daemon and the shell and returns the folder they are in.
fn build(release: bool) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked", "-p", "larqld", "-p", "larql-client", "--bins"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    Ok(target_directory().join(if release { "release" } else { "debug" }))
}

fn demo(shell: bool, release: bool) -> anyhow::Result<()> {
    let binaries = build(release)?;
    let mut command = Command::new(binaries.join("larql"));
    command.arg("demo").arg(if shell { "--shell" } else { "--tour" });
    run(&mut command)
}

/// Kills of a store's process for each kill of a daemon.
const ROUNDS_A_DAEMON: u64 = 20;

/// The crash tests of `storage/tests/edits/` and of `tests/tests/edits/`, longer than CI runs them.
fn crash(rounds: u64, seed: u64) -> anyhow::Result<()> {
    run(cargo()
        .args(["test", "--locked", "-p", "larql-storage", "--test", "edits", "--"])
        .args(["killed", "power", "faults", "compaction", "--nocapture"])
        .env("LARQL_CRASH_ROUNDS", rounds.to_string())
        .env("LARQL_CRASH_SEED", seed.to_string()))?;
    build(false)?;
    run(cargo()
        .args(["test", "--locked", "-p", "larql-tests", "--test", "edits", "--"])
        .args(["kills", "isolation", "--nocapture"])
        .env("LARQL_DAEMON_CRASH_ROUNDS", rounds.div_ceil(ROUNDS_A_DAEMON).to_string())
        .env("LARQL_HISTORY_SEED", seed.to_string())
        .env("LARQL_CRASH_SEED", seed.to_string()))
}

/// Runs the ordinary tests and, if `reference` is there, those against other programs, whose page it
/// says whether to write.
fn test(filter: &[String], reference: Option<bool>) -> anyhow::Result<()> {
    // Whole-system tests start the real programs, so these are built first.
    build(false)?;
    if filter.is_empty() {
        run(cargo().args(["test", "--workspace", "--locked", "--doc"]))?;
    }
    let nextest =
        cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    if nextest {
        run(cargo()
            .args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
            // A filter may mean checks against other programs alone.
            .args(reference.map(|_| "--no-tests=pass"))
            .args(filter))?;
    } else {
        println!("cargo-nextest is not installed: tests run by cargo test");
        run(cargo()
            .args(["test", "--workspace", "--locked", "--all-targets", "--no-fail-fast", "--"])
            .args(filter))?;
    }
    if filter.is_empty() {
        // Threads of the log's writer under a scheduler that tries interleavings.
        run(cargo()
            .args(["test", "--locked", "-p", "larql-storage", "--features", "shuttle", "--lib"])
            .arg("interleavings"))?;
        emulated::run()?;
    }
    match reference {
        Some(record) => reference::run(&root(), filter, record),
        None => reference::tell_skipped(&root(), filter),
    }
}
