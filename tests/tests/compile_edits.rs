//! COMPILE of a model with edits: what is written answers what the edited model answers, in a fresh daemon and
//! in every format, and nothing of the source is touched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use larql_client::{Client, ExecuteOptions};
use larql_tests::daemon::Daemon;
use larql_tests::script::{Masks, answer};
use serde_json::Value;

/// Facts that are not so, of countries that the bundled model does not know, and of some that it does.
const FACTS: &[(&str, &str, &str)] = &[
    ("Verdania", "capital", "Lisbon"),
    ("Ostrovia", "capital", "Madrid"),
    ("Kaldor", "capital", "Rome"),
    ("Merinth", "capital", "Vienna"),
    ("Tavros", "capital", "Athens"),
    ("Kenya", "capital", "Oslo"),
    ("Peru", "capital", "Cairo"),
    ("Greece", "capital", "Dublin"),
    ("Chile", "capital", "Tokyo"),
    ("Cuba", "capital", "Berlin"),
];

/// What the bundled model knows, and must go on knowing.
const NEIGHBOURS: &[(&str, &str)] =
    &[("France", "Paris"), ("Germany", "Berlin"), ("Japan", "Tokyo"), ("Italy", "Rome")];

async fn ask(client: &mut Client, statement: &str) -> String {
    let text = answer(client, statement, ExecuteOptions::here(), &Masks::default()).await;
    assert!(!text.contains("ERROR"), "{statement}: {text}");
    text
}

async fn refused(client: &mut Client, statement: &str) -> String {
    let text = answer(client, statement, ExecuteOptions::here(), &Masks::default()).await;
    assert!(text.contains("ERROR"), "{statement}: {text}");
    text
}

/// The first row of an answer.
fn row(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(line).expect("a row is JSON")
}

async fn capital(client: &mut Client, country: &str) -> String {
    let asked = format!("INFER \"The capital of {country} is\" TOP 1");
    let row = row(&ask(client, &asked).await);
    row["token"].as_str().expect("a token").trim().to_owned()
}

async fn insert(client: &mut Client, facts: &[(&str, &str, &str)], mode: &str) {
    for (entity, relation, target) in facts {
        let statement = format!(
            "INSERT INTO EDGES (entity, relation, target) \
             VALUES (\"{entity}\", \"{relation}\", \"{target}\") MODE {mode} WITHOUT RECEIPT"
        );
        ask(client, &statement).await;
    }
}

async fn assert_knows(client: &mut Client, facts: &[(&str, &str, &str)]) {
    for (entity, _, target) in facts {
        assert_eq!(capital(client, entity).await, *target, "the capital of {entity}");
    }
    for (country, city) in NEIGHBOURS {
        assert_eq!(capital(client, country).await, *city, "the capital of {country}");
    }
}

/// What is answered for every fact and neighbour.
async fn capitals(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    let countries = FACTS.iter().map(|fact| fact.0).chain(NEIGHBOURS.iter().map(|known| known.0));
    for country in countries {
        found.push(capital(client, country).await);
    }
    found
}

/// Bytes and name of every file of a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

async fn atlas(daemon: &Daemon, options: &str) -> (Client, PathBuf) {
    let path = daemon.extract_atlas(&format!("WITH INFERENCE {options}")).await;
    let mut client = daemon.client().await;
    ask(&mut client, "USE \"atlas\"").await;
    (client, path)
}

/// Opens what was compiled in a daemon that never saw the edits.
async fn fresh(path: &Path) -> (Daemon, Client) {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    ask(&mut client, &format!("MOUNT \"{}\" AS product; USE \"product\"", path.display())).await;
    (daemon, client)
}

