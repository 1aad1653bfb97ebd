//! What checkpoints call their tensors: list entries, and the lists that many families share.
//!
//! A list may name more than a family has: what the description lacks is not asked for. Several
//! entries for one role are tried in their order.

use super::super::Role;

/// Which outputs of the stored tensor an entry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// All of them.
    Whole,
    /// Those of the entry's role, where the tensor holds the outputs of these roles one after
    /// another.
    Fused(&'static [Role]),
    /// Every `step`-th from `first`, where outputs of `step` roles alternate.
    Interleaved {
        /// The first one.
        first: usize,
        /// How many alternate.
        step: usize,
    },
}

/// What a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The model.
    Model,
    /// A layer.
    Layer,
    /// An expert of a layer.
    Expert,
}

/// An entry: where the weight of a role may be.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// The role.
    pub role: Role,
    /// The tensor's name, with `{layer}` and `{expert}` for their numbers.
    pub template: &'static str,
    /// Which of its outputs.
    pub outputs: Outputs,
    /// Whether it is stored `[inputs, outputs]`.
    pub transposed: bool,
    /// Whether its first axis counts experts.
    pub stacked: bool,
    /// Where it holds the keys of every head alone: the tensor that holds their values.
    pub values: Option<&'static str>,
}

impl Name {
    /// A tensor of its own.
    pub const fn new(role: Role, template: &'static str) -> Name {
        let outputs = Outputs::Whole;
        Name { role, template, outputs, transposed: false, stacked: false, values: None }
    }

    /// The outputs of several roles one after another.
    pub const fn fused(self, roles: &'static [Role]) -> Name {
        Name { outputs: Outputs::Fused(roles), ..self }
    }

    /// Every `step`-th output from `first`.
    pub const fn interleaved(self, first: usize, step: usize) -> Name {
        Name { outputs: Outputs::Interleaved { first, step }, ..self }
    }

    /// Stored `[inputs, outputs]`.
    pub const fn transposed(self) -> Name {
        Name { transposed: true, ..self }
    }

    /// Keys `[heads, inputs, outputs of a head]`, beside a tensor of values `[heads, outputs of a head,
    /// inputs]`: a projection to both, taken apart for attention that works on what it expands.
    pub const fn beside_values(self, values: &'static str) -> Name {
        Name { values: Some(values), ..self }
    }

    /// All experts of a layer in one tensor.
    pub const fn stacked(self) -> Name {
        Name { stacked: true, ..self }
    }

    /// What the tensor belongs to, seen from the role: a stacked one is asked for by expert.
    pub fn scope(&self) -> Scope {
        if self.stacked || self.template.contains("{expert}") {
            Scope::Expert
        } else if self.template.contains("{layer}") {
            Scope::Layer
        } else {
            Scope::Model
        }
    }
}

/// Names in checkpoints of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubNames {
    /// What may stand before a name; the first is the usual one.
    pub prefixes: &'static [&'static str],
    /// The same for the unembedding, which stands beside the stack of layers.
    pub head_prefixes: &'static [&'static str],
    /// The entries.
    pub lists: &'static [&'static [Name]],
}

impl HubNames {
    /// Entries below the prefixes of text models, alone or inside a larger one.
    pub const fn new(lists: &'static [&'static [Name]]) -> HubNames {
        HubNames {
            prefixes: &[
                "model.",
                "language_model.model.",
                "model.language_model.",
                "language_model.",
                "",
            ],
            head_prefixes: &["", "language_model.", "model."],
            lists,
        }
    }
}

/// Names in GGUF files, and what the converter did to the numbers.
#[derive(Debug, Clone, Copy)]
pub struct GgufNames {
    /// The entries.
    pub lists: &'static [&'static [Name]],
    /// Whether rows of queries and keys were put in interleaved order within heads.
    pub interleaved: bool,
    /// What was added to every norm weight.
    pub norm_offset: f32,
}

