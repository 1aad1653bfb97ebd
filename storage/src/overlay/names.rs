//! When two names are one: differences of case, of how a character is composed, and space around, tell no entities and
//! no relations apart.
//!
//! Elsewhere: which words are names at all, and which text names whom (larqld).

use unicode_normalization::UnicodeNormalization;

/// The text with differences of case and of normal form removed, for comparing names.
///
/// Upper-casing before lower-casing makes `ß` equal to `ss` and the final sigma equal to the other,
/// as Unicode case folding does. Letters with marks are as Unicode's NFKC has them, and so are full-width
/// and other forms of compatibility: tokenizers read them alike.
pub fn case_folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let cased = |text: &str| text.to_uppercase().to_lowercase();
    // Some letters come apart where their case changes.
    cased(&text.nfkc().collect::<String>()).nfkc().collect()
}

/// A name as it is compared with another.
pub fn compared(name: &str) -> String {
    case_folded(name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_composition_and_space_around_do_not_tell_names_apart() {
        assert_eq!(compared(" STRASSE"), compared("straße"));
        assert_eq!(compared("ΟΔΟΣ"), compared("οδος "));
        assert_eq!(compared("São Tomé"), compared("sa\u{303}o tome\u{301}"));
        assert_eq!(compared("Ｆｒａｎｃｅ"), compared("FRANCE"));
        assert_eq!(compared("İzmir"), compared(&"İzmir".to_lowercase()));
        assert_ne!(compared("Niger"), compared("Nigeria"));
        assert_ne!(compared("José"), compared("Jose"));
    }
}
