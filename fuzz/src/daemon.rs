//! The parsers of larqld.

use larql_compute::cpu::Cancel;
use larql_planner::catalog::Table as _;
use larql_storage::checkpoint::Checkpoint;
use larqld::source::gguf::describe;
use larqld::tables::read_file;
use larqld::text::{Chat, ChatMessage, ChatTemplate};
use std::path::Path;

use super::parsers::{Target, directory};

/// What a target is called, and what it runs.
pub const TARGETS: &[Target] =
    &[("chat_template", chat_template), ("gguf_description", gguf_description), ("table", table)];

/// A chat template, and a chat that it renders within its limits.
pub fn chat_template(bytes: &[u8]) {
    let Ok(template) = ChatTemplate::from_files(None, Some(bytes)) else { return };
    let message = |role: &str, content: &str| ChatMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    let chat = Chat::from(vec![message("system", "Be brief."), message("user", "{{ 7 * 7 }}")]);
    for generation in [false, true] {
        // Refusing is fine, and so is text; not ending is not.
        let _ = template.render(&chat, generation);
    }
}

/// Configuration and tokenizer from the metadata of a GGUF file.
pub fn gguf_description(bytes: &[u8]) {
    let files = directory(&[("m.gguf", bytes)]);
    let Ok(checkpoint) = Checkpoint::open(&files, Path::new("/m/m.gguf")) else { return };
    let metadata = checkpoint.gguf().expect("a GGUF file has metadata");
    let Ok(description) = describe(metadata, &checkpoint) else { return };
    // Whatever the numbers are, the texts are JSON.
    let config: Result<serde_json::Value, _> = serde_json::from_str(&description.config);
    assert!(config.is_ok_and(|config| config.is_object()));
    if let Some(tokenizer) = description.tokenizer {
        let tokenizer: Result<serde_json::Value, _> = serde_json::from_slice(&tokenizer);
        assert!(tokenizer.is_ok());
    }
}

/// A table of facts with commas, and the same with tabs. Every row that is accepted is as wide as the
/// header.
pub fn table(bytes: &[u8]) {
    for name in ["m.csv", "m.tsv"] {
        let files = directory(&[(name, bytes)]);
        let path = Path::new("/m").join(name);
        let Ok(table) = read_file(&*files, &path, "m", &Cancel::new()) else { continue };
        for row in 0..table.rows() as usize {
            assert_eq!(table.row(row).map(<[_]>::len), Some(table.columns().len()));
        }
    }
}
