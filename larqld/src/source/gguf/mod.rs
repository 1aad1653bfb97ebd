//! GGUF as the hub's files, and back: configuration, tokenizer, chat template, generation settings.
//!
//! A GGUF file keeps in its metadata what a checkpoint of the hub keeps in files beside its weights.
//! [`describe`] turns the one into the other, so that a GGUF is read by the same code as any checkpoint;
//! the ways back are for COMPILE. Nothing is guessed: what is not understood is refused by name.
//!
//! Elsewhere: the file format (`storage::checkpoint::gguf`), what tensors are called
//! (`compute::model`, `Naming::Gguf`).

mod config;
mod keys;
mod metadata;
mod pre_tokenizers;
mod rope;
mod tokenizer;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use larql_compute::model::{Architecture, Naming};
use larql_storage::checkpoint::gguf::{GgufMetadataBuilder, Value as Stored};
use larql_storage::checkpoint::{Checkpoint, GgufMetadata};
use serde_json::{Map, Value, json};

use self::keys::Keys;
pub(crate) use self::metadata::ExtraTensor;
use self::tokenizer::TokenizerFiles;
use self::vocabulary::{Pieces, Vocabulary};
use crate::failure::Failure;

/// The texts that a checkpoint of the hub has beside its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufDescription {
    /// `config.json`.
    pub config: String,
    /// `tokenizer.json`, where the file holds a vocabulary.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `generation_config.json`.
    pub generation_config: Option<String>,
    /// What a user should know about how the file was read.
    pub notes: Vec<String>,
}

/// Reads what the metadata of a GGUF checkpoint says about its model.
///
/// # Errors
/// A failure that names the key that is missing, contradictory or not understood.
pub fn describe(
    metadata: &GgufMetadata,
    checkpoint: &Checkpoint,
) -> Result<GgufDescription, Failure> {
    let keys = Keys::new(metadata)?;
    let (mut config, notes) = config::config(&keys, checkpoint)?;
    let vocabulary = Vocabulary::read(metadata)?;
    let rows = config["vocab_size"].as_u64().unwrap_or(0);
    if let Some(vocabulary) = &vocabulary {
        if vocabulary.tokens.len() as u64 > rows {
            let tokens = vocabulary.tokens.len();
            let message =
                format!("the file has {tokens} tokens and {rows} rows of token_embd.weight");
            return Err(keys::refuse(message));
        }
        for (key, id) in vocabulary.special_ids() {
            config.insert(key.to_owned(), id);
        }
    }
    config.insert("torch_dtype".to_owned(), json!(weight_type(checkpoint)));
    let context = keys.count("context_length")?.unwrap_or(0);
    Ok(GgufDescription {
        config: pretty(&config),
        tokenizer: vocabulary.as_ref().map(Vocabulary::tokenizer_json).transpose()?,
        tokenizer_config: vocabulary.as_ref().map(|words| words.tokenizer_config(context)),
        generation_config: vocabulary.as_ref().map(|words| pretty(&generation(words, metadata))),
        notes,
    })
}

/// Tensors that [`describe`] reads: they say how positions turn.
const DESCRIPTION_TENSORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// The halves of `attn_kv_b.weight`, read where it is missing and copies where it is there.
const COPIES: [&str; 2] = [".attn_k_b.weight", ".attn_v_b.weight"];

/// Refuses a checkpoint with a tensor that the model has no use for: whoever made the file computes
/// with it, so that without it the answers are others.
///
/// # Errors
/// A failure that names the tensor.
pub(super) fn check_all_used(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
) -> Result<(), Failure> {
    let specs = architecture.tensors(Naming::Gguf);
    let candidates = specs.iter().flat_map(|spec| &spec.candidates);
    let mut used: HashSet<&str> = candidates.map(|candidate| &*candidate.name).collect();
    used.extend(DESCRIPTION_TENSORS);
    let is_copy = |name: &str| COPIES.iter().any(|copy| name.ends_with(copy));
    match checkpoint.tensors().find(|tensor| !used.contains(tensor.name) && !is_copy(tensor.name)) {
        None => Ok(()),
        Some(tensor) => {
            let (name, family) = (tensor.name, architecture.family());
            let message =
                format!("a model of the family {family} has no use for the tensor {name}");
            Err(keys::refuse(message))
        }
    }
}

/// What goes before the tensors of a GGUF file.
#[derive(Debug)]
pub struct GgufComposition {
    /// The metadata.
    pub metadata: GgufMetadata,
    /// Tensors that only GGUF has.
    pub(crate) tensors: Vec<ExtraTensor>,
    /// What a user should know about programs that read the file.
    pub notes: Vec<String>,
}

/// The texts beside a model's weights, as far as GGUF has words for them.
#[derive(Debug, Clone, Copy)]
pub struct GgufTexts<'a> {
    /// `tokenizer.json`; without it the file has no vocabulary.
    pub tokenizer: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a [u8]>,
    /// The chat template, from whichever file has it.
    pub chat_template: Option<&'a str>,
}

