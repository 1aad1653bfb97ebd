//! Phi 1, 1.5 and 2: attention and a plain network read one layer norm and are added together;
//! part of each head turns; biases everywhere, on the logits too.
//!
//! Source: `PhiConfig` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, Role,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, layer_norm};
use super::{Family, rope};
use crate::kernels::Activation;

/// What this family calls otherwise than most.
const OWN: &[Name] = &[
    Name::new(Role::Output, "layers.{layer}.self_attn.dense.weight"),
    Name::new(Role::OutputBias, "layers.{layer}.self_attn.dense.bias"),
    Name::new(Role::Gate, "layers.{layer}.mlp.fc1.weight"),
    Name::new(Role::GateBias, "layers.{layer}.mlp.fc1.bias"),
    Name::new(Role::Down, "layers.{layer}.mlp.fc2.weight"),
    Name::new(Role::DownBias, "layers.{layer}.mlp.fc2.bias"),
    Name::new(Role::FinalNorm, "final_layernorm.weight"),
    Name::new(Role::FinalNormBias, "final_layernorm.bias"),
];

pub(super) static FAMILY: Family = Family {
    name: "phi",
    model_types: &["phi"],
    hub: HubNames::new(&[OWN, STEM, ATTENTION, PRE_NORMS]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_PLAIN_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, kv_heads, head_dim } = Sizes::read(config)?;
    if config.flag("qk_layernorm")?.unwrap_or(false) {
        return Err(config.unsupported("qk_layernorm"));
    }
    let rope = rope::Defaults { partial: Some(0.5), ..rope::Defaults::new(10_000.0, head_dim) };
    let layer = LayerDescription {
        parallel: true,
        ..LayerDescription::pre_norm(
            AttentionDescription {
                rope: Some(rope::of_model(config, rope)?),
                bias: AttentionBias::all(true),
                ..AttentionDescription::plain(heads, kv_heads, head_dim)
            },
            FfnDescription::plain(config.required_count("intermediate_size", FEATURES_MAX)?, true),
        )
    };
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(51_200),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        unembedding_bias: true,
        norm: layer_norm(config, "layer_norm_eps")?,
        activation: activation(config, "hidden_act", Activation::GeluTanh)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
