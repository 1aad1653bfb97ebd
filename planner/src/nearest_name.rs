//! Finds the name somebody probably meant.

/// The candidate closest to `word`, if it is close enough to be a slip: at most one edit for words of
/// up to four letters, two for longer ones (a swap of neighbours counts as one). Case is ignored.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<u8> = word.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let edits_max = if word.len() <= 4 { 1 } else { 2 };
    candidates
        .into_iter()
        .filter_map(|candidate| Some((edits(&word, candidate.as_bytes(), edits_max)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

const WORD_BYTES_MAX: usize = 31;

/// Optimal string alignment distance, if at most `edits_max`.
fn edits(word: &[u8], candidate: &[u8], edits_max: usize) -> Option<usize> {
    if candidate.len() > WORD_BYTES_MAX || word.len().abs_diff(candidate.len()) > edits_max {
        return None;
    }
    let mut rows = [[0usize; WORD_BYTES_MAX + 1]; WORD_BYTES_MAX + 1];
    for (index, row) in rows.iter_mut().enumerate() {
        row[0] = index;
    }
    rows[0] = std::array::from_fn(|column| column);
    for (i, &from) in word.iter().enumerate() {
        for (j, to) in candidate.iter().map(u8::to_ascii_lowercase).enumerate() {
            let replaced = rows[i][j] + usize::from(from != to);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(rows[i + 1][j] + 1);
            let swapped = i > 0
                && j > 0
                && from == candidate[j - 1].to_ascii_lowercase()
                && word[i - 1] == to;
            if swapped {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            rows[i + 1][j + 1] = best;
        }
    }
    Some(rows[word.len()][candidate.len()]).filter(|distance| *distance <= edits_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let words = ["SELECT", "DESCRIBE", "SHOW", "WALK"];
        assert_eq!(nearest("selcet", words), Some("SELECT"));
        assert_eq!(nearest("DESCRBE", words), Some("DESCRIBE"));
        assert_eq!(nearest("WLAK", words), Some("WALK"));
        assert_eq!(nearest("banana", words), None);
        assert_eq!(nearest("", words), None);
    }
}
