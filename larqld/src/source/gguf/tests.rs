//! The texts made from the goldens' GGUF files against what the reference says of the same models.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::model::Architecture;
use larql_storage::checkpoint::Checkpoint;
use larql_storage::checkpoint::gguf::{GgufMetadata, GgufMetadataBuilder, Value as Stored};
use larql_storage::file::{DiskFiles, Files, MemoryFiles};
use serde_json::Value;

use super::vocabulary::{Pieces, TokenKind};
use super::*;
use crate::source::SourceModel;
use crate::text::{Chat, ChatMessage, ChatTemplate, Tokenizer};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(
        &std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    )
    .unwrap()
}

fn open(path: &Path) -> (Checkpoint, GgufDescription) {
    let files: Arc<dyn Files> = Arc::new(DiskFiles);
    let checkpoint = Checkpoint::open(&files, path).unwrap();
    let description = describe(checkpoint.gguf().unwrap(), &checkpoint).unwrap();
    (checkpoint, description)
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Every GGUF of the goldens, with its directory.
fn files() -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(goldens()).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "gguf") {
                found.push((directory.clone(), path));
            }
        }
    }
    assert!(!found.is_empty(), "no GGUF among the goldens");
    found
}

#[test]
fn configurations_made_from_metadata_describe_the_same_model() {
    for (directory, path) in files() {
        let (_, description) = open(&path);
        let published = json(&directory.join("config.json"));
        let made: Value = serde_json::from_str(&description.config).unwrap();
        let expected = Architecture::from_config(&published.to_string()).unwrap();
        let found = Architecture::from_config(&description.config)
            .unwrap_or_else(|error| panic!("{}: {error}\n{made:#}", path.display()));
        assert_eq!(found.family(), expected.family(), "{}", path.display());
        assert_eq!(found.layers(), expected.layers(), "{}", path.display());
        for layer in 0..expected.layers() {
            assert_eq!(found.layer(layer), expected.layer(layer), "{} {layer}", path.display());
        }
    }
}

#[test]
fn tokenizers_made_from_metadata_give_the_same_ids_and_texts() {
    for (directory, path) in files() {
        let (_, description) = open(&path);
        let own = Tokenizer::from_bytes(description.tokenizer.as_ref().unwrap(), 512).unwrap();
        let published = std::fs::read(directory.join("tokenizer.json")).unwrap();
        let published = Tokenizer::from_bytes(&published, 512).unwrap();
        let golden = std::fs::read(directory.join("golden.json")).ok();
        let golden = golden.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        for case in golden["tokenizer"]["cases"].as_array().into_iter().flatten() {
            let text = case["text"].as_str().unwrap();
            let name = path.display();
            let plain = own.encode(text, false).unwrap();
            assert_eq!(plain, ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(
                own.encode(text, true).unwrap(),
                ids(&case["ids_with_special"]),
                "{name}: {text:?}"
            );
            assert_eq!(
                own.decode(&plain, false).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{name}: {text:?}"
            );
        }
        for text in [
            "",
            " ",
            "  two  spaces\t\n\n",
            "naïve café 日本語 🙂",
            "x = 12345;\r\n",
            "<|eot_id|><bos>",
        ] {
            for special in [false, true] {
                let (own, published) = (own.encode(text, special), published.encode(text, special));
                assert_eq!(own.unwrap(), published.unwrap(), "{}: {text:?}", path.display());
            }
        }
    }
}

#[test]
fn chat_templates_come_along() {
    for (directory, path) in files() {
        let (_, description) = open(&path);
        let Ok(golden) = std::fs::read(directory.join("golden.json")) else { continue };
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        for case in golden["tokenizer"]["chat"].as_array().into_iter().flatten() {
            let Some(rendered) = case["rendered"].as_str() else { continue };
            let template =
                ChatTemplate::from_files(description.tokenizer_config.as_deref(), None).unwrap();
            let messages: Vec<ChatMessage> = case["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| ChatMessage {
                    role: message["role"].as_str().unwrap().into(),
                    content: message["content"].as_str().unwrap().into(),
                })
                .collect();
            let generation = case["add_generation_prompt"].as_bool().unwrap_or(false);
            let found = template.render(&Chat::from(messages.clone()), generation).unwrap();
            assert_eq!(found, rendered, "{}", path.display());
        }
    }
}

