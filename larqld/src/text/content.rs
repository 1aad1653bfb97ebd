//! Which tokens are words: the one place that decides what a knowledge answer may show.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Whether a token's text is *content*: printable, with at least one letter of any script.
///
/// Printable means free of control, format, unassigned, surrogate and private-use characters, of
/// separators other than the space, and of U+FFFD, which stands for bytes that are not a character.
pub fn is_content(text: &str) -> bool {
    let mut letter = false;
    for character in text.chars() {
        match character.general_category_group() {
            GeneralCategoryGroup::Letter => letter = true,
            GeneralCategoryGroup::Other => return false,
            GeneralCategoryGroup::Separator if character != ' ' => return false,
            _ if character == '\u{fffd}' => return false,
            _ => {}
        }
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_every_script_are_content() {
        for text in ["Paris", "é", "日本", "Москва", "القاهرة", "ab-1", "New York", "ª"]
        {
            assert!(is_content(text), "{text}");
        }
    }

    #[test]
    fn digits_punctuation_controls_and_broken_bytes_are_not() {
        for text in [
            "",
            "12",
            "...",
            " ",
            "\u{fffd}",
            "a\u{fffd}",
            "a\n",
            "a\u{200b}",
            "🙂",
            "\u{301}",
            "a\u{a0}b",
        ] {
            assert!(!is_content(text), "{text:?}");
        }
    }
}
