//! Gemma 4: norms on both sides of each half and on values, two kinds of layers with heads of their
//! own sizes, keys used as values, keys and values shared by the last layers, an embedding that
//! enters at every layer, a scalar at each layer's end, experts beside the dense network.
//!
//! Source: `Gemma4TextConfig` of transformers for the defaults.

use serde_json::Value;

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, PerLayerEmbedding, QueryKeyNorm, Role, RopeDescription, RopePairing,
};
use super::bounds::*;
use super::experts::{GEMMA4_EXPERTS, GGUF_EXPERTS, GGUF_GEMMA4_EXPERTS, gemma4_experts};
use super::names::*;
use super::sizes::{gemma_activation, refuse_bidirectional, rms, windows};
use super::{Family, rope};

/// The embedding that enters at every layer, and the layer's scalar.
const OWN: &[Name] = &[
    Name::new(Role::PerLayerEmbedding, "embed_tokens_per_layer.weight"),
    Name::new(Role::PerLayerModelProjection, "per_layer_model_projection.weight"),
    Name::new(Role::PerLayerProjectionNorm, "per_layer_projection_norm.weight"),
    Name::new(Role::PerLayerGate, "layers.{layer}.per_layer_input_gate.weight"),
    Name::new(Role::PerLayerProjection, "layers.{layer}.per_layer_projection.weight"),
    Name::new(Role::PostPerLayerNorm, "layers.{layer}.post_per_layer_input_norm.weight"),
    Name::new(Role::LayerScalar, "layers.{layer}.layer_scalar"),
];

/// The same in GGUF files.
const GGUF_OWN: &[Name] = &[
    Name::new(Role::PerLayerEmbedding, "per_layer_token_embd.weight"),
    Name::new(Role::PerLayerModelProjection, "per_layer_model_proj.weight"),
    Name::new(Role::PerLayerProjectionNorm, "per_layer_proj_norm.weight"),
    Name::new(Role::PerLayerGate, "blk.{layer}.inp_gate.weight"),
    Name::new(Role::PerLayerProjection, "blk.{layer}.proj.weight"),
    Name::new(Role::PostPerLayerNorm, "blk.{layer}.post_norm.weight"),
    Name::new(Role::LayerScalar, "blk.{layer}.layer_output_scale.weight"),
];

pub(super) static FAMILY: Family = Family {
    name: "gemma4",
    model_types: &["gemma4_text", "gemma4"],
    hub: HubNames::new(&[STEM, ATTENTION, SANDWICH_NORMS, GATED_MLP, OWN, GEMMA4_EXPERTS]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP, GGUF_OWN, GGUF_EXPERTS, GGUF_GEMMA4_EXPERTS]),
    describe,
};

/// Every so many layers one has no window, where no list says otherwise.
const PATTERN: usize = 6;

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let vocabulary_size = config.count("vocab_size", VOCABULARY_MAX)?.unwrap_or(262_144);
    refuse_bidirectional(config)?;
    let experts = gemma4_experts(config, layers)?;
    let window = match config.mentions("sliding_window") {
        true => config.required_count("sliding_window", CONTEXT_MAX)?,
        false => 512,
    };
    // Files for MLX name the pattern beside the list that it makes; alone it is not the family's.
    let pattern = config.count("sliding_window_pattern", LAYERS_MAX)?.unwrap_or(PATTERN);
    if pattern != PATTERN && config.value("layer_types").is_none() {
        return Err(config.unsupported("sliding_window_pattern"));
    }
    let mut windows =
        windows(config, layers, Some(window), |layer| !(layer + 1).is_multiple_of(PATTERN))?;
    // The last layer always sees everything, whatever the list says.
    if let Some(last) = windows.last_mut() {
        *last = None;
    }
    let heads = config.count("num_attention_heads", HEADS_MAX)?.unwrap_or(8);
    let bias = AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false));
    let keys_are_values = config.flag("attention_k_eq_v")?.unwrap_or(false);
    let shapes = head_shapes(config, &windows, keys_are_values)?;
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let wide = config.flag("use_double_wide_mlp")?.unwrap_or(false);
    let sharing = sharing(config, &windows)?;
    let mut described = Vec::with_capacity(layers);
    for (layer, &window) in windows.iter().enumerate() {
        let (head_dim, kv_heads) = shapes[layer];
        let (full, sliding) = ropes(config, head_dim)?;
        let attention = AttentionDescription {
            scale: 1.0,
            window,
            rope: Some(if window.is_some() { sliding } else { full }),
            query_key_norm: QueryKeyNorm::Head,
            value_norm: true,
            value_is_key: keys_are_values && window.is_none(),
            kv_from: sharing[layer],
            bias,
            ..AttentionDescription::plain(heads, kv_heads, head_dim)
        };
        let double = wide && sharing[layer].is_some();
        let dense = FfnDescription::gated(if double { 2 * features } else { features }, false);
        let ffn = FfnDescription { experts, ..dense };
        described.push(LayerDescription {
            post_norms: true,
            layer_scalar: true,
            ..LayerDescription::pre_norm(attention, ffn)
        });
    }
    Architecture {
        hidden_size,
        vocabulary_size,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(131_072),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(true),
        per_layer_embedding: per_layer_embedding(config, vocabulary_size)?,
        norm: rms(config, 1e-6, 0.0)?,
        embed_scale: (hidden_size as f64).sqrt() as f32,
        final_softcap: config.positive("final_logit_softcapping")?.map(|cap| cap as f32),
        activation: gemma_activation(config)?,
        ..Architecture::blank(family, described)
    }
    .validated(config)
}

