//! DeepSeek V2 and V3: multi-head latent attention, shared and routed experts after some dense
//! layers. V2 scores experts by softmax and may judge groups by their best one; V3 scores by
//! sigmoid, balances the choice by a bias, and judges groups by their two best.
//!
//! The norms between the halves of low-rank projections have an epsilon of their own, which no
//! configuration sets. Layers beyond `num_hidden_layers`, which predict further tokens in
//! training, are not part of the model.
//!
//! Source: `DeepseekV2Config` and `DeepseekV3Config` of transformers for the defaults;
//! DeepSeek-V2 (arXiv:2405.04434), DeepSeek-V3 (arXiv:2412.19437).

use serde_json::Value;

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, DenseDescription,
    ExpertGroups, FfnDescription, GroupRule, LatentDescription, LayerDescription, Role,
    RopeDescription, RopePairing, RopeScaling, RouterDescription, RouterScoring,
};
use super::bounds::*;
use super::experts::{
    EXPERTS, EXPERTS_MAX, GGUF_EXPERTS, experts, ignore_training, softmax_router,
};
use super::names::*;
use super::sizes::{activation, rms};
use super::{Family, rope};
use crate::kernels::Activation;

const LATENT_ATTENTION: &[Name] = &[
    Name::new(Role::QueryDown, "layers.{layer}.self_attn.q_a_proj.weight"),
    Name::new(Role::QueryDownBias, "layers.{layer}.self_attn.q_a_proj.bias"),
    Name::new(Role::QueryDownNorm, "layers.{layer}.self_attn.q_a_layernorm.weight"),
    Name::new(Role::QueryUp, "layers.{layer}.self_attn.q_b_proj.weight"),
    Name::new(Role::KvDown, "layers.{layer}.self_attn.kv_a_proj_with_mqa.weight"),
    Name::new(Role::KvDownBias, "layers.{layer}.self_attn.kv_a_proj_with_mqa.bias"),
    Name::new(Role::KvDownNorm, "layers.{layer}.self_attn.kv_a_layernorm.weight"),
    Name::new(Role::KvUp, "layers.{layer}.self_attn.kv_b_proj.weight"),
    // As MLX writes it.
    Name::new(Role::KvUp, "layers.{layer}.self_attn.embed_q.weight")
        .beside_values("layers.{layer}.self_attn.unembed_out.weight"),
];

const SHARED_EXPERTS: &[Name] = &[
    Name::new(Role::RouterCorrectionBias, "layers.{layer}.mlp.gate.e_score_correction_bias"),
    Name::new(Role::Gate, "layers.{layer}.mlp.shared_experts.gate_proj.weight"),
    Name::new(Role::Up, "layers.{layer}.mlp.shared_experts.up_proj.weight"),
    Name::new(Role::Down, "layers.{layer}.mlp.shared_experts.down_proj.weight"),
    Name::new(Role::GateBias, "layers.{layer}.mlp.shared_experts.gate_proj.bias"),
    Name::new(Role::UpBias, "layers.{layer}.mlp.shared_experts.up_proj.bias"),
    Name::new(Role::DownBias, "layers.{layer}.mlp.shared_experts.down_proj.bias"),
];

const GGUF_LATENT_ATTENTION: &[Name] = &[
    Name::new(Role::QueryDown, "blk.{layer}.attn_q_a.weight"),
    Name::new(Role::QueryDownNorm, "blk.{layer}.attn_q_a_norm.weight"),
    Name::new(Role::QueryUp, "blk.{layer}.attn_q_b.weight"),
    Name::new(Role::KvDown, "blk.{layer}.attn_kv_a_mqa.weight"),
    Name::new(Role::KvDownNorm, "blk.{layer}.attn_kv_a_norm.weight"),
    Name::new(Role::KvUp, "blk.{layer}.attn_kv_b.weight"),
    Name::new(Role::KvUp, "blk.{layer}.attn_k_b.weight")
        .beside_values("blk.{layer}.attn_v_b.weight"),
];

const HUB: HubNames = HubNames::new(&[
    STEM,
    ATTENTION,
    LATENT_ATTENTION,
    PRE_NORMS,
    GATED_MLP,
    SHARED_EXPERTS,
    EXPERTS,
]);
const GGUF: GgufNames =
    GgufNames::new(&[GGUF_STEM, GGUF_LATENT_ATTENTION, GGUF_GATED_MLP, GGUF_EXPERTS]);

