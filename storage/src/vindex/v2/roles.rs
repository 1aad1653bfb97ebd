//! What a tensor does, by the name that the ancestor gave it: the hub's names without their prefix.

use super::super::TensorKey;
use std::borrow::Cow;

/// Tensors of the whole model.
const MODEL: [(&str, &str); 6] = [
    ("embed_tokens.weight", "embedding"),
    ("norm.weight", "final_norm"),
    ("lm_head.weight", "unembedding"),
    ("embed_tokens_per_layer.weight", "per_layer_embedding"),
    ("per_layer_model_projection.weight", "per_layer_model_projection"),
    ("per_layer_projection_norm.weight", "per_layer_projection_norm"),
];

/// Tensors of a layer. `post_attention_layernorm` is the norm before the feed-forward network where
/// no other is, and the norm of attention's output where there is one.
const LAYER: [(&str, &str); 42] = [
    ("input_layernorm.weight", "attention_norm"),
    ("input_layernorm.bias", "attention_norm_bias"),
    ("self_attn.q_proj.weight", "attention_query"),
    ("self_attn.q_proj.bias", "attention_query_bias"),
    ("self_attn.k_proj.weight", "attention_key"),
    ("self_attn.k_proj.bias", "attention_key_bias"),
    ("self_attn.v_proj.weight", "attention_value"),
    ("self_attn.v_proj.bias", "attention_value_bias"),
    ("self_attn.o_proj.weight", "attention_output"),
    ("self_attn.o_proj.bias", "attention_output_bias"),
    ("self_attn.q_norm.weight", "attention_query_norm"),
    ("self_attn.k_norm.weight", "attention_key_norm"),
    ("self_attn.sinks", "attention_sinks"),
    ("pre_feedforward_layernorm.weight", "ffn_norm"),
    ("post_feedforward_layernorm.weight", "post_ffn_norm"),
    ("pre_feedforward_layernorm_2.weight", "pre_experts_norm"),
    ("post_feedforward_layernorm_1.weight", "post_dense_norm"),
    ("post_feedforward_layernorm_2.weight", "post_experts_norm"),
    ("mlp.gate_proj.weight", "gate"),
    ("mlp.up_proj.weight", "up"),
    ("mlp.down_proj.weight", "down"),
    ("mlp.shared_expert.gate_proj.weight", "gate"),
    ("mlp.shared_expert.up_proj.weight", "up"),
    ("mlp.shared_expert.down_proj.weight", "down"),
    ("mlp.shared_experts.gate_proj.weight", "gate"),
    ("mlp.shared_experts.up_proj.weight", "up"),
    ("mlp.shared_experts.down_proj.weight", "down"),
    ("mlp.shared_expert_gate.weight", "shared_expert_gate"),
    ("mlp.gate.weight", "router"),
    ("mlp.gate.e_score_correction_bias", "router_correction_bias"),
    ("mlp.router.weight", "router"),
    ("mlp.router.bias", "router_bias"),
    ("block_sparse_moe.gate.weight", "router"),
    ("router.proj.weight", "router"),
    ("router.scale", "router_scale"),
    ("router.per_expert_scale", "expert_scale"),
    ("per_layer_input_gate.weight", "per_layer_gate"),
    ("per_layer_projection.weight", "per_layer_projection"),
    ("post_per_layer_input_norm.weight", "post_per_layer_norm"),
    ("layer_scalar", "layer_scalar"),
    ("layer_scalar.weight", "layer_scalar"),
    ("self_attn.k_norm.bias", "attention_key_norm_bias"),
];

/// Tensors of one expert, behind `experts.E.`.
const EXPERT: [(&str, &str); 6] = [
    ("gate_proj.weight", "gate"),
    ("up_proj.weight", "up"),
    ("down_proj.weight", "down"),
    ("w1.weight", "gate"),
    ("w3.weight", "up"),
    ("w2.weight", "down"),
];

/// The norms that a layer has besides the two of every family.
const OWN_FFN_NORMS: [&str; 2] =
    [".pre_feedforward_layernorm.weight", ".post_feedforward_layernorm.weight"];

/// Which names mean what in one vindex.
pub(super) struct Roles {
    /// What `post_attention_layernorm` is.
    post_attention: &'static str,
}

impl Roles {
    /// From all the names there are.
    pub(super) fn new<'k>(keys: impl Iterator<Item = &'k str>) -> Self {
        let mut keys = keys;
        let own = keys.any(|key| OWN_FFN_NORMS.iter().any(|norm| key.ends_with(norm)));
        Self { post_attention: if own { "post_attention_norm" } else { "ffn_norm" } }
    }

    /// What the tensor of that name is looked up by; `None` when the name is not understood.
    pub(super) fn key(&self, name: &str) -> Option<TensorKey> {
        let name = name.strip_prefix("model.").unwrap_or(name);
        if let Some(role) = find(&MODEL, name) {
            return Some(TensorKey::model(role));
        }
        let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
        let layer = number(layer)?;
        if rest == "post_attention_layernorm.weight" {
            return Some(TensorKey::layer(self.post_attention, layer));
        }
        if let Some(role) = find(&LAYER, rest) {
            return Some(TensorKey::layer(role, layer));
        }
        let (_, rest) = rest.split_once("experts.")?;
        let (expert, rest) = rest.split_once('.')?;
        Some(TensorKey::expert(find(&EXPERT, rest)?, layer, number(expert)?))
    }

    /// As [`Roles::key`]; a tensor that is not understood keeps its name.
    pub(super) fn key_or_source(&self, name: &str) -> TensorKey {
        let source = || TensorKey::model(Cow::Owned(format!("source:{name}")));
        self.key(name).unwrap_or_else(source)
    }
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, role)| role)
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_roles_and_a_norm_its_meaning_from_the_others() {
        let llama = Roles::new(["layers.0.post_attention_layernorm.weight"].into_iter());
        let gemma = Roles::new(["layers.0.pre_feedforward_layernorm.weight"].into_iter());
        let post = "layers.7.post_attention_layernorm.weight";
        assert_eq!(llama.key(post), Some(TensorKey::layer("ffn_norm", 7)));
        assert_eq!(gemma.key(post), Some(TensorKey::layer("post_attention_norm", 7)));
        for (name, key) in [
            ("norm.weight", TensorKey::model("final_norm")),
            ("layers.2.mlp.experts.11.up_proj.weight", TensorKey::expert("up", 2, 11)),
            ("layers.2.block_sparse_moe.experts.0.w2.weight", TensorKey::expert("down", 2, 0)),
            ("model.layers.2.block_sparse_moe.gate.weight", TensorKey::layer("router", 2)),
        ] {
            assert_eq!(llama.key(name), Some(key), "{name}");
        }
        for name in ["", "layers.+1.mlp.up_proj.weight", "layers.0.mlp.other.weight", "h.0.attn"] {
            assert_eq!(llama.key(name), None, "{name}");
        }
    }
}
