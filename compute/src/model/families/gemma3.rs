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
use super::{Family, activation, layer_types, rms, rope};
use crate::kernels::Activation;

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
        true => config.count("sliding_window", CONTEXT_MAX)?,
        false => Some(4096),
    };
    let heads = config.count("num_attention_heads", HEADS_MAX)?.unwrap_or(8);
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(4);
    let attention = AttentionDescription {
        scale: scalar.powf(-0.5) as f32,
        softcap: config.positive("attn_logit_softcapping")?.map(|cap| cap as f32),
        rope: Some(full),
        query_key_norm: QueryKeyNorm::Head,
        bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let describe_layer = |slides: bool| LayerDescription {
        attention: match slides {
            true => {
                AttentionDescription { window, rope: Some(sliding.clone()), ..attention.clone() }
            }
            false => attention.clone(),
        },
        ffn: FfnDescription::gated(features, false),
        parallel: false,
        pre_norms: true,
        post_norms: true,
        layer_scalar: false,
    };
    let activation = activation(config, "hidden_activation", Activation::GeluTanh)?;
    if let Some(other) = config.text("hidden_act")?
        && Activation::from_name(other) != Some(activation)
    {
        return Err(config.invalid("hidden_act", "the same function as hidden_activation"));
    }
    Architecture {
        hidden_size,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(262_208),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        norm: rms(config, 1e-6, 1.0)?,
        embed_scale: (hidden_size as f64).sqrt() as f32,
        final_softcap: config.positive("final_logit_softcapping")?.map(|cap| cap as f32),
        activation,
        ..Architecture::blank(
            family,
            slides(config, layers)?.into_iter().map(describe_layer).collect(),
        )
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
    let Some(map) = config.object("rope_parameters")? else {
        return Ok((rope::of_scaling(config, scaling, full)?, local.unscaled()));
    };
    let path = config.name("rope_parameters.");
    let kinds = Config::new(map, &path);
    let one = |kind: &'static str, defaults: rope::Defaults| match kinds.object(kind)? {
        Some(map) => rope::description(map, &format!("{path}{kind}."), defaults),
        None => Err(kinds.missing(kind)),
    };
    let ropes = (one("full_attention", full)?, one("sliding_attention", local)?);
    kinds.refuse_unread()?;
    Ok(ropes)
}

/// For each layer whether it has a window: by `layer_types`, else all but every n-th.
fn slides(config: &Config, layers: usize) -> Result<Vec<bool>, ArchitectureError> {
    let pattern = match config.count("sliding_window_pattern", LAYERS_MAX)? {
        Some(pattern) => Some(pattern),
        None => config.count("_sliding_window_pattern", LAYERS_MAX)?,
    };
    config.mentions("_sliding_window_pattern");
    match layer_types(config, layers)? {
        Some(slides) => Ok(slides),
        None => {
            let pattern = pattern.unwrap_or(6);
            Ok((1..=layers).map(|nth| !nth.is_multiple_of(pattern)).collect())
        }
    }
}
