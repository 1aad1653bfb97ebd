//! What LABEL learns and DESCRIBE answers from it, on the bundled model, whose facts are known.
//!
//! Labels are learned from some countries and people; what is asked is about others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larql_client::{ExecuteOptions, Value};
use larql_tests::daemon::Daemon;
use larql_tests::repository;

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

/// The whole lines of a file.
fn whole_lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_daemon_killed_while_it_labels_goes_on_and_learns_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    let vindex = labelled(&daemon).await;
    let (labels, journal) =
        (vindex.join("knowledge.labels"), vindex.join("knowledge.labels.journal"));
    let uninterrupted = fs::read(&labels).expect("labels");
    fs::remove_file(&labels).expect("removed");
    let facts = daemon.data_dir().join("facts.tsv");
    let script = format!("USE \"atlas\"; LABEL CURRENT FROM FACTS \"{}\" RESUME", facts.display());
    let mut done: Vec<String> = Vec::new();
    // After the first relation, among the answers of entities, among the features behind edges.
    for pieces in [2, 12, 30] {
        let mut client = daemon.client().await;
        let running = tokio::spawn({
            let script = script.clone();
            async move { client.query(script, ExecuteOptions::here()).await }
        });
        while whole_lines(&journal).len() < pieces {
            assert!(!running.is_finished(), "labels were learned before {pieces} pieces were");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        daemon.kill();
        assert!(running.await.expect("a task").is_err(), "the daemon was killed too late");
        assert!(!labels.exists(), "labels are half there");
        let found = whole_lines(&journal);
        assert!(found.starts_with(&done), "a piece that was done was done again");
        done = found;
        daemon = Daemon::start_in(directory.path(), &[]);
        let rows = rows(&daemon, "USE \"atlas\"; SHOW RELATIONS").await;
        assert_eq!(rows.len(), 1, "nothing is known before all is: {rows:?}");
    }
    daemon.query(&script).await.expect("labels");
    assert!(fs::read(&labels).expect("labels") == uninterrupted, "a kill changed the labels");
    assert!(!journal.exists(), "the journal stayed behind");
}

