//! Each level of a vindex holds exactly the files that its statements need; what is lacking is named
//! together with the EXTRACT that adds it, and that EXTRACT does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use larql_client::{Answer, ExecuteOptions, LogitsRequest, StatementError};
use larql_tests::checkpoint;
use larql_tests::daemon::Daemon;
use larql_tests::goldens::{CASES, Golden};
use larql_tests::{atlas_checkpoint, random_checkpoint};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;

fn llama2() -> PathBuf {
    Golden::load("llama2").path
}

fn file_names(vindex: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(vindex).expect("a vindex");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn manifest(vindex: &Path) -> Json {
    let text = fs::read(vindex.join("index.json")).expect("index.json");
    serde_json::from_slice(&text).expect("JSON")
}

/// Every tensor of a manifest with its file.
fn tensors(vindex: &Path) -> Vec<(String, Json)> {
    let manifest = manifest(vindex);
    let mut tensors = Vec::new();
    for file in manifest["files"].as_array().expect("files") {
        for tensor in file["tensors"].as_array().into_iter().flatten() {
            let name = file["name"].as_str().expect("a name").to_owned();
            tensors.push((name, tensor.clone()));
        }
    }
    tensors
}

fn name(tensor: &Json) -> String {
    tensor["name"].as_str().expect("a name").to_owned()
}

/// The names of a checkpoint's tensors, read by the `safetensors` crate.
fn source_names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = checkpoint::read(directory).into_keys().collect();
    names.sort();
    names
}

async fn fails(daemon: &Daemon, script: &str) -> StatementError {
    match daemon.query(script).await {
        Ok(_) => panic!("{script} succeeded"),
        Err(error) => error,
    }
}

async fn succeeds(daemon: &Daemon, script: &str) -> Vec<Answer> {
    let answer = daemon.query(script).await;
    answer.unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint))
}

// --- files -------------------------------------------------------------------------------------

