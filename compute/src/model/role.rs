//! What a tensor does in a model: the names under which weights are asked for and stored.

use std::fmt;
use std::str::FromStr;

/// A string that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no role of a tensor known to this version; a newer one may have written it")]
pub struct UnknownRole {
    /// The string found.
    pub found: String,
}

/// One list for the enum, its names and the documentation: variant, manifest string, meaning.
macro_rules! roles {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// What a tensor does in a model, the same for every family.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Role {
            $(#[doc = $doc] $variant,)*
        }

        impl Role {
            /// Every role, in the order in which a model uses them.
            pub const ALL: &'static [Role] = &[$(Role::$variant),*];

            /// The role's name in manifests and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Role::$variant => $name,)* }
            }
        }
    };
}

roles! {
    Embedding = "embedding", "Rows of the vocabulary that enter the residual stream: `[vocabulary, hidden]`.";
    PositionEmbedding = "position_embedding", "Learned rows that are added for each position: `[positions, hidden]`.";
    PerLayerEmbedding = "per_layer_embedding", "Rows of the vocabulary that enter at each layer: `[vocabulary, layers * width]`.";
    PerLayerModelProjection = "per_layer_model_projection", "From the embedding to the inputs of all layers: `[layers * width, hidden]`.";
    PerLayerProjectionNorm = "per_layer_projection_norm", "Weight of the norm of each layer's projected input: `[width]`.";
    AttentionNorm = "attention_norm", "Weight of the norm before attention: `[hidden]`.";
    AttentionNormBias = "attention_norm_bias", "Bias of the norm before attention: `[hidden]`.";
    Query = "attention_query", "Query projection: `[heads * head_dim, hidden]`.";
    QueryBias = "attention_query_bias", "Bias of the query projection.";
    QueryDown = "attention_query_down", "First half of a low-rank query projection: `[rank, hidden]`.";
    QueryDownBias = "attention_query_down_bias", "Bias of that half.";
    QueryDownNorm = "attention_query_down_norm", "Weight of the norm between its halves: `[rank]`.";
    QueryUp = "attention_query_up", "Second half of a low-rank query projection: `[heads * head_dim, rank]`.";
    Key = "attention_key", "Key projection: `[kv_heads * head_dim, hidden]`.";
    KeyBias = "attention_key_bias", "Bias of the key projection.";
    Value = "attention_value", "Value projection: `[kv_heads * value_dim, hidden]`.";
    ValueBias = "attention_value_bias", "Bias of the value projection.";
    KvDown = "attention_kv_down", "Low-rank keys and values, and the part of the keys that turns: `[rank + rope_dim, hidden]`.";
    KvDownBias = "attention_kv_down_bias", "Bias of that.";
    KvDownNorm = "attention_kv_down_norm", "Weight of the norm of the low-rank part: `[rank]`.";
    KvUp = "attention_kv_up", "From it the keys and values of each head: `[heads * (nope_dim + value_dim), rank]`.";
    QueryNorm = "attention_query_norm", "Weight of the norm over each query head or the whole projection.";
    KeyNorm = "attention_key_norm", "Weight of the norm over each key head or the whole projection.";
    Sinks = "attention_sinks", "A further score of each head, which takes weight and adds nothing: `[heads]`.";
    Output = "attention_output", "Projection of the heads back to the stream: `[hidden, heads * value_dim]`.";
    OutputBias = "attention_output_bias", "Bias of the output projection.";
    PostAttentionNorm = "post_attention_norm", "Weight of the norm of attention's output: `[hidden]`.";
    FfnNorm = "ffn_norm", "Weight of the norm before the feed-forward network: `[hidden]`.";
    FfnNormBias = "ffn_norm_bias", "Bias of the norm before the feed-forward network: `[hidden]`.";
    PreExpertsNorm = "pre_experts_norm", "Weight of the norm before the experts, where they have their own: `[hidden]`.";
    Router = "router", "Rows that score the experts: `[experts, hidden]`.";
    RouterBias = "router_bias", "Bias of the experts' scores: `[experts]`.";
    RouterCorrectionBias = "router_correction_bias", "What is added to the scores for the choice alone: `[experts]`.";
    RouterScale = "router_scale", "Factors on the router's input: `[hidden]`.";
    ExpertScale = "expert_scale", "Factor on each expert's weight: `[experts]`.";
    SharedExpertGate = "shared_expert_gate", "Row that weights the dense network beside experts: `[1, hidden]`.";
    Gate = "gate", "Gate projection, one row a feature: `[features, hidden]`. A plain network's first projection.";
    GateBias = "gate_bias", "Bias of the gate projection.";
    Up = "up", "Up projection, one row a feature: `[features, hidden]`.";
    UpBias = "up_bias", "Bias of the up projection.";
    Down = "down", "Down projection: `[hidden, features]`, or feature-major `[features, hidden]`.";
    DownBias = "down_bias", "Bias of the down projection.";
    PostDenseNorm = "post_dense_norm", "Weight of the norm of the dense network's output beside experts: `[hidden]`.";
    PostExpertsNorm = "post_experts_norm", "Weight of the norm of the experts' output: `[hidden]`.";
    PostFfnNorm = "post_ffn_norm", "Weight of the norm of the feed-forward network's output: `[hidden]`.";
    PerLayerGate = "per_layer_gate", "From the stream to a gate on the layer's own input: `[width, hidden]`.";
    PerLayerProjection = "per_layer_projection", "From the gated input back to the stream: `[hidden, width]`.";
    PostPerLayerNorm = "post_per_layer_norm", "Weight of the norm of that: `[hidden]`.";
    LayerScalar = "layer_scalar", "Factor on the stream at the layer's end: `[1]`.";
    FinalNorm = "final_norm", "Weight of the norm after the last layer: `[hidden]`.";
    FinalNormBias = "final_norm_bias", "Bias of the norm after the last layer: `[hidden]`.";
    Unembedding = "unembedding", "Rows that score the vocabulary: `[vocabulary, hidden]`.";
    UnembeddingBias = "unembedding_bias", "Bias of the scores: `[vocabulary]`.";
}

impl Role {
    /// The roles of one feed-forward network, dense or an expert, in order of use.
    pub const NETWORK: [Role; 6] =
        [Role::Gate, Role::GateBias, Role::Up, Role::UpBias, Role::Down, Role::DownBias];

    /// The roles of what stands around a layer's experts: their choice, and norms of their own.
    pub const AROUND_EXPERTS: [Role; 9] = [
        Role::PreExpertsNorm,
        Role::Router,
        Role::RouterBias,
        Role::RouterCorrectionBias,
        Role::RouterScale,
        Role::ExpertScale,
        Role::SharedExpertGate,
        Role::PostDenseNorm,
        Role::PostExpertsNorm,
    ];

    /// Whether it is the weight of a norm.
    pub fn is_norm_weight(self) -> bool {
        self.as_str().ends_with("norm")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Role, UnknownRole> {
        let found = Role::ALL.iter().copied().find(|role| role.as_str() == name);
        found.ok_or_else(|| UnknownRole { found: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_found_by_its_own_name_only() {
        for &role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("Gate".parse::<Role>().unwrap_err().to_string().contains("\"Gate\""));
    }
}