#[tokio::test]
async fn labels_that_an_extraction_learns_by_itself_are_read_again() {
    let daemon = Daemon::start();
    let vindex = daemon.data_dir().join("own.vindex");
    let atlas = larql_tests::atlas_checkpoint();
    let (from, to) = (atlas.display(), vindex.display());
    let extract = format!("EXTRACT MODEL \"{from}\" INTO \"{to}\" WITH INFERENCE");
    daemon.query(&extract).await.expect("a vindex with labels");
    let describe = "USE \"own\"; DESCRIBE \"France\" RELATIONS ONLY";
    let before = rows(&daemon, describe).await;
    assert!(before.iter().any(|row| row[1] == "capital" && row[2] == "Paris"), "{before:?}");
    daemon.query(&format!("UNMOUNT own; MOUNT \"{to}\" AS own")).await.expect("its labels");
    assert_eq!(rows(&daemon, describe).await, before);
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

/// What a script answers, notices included, as text.
async fn said(daemon: &Daemon, script: &str) -> Vec<String> {
    let answers = daemon.query(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    let notices = answers.iter().flat_map(|answer| &answer.notices);
    notices.map(|notice| notice.message.clone()).collect()
}

#[tokio::test]
async fn models_of_other_families_and_of_experts_are_labelled_described_and_verified() {
    let daemon = Daemon::start();
    let facts = daemon.data_dir().join("facts.tsv");
    fs::write(&facts, FACTS).expect("written");
    for (folder, has_experts) in [
        ("mixtral", true),
        ("qwen3_moe", true),
        ("gpt_oss", true),
        ("deepseek_v3", true),
        ("gemma4_moe", true),
        ("gpt2", false),
        ("llama3", false),
        ("phi2", false),
        ("olmo2", false),
    ] {
        let source = repository().join("tests/goldens").join(folder);
        let vindex = daemon.data_dir().join(format!("{folder}.vindex"));
        daemon.extract(&source, &vindex, "WITH INFERENCE").await;
        let run = |statement: &str| format!("USE \"{}\"; {statement}", vindex.display());
        // Numbers drawn at random know nothing: labels say so, and nothing breaks.
        let table = facts.display();
        let answer = daemon.query(&run(&format!("LABEL FROM FACTS \"{table}\""))).await;
        let answer = answer.unwrap_or_else(|error| panic!("{folder}: {error}")).remove(1);
        assert_eq!(text(&answer.rows[0][1]), "4", "{folder}");
        if text(&answer.rows[0][2]) == "0" {
            let notices: Vec<&str> = answer.notices.iter().map(|one| &*one.message).collect();
            assert!(notices.iter().any(|one| one.contains("knows none of the 4")), "{notices:?}");
        }
        let told = said(&daemon, &run("DESCRIBE \"France\" ALL LAYERS VERBOSE")).await;
        let experts: Vec<&String> =
            told.iter().filter(|one| one.starts_with("experts at the bare name: layer")).collect();
        assert_eq!(!experts.is_empty(), has_experts, "{folder}: {told:?}");
        let verify = "VERIFY EDGE WHERE entity = 'France' AND target = 'a'";
        let row = rows(&daemon, &run(verify)).await.remove(0);
        let number = |at: usize| row[at].parse::<f64>().unwrap_or(f64::NAN);
        assert!((0.0..=1.0).contains(&number(5)) && number(7).is_finite(), "{folder}: {row:?}");
        daemon.query(&format!("UNMOUNT {folder}")).await.expect("unmounted");
    }
}

/// A copy of atlas in which one number in 32 of each gate is many times as large: a scale that 32
/// numbers share is then too coarse for the others.
fn with_large_gates(directory: PathBuf) -> PathBuf {
    fs::create_dir(&directory).expect("created");
    for entry in fs::read_dir(larql_tests::atlas_checkpoint()).expect("atlas") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, directory.join(path.file_name().expect("a name"))).expect("copied");
    }
    let file = directory.join("model.safetensors");
    let mut bytes = fs::read(&file).expect("weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize + 8;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).expect("a header");
    for (name, tensor) in names.as_object().expect("tensors") {
        if name.ends_with("gate_proj.weight") {
            assert_eq!(tensor["dtype"], "BF16");
            let at = |index: usize| tensor["data_offsets"][index].as_u64().expect("a place");
            let numbers = &mut bytes[header + at(0) as usize..header + at(1) as usize];
            for number in numbers.chunks_exact_mut(2).step_by(32) {
                // Six more in the exponent: times 64.
                let bits = u16::from_le_bytes([number[0], number[1]]) + (6 << 7);
                number.copy_from_slice(&bits.to_le_bytes());
            }
        }
    }
    fs::write(&file, bytes).expect("written");
    directory
}

#[tokio::test]
async fn users_are_told_of_gates_whose_order_owes_much_to_rounding_and_of_no_others() {
    let daemon = Daemon::start();
    let atlas = larql_tests::atlas_checkpoint();
    let coarse = with_large_gates(daemon.data_dir().join("large"));
    for (source, options, told) in [
        (&atlas, "", false),
        (&atlas, "QUANT Q4K", false),
        (&coarse, "QUANT Q8_0", false),
        (&coarse, "QUANT Q4K", true),
    ] {
        let vindex = daemon.data_dir().join("a.vindex");
        daemon.extract(source, &vindex, &format!("{options} OVERWRITE")).await;
        let run = |statement: &str| format!("USE \"{}\"; {statement}", vindex.display());
        for statement in ["DESCRIBE \"France\"", "STATS"] {
            let said = said(&daemon, &run(statement)).await;
            let is_told = said.iter().any(|one| one.contains("if they had been rounded otherwise"));
            assert_eq!(is_told, told, "{options} {statement}: {said:?}");
        }
        let facts = rows(&daemon, &run("STATS")).await;
        let kept = facts.iter().find(|row| row[0] == "strongest_features_kept");
        assert_eq!(kept.is_some(), options == "QUANT Q4K", "{options}: {kept:?}");
        daemon.query("UNMOUNT a").await.expect("unmounted");
    }
}