/// What every level has, apart from the files that come along as they are.
const BROWSE: &[&str] = &[
    "index.json",
    "config.json",
    "down_meta.bin",
    "embeddings.bin",
    "gate_meta.bin",
    "gate_vectors.bin",
    "statistics.json",
    "tokenizer.json",
];
/// What lies beside, outside the manifest: it can be removed and made again.
const INDEXES: &[&str] = &["labels.index", "targets.index"];
const ATTENTION: &[&str] = &["attn_weights.bin", "norms.bin"];
const INFERENCE: &[&str] = &["up_weights.bin", "down_features.bin"];
/// Files of a checkpoint that a vindex carries on.
const SIDE_FILES: &[&str] =
    &["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];

async fn assert_file_sets(source: &Path, of_inference: &[&str]) {
    let daemon = Daemon::start();
    let mut expected: BTreeSet<String> =
        BROWSE.iter().chain(INDEXES).chain(SIDE_FILES).map(|&name| name.to_owned()).collect();
    for (level, options, more) in [
        ("browse", "", &[][..]),
        ("attention", "WITH ATTENTION", ATTENTION),
        ("inference", "WITH INFERENCE", of_inference),
        // Nothing is left over in these checkpoints.
        ("all", "WITH ALL", &[]),
    ] {
        expected.extend(more.iter().map(|&name| name.to_owned()));
        let path = daemon.data_dir().join(format!("{level}.vindex"));
        daemon.extract(source, &path, options).await;
        assert_eq!(file_names(&path), expected, "{level}");
        let manifest = manifest(&path);
        assert_eq!(manifest["level"], level);
        let listed = manifest["files"].as_array().expect("files");
        let mut listed: BTreeSet<String> = listed.iter().map(name).collect();
        listed.insert("index.json".to_owned());
        listed.extend(INDEXES.iter().map(|&name| name.to_owned()));
        assert_eq!(listed, expected, "{level}: what the manifest lists");
    }
}

#[tokio::test]
async fn every_level_of_a_tied_model_holds_exactly_its_files() {
    assert_file_sets(&atlas_checkpoint(), INFERENCE).await;
}

#[tokio::test]
async fn every_level_of_an_untied_model_holds_exactly_its_files() {
    assert_file_sets(&llama2(), &[INFERENCE, &["lm_head.bin"]].concat()).await;
}

#[tokio::test]
async fn infer_reads_every_weight_file_of_its_level() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "WITH INFERENCE").await;
    let infer = "USE \"v\"; INFER \"The capital of France is\" TOP 10";
    let whole = succeeds(&daemon, infer).await.remove(1);
    let weights: Vec<String> =
        file_names(&path).into_iter().filter(|name| name.ends_with(".bin")).collect();
    for file in weights {
        let bytes = fs::read(path.join(&file)).expect("a file");
        succeeds(&daemon, "UNMOUNT v").await;
        fs::write(path.join(&file), vec![0; bytes.len()]).expect("zeros");
        let browse_only = ["down_meta.bin", "gate_meta.bin"].contains(&&*file);
        let mount = format!("MOUNT \"{}\"", path.display());
        if browse_only {
            // Whoever inferred last may hold the model for a moment more, and MOUNT shares it.
            let mut tries = 0..100;
            let error = loop {
                match daemon.query(&mount).await {
                    Err(error) => break error,
                    Ok(_) if tries.next().is_some() => {
                        succeeds(&daemon, "UNMOUNT v").await;
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    Ok(_) => panic!("{file} of zeros is mounted"),
                }
            };
            assert_eq!(error.code, "XX001", "{file}");
        } else {
            succeeds(&daemon, &mount).await;
            let found = succeeds(&daemon, infer).await.remove(1);
            assert_ne!(found.rows, whole.rows, "{file} has no part in the answer");
            succeeds(&daemon, "UNMOUNT v").await;
        }
        fs::write(path.join(&file), bytes).expect("the file as it was");
        succeeds(&daemon, &mount).await;
        assert_eq!(succeeds(&daemon, infer).await.remove(1).rows, whole.rows, "{file} restored");
    }
}

// --- statements --------------------------------------------------------------------------------

#[tokio::test]
async fn browse_statements_work_on_the_browse_level_and_answer_as_on_all() {
    let daemon = Daemon::start();
    for (level, options) in [("browse", ""), ("all", "WITH ALL")] {
        let path = daemon.data_dir().join(format!("{level}.vindex"));
        daemon.extract(&atlas_checkpoint(), &path, options).await;
    }
    for statement in [
        "DESCRIBE \"France\"",
        "DESCRIBE \"France\" ALL LAYERS VERBOSE",
        "WALK \"The capital of France\" TOP 3",
        "EXPLAIN WALK \"The capital of France\"",
        "SELECT * FROM FEATURES WHERE layer = 2 LIMIT 20",
        "SELECT * FROM EDGES WHERE entity = \"France\"",
        "SELECT * FROM ENTITIES ORDER BY count DESC LIMIT 10",
        "SELECT * FROM EDGES NEAREST TO \"France\" AT LAYER 3",
        "SHOW LAYERS",
        "SHOW FEATURES 3",
        "SHOW RELATIONS",
        "SHOW ENTITIES LIMIT 5",
    ] {
        // A small model shows more under a low threshold.
        let script = |name| format!("USE \"{name}\"; SET describe_z = 2.5; {statement}");
        let browse = succeeds(&daemon, &script("browse")).await;
        let all = succeeds(&daemon, &script("all")).await;
        let (browse, all) = (browse.last().expect("an answer"), all.last().expect("an answer"));
        assert_eq!(browse.rows, all.rows, "{statement}");
        assert!(!browse.rows.is_empty(), "{statement} tells nothing");
    }
    succeeds(&daemon, "USE \"browse\"; STATS; SHOW MODELS; SHOW MOUNTS").await;
}

