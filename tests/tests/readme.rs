//! The README's session is what the programs print.
//!
//! Numbers are compared within a thousandth, since another instruction set sums in another order; words
//! and shape are compared to the letter. `README_UPDATE=1` writes what was printed into the README.

use std::process::Command;

use larql_tests::daemon::Daemon;
use larql_tests::{atlas_checkpoint, program, repository};

const BEGIN: &str = "```text\n";
const END: &str = "```\n<!-- /session -->";

/// The statements of the session, and the text of each answer.
fn session(readme: &str) -> Vec<(String, String)> {
    let start = readme.find(BEGIN).expect("a session") + BEGIN.len();
    let text = &readme[start..readme.find(END).expect("the session's end")];
    let mut session: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match line.split_once("=> ") {
            Some((_, statement)) => session.push((statement.to_owned(), String::new())),
            None => {
                let (_, answer) = session.last_mut().expect("a statement comes first");
                *answer += line;
                answer.push('\n');
            }
        }
    }
    session
}

fn same(found: &str, expected: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (words(found), words(expected));
    // A rule of dashes is as long as the longest number above it.
    let alike = |a: &String, b: &String| {
        let rule = |text: &str| text.chars().all(|c| c == '-' || c == '+');
        a == b
            || (rule(a) && rule(b))
            || matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if (a - b).abs() <= 1e-3 * b.abs())
    };
    found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| alike(a, b))
}

#[tokio::test]
async fn the_readmes_session_is_what_the_programs_print() {
    let path = repository().join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let daemon = Daemon::start();
    // With labels, as a reader's own extraction has them.
    let extract = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE",
        atlas_checkpoint().display(),
        daemon.data_dir().join("vindexes/atlas.vindex").display()
    );
    daemon.query(&extract).await.expect("atlas is extracted");
    let mut written = String::new();
    for (statement, expected) in session(&readme) {
        let script = format!("USE \"atlas\"; {statement}");
        let output = Command::new(program("larql"))
            .args(["-q", "--no-start", "--data-dir"])
            .arg(daemon.data_dir())
            .args(["-c", &script])
            .output()
            .expect("larql runs");
        assert!(
            output.status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        let shown = printed.trim_end();
        let prompt = if statement.starts_with("USE ") { "larql" } else { "atlas" };
        written += &format!("{prompt}=> {statement}\n");
        if !shown.is_empty() {
            written += &format!("{shown}\n\n");
        }
        if std::env::var_os("README_UPDATE").is_none() {
            assert!(
                same(shown, expected.trim_end()),
                "{statement} prints:\n{shown}\nthe README says:\n{expected}"
            );
        }
    }
    if std::env::var_os("README_UPDATE").is_some() {
        let start = readme.find(BEGIN).expect("a session") + BEGIN.len();
        let end = readme.find(END).expect("the session's end");
        let text = format!("{}{}\n{}", &readme[..start], written.trim_end(), &readme[end..]);
        std::fs::write(&path, text).expect("README.md is written");
    }
}
