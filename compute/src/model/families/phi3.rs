//! Phi 3 and 4: Llama with queries, keys and values in one tensor, gate and up in another, a window
//! where the configuration has one, and long contexts by LongRoPE.
//!
//! Source: `Phi3Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionDescription, FfnDescription, LayerDescription, Role,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, rms, windows};
use super::{Family, rope};
use crate::kernels::Activation;

/// The fused tensors; the others have their usual names.
const FUSED: &[Name] = &[
    Name::new(Role::Query, "layers.{layer}.self_attn.qkv_proj.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::Key, "layers.{layer}.self_attn.qkv_proj.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::Value, "layers.{layer}.self_attn.qkv_proj.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::Gate, "layers.{layer}.mlp.gate_up_proj.weight").fused(GATE_UP),
    Name::new(Role::Up, "layers.{layer}.mlp.gate_up_proj.weight").fused(GATE_UP),
];

/// GGUF files keep gate and up together under the name of the latter.
const GGUF_FUSED: &[Name] = &[
    Name::new(Role::Gate, "blk.{layer}.ffn_up.weight").fused(GATE_UP),
    Name::new(Role::Up, "blk.{layer}.ffn_up.weight").fused(GATE_UP),
    Name::new(Role::Down, "blk.{layer}.ffn_down.weight"),
];

pub(super) static FAMILY: Family = Family {
    name: "phi3",
    model_types: &["phi3"],
    hub: HubNames::new(&[FUSED, STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_FUSED]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, kv_heads, head_dim } = Sizes::read(config)?;
    let context_max = config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(4096);
    let rope = rope::Defaults {
        partial: Some(1.0),
        context_original: config.count("original_max_position_embeddings", CONTEXT_MAX)?,
        ..rope::Defaults::new(10_000.0, head_dim)
    };
    let attention = AttentionDescription {
        rope: Some(rope::of_model(config, rope)?),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    if config.flag("attention_bias")?.unwrap_or(false) {
        return Err(config.unsupported("attention_bias"));
    }
    // Phi 4 mini: every layer sees everything, which is every `full_attn_mod`-th.
    if config.count("full_attn_mod", LAYERS_MAX)?.is_some_and(|every| every != 1) {
        return Err(config.unsupported("full_attn_mod"));
    }
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let window = config.count("sliding_window", CONTEXT_MAX)?;
    let layer = |window| {
        LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::gated(features, false),
        )
    };
    let windows = windows(config, layers, window, |_| true)?;
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(32_064),
        context_max,
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-5, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, windows.into_iter().map(layer).collect())
    }
    .validated(config)
}