pub(super) static DEEPSEEK_V2: Family = Family {
    name: "deepseek_v2",
    model_types: &["deepseek_v2"],
    hub: HUB,
    gguf: GGUF,
    describe: describe_v2,
};

pub(super) static DEEPSEEK_V3: Family = Family {
    name: "deepseek_v3",
    model_types: &["deepseek_v3"],
    hub: HUB,
    gguf: GGUF,
    describe: describe_v3,
};

fn describe_v2(
    family: &'static Family,
    config: &Config,
) -> Result<Architecture, ArchitectureError> {
    expect(config, "scoring_func", "softmax")?;
    // What this changes is not the same everywhere, and no published checkpoint sets it.
    if config.flag("norm_topk_prob")? == Some(true) {
        return Err(config.unsupported("norm_topk_prob"));
    }
    let groups = match config.text("topk_method")?.unwrap_or("greedy") {
        "greedy" => {
            config.mentions("n_group");
            config.mentions("topk_group");
            None
        }
        "group_limited_greedy" => Some(groups(config, GroupRule::Max)?),
        _ => return Err(config.invalid("topk_method", "\"greedy\" or \"group_limited_greedy\"")),
    };
    let router = RouterDescription {
        groups,
        scale: config.positive("routed_scaling_factor")?.unwrap_or(1.0) as f32,
        ..softmax_router(false)
    };
    let mlp_bias = config.flag("mlp_bias")?.unwrap_or(false);
    describe(family, config, router, RopePairing::Interleaved, 0, mlp_bias)
}

fn describe_v3(
    family: &'static Family,
    config: &Config,
) -> Result<Architecture, ArchitectureError> {
    expect(config, "scoring_func", "sigmoid")?;
    expect(config, "topk_method", "noaux_tc")?;
    let pairing = match config.flag("rope_interleave")?.unwrap_or(true) {
        true => RopePairing::Interleaved,
        false => RopePairing::SplitHalf,
    };
    let router = RouterDescription {
        correction_bias: true,
        scoring: RouterScoring::Sigmoid,
        groups: Some(groups(config, GroupRule::SumOfTwo)?),
        scale: config.positive("routed_scaling_factor")?.unwrap_or(2.5) as f32,
        ..softmax_router(config.flag("norm_topk_prob")?.unwrap_or(true))
    };
    describe(family, config, router, pairing, 3, false)
}

/// What both have in common.
fn describe(
    family: &'static Family,
    config: &Config,
    router: RouterDescription,
    pairing: RopePairing,
    dense_first_default: usize,
    mlp_bias: bool,
) -> Result<Architecture, ArchitectureError> {
    let layers = config.required_count("num_hidden_layers", LAYERS_MAX)?;
    let hidden_size = config.required_count("hidden_size", HIDDEN_MAX)?;
    let attention = attention(config, pairing)?;
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let dense = FfnDescription::gated(features, mlp_bias);
    let sparse = match config.value("n_routed_experts") {
        None => {
            for key in ["moe_intermediate_size", "n_shared_experts", "num_experts_per_tok"] {
                config.mentions(key);
            }
            None
        }
        Some(_) => {
            let features = config.required_count("moe_intermediate_size", FEATURES_MAX)?;
            let (count, used) = (&["n_routed_experts"], &["num_experts_per_tok"]);
            let experts = experts(config, count, used, layers, features, router)?;
            groups_fit(config, experts.count, experts.used, router.groups)?;
            let shared = config.natural("n_shared_experts", FEATURES_MAX / features)?;
            let dense = shared.filter(|shared| *shared > 0).map(|shared| DenseDescription {
                features: shared * features,
                gated: true,
                bias: mlp_bias,
            });
            Some(FfnDescription { dense, experts: Some(experts) })
        }
    };
    ignore_training(config);
    let dense_first = config.natural("first_k_dense_replace", LAYERS_MAX)?;
    let dense_first = dense_first.unwrap_or(dense_first_default);
    let every = config.count("moe_layer_freq", LAYERS_MAX)?.unwrap_or(1);
    let describe_layer = |layer: usize| {
        let routed = layer >= dense_first && layer.is_multiple_of(every);
        let ffn = sparse.filter(|_| routed).unwrap_or(dense);
        LayerDescription::pre_norm(attention.clone(), ffn)
    };
    Architecture {
        hidden_size,
        vocabulary_size: config.required_count("vocab_size", VOCABULARY_MAX)?,
        context_max: config.count("max_position_embeddings", CONTEXT_MAX)?.unwrap_or(2048),
        tied_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
        norm: rms(config, 1e-6, 0.0)?,
        activation: activation(config, "hidden_act", Activation::Silu)?,
        ..Architecture::blank(family, (0..layers).map(describe_layer).collect())
    }
    .validated(config)
}

