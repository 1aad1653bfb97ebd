//! What LABEL learns and DESCRIBE answers from it, on the bundled model, whose facts are known.
//!
//! Labels are learned from some countries and people; what is asked is about others.

use std::fs;
use std::path::PathBuf;

use larql_client::{ExecuteOptions, Value};
use larql_tests::daemon::Daemon;

/// Capitals and languages of countries, occupations of people.
const FACTS: &str = "entity\trelation\tobject\taliases
Germany\tcapital\tBerlin\t
Italy\tcapital\tRome\t
Spain\tcapital\tMadrid\t
Japan\tcapital\tTokyo\t
Egypt\tcapital\tCairo\t
Poland\tcapital\tWarsaw\t
Greece\tcapital\tAthens\t
Norway\tcapital\tOslo\t
Kenya\tcapital\tNairobi\t
Cuba\tcapital\tHavana\t
Germany\tlanguage\tGerman\t
Italy\tlanguage\tItalian\t
Spain\tlanguage\tSpanish\t
Japan\tlanguage\tJapanese\t
Egypt\tlanguage\tArabic\t
Poland\tlanguage\tPolish\t
Greece\tlanguage\tGreek\t
Norway\tlanguage\tNorwegian\t
Albert Einstein\toccupation\tphysicist\t
Isaac Newton\toccupation\tphysicist\tmathematician
Jane Austen\toccupation\tnovelist\twriter
Franz Kafka\toccupation\tnovelist\twriter
Claude Monet\toccupation\tpainter\t
Wolfgang Mozart\toccupation\tcomposer\t
Karl Marx\toccupation\tphilosopher\t
Gold\tfavourite colour\tmauve\t
Iron\tfavourite colour\tpuce\t
Tin\tfavourite colour\tecru\t
";

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

async fn labelled(daemon: &Daemon) -> PathBuf {
    let vindex = daemon.extract_atlas("WITH INFERENCE").await;
    let facts = daemon.data_dir().join("facts.tsv");
    fs::write(&facts, FACTS).expect("the table is written");
    let script = format!("USE \"atlas\"; LABEL FROM FACTS \"{}\"", facts.display());
    let answer = daemon.query(&script).await.expect("labels").remove(1);
    let row: Vec<String> = answer.rows[0].iter().map(text).collect();
    assert_eq!(row[1..4], ["4", "3", "20"], "a colour that nobody has is no relation: {row:?}");
    vindex
}

