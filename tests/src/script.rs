//! Golden scripts of statements: what a session says, and what the daemon answers.
//!
//! A file of `tests/scripts/` is blocks with a line `====` between them; a block is statements, a line
//! `---`, and their answers. All blocks of a file share one session. Each statement is sent by itself,
//! so that one that fails does not keep the next from running. An answer is a line of JSON a row (as
//! `larql -F ndjson` prints it, reals rounded to four digits), `NOTICE` and `HINT` lines, or
//! `ERROR code at byte "text": message`; a statement that answers nothing says `OK` and its tag. Where
//! a block has several statements, `> statement` comes before each answer.
//!
//! What differs from run to run is written as `…`: the columns that a line `-- MASK column, column` of the
//! file names, wherever they are not NULL (also as keys of JSON in a cell; with `lsn` also in messages), and rates.

use std::fmt::Write as _;
use std::ops::Range;

use larql_client::shell::render::write_json;
use larql_client::shell::split;
use larql_client::{Client, Event, ExecuteOptions, Notice, StatementError, Value};
use larql_planner::syntax::parse_script;

use crate::{atlas_checkpoint, repository};

/// Between two blocks.
pub const BETWEEN_BLOCKS: &str = "====\n";
/// Between the statements of a block and their answers.
pub const BEFORE_ANSWERS: &str = "---\n";

/// How far a number may be from the written one, relative to it: another instruction set sums in
/// another order, and four digits are written.
const TOLERANCE: f64 = 2e-3;

/// Where the statements of a block are. Where the block does not parse they are what the shell would send,
/// so that the daemon says of each what is wrong.
pub fn statements(block: &str) -> Vec<Range<usize>> {
    let Ok(parsed) = parse_script(block) else { return split::statements(block) };
    parsed.iter().map(|found| found.span.start as usize..found.span.end as usize).collect()
}

/// Stands for what differs from run to run.
const MASK: &str = "…";

/// What a file wants masked.
#[derive(Debug, Default)]
pub struct Masks(Vec<String>);

impl Masks {
    /// Those that the lines `-- MASK` of a file name.
    pub fn of(file: &str) -> Self {
        let lines = file.lines().filter_map(|line| line.strip_prefix("-- MASK "));
        let names = lines.flat_map(|line| line.split(','));
        Self(names.map(|name| name.trim().to_owned()).collect())
    }

    fn has(&self, column: &str) -> bool {
        self.0.iter().any(|name| name == column)
    }

    /// A cell as a script shows it.
    fn cell(&self, column: &str, value: Value) -> Value {
        match value {
            Value::Null => Value::Null,
            _ if self.has(column) => Value::from(MASK),
            Value::Text(text) => Value::from(self.text(&text).as_str()),
            other => other,
        }
    }

    /// A text without its rates, and without what is masked if it is JSON.
    fn text(&self, text: &str) -> String {
        if let Ok(mut json) = serde_json::from_str::<serde_json::Value>(text)
            && (json.is_object() || json.is_array())
        {
            self.json(&mut json);
            return json.to_string();
        }
        let mut words: Vec<&str> = text.split(' ').collect();
        for at in 1..words.len() {
            if matches!(words[at].trim_end_matches(','), "GB/s" | "%") {
                words[at - 1] = MASK;
            }
        }
        words.join(" ")
    }

