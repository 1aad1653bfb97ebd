//! Every golden checkpoint equals the reference, whatever its family and format: logits, the residual
//! stream after each layer, greedy tokens, tokenizer and chats. The list is
//! `larql_tests::goldens::CASES`, from which `docs/families.md` is printed too.

use std::path::Path;
use std::sync::Arc;

use larql_client::LogitsRequest;
use larql_tests::daemon::Daemon;
use larql_tests::families_page;
use larql_tests::goldens::{CASES, Case, Golden, Prompt, ids};
use larqld::mounts::Model;
use larqld::text::{Chat, ChatMessage};

/// Folders whose numbers f16 holds: what an extraction at f16 is compared on.
const PLAIN: [&str; 3] = ["gemma3", "llama2", "llama3"];

/// Runs a check on every case, and fails with all that failed.
async fn every(cases: impl Iterator<Item = Case>, check: impl AsyncFn(Case) -> Result<(), String>) {
    let mut failed = Vec::new();
    for case in cases {
        if let Err(reason) = check(case).await {
            failed.push(format!("{}: {reason}", case.name()));
        }
    }
    assert!(failed.is_empty(), "{} cases differ:\n{}", failed.len(), failed.join("\n"));
}

/// Compares what the daemon computes from `model` with a reference.
async fn compare(daemon: &Daemon, golden: &Golden, model: &Path) -> Result<(), String> {
    let client = daemon.client().await;
    for prompt in golden.prompts() {
        let request = LogitsRequest {
            model: model.display().to_string(),
            token_ids: prompt.input_ids.clone(),
            greedy_tokens: prompt.greedy.len() as u32,
            ..LogitsRequest::default()
        };
        let found = client.logits(request).await.map_err(|error| error.to_string())?;
        let name = prompt.name;
        if found.logits.len() != prompt.logits.len() {
            return Err(format!("{name}: {} logits", found.logits.len()));
        }
        let differences = found.logits.iter().zip(&prompt.logits);
        let largest = differences.map(|(found, expected)| (f64::from(*found) - expected).abs());
        // A number that is none is the largest of all.
        let largest = largest.map(|next| if next.is_nan() { f64::INFINITY } else { next });
        let largest = largest.fold(0.0, f64::max);
        if largest > golden.tolerance() {
            return Err(format!("{name}: logits are off by {largest:e}"));
        }
        if found.greedy != prompt.greedy {
            return Err(format!("{name}: greedy {:?}, not {:?}", found.greedy, prompt.greedy));
        }
        compare_layers(&found.layers, &prompt).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

fn compare_layers(
    found: &[larql_client::LayerResidual],
    prompt: &Prompt<'_>,
) -> Result<(), String> {
    if found.len() != prompt.layers.len() {
        return Err(format!("{} layers, not {}", found.len(), prompt.layers.len()));
    }
    for (layer, (found, (norm, first8))) in found.iter().zip(&prompt.layers).enumerate() {
        let close = |found: f64, expected: f64| (found - expected).abs() <= 1e-4 * norm.max(1.0);
        if found.layer as usize != layer || !close(found.norm, *norm) {
            return Err(format!("the norm after layer {layer} is {}, not {norm}", found.norm));
        }
        let pairs = found.first8.iter().zip(first8);
        if let Some((found, expected)) =
            pairs.into_iter().find(|(a, b)| !close(f64::from(**a), **b))
        {
            return Err(format!("after layer {layer} there is {found}, not {expected}"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_checkpoint_equals_the_reference_where_it_lies() {
    let daemon = Daemon::start();
    every(CASES.iter().copied(), async |case| {
        let golden = Golden::of(&case);
        compare(&daemon, &golden, &golden.path).await
    })
    .await;
}

#[tokio::test]
async fn a_configuration_as_transformers_5_writes_it_gives_the_same_model() {
    let daemon = Daemon::start();
    every(CASES.iter().copied().filter(Case::has_transformers5_config), async |case| {
        let golden = Golden::of(&case);
        let copy = daemon.data_dir().join(case.folder);
        larql_tests::checkpoint::with_config(&golden.path, &copy, "config.transformers5.json");
        compare(&daemon, &golden, &copy).await
    })
    .await;
}

#[tokio::test]
async fn every_checkpoint_equals_the_reference_after_a_trip_through_an_f32_vindex() {
    let daemon = Daemon::start();
    for name in PLAIN {
        let golden = Golden::load(name);
        let vindex = daemon.data_dir().join(format!("{name}.vindex"));
        daemon.extract(&golden.path, &vindex, "WITH INFERENCE DTYPE F32").await;
        compare(&daemon, &golden, &vindex)
            .await
            .unwrap_or_else(|reason| panic!("{name}: {reason}"));
    }
}

/// The reference's weights are f16 or bf16; rounding them to f16 first and extracting at f32 is the
/// same model as extracting at f16, so both must give the same bits.
#[tokio::test]
async fn an_f16_vindex_computes_what_f16_rounded_weights_compute() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for name in PLAIN {
        let golden = Golden::load(name);
        let rounded = daemon.data_dir().join(format!("{name}-rounded"));
        larql_tests::checkpoint::write_rounded_to_f16(&golden.path, &rounded);
        let vindex = daemon.data_dir().join(format!("{name}-f16.vindex"));
        daemon.extract(&golden.path, &vindex, "WITH INFERENCE").await;
        for prompt in golden.prompts() {
            let run = async |model: &Path| {
                let request = LogitsRequest {
                    model: model.display().to_string(),
                    token_ids: prompt.input_ids.clone(),
                    ..LogitsRequest::default()
                };
                client.logits(request).await.expect("logits").logits
            };
            let (found, expected) = (run(&vindex).await, run(&rounded).await);
            assert_eq!(found.len(), expected.len(), "{name} {}", prompt.name);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 3e-4,
                    "{name} {}: {found} and {expected}",
                    prompt.name
                );
            }
        }
    }
}

/// Opens a case as the daemon does.
fn open(case: Case) -> Result<Model, String> {
    let files: Arc<dyn larql_storage::file::Files> = Arc::new(larql_storage::file::DiskFiles);
    let cancel = larql_compute::cpu::Cancel::new();
    Model::open_checkpoint(&files, &case.path(), &cancel).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_tokenizer_case_equals_the_reference() {
    every(CASES.iter().copied(), async |case| {
        let model = open(case)?;
        let tokenizer = model.tokenizer().map_err(|error| error.to_string())?;
        let reference = Golden::of(&case).tokenizer();
        let cases = reference["cases"].as_array().expect("cases");
        assert!(!cases.is_empty());
        for case in cases {
            let text = case["text"].as_str().expect("text");
            let plain = ids(&case["ids"]);
            for (special, expected) in [(false, &plain), (true, &ids(&case["ids_with_special"]))] {
                let found = tokenizer.encode(text, special).map_err(|error| error.to_string())?;
                if found != *expected {
                    return Err(format!("{text:?} is {found:?}, not {expected:?} ({special})"));
                }
            }
            let decoded = tokenizer.decode(&plain, false).map_err(|error| error.to_string())?;
            if decoded != case["decoded"].as_str().expect("decoded") {
                return Err(format!("{text:?} comes back as {decoded:?}"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn every_chat_renders_as_in_the_reference() {
    every(CASES.iter().copied(), async |case| {
        let reference = Golden::of(&case).tokenizer();
        // GPT-2, Phi 2 and StarCoder 2 are no chat models.
        let chats = reference["chat"].as_array().map_or(&[][..], Vec::as_slice);
        if chats.is_empty() {
            return Ok(());
        }
        let model = open(case)?;
        let tokenizer = model.tokenizer().map_err(|error| error.to_string())?;
        let template = model.chat_template().map_err(|error| error.to_string())?;
        for chat in chats {
            let messages: Vec<ChatMessage> =
                chat["messages"].as_array().expect("messages").iter().map(message).collect();
            let generation = chat["add_generation_prompt"].as_bool().unwrap_or(false);
            let rendered = template.render(&Chat::from(messages.clone()), generation);
            if chat["error"].is_string() {
                if rendered.is_ok() {
                    return Err(format!("a chat renders that the reference refuses: {messages:?}"));
                }
                continue;
            }
            let rendered = rendered.map_err(|error| error.to_string())?;
            let expected = chat["rendered"].as_str().expect("rendered");
            if rendered != expected {
                return Err(format!("a chat is {rendered:?}, not {expected:?}"));
            }
            let found = tokenizer.encode(&rendered, false).map_err(|error| error.to_string())?;
            if found != ids(&chat["ids"]) {
                return Err(format!("the tokens of {rendered:?} are {found:?}"));
            }
        }
        Ok(())
    })
    .await;
}

fn message(json: &serde_json::Value) -> ChatMessage {
    let text = |key: &str| json[key].as_str().expect("text").to_owned();
    ChatMessage { role: text("role"), content: text("content") }
}

#[test]
fn docs_families_says_what_is_tested() {
    let path = larql_tests::repository().join("docs/families.md");
    let page = families_page::render();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).expect("docs/families.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run this test with UPDATE=1 to print docs/families.md again");
}

#[test]
fn every_folder_with_a_reference_is_a_case() {
    let folders = std::fs::read_dir(larql_tests::repository().join("tests/goldens"))
        .expect("tests/goldens")
        .map(|entry| entry.expect("an entry").path());
    for folder in folders.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(&folder).expect("a folder") {
            let name = file.expect("an entry").file_name().to_string_lossy().into_owned();
            let folder = folder.file_name().unwrap_or_default().to_string_lossy();
            let gguf = name.ends_with(".gguf").then_some(name.as_str());
            if gguf.is_some() || name == "golden.json" {
                let listed = |case: &&Case| case.folder == folder && case.file == gguf;
                assert!(CASES.iter().find(listed).is_some(), "{folder}/{name} is not compared");
            }
        }
    }
}
