//! Products that make rows of a database from weights: the tokens a feature stands for, and how
//! strongly the gates of a layer answer.

mod score_statistics;
mod top_tokens;

pub use score_statistics::score_statistics;
pub use top_tokens::{TokenList, Vocabulary, top_tokens};
