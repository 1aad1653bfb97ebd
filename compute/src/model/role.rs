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
    AttentionNorm = "attention_norm", "Weight of the norm before attention: `[hidden]`.";
    Query = "attention_query", "Query projection: `[heads * head_dim, hidden]`.";
    QueryBias = "attention_query_bias", "Bias of the query projection.";
    Key = "attention_key", "Key projection: `[kv_heads * head_dim, hidden]`.";
    KeyBias = "attention_key_bias", "Bias of the key projection.";
    Value = "attention_value", "Value projection: `[kv_heads * head_dim, hidden]`.";
    ValueBias = "attention_value_bias", "Bias of the value projection.";
    QueryNorm = "attention_query_norm", "Weight of the norm over each query head: `[head_dim]`.";
    KeyNorm = "attention_key_norm", "Weight of the norm over each key head: `[head_dim]`.";
    Output = "attention_output", "Projection of the heads back to the stream: `[hidden, heads * head_dim]`.";
    OutputBias = "attention_output_bias", "Bias of the output projection.";
    PostAttentionNorm = "post_attention_norm", "Weight of the norm of attention's output: `[hidden]`.";
    FfnNorm = "ffn_norm", "Weight of the norm before the feed-forward network: `[hidden]`.";
    Gate = "gate", "Gate projection, one row a feature: `[features, hidden]`.";
    GateBias = "gate_bias", "Bias of the gate projection.";
    Up = "up", "Up projection, one row a feature: `[features, hidden]`.";
    UpBias = "up_bias", "Bias of the up projection.";
    Down = "down", "Down projection: `[hidden, features]`, or feature-major `[features, hidden]`.";
    DownBias = "down_bias", "Bias of the down projection.";
    PostFfnNorm = "post_ffn_norm", "Weight of the norm of the feed-forward network's output: `[hidden]`.";
    FinalNorm = "final_norm", "Weight of the norm after the last layer: `[hidden]`.";
    Unembedding = "unembedding", "Rows that score the vocabulary: `[vocabulary, hidden]`.";
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
