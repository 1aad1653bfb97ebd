//! What reading statements show of edits, through a real daemon: the same rows by every access path, to nobody
//! else before COMMIT, and nothing of them once they are taken back.

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
    client.query("USE \"atlas\"; SET result_cache = off", options()).await.expect("atlas is there");
    client
}

/// Statements that read what edits change.
const READS: &[&str] = &[
    "DESCRIBE \"Atlantis\"",
    "DESCRIBE \"France\" ALL LAYERS",
    "DESCRIBE \"France\" STREAM",
    "SELECT * FROM EDGES WHERE entity = \"France\"",
    "SELECT entity, target, layer, feature, source FROM EDGES WHERE relation = \"capital\"",
    "SELECT layer, feature, target, logit FROM EDGES WHERE target IN (\"Nairobi\", \"Lisbon\", \"Oslo\")",
    "SELECT COUNT(*) FROM FEATURES",
    "SELECT * FROM FEATURES WHERE feature IN (7, 17, 18, 1024)",
    "SELECT * FROM ENTITIES LIMIT 20",
    "SELECT target FROM EDGES NEAREST TO \"France\" AT LAYER 5 LIMIT 30",
    "SHOW RELATIONS WITH EXAMPLES",
    "SHOW LAYERS",
    "SHOW FEATURES 3 WHERE feature < 20",
    "WALK \"The capital of Atlantis\" TOP 5",
    "INFER \"The capital of Atlantis is\" TOP 3",
    "EXPLAIN INFER \"The capital of Atlantis is\" TOP 4",
    "TRACE \"The capital of Atlantis is\"",
];

/// Of them those whose first rows the edits below need not reach.
const MAY_STAY: &[&str] = &[
    "SELECT * FROM ENTITIES LIMIT 20",
    "SELECT target FROM EDGES NEAREST TO \"France\" AT LAYER 5 LIMIT 30",
    "WALK \"The capital of Atlantis\" TOP 5",
];

async fn read_all(client: &mut Client) -> Vec<String> {
    let mut answers = Vec::with_capacity(READS.len());
    for statement in READS {
        answers.push(format!("{statement}\n{}", ask(client, statement).await));
    }
    answers
}

/// Edits of every kind.
const EDITS: &[&str] = &[
    "INSERT INTO EDGES (entity, relation, target) VALUES (\"Atlantis\", \"capital\", \"Nairobi\") MODE COMPOSE WITHOUT RECEIPT",
    "INSERT INTO EDGES (entity, relation, target) VALUES (\"France\", \"capital\", \"Lisbon\") MODE KNN WITHOUT RECEIPT",
    "INSERT INTO EDGES (entity, relation, target) VALUES (\"Mali\", \"capital\", \"Oslo\") MODE MEMIT WITHOUT RECEIPT",
    "DELETE FROM EDGES WHERE layer = 3 AND feature = 17 WITHOUT RECEIPT",
    "UPDATE EDGES SET target = \"Lisbon\" WHERE layer = 3 AND feature = 18 WITHOUT RECEIPT",
    "UPDATE EDGES SET confidence = 0.5 WHERE layer = 2 AND feature = 7 WITHOUT RECEIPT",
];

#[tokio::test]
async fn edits_are_read_by_their_session_then_by_all_and_by_nobody_once_they_are_taken_back() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE WITHOUT LABELS").await;
    let (mut client, mut other) = (session(&daemon).await, session(&daemon).await);
    let before = read_all(&mut client).await;
    ask(&mut client, "BEGIN").await;
    for edit in EDITS {
        let said = ask(&mut client, edit).await;
        assert!(!said.contains("ERROR") && !said.contains("NOTICE no edge"), "{edit}: {said}");
    }
    let pending = read_all(&mut client).await;
    for ((statement, now), then) in READS.iter().zip(&pending).zip(&before) {
        assert!(now != then || MAY_STAY.contains(statement), "{statement}: {now}");
    }
    assert_eq!(read_all(&mut other).await, before, "nobody else sees what is not committed");
    ask(&mut client, "ROLLBACK").await;
    assert_eq!(read_all(&mut client).await, before, "what is rolled back leaves nothing");
    ask(&mut client, "BEGIN PATCH \"seen\"").await;
    for edit in EDITS {
        ask(&mut client, edit).await;
    }
    ask(&mut client, "SAVE PATCH").await;
    let saved = read_all(&mut client).await;
    assert_eq!(saved, pending, "the same edits are the same rows");
    assert_eq!(read_all(&mut other).await, saved);
    ask(&mut client, "REMOVE PATCH \"seen\"").await;
    assert_eq!(read_all(&mut client).await, before, "what is removed leaves nothing");
}

