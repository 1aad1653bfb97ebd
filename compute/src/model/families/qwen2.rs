//! Qwen 2 and 2.5: Llama with biases on queries, keys and values; a window on the later layers,
//! where the configuration switches it on.
//!
//! Source: `Qwen2Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, rms, windows};
use super::{Family, rope};
use crate::kernels::Activation;

pub(super) static FAMILY: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let sizes = Sizes::read(config)?;
    let Sizes { layers, heads, kv_heads, head_dim, .. } = sizes;
    let attention = AttentionDescription {
        rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
        bias: AttentionBias::inputs(true),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let layer = |window| {
        LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::gated(features, false),
        )
    };
    let layers = late_windows(config, layers)?.into_iter().map(layer).collect();
    model(config, Architecture::blank(family, layers), sizes)
}

/// The windows of a Qwen: on layers from `max_window_layers` on, if `use_sliding_window`.
///
/// # Errors
/// As [`windows`].
pub(super) fn late_windows(
    config: &Config,
    layers: usize,
) -> Result<Vec<Option<usize>>, ArchitectureError> {
    let window = match config.mentions("sliding_window") {
        true => config.count("sliding_window", CONTEXT_MAX)?,
        false => Some(4096),
    };
    let window = window.filter(|_| matches!(config.flag("use_sliding_window"), Ok(Some(true))));
    config.flag("use_sliding_window")?;
    let first = match config.value("max_window_layers").map(|first| first.as_u64()) {
        None => 28,
        Some(Some(first)) => first,
        Some(None) => return Err(config.invalid("max_window_layers", "a number of layers")),
    };
    windows(config, layers, window, |layer| layer as u64 >= first)
}

/// What the whole model of a Qwen has beside its layers.
///
/// # Errors
/// What is missing or out of bounds, by the name of its key.
pub(super) fn model(
    config: &Config,
    architecture: Architecture,
    sizes: Sizes,
) -> Result<Architecture, ArchitectureError> {
    Architecture {
        hidden_size: sizes.hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(151_936),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(32_768),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..architecture
    }
    .validated(config)
}
