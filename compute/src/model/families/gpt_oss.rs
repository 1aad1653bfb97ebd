//! gpt-oss: experts with biases and a clamped gate in every layer, sinks in attention, a window on
//! every other layer, YaRN with ends that are not rounded.
//!
//! Gate and up rows alternate in one stacked tensor: stored `[inputs, outputs]` in bf16, and
//! `[outputs, inputs]` where they are packed as MXFP4 (`…_blocks` beside `…_scales`), whose last
//! two axes are the row's blocks and bytes.
//!
//! Source: `GptOssConfig` of transformers for the defaults; arXiv:2508.10925.

use serde_json::json;

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, ExpertsDescription,
    FfnDescription, LayerDescription, Role, RopeDescription, RouterDescription, SwigluClamp,
};
use super::bounds::*;
use super::experts::{GGUF_EXPERTS, experts, ignore_training, softmax_router};
use super::names::*;
use super::sizes::{activation, layer_types, rms};
use super::{Family, rope};
use crate::kernels::Activation;

const ALTERNATING_EXPERTS: &[Name] = &[
    Name::new(Role::Router, "layers.{layer}.mlp.router.weight"),
    Name::new(Role::RouterBias, "layers.{layer}.mlp.router.bias"),
    Name::new(Role::Gate, GATE_UP_PROJ).stacked().transposed().interleaved(0, 2),
    Name::new(Role::Gate, GATE_UP_BLOCKS).stacked().interleaved(0, 2),
    Name::new(Role::GateBias, GATE_UP_BIAS).stacked().interleaved(0, 2),
    Name::new(Role::Up, GATE_UP_PROJ).stacked().transposed().interleaved(1, 2),
    Name::new(Role::Up, GATE_UP_BLOCKS).stacked().interleaved(1, 2),
    Name::new(Role::UpBias, GATE_UP_BIAS).stacked().interleaved(1, 2),
    Name::new(Role::Down, "layers.{layer}.mlp.experts.down_proj").stacked().transposed(),
    Name::new(Role::Down, "layers.{layer}.mlp.experts.down_proj_blocks").stacked(),
    Name::new(Role::DownBias, "layers.{layer}.mlp.experts.down_proj_bias").stacked(),
    // As MLX writes them.
    Name::new(Role::Gate, "layers.{layer}.mlp.experts.gate_proj.weight").stacked(),
    Name::new(Role::GateBias, "layers.{layer}.mlp.experts.gate_proj.bias").stacked(),
    Name::new(Role::Up, "layers.{layer}.mlp.experts.up_proj.weight").stacked(),
    Name::new(Role::UpBias, "layers.{layer}.mlp.experts.up_proj.bias").stacked(),
    Name::new(Role::Down, "layers.{layer}.mlp.experts.down_proj.weight").stacked(),
    Name::new(Role::DownBias, "layers.{layer}.mlp.experts.down_proj.bias").stacked(),
];
const GATE_UP_PROJ: &str = "layers.{layer}.mlp.experts.gate_up_proj";
const GATE_UP_BLOCKS: &str = "layers.{layer}.mlp.experts.gate_up_proj_blocks";
const GATE_UP_BIAS: &str = "layers.{layer}.mlp.experts.gate_up_proj_bias";

/// GGUF files name the norm before the experts after its place behind attention.
const GGUF_FFN_NORM: &[Name] =
    &[Name::new(Role::FfnNorm, "blk.{layer}.post_attention_norm.weight")];

pub(super) static FAMILY: Family = Family {
    name: "gpt_oss",
    model_types: &["gpt_oss"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, ALTERNATING_EXPERTS]),
    gguf: GgufNames::new(&[GGUF_FFN_NORM, GGUF_STEM, GGUF_EXPERTS]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads);
    let head_dim = config.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(64);
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let router = RouterDescription { bias: true, softmax_after: true, ..softmax_router(false) };
    let count = &["num_local_experts", "num_experts"];
    let used = &["num_experts_per_tok", "experts_per_token"];
    let experts = ExpertsDescription {
        bias: true,
        clamp: Some(SwigluClamp {
            limit: config.positive("swiglu_limit")?.unwrap_or(7.0) as f32,
            alpha: config.positive("swiglu_alpha")?.unwrap_or(1.702) as f32,
        }),
        ..experts(config, count, used, layers, features, router)?
    };
    ignore_training(config);
    let activation = activation(config, "hidden_act", Activation::Silu)?;
    if activation != Activation::Silu {
        return Err(config.invalid("hidden_act", "\"silu\", which the experts' gate is made of"));
    }
    let window = match config.mentions("sliding_window") {
        true => config.count("sliding_window", CONTEXT_MAX)?,
        false => Some(128),
    };
    let slides = layer_types(config, layers)?
        .unwrap_or_else(|| (0..layers).map(|layer| layer % 2 == 0).collect());
    let attention = AttentionDescription {
        rope: Some(yarn(config, head_dim)?),
        bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(true)),
        sinks: true,
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let describe_layer = |slides: bool| {
        LayerDescription::pre_norm(
            AttentionDescription { window: window.filter(|_| slides), ..attention.clone() },
            FfnDescription { dense: None, experts: Some(experts) },
        )
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-5, 0.0)?,
        activation,
        ..Architecture::blank(family, slides.into_iter().map(describe_layer).collect())
    }
    .validated(config)
}

/// The rotary setting: YaRN as the family was trained where the configuration has none.
fn yarn(config: &Config, head_dim: usize) -> Result<RopeDescription, ArchitectureError> {
    let base = config.positive("rope_theta")?.unwrap_or(150_000.0);
    let defaults = rope::Defaults::new(base, head_dim);
    let silent = ["rope_scaling", "rope_parameters"].iter().all(|key| config.value(key).is_none());
    if !silent {
        return rope::of_model(config, defaults);
    }
    let trained = json!({
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": false,
        "original_max_position_embeddings": 4096,
    });
    let trained = trained.as_object().expect("an object");
    rope::description(trained, "rope_parameters.", defaults)
}
