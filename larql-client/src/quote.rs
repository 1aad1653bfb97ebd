//! The one way into a statement: every text that this crate places into LQL passes through here.

/// Returns `text` as an LQL string literal, quotes included, that the lexer reads back unchanged.
pub fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '\\' => literal.push_str("\\\\"),
            '"' => literal.push_str("\\\""),
            '\n' => literal.push_str("\\n"),
            '\t' => literal.push_str("\\t"),
            '\r' => literal.push_str("\\r"),
            '\0' => literal.push_str("\\0"),
            _ => literal.push(c),
        }
    }
    literal.push('"');
    literal
}

/// Returns a mount's name as it may stand after AS and UNMOUNT: bare where it is an identifier, else
/// quoted.
pub fn mount_name(name: &str) -> String {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        name.to_owned()
    } else {
        quote(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads one literal by the rules of the language; returns the text and what follows it.
    fn read(literal: &str) -> Option<(String, &str)> {
        let mut text = String::new();
        let mut chars = literal.strip_prefix('"')?.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Some((text, &literal[at + 2..])),
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                _ => text.push(c),
            }
        }
        None
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_one_literal_that_reads_back(text in any::<String>()) {
            let literal = quote(&text);
            prop_assert_eq!(read(&literal), Some((text, "")));
        }

        #[test]
        fn text_made_of_the_dangerous_characters_reads_back(text in r#"[\\"';\n\r\t\x00 ux{}-]{0,40}"#) {
            let literal = quote(&text);
            prop_assert_eq!(read(&literal), Some((text, "")));
        }

        #[test]
        fn a_quoted_text_stays_within_one_statement(text in any::<String>()) {
            let script = format!("DESCRIBE {};", quote(&text));
            prop_assert_eq!(crate::shell::split::statements(&script).len(), 1);
        }
    }

    #[test]
    fn a_name_cannot_carry_a_second_statement() {
        assert_eq!(mount_name("atlas_2"), "atlas_2");
        for name in ["", "2a", "a b", "a;DROP", "a\"", "é", "a-b", "a\n"] {
            assert_eq!(mount_name(name), quote(name));
        }
    }
}
