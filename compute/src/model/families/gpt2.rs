//! GPT-2: layer norms with biases, learned positions, a plain network, queries, keys and values in
//! one tensor, projections stored `[inputs, outputs]`.
//!
//! Checkpoints also hold `attn.bias` and `attn.masked_bias`, which are the causal mask and no
//! weights.
//!
//! Source: `GPT2Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, Role,
};
use super::Family;
use super::bounds::*;
use super::names::*;
use super::sizes::{activation, layer_norm};
use crate::kernels::Activation;

const NAMES: &[Name] = &[
    Name::new(Role::Embedding, "wte.weight"),
    Name::new(Role::PositionEmbedding, "wpe.weight"),
    Name::new(Role::AttentionNorm, "h.{layer}.ln_1.weight"),
    Name::new(Role::AttentionNormBias, "h.{layer}.ln_1.bias"),
    Name::new(Role::Query, "h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE).transposed(),
    Name::new(Role::QueryBias, "h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Key, "h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE).transposed(),
    Name::new(Role::KeyBias, "h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Value, "h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE).transposed(),
    Name::new(Role::ValueBias, "h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Output, "h.{layer}.attn.c_proj.weight").transposed(),
    Name::new(Role::OutputBias, "h.{layer}.attn.c_proj.bias"),
    Name::new(Role::FfnNorm, "h.{layer}.ln_2.weight"),
    Name::new(Role::FfnNormBias, "h.{layer}.ln_2.bias"),
    Name::new(Role::Gate, "h.{layer}.mlp.c_fc.weight").transposed(),
    Name::new(Role::GateBias, "h.{layer}.mlp.c_fc.bias"),
    Name::new(Role::Down, "h.{layer}.mlp.c_proj.weight").transposed(),
    Name::new(Role::DownBias, "h.{layer}.mlp.c_proj.bias"),
    Name::new(Role::FinalNorm, "ln_f.weight"),
    Name::new(Role::FinalNormBias, "ln_f.bias"),
    Name::new(Role::Unembedding, "lm_head.weight"),
];

/// As MLX writes them: projections turned to `[outputs, inputs]`, everything below `model.`.
const MLX_NAMES: &[Name] = &[
    Name::new(Role::Embedding, "model.wte.weight"),
    Name::new(Role::PositionEmbedding, "model.wpe.weight"),
    Name::new(Role::AttentionNorm, "model.h.{layer}.ln_1.weight"),
    Name::new(Role::AttentionNormBias, "model.h.{layer}.ln_1.bias"),
    Name::new(Role::Query, "model.h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::QueryBias, "model.h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Key, "model.h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::KeyBias, "model.h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Value, "model.h.{layer}.attn.c_attn.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::ValueBias, "model.h.{layer}.attn.c_attn.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Output, "model.h.{layer}.attn.c_proj.weight"),
    Name::new(Role::OutputBias, "model.h.{layer}.attn.c_proj.bias"),
    Name::new(Role::FfnNorm, "model.h.{layer}.ln_2.weight"),
    Name::new(Role::FfnNormBias, "model.h.{layer}.ln_2.bias"),
    Name::new(Role::Gate, "model.h.{layer}.mlp.c_fc.weight"),
    Name::new(Role::GateBias, "model.h.{layer}.mlp.c_fc.bias"),
    Name::new(Role::Down, "model.h.{layer}.mlp.c_proj.weight"),
    Name::new(Role::DownBias, "model.h.{layer}.mlp.c_proj.bias"),
    Name::new(Role::FinalNorm, "model.ln_f.weight"),
    Name::new(Role::FinalNormBias, "model.ln_f.bias"),
];

pub(super) static FAMILY: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    hub: HubNames { prefixes: &["transformer.", ""], ..HubNames::new(&[NAMES, MLX_NAMES]) },
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_PLAIN_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("n_layer", LAYERS_MAX)?;
    let hidden_size = config.required_count("n_embd", HIDDEN_MAX)?;
    let heads = config.required_count("n_head", HEADS_MAX)?;
    if !hidden_size.is_multiple_of(heads) {
        return Err(config.invalid("n_head", format!("a divisor of n_embd = {hidden_size}")));
    }
    let head_dim = hidden_size / heads;
    let features = match config.count("n_inner", FEATURES_MAX)? {
        Some(features) => features,
        None => 4 * hidden_size,
    };
    // Upcasting is about half precision, and computing in f32 is what it asks for.
    config.flag("reorder_and_upcast_attn")?;
    let scaled = config.flag("scale_attn_weights")?.unwrap_or(true);
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false);
    // These are about a head for classification, which is not run here.
    for key in ["summary_activation", "summary_type"] {
        config.mentions(key);
    }
    let layer = |index: usize| {
        let plain = AttentionDescription::plain(heads, heads, head_dim);
        let scale = if scaled { plain.scale } else { 1.0 };
        let scale = if by_layer { scale / (index + 1) as f32 } else { scale };
        LayerDescription::pre_norm(
            AttentionDescription { scale, bias: AttentionBias::all(true), ..plain },
            FfnDescription::plain(features, true),
        )
    };
    let context_max = config.count("n_positions", POSITIONS_MAX)?.unwrap_or(1024);
    Architecture {
        hidden_size,
        vocabulary_size: config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(50_257),
        context_max,
        position_embeddings: Some(context_max),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        norm: layer_norm(config, "layer_norm_epsilon")?,
        activation: activation(config, "activation_function", Activation::GeluTanh)?,
        ..Architecture::blank(family, (0..layers).map(layer).collect())
    }
    .validated(config)
}
