//! The line under an answer: how much, how long, and which weights answered.

use crate::event::Summary;

/// How many characters of a base hash tell one from another.
const HASH_CHARACTERS: usize = 12;

/// Returns `(5 rows, 1.2 MB touched, 3.4 ms, base 1a2b3c4d5e6f, main@0)`; a command, which has no
/// columns, is `done` instead.
pub fn summary_text(summary: &Summary, is_command: bool) -> String {
    let mut parts = vec![match summary.rows {
        _ if is_command => "done".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    }];
    if summary.bytes_touched > 0 {
        parts.push(format!("{} touched", bytes_text(summary.bytes_touched)));
    }
    parts.push(format!("{:.1} ms", summary.milliseconds));
    if !summary.base_hash.is_empty() {
        let hash: String = summary.base_hash.chars().take(HASH_CHARACTERS).collect();
        parts.push(format!("base {}", super::text::escape(&hash)));
        if !summary.branch.is_empty() {
            parts.push(format!("{}@{}", super::text::escape(&summary.branch), summary.lsn));
        }
    }
    format!("({})", parts.join(", "))
}

/// Returns a number of bytes in decimal units, such as `1.2 MB`.
pub fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        // What would round to 1000 takes the next unit.
        if value < 999.95 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::render::tests::summary;

    #[test]
    fn a_summary_names_rows_bytes_time_base_and_snapshot() {
        let expected = "(3 rows, 1.2 MB touched, 3.4 ms, base 1a2b3c4d5e6f, main@0)";
        assert_eq!(summary_text(&summary(), false), expected);
    }

    #[test]
    fn a_summary_without_a_base_names_no_snapshot() {
        let summary = Summary { rows: 1, milliseconds: 0.26, ..Summary::default() };
        assert_eq!(summary_text(&summary, false), "(1 row, 0.3 ms)");
    }

    #[test]
    fn a_command_is_done_rather_than_of_no_rows() {
        assert_eq!(summary_text(&Summary::default(), true), "(done, 0.0 ms)");
    }

    #[test]
    fn bytes_take_the_unit_that_keeps_them_below_a_thousand() {
        let texts = [0, 999, 1000, 999_949, 999_950, 2_500_000_000, u64::MAX].map(bytes_text);
        let expected = ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "2.5 GB", "18446744.1 TB"];
        assert_eq!(texts, expected);
    }
}
