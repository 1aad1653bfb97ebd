//! Transactions, patches, branches and history, through a real daemon that is killed and started again.

use std::path::{Path, PathBuf};

use larql_client::{Client, ExecuteOptions};
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larql_tests::script::{Masks, answer};

fn options() -> ExecuteOptions {
    let files = repository().join("tests/scripts/files");
    ExecuteOptions { working_directory: files.display().to_string(), ..ExecuteOptions::default() }
}

async fn ask(client: &mut Client, statement: &str) -> String {
    answer(client, statement, options(), &Masks::default()).await
}

async fn session(daemon: &Daemon) -> Client {
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"", options()).await.expect("atlas is mounted");
    client
}

const PATCHES: &str = "SHOW PATCHES |> SELECT name, branch, inserts, updates, deletes, lsn, author";

/// The store of the only base.
fn store(data_dir: &Path) -> PathBuf {
    let mut entries = data_dir.join("edits").read_dir().expect("there are edits");
    entries.next().expect("of one base").expect("readable").path()
}

#[tokio::test]
async fn a_patch_that_was_applied_survives_a_kill_and_is_taken_back_whole() {
    let home = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(home.path(), &[]);
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = session(&daemon).await;
    let applied = ask(&mut client, "APPLY PATCH \"capitals.vlp\"").await;
    assert!(applied.contains("names no base") && applied.contains("\"lsn\":1"), "{applied}");
    let again = ask(&mut client, "APPLY PATCH \"capitals.vlp\"").await;
    assert!(again.contains("applied already, at LSN 1"), "{again}");
    let before = ask(&mut client, PATCHES).await;
    assert!(
        before.contains(
            r#""name":"capitals","branch":"main","inserts":1,"updates":0,"deletes":1,"lsn":1"#
        ),
        "{before}"
    );
    daemon.kill();
    daemon = Daemon::start_in(home.path(), &[]);
    let mut client = session(&daemon).await;
    assert_eq!(ask(&mut client, PATCHES).await, before);
    ask(&mut client, "APPLY PATCH \"rows.vlp\"").await;
    let removed = ask(&mut client, "REMOVE PATCH \"capitals.vlp\"").await;
    assert!(removed.contains("removed at LSN 3"), "{removed}");
    let left = ask(&mut client, PATCHES).await;
    assert!(left.contains("\"name\":\"rows\"") && !left.contains("capitals"), "{left}");
    let missing = ask(&mut client, "REMOVE PATCH \"capitals\"").await;
    assert!(missing.contains("42704"), "{missing}");
    // Every moment can be asked for, and the kept answer of one is not another's.
    for (moment, names) in [
        ("LSN 0", vec![]),
        ("LSN 1", vec!["capitals"]),
        ("PATCH \"rows\"", vec!["capitals", "rows"]),
    ] {
        let rows = ask(&mut client, &format!("SHOW PATCHES AS OF {moment} |> SELECT name")).await;
        for name in ["capitals", "rows"] {
            assert_eq!(rows.contains(name), names.contains(&name), "{moment}: {rows}");
        }
    }
    let log = ask(&mut client, "SELECT lsn, kind, patch, operations FROM larql.wal").await;
    assert!(
        log.contains(r#"{"lsn":3,"kind":"remove patch","patch":"capitals","operations":null}"#),
        "{log}"
    );
}

#[tokio::test]
async fn a_branch_has_its_own_patches_and_its_parents_until_it_began() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    ask(&mut client, "APPLY PATCH \"capitals.vlp\"").await;
    ask(&mut client, "CREATE BRANCH tries").await;
    ask(&mut client, "CREATE BRANCH empty FROM main AS OF LSN 0").await;
    ask(&mut client, "USE \"atlas\" BRANCH tries").await;
    ask(&mut client, "APPLY PATCH \"rows.vlp\"").await;
    let mut other = session(&daemon).await;
    for (client, branch, names) in
        [(&mut other, "main", vec!["capitals"]), (&mut client, "tries", vec!["capitals", "rows"])]
    {
        let rows = ask(client, PATCHES).await;
        for name in ["capitals", "rows"] {
            assert_eq!(rows.contains(name), names.contains(&name), "{branch}: {rows}");
        }
    }
    ask(&mut other, "USE CURRENT BRANCH empty").await;
    assert_eq!(ask(&mut other, PATCHES).await, "OK SELECT\n");
    // Who uses a branch that somebody else drops is told, and finds the way out.
    ask(&mut other, "DROP BRANCH tries").await;
    let gone = ask(&mut client, PATCHES).await;
    assert!(gone.contains("42704") && gone.contains("USE CURRENT BRANCH main"), "{gone}");
    assert!(!ask(&mut client, "USE \"atlas\"").await.contains("ERROR"));
    assert!(ask(&mut client, PATCHES).await.contains("capitals"));
}

#[tokio::test]
async fn a_damaged_log_is_told_when_the_daemon_starts_and_salvage_says_what_is_left() {
    let home = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(home.path(), &[]);
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    ask(&mut client, "APPLY PATCH \"capitals.vlp\"").await;
    ask(&mut client, "APPLY PATCH \"rows.vlp\"").await;
    let base = client.wal("status", "atlas", None).await.expect("a status");
    assert!(base.contains(&("lsn".to_owned(), "2".to_owned())), "{base:?}");
    let whole = client.wal("verify", "atlas", None).await.expect("whole");
    assert!(whole.contains(&("records_whole".to_owned(), "2".to_owned())), "{whole:?}");
    let export = home.path().join("all.edits");
    client.wal("export", "atlas", export.to_str()).await.expect("an export");
    daemon.kill();
    // The log and what is kept twice of it: nothing is left of the second record.
    let store = store(home.path());
    std::fs::remove_dir_all(store.join("log")).expect("the log is there");
    let mark = std::fs::read(store.join("mark")).expect("the mark");
    let mut cut = mark.clone();
    cut[8192..].fill(0);
    std::fs::write(store.join("mark"), cut).expect("written");
    daemon = Daemon::start_in(home.path(), &[]);
    let mut client = daemon.client().await;
    let refused = ask(&mut client, "USE \"atlas\"").await;
    assert!(refused.contains("XX001") && refused.contains("missing LSN 1..2"), "{refused}");
    let salvaged = client.wal("salvage", "atlas", None).await.expect("a report");
    assert!(salvaged.contains(&("missing".to_owned(), "1..2".to_owned())), "{salvaged:?}");
    assert!(salvaged.contains(&("acknowledged_lsn".to_owned(), "2".to_owned())), "{salvaged:?}");
    // An export begins the log again.
    daemon.kill();
    std::fs::remove_dir_all(&store).expect("the store goes");
    daemon = Daemon::start_in(home.path(), &[]);
    let client = daemon.client().await;
    let imported = client.wal("import", "atlas", export.to_str()).await.expect("an import");
    assert_eq!(imported, [("lsn".to_owned(), "2".to_owned())]);
    let mut client = session(&daemon).await;
    assert!(ask(&mut client, PATCHES).await.contains("\"name\":\"rows\""));
}
