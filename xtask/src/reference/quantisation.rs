//! `reference::quantisation::*`: what rounding costs, ours beside `llama-quantize`'s, on the bundled model.
//!
//! Both files are made from one GGUF in f32. Errors of weights are measured by the `gguf` package, so by
//! decoders that are not ours; logits of all three files are computed by our exact arithmetic, so that
//! nothing but the rounding of weights differs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Bench;
use super::environment::filter;
use crate::daemon::output;

/// The types that COMPILE writes and that round more than f16 does.
pub(super) const TYPES: &[&str] =
    &["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q4_K_M"];

/// Prompts, taken evenly from the bundled model's probes.
const PROMPTS: usize = 48;

/// How much larger than theirs our error may be: nothing, but for the last digits.
const RMS_RATIO_MAX: f64 = 1.001;
/// How much larger than theirs our divergence may be, which weights whose errors are equal in size
/// move either way.
const DIVERGENCE_RATIO_MAX: f64 = 1.25;

/// A figure of ours beside that of `llama-quantize`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) ours: f64,
    pub(super) theirs: f64,
}

/// What was found of one type.
pub(super) struct Row {
    pub(super) kind: &'static str,
    /// Root mean square of the tensors' relative errors.
    pub(super) rms: Pair,
    /// How many tensors there are, and in how many our error is no larger than theirs.
    pub(super) tensors: usize,
    pub(super) no_worse: usize,
    /// Tensors for which the two chose different types.
    pub(super) other_type: usize,
    /// Mean Kullback-Leibler divergence of the next token's distribution from the exact one, in nats.
    pub(super) divergence: Pair,
}

/// How many prompts the page's divergences are means of.
pub(super) const fn prompts() -> usize {
    PROMPTS
}

impl Row {
    /// Fails where our errors are larger than those of `llama-quantize`.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let worse = |pair: Pair, ratio: f64| pair.ours > pair.theirs * ratio;
        let Self { rms, divergence, .. } = self;
        ensure!(!worse(*rms, RMS_RATIO_MAX), "errors of weights are larger: {rms:?}");
        ensure!(!worse(*divergence, DIVERGENCE_RATIO_MAX), "logits diverge more: {divergence:?}");
        Ok(())
    }
}

/// What every type is compared with.
pub(super) struct Exact {
    source: PathBuf,
    /// The model in f32.
    file: PathBuf,
    /// Each prompt with its logits.
    prompts: Vec<(Vec<u32>, Vec<f32>)>,
}

impl Exact {
    /// Compiles the bundled model in f32 and runs the prompts.
    pub(super) fn new(bench: &Bench) -> anyhow::Result<Self> {
        let atlas = bench.root.join("larqld/assets/atlas");
        let source = speakable(bench, &atlas)?;
        let file = bench.work.join("atlas-F32.gguf");
        bench.compile(&source, &file, "FORMAT GGUF DTYPE F32")?;
        let with_logits = |prompt: Vec<u32>| {
            let logits = bench.logits(&file, &prompt)?;
            Ok((prompt, logits))
        };
        let prompts = token_ids(bench, &atlas)?.into_iter().map(with_logits);
        Ok(Self { prompts: prompts.collect::<anyhow::Result<_>>()?, source, file })
    }

    /// Mean divergence of a file's logits from the exact ones.
    fn divergence(&self, bench: &Bench, file: &Path) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for (prompt, expected) in &self.prompts {
            sum += divergence(expected, &bench.logits(file, prompt)?);
        }
        Ok(sum / self.prompts.len() as f64)
    }
}

/// Checks one type.
pub(super) fn check(bench: &Bench, exact: &Exact, kind: &'static str) -> anyhow::Result<Row> {
    let file = |name: &str| bench.work.join(format!("atlas-{name}.gguf"));
    let (ours, theirs) = (file(kind), file(&format!("{kind}-theirs")));
    bench.compile(&exact.source, &ours, &format!("FORMAT GGUF DTYPE {kind}"))?;
    // Its names of types without a mixture: Q4_K is Q4_K_M to it, and every type is a mixture unless pure.
    let (options, name): (&[&str], _) = match kind {
        "Q4_K_M" => (&[], kind.to_owned()),
        "Q4_K" | "Q5_K" => (&["--pure"], format!("{kind}_S")),
        _ => (&["--pure"], kind.to_owned()),
    };
    bench.environment.quantize(options, &exact.file, &theirs, &name)?;
    let divergence =
        Pair { ours: exact.divergence(bench, &ours)?, theirs: exact.divergence(bench, &theirs)? };
    let rms = Pair { ours: 0.0, theirs: 0.0 };
    let mut row = Row { kind, rms, tensors: 0, no_worse: 0, other_type: 0, divergence };
    weights(bench, [&exact.file, &ours, &theirs], &mut row)?;
    Ok(row)
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

/// Errors of the weights.
fn weights(bench: &Bench, files: [&Path; 3], row: &mut Row) -> anyhow::Result<()> {
    let text = output(bench.environment.script("quantisation_error.py").args(files))?;
    let mut squares = [0.0; 2];
    for line in text.lines() {
        let tensor: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let rms = |index: usize| tensor["rms"][index].as_f64().with_context(|| line.to_owned());
        let (ours, theirs) = (rms(0)?, rms(1)?);
        squares[0] += ours * ours;
        squares[1] += theirs * theirs;
        row.tensors += 1;
        row.no_worse += usize::from(ours <= theirs * RMS_RATIO_MAX);
        row.other_type += usize::from(tensor["types"][0] != tensor["types"][1]);
    }
    ensure!(row.tensors > 0, "nothing is quantised");
    let mean = |sum: f64| (sum / row.tensors as f64).sqrt();
    row.rms = Pair { ours: mean(squares[0]), theirs: mean(squares[1]) };
    Ok(())
}

/// Token ids of some probes.
fn token_ids(bench: &Bench, atlas: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let probes = std::fs::read_to_string(atlas.join("probes.tsv"))?;
    let prompts: Vec<_> =
        probes.lines().skip(1).filter_map(|line| line.split('\t').nth(3)).collect();
    ensure!(prompts.len() >= PROMPTS, "too few probes");
    let step = prompts.len() / PROMPTS;
    let chosen: Vec<_> = prompts.into_iter().step_by(step).take(PROMPTS).collect();
    let mut command = bench.environment.script("token_ids.py");
    command.arg(atlas.join("tokenizer.json")).stderr(Stdio::null());
    let text = filter(&mut command, &chosen.join("\n"))?;
    let ids = |line: &str| line.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>();
    text.lines().map(|line| ids(line).with_context(|| line.to_owned())).collect()
}

/// Kullback-Leibler divergence of the distribution by `found` from that by `expected`, in nats.
fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let (expected, found) = (log_softmax(expected), log_softmax(found));
    expected.iter().zip(&found).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - most - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::divergence;

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_positive_for_others() {
        assert!(divergence(&[1.0, 2.0, 3.0], &[0.0, 1.0, 2.0]).abs() < 1e-12);
        // Certain of the first of two against even odds: ln 2.
        let certain = divergence(&[60.0, 0.0], &[0.0, 0.0]);
        assert!((certain - std::f64::consts::LN_2).abs() < 1e-12, "{certain}");
    }
}
