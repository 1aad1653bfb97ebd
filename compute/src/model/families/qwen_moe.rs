//! Qwen 2 and 3 with experts: softmax over all, the best ones chosen; some layers may keep one
//! large network. Qwen 2 has a shared expert behind a sigmoid gate, and biases on queries, keys
//! and values; Qwen 3 norms queries and keys.
//!
//! Which layers have a window follows transformers 5: in Qwen 2 every other one of the first
//! `max_window_layers` unless `layer_types` says otherwise, in Qwen 3 all of them.
//!
//! Source: `Qwen2MoeConfig` and `Qwen3MoeConfig` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, DenseDescription,
    FfnDescription, LayerDescription, QueryKeyNorm, Role,
};
use super::bounds::*;
use super::experts::{EXPERTS, GGUF_EXPERTS, experts, ignore_training, softmax_router};
use super::names::*;
use super::sizes::{activation, head_dim, layer_types, rms};
use super::{Family, rope};
use crate::kernels::Activation;

/// The shared expert of Qwen 2.
const SHARED_EXPERT: &[Name] = &[
    Name::new(Role::SharedExpertGate, "layers.{layer}.mlp.shared_expert_gate.weight"),
    Name::new(Role::Gate, "layers.{layer}.mlp.shared_expert.gate_proj.weight"),
    Name::new(Role::Up, "layers.{layer}.mlp.shared_expert.up_proj.weight"),
    Name::new(Role::Down, "layers.{layer}.mlp.shared_expert.down_proj.weight"),
];

pub(super) static QWEN2_MOE: Family = Family {
    name: "qwen2_moe",
    model_types: &["qwen2_moe"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP, SHARED_EXPERT, EXPERTS]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP, GGUF_EXPERTS]),
    describe: describe_qwen2_moe,
};

pub(super) static QWEN3_MOE: Family = Family {
    name: "qwen3_moe",
    model_types: &["qwen3_moe"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP, EXPERTS]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP, GGUF_EXPERTS]),
    describe: describe_qwen3_moe,
};

fn describe_qwen2_moe(
    family: &'static Family,
    config: &Config,
) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let shared = config.required_count("shared_expert_intermediate_size", FEATURES_MAX)?;
    let bias = AttentionBias::inputs(config.flag("qkv_bias")?.unwrap_or(true));
    let used = config.flag("use_sliding_window")?.unwrap_or(false);
    let window = sliding_window(config, used)?;
    let limit = config.natural("max_window_layers", LAYERS_MAX)?.unwrap_or(28);
    let slides = match layer_types(config, layers)? {
        Some(slides) if used || !slides.contains(&true) => slides,
        Some(_) => {
            return Err(config.invalid("layer_types", "no window without use_sliding_window"));
        }
        None => (0..layers).map(|layer| used && layer % 2 == 0 && layer < limit).collect(),
    };
    describe(family, config, |layer, attention, ffn| {
        attention.bias = bias;
        attention.window = window.filter(|_| slides[layer]);
        if let Some(experts) = &mut ffn.experts {
            experts.shared_gate = true;
            ffn.dense = Some(DenseDescription { features: shared, gated: true, bias: false });
        }
    })
}

fn describe_qwen3_moe(
    family: &'static Family,
    config: &Config,
) -> Result<Architecture, ArchitectureError> {
    let bias = AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false));
    let used = config.flag("use_sliding_window")?.unwrap_or(false);
    let window = sliding_window(config, used)?;
    config.mentions("max_window_layers");
    describe(family, config, |_, attention, _| {
        attention.bias = bias;
        attention.query_key_norm = QueryKeyNorm::Head;
        attention.window = window;
    })
}

/// The window, which configurations may name without using it.
fn sliding_window(config: &Config, used: bool) -> Result<Option<usize>, ArchitectureError> {
    config.mentions("sliding_window");
    if !used {
        return Ok(None);
    }
    config.required_count("sliding_window", CONTEXT_MAX).map(Some)
}

/// What both have in common; `adapt` changes the attention and the networks of a layer.
fn describe(
    family: &'static Family,
    config: &Config,
    adapt: impl Fn(usize, &mut AttentionDescription, &mut FfnDescription),
) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads);
    let head_dim = head_dim(config, hidden_size, heads)?;
    let rope = rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?;
    let router = softmax_router(config.flag("norm_topk_prob")?.unwrap_or(false));
    let features = config.required_count("moe_intermediate_size", FEATURES_MAX)?;
    let (count, used) = (&["num_experts", "num_local_experts"], &["num_experts_per_tok"]);
    let experts = experts(config, count, used, layers, features, router)?;
    ignore_training(config);
    let step = config.count("decoder_sparse_step", LAYERS_MAX)?.unwrap_or(1);
    let dense_layers = config.naturals("mlp_only_layers", LAYERS_MAX)?.unwrap_or_default();
    let sparse = |layer: usize| !dense_layers.contains(&layer) && (layer + 1).is_multiple_of(step);
    let dense = match (0..layers).all(sparse) {
        true => config.count("intermediate_size", FEATURES_MAX)?.unwrap_or(features),
        false => config.required_count("intermediate_size", FEATURES_MAX)?,
    };
    let describe_layer = |layer: usize| {
        let mut attention = AttentionDescription {
            rope: Some(rope.clone()),
            ..AttentionDescription::plain(heads, kv_heads, head_dim)
        };
        let mut ffn = match sparse(layer) {
            true => FfnDescription { dense: None, experts: Some(experts) },
            false => FfnDescription::gated(dense, false),
        };
        adapt(layer, &mut attention, &mut ffn);
        LayerDescription::pre_norm(attention, ffn)
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(32_768),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, (0..layers).map(describe_layer).collect())
    }
    .validated(config)
}