    /// A message without the LSNs in it, where they are masked.
    fn message(&self, text: &str) -> String {
        let mut parts = text.split("LSN ");
        let mut masked = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            let part = if self.has("lsn") && rest.len() < part.len() {
                format!("{MASK}{rest}")
            } else {
                part.to_owned()
            };
            masked = masked + "LSN " + &part;
        }
        masked
    }

    fn json(&self, json: &mut serde_json::Value) {
        match json {
            serde_json::Value::Object(members) => {
                for (name, member) in members {
                    if self.has(name) && !member.is_null() {
                        *member = MASK.into();
                    }
                    self.json(member);
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            serde_json::Value::String(text) => *text = self.text(text),
            _ => {}
        }
    }
}

/// A directory for the files that statements name: a copy of `tests/scripts/files`, which they may add
/// to, with the bundled checkpoint as `models/atlas`.
///
/// # Panics
/// If it cannot be made.
pub fn scratch() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("files-").tempdir().expect("a directory");
    let files = repository().join("tests/scripts/files");
    for entry in std::fs::read_dir(files).expect("tests/scripts/files") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, directory.path().join(name)).expect("a copy");
    }
    let models = directory.path().join("models");
    std::fs::create_dir(&models).expect("a directory");
    std::os::unix::fs::symlink(atlas_checkpoint(), models.join("atlas")).expect("a link");
    directory
}

/// Runs one statement and returns its answer as lines.
pub async fn answer(
    client: &mut Client,
    statement: &str,
    options: ExecuteOptions,
    masks: &Masks,
) -> String {
    let mut lines = String::new();
    let (mut tag, mut columns) = (String::new(), Vec::new());
    let mut events = client.execute(statement, options);
    while let Some(event) = events.next().await {
        match event {
            Event::Schema { tag: found, columns: names, .. } => {
                (tag, columns) = (found, names);
            }
            Event::Rows(rows) => {
                for row in rows {
                    let names = columns.iter().map(|column| column.name.clone());
                    let cells = names.zip(row.into_iter().map(rounded));
                    let shown = cells.map(|(name, cell)| {
                        let cell = masks.cell(&name, cell);
                        (name, cell)
                    });
                    let row = Value::Object(shown.collect());
                    write_json(&row, &mut lines);
                    lines.push('\n');
                }
            }
            Event::Notice(Notice { message, hint, .. }) => {
                lines += &format!("NOTICE {}\n", masks.message(&message));
                write_hint(&mut lines, &hint);
            }
            Event::Error(mut error) => {
                error.message = masks.message(&error.message);
                write_error(&mut lines, statement, &error);
            }
            Event::Progress(_) | Event::Summary(_) | Event::Finished { .. } => {}
        }
    }
    if lines.is_empty() { format!("OK {tag}\n") } else { lines }
}

fn write_error(lines: &mut String, statement: &str, error: &StatementError) {
    let place = error.position.map(|place| {
        let start = place.offset as usize;
        let text = statement.get(start..start + place.length as usize).unwrap_or_default();
        format!(" at {start} {text:?}")
    });
    let StatementError { code, message, hint, .. } = error;
    let _ = writeln!(lines, "ERROR {code}{}: {message}", place.unwrap_or_default());
    write_hint(lines, hint);
}

fn write_hint(lines: &mut String, hint: &str) {
    if !hint.is_empty() {
        let _ = writeln!(lines, "HINT {hint}");
    }
}

/// A value with its reals rounded to four digits; lists by element.
fn rounded(value: Value) -> Value {
    let four = |real: f64| format!("{real:.3e}").parse().unwrap_or(real);
    match value {
        Value::Real(real) => Value::Real(four(real)),
        Value::Score(score) => Value::Real(four(score.into())),
        Value::List(values) => Value::List(values.into_iter().map(rounded).collect()),
        other => other,
    }
}

/// Whether two answers say the same, numbers in rows compared within a tolerance.
pub fn same(found: &str, expected: &str) -> bool {
    let (found, expected) = (found.trim_end().lines(), expected.trim_end().lines());
    found.clone().count() == expected.clone().count()
        && found.zip(expected).all(|(found, expected)| {
            let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
            found == expected
                || matches!((json(found), json(expected)), (Some(a), Some(b)) if alike(&a, &b))
        })
}

fn alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (a, b) {
        (Json::Number(a), Json::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() <= TOLERANCE * b.abs()
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|((name, a), (other, b))| name == other && alike(a, b))
        }
        _ => a == b,
    }
}
