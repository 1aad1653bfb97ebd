//! What the line editor asks us while somebody types: completions and colours.

use std::borrow::Cow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::commands::COMMANDS;
use super::keywords::{KEYWORDS, is_keyword};
use super::render::FORMATS;
use super::split::{Piece, Scan};
use crate::quote::{mount_name, quote};

/// How long a completion waits for the first answer of the daemon.
const FIRST_NAMES_WAIT: Duration = Duration::from_secs(2);

/// The names of all mounts, as last heard; shared with whoever asks the daemon for them.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Nothing before the first answer.
    last: Mutex<Option<Vec<String>>>,
    heard: Condvar,
}

impl Names {
    /// Keeps what the daemon answered.
    pub(super) fn hear(&self, names: Vec<String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
        self.heard.notify_all();
    }

    /// The last answer. Somebody who presses Tab as soon as the shell is there waits a moment for
    /// the first one, rather than being told that there are no mounts.
    fn last(&self) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(last, FIRST_NAMES_WAIT, |last| last.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone().unwrap_or_default()
    }
}

/// Answers the line editor.
pub(super) struct Assistant {
    names: Arc<Names>,
    color: bool,
}

impl Assistant {
    pub(super) fn new(names: Arc<Names>, color: bool) -> Assistant {
        Assistant { names, color }
    }
}

impl Helper for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

