//! Indexes and caches of a real daemon: the same rows by every access path, what makes an index stale or
//! damaged, and answers that are given again only while they are true.

use std::fs;

use larql_client::{Answer, Client, ExecuteOptions, Value};
use larql_tests::daemon::Daemon;
use larql_tests::repository;

/// A number that looks random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

async fn ask(client: &mut Client, script: &str) -> Answer {
    let answers = client.query(script, ExecuteOptions::here()).await;
    answers.unwrap_or_else(|error| panic!("{script}: {error}")).pop().expect("an answer")
}

async fn session(daemon: &Daemon) -> Client {
    let mut client = daemon.client().await;
    ask(&mut client, "USE \"atlas\"").await;
    client
}

/// One column of an answer.
fn column(answer: &Answer, name: &str) -> Vec<Value> {
    let at = answer.columns.iter().position(|column| column.name == name).expect(name);
    answer.rows.iter().map(|row| row[at].clone()).collect()
}

fn texts(answer: &Answer, name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_text().map(str::to_owned).unwrap_or_default();
    column(answer, name).iter().map(text).collect()
}

/// The operators of the plan of a statement.
async fn operators(client: &mut Client, statement: &str) -> Vec<String> {
    let explained = ask(client, &format!("EXPLAIN (FORMAT TEXT) {statement}")).await;
    texts(&explained, "operator")
}

#[tokio::test]
async fn every_access_path_gives_the_rows_of_the_scan() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    ask(&mut client, "SET result_cache = off").await;
    let targets = texts(&ask(&mut client, "SELECT DISTINCT target FROM FEATURES").await, "target");
    assert!(targets.len() > 100, "{} targets", targets.len());
    let mut noise = Noise(7);
    let (mut looked_up, mut found) = (0, 0);
    for _ in 0..60 {
        let mut word = || match noise.below(8) {
            0 => "no such target".to_owned(),
            _ => targets[noise.below(targets.len())].clone(),
        };
        let (a, b) = (word().replace('"', "\"\""), word().replace('"', "\"\""));
        let condition = match noise.below(4) {
            0 => format!("target = \"{a}\""),
            1 => format!("target IN (\"{a}\", \"{b}\", NULL)"),
            2 => format!("\"{a}\" = target AND layer < {}", noise.below(7)),
            _ => format!("target = \"{a}\" AND feature = {}", noise.below(1024)),
        };
        let from = ["FEATURES", "EDGES"][noise.below(2)];
        let statement = format!("SELECT * FROM {from} WHERE {condition}");
        let mut rows = Vec::new();
        for path in ["scan", "postings", "slots", "auto"] {
            ask(&mut client, &format!("SET access_path = {path}")).await;
            rows.push(ask(&mut client, &statement).await.rows);
            if path == "postings" {
                let plan = operators(&mut client, &statement).await;
                looked_up += usize::from(plan.contains(&"PostingLookup".to_owned()));
            }
        }
        found += rows[0].len();
        assert!(rows.iter().all(|other| *other == rows[0]), "{statement}");
    }
    assert_eq!(looked_up, 60);
    assert!(found > 20, "{found} rows in all");
    for statement in ["SHOW ENTITIES", "SELECT * FROM ENTITIES WHERE count > 2"] {
        ask(&mut client, "SET access_path = scan").await;
        let scanned = ask(&mut client, statement).await.rows;
        ask(&mut client, "SET access_path = postings").await;
        assert!(operators(&mut client, statement).await.contains(&"EntityLookup".to_owned()));
        assert_eq!(ask(&mut client, statement).await.rows, scanned, "{statement}");
    }
}

#[tokio::test]
async fn a_damaged_or_foreign_index_is_told_and_never_used() {
    let daemon = Daemon::start();
    let vindex = daemon.extract_atlas("").await;
    let index = vindex.join("targets.index");
    let good = fs::read(&index).expect("EXTRACT made it");
    const STATEMENT: &str = "SELECT layer, feature FROM EDGES WHERE target = \"Paris\"";
    let expected = ask(&mut session(&daemon).await, STATEMENT).await.rows;
    assert!(!expected.is_empty());
    let mut broken = good.clone();
    broken[good.len() / 2] ^= 1;
    let mut other = good.clone();
    other.truncate(good.len() - 1);
    for (bytes, state) in [(broken, "damaged: "), (other, "damaged: "), (Vec::new(), "damaged: ")] {
        // A file that is mapped is replaced, not written over.
        fs::remove_file(&index).expect("removed");
        fs::write(&index, bytes).expect("written");
        let mount = format!("UNMOUNT atlas; MOUNT \"{}\" AS atlas", vindex.display());
        daemon.query(&mount).await.expect("a damaged index keeps nothing from being mounted");
        let mut client = session(&daemon).await;
        let shown =
            ask(&mut client, "SELECT state FROM larql.indexes WHERE name = 'targets'").await;
        assert!(texts(&shown, "state")[0].starts_with(state), "{shown:?}");
        assert!(operators(&mut client, STATEMENT).await.contains(&"FeatureScan".to_owned()));
        assert_eq!(ask(&mut client, STATEMENT).await.rows, expected);
    }
    let mut client = session(&daemon).await;
    let again = ask(&mut client, "ANALYZE").await;
    assert_eq!(texts(&again, "state"), ["ready", "ready"]);
    assert_eq!(fs::read(&index).expect("made again"), good, "the same input gives the same bytes");
    assert!(operators(&mut client, STATEMENT).await.contains(&"PostingLookup".to_owned()));
    assert_eq!(ask(&mut client, STATEMENT).await.rows, expected);
}

