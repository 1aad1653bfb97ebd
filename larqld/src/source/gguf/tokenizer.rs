//! A vocabulary of GGUF as the hub's files, `tokenizer.json` and `tokenizer_config.json`, and back.
//!
//! The texts made here are read by the same tokenizer as any checkpoint's own, so that a GGUF and the
//! checkpoint it was converted from give the same tokens. The way back is for writing GGUF; what a
//! `tokenizer.json` can say and GGUF cannot is refused by name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::keys::refuse;
use super::pre_tokenizers::{PreTokenizer, has_space_prefix};
use super::vocabulary::{Pieces, TokenKind, Vocabulary};
use crate::failure::Failure;

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";
/// Tokens of Gemma 4 around thoughts and calls. llama.cpp's converter makes them user-defined, so that
/// they are shown, and read by whoever looks for calls.
const CHANNELS: &[&str] = &[
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];
/// The longest token that scores may put together, in bytes. Real ones have up to a few dozen; the
/// work grows with the square.
const SCORED_BYTES_MAX: usize = 512;
/// Bytes of the merges that scores give, as a multiple of the vocabulary's own. Published
/// vocabularies have two or three ways to put a token together.
const MERGES_RATIO_MAX: usize = 16;
/// What a vocabulary may have beyond that ratio, for small ones.
const MERGES_BYTES_FREE: usize = 1 << 20;

/// A `tokenizer.json`. It is written piece by piece: as a tree of values a vocabulary takes many times its
/// size.
#[derive(Serialize)]
struct TokenizerText<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: ModelText<'a>,
}

/// The part of a `tokenizer.json` that puts pieces together.
#[derive(Serialize)]
struct ModelText<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: VocabularyText<'a>,
    merges: &'a [(String, String)],
}

/// Tokens with their ids.
struct VocabularyText<'a>(&'a [String]);

impl Serialize for VocabularyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0_u32..))
    }
}