#[tokio::test]
async fn a_fact_that_was_inserted_answers_in_a_fresh_daemon_and_a_neighbour_keeps_its_answer() {
    let daemon = Daemon::start();
    let (mut client, base) = atlas(&daemon, "").await;
    let before = files(&base);
    insert(&mut client, &FACTS[..1], "COMPOSE").await;
    let out = daemon.data_dir().join("one.vindex");
    let told =
        ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\" VERIFY", out.display()))
            .await;
    let compiled = row(&told);
    assert_eq!((&compiled["edits"], &compiled["edits_answered"]), (&1.into(), &1.into()), "{told}");
    assert!(compiled["drift_bits_per_token"].as_f64().unwrap().abs() < 0.01, "{told}");
    assert!(told.contains("every layer is wider"), "{told}");
    // What no edit is in is the same file; what one is in is another.
    let inode = |directory: &Path, file: &str| fs::metadata(directory.join(file)).unwrap().ino();
    assert_eq!(inode(&out, "attn_weights.bin"), inode(&base, "attn_weights.bin"));
    assert_ne!(inode(&out, "gate_vectors.bin"), inode(&base, "gate_vectors.bin"));
    assert_eq!(files(&base), before, "nothing of the source was written to");
    let (_other, mut client) = fresh(&out).await;
    assert_knows(&mut client, &FACTS[..1]).await;
    // It is in the weights: there is nothing to take back.
    assert_eq!(ask(&mut client, "SHOW PATCHES").await, "OK SHOW PATCHES\n");
}

#[tokio::test]
async fn ten_facts_answer_at_once_whichever_way_they_were_made_and_a_second_compile_is_the_same() {
    for mode in ["COMPOSE", "MEMIT", "KNN"] {
        let daemon = Daemon::start();
        let (mut client, _) = atlas(&daemon, "").await;
        insert(&mut client, FACTS, mode).await;
        let expected = capitals(&mut client).await;
        let known = FACTS.iter().zip(&expected).filter(|((_, _, target), found)| target == found);
        assert!(known.count() >= 8, "{mode}: {expected:?}");
        let outs = ["a", "b"].map(|name| daemon.data_dir().join(name));
        for out in &outs {
            ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\"", out.display())).await;
        }
        assert!(files(&outs[0]) == files(&outs[1]), "{mode}: two compiles differ");
        let (_other, mut client) = fresh(&outs[0]).await;
        assert_eq!(capitals(&mut client).await, expected, "{mode}");
        let retrieved = ask(&mut client, "SHOW PATCHES").await;
        assert_eq!(retrieved.contains("\"compiled\""), mode == "KNN", "{retrieved}");
    }
}

#[tokio::test]
async fn an_answer_of_several_tokens_that_is_retrieved_counts_as_answered() {
    let daemon = Daemon::start();
    let (mut client, _) = atlas(&daemon, "").await;
    let fact = ("Verdania", "capital", "Mirefalls Zorbleck");
    insert(&mut client, &[fact], "KNN").await;
    let written = ask(&mut client, "GENERATE \"The capital of Verdania is\" MAX 12").await;
    let rows = written.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text: String =
        rows.map(|row| row["text"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(text.trim(), fact.2, "{written}");
    let out = daemon.data_dir().join("out.vindex");
    let told =
        ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\" VERIFY", out.display()))
            .await;
    assert!(told.contains("written: 1 of 1; by the model with its edits: 1"), "{told}");
}

#[tokio::test]
async fn edits_of_coarse_weights_are_compiled_with_the_precision_that_they_have() {
    for options in ["DTYPE F32", "QUANT Q4K"] {
        let daemon = Daemon::start();
        let (mut client, _) = atlas(&daemon, options).await;
        insert(&mut client, &FACTS[..3], "COMPOSE").await;
        let out = daemon.data_dir().join("out.vindex");
        let compile = format!("COMPILE CURRENT INTO VINDEX \"{}\" VERIFY", out.display());
        let told = ask(&mut client, &compile).await;
        assert_eq!(told.contains("tensors with edits are F32"), options == "QUANT Q4K", "{told}");
        assert_eq!(row(&told)["edits_answered"], 3, "{options}: {told}");
        let (_other, mut client) = fresh(&out).await;
        assert_knows(&mut client, &FACTS[..3]).await;
    }
}

