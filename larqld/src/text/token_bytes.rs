//! The bytes that each token stands for, whatever its tokenizer writes them as.
//!
//! Byte-level vocabularies (GPT-2's) write each byte as a printable character, SentencePiece's write
//! spaces as `▁` and bytes as `<0x0A>`. Which it is, the tokenizer's own decoder says; what is here
//! does to one token what that decoder does to a text, so that the bytes of tokens one after the
//! other are the bytes of their text, but for a first space that some decoders take away.

use serde_json::Value;

use super::tokenizer::{TextError, Tokenizer};

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenBytes {
    /// Text, or a piece of it: at least one byte.
    Text(Vec<u8>),
    /// A control token, by its name.
    Control(String),
    /// An id without a token.
    Unused,
}

/// One step of a decoder.
#[derive(Debug)]
enum Step {
    ByteLevel,
    ByteFallback,
    Replace(String, String),
}

impl Tokenizer {
    /// What each id of the model's vocabulary stands for.
    ///
    /// # Errors
    /// [`TextError::NoBytes`] where the decoder is of a kind whose tokens are no bytes.
    pub fn token_bytes(&self) -> Result<Vec<TokenBytes>, TextError> {
        let decoder = serde_json::to_value(self.decoder()).unwrap_or_default();
        let mut steps = Vec::new();
        read_steps(&decoder, &mut steps)?;
        if steps.is_empty() {
            return Err(TextError::NoBytes("no decoder".to_owned()));
        }
        let bytes = |id: u32| match self.written(id) {
            None => TokenBytes::Unused,
            Some(token) if self.is_special(id) => TokenBytes::Control(token),
            Some(token) if token.is_empty() => TokenBytes::Unused,
            Some(token) => TokenBytes::Text(decode(token, &steps)),
        };
        Ok((0..self.vocabulary_size() as u32).map(bytes).collect())
    }
}

/// The decoder's steps, from its JSON.
fn read_steps(decoder: &Value, steps: &mut Vec<Step>) -> Result<(), TextError> {
    let unknown = || TextError::NoBytes(decoder["type"].as_str().unwrap_or("none").to_owned());
    match decoder["type"].as_str() {
        Some("Sequence") => {
            for each in decoder["decoders"].as_array().into_iter().flatten() {
                read_steps(each, steps)?;
            }
        }
        Some("ByteLevel") => steps.push(Step::ByteLevel),
        Some("ByteFallback") => steps.push(Step::ByteFallback),
        Some("Replace") => {
            let pattern = decoder["pattern"]["String"].as_str().ok_or_else(unknown)?;
            let content = decoder["content"].as_str().ok_or_else(unknown)?;
            steps.push(Step::Replace(pattern.to_owned(), content.to_owned()));
        }
        Some("Metaspace") => {
            let mark = decoder["replacement"].as_str().unwrap_or("▁");
            steps.push(Step::Replace(mark.to_owned(), " ".to_owned()));
        }
        // These act on a text as a whole and leave what a token stands for.
        Some("Fuse" | "Strip") => {}
        _ => return Err(unknown()),
    }
    Ok(())
}

fn decode(token: String, steps: &[Step]) -> Vec<u8> {
    let mut token = token;
    for step in steps {
        match step {
            Step::Replace(pattern, content) => token = token.replace(pattern, content),
            Step::ByteFallback => {
                let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                let byte = digits.filter(|digits| digits.len() == 2);
                if let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    return vec![byte];
                }
            }
            Step::ByteLevel => {
                // A token with a character that stands for no byte is written as it is.
                if let Some(bytes) = token.chars().map(byte_of).collect() {
                    return bytes;
                }
            }
        }
    }
    token.into_bytes()
}

/// The byte that a byte-level vocabulary writes as `character`.
///
/// Printable bytes stand for themselves, the others are the characters from U+0100 on, in order
/// (`bytes_to_unicode` of GPT-2's published encoder).
fn byte_of(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(character) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(printable),
        code @ 0x100..=0x143 => {
            (0..=u8::MAX).filter(|byte| !printable(byte)).nth(code as usize - 0x100)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_of_a_byte_level_vocabulary() {
        let mut found: Vec<u8> =
            (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        found.sort_unstable();
        assert_eq!(found, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a')),
            (Some(b' '), Some(b'\n'), Some(b'a'))
        );
    }

    #[test]
    fn the_bytes_of_tokens_are_the_bytes_of_their_text() {
        let atlas = include_bytes!("../../assets/atlas/tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(atlas, 4096).unwrap();
        let bytes = tokenizer.token_bytes().unwrap();
        assert_eq!(bytes[2], TokenBytes::Control("<eos>".to_owned()));
        for text in ["The capital of France is {\"a\": [1, 2]}\n", "naïve 日本語 🙂 \u{7f}\0"]
        {
            let mut found = Vec::new();
            for id in tokenizer.encode(text, false).unwrap() {
                let TokenBytes::Text(bytes) = &bytes[id as usize] else { panic!("{id}") };
                found.extend_from_slice(bytes);
            }
            // This tokenizer puts a space before a text.
            assert_eq!(String::from_utf8(found).unwrap(), format!(" {text}"));
        }
    }
}
