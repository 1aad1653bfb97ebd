//! Cells as text, and what keeps them from driving a terminal.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::shell::render::json;
use crate::value::Value;

/// True for characters that move the cursor, change colours or reorder what is around them.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}')
}

/// Returns `text` with every hostile character written as an escape: `\n`, `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_unless(text, |_| false)
}

/// Like [`escape`], but lines stay lines: for text that is streamed as it is generated.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_unless(text, |c| matches!(c, '\n' | '\t'))
}

fn escape_unless(text: &str, harmless: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hostile = |c: char| is_hostile(c) && !harmless(c);
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !hostile(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            _ => escaped.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(escaped)
}

/// Returns a cell as a person reads it; empty for NULL.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => escape(text).into_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => real(*number),
        Value::Score(number) => score(*number),
        Value::Boolean(truth) => truth.to_string(),
        Value::List(values) => values.iter().map(element).collect::<Vec<_>>().join(", "),
        Value::Object(_) => json::to_string(value),
    }
}

/// An element of a list; in quotes where it would look like two, or like none.
fn element(value: &Value) -> String {
    match value {
        Value::Text(text)
            if text.is_empty() || text.contains([',', '"']) || text.trim() != text =>
        {
            json::to_string(value)
        }
        Value::Null => "null".to_owned(),
        Value::List(_) => json::to_string(value),
        _ => cell(value),
    }
}

/// Returns a 64-bit number in its shortest form.
pub fn real(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        number if number.is_infinite() => signed_infinity(number < 0.0),
        _ => format!("{number:?}"),
    }
}

/// Returns a 32-bit number in its shortest form, which is shorter than that of the same number in 64.
pub fn score(number: f32) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        number if number.is_infinite() => signed_infinity(number < 0.0),
        _ => format!("{number:?}"),
    }
}

fn signed_infinity(negative: bool) -> String {
    if negative { "-Infinity" } else { "Infinity" }.to_owned()
}

/// Returns how many terminal columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Returns how many terminal columns a character takes.
pub fn char_width(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_escaped_text_has_nothing_hostile_left(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(is_hostile));
        }
    }

    #[test]
    fn escaping_leaves_every_script_alone() {
        for text in ["Zürich", "東京", "می‌خواهم", "👩‍🚀", "Київ"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn a_score_prints_shorter_than_the_same_number_in_64_bits() {
        assert_eq!(score(0.1), "0.1");
        assert_eq!(real(f64::from(0.1f32)), "0.10000000149011612");
        assert_eq!(score(3.0), "3.0");
        assert_eq!(score(f32::NEG_INFINITY), "-Infinity");
    }

    #[test]
    fn a_list_element_with_a_comma_does_not_look_like_two() {
        let list = Value::List(vec!["a, b".into(), "c".into(), "".into(), Value::Null]);
        assert_eq!(cell(&list), r#""a, b", c, "", null"#);
    }
}
