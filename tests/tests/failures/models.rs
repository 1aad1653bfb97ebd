//! Models that are not what they should be: configurations, tokenizers, templates, numbers.

use super::*;

/// Damages one side file of a copy of a small model and expects every use to be refused.
async fn refused_with(daemon: &Daemon, file: &str, text: &[u8], code: &str, names: &[&str]) {
    let path = daemon.data_dir().join("model");
    let _ = fs::remove_dir_all(&path);
    copy(&llama2(), &path);
    fs::write(path.join(file), text).expect("a damaged file");
    let out = daemon.data_dir().join("model.vindex");
    for script in [
        format!("USE MODEL \"{}\"; INFER \"a\"", path.display()),
        format!("EXTRACT MODEL \"{}\" INTO \"{}\"", path.display(), out.display()),
    ] {
        let error = refused(daemon, &script, code, names).await;
        assert!(error.message.contains("model"), "{error} does not name the directory");
        assert!(error.message.len() < 1000, "{} bytes of message", error.message.len());
        assert!(!out.exists());
    }
}

fn llama2_config(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let text = fs::read(llama2().join("config.json")).expect("config.json");
    let mut config = serde_json::from_slice(&text).expect("JSON");
    change(&mut config);
    serde_json::to_vec(&config).expect("JSON")
}

#[tokio::test]
async fn a_config_that_is_no_json_is_refused() {
    let daemon = Daemon::start();
    for text in [
        &b""[..],
        b"null",
        b"[]",
        b"{\"model_type\": \"llama\"",
        b"\xff\xfe{}",
        &b"[".repeat(100_000),
        &b"{\"model_type\":".repeat(50_000),
    ] {
        refused_with(&daemon, "config.json", text, "0A001", &["config.json"]).await;
    }
}

#[tokio::test]
async fn a_config_of_more_than_a_megabyte_is_not_read() {
    let daemon = Daemon::start();
    let text = format!("{{\"model_type\": \"{}\"}}", "x".repeat(1 << 20));
    refused_with(&daemon, "config.json", text.as_bytes(), "54000", &["config.json"]).await;
}

#[tokio::test]
async fn a_config_with_impossible_numbers_is_refused_by_key() {
    let daemon = Daemon::start();
    let huge = [0_i64, -1, 1 << 40, i64::MAX];
    let keys = [
        "num_attention_heads",
        "num_key_value_heads",
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
    ];
    for key in keys {
        for number in huge {
            let config = llama2_config(|config| config[key] = number.into());
            refused_with(&daemon, "config.json", &config, "0A001", &[key]).await;
        }
        let config = llama2_config(|config| config[key] = "many".into());
        refused_with(&daemon, "config.json", &config, "0A001", &[key]).await;
    }
    for (key, text) in [
        ("rms_norm_eps", "-1.0"),
        ("rms_norm_eps", "NaN"),
        ("rope_theta", "1e999"),
        ("rope_theta", "0"),
    ] {
        let config = llama2_config(|config| config[key] = "HERE".into());
        let config = String::from_utf8(config).expect("text").replace("\"HERE\"", text);
        refused_with(&daemon, "config.json", config.as_bytes(), "0A001", &["config.json"]).await;
    }
}

#[tokio::test]
async fn an_unknown_family_is_refused_with_those_that_are_known() {
    let daemon = Daemon::start();
    let config = llama2_config(|config| config["model_type"] = "perceptron".into());
    refused_with(&daemon, "config.json", &config, "0A001", &["perceptron", "llama"]).await;
}

#[tokio::test]
async fn a_config_that_disagrees_with_the_weights_is_refused_by_tensor() {
    let daemon = Daemon::start();
    for (key, number) in [
        ("hidden_size", 128),
        ("intermediate_size", 96),
        ("vocab_size", 511),
        ("num_hidden_layers", 4),
    ] {
        let config = llama2_config(|config| config[key] = number.into());
        refused_with(&daemon, "config.json", &config, "0A001", &["tensor"]).await;
    }
}

#[tokio::test]
async fn a_damaged_tokenizer_fails_what_needs_it_and_nothing_else() {
    let daemon = Daemon::start();
    let whole = fs::read(llama2().join("tokenizer.json")).expect("tokenizer.json");
    let path = daemon.data_dir().join("model");
    copy(&llama2(), &path);
    for text in [
        Vec::new(),
        b"{}".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        b"[".repeat(100_000),
        String::from_utf8_lossy(&whole).replacen("\"BPE\"", "\"Runes\"", 1).into_bytes(),
    ] {
        fs::write(path.join("tokenizer.json"), &text).expect("tokenizer.json");
        let script = format!("USE MODEL \"{}\"; INFER \"a\"", path.display());
        refused(&daemon, &script, "0A001", &["tokenizer.json"]).await;
        let request = LogitsRequest {
            model: path.display().to_string(),
            token_ids: vec![1, 2, 3],
            ..LogitsRequest::default()
        };
        let logits = daemon.client().await.logits(request).await;
        logits.expect("token ids need no tokenizer");
    }
}