impl GgufNames {
    /// Entries whose numbers are those of the hub.
    pub const fn new(lists: &'static [&'static [Name]]) -> GgufNames {
        GgufNames { lists, interleaved: false, norm_offset: 0.0 }
    }

    /// Rows of queries and keys lie in interleaved order within heads.
    pub const fn interleaved(self) -> GgufNames {
        GgufNames { interleaved: true, ..self }
    }

    /// Norm weights have this added.
    pub const fn norm_offset(self, norm_offset: f32) -> GgufNames {
        GgufNames { norm_offset, ..self }
    }
}

/// The roles of a fused query, key and value projection.
pub(super) const QUERY_KEY_VALUE: &[Role] = &[Role::Query, Role::Key, Role::Value];
/// The roles of its bias.
pub(super) const QUERY_KEY_VALUE_BIAS: &[Role] = &[Role::QueryBias, Role::KeyBias, Role::ValueBias];
/// The roles of a fused gate and up projection.
pub(super) const GATE_UP: &[Role] = &[Role::Gate, Role::Up];

/// Embedding, final norm and unembedding.
pub(super) const STEM: &[Name] = &[
    Name::new(Role::Embedding, "embed_tokens.weight"),
    Name::new(Role::FinalNorm, "norm.weight"),
    Name::new(Role::FinalNormBias, "norm.bias"),
    Name::new(Role::Unembedding, "lm_head.weight"),
    Name::new(Role::UnembeddingBias, "lm_head.bias"),
];

/// Attention with a tensor for each projection.
pub(super) const ATTENTION: &[Name] = &[
    Name::new(Role::Query, "layers.{layer}.self_attn.q_proj.weight"),
    Name::new(Role::QueryBias, "layers.{layer}.self_attn.q_proj.bias"),
    Name::new(Role::Key, "layers.{layer}.self_attn.k_proj.weight"),
    Name::new(Role::KeyBias, "layers.{layer}.self_attn.k_proj.bias"),
    Name::new(Role::Value, "layers.{layer}.self_attn.v_proj.weight"),
    Name::new(Role::ValueBias, "layers.{layer}.self_attn.v_proj.bias"),
    Name::new(Role::QueryNorm, "layers.{layer}.self_attn.q_norm.weight"),
    Name::new(Role::KeyNorm, "layers.{layer}.self_attn.k_norm.weight"),
    Name::new(Role::Sinks, "layers.{layer}.self_attn.sinks"),
    Name::new(Role::Output, "layers.{layer}.self_attn.o_proj.weight"),
    Name::new(Role::OutputBias, "layers.{layer}.self_attn.o_proj.bias"),
];

/// Norms before attention and before the feed-forward network.
pub(super) const PRE_NORMS: &[Name] = &[
    Name::new(Role::AttentionNorm, "layers.{layer}.input_layernorm.weight"),
    Name::new(Role::AttentionNormBias, "layers.{layer}.input_layernorm.bias"),
    Name::new(Role::FfnNorm, "layers.{layer}.post_attention_layernorm.weight"),
    Name::new(Role::FfnNormBias, "layers.{layer}.post_attention_layernorm.bias"),
];

/// Norms on both sides of each half.
pub(super) const SANDWICH_NORMS: &[Name] = &[
    Name::new(Role::AttentionNorm, "layers.{layer}.input_layernorm.weight"),
    Name::new(Role::PostAttentionNorm, "layers.{layer}.post_attention_layernorm.weight"),
    Name::new(Role::FfnNorm, "layers.{layer}.pre_feedforward_layernorm.weight"),
    Name::new(Role::PostFfnNorm, "layers.{layer}.post_feedforward_layernorm.weight"),
];

/// A gated feed-forward network.
pub(super) const GATED_MLP: &[Name] = &[
    Name::new(Role::Gate, "layers.{layer}.mlp.gate_proj.weight"),
    Name::new(Role::GateBias, "layers.{layer}.mlp.gate_proj.bias"),
    Name::new(Role::Up, "layers.{layer}.mlp.up_proj.weight"),
    Name::new(Role::UpBias, "layers.{layer}.mlp.up_proj.bias"),
    Name::new(Role::Down, "layers.{layer}.mlp.down_proj.weight"),
    Name::new(Role::DownBias, "layers.{layer}.mlp.down_proj.bias"),
];

