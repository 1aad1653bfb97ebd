//! When two names are one: differences of case, and space around, tell no entities and no relations apart.
//!
//! Elsewhere: which words are names at all, and which text names whom (larqld).

/// The text with differences of case removed, for comparing names.
///
/// Upper-casing before lower-casing makes `ß` equal to `ss` and the final sigma equal to the other,
/// as Unicode case folding does.
pub fn case_folded(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}

/// A name as it is compared with another.
pub fn compared(name: &str) -> String {
    case_folded(name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_space_around_do_not_tell_names_apart() {
        assert_eq!(compared(" STRASSE"), compared("straße"));
        assert_eq!(compared("ΟΔΟΣ"), compared("οδος "));
        assert_ne!(compared("Niger"), compared("Nigeria"));
    }
}