#[tokio::test]
async fn an_endless_chat_template_is_stopped() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("model");
    copy(&llama2(), &path);
    let text = fs::read(path.join("tokenizer_config.json")).expect("tokenizer_config.json");
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
    ] {
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        config["chat_template"] = template.into();
        fs::write(path.join("tokenizer_config.json"), config.to_string()).expect("written");
        let message = ChatMessage { role: "user".to_owned(), content: "Hello".to_owned() };
        let request = GenerateRequest {
            model: path.display().to_string(),
            messages: vec![message],
            tokens_max: 4,
            ..GenerateRequest::default()
        };
        let error = timeout(PATIENCE, generate(&daemon.client().await, request)).await;
        let error = error.expect("an end").expect_err("a refusal");
        assert_call(&error, "22023", &["chat template"]);
        assert!(!error.hint.is_empty(), "{error}");
        assert_well(&daemon).await;
    }
    assert!(daemon.anonymous_bytes() < 512 << 20, "{} bytes", daemon.anonymous_bytes());
}

#[tokio::test]
async fn files_of_another_models_vindex_are_refused_or_found_by_verify() {
    let daemon = Daemon::start();
    let other = daemon.data_dir().join("other");
    checkpoint::write_rounded_to_f16(&llama2(), &other);
    let weights = fs::read(other.join("model.safetensors")).expect("weights");
    let mut changed = weights.clone();
    let end = changed.len();
    changed[end / 2..].iter_mut().step_by(2).for_each(|low| *low ^= 1);
    fs::write(other.join("model.safetensors"), changed).expect("weights");
    let (a, b, c) = ("a.vindex", "b.vindex", "c.vindex");
    let path = |name: &str| daemon.data_dir().join(name);
    daemon.extract(&llama2(), &path(a), "WITH ALL").await;
    daemon.extract(&other, &path(b), "WITH ALL").await;
    daemon.extract(&Golden::load("gemma3").path, &path(c), "WITH ALL").await;
    daemon.query("UNMOUNT a").await.expect("unmounted");
    let names = contents(&path(a));
    for (name, bytes) in &names {
        for donor in [b, c] {
            let Ok(foreign) = fs::read(path(donor).join(name)) else { continue };
            if foreign == *bytes || (name == "index.json" && donor == b) {
                continue;
            }
            fs::write(path(a).join(name), &foreign).expect("a foreign file");
            let verify = format!("VERIFY VINDEX \"{}\"", path(a).display());
            refused(&daemon, &verify, "XX001", &[]).await;
            // What was learned later never keeps weights from being used.
            let learned = name.ends_with(".index") || name == "knowledge.labels";
            if !learned && (foreign.len() != bytes.len() || name == "index.json") {
                let script = format!("USE \"{}\"", path(a).display());
                refused(&daemon, &script, "XX001", &["a.vindex"]).await;
            }
            fs::write(path(a).join(name), bytes).expect("the own file");
        }
    }
    daemon.query(&format!("USE \"{}\"; DESCRIBE \"a\"", path(a).display())).await.expect("answers");
}

#[tokio::test]
async fn weights_that_are_no_numbers_are_told_and_never_answered() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("nan");
    let out = daemon.data_dir().join("out.vindex");
    for part in [
        "mlp.gate_proj",
        "self_attn.q_proj",
        "model.norm",
        "mlp.down_proj",
        "mlp.up_proj",
        "lm_head",
    ] {
        checkpoint_with(&path, part, half::f16::NAN);
        let infer = |path: &Path| {
            let model = if path.ends_with("nan") { "MODEL " } else { "" };
            format!("USE {model}\"{}\"; INFER \"a\"", path.display())
        };
        refused(&daemon, &infer(&path), "XX001", &["nan"]).await;
        let script = format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL WITHOUT LABELS OVERWRITE",
            path.display(),
            out.display()
        );
        match timeout(PATIENCE, daemon.query(&script)).await.expect("an answer in time") {
            Ok(answers) => {
                assert_ne!(part, "mlp.gate_proj", "its scores have no mean");
                let notices = &answers[0].notices;
                assert!(notices.iter().any(|notice| notice.message.contains(part)), "{notices:?}");
                let index = fs::read_to_string(out.join("index.json")).expect("index.json");
                assert!(index.contains("not finite"), "{part}: the manifest does not tell");
                refused(&daemon, &infer(&out), "XX001", &["out.vindex"]).await;
            }
            Err(error) => {
                assert_eq!(error.code, "XX001", "{part}: {error}");
                assert!(error.message.contains("not finite"), "{part}: {error}");
                assert!(error.message.contains("nan") && !error.hint.is_empty(), "{error}");
            }
        }
        assert_well(&daemon).await;
    }
}

/// Writes the small model with one number replaced in every tensor whose name holds `part`.
fn checkpoint_with(path: &Path, part: &str, number: half::f16) {
    checkpoint::write_rounded_to_f16(&llama2(), path);
    let mut bytes = fs::read(path.join("model.safetensors")).expect("weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let base = bytes.as_ptr() as usize;
    let places: Vec<usize> = file
        .tensors()
        .iter()
        .filter(|(name, _)| name.contains(part))
        .map(|(_, view)| view.data().as_ptr() as usize - base)
        .collect();
    assert!(!places.is_empty(), "{part}");
    for at in places {
        bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }
    fs::write(path.join("model.safetensors"), bytes).expect("weights");
}