#[tokio::test]
async fn indexes_go_with_the_vindex_and_come_back_with_it() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    let before = ask(&mut client, "SHOW INDEXES").await;
    assert_eq!(texts(&before, "name"), ["labels", "targets"]);
    ask(&mut client, "DROP INDEX targets; DROP INDEX labels").await;
    assert!(ask(&mut client, "SHOW INDEXES").await.rows.is_empty());
    daemon.extract_atlas("OVERWRITE").await;
    let mut client = session(&daemon).await;
    assert_eq!(ask(&mut client, "SHOW INDEXES").await.rows, before.rows);
}

#[tokio::test]
async fn an_answer_is_given_again_only_while_it_is_true() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    const STATEMENT: &str = "DESCRIBE \"France\" ALL LAYERS";
    let first = ask(&mut client, STATEMENT).await;
    let again = ask(&mut client, STATEMENT).await;
    assert_eq!((&again.rows, &again.columns), (&first.rows, &first.columns));
    let touched = |answer: &Answer| answer.summary.bytes_touched;
    assert!(touched(&first) > 0);
    assert_eq!(touched(&again), 0, "nothing is read to give it again");
    assert_eq!(operators(&mut client, STATEMENT).await[0], "CachedAnswer");
    let analyzed = ask(&mut client, &format!("EXPLAIN ANALYZE {STATEMENT}")).await;
    assert_eq!(column(&analyzed, "rows")[0], Value::Integer(first.rows.len() as i64));
    assert!(column(&analyzed, "rows")[1..].iter().all(|rows| *rows == Value::Null));
    // Another setting, another caller's answers, and other indexes are other things.
    ask(&mut client, "SET describe_z = 1").await;
    let more = ask(&mut client, STATEMENT).await;
    assert!(touched(&more) > 0);
    assert!(more.rows.len() > first.rows.len());
    ask(&mut client, "RESET describe_z").await;
    assert_eq!(touched(&ask(&mut client, STATEMENT).await), 0);
    ask(&mut client, "SET result_cache = off").await;
    assert!(touched(&ask(&mut client, STATEMENT).await) > 0);
    assert_ne!(operators(&mut client, STATEMENT).await[0], "CachedAnswer");
    ask(&mut client, "RESET result_cache; ANALYZE").await;
    assert!(touched(&ask(&mut client, STATEMENT).await) > 0, "ANALYZE may change plans");
    // Notices are part of an answer.
    for _ in 0..2 {
        let nothing = ask(&mut client, "DESCRIBE \"the\" AT LAYER 0 RELATIONS ONLY").await;
        assert!(nothing.rows.is_empty() && nothing.notices.len() == 1, "{nothing:?}");
    }
    // What EXECUTE runs is not in its text.
    for (word, rows) in [("Paris", true), ("no such target", false)] {
        let script = format!(
            "PREPARE p AS SELECT feature FROM EDGES WHERE target = '{word}'; EXECUTE p; EXECUTE p"
        );
        assert_eq!(!ask(&mut client, &script).await.rows.is_empty(), rows, "{word}");
        ask(&mut client, "DEALLOCATE p").await;
    }
    let counts = ask(&mut client, "SELECT name, hits > 0 AS used FROM larql.caches").await;
    assert_eq!(texts(&counts, "name"), ["answers", "plans"]);
    assert_eq!(column(&counts, "used"), [Value::Boolean(true), Value::Boolean(true)]);
}

#[tokio::test]
async fn a_cache_of_nothing_keeps_nothing() {
    let daemon = Daemon::start_with(&["--result-cache-mb", "0"]);
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    for _ in 0..2 {
        let answer = ask(&mut client, "DESCRIBE \"France\"").await;
        assert!(answer.summary.bytes_touched > 0);
    }
    let counts = ask(&mut client, "SELECT entries FROM larql.caches").await;
    assert_eq!(column(&counts, "entries"), [Value::Integer(0), Value::Integer(0)]);
}

