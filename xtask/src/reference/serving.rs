//! `reference::serving::*`: how far the logits that we serve are from what a file means, beside llama.cpp's.
//!
//! What a file means is our exact arithmetic over its dequantised weights, which `reference::gguf` compares
//! with llama.cpp on widened blocks. Both engines then serve the very same file: activations in 8 bits, a
//! cache in f16, attention as each takes it by default.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Bench;
use super::atlas::Atlas;
use super::logits::{Engine, Probes, divergences, same_top};
use crate::statistics::Paired;

/// Types of the bundled model's files.
const TYPES: &[&str] = &["Q4_K_M", "Q6_K", "Q8_0", "Q4_0"];
/// The golden that came as Q4_K_M.
const GOLDEN: &str = "llama_k_quants";

/// How much further than llama.cpp's our logits may lie, the interval's lower end counting: two ways of
/// rounding whose errors are equal in size move single probes either way.
const RATIO_MAX: f64 = 1.05;
/// The same for the share of likeliest tokens that differ.
const TOP_PROBES: f64 = 0.01;

/// The checks, by name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().copied().chain([GOLDEN])
}

/// What was found of one file.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Divergences from what the file means, in nats, probe by probe.
    pub(super) divergence: Paired,
    /// Probes with the likeliest token of exact arithmetic, ours and theirs.
    pub(super) same_top: [usize; 2],
}

impl Row {
    /// Fails where ours lie further away.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        for ratio in [self.divergence.ratio(), self.divergence.geometric_ratio()] {
            ensure!(ratio.low <= RATIO_MAX, "ours diverge more: {ratio:?}");
        }
        let [ours, theirs] = self.same_top;
        let slack = (TOP_PROBES * self.divergence.ours.len() as f64) as usize;
        ensure!(ours + slack >= theirs, "ours agree on {ours} tokens, theirs on {theirs}");
        Ok(())
    }
}

/// Checks one file.
pub(super) fn check(bench: &Bench, atlas: &mut Atlas, name: &'static str) -> anyhow::Result<Row> {
    let mut own;
    let (file, probes) = if name == GOLDEN {
        let folder = bench.golden(GOLDEN);
        own = Probes::new(golden_prompts(&folder)?);
        (folder.join("llama_k_quants-q4_k_m.gguf"), &mut own)
    } else {
        (atlas.quantised(bench, name)?, &mut atlas.probes)
    };
    let exact = probes.run(bench, &file, Engine::Exact)?;
    let ours = probes.run(bench, &file, Engine::Serving)?;
    let theirs = probes.run(bench, &file, Engine::LlamaCpp)?;
    Ok(Row {
        name,
        divergence: Paired {
            ours: divergences(&exact, &ours),
            theirs: divergences(&exact, &theirs),
        },
        same_top: [same_top(&exact, &ours), same_top(&exact, &theirs)],
    })
}

/// The golden's prompts and every beginning of each, and their tokens in other orders: some hundred in all.
fn golden_prompts(folder: &std::path::Path) -> anyhow::Result<Vec<Vec<u32>>> {
    const WANTED: usize = 300;
    let path = folder.join("golden.q4_k_m.gguf.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let ids = |prompt: &Value| -> Option<Vec<u32>> {
        let ids = prompt["input_ids"].as_array()?.iter();
        ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
    };
    let prompts = golden["prompts"].as_array().context("the golden's prompts")?.iter().map(ids);
    let prompts = prompts.collect::<Option<Vec<_>>>().context("the golden's prompts")?;
    let pool: Vec<u32> = prompts.concat();
    ensure!(pool.len() > 2, "the golden's prompts are empty");
    let beginnings = prompts.iter().flat_map(|ids| (1..=ids.len()).map(|end| ids[..end].to_vec()));
    // A stride that shares no factor with the pool's size visits all of it, in another order each time.
    let shuffled = (1_usize..).map(|seed| {
        let length = 2 + seed % 23;
        (0..length).map(|at| pool[(seed * 7919 + at * (2 * seed + 1)) % pool.len()]).collect()
    });
    Ok(beginnings.chain(shuffled).take(WANTED).collect())
}
