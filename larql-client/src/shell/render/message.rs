//! Errors and notices, for people (with the source line and a caret) and as JSON.

use super::{json, text};
use crate::error::{CallError, ConnectError};
use crate::event::{Notice, Position, StatementError};
use crate::value::Value;

/// How much of a long source line is shown, in terminal columns.
const EXCERPT_COLUMNS: usize = 100;

/// What was sent, to point into.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script<'a> {
    /// The text, as sent.
    pub text: &'a str,
    /// How many lines of its file come before it.
    pub lines_before: u32,
}

/// Something to tell the user on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Five characters, after SQLSTATE.
    pub code: String,
    /// What failed, with what.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The offending text, where there is one.
    pub position: Option<Position>,
}

impl Message {
    /// A failure of the client's own, with a code after SQLSTATE.
    pub fn new(code: &str, message: impl Into<String>) -> Message {
        let message = message.into();
        Message { code: code.to_owned(), message, hint: String::new(), position: None }
    }

    /// The same with a hint.
    pub fn with_hint(self, hint: impl Into<String>) -> Message {
        Message { hint: hint.into(), ..self }
    }

    /// Returns it for people: `ERROR 42601: …`, the source line with a caret, `HINT: …`.
    pub fn to_text(&self, label: &str, script: Script<'_>) -> String {
        let mut lines = match self.code.as_str() {
            // Success, says SQLSTATE: what is left to tell is the message.
            "" | "00000" => format!("{label}: "),
            code => format!("{label} {}: ", text::escape(code)),
        };
        lines.push_str(&text::escape_lines(&self.message));
        if let Some(position) = self.position {
            lines.push_str(&excerpt(position, script));
        }
        if !self.hint.is_empty() {
            lines.push_str(&format!("\nHINT: {}", text::escape_lines(&self.hint)));
        }
        lines
    }

    /// Returns it as one JSON object: `code`, `message`, `position`, `hint`.
    pub fn to_json(&self, script: Script<'_>) -> String {
        let position = self.position.map_or(Value::Null, |position| {
            let fields = [
                ("offset", position.offset),
                ("length", position.length),
                ("line", position.line.saturating_add(script.lines_before)),
                ("column", position.column),
            ];
            let field = |(name, number): (&str, u32)| (name.to_owned(), i64::from(number).into());
            Value::Object(fields.map(field).to_vec())
        });
        let hint = match self.hint.as_str() {
            "" => Value::Null,
            hint => hint.into(),
        };
        let fields = [
            ("code", self.code.as_str().into()),
            ("message", self.message.as_str().into()),
            ("position", position),
            ("hint", hint),
        ];
        json::to_string(&Value::Object(fields.map(|(name, v)| (name.to_owned(), v)).to_vec()))
    }
}

/// Two lines: the source around the position, and a caret under it. Whatever a daemon claims about
/// the position, the answer stays within the text.
fn excerpt(position: Position, script: Script<'_>) -> String {
    let source = script.text;
    let start = source.floor_char_boundary((position.offset as usize).min(source.len()));
    let stop = start.saturating_add(position.length as usize).min(source.len());
    let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_stop = source[start..].find('\n').map_or(source.len(), |at| start + at);

    let mut shown = format!("LINE {}: ", position.line.saturating_add(script.lines_before));
    let label = text::width(&shown);
    // A long line is cut so that the position stands in the first third.
    let room = EXCERPT_COLUMNS / 3;
    let before: Vec<char> = source[line_start..start].chars().rev().take(room).collect();
    let cut = before.len() < source[line_start..start].chars().take(room + 1).count();
    shown.push_str(if cut { "…" } else { "" });
    let mut caret_at = label + usize::from(cut);
    let mut caret_width = 0;
    let mut columns = 0;
    for c in before.iter().rev() {
        let cell = printable(*c);
        columns += text::width(&cell);
        caret_at += text::width(&cell);
        shown.push_str(&cell);
    }
    for (at, c) in source[start..line_stop].char_indices() {
        let cell = printable(c);
        columns += text::width(&cell);
        if columns > EXCERPT_COLUMNS {
            shown.push('…');
            break;
        }
        if start + at < stop {
            caret_width += text::width(&cell);
        }
        shown.push_str(&cell);
    }
    format!(
        "\n{}\n{}{}",
        shown.trim_end_matches(' '),
        " ".repeat(caret_at),
        "^".repeat(caret_width.max(1))
    )
}

