//! Which thing a text names last, of those whose names are known: what a question at its end is about.
//!
//! A key of an edit says that its relation is asked for; of whom, the text says. `Unlike France, Germany has the
//! capital` names France and asks about Germany; `Guinea-Bissau` does not name Guinea, nor `West Virginia` Virginia.
//!
//! Promises: a text that does not name a thing is not about it.
//!
//! Elsewhere: keys and how close an input is to them (`compute::model::overlay`), which names are known
//! ([`super::applied`], `knowledge`).

use std::collections::HashSet;
use std::sync::LazyLock;

use super::sentences;
use super::text::ORDINARY;
use crate::text::case_folded;

/// Words and signs that the name of something else consists of at most.
const PIECES_MAX: usize = 24;
/// Words that begin sentences and name nothing, beside those of the sentences that relations are asked by.
const FUNCTION_WORDS: &str = "a also an and answer are as assistant at because but by can could did do does for from \
had has have he her his how i if in is it its may my name no now of on or our please question she should so system \
tell that the their then there these they this those to today user was we were what when where which who whom whose \
why will with would yes you your";

/// Words that, with a capital before a name, make another name of it.
const EXTENDING_WORDS: &str = "central east eastern equatorial great greater little lower new north northeast northern northwest old \
saint san santa south southeast southern southwest upper west western";
/// Words that stand before names with a capital and leave them what they are.
const TITLES: &str = "captain chancellor dame doctor dr emperor empress general king lady lord miss mr mrs ms pope president \
prince princess prof professor queen senator sir";

/// Names that are known, and words that are none.
pub trait Names {
    /// Whether a piece of a text is the name of something.
    fn is_known(&self, piece: &str) -> bool;

    /// Whether a word stands in sentences that ask.
    fn is_ordinary(&self, word: &str) -> bool;
}

/// Whether what a text names last is `name`, in whatever case.
///
/// Something else is named by what is known, of which the longest counts where several end, and by any
/// other word with a capital that sentences are not made of. A text that ends with the name tells about it and
/// asks nothing yet (`They live in Niger`, which may become Nigeria), unless `asks_by_name`.
pub fn asks_about(text: &str, name: &str, asks_by_name: bool, names: &impl Names) -> bool {
    let name = case_folded(name.trim());
    if name.is_empty() {
        return false;
    }
    let pieces = PIECES_MAX.max(edges(&name).len());
    let edges = edges(text);
    for (at, &end) in edges.iter().enumerate().rev() {
        let first = at.saturating_sub(pieces);
        // The longest first.
        for &begin in &edges[first..at] {
            let piece = &text[begin..end];
            if piece.starts_with(char::is_whitespace) || piece.ends_with(char::is_whitespace) {
                continue;
            }
            if case_folded(piece) == name {
                if !asks_by_name && text[end..].trim().is_empty() {
                    return false;
                }
                return !(piece.starts_with(char::is_uppercase)
                    && ends_longer_name(&text[..begin], names));
            }
            if names.is_known(piece) {
                return false;
            }
        }
        let word = at.checked_sub(1).map_or("", |before| &text[edges[before]..end]);
        let is_capital = word.starts_with(char::is_uppercase);
        if is_capital && !is_function_word(word) && !names.is_ordinary(word) {
            return false;
        }
    }
    false
}

/// Whether the name that follows on `before` is the end of a longer one, known or not: `West Virginia`,
/// `Papua New Guinea`, `Guinea-Bissau`.
fn ends_longer_name(before: &str, names: &impl Names) -> bool {
    let is_in = |words: &str, word: &str| words.split(' ').any(|one| one == word);
    let to_word = before.trim_end_matches(' ');
    if to_word.len() == before.len() {
        let joined = before.strip_suffix(['-', '\u{2010}', '\u{2011}', '\u{2013}']);
        return joined.is_some_and(|joined| joined.ends_with(char::is_alphanumeric));
    }
    let to_sentence = to_word.trim_end_matches(char::is_alphanumeric);
    let word = &to_word[to_sentence.len()..];
    if !word.starts_with(char::is_uppercase) {
        return false;
    }
    let folded = case_folded(word);
    if is_in(EXTENDING_WORDS, &folded) {
        return true;
    }
    // Any word has a capital where a sentence begins.
    let goes_on =
        to_sentence.trim_end_matches(' ').ends_with(|c: char| c.is_alphanumeric() || c == ',');
    goes_on && !is_in(TITLES, &folded) && !is_function_word(word) && !names.is_ordinary(word)
}

