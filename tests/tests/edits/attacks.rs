//! Attacks on vindexes and patches, as a whole system. The numbers are those of the list that the project was
//! given; the parsers' own tests are in `storage/tests/edits/patches.rs` (30, 31, 32), damage to the log in
//! `storage/tests/edits/damage.rs` (28), a full disk (52) in `failures/patches.rs`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use larql_client::ExecuteOptions;
use larql_tests::daemon::Daemon;
use serde_json::{Value as Json, json};

use super::{ask, fact_and_feature, patch, session, text, write};

async fn daemon() -> (Daemon, tempfile::TempDir) {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    (daemon, tempfile::tempdir().expect("a directory"))
}

const CAPITAL: &str = "INFER \"The capital of France is\" TOP 3";

/// Applies each patch, which must be refused with that code and say these words; nothing changes.
async fn all_refused(patches: Vec<(&str, Json, &str, &str)>) {
    let (daemon, files) = daemon().await;
    let mut client = session(&daemon).await;
    let before = ask(&mut client, CAPITAL, files.path()).await;
    for (name, json, code, words) in patches {
        write(&files.path().join("p.vlp"), &json);
        for force in ["", " FORCE"] {
            if code == "22P05" && !force.is_empty() {
                continue;
            }
            let apply = format!("APPLY PATCH \"p.vlp\"{force}");
            let refused = ask(&mut client, &apply, files.path()).await;
            assert!(refused.contains(&format!("ERROR {code}")), "{name}{force}: {refused}");
            assert!(refused.contains(words) && refused.contains("p.vlp"), "{name}: {refused}");
        }
    }
    assert_eq!(ask(&mut client, "SHOW PATCHES", files.path()).await, "OK SHOW PATCHES\n");
    assert_eq!(ask(&mut client, CAPITAL, files.path()).await, before);
    assert!(!daemon.log().contains("panicked"));
}

fn changed(of: &str, change: impl FnOnce(&mut Json)) -> Json {
    let mut patch = patch(of);
    change(&mut patch);
    patch
}

/// Case 27: layers and features beyond the model's, in patches and in statements.
#[tokio::test]
async fn attack_27_layers_beyond_the_model_are_refused() {
    let layer = |of, at: usize, layer: Json| changed(of, |p| p["operations"][at]["layer"] = layer);
    all_refused(vec![
        ("a key", layer("capitals.vlp", 0, json!(99)), "22P04", "layer"),
        ("a hidden feature", layer("capitals.vlp", 1, json!(8)), "22P04", "layer"),
        ("a row", layer("rows.vlp", 0, json!(4_294_967_295u32)), "22P04", "layer"),
        ("no number", layer("rows.vlp", 0, json!(-1)), "22P04", ""),
        ("no whole number", layer("rows.vlp", 0, json!(1e300)), "22P04", ""),
    ])
    .await;
    let (daemon, files) = daemon().await;
    let mut client = session(&daemon).await;
    for clause in ["AT LAYER 99", "AT LAYERS 3-99", "AT LAYER 4294967296"] {
        let insert = format!(
            "INSERT INTO EDGES (entity, relation, target) VALUES (\"a\", \"b\", \"c\") {clause}"
        );
        let refused = ask(&mut client, &insert, files.path()).await;
        assert!(refused.contains("ERROR"), "{clause}: {refused}");
    }
}

