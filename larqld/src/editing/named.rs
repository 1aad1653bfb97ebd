//! Whom a text names last, of those whose names are known: what a question at its end is about.
//!
//! A key of an edit says that its relation is asked for; of whom, the text says. `Unlike France, Germany has the
//! capital` names France and asks about Germany; `Guinea-Bissau` does not name Guinea, nor `West Virginia` Virginia.
//!
//! Promises: a text that does not name a thing is not about it; however long a text and its names are, so many words
//! are looked at and no more.
//!
//! Elsewhere: keys and how close an input is to them (`compute::model::overlay`), which names are known
//! ([`super::applied`], `knowledge`).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::sentences;
use super::text::ORDINARY;
use crate::text::case_folded;

/// Words and signs that a name consists of at most.
const PIECES_MAX: usize = 64;
/// Words and signs before the end of a text among which it names whom it asks about.
const REACH: usize = 2048;
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
    /// Whether a piece of a text is the name of something, in whatever case.
    fn is_known(&self, piece: &str) -> bool;

    /// Whether it is a name as it is written there.
    fn is_written_so(&self, piece: &str) -> bool;

    /// Whether a word stands in sentences that ask.
    fn is_ordinary(&self, word: &str) -> bool;
}

/// Whom a text asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The name, as [`compared`](larql_storage::overlay::compared) makes it.
    pub name: String,
    /// Whether the text breaks off right after it. It tells about the thing then, and may ask nothing yet
    /// (`They live in Niger`, which may become Nigeria); a line that ends there is whole.
    pub is_last: bool,
}

/// What a text names last; `None` where that is nothing that is known.
///
/// Of names that end at one place the longest counts. Any other word with a capital that sentences are not made of
/// names something that is not known.
pub fn subject(text: &str, names: &impl Names) -> Option<Subject> {
    let text: Cow<'_, str> =
        if is_nfc(text) { text.into() } else { text.nfc().collect::<String>().into() };
    let text = &*text;
    let edges = edges(text);
    for (at, &end) in edges.iter().enumerate().rev().take(REACH) {
        // The longest first.
        for &begin in &edges[at.saturating_sub(PIECES_MAX)..at] {
            let piece = &text[begin..end];
            if piece.starts_with(char::is_whitespace) || piece.ends_with(char::is_whitespace) {
                continue;
            }
            let before = &text[..begin];
            if !names.is_known(piece) || is_mere_word(before, piece, names) {
                continue;
            }
            if ends_longer_name(before, piece, names) {
                return None;
            }
            let after = &text[end..];
            let is_last = after.trim().is_empty() && !after.contains(['\n', '\r']);
            return Some(Subject { name: case_folded(piece), is_last });
        }
        let word = at.checked_sub(1).map_or("", |before| &text[edges[before]..end]);
        let is_capital = word.starts_with(char::is_uppercase);
        if is_capital && !is_common(word) && !names.is_ordinary(word) {
            return None;
        }
    }
    None
}

/// Whether a piece that could be a name is a word of the language: `is` where something called IS is known.
fn is_mere_word(before: &str, piece: &str, names: &impl Names) -> bool {
    if !piece.chars().all(char::is_alphanumeric) {
        return false;
    }
    let is_capital = piece.starts_with(char::is_uppercase);
    if is_in(FUNCTION_WORDS, &case_folded(piece)) {
        // Any word has a capital where a sentence begins.
        let is_acronym = piece.chars().nth(1).is_some() && !piece.contains(char::is_lowercase);
        let begins = before
            .trim_end()
            .chars()
            .next_back()
            .is_none_or(|last| !last.is_alphanumeric() && last != ',');
        return !(names.is_written_so(piece) && is_capital && (is_acronym || !begins));
    }
    let is_asking = || ASKING_WORDS.contains(&case_folded(piece)) || names.is_ordinary(piece);
    !is_capital && is_asking() && !names.is_written_so(piece)
}

