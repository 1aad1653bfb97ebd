//! `reference::gguf::*`: our GGUF files in llama.cpp, against our exact arithmetic on the same files.
//!
//! llama.cpp rounds what it multiplies to the type of the weights: to f16, or to blocks of 8 bits where
//! weights are quantised. So a quantised file is compared twice: as it is, where only the rounding of
//! activations may differ, and after `llama-quantize` has widened its blocks to f32, where nothing may.

use std::path::Path;

use anyhow::ensure;

use super::{Bench, Golden, difference, top};

/// A type that is checked.
struct Kind {
    name: &'static str,
    /// The largest difference of a logit as llama.cpp serves the file.
    bound: f32,
    quantised: bool,
}

const KINDS: &[Kind] = &[
    Kind { name: "F32", bound: WIDE, quantised: false },
    Kind { name: "F16", bound: 0.05, quantised: false },
    Kind { name: "Q8_0", bound: 1.0, quantised: true },
    Kind { name: "Q4_K_M", bound: 1.0, quantised: true },
];

/// The largest difference of a logit in f32: that of a sum in another order, but where experts are near a
/// tie or activations come from llama.cpp's table of GELU in f16.
const WIDE: f32 = 0.02;

/// Where llama.cpp computes otherwise: only so many first tokens of each prompt are compared.
const FIRST_TOKENS: &[(&str, usize, &str)] = &[
    (
        "deepseek_v2",
        6,
        "llama.cpp chooses groups of experts by their best two, this model by the best one",
    ),
    ("mistral", 16, "llama.cpp has no sliding window for llama"),
    ("phi3", 16, "llama.cpp has no sliding window for phi3"),
    ("starcoder2", 16, "llama.cpp has no sliding window for starcoder2"),
    (
        "gpt_oss_mxfp4",
        1,
        "llama.cpp rounds the ends of YaRN's blend: from the second token on it differs",
    ),
];

/// What llama.cpp cannot run, though the family is one of its own.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "gemma4_e2b",
        "its rule for shared keys asks for a sliding and a global layer before the first that shares",
    ),
    (
        "gpt_oss",
        "its limit of experts is 7 whatever the metadata says, and it rounds the ends of YaRN's blend",
    ),
    ("qwen2_moe", "it wants experts in every layer"),
];

/// What was found of one type.
pub(super) struct Figure {
    /// The largest difference of a logit as llama.cpp serves the file.
    pub(super) served: f32,
    /// Prompts with the same likeliest token.
    pub(super) same_top: usize,
    /// The largest difference after the blocks were widened.
    pub(super) widened: Option<f32>,
}

/// What was found of one checkpoint.
pub(super) struct Row {
    pub(super) folder: String,
    pub(super) prompts: usize,
    /// As in `names`; none where llama.cpp cannot run the model.
    pub(super) figures: Vec<Figure>,
    pub(super) note: &'static str,
}

/// The types in the order of figures.
pub(super) fn names() -> impl Iterator<Item = (&'static str, f32)> {
    KINDS.iter().map(|kind| (kind.name, kind.bound))
}

/// Where widened blocks and F32 have to stay.
pub(super) const fn bound_wide() -> f32 {
    WIDE
}

/// Checks one golden in every type.
pub(super) fn check(bench: &Bench, folder: &str) -> anyhow::Result<Row> {
    let source = bench.golden(folder);
    let golden = Golden::open(&source)?;
    let limit = FIRST_TOKENS.iter().find(|(name, ..)| *name == folder);
    let not_run = NOT_RUN.iter().find(|(name, _)| *name == folder);
    let mut prompts = golden.prompts;
    for prompt in &mut prompts {
        prompt.truncate(limit.map_or(usize::MAX, |(_, first, _)| *first));
    }
    let mut figures = Vec::new();
    for kind in KINDS {
        let file = bench.work.join(format!("{folder}-{}.gguf", kind.name));
        bench.compile(&source, &file, &format!("FORMAT GGUF DTYPE {}", kind.name))?;
        if not_run.is_none() {
            figures.push(figure(bench, kind, &file, &prompts)?);
        }
    }
    let note = limit.map(|(.., why)| *why).or(not_run.map(|(_, why)| *why)).unwrap_or_default();
    Ok(Row { folder: folder.to_owned(), prompts: prompts.len(), figures, note })
}

fn figure(bench: &Bench, kind: &Kind, file: &Path, prompts: &[Vec<u32>]) -> anyhow::Result<Figure> {
    let ours = bench.logits_of(file, prompts, false)?;
    let most = |theirs: &[Vec<f32>]| {
        ours.iter().zip(theirs).map(|(a, b)| difference(a, b)).fold(0.0, f32::max)
    };
    let same =
        |theirs: &[Vec<f32>]| ours.iter().zip(theirs).filter(|(a, b)| top(a) == top(b)).count();
    let theirs = bench.environment.llama_cpp(file, prompts, false)?;
    let (served, same_top) = (most(&theirs), same(&theirs));
    ensure!(served <= kind.bound, "{}: logits differ by {served:.1e}", kind.name);
    if !kind.quantised {
        ensure!(same_top == prompts.len(), "{}: another top token", kind.name);
        return Ok(Figure { served, same_top, widened: None });
    }
    let wide = file.with_extension("wide.gguf");
    bench.environment.quantize(&["--allow-requantize"], file, &wide, "F32")?;
    let theirs = bench.environment.llama_cpp(&wide, prompts, false)?;
    let widened = most(&theirs);
    ensure!(widened <= WIDE, "{}, widened: logits differ by {widened:.1e}", kind.name);
    ensure!(same(&theirs) == prompts.len(), "{}, widened: another top token", kind.name);
    Ok(Figure { served, same_top, widened: Some(widened) })
}
