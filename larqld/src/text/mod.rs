//! Text on its way into and out of a model: tokenizer, token words, chat templates,
//! and constraints on what comes out.
//!
//! Elsewhere: sampling and end-of-text decisions (`generation`), arithmetic on tokens (`compute`).

mod chat_template;
mod content;
mod guide;
mod sandbox;
mod token_bytes;
mod tokenizer;

pub use chat_template::{Chat, ChatMessage, ChatTemplate, ChatTemplateError, template_source};
pub use content::is_content;
pub use guide::{
    CONSTRAINT_BYTES_MAX, CONSTRAINT_DEPTH_MAX, Constraint, Guide, GuideError, Guides,
};
pub use larql_storage::overlay::case_folded;
pub use token_bytes::TokenBytes;
pub use tokenizer::{TextError, TextStream, Tokenizer};

/// So many of something that is named by a noun whose plural ends in s.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
