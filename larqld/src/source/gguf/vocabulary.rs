//! The vocabulary of a GGUF file: tokens with their kinds, how they are put together, which are special.
//!
//! [`Vocabulary::read`] takes it from metadata and [`Vocabulary::write`] puts it there, as llama.cpp's
//! converter does; `tokenizer` turns it into the files of the hub and back. Defaults of absent keys are
//! llama.cpp's, because they decide what that program does with the same file.

use larql_storage::checkpoint::gguf::{
    GgufMetadata, GgufMetadataBuilder, MetadataTypeError, Value,
};

use super::keys::refuse;
use super::pre_tokenizers::PreTokenizer;
use crate::failure::Failure;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    /// What stands for everything that has no token.
    Unknown,
    /// Never part of a text.
    Control,
    /// Found in a text as it is, before anything else.
    UserDefined,
    /// A row of the matrix without a text.
    Unused,
    /// One byte of a character without a token.
    Byte,
}

impl TokenKind {
    const NUMBERS: [(i64, Self); 6] = [
        (1, Self::Normal),
        (2, Self::Unknown),
        (3, Self::Control),
        (4, Self::UserDefined),
        (5, Self::Unused),
        (6, Self::Byte),
    ];

    fn from_number(number: i64) -> Option<Self> {
        Self::NUMBERS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
    }

    fn number(self) -> i32 {
        let found = Self::NUMBERS.iter().find(|(_, kind)| *kind == self);
        found.expect("every kind has a number").0 as i32
    }
}

/// How pieces are put together to tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pieces {
    /// Bytes as visible characters, merged in the order of `merges` (GPT-2).
    /// llama.cpp knows `space_prefix` and puts no space before a text of such a vocabulary.
    Bytes { pre: &'static str, merges: Vec<(String, String)>, space_prefix: bool },
    /// Characters, merged to the token of the best score first (SentencePiece).
    Scored { scores: Vec<f32>, space_prefix: bool },
    /// Characters with spaces as `▁`, merged in the order of `merges` (Gemma 4).
    Characters { merges: Vec<(String, String)> },
}

impl Pieces {
    /// Whether a space goes before a text that begins without one.
    pub(super) fn have_space_prefix(&self) -> bool {
        match self {
            Self::Bytes { space_prefix, .. } | Self::Scored { space_prefix, .. } => *space_prefix,
            Self::Characters { .. } => false,
        }
    }
}

/// A vocabulary with its special tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<TokenKind>,
    pub(super) pieces: Pieces,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// Further tokens that end an answer.
    pub(super) ends: Vec<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    pub(super) chat_template: Option<String>,
}

/// Keys about the vocabulary that say nothing to how text becomes tokens here.
const WITHOUT_EFFECT: &[&str] = &[
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.suppress_tokens",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.huggingface.json",
    "tokenizer.chat_templates",
];

/// Tokens that end an answer in the families' chat formats, as llama.cpp knows them by text.
const ENDS_OF_TURN: &[&str] = &[
    "<eos>",
    "<|tool_response>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
];