impl Vocabulary {
    /// The text of `tokenizer.json`.
    ///
    /// # Errors
    /// When two tokens have one text, or one that is merged is too long.
    pub(super) fn tokenizer_json(&self) -> Result<Vec<u8>, Failure> {
        let mut ids: HashMap<&str, u32> = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token, id as u32) {
                return Err(refuse(format!("the tokens {first} and {id} are both {token:?}")));
            }
        }
        let unknown = self.unknown.map(|id| &self.tokens[id as usize]);
        let merges: Cow<'_, [(String, String)]> = match &self.pieces {
            Pieces::Bytes { merges, .. } | Pieces::Characters { merges } => merges.into(),
            Pieces::Scored { scores, .. } => self.merges_by_score(scores)?.into(),
        };
        let by_characters = !matches!(self.pieces, Pieces::Bytes { .. });
        let pre = match &self.pieces {
            Pieces::Bytes { pre, .. } => PreTokenizer::named(pre),
            Pieces::Scored { .. } | Pieces::Characters { .. } => None,
        };
        let space_prefix = matches!(self.pieces, Pieces::Scored { space_prefix: true, .. });
        let text = TokenizerText {
            version: "1.0",
            truncation: (),
            padding: (),
            added_tokens: self.added_tokens(),
            normalizer: match pre {
                Some(pre) if pre.composed => json!({"type": "NFC"}),
                Some(_) => Value::Null,
                None => spaces_marked(space_prefix),
            },
            pre_tokenizer: pre.map_or(Value::Null, |pre| pre.json(self.pieces.have_space_prefix())),
            post_processor: self.post_processor(),
            decoder: match pre {
                Some(_) => json!({
                    "type": "ByteLevel",
                    "add_prefix_space": true,
                    "trim_offsets": true,
                    "use_regex": true,
                }),
                None => spaces_shown(space_prefix),
            },
            model: ModelText {
                kind: "BPE",
                dropout: (),
                unk_token: unknown.filter(|_| by_characters).map(String::as_str),
                continuing_subword_prefix: (),
                end_of_word_suffix: (),
                fuse_unk: by_characters,
                byte_fallback: by_characters,
                ignore_merges: pre.is_some_and(|pre| pre.ignore_merges),
                vocab: VocabularyText(&self.tokens),
                merges: &merges,
            },
        };
        let mut text = serde_json::to_vec(&text).expect("plain data");
        // It is kept as long as the model is.
        text.shrink_to_fit();
        Ok(text)
    }

    /// Tokens that are found in a text as they are, before merges.
    fn added_tokens(&self) -> Vec<Value> {
        let found = self.tokens.iter().zip(&self.kinds).enumerate();
        found
            .filter_map(|(id, (token, kind))| {
                let special = match kind {
                    TokenKind::Control | TokenKind::Unknown => true,
                    TokenKind::UserDefined => false,
                    TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
                };
                Some(json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": special,
                }))
            })
            .collect()
    }

    /// What goes around a text.
    fn post_processor(&self) -> Value {
        let bos = self.bos.filter(|_| self.add_bos).map(|id| &self.tokens[id as usize]);
        let eos = self.eos.filter(|_| self.add_eos).map(|id| &self.tokens[id as usize]);
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let around = |sequence: &str, number: u32| -> Vec<Value> {
            let special =
                |token: &String| json!({"SpecialToken": {"id": token, "type_id": number}});
            let text = json!({"Sequence": {"id": sequence, "type_id": number}});
            bos.map(special).into_iter().chain([text]).chain(eos.map(special)).collect()
        };
        let tokens: Map<String, Value> = [(bos, self.bos), (eos, self.eos)]
            .into_iter()
            .filter_map(|(token, id)| Some((token?, id?)))
            .map(|(token, id)| {
                (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}))
            })
            .collect();
        let pair: Vec<Value> = [around("A", 0), around("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": tokens,
        })
    }

    /// The merges that give what scores give: the best token first, whatever it is made of.
    fn merges_by_score(&self, scores: &[f32]) -> Result<Vec<(String, String)>, Failure> {
        let mergeable =
            |id: &usize| matches!(self.kinds[*id], TokenKind::Normal | TokenKind::UserDefined);
        let ids = || (0..self.tokens.len()).filter(mergeable);
        let pieces: HashMap<&str, usize> = ids().map(|id| (self.tokens[id].as_str(), id)).collect();
        let mut order: Vec<usize> = ids().collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let own_bytes: usize = self.tokens.iter().map(String::len).sum();
        let most = own_bytes.saturating_mul(MERGES_RATIO_MAX).saturating_add(MERGES_BYTES_FREE);
        let (mut merges, mut bytes) = (Vec::new(), 0);
        for id in order {
            let token = &self.tokens[id];
            let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let known = splits
                .filter(|(left, right)| pieces.contains_key(left) && pieces.contains_key(right));
            if token.len() > SCORED_BYTES_MAX {
                let bytes = token.len();
                return Err(refuse(format!(
                    "token {id} has {bytes} bytes, the most is {SCORED_BYTES_MAX}"
                )));
            }
            let before = merges.len();
            merges.extend(known.map(|(left, right)| (left.to_owned(), right.to_owned())));
            bytes += (merges.len() - before) * token.len();
            if bytes > most {
                return Err(refuse(format!(
                    "the merges of the tokens by tokenizer.ggml.scores take more than {most} bytes, \
                     the tokens themselves {own_bytes}"
                )));
            }
        }
        Ok(merges)
    }

    /// The text of `tokenizer_config.json`.
    pub(super) fn tokenizer_config(&self, context: u64) -> Vec<u8> {
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        config.insert("model_max_length".into(), json!(context));
        config.insert("clean_up_tokenization_spaces".into(), json!(false));
        config.insert("add_bos_token".into(), json!(self.add_bos));
        config.insert("add_eos_token".into(), json!(self.add_eos));
        for (name, id) in [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ] {
            if let Some(id) = id {
                config.insert(name.into(), json!(self.tokens[id as usize]));
            }
        }
        if let Some(template) = &self.chat_template {
            config.insert("chat_template".into(), json!(template));
        }
        serde_json::to_vec_pretty(&config).expect("plain data")
    }

    /// The ids that `config.json` and `generation_config.json` name; the tokens that end an answer
    /// are a list there.
    pub(super) fn special_ids(&self) -> BTreeMap<&'static str, Value> {
        let ends: Vec<u32> = self.eos.into_iter().chain(self.ends.iter().copied()).collect();
        let mut ids = BTreeMap::new();
        ids.extend(self.bos.map(|id| ("bos_token_id", json!(id))));
        ids.extend(self.padding.map(|id| ("pad_token_id", json!(id))));
        match ends[..] {
            [] => {}
            [end] => drop(ids.insert("eos_token_id", json!(end))),
            _ => drop(ids.insert("eos_token_id", json!(ends))),
        }
        ids
    }

    /// Takes a vocabulary of `size` ids from the files of a checkpoint.
    ///
    /// # Errors
    /// A failure that names what GGUF has no word for.
    pub(super) fn from_files(files: &TokenizerFiles<'_>, size: usize) -> Result<Self, Failure> {
        let text: Value = parse("tokenizer.json", files.tokenizer)?;
        let config: Value = match files.config {
            Some(bytes) => parse("tokenizer_config.json", bytes)?,
            None => Value::Null,
        };
        let model = &text["model"];
        if model["type"] != "BPE" {
            let message = format!("GGUF is not written for a tokenizer of type {}", model["type"]);
            return Err(refuse(message));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
            if !matches!(&model[key], Value::Null) && model[key] != "" {
                return Err(refuse(format!("GGUF has no word for a tokenizer's {key}")));
            }
        }
        let mut vocabulary = Self {
            tokens: vec![String::new(); size],
            kinds: vec![TokenKind::Unused; size],
            pieces: pieces(&text, files.merges_characters)?,
            bos: None,
            eos: None,
            ends: Vec::new(),
            unknown: None,
            padding: None,
            add_bos: false,
            add_eos: false,
            chat_template: files.chat_template.map(str::to_owned),
        };
        vocabulary.place_tokens(&text)?;
        let ids: HashMap<&str, u32> =
            vocabulary.tokens.iter().enumerate().map(|(id, token)| (&**token, id as u32)).collect();
        let special = |name: &str| {
            let named = &config[name];
            let token = named.as_str().or(named["content"].as_str())?;
            ids.get(token).copied()
        };
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let unknown =
            special("unk_token").or_else(|| ids.get(model["unk_token"].as_str()?).copied());
        let padding = special("pad_token");
        let (bos, eos) = (bos.or(files.bos), eos.or(files.eos));
        let around = template(&text["post_processor"], &ids)?;
        // llama.cpp begins every text of such a model with BOS, whatever the file says.
        let always = matches!(vocabulary.pieces, Pieces::Characters { .. });
        let add_bos = bos.is_some() && (always || around.0 == bos);
        let add_eos = eos.is_some() && around.1 == eos;
        if (around.0.is_some() && !add_bos) || (around.1.is_some() && !add_eos) {
            let message = "tokenizer.json puts other tokens around a text than BOS and EOS";
            return Err(refuse(message));
        }
        drop(ids);
        if let Pieces::Scored { scores, .. } = &mut vocabulary.pieces {
            *scores = scores_of_merges(&vocabulary.tokens, &model["merges"])?;
        }
        if let (Some(id), Pieces::Scored { .. }) = (unknown, &vocabulary.pieces) {
            vocabulary.kinds[id as usize] = TokenKind::Unknown;
        }
        Ok(Self { bos, eos, unknown, padding, add_bos, add_eos, ..vocabulary })
    }

    /// Puts every token of a `tokenizer.json` at its id; ids without one are unused.
    fn place_tokens(&mut self, text: &Value) -> Result<(), Failure> {
        let size = self.tokens.len();
        let characters = !matches!(self.pieces, Pieces::Bytes { .. });
        let mut place = |token: &str, id: &Value, kind: TokenKind| -> Result<(), Failure> {
            let at = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < size);
            let Some(at) = at else {
                let message =
                    format!("tokenizer.json gives {token:?} the id {id}, and the model has {size}");
                return Err(refuse(message));
            };
            self.tokens[at] = token.to_owned();
            self.kinds[at] = kind;
            Ok(())
        };
        let vocabulary = text["model"]["vocab"].as_object();
        let vocabulary = vocabulary.ok_or_else(|| refuse("tokenizer.json has no vocabulary"))?;
        for (token, id) in vocabulary {
            let byte = characters && token.len() == 6 && token.starts_with("<0x");
            place(token, id, if byte { TokenKind::Byte } else { TokenKind::Normal })?;
        }
        let merged = matches!(self.pieces, Pieces::Characters { .. });
        for token in text["added_tokens"].as_array().into_iter().flatten() {
            let special = token["special"] == true;
            let content = token["content"].as_str().unwrap_or_default();
            let kind = match special && !(merged && CHANNELS.contains(&content)) {
                true => TokenKind::Control,
                // What merges make is found there, as spaces are marked by then.
                false if merged && content.contains(SPACE) => TokenKind::Normal,
                false => TokenKind::UserDefined,
            };
            // llama.cpp looks for user-defined tokens in the text before spaces are marked.
            let content = match kind {
                TokenKind::UserDefined if characters => content.replace(SPACE, " "),
                _ => content.to_owned(),
            };
            place(&content, &token["id"], kind)?;
        }
        for (id, token) in self.tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty())
        {
            *token = format!("[PAD{id}]");
        }
        Ok(())
    }
}