/// GGUF: what most models have outside the feed-forward network.
pub(super) const GGUF_STEM: &[Name] = &[
    Name::new(Role::Embedding, "token_embd.weight"),
    Name::new(Role::PositionEmbedding, "position_embd.weight"),
    Name::new(Role::AttentionNorm, "blk.{layer}.attn_norm.weight"),
    Name::new(Role::AttentionNormBias, "blk.{layer}.attn_norm.bias"),
    Name::new(Role::Query, "blk.{layer}.attn_q.weight"),
    Name::new(Role::QueryBias, "blk.{layer}.attn_q.bias"),
    Name::new(Role::Key, "blk.{layer}.attn_k.weight"),
    Name::new(Role::KeyBias, "blk.{layer}.attn_k.bias"),
    Name::new(Role::Value, "blk.{layer}.attn_v.weight"),
    Name::new(Role::ValueBias, "blk.{layer}.attn_v.bias"),
    Name::new(Role::Query, "blk.{layer}.attn_qkv.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::QueryBias, "blk.{layer}.attn_qkv.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Key, "blk.{layer}.attn_qkv.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::KeyBias, "blk.{layer}.attn_qkv.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::Value, "blk.{layer}.attn_qkv.weight").fused(QUERY_KEY_VALUE),
    Name::new(Role::ValueBias, "blk.{layer}.attn_qkv.bias").fused(QUERY_KEY_VALUE_BIAS),
    Name::new(Role::QueryNorm, "blk.{layer}.attn_q_norm.weight"),
    Name::new(Role::KeyNorm, "blk.{layer}.attn_k_norm.weight"),
    Name::new(Role::Sinks, "blk.{layer}.attn_sinks.weight"),
    Name::new(Role::Output, "blk.{layer}.attn_output.weight"),
    Name::new(Role::OutputBias, "blk.{layer}.attn_output.bias"),
    Name::new(Role::PostAttentionNorm, "blk.{layer}.post_attention_norm.weight"),
    Name::new(Role::FfnNorm, "blk.{layer}.ffn_norm.weight"),
    Name::new(Role::FfnNormBias, "blk.{layer}.ffn_norm.bias"),
    Name::new(Role::PostFfnNorm, "blk.{layer}.post_ffw_norm.weight"),
    Name::new(Role::FinalNorm, "output_norm.weight"),
    Name::new(Role::FinalNormBias, "output_norm.bias"),
    Name::new(Role::Unembedding, "output.weight"),
    Name::new(Role::UnembeddingBias, "output.bias"),
];

/// GGUF: a gated feed-forward network.
pub(super) const GGUF_GATED_MLP: &[Name] = &[
    Name::new(Role::Gate, "blk.{layer}.ffn_gate.weight"),
    Name::new(Role::GateBias, "blk.{layer}.ffn_gate.bias"),
    Name::new(Role::Up, "blk.{layer}.ffn_up.weight"),
    Name::new(Role::UpBias, "blk.{layer}.ffn_up.bias"),
    Name::new(Role::Down, "blk.{layer}.ffn_down.weight"),
    Name::new(Role::DownBias, "blk.{layer}.ffn_down.bias"),
];

/// GGUF: a network without an up projection, whose first projection has that name.
pub(super) const GGUF_PLAIN_MLP: &[Name] = &[
    Name::new(Role::Gate, "blk.{layer}.ffn_up.weight"),
    Name::new(Role::GateBias, "blk.{layer}.ffn_up.bias"),
    Name::new(Role::Down, "blk.{layer}.ffn_down.weight"),
    Name::new(Role::DownBias, "blk.{layer}.ffn_down.bias"),
];
