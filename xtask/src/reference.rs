//! What other programs say to the models that we export: `cargo xtask test --reference`.
//!
//! - `reference::safetensors::*`: a vindex at source precision, compiled to safetensors, is the source
//!   bit for bit, and transformers computes the golden's logits from it.
//! - `reference::gguf::*`: what COMPILE writes as GGUF gives in llama.cpp the logits that we compute from
//!   the same file exactly.
//! - `reference::quantisation::*`: errors of our quantisers beside those of `llama-quantize`.
//! - `reference::edits::*`: the bundled model with edits in its weights answers them in transformers and in
//!   llama.cpp as it does here.
//! - `reference::serving::*`: how far the serving kernels are from exact arithmetic, beside llama.cpp.
//!
//! The page `docs/benchmarks/reference.md` is printed from the results. Elsewhere: the programs themselves
//! (`environment`), the scripts (`tests/reference`), checks that need no other program (`tests`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use crate::daemon::{Daemon, output};
use atlas::Atlas;
use environment::Environment;

mod atlas;
mod edits;
mod environment;
mod gguf;
mod logits;
mod page;
mod quantisation;
mod safetensors;
mod serving;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Check {
    /// A golden checkpoint through a vindex to safetensors.
    Safetensors(String),
    /// A golden checkpoint to GGUF.
    Gguf(String),
    /// A type of the formats' that rounds.
    Quantisation(&'static str),
    /// A file as both engines serve it.
    Serving(&'static str),
    /// The bundled model, edited, in a format.
    Edits(&'static str),
}

impl Check {
    fn name(&self) -> String {
        let (group, name) = match self {
            Self::Safetensors(folder) => ("safetensors", folder.as_str()),
            Self::Gguf(folder) => ("gguf", folder.as_str()),
            Self::Quantisation(kind) => ("quantisation", *kind),
            Self::Serving(file) => ("serving", *file),
            Self::Edits(format) => ("edits", *format),
        };
        format!("reference::{group}::{name}")
    }
}

/// Every check whose name contains one of the filters, or all.
fn checks(root: &Path, filter: &[String]) -> anyhow::Result<Vec<Check>> {
    let folders = goldens(root)?;
    let mut checks: Vec<_> = folders.iter().cloned().map(Check::Safetensors).collect();
    checks.extend(folders.into_iter().map(Check::Gguf));
    checks.extend(quantisation::TYPES.iter().copied().map(Check::Quantisation));
    checks.extend(serving::names().map(Check::Serving));
    checks.extend(edits::FORMATS.iter().copied().map(Check::Edits));
    checks.retain(|check| {
        filter.is_empty() || filter.iter().any(|part| check.name().contains(part.as_str()))
    });
    Ok(checks)
}

/// The golden checkpoints in safetensors, by folder.
fn goldens(root: &Path) -> anyhow::Result<Vec<String>> {
    let home = root.join("tests/goldens");
    let mut folders = Vec::new();
    for entry in home.read_dir().with_context(|| home.display().to_string())? {
        let path = entry?.path();
        if path.join("config.json").exists() && path.join("golden.json").exists() {
            folders.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Names what an ordinary run leaves out.
pub fn tell_skipped(root: &Path, filter: &[String]) -> anyhow::Result<()> {
    let checks = checks(root, filter)?;
    for check in &checks {
        println!("        SKIP {}", check.name());
    }
    if !checks.is_empty() {
        println!("{} skipped: they run with `cargo xtask test --reference`", checks.len());
    }
    Ok(())
}

/// Runs the checks, prints what each found and, if asked to, writes the page.
pub fn run(root: &Path, filter: &[String], record: bool) -> anyhow::Result<()> {
    let checks = checks(root, filter)?;
    let environment = Environment::prepare(root)?;
    let work = crate::target_directory().join("reference/work");
    let _ = std::fs::remove_dir_all(&work);
    let binaries = crate::build(false)?;
    let daemon = Daemon::start(&binaries, &work.join("data"))?;
    let bench = Bench { root: root.to_owned(), work, daemon, environment };
    let mut transformers = bench.environment.server("transformers_check.py")?;
    let mut results = page::Results::default();
    let mut failures = Vec::new();
    let mut atlas = None;
    for check in &checks {
        let outcome = match check {
            Check::Safetensors(folder) => safetensors::check(&bench, &mut transformers, folder)
                .and_then(|row| {
                    let verdict = row.verdict();
                    results.safetensors.push(row);
                    verdict
                }),
            Check::Gguf(folder) => gguf::check(&bench, folder).map(|row| results.gguf.push(row)),
            Check::Quantisation(kind) => {
                let atlas = bundled(&bench, &mut atlas)?;
                quantisation::check(&bench, atlas, kind).and_then(|row| {
                    let verdict = row.verdict();
                    results.quantisation.push(row);
                    verdict
                })
            }
            Check::Edits(format) => edits::check(&bench, &mut transformers, format),
            Check::Serving(name) => {
                let atlas = bundled(&bench, &mut atlas)?;
                serving::check(&bench, atlas, name).and_then(|row| {
                    let verdict = row.verdict();
                    results.serving.push(row);
                    verdict
                })
            }
        };
        match outcome {
            Ok(()) => println!("        PASS {}", check.name()),
            Err(error) => {
                println!("        FAIL {}: {error:#}", check.name());
                failures.push(format!("{}: {error:#}", check.name()));
            }
        }
    }
    results.failures.clone_from(&failures);
    let text = results.page(root, &bench.environment.versions)?;
    println!("\n{text}");
    if record {
        let path = root.join("docs/benchmarks/reference.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    if !failures.is_empty() {
        bail!("{} of {} reference checks failed", failures.len(), checks.len());
    }
    Ok(())
}

/// The bundled model, prepared by the first check that needs it.
fn bundled<'a>(bench: &Bench, atlas: &'a mut Option<Atlas>) -> anyhow::Result<&'a mut Atlas> {
    match atlas {
        Some(atlas) => Ok(atlas),
        none => Ok(none.insert(Atlas::new(bench)?)),
    }
}

/// What checks work with.
struct Bench {
    root: PathBuf,
    work: PathBuf,
    daemon: Daemon,
    environment: Environment,
}

impl Bench {
    fn golden(&self, folder: &str) -> PathBuf {
        self.root.join("tests/goldens").join(folder)
    }

    /// Runs statements and returns the notices.
    fn statements(&self, script: &str) -> anyhow::Result<Vec<String>> {
        let run = self.daemon.larql(&["-c", script]).output()?;
        let told = String::from_utf8_lossy(&run.stderr);
        if !run.status.success() {
            bail!("{script}: {}", told.trim());
        }
        let notices = told.lines().filter_map(|line| line.strip_prefix("NOTICE: "));
        Ok(notices.map(str::to_owned).collect())
    }

    /// Compiles a model and returns the notices.
    fn compile(&self, source: &Path, into: &Path, options: &str) -> anyhow::Result<Vec<String>> {
        self.statements(&format!(
            "USE MODEL \"{}\"; COMPILE CURRENT INTO MODEL \"{}\" {options}",
            source.display(),
            into.display()
        ))
    }

    /// Our logits of a prompt's last position: in exact arithmetic, or as we serve.
    fn logits(&self, model: &Path, prompt: &[u32], served: bool) -> anyhow::Result<Vec<f32>> {
        let (model, ids) = (model.display().to_string(), environment::ids(prompt));
        let mut arguments = vec!["dev", "logits", &model, "--ids", &ids, "--json"];
        arguments.extend(served.then_some("--fast"));
        let answer = self.daemon.json(&arguments)?;
        floats(&answer["logits"]).with_context(|| format!("logits of {model}"))
    }

    /// The same of many prompts, several at a time: most of a call is starting the client.
    fn logits_of(
        &self,
        model: &Path,
        prompts: &[Vec<u32>],
        served: bool,
    ) -> anyhow::Result<Vec<Vec<f32>>> {
        const AT_ONCE: usize = 4;
        let part = prompts.len().div_ceil(AT_ONCE).max(1);
        std::thread::scope(|scope| {
            let run = |prompts: &[Vec<u32>]| -> anyhow::Result<Vec<Vec<f32>>> {
                prompts.iter().map(|prompt| self.logits(model, prompt, served)).collect()
            };
            let parts: Vec<_> =
                prompts.chunks(part).map(|part| scope.spawn(move || run(part))).collect();
            let mut rows = Vec::with_capacity(prompts.len());
            for part in parts {
                rows.extend(part.join().map_err(|_| anyhow!("a client's thread panicked"))??);
            }
            Ok(rows)
        })
    }
}

/// A list of numbers.
fn floats(list: &Value) -> Option<Vec<f32>> {
    list.as_array()?.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

/// The largest difference of two rows of logits; infinite if they are of different length.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // NaN is no small difference.
    differences.fold(0.0, |most, one| if one <= most { most } else { one })
}

/// The likeliest token.
fn top(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

/// A golden: its prompts, the logits of each, and how far its own arithmetic is from stable.
struct Golden {
    prompts: Vec<Vec<u32>>,
    logits: Vec<Vec<f32>>,
    bound: f32,
}

impl Golden {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("golden.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let wrong = || format!("{} lacks something", path.display());
        let prompts = golden["prompts"].as_array().with_context(wrong)?;
        let ids = |prompt: &Value| {
            let ids = prompt["input_ids"].as_array()?.iter();
            ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        };
        let stability = golden["stability_max_logit_change_rel_1e-5"].as_f64();
        Ok(Self {
            prompts: prompts.iter().map(ids).collect::<Option<_>>().with_context(wrong)?,
            logits: prompts
                .iter()
                .map(|prompt| floats(&prompt["last_logits"]))
                .collect::<Option<_>>()
                .with_context(wrong)?,
            bound: (0.1 * stability.with_context(wrong)?).max(3e-4) as f32,
        })
    }
}

/// The day, as the page's head has it.
fn today() -> anyhow::Result<String> {
    output(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}
