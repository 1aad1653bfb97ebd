//! Gemma 2: norms on both sides of each half, soft caps on scores and logits, a window on every
//! other layer, norm weights stored less 1, embeddings scaled by `sqrt(hidden)`.
//!
//! Source: `Gemma2Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{gemma_activation, refuse_bidirectional, rms, windows};
use super::{Family, rope};

pub(super) static FAMILY: Family = Family {
    name: "gemma2",
    model_types: &["gemma2"],
    hub: HubNames::new(&[STEM, ATTENTION, SANDWICH_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]).norm_offset(1.0),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let heads = config.count("num_attention_heads", HEADS_MAX)?.unwrap_or(8);
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(4);
    let head_dim = config.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(256);
    let scalar = config.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    refuse_bidirectional(config)?;
    // A cap of null is none, and one that is not mentioned has its default.
    let cap = |key, default: f32| match config.mentions(key) {
        true => Ok(config.positive(key)?.map(|cap| cap as f32)),
        false => Ok::<_, ArchitectureError>(Some(default)),
    };
    let window = match config.mentions("sliding_window") {
        true => config.required_count("sliding_window", CONTEXT_MAX)?,
        false => 4096,
    };
    // The first checkpoints name the window twice.
    if config.count("sliding_window_size", CONTEXT_MAX)?.is_some_and(|size| size != window) {
        return Err(config.invalid("sliding_window_size", format!("sliding_window, {window}")));
    }
    let attention = AttentionDescription {
        scale: scalar.powf(-0.5) as f32,
        softcap: cap("attn_logit_softcapping", 50.0)?,
        rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
        bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let windows = windows(config, layers, Some(window), |layer| layer.is_multiple_of(2))?;
    let layer = |window| LayerDescription {
        post_norms: true,
        ..LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::gated(features, false),
        )
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(256_000),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(8192),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        norm: rms(config, 1e-6, 1.0)?,
        embed_scale: (hidden_size as f64).sqrt() as f32,
        final_softcap: cap("final_logit_softcapping", 30.0)?,
        activation: gemma_activation(config)?,
        ..Architecture::blank(family, windows.into_iter().map(layer).collect())
    }
    .validated(config)
}
