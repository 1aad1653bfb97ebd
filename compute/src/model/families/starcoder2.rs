//! StarCoder 2: layer norms with biases, a plain network, biases on every projection, a window
//! where the configuration has one.
//!
//! Source: `Starcoder2Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, Role,
};
use super::bounds::*;
use super::names::*;
use super::sizes::{Sizes, activation, layer_norm, windows};
use super::{Family, rope};
use crate::kernels::Activation;

/// The plain network.
const MLP: &[Name] = &[
    Name::new(Role::Gate, "layers.{layer}.mlp.c_fc.weight"),
    Name::new(Role::GateBias, "layers.{layer}.mlp.c_fc.bias"),
    Name::new(Role::Down, "layers.{layer}.mlp.c_proj.weight"),
    Name::new(Role::DownBias, "layers.{layer}.mlp.c_proj.bias"),
];

pub(super) static FAMILY: Family = Family {
    name: "starcoder2",
    model_types: &["starcoder2"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_PLAIN_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let Sizes { layers, hidden, heads, head_dim, .. } = Sizes::read(config)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(2);
    let bias = config.flag("use_bias")?.unwrap_or(true);
    let window = config.count("sliding_window", CONTEXT_MAX)?;
    let attention = AttentionDescription {
        rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
        bias: AttentionBias::all(bias),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    left_from_training(config)?;
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let layer = |window| {
        LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::plain(features, bias),
        )
    };
    let windows = windows(config, layers, window, |_| true)?;
    Architecture {
        hidden_size: hidden,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(49_152),
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(4096),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        norm: layer_norm(config, "norm_epsilon")?,
        activation: activation(config, "hidden_act", Activation::GeluTanh)?,
        ..Architecture::blank(family, windows.into_iter().map(layer).collect())
    }
    .validated(config)
}

/// Keys of published checkpoints that the trainer left behind: they repeat what the family does.
fn left_from_training(config: &Config) -> Result<(), ArchitectureError> {
    for (key, value) in [("norm_type", "layer_norm"), ("mlp_type", "default")] {
        if config.text(key)?.is_some_and(|found| found != value) {
            return Err(config.unsupported(key));
        }
    }
    if config.flag("scale_attn_weights")? == Some(false) {
        return Err(config.unsupported("scale_attn_weights"));
    }
    // What counts are `hidden_act` and `norm_epsilon`.
    config.mentions("activation_function");
    config.mentions("layer_norm_epsilon");
    Ok(())
}
