//! The tokens that end a model's text, from the model's own files.

use serde_json::Value;

use crate::failure::Failure;
use crate::mounts::Model;

/// The tokens that end a text or a turn, in ascending order: `eos_token_id` of
/// `generation_config.json` and of `config.json`, and the end marker that `tokenizer_config.json`
/// names.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn end_tokens(model: &Model) -> Result<Vec<u32>, Failure> {
    let mut ends = model.architecture().eos_tokens.clone();
    let parse = |bytes: Option<Vec<u8>>| {
        bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).unwrap_or_default()
    };
    let generation = parse(model.side_file("generation_config.json")?);
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &generation["eos_token_id"] {
        Value::Array(list) => ends.extend(list.iter().filter_map(id)),
        one => ends.extend(id(one)),
    }
    let tokenizer_config = parse(model.side_file("tokenizer_config.json")?);
    let marker = &tokenizer_config["eos_token"];
    let marker = marker.as_str().or_else(|| marker["content"].as_str());
    ends.extend(marker.and_then(|marker| model.tokenizer().ok()?.id_of(marker)));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}
