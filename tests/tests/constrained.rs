//! Constrained generation: whatever the model would rather say, the answer is what the JSON schema or
//! the grammar describes, and what cannot be followed is refused with its reason.

use std::time::Duration;

use larql_client::{Client, Constraint, GenerateRequest};
use larql_tests::daemon::Daemon;
use larql_tests::generation::{Generated, generate, request};
use larql_tests::goldens::CASES;
use larql_tests::json_schema::{Random, schema, violation};
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long a refusal may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Schemas that are tried.
const SCHEMAS: u64 = 300;

async fn atlas() -> (Daemon, Client) {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    (daemon, client)
}

fn schema_request(schema: &Value, seed: u64) -> GenerateRequest {
    GenerateRequest {
        temperature: Some(1.5),
        seed: Some(seed),
        constraint: Some(Constraint::JsonSchema(schema.to_string())),
        ..request("atlas", "The answer is", 400)
    }
}

fn grammar_request(grammar: &str) -> GenerateRequest {
    let constraint = Some(Constraint::Grammar(grammar.to_owned()));
    GenerateRequest { constraint, ..request("atlas", "The capital of France is", 40) }
}

/// The text as JSON that the schema describes.
fn check(generated: &Generated, schema: &Value) -> Value {
    let text = &generated.text;
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| {
        panic!("{text:?} is no JSON, by {schema}: {error}");
    });
    assert_eq!(violation(&value, schema), None);
    value
}

#[tokio::test]
async fn random_text_under_hundreds_of_schemas_is_json_as_they_describe_it() {
    let (_daemon, client) = atlas().await;
    let (mut whole, mut cut) = (0, 0);
    for seed in 0..SCHEMAS {
        let schema = schema(&mut Random::new(seed), 3);
        let generated = generate(&client, schema_request(&schema, seed)).await;
        let generated = generated.unwrap_or_else(|error| panic!("{schema}: {error}"));
        match generated.done.reason.as_str() {
            "stop" => {
                check(&generated, &schema);
                whole += 1;
            }
            "length" => cut += 1,
            other => panic!("ended by {other}"),
        }
    }
    println!("{whole} whole, {cut} cut by tokens_max");
    assert!(cut * 20 <= whole, "{cut} of {SCHEMAS} had no end in 400 tokens");
}

#[tokio::test]
async fn an_answer_cut_by_tokens_max_is_the_beginning_of_one_and_says_so() {
    let (_daemon, client) = atlas().await;
    let schema = json!({"type": "array", "items": {"enum": ["long enough", "to be cut"]},
        "minItems": 5, "maxItems": 5});
    let whole = generate(&client, schema_request(&schema, 3)).await.expect("a generation");
    check(&whole, &schema);
    for tokens_max in [1, 2, 5] {
        let cut = GenerateRequest { tokens_max, ..schema_request(&schema, 3) };
        let cut = generate(&client, cut).await.expect("a generation");
        assert_eq!(cut.done.reason, "length");
        assert!(whole.text.starts_with(&cut.text), "{:?} and {:?}", cut.text, whole.text);
    }
}

#[tokio::test]
async fn definitions_that_refer_to_themselves_and_open_objects_are_served() {
    let (_daemon, client) = atlas().await;
    let tree = json!({
        "$defs": {"tree": {"type": "object", "required": ["v"], "additionalProperties": false,
            "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/tree"}}}},
        "$ref": "#/$defs/tree",
    });
    for seed in 0..5 {
        let generated = generate(&client, schema_request(&tree, seed)).await.expect("a generation");
        if generated.done.reason == "stop" {
            let value: Value = serde_json::from_str(&generated.text).expect("JSON");
            assert!(value["v"].is_boolean(), "{value}");
        }
    }
    let greedy =
        GenerateRequest { temperature: None, ..schema_request(&json!({"type": "object"}), 1) };
    let generated = generate(&client, greedy).await.expect("a generation");
    if generated.done.reason == "stop" {
        assert!(serde_json::from_str::<Value>(&generated.text).expect("JSON").is_object());
    }
}

#[tokio::test]
async fn a_grammar_leaves_its_words_only_and_the_model_chooses_among_them() {
    let (_daemon, client) = atlas().await;
    let generated =
        generate(&client, grammar_request("start: \" Berlin\" | \" Paris\" | \" Rome\"")).await;
    let generated = generated.expect("a generation");
    assert_eq!((generated.text.as_str(), generated.done.reason.as_str()), (" Paris", "stop"));
    let digits = generate(&client, grammar_request("start: /[0-9]{3}/ \"!\"")).await.expect("text");
    assert_eq!(digits.text.len(), 4, "{:?}", digits.text);
    assert!(digits.text.ends_with('!') && digits.text[..3].parse::<u32>().is_ok());
}

#[tokio::test]
async fn every_kind_of_tokenizer_can_be_constrained() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let schema = json!({"type": "object", "required": ["naïve", "n"], "additionalProperties": false,
        "properties": {"naïve": {"enum": ["日本語", "x y"]}, "n": {"type": "integer",
            "minimum": 0, "maximum": 999}}});
    for case in CASES.iter().filter(|case| case.file.is_none()) {
        let path = case.path().display().to_string();
        // Most of the golden models have a short context and a prompt of one token.
        let constrained =
            GenerateRequest { model: path, tokens_max: 90, ..schema_request(&schema, 5) };
        let generated = generate(&client, constrained).await;
        let generated = generated.unwrap_or_else(|error| panic!("{}: {error}", case.folder));
        assert_eq!(generated.done.reason, "stop", "{}: {:?}", case.folder, generated.text);
        check(&generated, &schema);
    }
}

