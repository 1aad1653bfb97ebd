//! Llama 2, 3 and 3.1: grouped-query attention, gated SiLU network, norms before each half.
//!
//! Source: the family's `config.json` on the hub and the `LlamaConfig` defaults of transformers.

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
    name: "llama",
    model_types: &["llama"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]).interleaved(),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, kv_heads, head_dim } = Sizes::read(config)?;
    // The family has no windows: a list of kinds must say so.
    windows(config, layers, None, |_| false)?;
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let layer = LayerDescription::pre_norm(
        AttentionDescription {
            rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
            bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
            ..AttentionDescription::plain(heads, kv_heads, head_dim)
        },
        FfnDescription::gated(features, config.flag("mlp_bias")?.unwrap_or(false)),
    );
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
