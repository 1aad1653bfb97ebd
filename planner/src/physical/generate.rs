//! Operands of GENERATE.

use std::sync::Arc;

use super::plan::FfnPath;

/// Operands of [`Operator::Generate`](super::plan::Operator::Generate). Rows: one for each token, as it is
/// made.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// The prompt, tokenised with special tokens.
    pub prompt: Arc<str>,
    /// At most so many tokens.
    pub tokens_max: u64,
    /// Divides the logits; 0 takes the best token.
    pub temperature: f64,
    /// Draw from so many of the best.
    pub top_k: Option<u64>,
    /// Draw from the best whose probabilities add up to this.
    pub top_p: Option<f64>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
    /// Texts that end the generation and are not given out.
    pub stop: Vec<String>,
    /// How the feed-forward part is computed.
    pub ffn: FfnPath,
}
