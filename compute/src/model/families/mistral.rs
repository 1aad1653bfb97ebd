//! Mistral: Llama with a window on every layer, where the configuration has one.
//!
//! Source: `MistralConfig` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionDescription, FfnDescription, LayerDescription,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, rms, windows};
use super::{Family, rope};
use crate::kernels::Activation;

pub(super) static FAMILY: Family = Family {
    name: "mistral",
    model_types: &["mistral"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]).interleaved(),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, head_dim, .. } = Sizes::read(config)?;
    let kv_heads = match config.mentions("num_key_value_heads") {
        true => config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads),
        false => 8,
    };
    let window = match config.mentions("sliding_window") {
        true => config.count("sliding_window", CONTEXT_MAX)?,
        false => Some(4096),
    };
    let attention = AttentionDescription {
        rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    // The family has one kind of layer: a list must say so.
    let windows = windows(config, layers, window, |_| true)?;
    if windows.iter().any(|layer| *layer != window) {
        return Err(config.invalid("layer_types", "one kind of attention, that of sliding_window"));
    }
    let layer = |window| {
        LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::gated(features, false),
        )
    };
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(32_000),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, windows.into_iter().map(layer).collect())
    }
    .validated(config)
}
