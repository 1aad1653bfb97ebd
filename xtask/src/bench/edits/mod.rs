//! What edits do to a model's answers, by mode and base: what `docs/benchmarks/edits.md` records.
//!
//! Vindexes are extracted by the daemon; edits are made and asked about by an example of larqld, which
//! calls what INSERT calls (`larqld/examples/measure_edits`). Entities are divided into two halves: on
//! one, methods were tuned; the other is scored.

mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::daemon::{Daemon, output};

/// A base that is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Base {
    /// atlas in 32 bits
    F32,
    /// atlas in 16 bits
    F16,
    /// atlas in 4-bit blocks
    Q4k,
    /// The same facts in a model of another family, in 16 bits
    Llama,
}

impl Base {
    const ALL: [Base; 4] = [Base::F32, Base::F16, Base::Q4k, Base::Llama];

    fn name(self) -> &'static str {
        match self {
            Base::F32 => "atlas f32",
            Base::F16 => "atlas f16",
            Base::Q4k => "atlas q4k",
            Base::Llama => "atlas-llama f16",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Base::F32 => "DTYPE F32",
            Base::F16 | Base::Llama => "DTYPE F16",
            Base::Q4k => "QUANT Q4K",
        }
    }
}

/// A way to edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Retrieval
    Knn,
    /// Features
    Compose,
    /// Updates
    Memit,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Knn, Mode::Compose, Mode::Memit];

    fn name(self) -> &'static str {
        match self {
            Mode::Knn => "knn",
            Mode::Compose => "compose",
            Mode::Memit => "memit",
        }
    }
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint of atlas, its facts, and that of the other family.
    pub model: PathBuf,
    pub facts: PathBuf,
    pub llama: PathBuf,
    /// Bases and modes; all where none is named.
    pub bases: Vec<Base>,
    pub modes: Vec<Mode>,
    /// Single edits, and edits on top of one another, of each base and mode.
    pub edits: u32,
    pub sequential: u32,
    /// Facts in one statement of those on top of one another.
    pub batch: u32,
    /// The half of the entities that methods are tuned on.
    pub tuning: bool,
    /// Programs without optimisations.
    pub small: bool,
    /// Write the page.
    pub record: bool,
}

/// One base edited by one mode.
#[derive(Debug)]
pub struct Run {
    pub base: Base,
    pub mode: Mode,
    pub found: Value,
}

/// Measures, prints the page, and writes it where asked.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let is_part = !options.bases.is_empty() || !options.modes.is_empty();
    if options.record && is_part {
        bail!("--record writes the whole page: it goes without --bases and --modes");
    }
    let binaries = crate::build(!options.small)?;
    let mut build = crate::cargo();
    build.args(["build", "--quiet", "--locked", "-p", "larqld", "--example", "measure_edits"]);
    if !options.small {
        build.arg("--release");
    }
    output(&mut build)?;
    let measure = binaries.join("examples/measure_edits");
    let work = crate::target_directory().join("bench/edits");
    std::fs::create_dir_all(&work)?;
    let all = |named: &[Base]| if named.is_empty() { Base::ALL.to_vec() } else { named.to_vec() };
    let bases = all(&options.bases);
    let modes = if options.modes.is_empty() { Mode::ALL.to_vec() } else { options.modes.clone() };
    let mut runs = Vec::new();
    for base in bases {
        let source = if base == Base::Llama { &options.llama } else { &options.model };
        if !source.is_dir() {
            println!("{} is left out: {} is not there", base.name(), source.display());
            continue;
        }
        let vindex = extracted(&binaries, &work, source, base)?;
        for &mode in &modes {
            let mut command = std::process::Command::new(&measure);
            command.arg("--model").arg(&vindex).arg("--facts").arg(&options.facts);
            command.arg("--probes").arg(options.facts.with_file_name("probes.tsv"));
            command.arg("--phrasings").arg(root.join("tests/data/atlas-phrasings.tsv"));
            command.args(["--mode", mode.name(), "--half", if options.tuning { "0" } else { "1" }]);
            command.args(["--edits", &options.edits.to_string()]);
            command.args(["--sequential", &options.sequential.to_string()]);
            command.args(["--batch", &options.batch.to_string()]);
            let text = output(&mut command)?;
            let found: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
            if found["labels"] != Value::Bool(true) {
                bail!("{} has no labels", vindex.display());
            }
            println!("{}, {}: {}", base.name(), mode.name(), found["single"]);
            runs.push(Run { base, mode, found });
        }
    }
    let text = page::render(root, options, &runs)?;
    println!("{text}");
    if options.record {
        let path = root.join("docs/benchmarks/edits.md");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        // What was written by hand stays.
        let notes = old.find("\n## Notes").map_or("", |at| &old[at..]);
        std::fs::write(&path, text + notes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// A vindex of the model with labels, made anew.
fn extracted(binaries: &Path, work: &Path, source: &Path, base: Base) -> anyhow::Result<PathBuf> {
    let _ = std::fs::remove_dir_all(work.join("data"));
    let daemon = Daemon::start(binaries, &work.join("data"))?;
    let vindex = work.join(format!("{}.vindex", base.name().replace(' ', "-")));
    let statement = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE {} OVERWRITE",
        source.display(),
        vindex.display(),
        base.options()
    );
    output(&mut daemon.larql(&["-q", "-c", &statement]))?;
    Ok(vindex)
}