/// The files of a checkpoint that say how text becomes tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub(super) tokenizer: &'a [u8],
    /// `tokenizer_config.json`.
    pub(super) config: Option<&'a [u8]>,
    /// The chat template, from whichever file has it.
    pub(super) chat_template: Option<&'a str>,
    /// The BOS id of `config.json`.
    pub(super) bos: Option<u32>,
    /// The EOS id of `config.json`.
    pub(super) eos: Option<u32>,
    /// Whether llama.cpp reads merges of characters of this model (Gemma 4), and not scores.
    pub(super) merges_characters: bool,
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| refuse(format!("{name}: {error}")))
}

/// Spaces become `▁`, and one goes before the text where the family wants it.
fn spaces_marked(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if !prefix {
        return replace;
    }
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    json!({"type": "Sequence", "normalizers": [prepend, replace]})
}

fn spaces_shown(prefix: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// How a `tokenizer.json` puts pieces together. Scores are left for later: they need every token.
fn pieces(text: &Value, merges_characters: bool) -> Result<Pieces, Failure> {
    let (model, normalizer, pre) = (&text["model"], &text["normalizer"], &text["pre_tokenizer"]);
    let ignore_merges = model["ignore_merges"] == true;
    if model["byte_fallback"] != true {
        let composed = normalizer["type"] == "NFC";
        let known = PreTokenizer::matching(pre, composed, ignore_merges)
            .ok_or_else(|| refuse("GGUF has no name for the pre-tokenizer of tokenizer.json"))?;
        if !(normalizer.is_null() || composed || is_empty_sequence(normalizer)) {
            return Err(refuse(format!(
                "GGUF has no word for the normalizer {}",
                normalizer["type"]
            )));
        }
        return Ok(Pieces::Bytes {
            pre: known.names[0],
            merges: merges(&model["merges"])?,
            space_prefix: has_space_prefix(pre),
        });
    }
    let metaspace = pre["type"] == "Metaspace" && pre["split"] == false;
    let space_prefix = if metaspace {
        normalizer.is_null().then(|| pre["prepend_scheme"] != "never")
    } else {
        // Cutting at spaces after all spaces are marked cuts nothing.
        let cuts = !pre.is_null() && pre["pattern"]["String"] != " ";
        [true, false].into_iter().find(|&prefix| *normalizer == spaces_marked(prefix) && !cuts)
    };
    match space_prefix {
        // Such a vocabulary has no word for a space before the text.
        Some(false) if merges_characters => {
            Ok(Pieces::Characters { merges: merges(&model["merges"])? })
        }
        Some(space_prefix) => Ok(Pieces::Scored { scores: Vec::new(), space_prefix }),
        None => {
            Err(refuse("GGUF has no word for the normalizer and pre-tokenizer of tokenizer.json"))
        }
    }
}

fn is_empty_sequence(normalizer: &Value) -> bool {
    normalizer["normalizers"].as_array().is_some_and(Vec::is_empty)
}

/// Merges, in either of the forms that `tokenizer.json` has had.
fn merges(merges: &Value) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |at: usize| refuse(format!("merge {at} of tokenizer.json is not two pieces"));
    let merge = |(at, merge): (usize, &Value)| {
        let parts = match merge {
            Value::String(text) => text.split_once(' '),
            _ => merge[0].as_str().zip(merge[1].as_str()),
        };
        parts.map(|(left, right)| (left.to_owned(), right.to_owned())).ok_or_else(|| wrong(at))
    };
    merges.as_array().into_iter().flatten().enumerate().map(merge).collect()
}