#[tokio::test]
async fn every_family_can_be_browsed_from_a_vindex_of_that_level() {
    let daemon = Daemon::start();
    for (index, case) in CASES.iter().enumerate() {
        let name = format!("family{index}");
        let path = daemon.data_dir().join(format!("{name}.vindex"));
        daemon.extract(&case.path(), &path, "").await;
        let script = format!("USE \"{name}\"; DESCRIBE \"the\"; WALK \"the\" TOP 3");
        let answers = succeeds(&daemon, &script).await;
        assert!(answers.last().is_some_and(|walk| !walk.rows.is_empty()), "{}", case.name());
        succeeds(&daemon, &format!("UNMOUNT \"{name}\"")).await;
    }
}

#[tokio::test]
async fn what_infer_lacks_is_named_and_the_extract_of_the_hint_makes_it_work() {
    let options: [(&str, &str); 4] = [
        ("", "attention weights"),
        ("WITH ATTENTION", "up vectors"),
        ("DTYPE F32", "attention weights"),
        ("COMPONENTS FFN_GATE, EMBEDDINGS", "attention weights"),
    ];
    for (source, options) in [(atlas_checkpoint(), &options[..1]), (llama2(), &options[..])] {
        for (options, missing) in options {
            let daemon = Daemon::start();
            let path = daemon.data_dir().join("v.vindex");
            daemon.extract(&source, &path, options).await;
            let mut client = daemon.client().await;
            // Not the directory of the test: what the hint names must not depend on it.
            let elsewhere =
                ExecuteOptions { working_directory: "/".to_owned(), ..ExecuteOptions::default() };
            let script = "USE \"v\"; INFER \"The capital of France is\"";
            let error = client.query(script, elsewhere.clone()).await.expect_err("a level too low");
            assert_eq!(error.code, "55000", "{options}: {error}");
            assert!(error.message.contains(missing), "{options}: {error}");
            assert!(error.message.contains('v'), "{options}: {error}");
            assert!(error.hint.starts_with("EXTRACT MODEL "), "{}", error.hint);
            let explained = client.query("EXPLAIN INFER \"a\"", elsewhere.clone()).await;
            assert_eq!(explained.expect_err("a level too low").code, "55000");

            let extracted = client.query(&error.hint, elsewhere.clone()).await;
            extracted.unwrap_or_else(|failure| panic!("{}: {failure}", error.hint));
            let infer = "INFER \"The capital of France is\"";
            let answer = client.query(infer, elsewhere.clone()).await;
            let answer = answer.unwrap_or_else(|error| panic!("in the same session: {error}"));
            assert!(!answer[0].rows.is_empty());
            succeeds(&daemon, script).await;
            let dtype = if options.contains("F32") { "f32" } else { "f16" };
            assert_eq!(manifest(&path)["dtype"], dtype, "{}", error.hint);
        }
    }
}

#[tokio::test]
async fn dev_logits_and_generation_name_the_extract_too() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    let client = daemon.client().await;
    let request =
        LogitsRequest { model: "v".to_owned(), token_ids: vec![1], ..LogitsRequest::default() };
    let error = client.logits(request.clone()).await.expect_err("a level too low");
    assert_eq!(error.code, "55000", "{error}");
    assert!(error.hint.starts_with("EXTRACT MODEL "), "{error:?}");
    succeeds(&daemon, &error.hint).await;
    client.logits(request).await.expect("logits");
}

