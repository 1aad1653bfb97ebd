//! Every example of the language's pages and of the guide runs: the blocks marked `lql` in `docs/lql/*.md`
//! and `docs/guide/*.md`, in order, one session a page, on the bundled model in use as `atlas`. Paths are
//! relative to a scratch directory of each page (`larql_tests::script::scratch`).
//!
//! `KILL 7` stands for the end of another session, whatever its number is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use larql_client::{Client, ExecuteOptions};
use larql_planner::syntax::ast::Statement;
use larql_planner::syntax::parse_script;
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larql_tests::script::scratch;

const OPEN: &str = "```lql\n";
const CLOSE: &str = "```\n";

/// The blocks of a page that are marked as statements.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split(OPEN).skip(1);
    blocks.map(|block| block.split(CLOSE).next().unwrap_or_default()).collect()
}

fn pages() -> Vec<PathBuf> {
    let folders = ["docs/lql", "docs/guide"].map(|folder| repository().join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages.sort();
    pages
}

/// The number of a session that is not this one.
async fn other_session(client: &mut Client) -> String {
    let statement = "SELECT max(id) FROM larql.sessions WHERE NOT own";
    let answers = client.query(statement, ExecuteOptions::here()).await.expect("sessions");
    answers[0].rows[0][0].as_integer().expect("another session").to_string()
}

#[tokio::test]
async fn every_example_of_the_languages_pages_runs() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut run = 0;
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("a page");
        let files = scratch();
        let options = || ExecuteOptions {
            working_directory: files.path().display().to_string(),
            ..ExecuteOptions::default()
        };
        let mut client = daemon.client().await;
        client.query("USE \"atlas\"", options()).await.expect("atlas is mounted");
        for example in examples(&page) {
            let _other = daemon.client().await;
            let other = other_session(&mut client).await;
            let script = example.replace("KILL 7;", &format!("KILL {other};"));
            let answers = client.query(script.as_str(), options()).await;
            if let Err(error) = answers {
                panic!("{}: {error} ({})\n{example}", path.display(), error.hint);
            }
            run += 1;
        }
    }
    assert!(run > 0, "no page holds an example");
}

/// Kinds of statement that answer 0A000.
const NOT_SERVED: &[&str] =
    &["Diff", "Rebalance", "BeginPatch", "Commit", "SavePatch", "ApplyPatch", "RemovePatch"];

#[test]
fn every_kind_of_statement_that_is_served_has_an_example() {
    let mut shown = BTreeSet::new();
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("a page");
        for example in examples(&page) {
            let parsed = parse_script(example);
            let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            shown.extend(parsed.iter().map(|found| found.statement.kind()));
        }
    }
    let served = Statement::KINDS.iter().filter(|kind| !NOT_SERVED.contains(kind));
    let missing: Vec<_> = served.filter(|kind| !shown.contains(*kind)).collect();
    assert!(missing.is_empty(), "no example shows {missing:?}");
}
