//! Granite: Llama with factors on embeddings, scores, logits and what each half adds.
//!
//! Source: `GraniteConfig` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, rms};
use super::{Family, rope};
use crate::kernels::Activation;

pub(super) static FAMILY: Family = Family {
    name: "granite",
    model_types: &["granite"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]).interleaved(),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, kv_heads, head_dim } = Sizes::read(config)?;
    let factor = |key| config.positive(key).map(|factor| factor.unwrap_or(1.0));
    let layer = LayerDescription::pre_norm(
        AttentionDescription {
            scale: factor("attention_multiplier")? as f32,
            rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
            bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
            ..AttentionDescription::plain(heads, kv_heads, head_dim)
        },
        FfnDescription::gated(
            config.required_count("intermediate_size", FEATURES_MAX)?,
            config.flag("mlp_bias")?.unwrap_or(false),
        ),
    );
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(32_000),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        embed_scale: factor("embedding_multiplier")? as f32,
        residual_scale: factor("residual_multiplier")? as f32,
        logits_scale: (1.0 / factor("logits_scaling")?) as f32,
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