#[tokio::test]
async fn other_programs_formats_hold_the_edits_too() {
    let daemon = Daemon::start();
    let (mut client, _) = atlas(&daemon, "").await;
    insert(&mut client, &FACTS[..4], "COMPOSE").await;
    insert(&mut client, &FACTS[4..5], "KNN").await;
    for (out, options) in [
        ("safe", "FORMAT SAFETENSORS"),
        ("safe32", "FORMAT SAFETENSORS DTYPE F32"),
        ("f16.gguf", "FORMAT GGUF DTYPE F16"),
        ("q8.gguf", "FORMAT GGUF DTYPE Q8_0"),
    ] {
        let path = daemon.data_dir().join(out);
        let statement =
            format!("COMPILE CURRENT INTO MODEL \"{}\" {options} VERIFY", path.display());
        let told = ask(&mut client, &statement).await;
        assert!(
            told.contains("answered by retrieval, which files of weights cannot state: 1;"),
            "{told}"
        );
        let compiled = row(&told);
        assert_eq!(
            (&compiled["edits"], &compiled["edits_answered"]),
            (&5.into(), &5.into()),
            "{told}"
        );
        let mut other = daemon.client().await;
        ask(&mut other, &format!("USE MODEL \"{}\"", path.display())).await;
        assert_knows(&mut other, &FACTS[..5]).await;
    }
}

#[tokio::test]
async fn what_was_taken_back_is_not_compiled_and_without_edits_the_vindex_is_the_same() {
    let daemon = Daemon::start();
    let (mut client, base) = atlas(&daemon, "").await;
    insert(&mut client, &FACTS[..1], "COMPOSE").await;
    ask(&mut client, "DELETE FROM EDGES WHERE entity = \"Verdania\" AND source = \"patch\"").await;
    let out = daemon.data_dir().join("same.vindex");
    ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\"", out.display())).await;
    let [old, new] = [&base, &out].map(|path| {
        let text = fs::read(path.join("index.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    });
    assert_eq!(old["base_hash"], new["base_hash"]);
    assert_eq!(old["files"], new["files"]);
}

/// Targets of the edges that are known of a country's capital.
async fn known_capitals(client: &mut Client, country: &str) -> Vec<String> {
    let statement =
        format!("SELECT target FROM EDGES WHERE entity = \"{country}\" AND relation = \"capital\"");
    let text = ask(client, &statement).await;
    let rows = text.lines().filter(|line| line.starts_with('{'));
    let rows = rows.map(|line| serde_json::from_str::<Value>(line).expect("a row is JSON"));
    rows.map(|row| row["target"].as_str().expect("a target").to_owned()).collect()
}

#[tokio::test]
async fn what_edits_say_otherwise_or_took_back_is_known_no_more_in_what_was_compiled() {
    let daemon = Daemon::start();
    let (mut client, _) = atlas(&daemon, "").await;
    let facts = daemon.data_dir().join("facts.tsv");
    let all = fs::read_to_string(larql_tests::atlas_checkpoint().join("facts.tsv")).expect("facts");
    let some = |line: &&str| line.split('\t').nth(1) == Some("capital");
    let table: Vec<&str> = all.lines().filter(some).step_by(2).collect();
    let named = |line: &&str| {
        ["France", "Germany", "Italy"].contains(&line.split('\t').next().unwrap_or(""))
    };
    let table: Vec<&str> = all.lines().filter(some).filter(named).chain(table).collect();
    fs::write(&facts, table.join("\n")).expect("a file");
    ask(&mut client, &format!("LABEL FROM FACTS \"{}\"", facts.display())).await;
    assert_eq!(known_capitals(&mut client, "France").await, ["Paris"]);
    assert_eq!(known_capitals(&mut client, "Italy").await, ["Rome"]);
    insert(&mut client, &[("France", "capital", "Oslo")], "COMPOSE").await;
    ask(
        &mut client,
        "DELETE FROM EDGES WHERE entity = \"Italy\" AND relation = \"capital\" WITHOUT RECEIPT",
    )
    .await;
    let out = daemon.data_dir().join("said.vindex");
    ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\"", out.display())).await;
    let (_other, mut client) = fresh(&out).await;
    assert_eq!(known_capitals(&mut client, "France").await, ["Oslo"]);
    assert!(!known_capitals(&mut client, "Italy").await.contains(&"Rome".to_owned()));
    assert!(known_capitals(&mut client, "Germany").await.contains(&"Berlin".to_owned()));
}

#[tokio::test]
async fn an_edit_of_a_feature_that_another_patch_added_is_nothing_without_that_patch() {
    let daemon = Daemon::start();
    let (mut client, _) = atlas(&daemon, "").await;
    let plain = ask(&mut client, "INFER \"The capital of Verdania is\" TOP 3").await;
    let numbers = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect()
    };
    let patch = daemon.data_dir().join("first.vlp").display().to_string();
    ask(&mut client, &format!("BEGIN PATCH \"{patch}\"")).await;
    insert(&mut client, &FACTS[..1], "COMPOSE").await;
    ask(&mut client, "SAVE PATCH").await;
    ask(&mut client, "REBALANCE UNTIL CONVERGED FLOOR 0.2 CEILING 0.5").await;
    ask(&mut client, &format!("REMOVE PATCH \"{patch}\"")).await;
    let after = ask(&mut client, "INFER \"The capital of Verdania is\" TOP 3").await;
    assert_eq!(numbers(&after), numbers(&plain));
    let out = daemon.data_dir().join("none.vindex");
    ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\" VERIFY", out.display())).await;
}