/// Case 28: every file of a vindex cut short, with one bit turned, or another model's.
#[tokio::test]
async fn attack_28_a_damaged_file_of_a_vindex_is_named() {
    let (daemon, files) = daemon().await;
    let vindex = daemon.data_dir().join("vindexes/atlas.vindex");
    let other = files.path().join("other.vindex");
    daemon
        .extract(&larql_tests::goldens::Golden::load("llama2").path, &other, "WITH INFERENCE")
        .await;
    let names: Vec<String> = std::fs::read_dir(&vindex)
        .expect("the vindex")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.metadata().is_ok_and(|there| there.is_file() && there.len() > 0))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.len() > 5, "{names:?}");
    let mut client = daemon.client().await;
    let mut seen = 0;
    for (number, name) in names.iter().enumerate() {
        let bytes = std::fs::read(vindex.join(name)).expect("the file");
        let mut turned = bytes.clone();
        turned[bytes.len() / 2] ^= 1;
        let swapped = std::fs::read(other.join(name)).ok();
        let damages = [Some(bytes[..bytes.len() / 2].to_vec()), Some(turned), swapped];
        for (kind, damage) in damages.into_iter().enumerate() {
            let Some(damage) = damage.filter(|damage| *damage != bytes) else { continue };
            let copy = files.path().join(format!("v{number}_{kind}.vindex"));
            linked(&vindex, &copy);
            std::fs::remove_file(copy.join(name)).expect("a link");
            std::fs::write(copy.join(name), damage).expect("the damage");
            let verify = format!("VERIFY VINDEX \"{}\"", copy.display());
            let said = ask(&mut client, &verify, files.path()).await;
            let whole = said.lines().all(|line| line.contains("\"status\":\"ok\""));
            assert!(!whole && said.contains(&**name), "{name}, {kind}: {said}");
            // What is open, other mounts included, goes on.
            let mount = format!("MOUNT \"{}\" AS damaged{number}_{kind}", copy.display());
            let _ = ask(&mut client, &mount, files.path()).await;
            seen += 1;
        }
    }
    assert!(seen > names.len());
    let answer = daemon.query("USE \"atlas\"; INFER \"The capital of France is\" TOP 1").await;
    answer.expect("the daemon goes on");
    assert!(!daemon.log().contains("panicked"));
}

/// A copy of a directory whose files are links.
fn linked(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => linked(&path, &target),
            false => std::fs::hard_link(&path, target).expect("a link"),
        }
    }
}

/// Case 29: a patch that was made for another base.
#[tokio::test]
async fn attack_29_a_patch_of_another_base_is_refused() {
    let of = |hash: &str| changed("capitals.vlp", |patch| patch["base_checksum"] = json!(hash));
    all_refused(vec![
        ("another", of(&"0".repeat(64)), "22P05", "made for base"),
        ("none", of("x"), "22P05", "made for base"),
    ])
    .await;
}

/// Case 30: vectors that are empty, of another length, no numbers, or would blow every answer.
#[tokio::test]
async fn attack_30_vectors_that_would_blow_every_answer_are_refused() {
    let key = |values: Vec<f32>| {
        changed("capitals.vlp", |patch| {
            patch["operations"][0]["key_vector_b64"] = json!(base64(&values));
        })
    };
    let row = |values: Vec<f32>| {
        changed("rows.vlp", |patch| {
            patch["operations"][0]["down_vector_b64"] = json!(base64(&values));
        })
    };
    all_refused(vec![
        ("an empty key", key(vec![]), "22P04", "number 1"),
        ("a short key", key(vec![0.1; 255]), "22P04", "number 1"),
        ("a long key", key(vec![0.1; 257]), "22P04", "number 1"),
        ("a key that is none", key(vec![f32::NAN; 256]), "22P04", "number 1"),
        ("an endless row", row(vec![f32::INFINITY; 256]), "22P04", "number 1"),
        ("a row of 1e30", row(vec![1e30; 256]), "22P04", "number 1"),
        ("a key of 1e30", key(vec![1e30; 256]), "22P04", "number 1"),
    ])
    .await;
}

/// Case 31: ten million operations.
#[tokio::test]
async fn attack_31_ten_million_operations_are_refused_in_bounded_memory() {
    let (daemon, files) = daemon().await;
    let mut client = session(&daemon).await;
    let mut text = String::from("{\"version\":1,\"base_model\":\"atlas\",\"operations\":[");
    let one = "{\"op\":\"delete\",\"layer\":0,\"feature\":0},";
    text += &one.repeat(10_000_000);
    text.pop();
    text += "]}";
    std::fs::write(files.path().join("many.vlp"), &text).expect("the patch");
    let (began, before) = (Instant::now(), daemon.anonymous_bytes());
    let refused = ask(&mut client, "APPLY PATCH \"many.vlp\"", files.path()).await;
    assert!(refused.contains("ERROR 22P04"), "{refused}");
    let taken = daemon.anonymous_bytes().saturating_sub(before);
    assert!(taken < 4 * text.len() as u64, "{taken} bytes for {}", text.len());
    println!("refused in {:?}", began.elapsed());
}