/// Scores that put together what merges put together: the earlier a token's merge, the better.
fn scores_of_merges(tokens: &[String], listed: &Value) -> Result<Vec<f32>, Failure> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges(listed)?.into_iter().enumerate() {
        ranks.entry(left + &right).or_insert(rank);
    }
    Ok(tokens.iter().map(|token| ranks.get(token).map_or(0.0, |&rank| -(rank as f32))).collect())
}

/// The tokens that a post-processor puts before and behind a text.
fn template(
    post_processor: &Value,
    ids: &HashMap<&str, u32>,
) -> Result<(Option<u32>, Option<u32>), Failure> {
    let steps = match post_processor["processors"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(post_processor),
    };
    let Some(template) = steps.iter().find(|step| step["type"] == "TemplateProcessing") else {
        return Ok((None, None));
    };
    let single = template["single"].as_array().map(Vec::as_slice).unwrap_or_default();
    let special = |item: &Value| {
        item["SpecialToken"]["id"].as_str().and_then(|token| ids.get(token).copied())
    };
    match single {
        [_] => Ok((None, None)),
        [first, text] if !text["Sequence"].is_null() => Ok((special(first), None)),
        [text, last] if !text["Sequence"].is_null() => Ok((None, special(last))),
        [first, _, last] => Ok((special(first), special(last))),
        _ => Err(refuse("tokenizer.json puts more than one token before or behind a text")),
    }
}