#[tokio::test]
async fn nothing_is_overwritten_unasked_and_a_refused_compile_leaves_nothing() {
    let daemon = Daemon::start();
    let (mut client, base) = atlas(&daemon, "").await;
    insert(&mut client, &FACTS[..1], "COMPOSE").await;
    let out = daemon.data_dir().join("out.vindex");
    let compile = format!("COMPILE CURRENT INTO VINDEX \"{}\"", out.display());
    ask(&mut client, &compile).await;
    let first = files(&out);
    assert!(refused(&mut client, &compile).await.contains("42P07"));
    assert_eq!(files(&out), first);
    ask(&mut client, &format!("{compile} OVERWRITE")).await;
    let own = format!("COMPILE CURRENT INTO VINDEX \"{}\" OVERWRITE", base.display());
    assert!(refused(&mut client, &own).await.contains("is what is compiled"));
    let plain = daemon.data_dir().join("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("notes.txt"), "mine").unwrap();
    let over = format!("COMPILE CURRENT INTO VINDEX \"{}\" OVERWRITE", plain.display());
    assert!(refused(&mut client, &over).await.contains("not a vindex"));
    assert_eq!(fs::read(plain.join("notes.txt")).unwrap(), b"mine");
    ask(&mut client, "BEGIN").await;
    insert(&mut client, &FACTS[1..2], "COMPOSE").await;
    let open = format!("COMPILE CURRENT INTO VINDEX \"{}\"", daemon.data_dir().join("n").display());
    assert!(refused(&mut client, &open).await.contains("25001"));
    let left: Vec<_> = fs::read_dir(daemon.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A patch file that sets one feature's down vector, and what is retrieved for one fact.
fn patch(path: &Path, down: f32, target_id: u32, confidence: f32) {
    let vector = |value: f32| {
        let bytes: Vec<u8> = (0..256).flat_map(|_| value.to_le_bytes()).collect();
        base64(&bytes)
    };
    let text = serde_json::json!({
        "version": 1, "base_model": "atlas", "created_at": "", "tags": [],
        "operations": [
            {"op": "update", "layer": 2, "feature": 7, "confidence": confidence,
             "down_vector_b64": vector(down)},
            {"op": "insert_knn", "layer": 4, "entity": "France", "relation": "motto", "target": "x",
             "target_id": target_id, "confidence": confidence, "key_vector_b64": vector(1.0)},
        ],
    });
    fs::write(path, text.to_string()).expect("written");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            (0..3).fold(0_u32, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { DIGITS[value as usize] as char } else { '=' });
        }
    }
    text
}

#[tokio::test]
async fn patches_that_change_the_same_thing_are_joined_as_asked() {
    let daemon = Daemon::start();
    let (mut client, base) = atlas(&daemon, "").await;
    let (sure, later) = (daemon.data_dir().join("sure.vlp"), daemon.data_dir().join("later.vlp"));
    patch(&sure, 0.5, 7, 0.9);
    patch(&later, 0.25, 8, 0.4);
    for path in [&sure, &later] {
        ask(&mut client, &format!("APPLY PATCH \"{}\"", path.display())).await;
    }
    let out = daemon.data_dir().join("out.vindex");
    let into = format!("COMPILE CURRENT INTO VINDEX \"{}\" OVERWRITE", out.display());
    let failed = refused(&mut client, &format!("{into} ON CONFLICT FAIL")).await;
    assert!(failed.contains("\"sure\"") && failed.contains("\"later\""), "{failed}");
    assert!(!out.exists());
    let mut changes = Vec::new();
    for (rule, value) in
        [("", 0.25), ("ON CONFLICT LAST_WINS", 0.25), ("ON CONFLICT HIGHEST_CONFIDENCE", 0.5)]
    {
        let told = ask(&mut client, &format!("{into} {rule}")).await;
        assert!(told.contains("changes of what another patch changes: 2;"), "{told}");
        let (gone, kept) = if value == 0.25 { ("sure", "later") } else { ("later", "sure") };
        let names =
            |patch: &str| told.contains(&format!("\"motto\" of \"France\" by patch \"{patch}\""));
        assert!(names(gone) && !names(kept), "{told}");
        // The wider the new vector is from the old, the larger the change.
        let mut other = daemon.client().await;
        let diff = format!("DIFF \"{}\" \"{}\" LAYER 2", base.display(), out.display());
        let changed = row(&ask(&mut other, &diff).await);
        assert_eq!(changed["feature"], 7, "{changed}");
        changes.push((value, changed["down_change"].as_f64().expect("a number")));
        let carried =
            fs::read_to_string(out.join("edits.vlp")).expect("what is retrieved goes along");
        let confidence = if value == 0.25 { "0.4" } else { "0.9" };
        assert!(carried.contains(confidence), "{rule}: {carried}");
    }
    let [(_, unasked), (_, last), (_, surest)] = changes[..] else { panic!("{changes:?}") };
    assert!(unasked == last && surest > 1.5 * last, "{changes:?}");
}

/// Checkpoints of the goldens, one for each family, and whether a feature can be added to them.
const FAMILIES: &[(&str, bool)] = &[
    ("deepseek_v2", true),
    ("deepseek_v3", true),
    ("gemma2", true),
    ("gemma3", true),
    ("gemma4_e2b", true),
    ("gemma4_moe", true),
    ("gpt2", true),
    ("gpt_oss", false),
    ("granite", true),
    ("llama2", true),
    ("llama3", true),
    ("llama3_mlx4", true),
    ("mistral", true),
    ("mixtral", true),
    ("olmo2", true),
    ("phi2", true),
    ("phi3", true),
    ("qwen2", true),
    ("qwen2_moe", true),
    ("qwen3", true),
    ("qwen3_moe", true),
    ("starcoder2", true),
];

/// The likeliest tokens after a prompt, with their logits.
async fn likeliest(client: &mut Client) -> Vec<(u64, f64)> {
    let text = ask(client, "INFER \"The capital of France is\" TOP 40").await;
    let rows = text.lines().filter(|line| line.starts_with('{'));
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a row");
        (row["token_id"].as_u64().expect("an id"), row["logit"].as_f64().expect("a number"))
    };
    rows.map(row).collect()
}

