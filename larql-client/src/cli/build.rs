//! `larql build`: a vindex as a Vindexfile says (docs/formats/vindexfile.md), by statements.
//!
//! What the file says is done on a branch that begins with the base as it was mounted and is dropped in the end, so
//! that a build sees nothing of what else is edited, and leaves nothing behind. The same file, base and patches
//! give the same vindex, byte for byte.
//!
//! What is asserted is checked once everything is done, and again by COMPILE: the file's assertions, and those of the
//! base's branch `main` that its weights keep by themselves. Assertions about edits that the build leaves out say
//! nothing of it.

mod vindexfile;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::vindexfile::{Assertion, Directive, Vindexfile};
use super::Failure;
use super::args::Build;
use crate::client::ExecuteOptions;
use crate::event::Event;
use crate::quote::quote;
use crate::shell::render::{Format, Message, Options, Script};
use crate::shell::{Outcome, Shell, tell};
use crate::value::{Column, ColumnType, Row, Value};

/// The file's name.
const NAME: &str = "Vindexfile";
/// Its most bytes.
const BYTES_MAX: u64 = 1 << 20;
/// The code of an assertion that does not hold.
const NOT_HELD: &str = "P0004";
/// The code of a patch that is not there.
const NO_SUCH_FILE: &str = "58P01";

/// The statements of a build, in the order in which they run.
struct Statements {
    /// What makes the base the one in use.
    base: String,
    /// The branch.
    branch: String,
    /// What the file says.
    work: String,
    /// What it asserts.
    asserted: Vec<Assertion>,
    /// The vindex.
    compile: String,
    /// Whatever came of that.
    end: String,
    /// Once the vindex is there.
    after: Option<String>,
}

/// Builds.
pub(super) async fn run(build: &Build, shell: &mut Shell) -> Result<(), Failure> {
    let directory = std::path::absolute(&build.directory).unwrap_or(build.directory.clone());
    let path = directory.join(NAME);
    let text = read(&path).map_err(Failure::client)?;
    let file = Vindexfile::parse(&text).map_err(|error| {
        let message = format!("{}:{}: {}", path.display(), error.line, error.problem);
        Failure::client(Message::new("42601", message).with_hint(error.hint))
    })?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let branch = format!("build_{}_{}", std::process::id(), since.as_millis());
    let statements = statements(&file, build, &directory, &branch).map_err(Failure::client)?;
    let junit = build.junit.as_deref().map(Report::create).transpose()?;
    let mut outcome = shell.feed(&statements.base).await?;
    if outcome == Outcome::Done {
        let branch = &statements.branch;
        let begin =
            format!("CREATE BRANCH {branch} FROM main AS OF LSN 0; USE CURRENT BRANCH {branch};");
        outcome = shell.feed(&begin).await?;
    }
    if outcome == Outcome::Done {
        let worked = work(&statements, junit, shell).await;
        let ended = shell.feed(&statements.end).await?;
        outcome = match worked? {
            Outcome::Done => ended,
            failed => failed,
        };
    } else if let Some(junit) = junit {
        junit.nothing_was_checked()?;
    }
    if let (Outcome::Done, Some(after)) = (outcome, &statements.after) {
        outcome = shell.feed(after).await?;
    }
    shell.finish()?;
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(Failure::Ended(outcome)),
    }
}

/// What the file says, on the build's branch; then what is asserted of it, and the vindex.
async fn work(
    statements: &Statements,
    junit: Option<Report>,
    shell: &mut Shell,
) -> Result<Outcome, Failure> {
    let kept = match begin(statements, shell).await {
        Ok(kept) => kept,
        Err(failure) => {
            if let Some(junit) = junit {
                junit.nothing_was_checked()?;
            }
            return Err(failure);
        }
    };
    let asserted = statements.asserted.iter().chain(&kept);
    let asserted: String = asserted.map(create).collect();
    let mut outcome = shell.feed(&statements.work).await?;
    if outcome == Outcome::Done {
        outcome = shell.feed(&asserted).await?;
    }
    if let Some(junit) = junit {
        outcome = match outcome {
            Outcome::Done => shell.feed_into(junit.file, junit.format, "CHECK ASSERTIONS;").await?,
            failed => {
                junit.nothing_was_checked()?;
                failed
            }
        };
    }
    match outcome {
        Outcome::Done => Ok(shell.feed(&statements.compile).await?),
        failed => Ok(failed),
    }
}

/// The statement that makes an assertion.
fn create(assertion: &Assertion) -> String {
    let Assertion { name, prompt, expected, at_least } = assertion;
    let least = at_least.as_ref().map(|least| format!(" AT LEAST {least}")).unwrap_or_default();
    format!("CREATE ASSERTION {name} AS INFER {} = {}{least};\n", quote(prompt), quote(expected))
}