#[tokio::test]
async fn every_access_path_gives_the_rows_of_the_scan_under_edits() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE WITHOUT LABELS").await;
    let mut client = session(&daemon).await;
    let index = ask(&mut client, "CREATE INDEX fast ON GATES USING sketch").await;
    assert!(!index.contains("ERROR"), "{index}");
    for edit in EDITS {
        ask(&mut client, edit).await;
    }
    let mut rows = Vec::new();
    for path in ["scan", "auto", "slots", "postings", "gate_index"] {
        ask(&mut client, &format!("SET access_path = {path}")).await;
        rows.push((path, read_all(&mut client).await));
    }
    for (path, found) in &rows[1..] {
        assert_eq!(found, &rows[0].1, "by {path}");
    }
}

#[tokio::test]
async fn an_update_makes_each_edit_anew_as_it_was_made_and_keeps_what_it_does_not_set() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = session(&daemon).await;
    for (entity, how) in [
        ("Atlantis", "MODE KNN AT LAYER 2 CONFIDENCE 0.75"),
        ("Verdania", "MODE COMPOSE CONFIDENCE 0.5"),
    ] {
        let insert = format!(
            "INSERT INTO EDGES (entity, relation, target) VALUES (\"{entity}\", \"capital\", \"Oslo\") \
             {how} WITHOUT RECEIPT"
        );
        let said = ask(&mut client, &insert).await;
        assert!(!said.contains("ERROR"), "{said}");
    }
    let rows = "SELECT entity, target, layer, confidence, source FROM EDGES \
                WHERE relation = \"capital\" AND source IN (\"knn\", \"patch\") ORDER BY entity";
    let before = ask(&mut client, rows).await;
    let update = "UPDATE EDGES SET target = \"Lisbon\" WHERE relation = \"capital\" \
                  AND source IN (\"knn\", \"patch\") WITHOUT RECEIPT";
    let said = ask(&mut client, update).await;
    assert!(!said.contains("ERROR"), "{said}");
    assert_eq!(ask(&mut client, rows).await, before.replace("Oslo", "Lisbon"));
    let knn = "\"layer\":2,\"confidence\":0.75,\"source\":\"knn\"";
    assert!(before.contains(knn) && before.contains("\"source\":\"patch\""), "{before}");
    for entity in ["Atlantis", "Verdania"] {
        let inferred =
            ask(&mut client, &format!("INFER \"The capital of {entity} is\" TOP 1")).await;
        assert!(inferred.contains("Lisbon"), "{entity}: {inferred}");
    }
}

#[tokio::test]
async fn an_edit_of_what_is_called_as_a_word_is_silences_no_other() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = session(&daemon).await;
    for (entity, target) in
        [("IS", "Rome"), ("of", "Rome"), ("Capital", "Rome"), ("Verdania", "Oslo")]
    {
        let insert = format!(
            "INSERT INTO EDGES (entity, relation, target) VALUES (\"{entity}\", \"capital\", \"{target}\") \
             WITHOUT RECEIPT"
        );
        let said = ask(&mut client, &insert).await;
        assert!(!said.contains("ERROR"), "{said}");
    }
    let inferred = ask(&mut client, "INFER \"The capital of Verdania is\" TOP 1").await;
    assert!(inferred.contains("Oslo"), "{inferred}");
}