#[test]
fn a_vocabulary_survives_the_way_to_gguf_and_back() {
    for directory in std::fs::read_dir(goldens()).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(bytes) = std::fs::read(directory.join("tokenizer.json")) else { continue };
        let config = std::fs::read(directory.join("tokenizer_config.json")).ok();
        let files = TokenizerFiles {
            tokenizer: &bytes,
            config: config.as_deref(),
            chat_template: None,
            bos: None,
            eos: None,
            merges_characters: directory.to_string_lossy().contains("gemma4"),
        };
        let name = directory.display();
        let vocabulary =
            Vocabulary::from_files(&files, 512).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut builder = GgufMetadataBuilder::new();
        vocabulary.write(&mut builder);
        let back = Vocabulary::read(&builder.finish().unwrap()).unwrap().unwrap();
        let made = Tokenizer::from_bytes(&back.tokenizer_json().unwrap(), 512).unwrap();
        let published = Tokenizer::from_bytes(&bytes, 512).unwrap();
        let golden = json(&directory.join(if directory.join("golden.json").exists() {
            "golden.json"
        } else {
            "golden.q4_k_m.gguf.json"
        }));
        let cases = golden["tokenizer"]["cases"].as_array().into_iter().flatten();
        let cases = cases.filter_map(|case| case["text"].as_str());
        for text in cases.chain([" ", "naïve café 日本語 🙂 1234", "\r\n\t x"]) {
            for special in [false, true] {
                assert_eq!(
                    made.encode(text, special).unwrap(),
                    published.encode(text, special).unwrap(),
                    "{name}: {text:?}"
                );
            }
        }
    }
}

/// What COMPILE writes of a Gemma 4 against what llama.cpp's converter wrote of the same model.
#[test]
fn the_vocabulary_of_gemma_4_is_written_as_merges_of_characters() {
    let directory = goldens().join("gemma4_e2b");
    let [tokenizer, config] = ["tokenizer.json", "tokenizer_config.json"]
        .map(|name| std::fs::read(directory.join(name)).unwrap());
    let config: Value = serde_json::from_slice(&config).unwrap();
    let template = config["chat_template"].as_str().unwrap();
    let config = config.to_string();
    let texts = GgufTexts {
        tokenizer: Some(&tokenizer),
        tokenizer_config: Some(config.as_bytes()),
        chat_template: Some(template),
    };
    let model = json(&directory.join("config.json")).to_string();
    let architecture = Architecture::from_config(&model).unwrap();
    let composed = compose(&architecture, "gemma4", 1, &texts, None).unwrap();
    let (reference, _) = open(&directory.join("gemma4_e2b-bf16.gguf"));
    // Keys that say the same by their absence.
    let silent = ["tokenizer.ggml.add_sep_token", "tokenizer.ggml.add_eos_token"];
    let keys = |metadata: &GgufMetadata| {
        let keys = metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
        let mut keys: Vec<(String, String)> =
            keys.map(|(key, value)| (key.to_owned(), format!("{value:?}"))).collect();
        keys.retain(|(key, _)| !silent.contains(&&**key));
        keys.sort();
        keys
    };
    assert_eq!(keys(&composed.metadata), keys(reference.gguf().unwrap()));
}