/// The embedding that enters at every layer; a width of 0 switches it off.
fn per_layer_embedding(
    config: &Config,
    vocabulary_size: usize,
) -> Result<Option<PerLayerEmbedding>, ArchitectureError> {
    let key = "vocab_size_per_layer_input";
    let vocabulary = config.count(key, VOCABULARY_MAX)?.unwrap_or(262_144);
    let width = match config.value("hidden_size_per_layer_input").map(Value::as_u64) {
        Some(Some(0)) => return Ok(None),
        _ => config.count("hidden_size_per_layer_input", HIDDEN_MAX)?.unwrap_or(256),
    };
    if vocabulary < vocabulary_size {
        return Err(config.invalid(key, format!("at least the {vocabulary_size} tokens")));
    }
    Ok(Some(PerLayerEmbedding { width, vocabulary }))
}

/// Size of a head, and number of key and value heads, of every layer.
fn head_shapes(
    config: &Config,
    windows: &[Option<usize>],
    keys_are_values: bool,
) -> Result<Vec<(usize, usize)>, ArchitectureError> {
    let head_dim = config.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(256);
    let kv_heads = config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(4);
    let mut shapes = vec![(head_dim, kv_heads); windows.len()];
    let global_dim = config.count("global_head_dim", HEAD_DIM_MAX)?.unwrap_or(512);
    let global_heads = config.count("num_global_key_value_heads", HEADS_MAX)?;
    let Some(map) = config.object("per_layer_config")? else {
        let global_heads = global_heads.filter(|_| keys_are_values).unwrap_or(kv_heads);
        let full = windows.iter().zip(&mut shapes).filter(|(window, _)| window.is_none());
        full.for_each(|(_, shape)| *shape = (global_dim, global_heads));
        return Ok(shapes);
    };
    // As transformers 5 writes it: what differs, by the layer's number.
    for (layer, own) in map {
        let expected = || config.invalid("per_layer_config", "an object for each of some layers");
        let shape = layer.parse().ok().and_then(|layer: usize| shapes.get_mut(layer));
        let (shape, own) = shape.zip(own.as_object()).ok_or_else(expected)?;
        let path = config.name(&format!("per_layer_config.{layer}."));
        let own = Config::new(own, &path);
        shape.0 = own.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(shape.0);
        shape.1 = own.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(shape.1);
        own.refuse_others()?;
    }
    Ok(shapes)
}

/// For each of the last layers the one whose keys and values it reads: the last of its kind that
/// has its own.
fn sharing(
    config: &Config,
    windows: &[Option<usize>],
) -> Result<Vec<Option<usize>>, ArchitectureError> {
    let key = "num_kv_shared_layers";
    let shared = match config.value(key).map(Value::as_u64) {
        None | Some(Some(0)) => 0,
        _ => config.count(key, windows.len() - 1)?.unwrap_or(0),
    };
    let own = windows.len() - shared;
    let source = |layer: usize| {
        let same = (0..own).rfind(|&other| windows[other].is_some() == windows[layer].is_some());
        same.map(Some).ok_or_else(|| config.invalid(key, "a layer of each kind before the shared"))
    };
    (0..windows.len()).map(|layer| if layer < own { Ok(None) } else { source(layer) }).collect()
}

/// Rotary settings of full and of sliding layers.
fn ropes(
    config: &Config,
    head_dim: usize,
) -> Result<(RopeDescription, RopeDescription), ArchitectureError> {
    let full = rope::Defaults::new(1_000_000.0, head_dim);
    let sliding = rope::Defaults::new(10_000.0, head_dim);
    match config.object("rope_parameters")? {
        Some(map) => rope::of_kinds(config, map, full, sliding),
        None => {
            let pairing = RopePairing::Proportional;
            let full = rope::Defaults { partial: Some(0.25), pairing, ..full };
            Ok((full.unscaled(), sliding.unscaled()))
        }
    }
}
