//! Gemma 3: norms on both sides of each half, normed queries and keys, windows with a rotary base
//! of their own on most layers, norm weights stored less 1, embeddings scaled by `sqrt(hidden)`.
//!
//! The scale is used as an `f32`. Transformers rounds it to the dtype of the embedding, which
//! makes no difference when the weights are computed in `f32`, as the reference numbers are.
//!
//! Source: `Gemma3TextConfig` of transformers for the defaults; checkpoints leave many keys out.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, QueryKeyNorm, RopeDescription,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{gemma_activation, refuse_bidirectional, rms, windows};
use super::{Family, rope};

pub(super) static FAMILY: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text", "gemma3"],
    hub: HubNames::new(&[STEM, ATTENTION, SANDWICH_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]).norm_offset(1.0),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let head_dim = config.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(256);
    let scalar = config.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    let (full, sliding) = ropes(config, head_dim)?;
    let window = match config.mentions("sliding_window") {
        true => config.required_count("sliding_window", CONTEXT_MAX)?,
        false => 4096,
    };
    // The reference has the key and leaves scores as they are; no published checkpoint sets it.
    if config.value("attn_logit_softcapping").is_some() {
        return Err(config.unsupported("attn_logit_softcapping"));
    }
    let heads = config.count("num_attention_heads", HEADS_MAX)?.unwrap_or(8);
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(4);
    let attention = AttentionDescription {
        scale: scalar.powf(-0.5) as f32,
        query_key_norm: QueryKeyNorm::Head,
        bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    refuse_bidirectional(config)?;
    let pattern = pattern(config)?;
    let windows =
        windows(config, layers, Some(window), |layer| !(layer + 1).is_multiple_of(pattern))?;
    let layer = |window: Option<usize>| LayerDescription {
        post_norms: true,
        ..LayerDescription::pre_norm(
            AttentionDescription {
                window,
                rope: Some(if window.is_some() { sliding.clone() } else { full.clone() }),
                ..attention.clone()
            },
            FfnDescription::gated(features, false),
        )
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(262_208),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        norm: rms(config, 1e-6, 1.0)?,
        embed_scale: (hidden_size as f64).sqrt() as f32,
        final_softcap: config.positive("final_logit_softcapping")?.map(|cap| cap as f32),
        activation: gemma_activation(config)?,
        ..Architecture::blank(family, windows.into_iter().map(layer).collect())
    }
    .validated(config)
}

/// Rotary settings of full and of sliding layers; scaling acts on the full ones alone.
fn ropes(
    config: &Config,
    head_dim: usize,
) -> Result<(RopeDescription, RopeDescription), ArchitectureError> {
    let base = config.positive("rope_theta")?.unwrap_or(1_000_000.0);
    let base_local = config.positive("rope_local_base_freq")?.unwrap_or(10_000.0);
    let (full, local) =
        (rope::Defaults::new(base, head_dim), rope::Defaults::new(base_local, head_dim));
    let scaling = config.object("rope_scaling")?;
    match config.object("rope_parameters")? {
        Some(map) => rope::of_kinds(config, map, full, local),
        None => Ok((rope::of_scaling(config, scaling, full)?, local.unscaled())),
    }
}

/// Every so many layers one has no window.
fn pattern(config: &Config) -> Result<usize, ArchitectureError> {
    let pattern = config.count("sliding_window_pattern", LAYERS_MAX)?;
    let underscored = config.count("_sliding_window_pattern", LAYERS_MAX)?;
    Ok(pattern.or(underscored).unwrap_or(6))
}