#[test]
fn tokens_of_gemma_4_that_merges_make_are_merged_and_those_around_calls_are_shown() {
    let mut text: Value = json(&goldens().join("gemma4_e2b/tokenizer.json"));
    let (vocabulary, merges) = ("/model/vocab", "/model/merges");
    let size = text.pointer(vocabulary).unwrap().as_object().unwrap().len();
    for (id, token) in (size..).zip(["▁▁", "<|tool_response>", "<b>"]) {
        text.pointer_mut(vocabulary).unwrap()[token] = serde_json::json!(id);
        let special = token.contains('|');
        text["added_tokens"].as_array_mut().unwrap().push(serde_json::json!({"id": id,
            "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special}));
    }
    let merge = serde_json::json!(["▁", "▁"]);
    text.pointer_mut(merges).unwrap().as_array_mut().unwrap().push(merge);
    // The published tokenizer may leave BOS to the chat template; llama.cpp never does.
    text["post_processor"] = Value::Null;
    let tokenizer = serde_json::to_vec(&text).unwrap();
    let files = TokenizerFiles {
        tokenizer: &tokenizer,
        config: None,
        chat_template: None,
        bos: Some(2),
        eos: Some(1),
        merges_characters: true,
    };
    let written = Vocabulary::from_files(&files, size + 3).unwrap();
    let [spaces, response, bold] = [size, size + 1, size + 2];
    assert_eq!(written.kinds[spaces], TokenKind::Normal);
    assert_eq!(written.kinds[response], TokenKind::UserDefined);
    assert_eq!(written.kinds[bold], TokenKind::UserDefined);
    let mut builder = GgufMetadataBuilder::new();
    written.write(&mut builder);
    let mut silent = GgufMetadataBuilder::new();
    silent.extend(&builder.finish().unwrap(), |key| key != "tokenizer.ggml.add_bos_token");
    silent.value("tokenizer.ggml.add_bos_token", Stored::Bool(false));
    let back = Vocabulary::read(&silent.finish().unwrap()).unwrap().unwrap();
    assert!(back.add_bos && back.ends.contains(&(response as u32)));
    let made = Tokenizer::from_bytes(&back.tokenizer_json().unwrap(), size + 3).unwrap();
    let published = Tokenizer::from_bytes(&tokenizer, size + 3).unwrap();
    for text in ["the  of", "a<b>b", "x<|tool_response>y"] {
        assert_eq!(made.encode(text, false).unwrap(), published.encode(text, false).unwrap());
    }
}

/// Metadata of a small vocabulary, changed.
fn vocabulary(
    change: impl FnOnce(&mut GgufMetadataBuilder),
) -> Result<Option<Vocabulary>, Failure> {
    let mut builder = GgufMetadataBuilder::new();
    change(&mut builder);
    Vocabulary::read(&builder.finish().unwrap())
}

fn texts(builder: &mut GgufMetadataBuilder, key: &str, texts: &[&str]) {
    builder.array(key, texts.iter().map(|text| Stored::String(text.as_bytes())));
}

#[test]
fn a_vocabulary_that_is_not_understood_is_refused_by_name() {
    type Change = fn(&mut GgufMetadataBuilder);
    let cases: [(&str, Change); 6] = [
        ("\"t5\"", |builder| {
            builder.text("tokenizer.ggml.model", "t5");
            texts(builder, "tokenizer.ggml.tokens", &["a"]);
        }),
        ("\"klingon\"", |builder| {
            builder.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "klingon");
            texts(builder, "tokenizer.ggml.tokens", &["a"]);
            texts(builder, "tokenizer.ggml.merges", &[]);
        }),
        ("tokenizer.ggml.sorcery", |builder| {
            builder.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.sorcery", "yes");
        }),
        ("bos_token_id", |builder| {
            builder.text("tokenizer.ggml.model", "gpt2");
            texts(builder, "tokenizer.ggml.tokens", &["a"]);
            texts(builder, "tokenizer.ggml.merges", &[]);
            builder.value("tokenizer.ggml.bos_token_id", Stored::U32(7));
        }),
        ("merge 0", |builder| {
            builder.text("tokenizer.ggml.model", "gpt2");
            texts(builder, "tokenizer.ggml.tokens", &["a"]);
            texts(builder, "tokenizer.ggml.merges", &["aa"]);
        }),
        ("tokenizer.ggml.scores", |builder| {
            builder.text("tokenizer.ggml.model", "llama");
            texts(builder, "tokenizer.ggml.tokens", &["a", "b"]);
            builder.array("tokenizer.ggml.scores", [Stored::F32(0.0)]);
        }),
    ];
    for (named, change) in cases {
        let failure = vocabulary(change).unwrap_err();
        assert!(failure.message.contains(named), "{}: {}", named, failure.message);
    }
}

#[test]
fn tokens_with_one_text_and_merges_without_tokens_are_refused() {
    let twins = vocabulary(|builder| {
        builder.text("tokenizer.ggml.model", "gpt2");
        texts(builder, "tokenizer.ggml.tokens", &["a", "b", "a"]);
        texts(builder, "tokenizer.ggml.merges", &[]);
    });
    let failure = twins.unwrap().unwrap().tokenizer_json().unwrap_err();
    assert!(failure.message.contains("0 and 2"), "{}", failure.message);
    // A merge whose outcome is no token, also one that would go round in a circle.
    let circle = vocabulary(|builder| {
        builder.text("tokenizer.ggml.model", "gpt2");
        texts(builder, "tokenizer.ggml.tokens", &["a", "b"]);
        texts(builder, "tokenizer.ggml.merges", &["a b", "b a", "ab a"]);
    });
    let text = circle.unwrap().unwrap().tokenizer_json().unwrap();
    assert!(Tokenizer::from_bytes(&text, 2).is_err());
}

#[test]
fn scores_decide_as_they_do_in_sentencepiece() {
    // "ab" is better than "bc", so "abc" is "ab" + "c", though "bc" comes later in the list.
    let tokens = ["<unk>", "a", "b", "c", "bc", "ab"];
    let found = vocabulary(|builder| {
        builder.text("tokenizer.ggml.model", "llama");
        texts(builder, "tokenizer.ggml.tokens", &tokens);
        builder.array("tokenizer.ggml.scores", [0.0, 0.0, 0.0, 0.0, -9.0, -1.0].map(Stored::F32));
        builder.array("tokenizer.ggml.token_type", [2, 1, 1, 1, 1, 1].map(Stored::I32));
        builder.value("tokenizer.ggml.add_space_prefix", Stored::Bool(false));
        builder.value("tokenizer.ggml.add_bos_token", Stored::Bool(false));
    });
    let found = found.unwrap().unwrap();
    assert_eq!(found.kinds[0], TokenKind::Unknown);
    assert!(matches!(found.pieces, Pieces::Scored { space_prefix: false, .. }));
    let tokenizer = Tokenizer::from_bytes(&found.tokenizer_json().unwrap(), 6).unwrap();
    assert_eq!(tokenizer.encode("abc", true).unwrap(), [5, 3]);
    assert_eq!(tokenizer.encode("abz", true).unwrap(), [5, 0]);
}

#[test]
fn rotary_divisors_give_back_the_rule_that_made_them() {
    let (checkpoint, _) = open(&goldens().join("llama3/llama3-f16.gguf"));
    let metadata: &GgufMetadata = checkpoint.gguf().unwrap();
    let keys = Keys::new(metadata).unwrap();
    let (config, _) = config::config(&keys, &checkpoint).unwrap();
    assert_eq!(config["rope_scaling"]["rope_type"], "llama3");
    assert_eq!(config["rope_scaling"]["original_max_position_embeddings"], 32);
}

#[test]
fn scores_that_make_more_merges_than_a_vocabulary_warrants_are_refused() {
    // Every split of every token is two tokens.
    let tokens: Vec<String> = (0..=64)
        .flat_map(|a| (0..=64).map(move |b| format!("{}{}", "a".repeat(a), "b".repeat(b))))
        .filter(|token| !token.is_empty())
        .collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let found = vocabulary(|builder| {
        builder.text("tokenizer.ggml.model", "llama");
        texts(builder, "tokenizer.ggml.tokens", &tokens);
        builder.array("tokenizer.ggml.scores", tokens.iter().map(|_| Stored::F32(0.0)));
        builder.array("tokenizer.ggml.token_type", tokens.iter().map(|_| Stored::I32(1)));
    });
    let failure = found.unwrap().unwrap().tokenizer_json().unwrap_err();
    assert!(failure.message.contains("tokenizer.ggml.scores"), "{}", failure.message);
}

#[test]
fn rotary_scaling_of_an_unknown_type_is_refused_though_it_has_no_factor() {
    let (checkpoint, _) = open(&goldens().join("gemma3/gemma3-f16.gguf"));
    let scaled = |kind: &str| {
        let mut builder = GgufMetadataBuilder::new();
        builder.extend(checkpoint.gguf().unwrap(), |key| !key.contains(".rope.scaling."));
        builder.text("gemma3.rope.scaling.type", kind);
        describe(&builder.finish().unwrap(), &checkpoint).map(|description| description.config)
    };
    for kind in ["none", "linear", "yarn"] {
        let config: Value = serde_json::from_str(&scaled(kind).unwrap()).unwrap();
        assert_eq!(config["rope_scaling"], Value::Null, "{kind}");
    }
    for kind in ["longrope", "sorcery"] {
        let message = scaled(kind).unwrap_err().message;
        assert!(message.contains("rope.scaling.type") && message.contains(kind), "{message}");
    }
}

#[test]
fn tensors_that_the_model_has_no_use_for_are_refused_by_name() {
    // The normalised queries of a Gemma 3 are nothing that a Gemma 2 has.
    let (checkpoint, _) = open(&goldens().join("gemma3/gemma3-f16.gguf"));
    let older = json(&goldens().join("gemma2/config.json")).to_string();
    let failure = check_all_used(&checkpoint, &Architecture::from_config(&older).unwrap());
    let message = failure.unwrap_err().message;
    assert!(message.contains("gemma2") && message.contains("_norm.weight"), "{message}");
    // Opening a file looks at it.
    let mut bytes = std::fs::read(goldens().join("llama3/llama3-f16.gguf")).unwrap();
    let name = b"blk.0.ffn_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(b"blk.0.ffn_nose.weight");
    let memory = MemoryFiles::new();
    memory.put(Path::new("/m/model.gguf"), &bytes);
    let files: Arc<dyn Files> = Arc::new(memory);
    let message = SourceModel::open(&files, Path::new("/m/model.gguf")).unwrap_err().message;
    assert!(message.contains("no use for the tensor blk.0.ffn_nose.weight"), "{message}");
    for (_, path) in self::files() {
        let files: Arc<dyn Files> = Arc::new(DiskFiles);
        SourceModel::open(&files, &path).unwrap_or_else(|failure| panic!("{}", failure.message));
    }
}
