//! Mixtral: Mistral with experts instead of the feed-forward network, the best ones weighted by
//! the softmax of their scores alone.
//!
//! Source: `MixtralConfig` of transformers for the defaults; Jiang et al. 2024 (arXiv:2401.04088).

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionDescription, FfnDescription, LayerDescription, Role,
};
use super::bounds::*;
use super::experts::{EXPERTS, GGUF_EXPERTS, experts, ignore_training, softmax_router};
use super::names::*;
use super::sizes::{activation, head_dim, rms};
use super::{Family, rope};
use crate::kernels::Activation;

/// Experts under the names of the hub; newer files may use those of [`EXPERTS`].
const BLOCK_SPARSE_MOE: &[Name] = &[
    Name::new(Role::Router, "layers.{layer}.block_sparse_moe.gate.weight"),
    Name::new(Role::Gate, "layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"),
    Name::new(Role::Up, "layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"),
    Name::new(Role::Down, "layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"),
    // As MLX writes them.
    Name::new(Role::Gate, "layers.{layer}.block_sparse_moe.switch_mlp.gate_proj.weight").stacked(),
    Name::new(Role::Up, "layers.{layer}.block_sparse_moe.switch_mlp.up_proj.weight").stacked(),
    Name::new(Role::Down, "layers.{layer}.block_sparse_moe.switch_mlp.down_proj.weight").stacked(),
];

pub(super) static FAMILY: Family = Family {
    name: "mixtral",
    model_types: &["mixtral"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, BLOCK_SPARSE_MOE, EXPERTS]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_EXPERTS]).interleaved(),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(8);
    let head_dim = head_dim(config, hidden_size, heads)?;
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let router = softmax_router(true);
    let (count, used) = (&["num_local_experts", "num_experts"], &["num_experts_per_tok"]);
    let experts = experts(config, count, used, layers, features, router)?;
    ignore_training(config);
    let layer = LayerDescription::pre_norm(
        AttentionDescription {
            window: config.count("sliding_window", CONTEXT_MAX)?,
            rope: Some(rope::of_model(config, rope::Defaults::new(1_000_000.0, head_dim))?),
            ..AttentionDescription::plain(heads, kv_heads, head_dim)
        },
        FfnDescription { dense: None, experts: Some(experts) },
    );
    Architecture {
        hidden_size,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-5, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