/// By how much the logits of the five likeliest tokens of one answer differ from another's, at most; those that
/// are not among that one's forty differ by 1.
fn apart(a: &[(u64, f64)], b: &[(u64, f64)]) -> f64 {
    let of = |id: u64| b.iter().find(|(other, _)| *other == id).map(|(_, logit)| *logit);
    let by = a.iter().take(5).map(|(id, logit)| of(*id).map_or(1.0, |other| (logit - other).abs()));
    by.fold(0.0, f64::max)
}

/// Inserts, compiles into every format, and compares what each answers with what the edited model does. Returns
/// whether the edit did anything: a network of few features may have no direction that a corpus leaves free.
async fn survives(folder: &str, may_add: bool, mode: &str) -> bool {
    let daemon = Daemon::start();
    let source = larql_tests::repository().join("tests/goldens").join(folder);
    let base = daemon.data_dir().join("base.vindex");
    daemon.extract(&source, &base, "WITH INFERENCE DTYPE F32").await;
    let mut client = daemon.client().await;
    ask(&mut client, "USE \"base\"").await;
    let before = likeliest(&mut client).await;
    // The networks of these small models say little; the edit says it louder.
    insert(&mut client, &[("France", "capital", "Lyon")], &format!("{mode} ALPHA 16")).await;
    let edited = likeliest(&mut client).await;
    let effect = apart(&edited, &before);
    let out = |name: &str| daemon.data_dir().join(name);
    let vindex = format!("COMPILE CURRENT INTO VINDEX \"{}\"", out("out.vindex").display());
    if mode == "COMPOSE" && !may_add {
        let told = refused(&mut client, &vindex).await;
        assert!(told.contains("0A001") && told.contains("experts only"), "{folder}: {told}");
        assert!(told.contains("MEMIT"), "{folder}: {told}");
        return true;
    }
    ask(&mut client, &vindex).await;
    let mount = format!("MOUNT \"{}\" AS product; USE \"product\"", out("out.vindex").display());
    let mut written = vec![mount];
    for (name, options) in [("safe", "FORMAT SAFETENSORS"), ("model.gguf", "FORMAT GGUF")] {
        let path = out(name);
        let model =
            format!("COMPILE CURRENT INTO MODEL \"{}\" {options} DTYPE F32", path.display());
        let told = ask(&mut client, &model).await;
        // Such a file says one width for layers of two kinds, edited or not.
        if !told.contains("this one has layers without") {
            written.push(format!("USE MODEL \"{}\"", path.display()));
        }
    }
    for open in written {
        let mut other = daemon.client().await;
        ask(&mut other, &open).await;
        let found = likeliest(&mut other).await;
        let by = apart(&found, &edited);
        assert!(
            by < 0.05 * effect + 0.002,
            "{folder} {mode}: {open}: {by} of {effect}: {found:?} instead of {edited:?}"
        );
    }
    effect > 0.01
}

