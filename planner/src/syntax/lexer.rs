//! Text to lexemes with byte spans. Lexemes borrow from the text; nothing is copied.
//!
//! The lexer gives one statement's lexemes at a time, so that memory stays bounded by the longest
//! statement and not by the script.

use nom::bytes::complete::{take_while, take_while1};
use nom::{IResult, Parser};

use super::error::{INVALID_VALUE, LIMIT_EXCEEDED, SYNTAX_ERROR, SyntaxError};
use super::keyword::Keyword;
use super::span::Span;

/// The longest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 4 << 20;

/// The most lexemes of one statement.
pub const LEXEMES_MAX: usize = 1 << 17;

/// The longest part of a lexeme that a message quotes, in characters.
const QUOTED_CHARACTERS_MAX: usize = 40;

/// One lexeme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexeme<'t> {
    /// What it is.
    pub kind: LexemeKind,
    /// Where it stands.
    pub span: Span,
    /// As written; of a string without its quotes, of a parameter without its `$`.
    pub text: &'t str,
}

/// What a lexeme is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexemeKind {
    /// A word that is no keyword.
    Word,
    /// A word with a meaning somewhere; it may still be a name.
    Keyword(Keyword),
    /// Digits.
    Integer,
    /// Digits with a fraction or an exponent.
    Real,
    /// A quoted string; `escaped` if it holds a backslash.
    String {
        /// Whether the text must be unescaped.
        escaped: bool,
    },
    /// `$` and a word or number.
    Parameter,
    /// Punctuation.
    Symbol(Symbol),
    /// After the last lexeme of a statement: `;` or the end of the script.
    End,
}

/// Punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is spelled by `text`")]
pub enum Symbol {
    Star,
    Comma,
    Open,
    Close,
    Dot,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Pipe,
    Plus,
    Minus,
    Slash,
}

impl Symbol {
    /// As written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Star => "*",
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Dot => ".",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterOrEqual => ">=",
            Self::LessOrEqual => "<=",
            Self::Pipe => "|>",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Slash => "/",
        }
    }
}

impl Lexeme<'_> {
    /// The lexeme for a message: quoted, shortened.
    pub fn describe(&self) -> String {
        let shortened = |text: &str| match text.char_indices().nth(QUOTED_CHARACTERS_MAX) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        };
        match self.kind {
            LexemeKind::End if self.text == ";" => "`;`".to_owned(),
            LexemeKind::End => "the end of the statement".to_owned(),
            LexemeKind::String { .. } => format!("the string \"{}\"", shortened(self.text)),
            LexemeKind::Parameter => format!("`${}`", shortened(self.text)),
            _ => format!("`{}`", shortened(self.text)),
        }
    }
}