impl Vocabulary {
    /// Reads the vocabulary; `None` for a file without one.
    ///
    /// # Errors
    /// A failure that names the key, when something is missing, contradictory or not understood.
    pub(super) fn read(metadata: &GgufMetadata) -> Result<Option<Self>, Failure> {
        let wrong = |error: MetadataTypeError| refuse(error.to_string());
        let Some(model) = metadata.text("tokenizer.ggml.model").map_err(wrong)? else {
            return Ok(None);
        };
        if model == "none" || model == "no_vocab" {
            return Ok(None);
        }
        check_keys(metadata)?;
        let tokens = tokens(metadata)?;
        let kinds = kinds(metadata, tokens.len())?;
        let mut defaults = Defaults::of(model);
        let pieces = match model {
            "llama" => {
                let prefix = metadata.bool("tokenizer.ggml.add_space_prefix").map_err(wrong)?;
                let scores = scores(metadata, tokens.len())?;
                Pieces::Scored { scores, space_prefix: prefix.unwrap_or(true) }
            }
            "gpt2" => {
                let pre = metadata.text("tokenizer.ggml.pre").map_err(wrong)?.unwrap_or("default");
                let known = PreTokenizer::named(pre).ok_or_else(|| {
                    refuse(format!("tokenizer.ggml.pre {pre:?} is not one that this build knows"))
                })?;
                defaults.add_bos = known.add_bos;
                let name = known.names.iter().find(|name| **name == pre);
                let pre = name.expect("found by this name");
                let prefix = metadata.bool("tokenizer.ggml.add_space_prefix").map_err(wrong)?;
                let space_prefix = prefix == Some(true) && known.has_no_cuts();
                Pieces::Bytes { pre, merges: merges(metadata)?, space_prefix }
            }
            "gemma4" => Pieces::Characters { merges: merges(metadata)? },
            other => {
                let message =
                    format!("tokenizer.ggml.model {other:?} is not one that this build knows");
                return Err(refuse(message));
            }
        };
        let id = |key: &str, default: Option<u32>| -> Result<Option<u32>, Failure> {
            let key = format!("tokenizer.ggml.{key}_token_id");
            match metadata.u64(&key).map_err(wrong)? {
                None => Ok(default.filter(|&id| (id as usize) < tokens.len())),
                Some(id) => match u32::try_from(id) {
                    Ok(id) if (id as usize) < tokens.len() => Ok(Some(id)),
                    _ => {
                        Err(refuse(format!("{key} is {id}, and there are {} tokens", tokens.len())))
                    }
                },
            }
        };
        let flag = |key: &str, default: bool| -> Result<bool, Failure> {
            Ok(metadata.bool(&format!("tokenizer.ggml.{key}")).map_err(wrong)?.unwrap_or(default))
        };
        let eos = id("eos", defaults.eos)?;
        let mut ends: Vec<u32> = Vec::new();
        for key in ["eot", "eom"] {
            ends.extend(id(key, None)?);
        }
        let by_text = |(_, (token, kind)): &(usize, (&String, &TokenKind))| {
            matches!(kind, TokenKind::Control | TokenKind::UserDefined)
                && ENDS_OF_TURN.contains(&token.as_str())
        };
        let of_turns = tokens.iter().zip(&kinds).enumerate().filter(by_text);
        ends.extend(of_turns.map(|(id, _)| id as u32));
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| Some(*end) != eos);
        Ok(Some(Self {
            bos: id("bos", defaults.bos)?,
            eos,
            ends,
            unknown: id("unknown", defaults.unknown)?,
            padding: id("padding", None)?,
            // llama.cpp adds it to texts of Gemma 4 even where the file says not to.
            add_bos: flag("add_bos_token", defaults.add_bos)?
                || matches!(pieces, Pieces::Characters { .. }),
            add_eos: flag("add_eos_token", false)?,
            chat_template: metadata.text("tokenizer.chat_template").map_err(wrong)?.map(Into::into),
            tokens,
            kinds,
            pieces,
        }))
    }

    /// Writes the vocabulary as llama.cpp's converter does.
    pub(super) fn write(&self, metadata: &mut GgufMetadataBuilder) {
        let (model, pre) = match &self.pieces {
            Pieces::Bytes { pre, .. } => ("gpt2", Some(*pre)),
            Pieces::Scored { .. } => ("llama", Some("default")),
            // The model says it all.
            Pieces::Characters { .. } => ("gemma4", None),
        };
        metadata.text("tokenizer.ggml.model", model);
        if let Some(pre) = pre {
            metadata.text("tokenizer.ggml.pre", pre);
        }
        metadata.array("tokenizer.ggml.tokens", self.tokens.iter().map(|token| string(token)));
        match &self.pieces {
            Pieces::Bytes { merges, .. } => write_merges(metadata, merges),
            Pieces::Characters { merges } => {
                // llama.cpp's converter gives each token of such a vocabulary this score.
                let scores = self.tokens.iter().map(|_| Value::F32(-1000.0));
                metadata.array("tokenizer.ggml.scores", scores);
                write_merges(metadata, merges);
            }
            Pieces::Scored { scores, .. } => {
                metadata.array("tokenizer.ggml.scores", scores.iter().copied().map(Value::F32));
            }
        }
        let kinds = self.kinds.iter().map(|kind| Value::I32(kind.number()));
        metadata.array("tokenizer.ggml.token_type", kinds);
        for (key, id) in [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unknown),
            ("padding", self.padding),
        ] {
            if let Some(id) = id {
                metadata.value(&format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
            }
        }
        metadata.value("tokenizer.ggml.add_bos_token", Value::Bool(self.add_bos));
        metadata.value("tokenizer.ggml.add_eos_token", Value::Bool(self.add_eos));
        let space_prefix = self.pieces.have_space_prefix();
        metadata.value("tokenizer.ggml.add_space_prefix", Value::Bool(space_prefix));
        if let Some(template) = &self.chat_template {
            metadata.text("tokenizer.chat_template", template);
        }
    }
}

fn string(text: &str) -> Value<'_> {
    Value::String(text.as_bytes())
}