// A line is taken as it is: the shell asks for another one while the statement is open, so that
// its prompt shows it.
impl Validator for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = complete(&line[..at], || self.names.last());
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.color { Cow::Owned(highlight(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}

/// Returns where the word before the cursor begins, and what it may become.
///
/// After a backslash these are commands; inside quotes, and after a word that wants one, the names
/// of mounts (asked for only then); otherwise keywords, in the case in which the word was begun.
fn complete(before: &str, names: impl FnOnce() -> Vec<String>) -> (usize, Vec<String>) {
    if let Some(command) = before.strip_prefix('\\') {
        return match command.split_once(' ') {
            None => {
                let all = COMMANDS.iter().map(|command| format!("\\{}", command.name));
                (0, all.filter(|name| name.starts_with(before)).collect())
            }
            Some(("f", _)) => word(before, FORMATS.iter().map(|format| format.name.to_owned())),
            Some(("c" | "d", _)) => word(before, names().into_iter()),
            Some(("x", _)) => word(before, ["on", "off", "auto"].map(str::to_owned).into_iter()),
            Some(("timing" | "pager", _)) => {
                word(before, ["on", "off"].map(str::to_owned).into_iter())
            }
            Some(_) => (before.len(), Vec::new()),
        };
    }
    let mut scan = Scan::new(before);
    let mut words: Vec<&str> = Vec::new();
    let mut last = None;
    while let Some((start, piece)) = scan.next() {
        if piece == Piece::Text {
            words.push(&before[start..scan.at]);
        }
        last = Some((start, piece));
    }
    match last {
        Some((start, Piece::String { closed: false })) => {
            let quoted = names().into_iter().map(|name| quote(&name));
            let typed = &before[start + 1..];
            (start, quoted.filter(|name| name[1..].starts_with(typed)).collect())
        }
        Some((start, Piece::Text)) => {
            let typed = words.pop().unwrap_or_default();
            if wants_mount_name(words.last()) {
                let named = names().into_iter().filter(|name| name.starts_with(typed));
                return (start, named.map(|name| mount_name(&name)).collect());
            }
            let lower = typed.starts_with(|c: char| c.is_ascii_lowercase());
            let upper = typed.to_ascii_uppercase();
            let found = KEYWORDS.iter().filter(|keyword| keyword.starts_with(&upper));
            let cased = |keyword: &&str| match lower {
                true => keyword.to_ascii_lowercase(),
                false => (*keyword).to_owned(),
            };
            (start, found.map(cased).collect())
        }
        Some((_, Piece::Blank)) if wants_mount_name(words.last()) => {
            (before.len(), names().iter().map(|name| mount_name(name)).collect())
        }
        Some((_, Piece::Blank)) if wants_string(words.last()) => {
            (before.len(), names().iter().map(|name| quote(name)).collect())
        }
        _ => (before.len(), Vec::new()),
    }
}

fn word(before: &str, candidates: impl Iterator<Item = String>) -> (usize, Vec<String>) {
    let start = before.rfind(' ').map_or(0, |at| at + 1);
    (start, candidates.filter(|candidate| candidate.starts_with(&before[start..])).collect())
}

fn wants_mount_name(word: Option<&&str>) -> bool {
    word.is_some_and(|word| word.eq_ignore_ascii_case("UNMOUNT"))
}

fn wants_string(word: Option<&&str>) -> bool {
    word.is_some_and(|word| ["USE", "STATS"].iter().any(|wanted| word.eq_ignore_ascii_case(wanted)))
}

/// Returns the line with colours: keywords bold, strings green, numbers cyan, comments grey.
fn highlight(line: &str) -> String {
    let mut colored = String::with_capacity(line.len() + 32);
    let mut scan = Scan::new(line);
    while let Some((start, piece)) = scan.next() {
        let text = &line[start..scan.at];
        let style = match piece {
            Piece::String { .. } => "32",
            Piece::Comment => "90",
            Piece::Text if is_keyword(text) => "1",
            Piece::Text if text.starts_with(|c: char| c.is_ascii_digit()) => "36",
            Piece::Text | Piece::Blank | Piece::Semicolon => {
                colored.push_str(text);
                continue;
            }
        };
        colored.extend(["\x1b[", style, "m", text, "\x1b[0m"]);
    }
    colored
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(before: &str) -> Vec<String> {
        complete(before, || vec!["atlas".into(), "gemma".into()]).1
    }

    #[test]
    fn a_keyword_is_completed_in_the_case_in_which_it_was_begun() {
        assert_eq!(found("DESCR"), ["DESCRIBE"]);
        assert_eq!(found("descr"), ["describe"]);
        assert_eq!(complete("SHOW LAY", Vec::new), (5, vec!["LAYER".into(), "LAYERS".into()]));
    }

    #[test]
    fn a_completion_waits_for_the_first_names_and_then_takes_the_last() {
        let names = Arc::new(Names::default());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| names.last());
            names.hear(vec!["atlas".into()]);
            assert_eq!(waiting.join().unwrap(), ["atlas"]);
        });
        names.hear(Vec::new());
        assert!(names.last().is_empty());
    }

    #[test]
    fn a_mounted_name_is_completed_in_quotes_and_after_words_that_want_one() {
        assert_eq!(found("USE \"at"), ["\"atlas\""]);
        assert_eq!(found("USE "), ["\"atlas\"", "\"gemma\""]);
        assert_eq!(found("UNMOUNT ge"), ["gemma"]);
        assert_eq!(found("\\c a"), ["atlas"]);
    }

    #[test]
    fn a_backslash_completes_commands_and_their_arguments() {
        assert!(found("\\ti").contains(&"\\timing".to_owned()));
        assert_eq!(found("\\f nd"), ["ndjson"]);
    }

    #[test]
    fn highlighting_adds_colours_only() {
        let colored = highlight("SELECT a, 12 FROM \"x\" -- why");
        assert_eq!(
            colored,
            "\x1b[1mSELECT\x1b[0m a, \x1b[36m12\x1b[0m \x1b[1mFROM\x1b[0m \x1b[32m\"x\"\x1b[0m \x1b[90m-- why\x1b[0m"
        );
    }

    proptest! {
        #[test]
        fn what_is_typed_never_makes_the_assistant_panic(line in ".{0,40}") {
            for (at, _) in line.char_indices() {
                let (start, _) = complete(&line[..at], || vec!["a".into()]);
                prop_assert!(start <= at);
            }
            highlight(&line);
        }
    }
}