fn attention(
    config: &Config,
    pairing: RopePairing,
) -> Result<AttentionDescription, ArchitectureError> {
    let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
    if config.count("num_key_value_heads", HEADS_MAX)?.is_some_and(|kv_heads| kv_heads != heads) {
        let expected = format!("{heads}, since every head has keys and values of its own");
        return Err(config.invalid("num_key_value_heads", expected));
    }
    let query_rank = match config.mentions("q_lora_rank") {
        true => config.count("q_lora_rank", HIDDEN_MAX)?,
        false => Some(1536),
    };
    let kv_rank = config.count("kv_lora_rank", HIDDEN_MAX)?.unwrap_or(512);
    let nope_dim = config.count("qk_nope_head_dim", HEAD_DIM_MAX)?.unwrap_or(128);
    let rope_dim = config.count("qk_rope_head_dim", HEAD_DIM_MAX)?.unwrap_or(64);
    let value_dim = config.count("v_head_dim", HEAD_DIM_MAX)?.unwrap_or(128);
    let head_dim = nope_dim + rope_dim;
    if config.count("qk_head_dim", 2 * HEAD_DIM_MAX)?.is_some_and(|dim| dim != head_dim) {
        let expected = format!("{head_dim}, the sum of qk_nope_head_dim and qk_rope_head_dim");
        return Err(config.invalid("qk_head_dim", expected));
    }
    let rope = rope::of_model(
        config,
        rope::Defaults { pairing, ..rope::Defaults::new(10_000.0, rope_dim) },
    )?;
    let plain = AttentionDescription::plain(heads, heads, head_dim);
    let bias = config.flag("attention_bias")?.unwrap_or(false);
    Ok(AttentionDescription {
        value_dim,
        scale: (head_dim as f64).powf(-0.5) as f32 * scale_of_yarn(config, &rope)? as f32,
        rope: Some(rope),
        bias: AttentionBias { query: bias, key: bias, value: false, output: bias },
        latent: Some(LatentDescription { query_rank, kv_rank, nope_dim, rope_dim }),
        ..plain
    })
}

/// What YaRN multiplies the attention scale by where `mscale_all_dim` is set: it acts on queries
/// and keys in full, also on the numbers that do not turn.
fn scale_of_yarn(config: &Config, rope: &RopeDescription) -> Result<f64, ArchitectureError> {
    let RopeScaling::Yarn { factor, .. } = rope.scaling else { return Ok(1.0) };
    let map = match config.object("rope_parameters")? {
        None => config.object("rope_scaling")?,
        parameters => parameters,
    };
    let all = map.and_then(|map| map.get("mscale_all_dim")).and_then(Value::as_f64);
    let scale = all.filter(|all| *all != 0.0 && factor > 1.0);
    Ok(scale.map_or(1.0, |all| (0.1 * all * factor.ln() + 1.0).powi(2)))
}

/// How experts are grouped.
fn groups(config: &Config, rule: GroupRule) -> Result<ExpertGroups, ArchitectureError> {
    let count = config.required_count("n_group", EXPERTS_MAX)?;
    let used = config.required_count("topk_group", count)?;
    Ok(ExpertGroups { count, used, rule })
}

/// Whether groups are whole, and hold the experts that are to be chosen.
fn groups_fit(
    config: &Config,
    count: usize,
    used: usize,
    groups: Option<ExpertGroups>,
) -> Result<(), ArchitectureError> {
    let Some(groups) = groups else { return Ok(()) };
    if !count.is_multiple_of(groups.count) {
        return Err(config.invalid("n_group", format!("a divisor of the {count} experts")));
    }
    let size = count / groups.count;
    if groups.rule == GroupRule::SumOfTwo && size < 2 {
        return Err(config.invalid("n_group", "groups of two experts at least"));
    }
    if used > groups.used * size {
        let expected = format!("at most the {} experts of topk_group groups", groups.used * size);
        return Err(config.invalid("num_experts_per_tok", expected));
    }
    Ok(())
}

/// Checks a key whose other values are not known to be handled.
fn expect(config: &Config, key: &'static str, value: &str) -> Result<(), ArchitectureError> {
    match config.text(key)? {
        Some(found) if found != value => Err(config.unsupported(key)),
        _ => Ok(()),
    }
}