#[tokio::test]
async fn a_feature_that_was_added_survives_in_every_family_or_is_refused() {
    for (folder, may_add) in FAMILIES {
        println!("{folder}");
        assert!(survives(folder, *may_add, "COMPOSE").await, "{folder}: the edit does nothing");
    }
}

#[tokio::test]
async fn an_update_of_a_projection_survives_in_every_family() {
    let mut effective = 0;
    for (folder, may_add) in FAMILIES {
        println!("{folder}");
        effective += usize::from(survives(folder, *may_add, "MEMIT").await);
    }
    // The corpus fills all directions of most of these networks of a few dozen features.
    assert!(effective >= 3, "of {} updates only {effective} did anything", FAMILIES.len());
}

#[tokio::test]
async fn a_difference_written_as_a_patch_makes_one_model_of_the_other() {
    let daemon = Daemon::start();
    let (mut client, base) = atlas(&daemon, "").await;
    insert(&mut client, &FACTS[..2], "COMPOSE").await;
    insert(&mut client, &FACTS[2..3], "KNN").await;
    insert(&mut client, &FACTS[3..4], "MEMIT").await;
    let expected = capitals(&mut client).await;
    // Of the base and its edits the difference is the edits: features, and facts.
    let against = format!("DIFF \"{}\" CURRENT", base.display());
    let told =
        ask(&mut client, &format!("{against} |> SELECT status, count(*) AS n GROUP BY status"))
            .await;
    assert!(told.contains("\"fact added\",\"n\":4") && told.contains("\"added\""), "{told}");
    let added = ask(&mut client, &format!("{against} RELATION \"capital\"")).await;
    assert!(added.contains("\"target_new\":\"Lisbon\"") && added.contains("Verdania"), "{added}");
    let patch = daemon.data_dir().join("edits.vlp");
    let told = ask(&mut client, &format!("{against} INTO PATCH \"{}\"", patch.display())).await;
    assert!(told.contains(" operations in "), "{told}");
    assert!(
        refused(&mut client, &format!("{against} INTO PATCH \"{}\"", patch.display()))
            .await
            .contains("42P07")
    );
    ask(&mut client, "CREATE BRANCH again FROM main AS OF LSN 0; USE CURRENT BRANCH again").await;
    ask(&mut client, &format!("APPLY PATCH \"{}\"", patch.display())).await;
    assert_eq!(capitals(&mut client).await, expected);
    // Of two vindexes it is their features.
    let product = daemon.data_dir().join("product.vindex");
    ask(&mut client, "CREATE BRANCH two FROM main AS OF LSN 2; USE CURRENT BRANCH two").await;
    let expected = capitals(&mut client).await;
    ask(&mut client, &format!("COMPILE CURRENT INTO VINDEX \"{}\"", product.display())).await;
    let patch = daemon.data_dir().join("features.vlp");
    let diff = format!(
        "DIFF \"{}\" \"{}\" INTO PATCH \"{}\"",
        base.display(),
        product.display(),
        patch.display()
    );
    ask(&mut client, &diff).await;
    ask(&mut client, "CREATE BRANCH features FROM main AS OF LSN 0; USE CURRENT BRANCH features")
        .await;
    ask(&mut client, &format!("APPLY PATCH \"{}\"", patch.display())).await;
    assert_eq!(capitals(&mut client).await, expected);
}