/// Reads a script, statement by statement.
#[derive(Debug, Clone)]
pub struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    /// A lexer at the start of `text`.
    ///
    /// # Errors
    /// A script longer than [`SCRIPT_BYTES_MAX`].
    pub fn new(text: &'t str) -> Result<Self, SyntaxError> {
        if text.len() > SCRIPT_BYTES_MAX {
            let message =
                format!("the script is {} bytes long, the most is {SCRIPT_BYTES_MAX}", text.len());
            return Err(SyntaxError::new(LIMIT_EXCEEDED, message, Span::new(0, 0))
                .with_hint("send it in parts"));
        }
        Ok(Self { text, at: 0 })
    }

    /// Replaces `lexemes` by those of the next statement, [`LexemeKind::End`] last. Returns whether
    /// there was a statement; empty ones are skipped.
    ///
    /// # Errors
    /// A character that starts no lexeme, a string without end, a malformed number, too many lexemes.
    pub fn next_statement(&mut self, lexemes: &mut Vec<Lexeme<'t>>) -> Result<bool, SyntaxError> {
        lexemes.clear();
        loop {
            let lexeme = self.next_lexeme()?;
            if lexeme.kind != LexemeKind::End {
                if lexemes.len() == LEXEMES_MAX {
                    let message =
                        format!("the statement has more than {LEXEMES_MAX} words and symbols");
                    return Err(SyntaxError::new(LIMIT_EXCEEDED, message, lexeme.span)
                        .with_hint("split it; keep long lists in a table"));
                }
                lexemes.push(lexeme);
                continue;
            }
            if !lexemes.is_empty() {
                lexemes.push(lexeme);
                return Ok(true);
            }
            if lexeme.text.is_empty() {
                return Ok(false);
            }
        }
    }

    fn next_lexeme(&mut self) -> Result<Lexeme<'t>, SyntaxError> {
        let bytes = self.text.as_bytes();
        self.skip_blanks_and_comments();
        let start = self.at;
        let Some(&byte) = bytes.get(start) else {
            return Ok(self.lexeme(LexemeKind::End, start, start));
        };
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let word = first_match(word, &self.text[start..]);
                let kind = Keyword::from_word(word).map_or(LexemeKind::Word, LexemeKind::Keyword);
                Ok(self.lexeme(kind, start, start + word.len()))
            }
            b'0'..=b'9' => self.number(start),
            b'"' | b'\'' => self.string(start, byte),
            b'$' => self.parameter(start),
            b';' => Ok(self.lexeme(LexemeKind::End, start, start + 1)),
            _ => self.symbol(start, byte),
        }
    }

    fn skip_blanks_and_comments(&mut self) {
        let bytes = self.text.as_bytes();
        loop {
            while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
                self.at += 1;
            }
            if !bytes[self.at..].starts_with(b"--") {
                return;
            }
            let line = bytes[self.at..].iter().position(|byte| *byte == b'\n');
            self.at = line.map_or(bytes.len(), |length| self.at + length + 1);
        }
    }

    fn lexeme(&mut self, kind: LexemeKind, start: usize, end: usize) -> Lexeme<'t> {
        self.at = end;
        Lexeme { kind, span: span(start, end), text: &self.text[start..end] }
    }

    /// Digits, perhaps a fraction, perhaps an exponent; letters may not follow.
    fn number(&mut self, start: usize) -> Result<Lexeme<'t>, SyntaxError> {
        let bytes = self.text.as_bytes();
        let digits_from = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let mut end = digits_from(start);
        let mut kind = LexemeKind::Integer;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits_from(end + 1);
            kind = LexemeKind::Real;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
            let digits = end + 1 + usize::from(signed);
            if bytes.get(digits).is_some_and(u8::is_ascii_digit) {
                end = digits_from(digits);
                kind = LexemeKind::Real;
            }
        }
        let letters = first_match(word_or_nothing, &self.text[end..]);
        if !letters.is_empty() {
            let message =
                format!("a number cannot be followed by letters: `{}`", quote_shortened(letters));
            return Err(SyntaxError::new(SYNTAX_ERROR, message, span(end, end + letters.len()))
                .with_hint("put a space between them, or quotes around them"));
        }
        Ok(self.lexeme(kind, start, end))
    }

    fn string(&mut self, start: usize, quote: u8) -> Result<Lexeme<'t>, SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                Some(&byte) if byte == quote => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => {
                    let hint = format!("close it with {}", char::from(quote));
                    let message = "this string has no end";
                    return Err(SyntaxError::new(SYNTAX_ERROR, message, span(start, bytes.len()))
                        .with_hint(hint));
                }
            }
        }
        self.at = at + 1;
        let kind = LexemeKind::String { escaped };
        Ok(Lexeme { kind, span: span(start, at + 1), text: &self.text[start + 1..at] })
    }

    fn parameter(&mut self, start: usize) -> Result<Lexeme<'t>, SyntaxError> {
        let name = first_match(word_or_nothing, &self.text[start + 1..]);
        if name.is_empty() {
            let message = "expected a number or a column's name after `$`";
            return Err(SyntaxError::new(SYNTAX_ERROR, message, span(start, start + 1)));
        }
        let mut lexeme = self.lexeme(LexemeKind::Parameter, start, start + 1 + name.len());
        lexeme.text = name;
        Ok(lexeme)
    }

    fn symbol(&mut self, start: usize, byte: u8) -> Result<Lexeme<'t>, SyntaxError> {
        let next = self.text.as_bytes().get(start + 1).copied();
        let symbol = match (byte, next) {
            (b'!', Some(b'=')) => Symbol::NotEqual,
            (b'>', Some(b'=')) => Symbol::GreaterOrEqual,
            (b'<', Some(b'=')) => Symbol::LessOrEqual,
            (b'|', Some(b'>')) => Symbol::Pipe,
            (b'*', _) => Symbol::Star,
            (b',', _) => Symbol::Comma,
            (b'(', _) => Symbol::Open,
            (b')', _) => Symbol::Close,
            (b'.', _) => Symbol::Dot,
            (b'=', _) => Symbol::Equal,
            (b'>', _) => Symbol::Greater,
            (b'<', _) => Symbol::Less,
            (b'+', _) => Symbol::Plus,
            (b'-', _) => Symbol::Minus,
            (b'/', _) => Symbol::Slash,
            _ => return Err(self.unexpected_character(start)),
        };
        Ok(self.lexeme(LexemeKind::Symbol(symbol), start, start + symbol.text().len()))
    }

    fn unexpected_character(&self, start: usize) -> SyntaxError {
        let character = self.text[start..].chars().next().unwrap_or('\0');
        let number = u32::from(character);
        let name = match invisible_name(character) {
            Some(name) => format!("U+{number:04X} ({name})"),
            None if character.is_ascii_graphic() => format!("`{character}`"),
            None if character.is_control() => format!("U+{number:04X} (a control character)"),
            None => format!("`{character}` (U+{number:04X})"),
        };
        let error = SyntaxError::new(
            SYNTAX_ERROR,
            format!("unexpected character {name}"),
            span(start, start + character.len_utf8()),
        );
        match character {
            '“' | '”' | '‘' | '’' | '«' | '»' => {
                error.with_hint("strings take straight quotes: \"…\" or '…'")
            }
            _ if !character.is_ascii() => {
                error.with_hint("outside strings only ASCII is allowed; quote it")
            }
            '!' => error.with_hint("write != or NOT"),
            '`' | '[' | ']' | '{' | '}' => error.with_hint("names need no quoting"),
            _ => error,
        }
    }
}