/// Makes the metadata of a GGUF file of this model.
///
/// `kept` is the metadata of the GGUF file that the model comes from, if it comes from one: it goes
/// along as it is. `file_type` says how most tensors are stored, in llama.cpp's numbers.
///
/// # Errors
/// A failure that names what GGUF has no word for.
pub fn compose(
    architecture: &Architecture,
    name: &str,
    file_type: u32,
    texts: &GgufTexts<'_>,
    kept: Option<&GgufMetadata>,
) -> Result<GgufComposition, Failure> {
    let mut builder = GgufMetadataBuilder::new();
    let (tensors, mut notes) = match kept {
        Some(kept) => {
            // Sizes of latent attention are said for a projection in two tensors; it is written as one.
            let joined = metadata::joined_latent_keys(architecture, kept);
            // Edits may have made networks wider than the file's metadata says.
            let mut own = GgufMetadataBuilder::new();
            let written = metadata::write(architecture, &mut own)?;
            let own = own.finish().map_err(keys::refuse)?;
            let is_width = |key: &str| WIDTHS.iter().any(|suffix| key.ends_with(suffix));
            let wider = |key: &str| {
                let [old, new] = [kept, &own].map(|metadata| metadata.get(key));
                let number = |metadata: &GgufMetadata| metadata.u64(key).ok().flatten();
                let differs = match number(kept).zip(number(&own)) {
                    Some((old, new)) => old != new,
                    None => format!("{old:?}") != format!("{new:?}"),
                };
                is_width(key) && old.is_some() && new.is_some() && differs
            };
            let changed = |key: &str| {
                wider(key)
                    || key == "general.file_type"
                    || key == "general.quantization_version"
                    || key.starts_with("split.")
                    || joined.iter().any(|(replaced, _)| replaced == key)
            };
            builder.extend(kept, |key| !changed(key));
            for (key, value) in joined.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
                builder.value(key, Stored::U32(value));
            }
            builder.extend(&own, wider);
            written
        }
        None => {
            builder.text("general.architecture", metadata::architecture_name(architecture)?);
            builder.text("general.type", "model");
            builder.text("general.name", name);
            metadata::write(architecture, &mut builder)?
        }
    };
    builder.value("general.file_type", Stored::U32(file_type));
    builder.value("general.quantization_version", Stored::U32(2));
    if let (None, Some(tokenizer)) = (kept, texts.tokenizer) {
        let files = TokenizerFiles {
            tokenizer,
            config: texts.tokenizer_config,
            chat_template: texts.chat_template,
            bos: architecture.bos_token,
            eos: architecture.eos_tokens.first().copied(),
            merges_characters: metadata::architecture_name(architecture)? == "gemma4",
        };
        let vocabulary = Vocabulary::from_files(&files, architecture.vocabulary_size)?;
        let by_bytes = matches!(vocabulary.pieces, Pieces::Bytes { .. });
        if by_bytes && vocabulary.pieces.have_space_prefix() {
            notes.push(SPACE_PREFIX_NOTE.to_owned());
        }
        vocabulary.write(&mut builder);
    }
    let metadata = builder.finish().map_err(keys::refuse)?;
    Ok(GgufComposition { metadata, tensors, notes })
}

fn pretty(map: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(map).expect("plain data")
}

/// How the keys end that say how many features networks have.
const WIDTHS: [&str; 4] = [
    ".feed_forward_length",
    ".expert_feed_forward_length",
    ".expert_shared_feed_forward_length",
    ".expert_shared_count",
];

/// What llama.cpp does otherwise than a tokenizer with a space before the text.
const SPACE_PREFIX_NOTE: &str = "the tokenizer puts a space before a text, and llama.cpp does not for this kind of \
     vocabulary: begin prompts with a space there for the same tokens";

/// The plain type that comes nearest to how the matrices are stored.
fn weight_type(checkpoint: &Checkpoint) -> &'static str {
    let formats = || {
        let matrices = checkpoint.tensors().filter(|tensor| tensor.shape.len() > 1);
        matrices.map(|tensor| tensor.format)
    };
    if formats().any(|format| format == "BF16") {
        "bfloat16"
    } else if formats().all(|format| format == "F32") {
        "float32"
    } else {
        "float16"
    }
}

/// The settings for generation: what ends an answer, and how the publisher would sample.
fn generation(vocabulary: &Vocabulary, metadata: &GgufMetadata) -> Map<String, Value> {
    let mut settings = Map::new();
    for (key, id) in vocabulary.special_ids() {
        settings.insert(key.to_owned(), id);
    }
    let mut sampled = false;
    for (from, to) in [
        ("general.sampling.temp", "temperature"),
        ("general.sampling.top_p", "top_p"),
        ("general.sampling.top_k", "top_k"),
    ] {
        // What is no number says nothing about the model.
        if let Ok(Some(number)) = metadata.f64(from) {
            let number = config::short(number);
            let whole = to == "top_k" && number >= 0.0;
            settings
                .insert(to.to_owned(), if whole { json!(number as u64) } else { json!(number) });
            sampled = true;
        }
    }
    if sampled {
        settings.insert("do_sample".to_owned(), json!(true));
    }
    settings
}
