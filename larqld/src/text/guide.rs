//! Constrained text: which tokens may come next under a JSON schema or a grammar.
//!
//! The grammar engine is `llguidance`; this file gives it the model's own tokens as bytes, bounds what
//! a schema may cost, and says in our words what it refuses. A schema comes from a client, so that
//! its size, its nesting, the memory of its automaton and the work of each step are limited, and it is
//! compiled on a stack of its own.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::Value;

use super::token_bytes::TokenBytes;
use super::tokenizer::{TextError, Tokenizer};

/// Bytes of a schema or grammar.
pub const CONSTRAINT_BYTES_MAX: usize = 256 << 10;
/// How deep brackets may nest in one.
pub const CONSTRAINT_DEPTH_MAX: usize = 64;
/// Bytes of the stack that compiles one.
const STACK_BYTES: usize = 64 << 20;
/// White space that a JSON text may have at one place: a space or tab, or a new line with its
/// indentation. A model that has nothing to say could otherwise write white space for ever.
const WHITE_SPACE: &str = "[ \\t]|\\n[ \\t]{0,32}";
/// Bounds of work and memory: the automaton's states take 1 to 2 KiB each.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    max_lexer_states: 50_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: false,
    verbose_errors: false,
};

/// What a text has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// A JSON text that this schema describes.
    JsonSchema(String),
    /// A text that this grammar derives, in llguidance's variant of Lark.
    Grammar(String),
}

/// Why a constraint cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuideError {
    /// The schema or grammar is too large.
    #[error("the {kind} has {bytes} bytes: at most {CONSTRAINT_BYTES_MAX}")]
    TooLarge {
        /// `JSON schema` or `grammar`.
        kind: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Its brackets nest too deeply.
    #[error("the {kind} nests deeper than {CONSTRAINT_DEPTH_MAX}")]
    TooDeep {
        /// `JSON schema` or `grammar`.
        kind: &'static str,
    },
    /// It is not one, or asks for what is not served.
    #[error("the {kind} cannot be used: {reason}")]
    Unusable {
        /// `JSON schema` or `grammar`.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Following it takes too much.
    #[error("the constraint takes more work or memory than is allowed: {0}")]
    Limit(String),
    /// The tokenizer's tokens have no bytes.
    #[error("this model's text cannot be constrained: {0}")]
    Tokenizer(String),
}

impl GuideError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::TooDeep { .. } => "describe the answer by less",
            Self::Unusable { kind: "grammar", .. } => {
                "the grammar is Lark with `start` as its first rule, as llguidance documents it"
            }
            Self::Unusable { .. } => {
                "type, properties, required, items, enum, const, anyOf, $ref within the schema, \
                 bounds and patterns are served"
            }
            Self::Limit(_) => "bound strings and arrays, and name fewer alternatives",
            Self::Tokenizer(_) => "leave the schema or grammar out",
        }
    }
}

/// Makes guides for one vocabulary.
pub struct Guides {
    factory: ParserFactory,
    /// A token beyond the vocabulary that stands for the end of the text.
    end: u32,
    /// The model's own end tokens.
    ends: Vec<u32>,
}

