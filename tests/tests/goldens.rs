//! Every golden family equals the reference: from the checkpoint, and after a trip through a vindex.
//! The list of families is `larql_tests::goldens::FAMILIES`.

use larql_client::LogitsRequest;
use larql_tests::daemon::Daemon;
use larql_tests::goldens::{FAMILIES, Golden, Prompt, ids};
use larqld::text::{ChatMessage, ChatTemplate, Tokenizer};

async fn compare(daemon: &Daemon, golden: &Golden, model: &str, tolerance: f64) {
    let client = daemon.client().await;
    for prompt in golden.prompts() {
        let request = LogitsRequest {
            model: model.to_owned(),
            token_ids: prompt.input_ids.clone(),
            greedy_tokens: prompt.greedy.len() as u32,
            ..LogitsRequest::default()
        };
        let found = client.logits(request).await.unwrap_or_else(|error| panic!("{model}: {error}"));
        let name = format!("{} {} of {model}", golden.name, prompt.name);
        assert_eq!(found.logits.len(), prompt.logits.len(), "{name}");
        for (id, (found, expected)) in found.logits.iter().zip(&prompt.logits).enumerate() {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= tolerance, "{name}: logit {id} is off by {difference:e}");
        }
        assert_eq!(found.greedy, prompt.greedy, "{name}: greedy tokens");
        compare_layers(&name, &found.layers, &prompt);
    }
}

fn compare_layers(name: &str, found: &[larql_client::LayerResidual], prompt: &Prompt<'_>) {
    assert_eq!(found.len(), prompt.layers.len(), "{name}");
    for (layer, (found, (norm, first8))) in found.iter().zip(&prompt.layers).enumerate() {
        assert_eq!(found.layer as usize, layer, "{name}");
        assert!(
            (found.norm - norm).abs() <= 1e-4 * norm.max(1.0),
            "{name}: norm after layer {layer}"
        );
        for (found, expected) in found.first8.iter().zip(first8) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(
                difference <= 1e-4 * norm.max(1.0),
                "{name}: layer {layer} is off by {difference:e}"
            );
        }
    }
}

#[tokio::test]
async fn every_family_equals_the_reference_from_its_checkpoint() {
    let daemon = Daemon::start();
    for name in FAMILIES {
        let golden = Golden::load(name);
        compare(&daemon, &golden, &golden.path.display().to_string(), golden.tolerance()).await;
    }
}

#[tokio::test]
async fn every_family_equals_the_reference_after_a_trip_through_an_f32_vindex() {
    let daemon = Daemon::start();
    for name in FAMILIES {
        let golden = Golden::load(name);
        let vindex = daemon.data_dir().join(format!("{name}.vindex"));
        daemon.extract(&golden.path, &vindex, "WITH INFERENCE DTYPE F32").await;
        compare(&daemon, &golden, &vindex.display().to_string(), golden.tolerance()).await;
    }
}

/// The reference's weights are f16 or bf16; rounding them to f16 first and extracting at f32 is the
/// same model as extracting at f16, so both must give the same bits.
#[tokio::test]
async fn an_f16_vindex_computes_what_f16_rounded_weights_compute() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for name in FAMILIES {
        let golden = Golden::load(name);
        let rounded = daemon.data_dir().join(format!("{name}-rounded"));
        larql_tests::checkpoint::write_rounded_to_f16(&golden.path, &rounded);
        let vindex = daemon.data_dir().join(format!("{name}-f16.vindex"));
        daemon.extract(&golden.path, &vindex, "WITH INFERENCE").await;
        for prompt in golden.prompts() {
            let run = async |model: &std::path::Path| {
                let request = LogitsRequest {
                    model: model.display().to_string(),
                    token_ids: prompt.input_ids.clone(),
                    ..LogitsRequest::default()
                };
                client.logits(request).await.expect("logits").logits
            };
            let (found, expected) = (run(&vindex).await, run(&rounded).await);
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

#[test]
fn every_tokenizer_case_of_every_family_equals_the_reference() {
    for name in FAMILIES {
        let golden = Golden::load(name);
        let bytes = std::fs::read(golden.path.join("tokenizer.json")).expect("tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(&bytes, 512).expect("a tokenizer");
        let cases = golden.json["tokenizer"]["cases"].as_array().expect("cases");
        assert!(!cases.is_empty());
        for case in cases {
            let text = case["text"].as_str().expect("text");
            assert_eq!(
                tokenizer.encode(text, false).unwrap(),
                ids(&case["ids"]),
                "{name}: {text:?}"
            );
            assert_eq!(
                tokenizer.encode(text, true).unwrap(),
                ids(&case["ids_with_special"]),
                "{name}: {text:?} with special tokens"
            );
            let decoded = tokenizer.decode(&ids(&case["ids"]), false).unwrap();
            assert_eq!(decoded, case["decoded"].as_str().expect("decoded"), "{name}: {text:?}");
        }
    }
}

#[test]
fn every_chat_of_every_family_renders_as_in_the_reference() {
    for name in FAMILIES {
        let golden = Golden::load(name);
        let read =
            |file: &str| std::fs::read(golden.path.join(file)).expect("a file of the checkpoint");
        let tokenizer = Tokenizer::from_bytes(&read("tokenizer.json"), 512).expect("a tokenizer");
        let template = ChatTemplate::from_files(Some(&read("tokenizer_config.json")), None)
            .expect("a chat template");
        let chats = golden.json["tokenizer"]["chat"].as_array().expect("chats");
        assert!(!chats.is_empty());
        for chat in chats {
            let messages: Vec<ChatMessage> =
                chat["messages"].as_array().expect("messages").iter().map(message).collect();
            let generation = chat["add_generation_prompt"].as_bool().unwrap_or(false);
            let rendered = template.render(&messages, generation);
            if chat["error"].is_string() {
                assert!(rendered.is_err(), "{name}: the reference refuses this chat");
                continue;
            }
            let rendered = rendered.expect("a rendered chat");
            assert_eq!(rendered, chat["rendered"].as_str().expect("rendered"), "{name}");
            assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids(&chat["ids"]), "{name}");
        }
    }
}

fn message(json: &serde_json::Value) -> ChatMessage {
    let text = |key: &str| json[key].as_str().expect("text").to_owned();
    ChatMessage { role: text("role"), content: text("content") }
}