#[tokio::test]
async fn a_sketch_finds_the_hits_of_the_scan_to_the_bit_and_other_indexes_tell_their_recall() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = session(&daemon).await;
    ask(&mut client, "SET result_cache = off").await;
    let made = ask(&mut client, "CREATE INDEX exact ON GATES").await;
    assert_eq!(
        (texts(&made, "method"), column(&made, "recall")),
        (vec!["sketch".to_owned()], vec![Value::Null])
    );
    let statements = |word: &str| {
        [
            format!("DESCRIBE \"{word}\" ALL LAYERS"),
            format!("DESCRIBE \"{word}\" AT LAYER 3 STREAM"),
            format!("WALK \"{word}\" TOP 7"),
            format!("WALK \"{word}\" TOP 300 LAYERS 1-2"),
            format!("SELECT *, z FROM EDGES WHERE entity = \"{word}\" AND layer < 4"),
        ]
    };
    let words = texts(&ask(&mut client, "SELECT DISTINCT target FROM FEATURES").await, "target");
    let mut noise = Noise(11);
    let mut found = 0;
    for describe_z in ["4", "0.5"] {
        ask(&mut client, &format!("SET describe_z = {describe_z}")).await;
        for _ in 0..8 {
            let word = words[noise.below(words.len())].replace('"', "\"\"");
            for statement in statements(&word) {
                ask(&mut client, "SET access_path = scan").await;
                let scanned = ask(&mut client, &statement).await;
                ask(&mut client, "SET access_path = gate_index").await;
                let plan = operators(&mut client, &statement).await;
                assert!(plan.contains(&"GateIndexScan".to_owned()), "{statement}: {plan:?}");
                let sketched = ask(&mut client, &statement).await;
                assert_eq!(sketched.rows, scanned.rows, "{statement}");
                found += scanned.rows.len();
            }
        }
    }
    assert!(found > 1000, "{found} rows in all");
    ask(&mut client, "DROP INDEX exact").await;
    const HITS: &str = "SELECT layer, feature, gate_score FROM EDGES WHERE entity = \"France\"";
    ask(&mut client, "SET access_path = scan; SET describe_z = 1").await;
    let scanned = ask(&mut client, HITS).await.rows;
    let approximate = ask(&mut client, &format!("{HITS} APPROX")).await;
    assert_eq!(approximate.rows, scanned);
    assert!(approximate.notices[0].message.contains("APPROX changed nothing"));
    for method in ["coarse_sketch", "hnsw"] {
        let made = ask(&mut client, &format!("CREATE INDEX rough ON GATES USING {method}")).await;
        let recall = column(&made, "recall")[0].as_number().expect("it was measured");
        assert!((0.9..=1.0).contains(&recall), "{method}: {recall}");
        ask(&mut client, "SET access_path = gate_index").await;
        let approximate = ask(&mut client, &format!("{HITS} APPROX")).await;
        assert!(approximate.notices.is_empty());
        let kept = scanned.iter().filter(|row| approximate.rows.contains(row)).count();
        assert!(kept as f64 >= 0.8 * scanned.len() as f64, "{method}: {kept} of {}", scanned.len());
        let uses = operators(&mut client, HITS).await.contains(&"GateIndexScan".to_owned());
        assert_eq!(uses, recall >= 0.99, "without APPROX only if it finds nearly all: {recall}");
        ask(&mut client, "DROP INDEX rough").await;
    }
}

#[tokio::test]
async fn an_index_of_labels_follows_what_label_learns_and_is_stale_when_labels_go() {
    let daemon = Daemon::start();
    let vindex = daemon.extract_atlas("WITH INFERENCE").await;
    let facts = repository().join("tests/scripts/files/labels.tsv");
    let mut client = session(&daemon).await;
    const STATEMENT: &str = "SELECT layer, feature FROM FEATURES WHERE relation = \"language\"";
    assert!(ask(&mut client, STATEMENT).await.rows.is_empty());
    ask(&mut client, &format!("LABEL FROM FACTS \"{}\"", facts.display())).await;
    let found = ask(&mut client, STATEMENT).await.rows;
    assert!(!found.is_empty(), "what was kept of no labels is given no more");
    assert!(operators(&mut client, STATEMENT).await.contains(&"CachedAnswer".to_owned()));
    let shown =
        ask(&mut client, "SELECT state, entries FROM larql.indexes WHERE name = 'labels'").await;
    assert_eq!(texts(&shown, "state"), ["ready"]);
    assert!(column(&shown, "entries")[0].as_integer() >= Some(found.len() as i64));
    for path in ["scan", "postings"] {
        ask(&mut client, &format!("SET access_path = {path}")).await;
        assert_eq!(ask(&mut client, STATEMENT).await.rows, found, "{path}");
    }
    fs::remove_file(vindex.join("knowledge.labels")).expect("labels are there");
    // A model that somebody still uses is not opened again.
    drop(client);
    let mount = format!("UNMOUNT atlas; MOUNT \"{}\" AS atlas", vindex.display());
    let mut state = String::new();
    for _ in 0..50 {
        daemon.query(&mount).await.expect("mounted again");
        let mut client = session(&daemon).await;
        let shown = ask(&mut client, "SELECT state FROM larql.indexes WHERE name = 'labels'").await;
        state = texts(&shown, "state").remove(0);
        if state == "stale" {
            assert!(ask(&mut client, STATEMENT).await.rows.is_empty());
            break;
        }
        drop(client);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(state, "stale");
}