// --- parts -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_range_of_layers_holds_those_layers_and_answers_from_them() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("part.vindex");
    daemon.extract(&atlas_checkpoint(), &path, "LAYERS 2-3 WITH INFERENCE").await;
    for (_, tensor) in tensors(&path) {
        if let Some(layer) = tensor["layer"].as_u64() {
            assert!((2..=3).contains(&layer), "{tensor}");
        }
    }
    let whole = daemon.data_dir().join("whole.vindex");
    daemon.extract(&atlas_checkpoint(), &whole, "").await;
    let layers = |answer: &Answer| -> BTreeSet<i64> {
        let column = answer.column("layer").expect("layers");
        column.into_iter().map(|value| value.as_integer().expect("a layer")).collect()
    };
    for statement in ["WALK \"France\" TOP 3", "SELECT layer, feature, target FROM FEATURES"] {
        let part = succeeds(&daemon, &format!("USE \"part\"; {statement}")).await.remove(1);
        assert_eq!(layers(&part), BTreeSet::from([2, 3]), "{statement}");
        let whole = succeeds(&daemon, &format!("USE \"whole\"; {statement}")).await.remove(1);
        let same: Vec<_> = whole
            .rows
            .iter()
            .filter(|row| row[0].as_integer().is_some_and(|layer| (2..=3).contains(&layer)))
            .cloned()
            .collect();
        assert_eq!(part.rows, same, "{statement}");
    }
    succeeds(&daemon, "USE \"part\"; DESCRIBE \"France\"; STATS; SHOW LAYERS").await;
    let error = fails(&daemon, "USE \"part\"; INFER \"a\"").await;
    assert_eq!(error.code, "55000", "{error}");
    let error = fails(
        &daemon,
        &format!(
            "EXTRACT MODEL \"{}\" INTO \"{}.x\" LAYERS 4-6",
            atlas_checkpoint().display(),
            path.display()
        ),
    )
    .await;
    assert_eq!(error.code, "22023", "{error}");
    assert!(error.message.contains("0 to 5"), "{error}");
}

#[tokio::test]
async fn components_are_those_that_were_named() {
    let daemon = Daemon::start();
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("FFN_GATE", &["gate"][..]),
        ("FFN_GATE, EMBEDDINGS", &["embedding", "gate"]),
        ("FFN_UP", &["up"]),
        ("FFN_DOWN", &["down"]),
        ("ATTN_QK", &["attention_key", "attention_query"]),
        ("ATTN_OV", &["attention_output", "attention_value"]),
    ]);
    let always = ["attention_norm", "ffn_norm", "final_norm", "unembedding"].map(str::to_owned);
    for (components, roles) in expected {
        let path = daemon.data_dir().join("c.vindex");
        let options = format!("COMPONENTS {components} WITH ALL OVERWRITE");
        daemon.extract(&llama2(), &path, &options).await;
        let found: BTreeSet<String> = tensors(&path)
            .iter()
            .map(|(_, tensor)| tensor["role"].as_str().expect("a role").to_owned())
            .collect();
        let mut wanted: BTreeSet<String> = roles.iter().map(|&role| role.to_owned()).collect();
        wanted.extend(always.iter().cloned());
        assert_eq!(found, wanted, "{components}");
    }
}

#[tokio::test]
async fn a_vindex_without_a_part_refuses_what_needs_it_by_name() {
    let daemon = Daemon::start();
    for (components, statement, missing) in [
        ("EMBEDDINGS", "WALK \"a\"", "gate"),
        ("FFN_GATE", "DESCRIBE \"a\"", "embedding"),
        ("FFN_GATE, EMBEDDINGS", "SELECT * FROM FEATURES", "down_meta"),
    ] {
        let path = daemon.data_dir().join("c.vindex");
        daemon.extract(&llama2(), &path, &format!("COMPONENTS {components} OVERWRITE")).await;
        let error = fails(&daemon, &format!("USE \"c\"; {statement}")).await;
        assert_eq!(error.code, "55000", "{components}: {error}");
        assert!(error.message.contains(missing), "{components}: {error}");
        succeeds(&daemon, &error.hint).await;
        succeeds(&daemon, &format!("USE \"c\"; {statement}")).await;
    }
}

// --- the level all -----------------------------------------------------------------------------

