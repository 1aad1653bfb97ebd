//! `larql build`: a vindex as a Vindexfile says (docs/formats/vindexfile.md), by statements.
//!
//! What the file says is done on a branch of the base's edits that begins with none and is dropped in the end, so
//! that a build sees nothing of what else is edited, and leaves nothing behind. The same file, base and patches
//! give the same vindex, byte for byte.

mod vindexfile;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::vindexfile::{Directive, Vindexfile};
use super::Failure;
use super::args::Build;
use crate::quote::quote;
use crate::shell::render::Message;
use crate::shell::{Outcome, Shell};

/// The file's name.
const NAME: &str = "Vindexfile";
/// Its most bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The statements of a build, in the order in which they run.
struct Statements {
    /// Until there is a branch of its own.
    begin: String,
    /// What the file says, and the vindex.
    work: String,
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
    let mut outcome = shell.feed(&statements.begin).await?;
    if outcome == Outcome::Done {
        outcome = shell.feed(&statements.work).await?;
        let ended = shell.feed(&statements.end).await?;
        if outcome == Outcome::Done {
            outcome = ended;
        }
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
        }
    }
    let output = std::path::absolute(&build.output).unwrap_or_else(|_| build.output.clone().into());
    let output = quote(&output.display().to_string());
    work.push_str(&format!("COMPILE CURRENT INTO VINDEX {output}"));
    if let Some(level) = exposed {
        work.push_str(&format!(" WITH {level}"));
    }
    for (asked, word) in [(build.overwrite, " OVERWRITE"), (build.verify, " VERIFY")] {
        work.push_str(if asked { word } else { "" });
    }
    work.push(';');
    let label = |table: String| match table.as_str() {
        "\"DEFAULT\"" | "\"default\"" => format!("USE {output}; LABEL CURRENT FROM DEFAULT;"),
        table => format!("USE {output}; LABEL CURRENT FROM FACTS {table};"),
    };
    Ok(Statements {
        begin: format!(
            "USE {}; CREATE BRANCH {branch} FROM main AS OF LSN 0; USE CURRENT BRANCH {branch};",
            place(&file.from)
        ),
        work,
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
        };
        statements(&Vindexfile::parse(text).unwrap(), &build, Path::new("/dir"), "b")
    }

    #[test]
    fn a_file_becomes_statements_on_a_branch_of_its_own() {
        let text = "FROM atlas\nPATCH ./a.vlp\nINSERT (\"a, \\\"b\\\"\", \"r\", \"t\") # why\n\
                    STAGE small\nDELETE entity = \"x\" AND relation = \"y\"\nEXPOSE browse\nLABELS f/facts.tsv\n";
        let plain = said(text, None).unwrap();
        assert_eq!(
            plain.begin,
            "USE \"atlas\"; CREATE BRANCH b FROM main AS OF LSN 0; USE CURRENT BRANCH b;"
        );
        assert_eq!(
            plain.work,
            "APPLY PATCH \"/dir/./a.vlp\";\n\
             INSERT INTO EDGES (entity, relation, target) VALUES (\"a, \\\"b\\\"\", \"r\", \"t\") WITHOUT RECEIPT;\n\
             COMPILE CURRENT INTO VINDEX \"/out\" OVERWRITE;"
        );
        assert!(plain.after.is_none());
        let small = said(text, Some("small")).unwrap();
        assert!(small.work.contains("WHERE entity = \"x\" AND relation = \"y\" WITHOUT RECEIPT;"));
        assert!(small.work.ends_with("WITH browse OVERWRITE;"), "{}", small.work);
        let label = "USE \"/out\"; LABEL CURRENT FROM FACTS \"/dir/f/facts.tsv\";";
        assert_eq!(small.after.as_deref(), Some(label));
        assert!(said(text, Some("large")).is_err());
    }
}
