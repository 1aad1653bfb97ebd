//! `reference::quantisation::*`: what rounding costs, ours beside `llama-quantize`'s, on the bundled model.
//!
//! Both files are made from one GGUF in f32. Errors of weights are measured by the `gguf` package, so by
//! decoders that are not ours; logits of all three files are computed by our exact arithmetic, so that
//! nothing but the rounding of weights differs.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Bench;
use super::atlas::Atlas;
use super::logits::{Engine, divergences};
use crate::daemon::output;
use crate::statistics::Paired;

/// The types that COMPILE writes and that round more than f16 does.
pub(super) const TYPES: &[&str] =
    &["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q4_K_M"];

/// How much larger than theirs our error may be: nothing, but for the last digits.
const RMS_RATIO_MAX: f64 = 1.001;
/// How much larger than theirs our divergence may be, the interval's lower end counting: one rounding of
/// the weights is one draw, and draws whose errors are equal in size move all probes together.
const DIVERGENCE_RATIO_MAX: f64 = 1.1;

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
    /// Divergence of the next token's distribution from the exact one, in nats, probe by probe.
    pub(super) divergence: Paired,
}

impl Row {
    /// Fails where our errors are larger than those of `llama-quantize`.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let Pair { ours, theirs } = self.rms;
        ensure!(ours <= theirs * RMS_RATIO_MAX, "errors of weights are larger: {:?}", self.rms);
        for ratio in [self.divergence.ratio(), self.divergence.geometric_ratio()] {
            ensure!(ratio.low <= DIVERGENCE_RATIO_MAX, "logits diverge more: {ratio:?}");
        }
        Ok(())
    }
}

/// Checks one type.
pub(super) fn check(bench: &Bench, atlas: &mut Atlas, kind: &'static str) -> anyhow::Result<Row> {
    let ours = atlas.quantised(bench, kind)?;
    let theirs = bench.work.join(format!("atlas-{kind}-theirs.gguf"));
    // Its names of types without a mixture: Q4_K is Q4_K_M to it, and every type is a mixture unless pure.
    let (options, name): (&[&str], _) = match kind {
        "Q4_K_M" => (&[], kind.to_owned()),
        "Q4_K" | "Q5_K" => (&["--pure"], format!("{kind}_S")),
        _ => (&["--pure"], kind.to_owned()),
    };
    bench.environment.quantize(options, &atlas.exact, &theirs, &name)?;
    let exact_file = atlas.exact.clone();
    let exact = atlas.probes.run(bench, &exact_file, Engine::Exact)?;
    let mut from_exact = |file: &Path| -> anyhow::Result<Vec<f64>> {
        Ok(divergences(&exact, &atlas.probes.run(bench, file, Engine::Exact)?))
    };
    let divergence = Paired { ours: from_exact(&ours)?, theirs: from_exact(&theirs)? };
    let rms = Pair { ours: 0.0, theirs: 0.0 };
    let mut row = Row { kind, rms, tensors: 0, no_worse: 0, other_type: 0, divergence };
    weights(bench, [&exact_file, &ours, &theirs], &mut row)?;
    Ok(row)
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