/// Writes a copy of a checkpoint with more tensors.
fn with_tensors(source: &Path, destination: &Path, more: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    fs::create_dir_all(destination).expect("a directory");
    for entry in fs::read_dir(source).expect("a checkpoint") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, destination.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let bytes = fs::read(source.join("model.safetensors")).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut views: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    for (name, dtype, shape, bytes) in more {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a view");
        views.insert((*name).to_owned(), view);
    }
    let path = destination.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("a file");
}

#[tokio::test]
async fn the_level_all_accounts_for_every_tensor_of_the_source_exactly_once() {
    let daemon = Daemon::start();
    let odd = daemon.data_dir().join("odd");
    let more = [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, vec![8], vec![7; 32]),
        ("vision.patch", Dtype::U8, vec![3, 5], (0..15).collect()),
        ("scalar", Dtype::BF16, vec![], vec![1, 2]),
        ("nothing", Dtype::F16, vec![0, 4], vec![]),
    ];
    with_tensors(&llama2(), &odd, &more);
    let golden = |name| Golden::load(name).path;
    for source in [atlas_checkpoint(), llama2(), golden("llama3"), golden("gemma3"), odd.clone()] {
        let path = daemon.data_dir().join("all.vindex");
        daemon.extract(&source, &path, "WITH ALL OVERWRITE").await;
        let mut found: Vec<String> =
            tensors(&path).iter().map(|(_, tensor)| name(tensor)).collect();
        found.sort();
        let expected = if source == odd {
            let bytes = fs::read(odd.join("model.safetensors")).expect("weights");
            let file = SafeTensors::deserialize(&bytes).expect("safetensors");
            let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
            names.sort();
            names
        } else {
            source_names(&source)
        };
        assert_eq!(found, expected, "{}", source.display());
        if source == odd {
            // What nobody reads keeps every byte.
            for (tensor, _, shape, bytes) in &more {
                let (file, record) = tensors(&path)
                    .into_iter()
                    .find(|(_, record)| name(record) == *tensor)
                    .expect("the tensor");
                let whole = fs::read(path.join(&file)).expect("a file");
                let start = record["offset"].as_u64().expect("an offset") as usize;
                assert_eq!(whole[start..start + bytes.len()], bytes[..], "{tensor}");
                assert_eq!(record["shape"], serde_json::json!(shape), "{tensor}");
            }
        }
    }
    succeeds(&daemon, "USE \"all\"; INFER \"a\"").await;
}

#[tokio::test]
async fn a_tied_model_that_ships_its_unembedding_keeps_it_at_the_level_all() {
    let daemon = Daemon::start();
    let (tied, source) = (daemon.data_dir().join("tied"), daemon.data_dir().join("copy"));
    random_checkpoint::write(&tied, random_checkpoint::Size::FEW_FEATURES, 9);
    let tensors_of = checkpoint::read(&tied);
    let embeddings = &tensors_of["model.embed_tokens.weight"];
    let bytes: Vec<u8> =
        embeddings.values.iter().flat_map(|&value| bf16::from_f64(value).to_le_bytes()).collect();
    let more = [("lm_head.weight", Dtype::BF16, embeddings.shape.clone(), bytes)];
    with_tensors(&tied, &source, &more);
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&source, &path, "WITH INFERENCE").await;
    assert!(tensors(&path).iter().all(|(_, tensor)| name(tensor) != "lm_head.weight"));
    daemon.extract(&source, &path, "WITH ALL OVERWRITE").await;
    let kept = tensors(&path).iter().filter(|(_, tensor)| name(tensor) == "lm_head.weight").count();
    assert_eq!(kept, 1);
}