#[tokio::test]
async fn constraint_seed_and_speculation_agree() {
    let (_daemon, client) = atlas().await;
    let list = json!({"type": "array", "items": {"enum": ["red", "green"]},
        "minItems": 6, "maxItems": 6});
    for seed in 0..4 {
        let plain = generate(&client, schema_request(&list, seed)).await.expect("a generation");
        let guessed = GenerateRequest {
            speculation: Some(larql_client::Speculation::default()),
            ..schema_request(&list, seed)
        };
        let guessed = generate(&client, guessed).await.expect("a generation");
        assert_eq!(plain.ids(), guessed.ids());
        check(&guessed, &list);
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_its_reason() {
    let (daemon, client) = atlas().await;
    let refused = async |constraint: Constraint, code: &str, words: &[&str]| {
        let request = GenerateRequest { constraint: Some(constraint), ..request("atlas", "x", 1) };
        let answer =
            timeout(PATIENCE, generate(&client, request)).await.expect("an answer in time");
        let error = answer.expect_err("a refusal");
        assert_eq!(error.code, code, "{error}");
        for word in words {
            assert!(error.message.contains(word), "{error} does not say {word}");
        }
        assert!(!error.hint.is_empty(), "{error} has no hint");
    };
    let schema = |text: &str| Constraint::JsonSchema(text.to_owned());
    let grammar = |text: &str| Constraint::Grammar(text.to_owned());
    refused(schema("{\"type\": "), "22023", &["JSON schema"]).await;
    refused(schema("[1, 2]"), "22023", &["JSON schema", "object"]).await;
    refused(schema("false"), "22023", &["JSON schema"]).await;
    refused(schema(r#"{"type": "nothing"}"#), "22023", &["JSON schema", "nothing"]).await;
    refused(schema(r#"{"not": {"type": "null"}}"#), "22023", &["JSON schema", "not"]).await;
    let external = r#"{"$ref": "https://example.invalid/schema.json"}"#;
    refused(schema(external), "22023", &["JSON schema"]).await;
    refused(grammar("begin: \"a\""), "22023", &["grammar"]).await;
    refused(grammar("start: undefined_rule"), "22023", &["grammar", "undefined_rule"]).await;
    refused(grammar(""), "22023", &["grammar"]).await;
    let large = format!("{{\"enum\": [\"{}\"]}}", "x".repeat(300 << 10));
    refused(schema(&large), "54000", &["JSON schema", "bytes"]).await;
    let deep = format!("{}{}", "{\"items\": ".repeat(100), "{}".to_owned() + &"}".repeat(100));
    refused(schema(&deep), "54000", &["JSON schema", "nests"]).await;
    refused(grammar(&format!("start: {}", "(".repeat(100_000))), "54000", &["grammar"]).await;
    assert!(!daemon.log().contains("overflow"), "{}", daemon.log());
}

#[tokio::test]
async fn hostile_constraints_neither_hang_nor_end_the_daemon() {
    let (daemon, client) = atlas().await;
    let chain: String = (0..6000).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
    let references: Vec<String> =
        (0..4000).map(|i| format!("\"d{i}\": {{\"$ref\": \"#/$defs/d{}\"}}", i + 1)).collect();
    let hostile = [
        Constraint::Grammar(format!("start: r0\n{chain}r6000: \"a\"")),
        Constraint::Grammar("start: start start | \"a\" | start start start".to_owned()),
        Constraint::Grammar("start: /((a{1,99}){1,99}){1,99}/".to_owned()),
        Constraint::Grammar("start: /(.*a.*b.*c.*d.*){50}/".to_owned()),
        Constraint::Grammar(format!("start: /{}a{}/", "(".repeat(60), ")*".repeat(60))),
        Constraint::JsonSchema(format!(
            "{{\"$defs\": {{{}, \"d4000\": {{\"type\": \"null\"}}}}, \"$ref\": \"#/$defs/d0\"}}",
            references.join(", ")
        )),
        Constraint::JsonSchema(
            r##"{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##.to_owned(),
        ),
        Constraint::JsonSchema(
            r#"{"type": "string", "pattern": "^(a|aa|aaa|.*b){1,1000}$"}"#.to_owned(),
        ),
        Constraint::JsonSchema(r#"{"type": "array", "minItems": 1000000000}"#.to_owned()),
        Constraint::JsonSchema(r#"{"type": "string", "minLength": 100000000}"#.to_owned()),
        Constraint::JsonSchema(format!(
            "{{\"enum\": [{}]}}",
            (0..20_000).map(|i| format!("\"v{i}\"")).collect::<Vec<_>>().join(",")
        )),
    ];
    for constraint in hostile {
        let name: String = format!("{constraint:?}").chars().take(80).collect();
        let request = GenerateRequest { constraint: Some(constraint), ..request("atlas", "x", 5) };
        // An answer or a refusal, in bounded time.
        let answer = timeout(PATIENCE, generate(&client, request)).await;
        match answer.unwrap_or_else(|_| panic!("{name} does not end")) {
            Ok(generated) => println!("{name}: {:?}", generated.text),
            Err(error) => {
                assert!(["22023", "54000"].contains(&error.code.as_str()), "{name}: {error}");
                assert!(!error.hint.is_empty(), "{name}: {error}");
                println!("{name}: {error}");
            }
        }
    }
    let plain = generate(&client, request("atlas", "The capital of France is", 1)).await;
    assert_eq!(plain.expect("the daemon serves on").text.trim(), "Paris");
    assert!(daemon.anonymous_bytes() < 512 << 20, "{} bytes", daemon.anonymous_bytes());
}
