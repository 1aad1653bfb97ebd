//! `reference::safetensors::*`: from a checkpoint through a vindex back to safetensors, and to transformers.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::environment::Server;
use super::{Bench, Golden, difference, floats};

/// Checkpoints that transformers does not load, and why; their tensors are compared all the same.
const NOT_LOADED: &[(&str, &str)] = &[
    ("deepseek_v3_fp8", "transformers refuses FP8 with a partial tile at the edge"),
    ("llama3_mlx4", "MLX's packed weights are not a format of transformers"),
    ("qwen2_mlx8", "MLX's packed weights are not a format of transformers"),
];

/// What was found.
pub(super) struct Row {
    pub(super) folder: String,
    /// How many tensors there are.
    pub(super) tensors: u64,
    /// Those that are not the same, in words.
    pub(super) different: Vec<String>,
    /// The largest difference of a logit from the golden's, and its bound; or why there is none.
    pub(super) logits: Result<(f32, f32), &'static str>,
}

impl Row {
    /// Fails where a tensor is not the source's, or a logit not the golden's.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        if let Ok((most, bound)) = self.logits {
            ensure!(most <= bound, "logits differ by {most:.1e}, bound {bound:.1e}");
        }
        if let [first, ..] = &self.different[..] {
            let count = self.different.len();
            bail!("{count} of {} tensors are not the source's: {first}", self.tensors);
        }
        Ok(())
    }
}

/// Checks one golden.
pub(super) fn check(bench: &Bench, transformers: &mut Server, folder: &str) -> anyhow::Result<Row> {
    let source = bench.golden(folder);
    let golden = Golden::open(&source)?;
    let vindex = bench.work.join(format!("{folder}.vindex"));
    let export = bench.work.join(format!("{folder}-safetensors"));
    bench.statements(&format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL DTYPE SOURCE; USE \"{}\"; \
         COMPILE CURRENT INTO MODEL \"{}\" FORMAT SAFETENSORS",
        source.display(),
        vindex.display(),
        vindex.display(),
        export.display()
    ))?;
    let not_loaded = NOT_LOADED.iter().find(|(name, _)| *name == folder).map(|(_, why)| *why);
    let answer = transformers.ask(&json!({
        "export": export,
        "source": source,
        "prompts": golden.prompts,
        "packed": folder.ends_with("_mxfp4"),
        "load": not_loaded.is_none(),
    }))?;
    let different = answer["different"].as_array().context("the tensors compared")?;
    let different = different.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    ensure!(answer["failed"].is_null(), "transformers: {}", answer["failed"]);
    let tensors = answer["tensors"].as_u64().context("the number of tensors")?;
    let logits = match not_loaded {
        Some(why) => Err(why),
        None => {
            let found = answer["logits"].as_array().context("logits")?.iter().map(floats);
            let found = found.collect::<Option<Vec<_>>>().context("logits")?;
            let pairs = found.iter().zip(&golden.logits);
            let most = pairs.map(|(a, b)| difference(a, b)).fold(0.0, f32::max);
            ensure!(
                most <= golden.bound,
                "logits differ by {most:.1e}, bound {:.1e}",
                golden.bound
            );
            Ok((most, golden.bound))
        }
    };
    Ok(Row { folder: folder.to_owned(), tensors, different, logits })
}
