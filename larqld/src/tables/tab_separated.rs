//! The one dialect of tab-separated text, as CREATE TABLE reads it and COPY writes it.
//!
//! There are no quotes. A tab ends a field and a line end a row, so inside a value both are written with
//! a backslash: `\t`, `\n`, `\r`, and `\\` for the backslash itself. NULL is an empty field or `\N`. Any
//! other backslash stands for itself, as tables that were written by hand have them.

use std::borrow::Cow;

/// NULL where an empty field would be an empty line, which readers skip.
pub(crate) const NULL: &str = r"\N";

/// What a field says; `None` for NULL.
pub(crate) fn unescape(field: &str) -> Option<Cow<'_, str>> {
    if field.is_empty() || field == NULL {
        return None;
    }
    let Some(first) = field.find('\\') else { return Some(Cow::Borrowed(field)) };
    let mut text = String::with_capacity(field.len());
    text.push_str(&field[..first]);
    let mut rest = field[first..].chars();
    while let Some(character) = rest.next() {
        let mut ahead = rest.clone();
        let meant = match (character, ahead.next()) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('\\')) => '\\',
            _ => {
                text.push(character);
                continue;
            }
        };
        text.push(meant);
        rest = ahead;
    }
    Some(Cow::Owned(text))
}

/// A text as a field.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\t', '\n', '\r', '\\']) {
        return Cow::Borrowed(text);
    }
    let mut field = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\t' => field.push_str(r"\t"),
            '\n' => field.push_str(r"\n"),
            '\r' => field.push_str(r"\r"),
            '\\' => field.push_str(r"\\"),
            other => field.push(other),
        }
    }
    Cow::Owned(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backslash_that_escapes_nothing_stands_for_itself() {
        for (field, text) in
            [(r"C:\data", r"C:\data"), (r"a\", r"a\"), (r"\\N", r"\N"), (r"\q\t", "\\q\t")]
        {
            assert_eq!(unescape(field).as_deref(), Some(text), "{field}");
        }
        assert_eq!(unescape(""), None);
        assert_eq!(unescape(r"\N"), None);
    }

    proptest! {
        #[test]
        fn a_field_reads_as_the_text_that_was_written(text in r#"[ab"'N\\\t\n\r,é]{1,12}"#) {
            let field = escape(&text);
            prop_assert!(!field.contains(['\t', '\n', '\r']));
            let read = unescape(&field);
            prop_assert_eq!(read.as_deref(), Some(&*text));
        }
    }
}