/// Gives the branch the edits that the base was compiled with beside its weights, which are part of it; returns the
/// assertions of the base's branch `main` that hold so and that the file does not make anew.
async fn begin(statements: &Statements, shell: &mut Shell) -> Result<Vec<Assertion>, Failure> {
    let compiled = "APPLY PATCH \"compiled\" WITHOUT RECEIPT;".to_owned();
    rows(shell, compiled, Some(NO_SUCH_FILE)).await?;
    let branch = &statements.branch;
    let listed = format!("USE CURRENT BRANCH main; SHOW ASSERTIONS; USE CURRENT BRANCH {branch};");
    let rows = rows(shell, listed, None).await?;
    let text = |row: &Row, at: usize| row.get(at).and_then(Value::as_text).map(str::to_owned);
    let all = rows.iter().filter_map(|row| {
        let at_least = match row.get(3) {
            Some(Value::Real(least)) => Some(least.to_string()),
            _ => None,
        };
        Some(Assertion {
            name: text(row, 0)?,
            prompt: text(row, 1)?,
            expected: text(row, 2)?,
            at_least,
        })
    });
    let is_new = |one: &Assertion| statements.asserted.iter().all(|other| other.name != one.name);
    let all: Vec<Assertion> = all.filter(is_new).collect();
    if all.is_empty() {
        return Ok(all);
    }
    let tried: String = all.iter().map(create).collect();
    self::rows(shell, tried, None).await?;
    let checked = self::rows(shell, "CHECK ASSERTIONS;".to_owned(), Some(NOT_HELD)).await?;
    let dropped: String = all.iter().map(|one| format!("DROP ASSERTION {};\n", one.name)).collect();
    self::rows(shell, dropped, None).await?;
    let holds = |name: &str| {
        let holds = |row: &Row| matches!(row.get(1), Some(Value::Boolean(true)));
        checked.iter().any(|row| text(row, 0).as_deref() == Some(name) && holds(row))
    };
    let (kept, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| holds(&one.name));
    for one in left {
        let message = format!(
            "assertion {} does not hold without the base's edits: it is left out",
            one.name
        );
        let hint = "ASSERT in the Vindexfile makes it one of the product";
        tell(
            shell.display(),
            "NOTICE",
            &Message::new("", message).with_hint(hint),
            Script::default(),
        );
    }
    Ok(kept)
}

/// The rows of a script's answers, which are not shown. One code may be no failure.
async fn rows(
    shell: &mut Shell,
    script: String,
    expected: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    let mut statements = shell.client().await?.execute(script, ExecuteOptions::here());
    let mut all = Vec::new();
    while let Some(event) = statements.next().await {
        match event {
            Event::Rows(rows) => all.extend(rows),
            Event::Error(error) if expected == Some(&*error.code) => {}
            Event::Error(error) => return Err(Failure::Call(error.into())),
            _ => {}
        }
    }
    Ok(all)
}

/// The file of `--junit`.
struct Report {
    file: File,
    format: &'static Format,
}

impl Report {
    /// Empties the file, so that nothing of an earlier build stays in it.
    fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |problem: String| {
            let message = format!("could not create {}: {problem}", path.display());
            Failure::client(
                Message::new("58030", message).with_hint("--junit names a file to write"),
            )
        };
        let format = Format::named("junit").map_err(&failed)?;
        let file = File::create(path).map_err(|error| failed(error.to_string()))?;
        Ok(Self { file, format })
    }

    /// Says that the build failed before anything was checked.
    fn nothing_was_checked(mut self) -> Result<(), Failure> {
        let columns = [("name", ColumnType::Text), ("holds", ColumnType::Boolean)];
        let columns =
            columns.map(|(name, column_type)| Column { name: name.to_owned(), column_type });
        let mut renderer = (self.format.renderer)(Options::default());
        let written: io::Result<()> = renderer
            .begin("BUILD", &columns, &mut self.file)
            .and_then(|()| renderer.end(None, &mut self.file))
            .and_then(|()| renderer.finish(&mut self.file));
        written.map_err(|error| {
            Failure::client(Message::new("58030", format!("could not write the report: {error}")))
        })
    }
}