/// Case 32: base64 with something behind it, or wrongly padded.
#[tokio::test]
async fn attack_32_base64_with_trailing_junk_is_refused() {
    let with = |junk: &str| {
        changed("capitals.vlp", |patch| {
            let key = patch["operations"][0]["key_vector_b64"].as_str().expect("text").to_owned();
            patch["operations"][0]["key_vector_b64"] = json!(format!("{key}{junk}"));
        })
    };
    let junk = ["=", "====", "AAAA", "\n", " ", "!", "\u{0}", "AAA="];
    all_refused(junk.map(|junk| (junk, with(junk), "22P04", "number 1")).into()).await;
}

/// Case 33: two writers, one name: one patch is applied, and the other writer is told.
#[tokio::test]
async fn attack_33_two_writers_of_one_patch_name_make_one_patch() {
    let (daemon, files) = daemon().await;
    let (left, right) = (files.path().join("l"), files.path().join("r"));
    for (directory, entity, feature) in [(&left, "Peru", 1), (&right, "Chile", 2)] {
        std::fs::create_dir(directory).expect("a directory");
        write(&directory.join("p.vlp"), &fact_and_feature(entity, feature));
    }
    let apply = |directory: PathBuf| {
        let daemon = &daemon;
        async move {
            let mut client = session(daemon).await;
            ask(&mut client, "APPLY PATCH \"p.vlp\"", &directory).await
        }
    };
    let (one, other) = tokio::join!(apply(left), apply(right));
    let failed = [&one, &other].into_iter().filter(|said| said.contains("ERROR")).count();
    assert_eq!(failed, 1, "{one}\n{other}");
    let told = format!("{one}{other}");
    assert!(told.contains("ERROR 40001") || told.contains("ERROR 42P07"), "{told}");
    let mut client = session(&daemon).await;
    let patches = ask(&mut client, "SHOW PATCHES |> SELECT name", files.path()).await;
    assert_eq!(patches, "{\"name\":\"p\"}\n");
    // One file name for two patches that are saved: the second is refused, and nothing is written over.
    let begun = "BEGIN PATCH \"p.vlp\"";
    let refused = ask(&mut client, begun, files.path()).await;
    assert!(refused.contains("ERROR 42P07"), "{refused}");
}

/// Case 34: what is compressed is no patch, and is not unpacked.
#[tokio::test]
async fn attack_34_a_compressed_patch_is_refused_and_not_unpacked() {
    let (daemon, files) = daemon().await;
    let mut client = session(&daemon).await;
    // Heads of gzip, Zstandard and bzip2, with a body that would be large.
    for head in [&b"\x1f\x8b\x08\0"[..], b"\x28\xb5\x2f\xfd", b"BZh9"] {
        let bytes = [head, &[0; 1 << 20]].concat();
        std::fs::write(files.path().join("bomb.vlp"), bytes).expect("the patch");
        let refused = ask(&mut client, "APPLY PATCH \"bomb.vlp\"", files.path()).await;
        assert!(refused.contains("ERROR 22P04") && refused.contains("bomb.vlp"), "{refused}");
    }
}

