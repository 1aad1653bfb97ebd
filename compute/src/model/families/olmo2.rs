//! OLMo 2: norms only after each half, and over the whole query and key projections.
//!
//! Source: `Olmo2Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, QueryKeyNorm,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, rms};
use super::{Family, rope};
use crate::kernels::Activation;

pub(super) static FAMILY: Family = Family {
    name: "olmo2",
    model_types: &["olmo2"],
    hub: HubNames::new(&[STEM, ATTENTION, SANDWICH_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, kv_heads, head_dim } = Sizes::read(config)?;
    let layer = LayerDescription {
        pre_norms: false,
        post_norms: true,
        ..LayerDescription::pre_norm(
            AttentionDescription {
                rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
                query_key_norm: QueryKeyNorm::Projection,
                bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
                ..AttentionDescription::plain(heads, kv_heads, head_dim)
            },
            FfnDescription::gated(config.required_count("intermediate_size", FEATURES_MAX)?, false),
        )
    };
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(50_304),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-5, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