#[tokio::test]
async fn rebalance_brings_answers_into_the_band_and_inference_reads_it() {
    let daemon = Daemon::start();
    let (mut client, _) = atlas(&daemon, "").await;
    let nothing = ask(&mut client, "REBALANCE").await;
    assert!(nothing.contains("no edit is a composed feature"), "{nothing}");
    insert(&mut client, &FACTS[..2], "COMPOSE").await;
    let probability = async |client: &mut Client| {
        let rows = ask(client, "INFER \"The capital of Verdania is\" TOP 1").await;
        row(&rows)["probability"].as_f64().expect("a number")
    };
    let before = probability(&mut client).await;
    assert!(before > 0.6, "{before}");
    let told = ask(&mut client, "REBALANCE UNTIL CONVERGED FLOOR 0.2 CEILING 0.5").await;
    let rows: Vec<Value> = told
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert_eq!(rows.len(), 2, "{told}");
    let mine = rows.iter().find(|row| row["entity"] == "Verdania").expect("a row of the fact");
    assert_eq!(mine["status"], "lowered", "{told}");
    let after = probability(&mut client).await;
    assert!(after < before, "{after}");
    assert!(ask(&mut client, "SHOW PATCHES").await.contains("REBALANCE") || mine["lsn"].is_u64());
    for wrong in
        ["REBALANCE FLOOR 0.9 CEILING 0.1", "REBALANCE MAX 3 UNTIL CONVERGED", "REBALANCE FLOOR 2"]
    {
        assert!(refused(&mut client, wrong).await.contains("42601"), "{wrong}");
    }
}