// --- types -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tensor_that_f16_cannot_hold_keeps_its_type_and_the_manifest_notes_it() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("large");
    random_checkpoint::write(&source, random_checkpoint::Size::FEW_FEATURES, 5);
    let file = source.join("model.safetensors");
    let mut bytes = fs::read(&file).expect("weights");
    let large = [
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
        "model.norm.weight",
    ];
    let places: Vec<usize> = {
        let base = bytes.as_ptr() as usize;
        let parsed = SafeTensors::deserialize(&bytes).expect("safetensors");
        let place =
            |name: &&str| parsed.tensor(name).expect("a tensor").data().as_ptr() as usize - base;
        large.iter().map(place).collect()
    };
    for at in places {
        bytes[at..at + 2].copy_from_slice(&bf16::from_f32(1e6).to_le_bytes());
    }
    fs::write(&file, bytes).expect("weights");
    let path = daemon.data_dir().join("large.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL WITHOUT LABELS",
        source.display(),
        path.display()
    );
    let answer = succeeds(&daemon, &script).await.remove(0);
    let manifest = manifest(&path);
    let notes: Vec<&str> =
        manifest["notes"].as_array().expect("notes").iter().filter_map(Json::as_str).collect();
    assert_eq!(notes.len(), large.len(), "{notes:?}");
    for name in large {
        assert!(notes.iter().any(|note| note.contains(name) && note.contains("bf16")), "{notes:?}");
        assert!(answer.notices.iter().any(|notice| notice.message.contains(name)), "{name}");
    }
    for (_, tensor) in tensors(&path) {
        let expected = if large.contains(&&*name(&tensor)) { "bf16" } else { "f16" };
        assert_eq!(tensor["dtype"], expected, "{tensor}");
    }
    // Tensors of two types side by side compute what the source computes, but for the rounding of
    // the others, and no infinity comes out.
    let client = daemon.client().await;
    let logits = async |model: &Path| {
        let request = LogitsRequest {
            model: model.display().to_string(),
            token_ids: vec![1, 5, 9],
            ..LogitsRequest::default()
        };
        client.logits(request).await.expect("logits").logits
    };
    let (found, expected) = (logits(&path).await, logits(&source).await);
    assert!(found.iter().chain(&expected).all(|logit| logit.is_finite()));
    let largest = expected.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 0.02 * largest, "{found} and {expected} of {largest}");
    }
    let stats = succeeds(&daemon, "USE \"large\"; STATS").await.remove(1);
    assert!(format!("{:?}", stats.rows).contains("stays bf16"), "STATS tells the notes");
}

#[tokio::test]
async fn weights_are_stored_in_the_type_that_was_asked_for() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    let model = daemon.data_dir().join("model");
    random_checkpoint::write(&model, random_checkpoint::Size::FEW_FEATURES, 9);
    let source = checkpoint::read(&model);
    for (options, dtype) in
        [("", "f16"), ("DTYPE F16", "f16"), ("DTYPE F32", "f32"), ("DTYPE SOURCE", "bf16")]
    {
        daemon.extract(&model, &path, &format!("WITH ALL {options} OVERWRITE")).await;
        for (file, tensor) in tensors(&path) {
            assert_eq!(tensor["dtype"], dtype, "{options}: {tensor}");
            let bytes = fs::read(path.join(&file)).expect("a file");
            let start = tensor["offset"].as_u64().expect("an offset") as usize;
            let length = tensor["bytes"].as_u64().expect("bytes") as usize;
            let stored = &bytes[start..start + length];
            let source = &source[&name(&tensor)];
            let source = match tensor["layout"].as_str() {
                Some("feature_major") => source.transposed(),
                _ => source.clone(),
            };
            let read = |index: usize| match dtype {
                "f32" => f64::from(f32::from_le_bytes(
                    stored[4 * index..4 * index + 4].try_into().expect("4"),
                )),
                "f16" => {
                    f16::from_le_bytes(stored[2 * index..2 * index + 2].try_into().expect("2"))
                        .to_f64()
                }
                _ => bf16::from_le_bytes(stored[2 * index..2 * index + 2].try_into().expect("2"))
                    .to_f64(),
            };
            let round =
                |value: f64| if dtype == "f16" { f16::from_f64(value).to_f64() } else { value };
            for (index, &value) in source.values.iter().enumerate() {
                assert!(read(index) == round(value), "{options}: {} at {index}", name(&tensor));
            }
        }
    }
}
