//! What families with routed experts share: names of tensors, and keys of configurations.

use super::super::config::Config;
use super::super::{
    ArchitectureError, ExpertsDescription, Role, RouterDescription, RouterInput, RouterScoring,
};
use super::bounds::FEATURES_MAX;
use super::names::{GATE_UP, Name};

/// Experts of a layer; more are damage or malice.
pub(super) const EXPERTS_MAX: usize = 1 << 12;
/// Experts of all layers together.
const EXPERTS_OF_MODEL_MAX: usize = 1 << 16;

/// Experts as most families store them: one tensor a projection and expert, or all of a layer
/// stacked, gate and up one after the other.
pub(super) const EXPERTS: &[Name] = &[
    Name::new(Role::Router, "layers.{layer}.mlp.gate.weight"),
    Name::new(Role::Gate, "layers.{layer}.mlp.experts.{expert}.gate_proj.weight"),
    Name::new(Role::Up, "layers.{layer}.mlp.experts.{expert}.up_proj.weight"),
    Name::new(Role::Down, "layers.{layer}.mlp.experts.{expert}.down_proj.weight"),
    Name::new(Role::Gate, "layers.{layer}.mlp.experts.gate_up_proj").stacked().fused(GATE_UP),
    Name::new(Role::Up, "layers.{layer}.mlp.experts.gate_up_proj").stacked().fused(GATE_UP),
    Name::new(Role::Down, "layers.{layer}.mlp.experts.down_proj").stacked(),
    // As MLX writes them.
    Name::new(Role::Gate, "layers.{layer}.mlp.switch_mlp.gate_proj.weight").stacked(),
    Name::new(Role::Up, "layers.{layer}.mlp.switch_mlp.up_proj.weight").stacked(),
    Name::new(Role::Down, "layers.{layer}.mlp.switch_mlp.down_proj.weight").stacked(),
];

/// GGUF: experts stacked, the older form with a tensor for each, and the newer one with gate and
/// up in one tensor; shared experts.
pub(super) const GGUF_EXPERTS: &[Name] = &[
    Name::new(Role::Router, "blk.{layer}.ffn_gate_inp.weight"),
    Name::new(Role::RouterBias, "blk.{layer}.ffn_gate_inp.bias"),
    Name::new(Role::RouterCorrectionBias, "blk.{layer}.exp_probs_b.bias"),
    Name::new(Role::Gate, "blk.{layer}.ffn_gate_exps.weight").stacked(),
    Name::new(Role::GateBias, "blk.{layer}.ffn_gate_exps.bias").stacked(),
    Name::new(Role::Up, "blk.{layer}.ffn_up_exps.weight").stacked(),
    Name::new(Role::UpBias, "blk.{layer}.ffn_up_exps.bias").stacked(),
    Name::new(Role::Down, "blk.{layer}.ffn_down_exps.weight").stacked(),
    Name::new(Role::DownBias, "blk.{layer}.ffn_down_exps.bias").stacked(),
    Name::new(Role::Gate, "blk.{layer}.ffn_gate_up_exps.weight").stacked().fused(GATE_UP),
    Name::new(Role::Up, "blk.{layer}.ffn_gate_up_exps.weight").stacked().fused(GATE_UP),
    Name::new(Role::Gate, "blk.{layer}.ffn_gate.{expert}.weight"),
    Name::new(Role::Up, "blk.{layer}.ffn_up.{expert}.weight"),
    Name::new(Role::Down, "blk.{layer}.ffn_down.{expert}.weight"),
    Name::new(Role::SharedExpertGate, "blk.{layer}.ffn_gate_inp_shexp.weight"),
    Name::new(Role::Gate, "blk.{layer}.ffn_gate_shexp.weight"),
    Name::new(Role::Up, "blk.{layer}.ffn_up_shexp.weight"),
    Name::new(Role::Down, "blk.{layer}.ffn_down_shexp.weight"),
];