fn span(start: usize, end: usize) -> Span {
    // A script is shorter than `SCRIPT_BYTES_MAX`, far below `u32::MAX`.
    Span::new(start as u32, end as u32)
}

fn quote_shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(QUOTED_CHARACTERS_MAX)]
}

fn word(text: &str) -> IResult<&str, &str> {
    take_while1(|character: char| character.is_ascii_alphanumeric() || character == '_').parse(text)
}

fn word_or_nothing(text: &str) -> IResult<&str, &str> {
    take_while(|character: char| character.is_ascii_alphanumeric() || character == '_').parse(text)
}

/// What the parser takes from the front of `text`; nothing if it fails.
fn first_match<'t>(parser: fn(&'t str) -> IResult<&'t str, &'t str>, text: &'t str) -> &'t str {
    parser(text).map_or("", |(_, taken)| taken)
}

/// The name of a character that cannot be seen, or that changes the direction of what can.
pub fn invisible_name(character: char) -> Option<&'static str> {
    Some(match character {
        '\u{00A0}' => "no-break space",
        '\u{00AD}' => "soft hyphen",
        '\u{061C}' => "Arabic letter mark",
        '\u{180E}' => "Mongolian vowel separator",
        '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => "a Unicode space",
        '\u{200B}' => "zero width space",
        '\u{200C}' => "zero width non-joiner",
        '\u{200D}' => "zero width joiner",
        '\u{200E}' => "left-to-right mark",
        '\u{200F}' => "right-to-left mark",
        '\u{2028}' => "line separator",
        '\u{2029}' => "paragraph separator",
        '\u{202A}' => "left-to-right embedding",
        '\u{202B}' => "right-to-left embedding",
        '\u{202C}' => "pop directional formatting",
        '\u{202D}' => "left-to-right override",
        '\u{202E}' => "right-to-left override",
        '\u{2060}' => "word joiner",
        '\u{2066}' => "left-to-right isolate",
        '\u{2067}' => "right-to-left isolate",
        '\u{2068}' => "first strong isolate",
        '\u{2069}' => "pop directional isolate",
        '\u{FEFF}' => "byte order mark",
        '\u{E0000}'..='\u{E007F}' => "a tag character",
        _ => return None,
    })
}

