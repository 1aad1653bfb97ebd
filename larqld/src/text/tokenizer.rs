//! A model's tokenizer: text to token ids and back, and the word that a token shows.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use tokenizers::models::bpe::BPE;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// Why text could not be turned into tokens or back.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// `tokenizer.json` is not one.
    #[error("tokenizer.json is not a tokenizer that this build reads: {0}")]
    Unreadable(String),
    /// The tokenizer refused.
    #[error("the tokenizer refused the text: {0}")]
    Refused(String),
    /// The tokenizer's model or rules panicked on this text.
    #[error("the tokenizer failed on this text")]
    Failed,
    /// Tokens do not stand for bytes.
    #[error("its tokenizer ({0}) does not say which bytes a token stands for")]
    NoBytes(String),
}

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// A hash of the file.
    fingerprint: u64,
    /// The word of each token, made when first asked for.
    words: Vec<OnceLock<Arc<str>>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("words", &self.words.len())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` for a model with that many token ids.
    ///
    /// # Errors
    /// [`TextError::Unreadable`] with the reason.
    pub fn from_bytes(bytes: &[u8], vocabulary_size: usize) -> Result<Self, TextError> {
        let made = std::panic::catch_unwind(|| read(bytes));
        let mut inner = made
            .map_err(|_| TextError::Unreadable("its rules are inconsistent".to_owned()))?
            .map_err(|error| TextError::Unreadable(error.to_string()))?;
        // A prompt is never cut or padded behind its user's back.
        inner.with_truncation(None).map_err(|error| TextError::Unreadable(error.to_string()))?;
        inner.with_padding(None);
        let mut words = Vec::new();
        words.resize_with(vocabulary_size, OnceLock::new);
        let mut fingerprint = DefaultHasher::new();
        bytes.hash(&mut fingerprint);
        Ok(Self { inner, fingerprint: fingerprint.finish(), words })
    }

    /// The token ids of `text`, with the tokens that the model expects around a text (such as BOS)
    /// when `special` is set.
    ///
    /// # Errors
    /// [`TextError::Refused`] with the tokenizer's reason.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        let run = std::panic::AssertUnwindSafe(|| self.inner.encode_fast(text, special));
        let encoding = std::panic::catch_unwind(run).map_err(|_| TextError::Failed)?;
        Ok(encoding.map_err(|error| TextError::Refused(error.to_string()))?.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens where `skip_special` is set.
    ///
    /// # Errors
    /// [`TextError::Refused`] with the tokenizer's reason.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let run = std::panic::AssertUnwindSafe(|| self.inner.decode(ids, skip_special));
        let text = std::panic::catch_unwind(run).map_err(|_| TextError::Failed)?;
        text.map_err(|error| TextError::Refused(error.to_string()))
    }

    /// What token `id` shows: its text, trimmed of white space. Empty for an id without text.
    pub fn word(&self, id: u32) -> Arc<str> {
        let make = || Arc::from(self.decode(&[id], false).unwrap_or_default().trim());
        match self.words.get(id as usize) {
            Some(slot) => slot.get_or_init(make).clone(),
            None => Arc::from(""),
        }
    }

    /// The id of the token that is written exactly so, such as an end marker.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The first id that does not stand for the same token in `other`.
    pub fn first_difference(&self, other: &Self) -> Option<u32> {
        if self.fingerprint == other.fingerprint {
            return None;
        }
        let count = self.inner.get_vocab_size(true).max(other.inner.get_vocab_size(true)) as u32;
        (0..count).find(|&id| self.written(id) != other.written(id))
    }

    /// How many token ids the model has.
    pub(super) fn vocabulary_size(&self) -> usize {
        self.words.len()
    }

    /// How the vocabulary writes token `id`.
    pub(super) fn written(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// What turns written tokens into text.
    pub(super) fn decoder(&self) -> Option<&DecoderWrapper> {
        self.inner.get_decoder()
    }

    /// Whether the id stands for a control token, which no generated text shows.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .is_special_token(&self.inner.id_to_token(id).unwrap_or_default())
    }
}

/// A tokenizer whose model is known to be of pairs of pieces, as nearly all are.
type BpeTokenizer = tokenizers::TokenizerImpl<
    BPE,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Reads the text of a tokenizer.
///
/// The library looks for the kind of model in two trees of the whole text, which take twenty times its
/// size; told the kind, it makes none. What is of another kind, or wrong, it is left to find out.
fn read(bytes: &[u8]) -> tokenizers::Result<tokenizers::Tokenizer> {
    match serde_json::from_slice::<BpeTokenizer>(bytes) {
        Ok(tokenizer) => Ok(tokenizer.into()),
        Err(_) => tokenizers::Tokenizer::from_bytes(bytes),
    }
}

/// Turns tokens into text as they come, holding back what is not yet a whole character.
#[derive(Debug)]
pub struct TextStream {
    ids: Vec<u32>,
    /// How many ids of the window that is decoded again at each step were already given out.
    read: usize,
}

impl TextStream {
    /// A stream that continues `context`, whose text is not given out again.
    pub fn new(context: &[u32]) -> Self {
        // The decoders of real tokenizers look back a few tokens at most (prefix spaces).
        let ids = context[context.len().saturating_sub(8)..].to_vec();
        let read = ids.len();
        Self { ids, read }
    }

    /// Takes the next token and returns the text that became whole with it.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let before = tokenizer.decode(&self.ids[..self.read], true)?;
        let after = tokenizer.decode(&self.ids, true)?;
        if after.len() <= before.len() || after.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        // What was given out is the next window's context.
        self.ids.drain(..self.read);
        self.read = self.ids.len();
        Ok(after.get(before.len()..).unwrap_or_default().to_owned())
    }

    /// What is left when no token follows: the bytes that never became a character, as U+FFFD.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let before = tokenizer.decode(&self.ids[..self.read], true)?;
        let after = tokenizer.decode(&self.ids, true)?;
        self.clear();
        Ok(after.get(before.len()..).unwrap_or_default().to_owned())
    }

    /// Forgets what is held back.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atlas() -> Tokenizer {
        Tokenizer::from_bytes(include_bytes!("../../assets/atlas/tokenizer.json"), 4096).unwrap()
    }

    #[test]
    fn streamed_text_equals_the_text_decoded_at_once_and_every_piece_is_whole() {
        let tokenizer = atlas();
        for text in ["The capital of France is Paris.", "naïve café 日本語 🙂 end", "a\n\n b  c"]
        {
            let ids = tokenizer.encode(text, false).unwrap();
            for start in 0..ids.len().min(3) {
                let mut stream = TextStream::new(&ids[..start]);
                let mut streamed = String::new();
                for &id in &ids[start..] {
                    let piece = stream.push(&tokenizer, id).unwrap();
                    assert!(!piece.contains('\u{fffd}'), "{piece:?}");
                    streamed += &piece;
                }
                streamed += &stream.finish(&tokenizer).unwrap();
                let whole = tokenizer.decode(&ids, true).unwrap();
                assert!(whole.ends_with(&streamed), "{streamed:?} is no end of {whole:?}");
                if start == 0 {
                    assert_eq!(streamed, whole);
                }
            }
        }
    }

    #[test]
    fn a_character_cut_short_is_given_out_at_the_end() {
        let tokenizer = atlas();
        let ids = tokenizer.encode("🙂", false).unwrap();
        let mut stream = TextStream::new(&[]);
        let pieces: String =
            ids[..ids.len() - 1].iter().map(|&id| stream.push(&tokenizer, id).unwrap()).collect();
        assert_eq!(pieces.trim(), "");
        assert!(stream.finish(&tokenizer).unwrap().contains('\u{fffd}'));
    }

    #[test]
    fn an_id_beyond_the_vocabulary_has_no_word() {
        assert_eq!(&*atlas().word(4_000_000), "");
    }

    #[test]
    fn told_its_kind_a_tokenizer_is_read_as_the_library_reads_it() {
        let bytes = include_bytes!("../../assets/atlas/tokenizer.json");
        let library = tokenizers::Tokenizer::from_bytes(bytes).unwrap();
        assert!(serde_json::from_slice::<BpeTokenizer>(bytes).is_ok(), "the quick way is taken");
        assert_eq!(
            read(bytes).unwrap().to_string(false).unwrap(),
            library.to_string(false).unwrap()
        );
        // Another kind.
        let words = br#"{"version": "1.0", "added_tokens": [], "model": {
            "type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}"#;
        assert_eq!(read(words).unwrap().token_to_id("b"), Some(1));
    }

    #[test]
    fn garbage_is_no_tokenizer() {
        for bytes in [&b""[..], b"{}", b"[[[[", b"{\"model\":{\"type\":\"BPE\"}}"] {
            assert!(matches!(Tokenizer::from_bytes(bytes, 10), Err(TextError::Unreadable(_))));
        }
    }
}
