//! `larql demo`: extracts the bundled model and tours the main statements.
//!
//! Without `--data-dir` it runs a daemon of its own in a temporary directory, and removes both when
//! it is done.

use std::path::{Path, PathBuf};

use super::Failure;
use super::args::{Demo, Global};
use crate::quote::quote;
use crate::shell::render::{Message, Script};
use crate::shell::{Display, Interrupts, Outcome, ProgressMode, Shell, ShellError, say};
use crate::start::{self, Access, Daemon, Lifetime};
use crate::target::Target;

/// The bundled model, and the name under which it is mounted.
const MODEL: &str = "atlas";

/// The tour: what each statement shows, and the statement.
const TOUR: &[(&str, &str)] = &[
    ("A vindex is a database: use it.", "USE \"atlas\";"),
    ("What is in it?", "STATS;"),
    ("What does the model know of France, and how sure is that?", "DESCRIBE \"France\";"),
    (
        "Does it need the feature that the edge is shown at?",
        "VERIFY EDGE WHERE entity = \"France\" AND relation = \"capital\";",
    ),
    ("Gates that answer the bare name stand out little in a small model.", "SET describe_z = 2;"),
    ("What they alone say, weak as they are.", "DESCRIBE \"France\" RAW LIMIT 5;"),
    ("Which features does a word touch, layer by layer?", "WALK \"France\" TOP 3;"),
    (
        "Features are rows: filter and sort them.",
        "SELECT entity, target, layer, feature, gate_score FROM EDGES WHERE entity = \"France\" \
         ORDER BY gate_score DESC LIMIT 5;",
    ),
    (
        "Run the model: the next token, with probabilities.",
        "INFER \"The capital of France is\" TOP 5;",
    ),
    ("What does each layer hold?", "SHOW LAYERS;"),
    ("Which relations have labels?", "SHOW RELATIONS;"),
    ("What does one layer's features write?", "SHOW FEATURES 4 LIMIT 5;"),
    (
        "Which operators answer a statement, and what do they cost?",
        "EXPLAIN SELECT target FROM EDGES WHERE entity = \"France\" LIMIT 5;",
    ),
    (
        "Which features acted at the end of that prompt?",
        "EXPLAIN INFER \"The capital of France is\" TOP 2;",
    ),
    ("Knowledge is edited in transactions.", "BEGIN;"),
    (
        "Teach it a fact. The receipt tells what that did to the prompt and to neighbours.",
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"Atlantis\", \"capital\", \"Athens\");",
    ),
    ("The model answers with it.", "INFER \"The capital of Atlantis is\" TOP 3;"),
    ("Undo it: the weights were never written.", "ROLLBACK;"),
    ("And the answer is what it was.", "INFER \"The capital of Atlantis is\" TOP 3;"),
];

/// Runs the demo.
pub(super) async fn run(demo: &Demo, global: &Global, display: Display) -> Result<(), Failure> {
    let display = Display {
        // Extraction is part of the show.
        progress: match display.progress {
            ProgressMode::Off if !display.quiet => ProgressMode::Lines,
            other => other,
        },
        ..display
    };
    if global.host.is_some() || global.data_dir.is_some() {
        let mut shell = Shell::new(super::access(global)?, display);
        return show(demo, &mut shell, None).await;
    }
    // From here on Ctrl-C leaves through the front door, so that nothing stays behind.
    let mut interrupts = Interrupts::listen()?;
    let private = Private::create(demo.keep)?;
    let target = Target::Unix(start::socket_path(&private.path));
    if !display.quiet {
        say(&format!("larql: a private daemon, in {}", private.path.display()));
    }
    let mut daemon = Daemon::spawn(&private.path, Lifetime::Private).map_err(Failure::client)?;
    let answered = tokio::select! {
        answered = daemon.wait_until_it_answers(&target) => answered.map_err(ShellError::Connection),
        () = interrupts.next() => Err(ShellError::gave_up()),
    };
    drop(answered?);
    let access = Access { target, may_start: false, quiet: display.quiet, token: None };
    let mut shell = Shell::new(access, display);
    let shown = show(demo, &mut shell, Some(&private.path)).await;
    // The session ends before its daemon, and the daemon before its directory.
    drop(shell);
    daemon.stop();
    drop(daemon);
    if demo.keep {
        say(&format!("larql: kept; go on with: larql --data-dir {}", private.path.display()));
    }
    shown
}

/// Extracts and tours; `data_dir` is the private daemon's.
async fn show(demo: &Demo, shell: &mut Shell, data_dir: Option<&Path>) -> Result<(), Failure> {
    let data_dir = match data_dir {
        Some(path) => path.to_path_buf(),
        None => PathBuf::from(shell.client().await?.status().await?.data_dir),
    };
    let client = shell.client().await?;
    let mounted = client.names().await?.iter().any(|name| name == MODEL);
    let mut steps: Vec<(&str, String)> = Vec::new();
    if !mounted {
        let source = client.unpack_bundled(MODEL).await?;
        let vindex = data_dir.join("vindexes").join(format!("{MODEL}.vindex"));
        let Some(vindex) = vindex.to_str() else {
            let message = format!("{} is not text that a statement can hold", vindex.display());
            return Err(Failure::client(Message::new("22023", message)));
        };
        let extract = format!(
            "EXTRACT MODEL {} INTO {} WITH INFERENCE OVERWRITE;",
            quote(&source),
            quote(vindex)
        );
        steps.push(("Take a checkpoint apart, once, into a vindex.", extract));
    }
    steps.extend(TOUR.iter().map(|(about, statement)| (*about, (*statement).to_owned())));
    let mut used = false;
    for (about, statement) in steps {
        let prompt = if used { MODEL } else { "larql" };
        used |= statement.starts_with("USE");
        println(&format!("\n-- {about}\n{prompt}=> {statement}"))?;
        let outcome = shell.send(Script { text: &statement, lines_before: 0 }).await?;
        shell.finish()?;
        if outcome != Outcome::Done {
            return Err(Failure::Ended(outcome));
        }
    }
    if demo.shell {
        let history = data_dir.join("history");
        shell.interact(&history).await?;
    } else if !demo.tour {
        println("\n-- That was the tour. Stay in the shell with: larql demo --shell")?;
    }
    Ok(())
}

fn println(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// A data directory that nobody else uses; removed at the end unless it is kept.
struct Private {
    path: PathBuf,
    keep: bool,
}

impl Private {
    fn create(keep: bool) -> Result<Private, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let unique = format!(
            "larql-demo-{}-{:x}",
            std::process::id(),
            now.map_or(0, |since| since.as_nanos())
        );
        let path = std::env::temp_dir().join(unique);
        // Not recursive: it fails if somebody was faster, so nobody can have prepared it.
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            let message = format!("could not create {}: {error}", path.display());
            Failure::client(Message::new("58030", message))
        })?;
        Ok(Private { path, keep })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::split;

    #[test]
    fn each_step_of_the_tour_is_one_closed_statement() {
        for (_, statement) in TOUR {
            assert_eq!(split::statements(statement).len(), 1, "{statement}");
            assert_eq!(
                split::completeness(statement),
                split::Completeness::Complete,
                "{statement}"
            );
        }
    }

    #[test]
    fn the_private_directory_is_removed_unless_it_is_kept() {
        let Ok(private) = Private::create(false) else { panic!() };
        let path = private.path.clone();
        assert!(path.is_dir());
        drop(private);
        assert!(!path.exists());
    }
}