fn write_merges(metadata: &mut GgufMetadataBuilder, merges: &[(String, String)]) {
    let merges: Vec<String> =
        merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    metadata.array("tokenizer.ggml.merges", merges.iter().map(|merge| string(merge)));
}

/// What llama.cpp takes where a file is silent.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    add_bos: bool,
}

impl Defaults {
    fn of(model: &str) -> Self {
        match model {
            "llama" => Self { bos: Some(1), eos: Some(2), unknown: Some(0), add_bos: true },
            "gemma4" => Self { bos: None, eos: None, unknown: None, add_bos: true },
            _ => Self { bos: Some(11), eos: Some(11), unknown: None, add_bos: false },
        }
    }
}

/// Keys that decide how text becomes tokens.
const READ: &[&str] = &[
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
];

fn check_keys(metadata: &GgufMetadata) -> Result<(), Failure> {
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        let known = READ.contains(&key)
            || WITHOUT_EFFECT.contains(&key)
            || key.starts_with("tokenizer.chat_template.")
            // Only Unigram vocabularies look at it, and those are refused.
            || key == "tokenizer.ggml.remove_extra_whitespaces";
        if !known {
            let message = format!(
                "metadata {key} = {value} is not understood, and it could change the tokens of a text"
            );
            return Err(refuse(message));
        }
    }
    Ok(())
}

/// Every element of an array, read by `read`.
fn array<T>(
    metadata: &GgufMetadata,
    key: &str,
    read: impl Fn(Value<'_>) -> Option<T>,
) -> Result<Option<Vec<T>>, Failure> {
    let Some(array) = metadata.array(key).map_err(|error| refuse(error.to_string()))? else {
        return Ok(None);
    };
    let wrong = |at| refuse(format!("metadata {key} holds something else at position {at}"));
    array.typed(read).map(|value| value.map_err(wrong)).collect::<Result<_, _>>().map(Some)
}

fn tokens(metadata: &GgufMetadata) -> Result<Vec<String>, Failure> {
    let key = "tokenizer.ggml.tokens";
    let tokens = array(metadata, key, |value| value.as_text().map(str::to_owned))?
        .ok_or_else(|| refuse(format!("the metadata has no {key}")))?;
    if u32::try_from(tokens.len()).is_err() {
        return Err(refuse(format!("{} tokens are more than ids can number", tokens.len())));
    }
    // An empty text is no token; llama.cpp calls it so.
    let named = |(id, token): (usize, String)| {
        if token.is_empty() { format!("[EMPTY_{id}]") } else { token }
    };
    Ok(tokens.into_iter().enumerate().map(named).collect())
}

fn kinds(metadata: &GgufMetadata, tokens: usize) -> Result<Vec<TokenKind>, Failure> {
    let key = "tokenizer.ggml.token_type";
    let Some(numbers) = array(metadata, key, |value| value.as_i64())? else {
        return Ok(vec![TokenKind::Normal; tokens]);
    };
    same_length(key, numbers.len(), tokens)?;
    let kind = |(id, &number): (usize, &i64)| {
        TokenKind::from_number(number)
            .ok_or_else(|| refuse(format!("token {id} has the unknown type {number}")))
    };
    numbers.iter().enumerate().map(kind).collect()
}

fn scores(metadata: &GgufMetadata, tokens: usize) -> Result<Vec<f32>, Failure> {
    let key = "tokenizer.ggml.scores";
    let scores = array(metadata, key, |value| value.as_f64().map(|score| score as f32))?
        .ok_or_else(|| refuse(format!("the metadata has no {key}")))?;
    same_length(key, scores.len(), tokens)?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(id) => Err(refuse(format!("the score of token {id} is not a number"))),
        None => Ok(scores),
    }
}

fn same_length(key: &str, found: usize, tokens: usize) -> Result<(), Failure> {
    if found == tokens {
        return Ok(());
    }
    Err(refuse(format!("{key} has {found} entries for {tokens} tokens")))
}

fn merges(metadata: &GgufMetadata) -> Result<Vec<(String, String)>, Failure> {
    let key = "tokenizer.ggml.merges";
    let merges = array(metadata, key, |value| value.as_text().map(str::to_owned))?
        .ok_or_else(|| refuse(format!("the metadata has no {key}")))?;
    let parts = |(at, merge): (usize, String)| {
        // The first half may be a space itself, never the second's first character.
        let space = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
        match space.map(|(at, _)| (&merge[..at], &merge[at + 1..])) {
            Some((left, right)) if !right.is_empty() => Ok((left.to_owned(), right.to_owned())),
            _ => Err(refuse(format!("merge {at} is {merge:?}, which is not two pieces"))),
        }
    };
    merges.into_iter().enumerate().map(parts).collect()
}