fn printable(c: char) -> String {
    match c {
        '\t' => " ".to_owned(),
        _ => text::escape(c.encode_utf8(&mut [0; 4])).into_owned(),
    }
}

impl From<StatementError> for Message {
    fn from(error: StatementError) -> Message {
        let StatementError { code, message, hint, position, .. } = error;
        Message { code, message, hint, position }
    }
}

impl From<CallError> for Message {
    fn from(CallError { code, message, hint }: CallError) -> Message {
        Message { code, message, hint, position: None }
    }
}

impl From<Notice> for Message {
    fn from(Notice { code, message, hint }: Notice) -> Message {
        Message { code, message, hint, position: None }
    }
}

impl From<ConnectError> for Message {
    fn from(error: ConnectError) -> Message {
        Message::new(error.code(), error.to_string()).with_hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(offset: u32, length: u32, line: u32) -> Message {
        let position = Some(Position { offset, length, line, column: 1 });
        let message = Message::new("42601", "expected FROM, found \"FORM\"");
        Message { position, ..message.with_hint("did you mean FROM?") }
    }

    #[test]
    fn an_error_shows_its_line_with_a_caret_under_the_offending_text() {
        let script = Script { text: "USE \"a\";\nSELECT * FORM EDGES;", lines_before: 0 };
        let expected = "\
ERROR 42601: expected FROM, found \"FORM\"
LINE 2: SELECT * FORM EDGES;
                 ^^^^
HINT: did you mean FROM?";
        assert_eq!(error(18, 4, 2).to_text("ERROR", script), expected);
    }

    #[test]
    fn a_notice_without_a_code_shows_none() {
        let notice = Message::new("00000", "zero rows").to_text("NOTICE", Script::default());
        assert_eq!(notice, "NOTICE: zero rows");
    }

    #[test]
    fn a_caret_stands_right_after_wide_characters() {
        let script = Script { text: "DESCRIBE \"東京\" NOW", lines_before: 4 };
        let expected = "\nLINE 5: DESCRIBE \"東京\" NOW\n                        ^^^";
        assert_eq!(excerpt(error(18, 3, 1).position.unwrap(), script), expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_position() {
        let text = format!("{}HERE{}", "x ".repeat(500_000), " y".repeat(500_000));
        let script = Script { text: &text, lines_before: 0 };
        let shown = error(1_000_000, 4, 1).to_text("ERROR", script);
        assert!(shown.len() < 600, "{} bytes", shown.len());
        assert!(shown.contains("HERE") && shown.contains("^^^^"));
    }

    #[test]
    fn an_error_is_one_json_object() {
        let expected = "{\"code\":\"42601\",\"message\":\"expected FROM, found \\\"FORM\\\"\",\
            \"position\":{\"offset\":18,\"length\":4,\"line\":2,\"column\":1},\
            \"hint\":\"did you mean FROM?\"}";
        assert_eq!(error(18, 4, 2).to_json(Script::default()), expected);
        let bare = Message::new("08001", "x").to_json(Script::default());
        assert_eq!(bare, "{\"code\":\"08001\",\"message\":\"x\",\"position\":null,\"hint\":null}");
    }

    proptest! {
        #[test]
        fn no_position_makes_an_excerpt_panic(
            text in ".{0,60}", offset in 0u32..80, length in any::<u32>(), line in any::<u32>()
        ) {
            error(offset, length, line).to_text("ERROR", Script { text: &text, lines_before: 1 });
        }
    }
}