/// The experts of Gemma 4, beside the dense network and with norms of their own.
pub(super) const GEMMA4_EXPERTS: &[Name] = &[
    Name::new(Role::PreExpertsNorm, "layers.{layer}.pre_feedforward_layernorm_2.weight"),
    Name::new(Role::PostDenseNorm, "layers.{layer}.post_feedforward_layernorm_1.weight"),
    Name::new(Role::PostExpertsNorm, "layers.{layer}.post_feedforward_layernorm_2.weight"),
    Name::new(Role::Router, "layers.{layer}.router.proj.weight"),
    Name::new(Role::RouterScale, "layers.{layer}.router.scale"),
    Name::new(Role::ExpertScale, "layers.{layer}.router.per_expert_scale"),
    Name::new(Role::Gate, "layers.{layer}.experts.gate_up_proj").stacked().fused(GATE_UP),
    Name::new(Role::Up, "layers.{layer}.experts.gate_up_proj").stacked().fused(GATE_UP),
    Name::new(Role::Down, "layers.{layer}.experts.down_proj").stacked(),
    // As MLX writes them.
    Name::new(Role::Gate, "layers.{layer}.experts.switch_glu.gate_proj.weight").stacked(),
    Name::new(Role::Up, "layers.{layer}.experts.switch_glu.up_proj.weight").stacked(),
    Name::new(Role::Down, "layers.{layer}.experts.switch_glu.down_proj.weight").stacked(),
];

/// GGUF: what Gemma 4 has beside [`GGUF_EXPERTS`].
pub(super) const GGUF_GEMMA4_EXPERTS: &[Name] = &[
    Name::new(Role::PreExpertsNorm, "blk.{layer}.pre_ffw_norm_2.weight"),
    Name::new(Role::PostDenseNorm, "blk.{layer}.post_ffw_norm_1.weight"),
    Name::new(Role::PostExpertsNorm, "blk.{layer}.post_ffw_norm_2.weight"),
    Name::new(Role::RouterScale, "blk.{layer}.ffn_gate_inp.scale"),
    Name::new(Role::ExpertScale, "blk.{layer}.ffn_down_exps.scale"),
];

/// The experts of a Gemma 4 model, if its configuration switches them on.
///
/// # Errors
/// What is missing or out of bounds, by the name of its key.
pub(super) fn gemma4_experts(
    config: &Config,
    layers: usize,
) -> Result<Option<ExpertsDescription>, ArchitectureError> {
    let router = RouterDescription {
        input: RouterInput::GemmaScaled,
        expert_scale: true,
        ..softmax_router(true)
    };
    if !config.flag("enable_moe_block")?.unwrap_or(false) {
        for key in ["num_experts", "top_k_experts", "moe_intermediate_size"] {
            config.mentions(key);
        }
        return Ok(None);
    }
    let features = config.required_count("moe_intermediate_size", FEATURES_MAX)?;
    let experts = experts(config, &["num_experts"], &["top_k_experts"], layers, features, router)?;
    Ok(Some(ExpertsDescription { own_norms: true, ..experts }))
}

/// Softmax over all experts, the best ones chosen, their weights made to add up to 1 or not.
pub(super) const fn softmax_router(normalise: bool) -> RouterDescription {
    RouterDescription {
        bias: false,
        correction_bias: false,
        scoring: RouterScoring::Softmax,
        softmax_after: false,
        groups: None,
        normalise,
        scale: 1.0,
        input: RouterInput::Normed,
        expert_scale: false,
    }
}

/// A layer's experts: their number and how many a position goes through, each under the first of
/// these keys that is there.
///
/// # Errors
/// What is missing or out of bounds, by the name of its key.
pub(super) fn experts(
    config: &Config,
    count_keys: &[&'static str],
    used_keys: &[&'static str],
    layers: usize,
    features: usize,
    router: RouterDescription,
) -> Result<ExpertsDescription, ArchitectureError> {
    let count = first(config, count_keys, EXPERTS_MAX.min(EXPERTS_OF_MODEL_MAX / layers))?;
    let used = first(config, used_keys, count)?;
    Ok(ExpertsDescription {
        count,
        used,
        features,
        bias: false,
        clamp: None,
        router,
        shared_gate: false,
        own_norms: false,
    })
}

/// A count under the first of several names that the configuration has; the others are ignored.
fn first(config: &Config, keys: &[&'static str], max: usize) -> Result<usize, ArchitectureError> {
    // Each is asked for, so that none is taken for a key that nobody knows.
    let there: Vec<bool> = keys.iter().map(|key| config.value(key).is_some()).collect();
    let found = there.iter().position(|there| *there).unwrap_or(0);
    config.required_count(keys[found], max)
}

/// Reads keys that matter in training alone.
pub(super) fn ignore_training(config: &Config) {
    for key in ["router_aux_loss_coef", "router_jitter_noise", "output_router_logits"] {
        config.mentions(key);
    }
}
