//! Prompts and what is read out of their completions: text only, no model.

use larql_storage::vindex::knowledge::ENTITY_SLOT;

use crate::text::case_folded;

/// Letters of an abbreviation whose full stop ends no sentence (`St. Lucia`, `H. G. Wells`).
const ABBREVIATION_LETTERS_MAX: usize = 2;

/// The template with the entity in its slot.
pub fn fill(template: &str, entity: &str) -> String {
    template.replacen(ENTITY_SLOT, entity, 1)
}

/// Whether two names are the same but for case and white space around them.
pub fn is_same(a: &str, b: &str) -> bool {
    case_folded(a.trim()) == case_folded(b.trim())
}

/// Where the phrase at the beginning of a completion ends, in bytes; `None` while more text could
/// still belong to it.
///
/// A phrase ends at a line's end, at punctuation that closes or divides a sentence, and at an
/// opening bracket; not at a full stop within a word or number, nor, where names have `initials`,
/// after an abbreviation that goes on.
pub fn phrase_end(text: &str, initials: bool) -> Option<usize> {
    let start = text.len() - text.trim_start().len();
    for (at, character) in text.char_indices().skip_while(|&(at, _)| at < start) {
        let rest = &text[at + character.len_utf8()..];
        match character {
            '\n' | '\r' | ',' | ';' | ':' | '!' | '?' | '(' | ')' | '[' | ']' | '|' | '"'
            | '。' | '、' | '，' | '\u{fffd}' => return Some(at),
            '.' => match rest.chars().next() {
                None if initials && is_abbreviation(&text[..at]) => return None,
                Some(next) if next.is_alphanumeric() => {}
                Some(' ') if initials && is_abbreviation(&text[..at]) => {
                    match rest.trim_start().chars().next() {
                        None => return None,
                        Some(next) if next.is_uppercase() => {}
                        Some(_) => return Some(at),
                    }
                }
                _ => return Some(at),
            },
            _ => {}
        }
    }
    None
}

/// Whether the text ends in a short capitalised word, or in single letters with full stops.
fn is_abbreviation(text: &str) -> bool {
    let word = text.rsplit([' ', '-', '.']).next().unwrap_or_default();
    (1..=ABBREVIATION_LETTERS_MAX).contains(&word.chars().count())
        && word.chars().next().is_some_and(char::is_uppercase)
}

/// The bytes of a completion that are the object: after a lead, before a follower, within the
/// phrase; `None` where nothing is left.
pub fn object_range(
    text: &str,
    leads: &[String],
    followers: &[String],
    initials: bool,
) -> Option<std::ops::Range<usize>> {
    let end = phrase_end(text, initials).unwrap_or(text.len());
    let phrase = &text[..end];
    // The full stop of the sentence, where nothing followed it.
    let last = phrase.rsplit(' ').next().unwrap_or_default();
    let phrase = match last.strip_suffix('.') {
        Some(word) if !word.contains('.') => &phrase[..phrase.len() - 1],
        _ => phrase,
    };
    let start = phrase.len() - phrase.trim_start().len();
    let body = &phrase[start..];
    let lead = leads.iter().map(|lead| lead.trim()).find_map(|lead| {
        let rest = body.strip_prefix(lead)?;
        let word = rest.trim_start();
        (rest.len() > word.len() && !word.is_empty()).then_some(body.len() - word.len())
    });
    let start = start + lead.unwrap_or(0);
    let mut end = phrase.trim_end().len();
    let mut at = start;
    for word in phrase.get(start..end)?.split(' ') {
        if at > start && followers.iter().any(|follower| follower == word) {
            end = phrase[..at].trim_end().len();
            break;
        }
        at += word.len() + 1;
    }
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Option<&str> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let range =
            object_range(text, &words(&["a noble", "the", "a"]), &words(&["and", "which"]), true);
        range.map(|range| &text[range])
    }

    #[test]
    fn the_object_is_what_stands_between_leads_followers_and_punctuation() {
        for (text, expected) in [
            (" Paris.", "Paris"),
            (" the euro. The", "euro"),
            (" a physicist and mathematician.", "physicist"),
            (" New York, which", "New York"),
            (" Castries\nQuestion", "Castries"),
            (" H. G. Wells. He", "H. G. Wells"),
            (" J.R.R. Tolkien.", "J.R.R. Tolkien"),
            (" St. Lucia", "St. Lucia"),
            (" 3.14 radians", "3.14 radians"),
            (" theatre", "theatre"),
            (" V.", "V"),
            (" 東京。それは", "東京"),
        ] {
            assert_eq!(object(text), Some(expected), "{text:?}");
        }
        for text in ["", "  ", ".", "\n Paris"] {
            assert_eq!(object(text).filter(|_| text != "\n Paris"), None, "{text:?}");
        }
    }

    #[test]
    fn a_phrase_may_go_on_while_its_full_stop_may_be_an_abbreviation() {
        assert_eq!(phrase_end(" St.", true), None);
        assert_eq!(phrase_end(" Paris", true), None);
        assert_eq!(phrase_end(" Paris.", true), Some(6));
        assert_eq!(phrase_end(" V. It", true), None, "an initial may be followed by a name");
        assert_eq!(phrase_end(" V. It", false), Some(2));
    }

    #[test]
    fn names_are_the_same_whatever_their_case() {
        assert!(is_same(" Straße", "STRASSE "));
        assert!(!is_same("Niger", "Nigeria"));
        assert_eq!(fill("The capital of {entity} is", "Peru"), "The capital of Peru is");
    }
}