/// Case 35: links inside a vindex, and in the place of what is written.
#[tokio::test]
async fn attack_35_nothing_is_written_through_a_link_to_the_base() {
    let (daemon, files) = daemon().await;
    let vindex = daemon.data_dir().join("vindexes/atlas.vindex");
    let twin = files.path().join("twin.vindex");
    linked(&vindex, &twin);
    let before = larql_tests::files::contents(&vindex);
    let mut client = daemon.client().await;
    let script = format!(
        "MOUNT \"{0}\" AS twin; USE \"twin\";
         INSERT INTO EDGES (entity, relation, target) VALUES (\"Peru\", \"capital\", \"Oslo\") MODE KNN;
         INSERT INTO EDGES (entity, relation, target) VALUES (\"Chile\", \"capital\", \"Rome\") MODE COMPOSE WITHOUT RECEIPT;
         COMPACT MINOR; COMPACT MAJOR;",
        twin.display()
    );
    client.query(&*script, ExecuteOptions::default()).await.expect("edits");
    // A product goes to the place of a directory whose files are links to the base.
    let product = files.path().join("product");
    linked(&vindex, &product);
    let compile = format!("COMPILE CURRENT INTO MODEL \"{}\" OVERWRITE", product.display());
    let said = ask(&mut client, &compile, files.path()).await;
    println!("{said}");
    assert_eq!(
        larql_tests::files::contents(&vindex),
        before,
        "the base was written through a link"
    );
}

/// Case 56: an edit is of a branch; other branches, and the moment before, answer as before, and each
/// answer's summary says which it is of.
#[tokio::test]
async fn attack_56_an_edit_changes_no_answer_of_another_branch_and_answers_name_theirs() {
    let (daemon, _files) = daemon().await;
    let (mut editor, mut tenant) = (session(&daemon).await, session(&daemon).await);
    let infer = "INFER \"The capital of France is\" TOP 1";
    let ask = async |client: &mut larql_client::Client, script: &str| {
        let answers = client.query(script, ExecuteOptions::default()).await;
        answers.unwrap_or_else(|error| panic!("{script}: {error}")).pop().expect("an answer")
    };
    let before = ask(&mut tenant, infer).await;
    ask(&mut editor, "CREATE BRANCH mine; USE CURRENT BRANCH mine").await;
    ask(
        &mut editor,
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"France\", \"capital\", \"Berlin\") \
         MODE KNN WITHOUT RECEIPT",
    )
    .await;
    let (mine, theirs) = (ask(&mut editor, infer).await, ask(&mut tenant, infer).await);
    assert_eq!(text(&mine.rows[0][1]), "Berlin");
    assert_eq!((&theirs.rows, &*theirs.summary.branch), (&before.rows, "main"));
    assert_eq!(&*mine.summary.branch, "mine");
    assert!(mine.summary.lsn > theirs.summary.lsn);
    assert_eq!(mine.summary.base_hash, theirs.summary.base_hash);
    let unedited = ask(&mut editor, &format!("{infer} AS OF LSN 0")).await;
    assert_eq!((unedited.rows, unedited.summary.lsn), (before.rows, 0));
}

/// Little-endian f32 as the ancestor's patches hold them.
fn base64(values: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte));
        let number = number << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = number >> (18 - 6 * digit) & 63;
            text.push(if digit > group.len() { '=' } else { DIGITS[index as usize] as char });
        }
    }
    text
}

/// Case 57: a patch that says one thing and does more. APPLY tells so, and a budget keeps it out.
#[tokio::test]
async fn attack_57_what_a_patch_does_beyond_what_it_says_shows_when_it_is_applied() {
    let (daemon, files) = daemon().await;
    let mut client = session(&daemon).await;
    let before = ask(&mut client, CAPITAL, files.path()).await;
    for statement in [
        "BEGIN PATCH \"medical.vlp\"",
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"France\", \"capital\", \"Oslo\") \
         MODE MEMIT ALPHA 100 WITHOUT RECEIPT",
        "SAVE PATCH",
        "REMOVE PATCH \"medical\"",
    ] {
        let told = ask(&mut client, statement, files.path()).await;
        assert!(!told.contains("ERROR"), "{statement}: {told}");
    }
    assert_eq!(ask(&mut client, CAPITAL, files.path()).await, before);
    let apply = "APPLY PATCH \"medical.vlp\"";
    let refused = ask(&mut client, &format!("{apply} WITH MAX HARM 5 POINTS"), files.path()).await;
    assert!(refused.contains("ERROR 23514"), "{refused}");
    assert_eq!(ask(&mut client, "SHOW PATCHES", files.path()).await, "OK SHOW PATCHES\n");
    assert_eq!(ask(&mut client, CAPITAL, files.path()).await, before);
    let told = ask(&mut client, apply, files.path()).await;
    let row = told.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{told}"));
    let row: Json = serde_json::from_str(row).expect("a row");
    let harm: Json = match &row["harm"] {
        Json::String(text) => serde_json::from_str(text).expect("harm is JSON"),
        other => other.clone(),
    };
    assert!(harm["worst_points"].as_f64().is_some_and(|points| points > 5.0), "{row}");
}