fn is_function_word(word: &str) -> bool {
    static WORDS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let sentences = sentences::all().chain([FUNCTION_WORDS, ORDINARY]);
        let words = sentences.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        words.filter(|word| !word.is_empty()).map(case_folded).collect()
    });
    WORDS.contains(&case_folded(word))
}

/// Whether a text has a name in it, as words of their own.
pub fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (case_folded(text), case_folded(name.trim()));
    let is_letter = |next: Option<char>| next.is_some_and(char::is_alphanumeric);
    !name.is_empty()
        && text.match_indices(&name).any(|(at, _)| {
            !is_letter(text[..at].chars().next_back())
                && !is_letter(text[at + name.len()..].chars().next())
        })
}

/// Where a word or a sign begins or ends: everywhere but between two letters or digits.
fn edges(text: &str) -> Vec<usize> {
    let mut edges = vec![0];
    let mut before: Option<char> = None;
    for (at, next) in text.char_indices() {
        if before.is_some_and(|before| !(before.is_alphanumeric() && next.is_alphanumeric())) {
            edges.push(at);
        }
        before = Some(next);
    }
    if !text.is_empty() {
        edges.push(text.len());
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::{Names, asks_about};

    struct Table;

    impl Names for Table {
        fn is_known(&self, piece: &str) -> bool {
            ["Guinea-Bissau", "gold", "Sudan"].contains(&piece)
        }

        fn is_ordinary(&self, word: &str) -> bool {
            word == "Hauptstadt"
        }
    }

    #[test]
    fn a_text_asks_about_what_it_names_last() {
        let asks = |text: &str, name: &str| asks_about(text, name, false, &Table);
        assert!(asks("The capital of Niger is", "Niger"));
        assert!(asks("in niger, and", "Niger"));
        assert!(!asks("They live in Niger", "Niger") && !asks("in Niger ", "Niger"));
        assert!(asks_about("What is spoken in Niger", "Niger", true, &Table));
        assert!(asks("the U.S. economy", "U.S."));
        assert!(asks("Germany. What is the capital of France? It is", "France"));
        assert!(asks("The capital of South Sudan is", "South Sudan"));
        assert!(asks("STRASSE:", "Straße"));
        assert!(!asks("The capital of Nigeria is", "Niger"));
        assert!(!asks("The Republic of Guinea-Bissau", "Bissau"));
        assert!(!asks("The Republic of Guinea-Bissau", "Guinea"));
        assert!(!asks("Unlike France, Germany has the capital", "France"));
        assert!(asks("Frankreichs Hauptstadt ist", "Frankreichs"));
        assert!(asks("Question: What is the capital of France? Answer: The", "France"));
        assert!(!asks("France. She came from Quistan to", "France"));
        assert!(!asks("France has gold and", "France"));
        assert!(!asks("anything", " "));
        assert!(!asks("", "France"));
        // What goes before a name can make another one of it.
        for longer in ["West Virginia", "the state of West Virginia", "Papua Virginia-Virginia"] {
            assert!(!asks(&format!("The capital of {longer} is"), "Virginia"), "{longer}");
        }
        assert!(!asks("You can find Papua Neu Guinea on the map of", "Guinea"));
        assert!(!asks("West Virginia has its capital in", "Virginia"));
        assert!(!asks("Port-Vila is in", "Vila"));
        assert!(asks("Visit Virginia: its capital is", "Virginia"));
        assert!(asks("As for Virginia - its capital is", "Virginia"));
        assert!(asks("They say that King Harald rules", "Harald"));
        assert!(asks("die Hauptstadt Virginia hat", "Virginia"));
        assert!(asks("Germany has no is yet", "is"));
        let long =
            "The Long and Winding Title of a Book That Has, One Must Say, Far Too Many Words";
        assert!(asks(&format!("The author of {long} is"), long));
    }
}