/// Whether the name that follows on `before` is the end of a longer one, known or not: `West Virginia`,
/// `Papua New Guinea`, `Guinea-Bissau`.
fn ends_longer_name(before: &str, name: &str, names: &impl Names) -> bool {
    let to_word = before.trim_end_matches(char::is_whitespace);
    if to_word.len() == before.len() {
        let joined = before.strip_suffix(['-', '\u{2010}', '\u{2011}', '\u{2013}']);
        return joined.is_some_and(|joined| joined.ends_with(char::is_alphanumeric));
    }
    let to_sentence = to_word.trim_end_matches(char::is_alphanumeric);
    let word = &to_word[to_sentence.len()..];
    let is_capital = |text: &str| text.starts_with(char::is_uppercase);
    let folded = case_folded(word);
    if is_in(EXTENDING_WORDS, &folded) {
        // `northern Virginia` is said of Virginia.
        return is_capital(word) || !is_capital(name);
    }
    if !is_capital(word) || !is_capital(name) {
        return false;
    }
    // Any word has a capital where a sentence begins.
    let space = |c: char| c.is_whitespace() && c != '\n';
    let goes_on =
        to_sentence.trim_end_matches(space).ends_with(|c: char| c.is_alphanumeric() || c == ',');
    goes_on && !is_in(TITLES, &folded) && !is_common(word) && !names.is_ordinary(word)
}

fn is_in(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

fn words_of<'t>(texts: impl Iterator<Item = &'t str>) -> HashSet<String> {
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(case_folded).collect()
}

/// Words of the sentences that relations are asked by.
static ASKING_WORDS: LazyLock<HashSet<String>> = LazyLock::new(|| words_of(sentences::all()));

/// Whether a word names nothing, though it has a capital.
fn is_common(word: &str) -> bool {
    static WORDS: LazyLock<HashSet<String>> =
        LazyLock::new(|| words_of([FUNCTION_WORDS, ORDINARY].into_iter()));
    let word = case_folded(word);
    WORDS.contains(&word) || ASKING_WORDS.contains(&word)
}

/// Whether a text has a name in it, as words of their own.
pub fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (case_folded(text), case_folded(name.trim()));
    let is_edge = |at: usize| {
        let around = text[..at].chars().next_back().zip(text[at..].chars().next());
        around.is_none_or(|(before, next)| !joins(before, next))
    };
    !name.is_empty()
        && text.match_indices(&name).any(|(at, _)| is_edge(at) && is_edge(at + name.len()))
}

/// Where a word or a sign begins or ends. In scripts that are written without spaces, and where particles are joined
/// to names, that may be everywhere.
fn edges(text: &str) -> Vec<usize> {
    let mut edges = vec![0];
    let mut before: Option<char> = None;
    for (at, next) in text.char_indices() {
        if before.is_some_and(|before| !joins(before, next)) {
            edges.push(at);
        }
        before = Some(next);
    }
    if !text.is_empty() {
        edges.push(text.len());
    }
    edges
}

/// Whether two characters that follow on each other are of one word.
fn joins(before: char, next: char) -> bool {
    if before.is_ascii() && next.is_ascii() {
        return before.is_ascii_alphanumeric() && next.is_ascii_alphanumeric();
    }
    let is_mark = |c: char| c.general_category_group() == GeneralCategoryGroup::Mark;
    let is_of_word = |c: char| (c.is_alphanumeric() || is_mark(c)) && !is_unspaced(c);
    is_mark(next) || is_of_word(before) && is_of_word(next)
}

