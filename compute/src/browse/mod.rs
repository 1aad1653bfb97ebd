//! Products that make rows of a database from weights: the tokens a feature stands for, and how
//! strongly the gates of a layer answer, and how much of that is owed to rounding.

mod gemm;
mod rounding;
mod score_statistics;
mod top_tokens;

pub use rounding::{rounding_errors, strongest_kept};
pub use score_statistics::score_statistics;
pub use top_tokens::{TokenList, Vocabulary, top_tokens};