/// The value of a string lexeme. `\\ \" \' \n \t \r \0` and `\u{…}` (one to six hexadecimal digits)
/// are escapes; before any other character a backslash is dropped.
///
/// # Errors
/// A `\u` that names no character.
pub fn unescape(lexeme: &Lexeme<'_>) -> Result<String, SyntaxError> {
    let text = lexeme.text;
    let mut value = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        value.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(character) = rest.chars().next() else { break };
        rest = &rest[character.len_utf8()..];
        value.push(match character {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            'u' if rest.starts_with('{') => {
                let start = lexeme.span.start as usize + 1 + (text.len() - rest.len()) - 2;
                let named = rest.find('}').and_then(|end| {
                    let digits = &rest[1..end];
                    let valid = (1..=6).contains(&digits.len())
                        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let number = u32::from_str_radix(digits, 16).ok().filter(|_| valid)?;
                    Some((char::from_u32(number)?, end))
                });
                let Some((named, end)) = named else {
                    let message = "\\u{…} does not name a character";
                    return Err(SyntaxError::new(INVALID_VALUE, message, span(start, start + 3))
                        .with_hint("write one to six hexadecimal digits, such as \\u{e9}"));
                };
                rest = &rest[end + 1..];
                named
            }
            other => other,
        });
    }
    value.push_str(rest);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> Result<Vec<Lexeme<'_>>, SyntaxError> {
        let mut lexemes = Vec::new();
        Lexer::new(text)?.next_statement(&mut lexemes)?;
        Ok(lexemes)
    }

    fn string_value(text: &str) -> Result<String, SyntaxError> {
        unescape(&lex(text)?[0])
    }

    #[test]
    fn lexemes_borrow_their_text_and_know_their_place() {
        let lexemes = lex("select  \"a\\n\" -- note\n 1.5e-3;").unwrap();
        let found: Vec<_> = lexemes.iter().map(|lexeme| (lexeme.text, lexeme.span.start)).collect();
        assert_eq!(found, [("select", 0), ("a\\n", 8), ("1.5e-3", 23), (";", 29)]);
        assert_eq!(lexemes[0].kind, LexemeKind::Keyword(Keyword::Select));
        assert_eq!(lexemes[2].kind, LexemeKind::Real);
    }

    #[test]
    fn escapes_yield_whole_characters() {
        assert_eq!(string_value(r#""a\"b\\\n\t\r\0""#).unwrap(), "a\"b\\\n\t\r\0");
        assert_eq!(string_value(r"'\é\x\u{1F600}\u{e9}'").unwrap(), "éx😀é");
        assert_eq!(string_value("'\\u'").unwrap(), "u");
    }

    #[test]
    fn an_escape_that_names_no_character_is_an_error_with_its_place() {
        for text in ["'ab\\u{D800}'", "'ab\\u{}'", "'ab\\u{1234567}'", "'ab\\u{12'", "'ab\\u{+1}'"]
        {
            let error = string_value(text).unwrap_err();
            assert_eq!(error.span.start, 3, "{text}: {error}");
        }
    }

    #[test]
    fn a_string_without_end_points_at_its_opening_quote() {
        for text in ["STATS 'abc", "STATS 'abc\\'", "STATS 'abc\\", "STATS \""] {
            let error = lex(text).unwrap_err();
            assert_eq!((error.span.start, error.code), (6, SYNTAX_ERROR), "{text}");
        }
    }

    #[test]
    fn invisible_and_foreign_characters_are_named() {
        for (text, name) in [
            ("STATS\u{202E}", "U+202E (right-to-left override)"),
            ("STATS\u{200B}", "U+200B (zero width space)"),
            ("\u{0421}TATS", "`С` (U+0421)"),
            ("STATS \u{1}", "U+0001 (a control character)"),
        ] {
            let error = lex(text).unwrap_err();
            assert!(error.message.ends_with(name), "{}", error.message);
        }
    }

    #[test]
    fn numbers_do_not_run_into_letters() {
        assert!(lex("1abc").is_err());
        assert!(lex("1e").is_err());
        assert!(lex("1.5.2").is_ok_and(|lexemes| lexemes.len() == 4));
    }

    #[test]
    fn a_script_beyond_the_limit_is_refused_at_once() {
        let text = "x".repeat(SCRIPT_BYTES_MAX + 1);
        assert_eq!(Lexer::new(&text).unwrap_err().code, LIMIT_EXCEEDED);
    }
}
