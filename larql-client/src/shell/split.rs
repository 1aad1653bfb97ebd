//! Where statements end: enough of the lexer to know strings and comments, and nothing of the grammar.

use std::ops::Range;

/// Returns the byte range of each statement of a script, without its `;`, blanks and comments
/// around it; empty statements are left out. The last one need not be closed.
pub fn statements(script: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut scan = Scan::new(script);
    let mut first: Option<usize> = None;
    let mut end = 0;
    while let Some((at, piece)) = scan.next() {
        match piece {
            Piece::Semicolon => {
                found.extend(first.take().map(|start| start..end));
            }
            Piece::Blank | Piece::Comment => {}
            Piece::Text | Piece::String { .. } => {
                first.get_or_insert(at);
                end = scan.at;
            }
        }
    }
    found.extend(first.map(|start| start..end));
    found
}

/// Whether the shell may send what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Nothing but blanks and comments.
    Empty,
    /// Every statement is closed by `;`.
    Complete,
    /// A statement, or a string in it, is still open.
    Open,
}

/// True if the script ends inside a string.
pub fn ends_in_string(script: &str) -> bool {
    let mut scan = Scan::new(script);
    let mut open = false;
    while let Some((_, piece)) = scan.next() {
        open = piece == Piece::String { closed: false };
    }
    open
}

/// Tells whether every statement of `script` is closed.
pub fn completeness(script: &str) -> Completeness {
    let mut scan = Scan::new(script);
    let mut state = Completeness::Empty;
    while let Some((_, piece)) = scan.next() {
        match piece {
            Piece::Semicolon => state = Completeness::Complete,
            Piece::Text | Piece::String { .. } => state = Completeness::Open,
            Piece::Blank | Piece::Comment => {}
        }
    }
    state
}

/// A stretch of a script, as coarse as highlighting and splitting need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// White space.
    Blank,
    /// `--` to the end of the line.
    Comment,
    /// `"…"` or `'…'`.
    String {
        /// False if the script ends inside it.
        closed: bool,
    },
    /// `;`.
    Semicolon,
    /// A word or a number, or one other character.
    Text,
}

/// Walks over the pieces of a script.
pub(crate) struct Scan<'a> {
    text: &'a str,
    /// Where the next piece begins.
    pub(crate) at: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Scan<'a> {
        Scan { text, at: 0 }
    }

    /// Returns the next piece and where it begins; it ends at `self.at`.
    pub(crate) fn next(&mut self) -> Option<(usize, Piece)> {
        let start = self.at;
        let rest = &self.text[start..];
        let first = rest.chars().next()?;
        let (length, piece) = match first {
            ';' => (1, Piece::Semicolon),
            '"' | '\'' => string(rest, first),
            '-' if rest.starts_with("--") => {
                (rest.find('\n').unwrap_or(rest.len()), Piece::Comment)
            }
            c if c.is_whitespace() => (run(rest, char::is_whitespace), Piece::Blank),
            c if is_word(c) => (run(rest, is_word), Piece::Text),
            c => (c.len_utf8(), Piece::Text),
        };
        self.at = start + length;
        Some((start, piece))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '$')
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn string(text: &str, delimiter: char) -> (usize, Piece) {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == delimiter => return (at + 1, Piece::String { closed: true }),
            _ => {}
        }
    }
    (text.len(), Piece::String { closed: false })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(script: &str) -> Vec<&str> {
        statements(script).into_iter().map(|range| &script[range]).collect()
    }

    #[test]
    fn a_semicolon_inside_a_string_or_a_comment_ends_nothing() {
        let script = "DESCRIBE \"a;b\"; -- no; end\n STATS 'it\\'s; so' ;; SHOW LAYERS";
        assert_eq!(split(script), ["DESCRIBE \"a;b\"", "STATS 'it\\'s; so'", "SHOW LAYERS"]);
    }

    #[test]
    fn a_statement_is_open_until_its_semicolon() {
        for (script, expected) in [
            ("", Completeness::Empty),
            ("  -- nothing;\n", Completeness::Empty),
            ("STATS", Completeness::Open),
            ("STATS;", Completeness::Complete),
            ("STATS; -- done\n", Completeness::Complete),
            ("STATS; SHOW", Completeness::Open),
            ("DESCRIBE \"a;", Completeness::Open),
            ("DESCRIBE \"a\\\";", Completeness::Open),
            (";", Completeness::Complete),
            ("SELECT 1 - -1;", Completeness::Complete),
            ("STATS -- ;", Completeness::Open),
        ] {
            assert_eq!(completeness(script), expected, "{script:?}");
        }
    }

    #[test]
    fn an_open_string_is_told_from_a_closed_one() {
        assert!(ends_in_string("DESCRIBE \"a\n\\q"));
        assert!(!ends_in_string("DESCRIBE \"a\" "));
        assert!(!ends_in_string("-- \""));
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_script_are_the_script(script in ".{0,80}") {
            let mut scan = Scan::new(&script);
            let mut end = 0;
            while let Some((start, _)) = scan.next() {
                prop_assert_eq!(start, end);
                prop_assert!(scan.at > start);
                end = scan.at;
            }
            prop_assert_eq!(end, script.len());
        }
    }
}