impl std::fmt::Debug for Guides {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guides").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Guides {
    /// Reads a tokenizer's vocabulary, in which `ends` are the tokens that end a text.
    ///
    /// # Errors
    /// [`GuideError::Tokenizer`].
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self, GuideError> {
        let refused = |error: TextError| GuideError::Tokenizer(error.to_string());
        // A byte that no UTF-8 text has marks control tokens for the engine.
        const MARK: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
        let bytes = |token| match token {
            TokenBytes::Text(bytes) if bytes.contains(&MARK) => Vec::new(),
            TokenBytes::Text(bytes) => bytes,
            TokenBytes::Control(name) => [&[MARK], name.as_bytes()].concat(),
            TokenBytes::Unused => Vec::new(),
        };
        let mut words: Vec<Vec<u8>> =
            tokenizer.token_bytes().map_err(refused)?.into_iter().map(bytes).collect();
        let end = words.len() as u32;
        let ends: Vec<u32> = ends.iter().copied().filter(|&id| id < end).collect();
        // Whatever the tokenizer calls them, these end the text and are no part of it.
        for &id in &ends {
            words[id as usize].clear();
        }
        words.push([&[MARK], &b"end of text"[..]].concat());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment)
            .map_err(|error| GuideError::Tokenizer(one_line(&error.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Self { factory, end, ends })
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// All but [`GuideError::Tokenizer`].
    pub fn guide(&self, constraint: &Constraint) -> Result<Guide, GuideError> {
        let (kind, text) = match constraint {
            Constraint::JsonSchema(text) => ("JSON schema", text),
            Constraint::Grammar(text) => ("grammar", text),
        };
        if text.len() > CONSTRAINT_BYTES_MAX {
            return Err(GuideError::TooLarge { kind, bytes: text.len() });
        }
        if depth(text) > CONSTRAINT_DEPTH_MAX {
            return Err(GuideError::TooDeep { kind });
        }
        let unusable = |reason: &str| GuideError::Unusable { kind, reason: one_line(reason) };
        let grammar = match constraint {
            Constraint::JsonSchema(text) => TopLevelGrammar::from_json_schema(
                json_schema(text).map_err(|reason| unusable(&reason))?,
            ),
            Constraint::Grammar(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let compile = || Matcher::new(self.factory.create_parser(grammar));
        let made = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar".to_owned());
            thread.stack_size(STACK_BYTES).spawn_scoped(scope, compile).map(|thread| thread.join())
        });
        let mut matcher = match made {
            Ok(Ok(matcher)) => matcher,
            Ok(Err(_)) => return Err(unusable("it makes the grammar engine fail")),
            Err(error) => return Err(GuideError::Limit(error.to_string())),
        };
        if let Some(error) = matcher.get_error() {
            return Err(unusable(&error));
        }
        // What is left out of a schema is not enforced, so it is not passed over.
        if let Some(warning) = matcher.grammar_warnings().first() {
            return Err(unusable(warning));
        }
        let mut guide = Guide { matcher, end: self.end, ends: self.ends.clone(), allowed: None };
        match guide.allowed() {
            Ok(_) => Ok(guide),
            // The engine's word for a state that nothing can follow.
            Err(GuideError::Limit(reason)) if reason.contains("NoExtensionBias") => {
                Err(unusable("no text fits it"))
            }
            Err(error) => Err(error),
        }
    }
}

/// The schema as the engine takes it.
fn json_schema(text: &str) -> Result<Value, String> {
    let mut schema = match serde_json::from_str(text) {
        Ok(Value::Bool(true)) => Value::Object(serde_json::Map::new()),
        Ok(schema @ Value::Object(_)) => schema,
        Ok(_) => return Err("it is no JSON object".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    if schema.get("x-guidance").is_some() {
        return Err("x-guidance is not a keyword of JSON Schema".to_owned());
    }
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.to_owned()),
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// How deep brackets nest, wherever they stand: more than the grammar's own depth, never less.
fn depth(text: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// The beginning of a message that may have many lines.
fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(300).collect()
}

/// One text that follows a constraint.
pub struct Guide {
    matcher: Matcher,
    end: u32,
    ends: Vec<u32>,
    allowed: Option<SimpleVob>,
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Guide").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Guide {
    /// Which tokens may come next, a bit for each; end tokens where the text may end here.
    ///
    /// # Errors
    /// [`GuideError::Limit`].
    pub fn allowed(&mut self) -> Result<&[u32], GuideError> {
        if self.allowed.is_none() {
            let mut allowed = self.matcher.compute_mask_or_eos().map_err(limit)?;
            if allowed.is_allowed(self.end) {
                self.ends.iter().for_each(|&end| allowed.allow_token(end));
            }
            self.allowed = Some(allowed);
        }
        Ok(self.allowed.as_ref().map_or(&[], SimpleVob::as_slice))
    }

    /// Takes note of the token that came, one of those that [`Guide::allowed`] allowed.
    ///
    /// # Errors
    /// [`GuideError::Limit`].
    pub fn accept(&mut self, token: u32) -> Result<(), GuideError> {
        self.allowed = None;
        self.matcher.consume_token(token).map_err(limit)
    }

    /// Whether the text is whole and nothing can follow.
    ///
    /// # Errors
    /// [`GuideError::Limit`].
    pub fn is_finished(&mut self) -> Result<bool, GuideError> {
        let (end, ends) = (self.end, self.ends.len());
        let allowed = self.allowed()?;
        // Only end tokens are left, the one that stands for the end among them.
        let count: u32 = allowed.iter().map(|word| word.count_ones()).sum();
        let may_end =
            allowed.get(end as usize / 32).is_some_and(|word| word >> (end % 32) & 1 == 1);
        Ok(self.matcher.is_stopped() || may_end && count as usize <= 1 + ends)
    }

    /// How many of `tokens` may come one after the other.
    pub fn agrees(&mut self, tokens: &[u32]) -> usize {
        self.matcher.validate_tokens(tokens).unwrap_or(0)
    }
}

fn limit(error: impl std::fmt::Display) -> GuideError {
    GuideError::Limit(one_line(&error.to_string()))
}