fn read(path: &Path) -> Result<String, Message> {
    let failed = |problem: String| {
        Message::new("58P01", format!("{}: {problem}", path.display()))
            .with_hint("larql build DIR; DIR holds a Vindexfile")
    };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let is_file = file.metadata().is_ok_and(|found| found.is_file());
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        _ if !is_file => Err(failed("is not a regular file".to_owned())),
        Ok(bytes) if bytes as u64 > BYTES_MAX => {
            Err(failed(format!("is larger than {BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn statements(
    file: &Vindexfile,
    build: &Build,
    directory: &Path,
    branch: &str,
) -> Result<Statements, Message> {
    let directives = file.of_stage(build.stage.as_deref()).map_err(|stages| {
        let message = format!("there is no stage {:?}", build.stage.as_deref().unwrap_or_default());
        let hint = match stages.is_empty() {
            true => "the Vindexfile has no STAGE".to_owned(),
            false => format!("stages are {}", stages.join(", ")),
        };
        Message::new("42704", message).with_hint(hint)
    })?;
    // What is named by a path is found from the Vindexfile; a plain name is a mount's, or a patch's.
    let place = |text: &str| {
        let is_path = text.contains('/') || directory.join(text).exists();
        if is_path && !text.contains("://") {
            let path: PathBuf = directory.join(text);
            return quote(&path.display().to_string());
        }
        quote(text)
    };
    let (mut work, mut labels, mut exposed) = (String::new(), None, None);
    let mut asserted = Vec::new();
    for directive in directives {
        match directive {
            Directive::Patch(patch) => work.push_str(&format!("APPLY PATCH {};\n", place(patch))),
            Directive::Insert([entity, relation, target]) => work.push_str(&format!(
                "INSERT INTO EDGES (entity, relation, target) VALUES ({}, {}, {}) WITHOUT RECEIPT;\n",
                quote(entity),
                quote(relation),
                quote(target)
            )),
            Directive::Delete(conditions) => {
                let conditions = conditions.iter();
                let conditions: Vec<String> =
                    conditions.map(|(column, text)| format!("{column} = {}", quote(text))).collect();
                let conditions = conditions.join(" AND ");
                work.push_str(&format!("DELETE FROM EDGES WHERE {conditions} WITHOUT RECEIPT;\n"));
            }
            Directive::Labels(table) => labels = Some(place(table)),
            Directive::Expose(level) => exposed = Some(level),
            Directive::Assert(assertion) => asserted.push(assertion.clone()),
        }
    }
    let output = std::path::absolute(&build.output).unwrap_or_else(|_| build.output.clone().into());
    let output = quote(&output.display().to_string());
    let mut compile = format!("COMPILE CURRENT INTO VINDEX {output}");
    if let Some(level) = exposed {
        compile.push_str(&format!(" WITH {level}"));
    }
    for (asked, word) in [(build.overwrite, " OVERWRITE"), (build.verify, " VERIFY")] {
        compile.push_str(if asked { word } else { "" });
    }
    compile.push(';');
    let label = |table: String| match table.as_str() {
        "\"DEFAULT\"" | "\"default\"" => format!("USE {output}; LABEL CURRENT FROM DEFAULT;"),
        table => format!("USE {output}; LABEL CURRENT FROM FACTS {table};"),
    };
    Ok(Statements {
        base: format!("USE {};", place(&file.from)),
        branch: branch.to_owned(),
        work,
        asserted,
        compile,
        end: format!("USE CURRENT BRANCH main; DROP BRANCH {branch};"),
        after: labels.map(label),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, stage: Option<&str>) -> Result<Statements, Message> {
        let build = Build {
            directory: ".".into(),
            stage: stage.map(str::to_owned),
            output: "/out".to_owned(),
            overwrite: true,
            verify: false,
            junit: None,
        };
        statements(&Vindexfile::parse(text).unwrap(), &build, Path::new("/dir"), "b")
    }

    #[test]
    fn a_file_becomes_statements_on_a_branch_of_its_own() {
        let text = "FROM atlas\nPATCH ./a.vlp\nINSERT (\"a, \\\"b\\\"\", \"r\", \"t\") # why\n\
                    ASSERT peace 'War and' = \"peace\" at least 0.50\nSTAGE small\nDELETE entity = \"x\" AND relation = \"y\"\nEXPOSE browse\nLABELS f/facts.tsv\n";
        let plain = said(text, None).unwrap();
        assert_eq!((&*plain.base, &*plain.branch), ("USE \"atlas\";", "b"));
        assert_eq!(
            plain.work,
            "APPLY PATCH \"/dir/./a.vlp\";\n\
             INSERT INTO EDGES (entity, relation, target) VALUES (\"a, \\\"b\\\"\", \"r\", \"t\") WITHOUT RECEIPT;\n"
        );
        assert_eq!(plain.compile, "COMPILE CURRENT INTO VINDEX \"/out\" OVERWRITE;");
        assert_eq!(
            create(&plain.asserted[0]),
            "CREATE ASSERTION peace AS INFER \"War and\" = \"peace\" AT LEAST 0.5;\n"
        );
        assert!(plain.after.is_none());
        let small = said(text, Some("small")).unwrap();
        assert!(small.work.contains("WHERE entity = \"x\" AND relation = \"y\" WITHOUT RECEIPT;"));
        assert!(small.compile.ends_with("WITH browse OVERWRITE;"), "{}", small.compile);
        let label = "USE \"/out\"; LABEL CURRENT FROM FACTS \"/dir/f/facts.tsv\";";
        assert_eq!(small.after.as_deref(), Some(label));
        assert!(said(text, Some("large")).is_err());
    }
}