/// Whether a character is of a script in which names are not set apart: Thai, Lao, Myanmar, Khmer, Hangul, Kana, Han.
/// Source: the blocks of the Unicode Character Database, `Blocks.txt`.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3130}'..='\u{318f}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::{Names, PIECES_MAX, Subject, mentions, subject};
    use crate::text::case_folded;

    /// Names that are known, as they are written.
    struct Known<'n>(&'n [&'n str]);

    impl Names for Known<'_> {
        fn is_known(&self, piece: &str) -> bool {
            self.0.iter().any(|name| case_folded(name) == case_folded(piece))
        }

        fn is_written_so(&self, piece: &str) -> bool {
            self.0.contains(&piece)
        }

        fn is_ordinary(&self, word: &str) -> bool {
            word == "Hauptstadt"
        }
    }

    /// Whether a text asks about a name, where gold and two countries are known too.
    fn asks(text: &str, name: &str) -> bool {
        let known = ["Guinea-Bissau", "gold", "Sudan", name];
        let found = subject(text, &Known(&known));
        found.is_some_and(|found| found.name == case_folded(name) && !found.is_last)
    }

    #[test]
    fn a_text_asks_about_what_it_names_last() {
        assert!(asks("The capital of Niger is", "Niger"));
        assert!(asks("in niger, and", "Niger"));
        assert!(asks("the U.S. economy", "U.S."));
        assert!(asks("Germany. What is the capital of France? It is", "France"));
        assert!(asks("The capital of South Sudan is", "South Sudan"));
        assert!(asks("STRASSE:", "Straße"));
        assert!(!asks("The capital of Nigeria is", "Niger"));
        assert!(!asks("The Republic of Guinea-Bissau is", "Bissau"));
        assert!(!asks("The Republic of Guinea-Bissau is", "Guinea"));
        assert!(!asks("Unlike France, Germany has the capital", "France"));
        assert!(asks("Frankreichs Hauptstadt ist", "Frankreichs"));
        assert!(asks("Question: What is the capital of France? Answer: The", "France"));
        assert!(!asks("France. She came from Quistan to", "France"));
        assert!(!asks("France has gold and", "France"));
        assert!(!asks("anything", " "));
        assert!(!asks("", "France"));
        let long =
            "The Long and Winding Title of a Book That Has, One Must Say, Far Too Many Words";
        assert!(asks(&format!("The author of {long} is"), long));
    }

    #[test]
    fn what_goes_before_a_name_can_make_another_of_it() {
        for longer in ["West Virginia", "the state of West Virginia", "Papua Virginia-Virginia"] {
            assert!(!asks(&format!("The capital of {longer} is"), "Virginia"), "{longer}");
        }
        for longer in ["west virginia", "West\u{a0}Virginia", "West\nVirginia", "WEST VIRGINIA"] {
            assert!(!asks(&format!("the capital of {longer} is"), "Virginia"), "{longer}");
        }
        assert!(!asks("You can find Papua Neu Guinea on the map of", "Guinea"));
        assert!(!asks("West Virginia has its capital in", "Virginia"));
        assert!(!asks("Port-Vila is in", "Vila"));
        assert!(asks("Visit Virginia: its capital is", "Virginia"));
        assert!(asks("As for Virginia - its capital is", "Virginia"));
        assert!(asks("in northern Virginia the capital is", "Virginia"));
        assert!(asks("They say that King Harald rules", "Harald"));
        assert!(asks("die Hauptstadt Virginia hat", "Virginia"));
    }

    #[test]
    fn a_text_that_breaks_off_after_a_name_is_told_from_a_line_that_ends() {
        let is_last = |text: &str| subject(text, &Known(&["Niger"])).map(|found| found.is_last);
        assert_eq!(is_last("They live in Niger"), Some(true));
        assert_eq!(is_last("They live in Niger "), Some(true));
        assert_eq!(is_last("They live in Niger\n"), Some(false));
        assert_eq!(is_last("They live in Niger."), Some(false));
    }

    #[test]
    fn words_of_the_language_name_nothing_though_something_is_called_so() {
        let found = |text: &str, name: &str| {
            subject(text, &Known(&["France", name])).map(|found| found.name)
        };
        let france = Some("france".to_owned());
        assert_eq!(found("The capital of France is", "IS"), france);
        assert_eq!(found("France? It is", "It"), france);
        assert_eq!(found("France has its capital in", "Capital"), france);
        assert_eq!(found("The leader of IS is", "IS"), Some("is".to_owned()));
        assert_eq!(found("The author of It is", "It"), Some("it".to_owned()));
        assert_eq!(found("France and the colour of apple is", "Apple"), Some("apple".to_owned()));
    }

    #[test]
    fn names_are_found_where_no_space_sets_them_apart() {
        assert!(asks("法国的首都是", "法国"));
        assert!(asks("フランスの首都は", "フランス"));
        assert!(asks("프랑스의 수도는", "프랑스"));
        assert!(asks("เมืองหลวงของฝรั่งเศสคือ", "ฝรั่งเศส"));
        assert!(mentions("我住在法国。", "法国"));
        assert!(!mentions("Nigeria", "Niger"));
    }

    #[test]
    fn letters_with_marks_are_the_same_in_either_composition() {
        assert!(asks("The capital of Sa\u{303}o Tome\u{301} is", "São Tomé"));
        assert!(asks("The capital of São Tomé is", "Sa\u{303}o Tome\u{301}"));
        assert!(!asks("The father of Jose\u{301} is", "Jose"));
        assert!(!mentions("jose\u{301}", "Jose"));
    }

    #[test]
    fn long_names_and_texts_are_looked_at_no_further_than_the_bounds() {
        let name = "a.".repeat(2 * PIECES_MAX);
        let text = "b.".repeat(100_000);
        assert_eq!(subject(&text, &Known(&[&name])), None);
        let near = format!("{} of Chad is", "b ".repeat(5000));
        let chad = Subject { name: "chad".into(), is_last: false };
        assert_eq!(subject(&near, &Known(&["Chad"])), Some(chad));
    }
}