async fn rows(daemon: &Daemon, script: &str) -> Vec<Vec<String>> {
    let answers = daemon.query(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    let answer = answers.into_iter().next_back().expect("an answer");
    answer.rows.iter().map(|row| row.iter().map(text).collect()).collect()
}

#[tokio::test]
async fn entities_that_labels_never_saw_are_described_by_what_the_model_says_of_them() {
    let daemon = Daemon::start();
    let vindex = labelled(&daemon).await;
    let manifest = fs::read(vindex.join("index.json")).expect("a manifest");
    for (entity, expected) in [
        ("Peru", vec![("capital", "Lima"), ("language", "Spanish")]),
        ("Sweden", vec![("capital", "Stockholm"), ("language", "Swedish")]),
        ("Leo Tolstoy", vec![("occupation", "novelist")]),
    ] {
        let script = format!(
            "USE \"atlas\"; SET describe_sources = probe; DESCRIBE \"{entity}\" |> \
             SELECT relation, target, source, confidence, layer, feature ORDER BY relation"
        );
        let found = rows(&daemon, &script).await;
        let pairs: Vec<(&str, &str)> = found.iter().map(|row| (&*row[0], &*row[1])).collect();
        assert_eq!(pairs, expected, "{entity}: {found:?}");
        for row in &found {
            assert_eq!(row[2], "probe");
            let confidence: f64 = row[3].parse().expect("a confidence");
            assert!((0.5..1.0).contains(&confidence), "{row:?}");
        }
    }
    let verified = "USE \"atlas\"; VERIFY EDGE WHERE entity = 'Peru' AND relation = 'capital'";
    let row = rows(&daemon, verified).await.remove(0);
    assert_eq!(row[..3], ["Peru", "capital", "Lima"]);
    let number = |at: usize| row[at].parse::<f64>().expect("a number");
    assert!(number(5) > number(6) && number(7) > number(8), "its feature matters: {row:?}");
    let known = "USE \"atlas\"; SELECT entity FROM EDGES WHERE relation = 'capital' AND target = 'Madrid' AND source = 'probe'";
    assert_eq!(rows(&daemon, known).await, [["Spain"]]);
    let of_entity =
        "USE \"atlas\"; SELECT target FROM EDGES WHERE entity = 'Chile' AND relation = 'capital'";
    assert_eq!(rows(&daemon, of_entity).await, [["Santiago"]]);
    assert_eq!(fs::read(vindex.join("index.json")).expect("a manifest"), manifest);
    let verify = format!("VERIFY VINDEX \"{}\"", vindex.display());
    assert!(rows(&daemon, &verify).await.iter().all(|row| row.contains(&"ok".to_owned())));
}

#[tokio::test]
async fn the_same_facts_give_the_same_labels_and_damaged_ones_are_refused() {
    let daemon = Daemon::start();
    let vindex = labelled(&daemon).await;
    let labels = vindex.join("knowledge.labels");
    let first = fs::read(&labels).expect("labels");
    let facts = daemon.data_dir().join("facts.tsv");
    let again = format!("USE \"atlas\"; LABEL CURRENT FROM FACTS \"{}\" RESUME", facts.display());
    daemon.query(&again).await.expect("labels");
    assert!(fs::read(&labels).expect("labels") == first, "the same facts gave other labels");
    let names = fs::read_dir(&vindex).expect("a directory").map(|entry| entry.expect("an entry"));
    let rest: Vec<_> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("knowledge") && name != "knowledge.labels")
        .collect();
    assert!(rest.is_empty(), "{rest:?} stayed behind");
    let mut damaged = first.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&labels, &damaged).expect("written");
    daemon.query("UNMOUNT atlas").await.expect("unmounted");
    let mount = format!("MOUNT \"{}\" AS atlas", vindex.display());
    let error = daemon.query(&mount).await.expect_err("damaged labels");
    assert_eq!(error.code, "XX001", "{error}");
    assert!(error.message.contains("knowledge.labels"), "{error}");
    fs::remove_file(&labels).expect("removed");
    daemon.query(&mount).await.expect("a vindex is whole without labels");
}

#[tokio::test]
async fn labels_are_refused_with_what_is_wrong() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = daemon.client().await;
    let mut refused = async |statement: &str| {
        let answer = client.query(statement, ExecuteOptions::here()).await;
        let error = answer.expect_err(statement);
        (error.code.clone(), error.message.clone())
    };
    let (code, message) = refused("USE \"atlas\"; LABEL FROM DEFAULT").await;
    assert_eq!(code, "55000", "{message}");
    let checkpoint = larql_tests::atlas_checkpoint().display().to_string();
    let on = |statement: &str| format!("USE MODEL \"{checkpoint}\"; {statement}");
    let (code, message) = refused(&on("LABEL FROM DEFAULT")).await;
    assert_eq!(code, "0A000", "{message}");
    let (code, _) = refused(&on("LABEL FROM FACTS \"nowhere.tsv\"")).await;
    assert_eq!(code, "58P01");
    let facts = daemon.data_dir().join("bad.tsv");
    fs::write(&facts, "France\tcapital\n").expect("written");
    let (code, message) = refused(&on(&format!("LABEL FROM FACTS \"{}\"", facts.display()))).await;
    assert_eq!(code, "22023", "{message}");
    assert!(message.contains("line 1"), "{message}");
    for statement in [
        "VERIFY EDGE WHERE entity = 'France'",
        "VERIFY EDGE WHERE relation = 'capital'",
        "VERIFY EDGE WHERE entity = 'France' AND relation LIKE 'c%'",
        "VERIFY EDGE WHERE entity = 'France' AND relation = 'capital' AND layer = 2",
        "VERIFY EDGE WHERE entity = 'France' AND relation = 'capital' AND colour = 'red'",
        "VERIFY EDGE WHERE entity = 'France' AND entity = 'Spain' AND relation = 'capital'",
        "VERIFY EDGE WHERE entity = 7 AND relation = 'capital'",
        "SET describe_sources = 'gate+hearsay'",
    ] {
        let (code, message) = refused(&on(statement)).await;
        assert!(["42601", "22023"].contains(&&*code), "{statement}: {code} {message}");
    }
    let (code, _) =
        refused(&on("VERIFY EDGE WHERE entity = 'France' AND relation = 'capital'")).await;
    assert_eq!(code, "42704");
}
