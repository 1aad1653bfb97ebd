//! Llama 2, 3 and 3.1: grouped-query attention, gated SiLU network, norms before each half.
//!
//! Source: the family's `config.json` on the hub and the `LlamaConfig` defaults of transformers.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionDescription, FfnDescription, LayerDescription, Role,
};
use super::bounds::*;
use super::{Family, PREFIXES, activation, rope};
use crate::kernels::Activation;

pub(super) static FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama"],
    prefixes: PREFIXES,
    names: &[
        (Role::Embedding, "embed_tokens.weight"),
        (Role::AttentionNorm, "layers.{layer}.input_layernorm.weight"),
        (Role::Query, "layers.{layer}.self_attn.q_proj.weight"),
        (Role::QueryBias, "layers.{layer}.self_attn.q_proj.bias"),
        (Role::Key, "layers.{layer}.self_attn.k_proj.weight"),
        (Role::KeyBias, "layers.{layer}.self_attn.k_proj.bias"),
        (Role::Value, "layers.{layer}.self_attn.v_proj.weight"),
        (Role::ValueBias, "layers.{layer}.self_attn.v_proj.bias"),
        (Role::Output, "layers.{layer}.self_attn.o_proj.weight"),
        (Role::OutputBias, "layers.{layer}.self_attn.o_proj.bias"),
        (Role::FfnNorm, "layers.{layer}.post_attention_layernorm.weight"),
        (Role::Gate, "layers.{layer}.mlp.gate_proj.weight"),
        (Role::GateBias, "layers.{layer}.mlp.gate_proj.bias"),
        (Role::Up, "layers.{layer}.mlp.up_proj.weight"),
        (Role::UpBias, "layers.{layer}.mlp.up_proj.bias"),
        (Role::Down, "layers.{layer}.mlp.down_proj.weight"),
        (Role::DownBias, "layers.{layer}.mlp.down_proj.bias"),
        (Role::FinalNorm, "norm.weight"),
        (Role::Unembedding, "lm_head.weight"),
    ],
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads);
    let head_dim = match config.count("head_dim", HEAD_DIM_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => return Err(config.missing("head_dim")),
    };
    if let Some(kinds) = config.value("layer_types") {
        let full = |kind: &serde_json::Value| kind.as_str() == Some("full_attention");
        if !kinds.as_array().is_some_and(|kinds| kinds.iter().all(full)) {
            return Err(config.invalid("layer_types", "\"full_attention\" for every layer"));
        }
    }
    let layer = LayerDescription {
        attention: AttentionDescription {
            heads,
            kv_heads,
            head_dim,
            scale: (head_dim as f64).powf(-0.5) as f32,
            softcap: None,
            window: None,
            rope: rope::of_model(config, 10_000.0)?,
            query_key_norm: false,
            bias: config.flag("attention_bias")?.unwrap_or(false),
        },
        ffn: FfnDescription {
            features: config.required_count("intermediate_size", FEATURES_MAX)?,
            bias: config.flag("mlp_bias")?.unwrap_or(false),
        },
        post_norms: false,
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm_epsilon: config.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, vec![layer; layers])
    }
    .validated(config)
}
