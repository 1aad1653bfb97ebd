//! The bundled model for checks that need text with knowledge in it: its files, and probes of its facts.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Bench;
use super::environment::filter;
use super::logits::Probes;

/// Prompts, taken evenly from the bundled model's probes.
pub(super) const PROMPTS: usize = 300;

/// The bundled model, prepared for GGUF.
pub(super) struct Atlas {
    source: PathBuf,
    /// In f32: what every other file is made from.
    pub(super) exact: PathBuf,
    pub(super) probes: Probes,
}

impl Atlas {
    pub(super) fn new(bench: &Bench) -> anyhow::Result<Self> {
        let bundled = bench.root.join("larqld/assets/atlas");
        let source = speakable(bench, &bundled)?;
        let exact = bench.work.join("atlas-F32.gguf");
        bench.compile(&source, &exact, "FORMAT GGUF DTYPE F32")?;
        Ok(Self { source, exact, probes: Probes::new(token_ids(bench, &bundled)?) })
    }

    /// The file of a type by our quantisers, compiled first where it is missing.
    pub(super) fn quantised(&self, bench: &Bench, kind: &str) -> anyhow::Result<PathBuf> {
        let file = bench.work.join(format!("atlas-{kind}.gguf"));
        if !file.is_file() {
            bench.compile(&self.source, &file, &format!("FORMAT GGUF DTYPE {kind}"))?;
        }
        Ok(file)
    }
}

/// A copy of the bundled model without the space that its tokenizer puts before a text, which GGUF has
/// no word for. Prompts are token ids here, made by the model's own tokenizer.
fn speakable(bench: &Bench, atlas: &Path) -> anyhow::Result<PathBuf> {
    let copy = bench.work.join("atlas");
    std::fs::create_dir_all(&copy)?;
    for file in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(atlas.join(file), copy.join(file)).with_context(|| file.to_owned())?;
    }
    let text = std::fs::read(atlas.join("tokenizer.json"))?;
    let mut tokenizer: Value = serde_json::from_slice(&text)?;
    tokenizer["pre_tokenizer"]["add_prefix_space"] = false.into();
    std::fs::write(copy.join("tokenizer.json"), tokenizer.to_string())?;
    Ok(copy)
}

/// Token ids of some probes.
fn token_ids(bench: &Bench, atlas: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let probes = std::fs::read_to_string(atlas.join("probes.tsv"))?;
    let prompts: Vec<_> =
        probes.lines().skip(1).filter_map(|line| line.split('\t').nth(3)).collect();
    ensure!(prompts.len() >= PROMPTS, "too few probes");
    let step = prompts.len() / PROMPTS;
    let chosen: Vec<_> = prompts.into_iter().step_by(step).take(PROMPTS).collect();
    encode(bench, atlas, &chosen)
}

/// Token ids of some texts, by the tokenizer beside a model.
pub(super) fn encode(bench: &Bench, model: &Path, texts: &[&str]) -> anyhow::Result<Vec<Vec<u32>>> {
    let mut command = bench.environment.script("token_ids.py");
    command.arg(model.join("tokenizer.json")).stderr(Stdio::null());
    let text = filter(&mut command, &texts.join("\n"))?;
    let ids = |line: &str| line.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>();
    text.lines().map(|line| ids(line).with_context(|| line.to_owned())).collect()
}
