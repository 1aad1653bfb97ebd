//! Text on its way into and out of a model: tokenizer, token words, chat templates.
//!
//! Elsewhere: sampling and end-of-text decisions (`generate`), arithmetic on tokens (`compute`).

mod chat_template;
mod content;
mod tokenizer;

pub use chat_template::{ChatMessage, ChatTemplate, ChatTemplateError};
pub use content::{case_folded, is_content};
pub use tokenizer::{TextError, TextStream, Tokenizer};
