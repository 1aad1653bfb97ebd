//! What goes wrong outside the daemon fails one statement, names the thing, says what to do, and
//! leaves the daemon answering. Each claim is a test of its own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use larql_client::{
    CallError, ChatMessage, Client, ConnectOptions, Event, ExecuteOptions, GenerateEvent,
    GenerateRequest, LogitsRequest, StatementError, Target, Value,
};
use larql_proto::v1::{self as wire, client_frame, server_frame};
use larql_tests::daemon::{self, Daemon};
use larql_tests::goldens::Golden;
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::{atlas_checkpoint, checkpoint, repository};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a refusal may take, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

// --- what the tests share ----------------------------------------------------------------------

fn llama2() -> PathBuf {
    Golden::load("llama2").path
}

/// A copy of a directory's files that a test may damage.
fn copy(source: &Path, destination: &Path) {
    fs::create_dir_all(destination).expect("a directory");
    for entry in fs::read_dir(source).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, destination.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// Every file below a directory, by name.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        files.insert(name, fs::read(&path).expect("a file"));
    }
    files
}

fn assert_same_files(found: &Path, expected: &Path) {
    let (found, expected) = (contents(found), contents(expected));
    assert!(found.keys().eq(expected.keys()), "{:?} and {:?}", found.keys(), expected.keys());
    for (name, bytes) in &found {
        assert!(bytes == &expected[name], "{name} differs");
    }
}

/// The daemon answers, and none of its threads panicked.
async fn assert_well(daemon: &Daemon) {
    let answers = timeout(AT_ONCE, daemon.query("SHOW MOUNTS")).await.expect("an answer in time");
    answers.unwrap_or_else(|error| panic!("SHOW MOUNTS: {error}"));
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Runs a script that must fail so: with that code, a message that names all of `names`, and a hint.
async fn refused(daemon: &Daemon, script: &str, code: &str, names: &[&str]) -> StatementError {
    let error = failure(daemon, script, code, names).await;
    assert!(!error.hint.is_empty(), "{}: {error} has no hint", shorten(script));
    error
}

/// As [`refused`], where the message says all that there is to do.
async fn failure(daemon: &Daemon, script: &str, code: &str, names: &[&str]) -> StatementError {
    let answer = timeout(PATIENCE, daemon.query(script)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{}: no answer in time", shorten(script)));
    let Err(error) = answer else { panic!("{} succeeded", shorten(script)) };
    assert_eq!(error.code, code, "{}: {error}", shorten(script));
    for name in names {
        assert!(error.message.contains(name), "{}: {error} does not name {name}", shorten(script));
    }
    assert_well(daemon).await;
    error
}

fn shorten(script: &str) -> String {
    script.chars().take(200).collect()
}

fn assert_call(error: &CallError, code: &str, names: &[&str]) {
    assert_eq!(error.code, code, "{error}");
    for name in names {
        assert!(error.message.contains(name), "{error} does not name {name}");
    }
}

/// Runs a daemon that must not start; returns what it wrote.
fn does_not_start(data_dir: &Path, arguments: &[&str]) -> String {
    let mut command = daemon::command(data_dir, arguments);
    let mut child = command.spawn().expect("larqld starts");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("larqld goes on");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(!status.success(), "larqld ended with success");
    let log = fs::read_to_string(data_dir.join("larqld.test.log")).expect("a log");
    assert!(!log.contains("panicked"), "{log}");
    log
}

// --- files that are not what they should be ----------------------------------------------------

#[tokio::test]
async fn a_path_that_does_not_exist_is_named() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("nowhere");
    let path = path.display();
    for script in [
        format!("USE \"{path}\""),
        format!("USE MODEL \"{path}\""),
        format!("MOUNT \"{path}\" AS gone"),
        format!("VERIFY VINDEX \"{path}\""),
        format!("EXTRACT MODEL \"{path}\" INTO \"{path}.vindex\""),
    ] {
        refused(&daemon, &script, "58P01", &[&path.to_string()]).await;
    }
    refused(&daemon, "USE \"nobody\"", "42704", &["nobody"]).await;
    assert!(!daemon.data_dir().join("nowhere.vindex").exists());
}

#[tokio::test]
async fn weights_truncated_anywhere_are_refused_by_name() {
    let daemon = Daemon::start();
    let directory = daemon.data_dir().join("cut");
    copy(&llama2(), &directory);
    let weights = directory.join("model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    let destination = daemon.data_dir().join("cut.vindex");
    for part in 0..50 {
        fs::write(&weights, &whole[..whole.len() * part / 50]).expect("a cut file");
        for script in [
            format!("USE MODEL \"{}\"", directory.display()),
            format!("EXTRACT MODEL \"{}\" INTO \"{}\"", directory.display(), destination.display()),
        ] {
            refused(&daemon, &script, "XX001", &["model.safetensors"]).await;
            assert!(!destination.exists(), "cut at {part}/50");
        }
    }
    fs::write(&weights, &whole).expect("the whole file");
    daemon.extract(&directory, &destination, "").await;
}

#[tokio::test]
async fn a_flipped_byte_of_any_file_is_found_by_verify() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "WITH ALL").await;
    let script = format!("VERIFY VINDEX \"{}\"", path.display());
    daemon.query(&script).await.expect("an undamaged vindex");
    for (name, bytes) in contents(&path) {
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(path.join(&name), &damaged).expect("a damaged file");
        refused(&daemon, &script, "XX001", &[&name]).await;
        fs::write(path.join(&name), &bytes).expect("the file as it was");
    }
    daemon.query(&script).await.expect("a restored vindex");
}

#[tokio::test]
async fn a_vindex_of_another_version_is_refused_with_both_versions() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    daemon.query("UNMOUNT v").await.expect("unmounted");
    let index = fs::read_to_string(path.join("index.json")).expect("index.json");
    let newer = index.replacen("\"version\": 3", "\"version\": 99", 1);
    assert_ne!(index, newer);
    fs::write(path.join("index.json"), newer).expect("index.json");
    for statement in ["USE", "MOUNT", "VERIFY VINDEX"] {
        let script = format!("{statement} \"{}\"", path.display());
        refused(&daemon, &script, "0A001", &["v.vindex", "99", "3"]).await;
    }
}

#[tokio::test]
async fn an_edited_or_cut_manifest_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    daemon.query("UNMOUNT v").await.expect("unmounted");
    let index = fs::read(path.join("index.json")).expect("index.json");
    let edited = String::from_utf8_lossy(&index).replacen("llama", "gemma", 1).into_bytes();
    let bombs = [b"[".repeat(100_000), b"{\"version\":".repeat(50_000)];
    let cuts = (0..20).map(|part| index[..index.len() * part / 20].to_vec());
    for text in cuts.chain(bombs).chain([edited]) {
        fs::write(path.join("index.json"), text).expect("index.json");
        refused(&daemon, &format!("USE \"{}\"", path.display()), "XX001", &["index.json"]).await;
    }
}

#[tokio::test]
async fn a_directory_without_weights_is_refused() {
    let daemon = Daemon::start();
    let empty = daemon.data_dir().join("empty");
    let without = daemon.data_dir().join("without");
    fs::create_dir(&empty).expect("a directory");
    copy(&llama2(), &without);
    fs::remove_file(without.join("model.safetensors")).expect("removed");
    for path in [empty, without] {
        let path = path.display();
        for script in [
            format!("USE \"{path}\""),
            format!("USE MODEL \"{path}\""),
            format!("MOUNT \"{path}\" AS m"),
            format!("EXTRACT MODEL \"{path}\" INTO \"{path}.vindex\""),
        ] {
            refused(&daemon, &script, "0A001", &[&path.to_string(), "no weights"]).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_file_is_refused_without_waiting_or_reading() {
    let daemon = Daemon::start();
    let fifo = daemon.data_dir().join("fifo");
    make_fifo(&fifo);
    let piped = daemon.data_dir().join("piped");
    copy(&llama2(), &piped);
    fs::remove_file(piped.join("model.safetensors")).expect("removed");
    make_fifo(&piped.join("model.safetensors"));
    let endless = daemon.data_dir().join("endless");
    copy(&llama2(), &endless);
    fs::remove_file(endless.join("config.json")).expect("removed");
    std::os::unix::fs::symlink("/dev/zero", endless.join("config.json")).expect("a link");
    let before = daemon.anonymous_bytes();
    let paths =
        ["/dev/zero", "/proc/self/mem", "/dev/null", "/proc/self", "/dev"].map(PathBuf::from);
    for path in paths.into_iter().chain([fifo, piped, endless]) {
        let shown = path.display().to_string();
        let out = daemon.data_dir().join("out.vindex");
        for script in [
            format!("USE \"{shown}\""),
            format!("USE MODEL \"{shown}\""),
            format!("MOUNT \"{shown}\" AS m"),
            format!("VERIFY VINDEX \"{shown}\""),
            format!("EXTRACT MODEL \"{shown}\" INTO \"{}\"", out.display()),
        ] {
            let answer = timeout(AT_ONCE, daemon.query(&script)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{script} waits"));
            let Err(error) = answer else { panic!("{script} succeeded") };
            assert!(["0A001", "58030", "XX001"].contains(&&*error.code), "{script}: {error}");
            assert!(!error.hint.is_empty(), "{script}: {error}");
        }
        assert!(!out.exists());
        let script = format!("EXTRACT MODEL \"{}\" INTO \"{shown}\"", llama2().display());
        let answer = timeout(AT_ONCE, daemon.query(&script)).await;
        let error = answer.expect("an answer in time").expect_err("no place for a vindex");
        assert!(["42P07", "58P01", "58030"].contains(&&*error.code), "{script}: {error}");
        assert!(error.message.contains(&shown) && !error.hint.is_empty(), "{script}: {error}");
        let lock = format!("{shown}.lock");
        assert!(!Path::new(&lock).exists(), "{lock} stays behind");
    }
    let grown = daemon.anonymous_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_well(&daemon).await;
}

fn make_fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "mkfifo");
}

#[tokio::test]
async fn text_that_is_no_path_is_refused() {
    let daemon = Daemon::start();
    for (text, name) in
        [("~/models", "~"), ("http://host/model", "URL"), ("a\0b", "NUL"), ("", "path")]
    {
        for statement in ["USE MODEL", "MOUNT", "VERIFY VINDEX"] {
            failure(&daemon, &format!("{statement} \"{text}\""), "22023", &[name]).await;
        }
    }
    // The way up from the root is the root.
    refused(&daemon, &format!("USE \"{}\"", "../".repeat(200)), "0A001", &["/"]).await;
    let long = format!("USE \"/{}\"", "x".repeat(100_000));
    failure(&daemon, &long, "58030", &["too long"]).await;
}

#[tokio::test]
async fn a_weight_file_that_is_a_link_out_of_its_directory_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("linked");
    copy(&llama2(), &path);
    let weights = path.join("model.safetensors");
    fs::rename(&weights, daemon.data_dir().join("elsewhere.safetensors")).expect("moved");
    std::os::unix::fs::symlink("../elsewhere.safetensors", &weights).expect("a link");
    for script in [
        format!("USE MODEL \"{}\"", path.display()),
        format!("EXTRACT MODEL \"{}\" INTO \"{}.vindex\"", path.display(), path.display()),
    ] {
        refused(&daemon, &script, "XX001", &["model.safetensors", "symbolic link"]).await;
    }
}

// --- models that are not what they should be ---------------------------------------------------

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

async fn generate(client: &Client, request: GenerateRequest) -> Result<u32, CallError> {
    let mut generation = client.generate(request).await?;
    let mut tokens = 0;
    while let Some(event) = generation.next().await? {
        tokens += u32::from(matches!(event, GenerateEvent::Token { .. }));
    }
    Ok(tokens)
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
            if foreign.len() != bytes.len() || name == "index.json" {
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
            "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL OVERWRITE",
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

// --- EXTRACT -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_destination_that_exists_is_kept() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    let before = contents(&path);
    let extract = |destination: &Path| {
        format!("EXTRACT MODEL \"{}\" INTO \"{}\"", llama2().display(), destination.display())
    };
    let error = refused(&daemon, &extract(&path), "42P07", &["v.vindex"]).await;
    assert!(error.hint.contains("OVERWRITE"), "{}", error.hint);
    assert_eq!(contents(&path), before);
    // Somebody's documents are no vindex to be replaced.
    let documents = daemon.data_dir().join("documents");
    fs::create_dir(&documents).expect("a directory");
    fs::write(documents.join("thesis.txt"), "years").expect("a file");
    let script = format!("{} OVERWRITE", extract(&documents));
    refused(&daemon, &script, "42P07", &["documents", "not a vindex"]).await;
    assert_eq!(fs::read(documents.join("thesis.txt")).expect("the file"), b"years");
}

#[tokio::test]
async fn of_two_extracts_to_one_destination_one_wins_and_the_other_is_told() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("slow");
    let size =
        Size { layers: 4, hidden: 256, features: 2048, experts: 0, vocabulary: 4000, context: 64 };
    random_checkpoint::write(&source, size, 3);
    let destination = daemon.data_dir().join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL",
        source.display(),
        destination.display()
    );
    let mut client = daemon.client().await;
    let mut first = client.execute(&script, ExecuteOptions::here());
    until_stage(&mut first, "weights").await;
    let error = refused(&daemon, &script, "55006", &["v.vindex"]).await;
    assert!(error.hint.contains("wait"), "{}", error.hint);
    refused(&daemon, &format!("{script} OVERWRITE RESUME"), "55006", &["v.vindex"]).await;
    while let Some(event) = timeout(PATIENCE, first.next()).await.expect("an event") {
        assert!(!matches!(event, Event::Error(_)), "{event:?}");
    }
    let verify = format!("VERIFY VINDEX \"{}\"; USE \"v\"", destination.display());
    daemon.query(&verify).await.expect("the winner's vindex is whole");
}

/// Reads events until the job reports that stage.
async fn until_stage(statements: &mut larql_client::Statements<'_>, stage: &str) {
    loop {
        match timeout(PATIENCE, statements.next()).await.expect("an event") {
            Some(Event::Progress(progress)) if progress.stage == stage => return,
            Some(Event::Error(error)) => panic!("{error}"),
            Some(_) => {}
            None => panic!("the job ended before {stage}"),
        }
    }
}

/// The bytes that an undisturbed EXTRACT of the bundled model makes.
async fn undisturbed(directory: &Path) -> PathBuf {
    undisturbed_with(directory, &atlas_checkpoint(), "WITH ALL").await
}

async fn undisturbed_with(directory: &Path, source: &Path, options: &str) -> PathBuf {
    let daemon = Daemon::start();
    let path = directory.join("undisturbed.vindex");
    daemon.extract(source, &path, options).await;
    path
}

#[tokio::test]
async fn a_killed_extract_leaves_nothing_that_mounts_and_resumes_to_the_same_bytes() {
    assert_killed_extract_resumes(&atlas_checkpoint(), "WITH ALL", 4).await;
}

#[tokio::test]
async fn a_killed_quantising_extract_resumes_to_the_same_bytes() {
    assert_killed_extract_resumes(&atlas_checkpoint(), "WITH ALL QUANT Q4K", 4).await;
}

#[tokio::test]
async fn a_killed_extract_of_experts_resumes_to_the_same_bytes() {
    let source = repository().join("tests/goldens/gpt_oss_mxfp4");
    assert_killed_extract_resumes(&source, "WITH ALL DTYPE SOURCE", 1).await;
}

#[tokio::test]
async fn a_killed_extract_of_a_gguf_file_resumes_to_the_same_bytes() {
    let source = repository().join("tests/goldens/llama_k_quants/llama_k_quants-q4_k_m.gguf");
    assert_killed_extract_resumes(&source, "WITH ALL QUANT FP4", 1).await;
}

/// `least`: of the kills, how many must come before the job is done.
async fn assert_killed_extract_resumes(source: &Path, options: &str, least: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let expected = undisturbed_with(directory.path(), source, options).await;
    let destination = directory.path().join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" {options}",
        source.display(),
        destination.display()
    );
    let data_dir = directory.path().join("data");
    let mut interrupted = 0;
    let moments = [
        ("reading", 1),
        ("weights", 1),
        ("weights", 50),
        ("features", 1),
        ("features", 3),
        ("features", 6),
        ("syncing", 1),
    ];
    for (round, (stage, count)) in moments.into_iter().enumerate() {
        let mut daemon = Daemon::start_in(&data_dir, &[]);
        kill_at(&mut daemon, &script, stage, count).await;
        let finished = destination.exists();
        drop(daemon);
        let daemon = Daemon::start_in(&data_dir, &[]);
        if !finished {
            interrupted += 1;
            for suffix in ["", ".partial", ".lock"] {
                let path = format!("{}{suffix}", destination.display());
                for statement in ["USE", "MOUNT", "VERIFY VINDEX"] {
                    let answer = daemon.query(&format!("{statement} \"{path}\"")).await;
                    let error =
                        answer.err().unwrap_or_else(|| panic!("{statement} {path} succeeded"));
                    assert!(["58P01", "0A001"].contains(&&*error.code), "{error}");
                }
            }
            let options = if round % 2 == 0 { " RESUME" } else { "" };
            let again = daemon.query(&format!("{script}{options}")).await;
            again.unwrap_or_else(|error| panic!("{stage} {count}{options}: {error}"));
        }
        assert_same_files(&destination, &expected);
        assert!(!directory.path().join("v.vindex.partial").exists());
        assert!(!directory.path().join("v.vindex.lock").exists());
        daemon.query("USE \"v\"; INFER \"The capital of France is\"").await.unwrap_or_else(
            |error| {
                assert!(finished, "{error}");
                Vec::new()
            },
        );
        assert_well(&daemon).await;
        let _ = daemon.query("UNMOUNT v").await;
        fs::remove_dir_all(&destination).expect("removed");
    }
    assert!(interrupted >= least, "only {interrupted} of the kills came in time");
}

/// Kills the daemon when the script has reported that stage so often, or has ended.
async fn kill_at(daemon: &mut Daemon, script: &str, stage: &str, count: usize) {
    let mut client = daemon.client().await;
    let mut statements = client.execute(script, ExecuteOptions::here());
    let mut left = count;
    while left > 0 {
        match timeout(PATIENCE, statements.next()).await.expect("an event") {
            Some(Event::Progress(progress)) if progress.stage == stage => left -= 1,
            Some(Event::Error(error)) => panic!("{error}"),
            Some(_) => {}
            None => break,
        }
    }
    daemon.kill();
}

#[tokio::test]
async fn a_staging_directory_of_other_options_is_not_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("v.vindex");
    let extract = |options: &str| {
        format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" {options}",
            atlas_checkpoint().display(),
            destination.display()
        )
    };
    let data_dir = directory.path().join("data");
    let mut daemon = Daemon::start_in(&data_dir, &[]);
    kill_at(&mut daemon, &extract("WITH ALL"), "features", 3).await;
    drop(daemon);
    let daemon = Daemon::start_in(&data_dir, &[]);
    let error = refused(&daemon, &extract("DTYPE F32 RESUME"), "22023", &["v.vindex"]).await;
    assert!(error.hint.contains("RESUME"), "{}", error.hint);
    daemon.query(&extract("DTYPE F32")).await.expect("without RESUME it starts over");
}

/// Gives this thread mounts of its own and returns a small file system; `None` where the user may not.
fn small_file_system(at: &Path, bytes: u64) -> Option<SmallFileSystem> {
    // SAFETY: unshare takes flags only; the calling thread gets file system state of its own.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    if !unshared {
        return None;
    }
    // SAFETY: the strings are NUL-terminated and outlive the call; source and data may be null here.
    let private = unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    };
    let file_system = SmallFileSystem { at: at.to_owned() };
    (private == 0 && file_system.mount(bytes, 0)).then_some(file_system)
}

/// A tmpfs of this thread and the processes that it starts.
struct SmallFileSystem {
    at: PathBuf,
}

impl SmallFileSystem {
    fn mount(&self, bytes: u64, flags: libc::c_ulong) -> bool {
        let at = CString::new(self.at.as_os_str().as_bytes()).expect("a path");
        let size = CString::new(format!("size={bytes}")).expect("text");
        let kind = c"tmpfs".as_ptr();
        // SAFETY: every string is NUL-terminated and outlives the call.
        unsafe { libc::mount(kind, at.as_ptr(), kind, flags, size.as_ptr().cast()) == 0 }
    }

    fn resize(&self, bytes: u64) {
        assert!(self.mount(bytes, libc::MS_REMOUNT), "remount");
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let at = CString::new(self.at.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the string is NUL-terminated and outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

#[tokio::test]
async fn a_full_disk_stops_extract_with_a_hint_and_resume_completes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let Some(disk) = small_file_system(&small, 4 << 20) else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let expected = undisturbed(directory.path()).await;
    let daemon = Daemon::start_in(&directory.path().join("data"), &[]);
    let destination = small.join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL",
        atlas_checkpoint().display(),
        destination.display()
    );
    for (megabytes, options) in [(4, ""), (6, " RESUME"), (10, " RESUME"), (14, " RESUME")] {
        disk.resize(megabytes << 20);
        let error = refused(&daemon, &format!("{script}{options}"), "53100", &["v.vindex"]).await;
        assert!(error.hint.contains("RESUME"), "{}", error.hint);
        assert!(!destination.exists());
    }
    disk.resize(64 << 20);
    daemon.query(&format!("{script} RESUME")).await.expect("there is room now");
    assert_same_files(&destination, &expected);
    daemon.query("USE \"v\"; INFER \"The capital of France is\"").await.expect("answers");
    drop(daemon);
}

#[tokio::test]
async fn a_full_data_directory_fails_mounts_and_leaves_statements_answering() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let Some(_disk) = small_file_system(&small, 8 << 20) else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let mut daemon = Daemon::start_in(&small, &[]);
    let vindex = directory.path().join("v.vindex");
    daemon.extract(&llama2(), &vindex, "").await;
    let fill = small.join("fill");
    let mut file = File::create(&fill).expect("a file");
    let block = vec![1; 4096];
    while file.write_all(&block).is_ok() {}
    let mut refusals = 0;
    for number in 0..200 {
        let answer = daemon.query(&format!("MOUNT \"{}\" AS m{number}", vindex.display())).await;
        if let Err(error) = answer {
            assert!(["53100", "58030"].contains(&&*error.code), "{error}");
            assert!(!error.hint.is_empty(), "{error}");
            refusals += 1;
        }
    }
    assert!(refusals > 0, "the disk was not full");
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("statements that read go on");
    assert!(!daemon.log().contains("panicked"));
    daemon.kill();
    drop(file);
    fs::remove_file(&fill).expect("removed");
    let daemon = Daemon::start_in(&small, &[]);
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("what was mounted still is");
    assert_well(&daemon).await;
}

// --- mounts ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_file_truncated_while_mounted_fails_its_statements_and_no_others() {
    let daemon = Daemon::start();
    let path = daemon.extract_atlas("WITH INFERENCE").await;
    daemon.extract(&llama2(), &daemon.data_dir().join("other.vindex"), "WITH INFERENCE").await;
    let mut client = daemon.client().await;
    let here = ExecuteOptions::here;
    client.query("USE \"atlas\"; DESCRIBE \"France\"", here()).await.expect("an answer");
    for (name, statement) in [
        ("gate_vectors.bin", "WALK \"France\""),
        ("embeddings.bin", "DESCRIBE \"France\""),
        ("down_features.bin", "INFER \"The capital of France is\""),
        ("attn_weights.bin", "INFER \"The capital of France is\""),
    ] {
        let file = path.join(name);
        let bytes = fs::read(&file).expect("the file");
        let handle = File::options().write(true).open(&file).expect("the file");
        handle.set_len(bytes.len() as u64 / 2).expect("truncated");
        let error = client.query(statement, here()).await.expect_err(name);
        assert_eq!(error.code, "XX001", "{name}: {error}");
        assert!(error.message.contains(name), "{error}");
        assert!(!error.hint.is_empty(), "{error}");
        refused(&daemon, "USE \"atlas\"", "XX001", &[name]).await;
        let other = "USE \"other\"; DESCRIBE \"a\"; INFER \"a\"";
        daemon.query(other).await.expect("the other mount answers");
        // Restored and mounted again, it answers as before, in the session that uses it as well.
        fs::write(&file, &bytes).expect("restored");
        let again =
            format!("UNMOUNT atlas; MOUNT \"{}\"; USE \"atlas\"; {statement}", path.display());
        daemon.query(&again).await.unwrap_or_else(|error| panic!("{again}: {error}"));
        client
            .query(statement, here())
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_file_truncated_under_running_statements_never_kills_the_daemon() {
    let daemon = Daemon::start();
    let path = daemon.extract_atlas("WITH INFERENCE").await;
    let file = path.join("down_features.bin");
    let bytes = fs::read(&file).expect("the file");
    for round in 0..10 {
        let mut client = daemon.client().await;
        let script =
            "USE \"atlas\"; ".to_owned() + &"INFER \"The capital of France is\"; ".repeat(50);
        let answer =
            tokio::spawn(async move { client.query(script, ExecuteOptions::here()).await });
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        File::options().write(true).open(&file).expect("the file").set_len(4096).expect("cut");
        if let Err(error) = timeout(PATIENCE, answer).await.expect("an end").expect("a task") {
            assert_eq!(error.code, "XX001", "{error}");
        }
        assert_well(&daemon).await;
        fs::write(&file, &bytes).expect("restored");
        let again = format!("UNMOUNT atlas; MOUNT \"{}\"", path.display());
        daemon.query(&again).await.expect("mounted again");
    }
}

#[tokio::test]
async fn a_file_truncated_under_a_running_generation_ends_it_and_no_other() {
    let daemon = Daemon::start();
    let size =
        Size { layers: 3, hidden: 256, features: 2048, experts: 0, vocabulary: 600, context: 4096 };
    let checkpoint = daemon.data_dir().join("long");
    random_checkpoint::write(&checkpoint, size, 3);
    let vindex = daemon.data_dir().join("long.vindex");
    daemon.extract(&checkpoint, &vindex, "WITH INFERENCE").await;
    let (client, other) = (daemon.client().await, daemon.extract_atlas("WITH INFERENCE").await);
    let request = |path: &Path, tokens_max| GenerateRequest {
        model: path.display().to_string(),
        prompt: random_checkpoint::prompt(20),
        tokens_max,
        // Its text does not end by itself.
        logit_bias: vec![(2, -100.0)],
        ..GenerateRequest::default()
    };
    for (path, name) in [(&checkpoint, "model.safetensors"), (&vindex, "down_features.bin")] {
        let file = path.join(name);
        let bytes = fs::read(&file).expect("the file");
        let mut generation = client.generate(request(path, 4000)).await.expect("a generation");
        for _ in 0..3 {
            generation.next().await.expect("a token");
        }
        File::options().write(true).open(&file).expect("the file").set_len(4096).expect("cut");
        let error = loop {
            match timeout(PATIENCE, generation.next()).await.expect("an end") {
                Ok(event) => assert!(!matches!(event, None | Some(GenerateEvent::Done(_)))),
                Err(error) => break error,
            }
        };
        assert_call(&error, "XX001", &[name]);
        assert!(!error.hint.is_empty(), "{error:?}");
        assert_well(&daemon).await;
        generate(&client, request(&other, 5)).await.expect("another model goes on");
        // Restored, it answers again.
        fs::write(&file, &bytes).expect("restored");
        assert_eq!(generate(&client, request(path, 5)).await.expect("a generation"), 5);
    }
}

#[tokio::test]
async fn a_mount_whose_directory_vanished_is_shown_and_explained_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let gone = directory.path().join("gone.vindex");
    let stays = directory.path().join("stays.vindex");
    let data_dir = directory.path().join("data");
    let mut daemon = Daemon::start_in(&data_dir, &[]);
    daemon.extract(&llama2(), &gone, "").await;
    daemon.extract(&llama2(), &stays, "").await;
    daemon.kill();
    fs::rename(&gone, directory.path().join("away")).expect("moved");
    let daemon = Daemon::start_in(&data_dir, &[]);
    let mounts = daemon.query("SHOW MOUNTS").await.expect("mounts").remove(0);
    let shown = format!("{:?}", mounts.rows);
    assert!(shown.contains("gone") && shown.contains("unavailable"), "{shown}");
    assert!(shown.contains("stays"), "{shown}");
    refused(&daemon, "USE \"gone\"", "58P01", &["gone.vindex"]).await;
    daemon.query("USE \"stays\"; DESCRIBE \"a\"").await.expect("the other answers");
    fs::rename(directory.path().join("away"), &gone).expect("moved back");
    let script = format!("MOUNT \"{}\"; USE \"gone\"; DESCRIBE \"a\"", gone.display());
    daemon.query(&script).await.expect("it is back");
    assert_well(&daemon).await;
}

// --- the daemon's own start --------------------------------------------------------------------

#[tokio::test]
async fn a_second_daemon_on_one_data_directory_leaves_the_first_alone() {
    let mut daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    let log = does_not_start(daemon.data_dir(), &[]);
    assert!(log.contains("another larqld uses") && log.contains("--data-dir"), "{log}");
    assert!(daemon.is_running());
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("the first answers");
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    daemon.kill();
    assert!(daemon.socket().exists(), "a killed daemon leaves its socket");
    drop(daemon);
    let daemon = Daemon::start_in(directory.path(), &[]);
    assert_well(&daemon).await;
}

#[test]
fn something_else_at_the_sockets_path_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("run/larqld.sock");
    fs::create_dir(directory.path().join("run")).expect("a directory");
    fs::write(&socket, "precious").expect("a file");
    let log = does_not_start(directory.path(), &[]);
    assert!(log.contains("larqld.sock") && log.contains("not a socket"), "{log}");
    assert_eq!(fs::read(&socket).expect("the file"), b"precious");
    fs::remove_file(&socket).expect("removed");
    fs::create_dir(&socket).expect("a directory");
    let log = does_not_start(directory.path(), &[]);
    assert!(log.contains("not a socket"), "{log}");
}

#[test]
fn an_address_beyond_loopback_keeps_the_daemon_from_starting() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7878", "example.com:7878"] {
        let directory = tempfile::tempdir().expect("a directory");
        let log = does_not_start(directory.path(), &["--listen", address]);
        assert!(log.contains("listen"), "{log}");
    }
}

#[test]
fn a_damaged_configuration_keeps_the_daemon_from_starting() {
    for (text, name) in
        [("tread = 3", "tread"), ("threads = -1", "threads"), ("[[[", "larqld.toml")]
    {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("larqld.toml"), text).expect("larqld.toml");
        let log = does_not_start(directory.path(), &[]);
        assert!(log.contains("larqld.toml") && log.contains(name), "{log}");
    }
}

#[tokio::test]
async fn a_damaged_catalog_is_told_and_no_crash() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    daemon.extract(&llama2(), &directory.path().join("v.vindex"), "").await;
    daemon.kill();
    drop(daemon);
    let store = directory.path().join("catalog/db");
    let mut file = File::options().read(true).write(true).open(&store).expect("the store");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the store");
    file.seek(SeekFrom::Start(0)).expect("a place");
    file.write_all(&vec![0xa5; bytes.len().min(1 << 20)]).expect("damaged");
    drop(file);
    // Either the daemon starts without what was lost, or it says what is damaged.
    let mut child = daemon::command(directory.path(), &[]).spawn().expect("larqld starts");
    let socket = directory.path().join("run/larqld.sock");
    let _ = fs::remove_file(&socket);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break Some(status);
        }
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break None;
        }
        assert!(began.elapsed() < PATIENCE, "larqld neither starts nor ends");
        std::thread::sleep(Duration::from_millis(10));
    };
    let _ = child.kill();
    let _ = child.wait();
    let log = fs::read_to_string(directory.path().join("larqld.test.log")).expect("a log");
    if let Some(status) = status {
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("catalog") && log.contains("damaged"), "{log}");
    }
}

// --- statements --------------------------------------------------------------------------------

#[tokio::test]
async fn a_syntax_error_has_a_place_and_a_hint() {
    let daemon = Daemon::start();
    let error = refused(&daemon, "SHOW MOUNTS;\n  DESCRBE \"France\"", "42601", &["DESCRBE"]).await;
    let position = error.position.expect("a position");
    assert_eq!((position.line, position.column, position.length), (2, 3, 7));
    assert_eq!(position.offset, 15);
    assert!(error.hint.contains("DESCRIBE"), "{}", error.hint);
    let error = failure(&daemon, "SELECT * FROM", "42601", &["end"]).await;
    assert_eq!(error.position.expect("a position").offset, 13);
    failure(&daemon, "DESCRIBE \"France", "42601", &[]).await;
    failure(&daemon, "\u{0}\u{1}\u{feff}", "42601", &[]).await;
}

#[tokio::test]
async fn a_statement_of_ten_megabytes_is_refused_fast_and_the_session_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for script in [
        format!("DESCRIBE \"{}\"", "x".repeat(10 << 20)),
        " ".repeat(10 << 20),
        ";".repeat(10 << 20),
        format!("-- {}", "c".repeat(10 << 20)),
    ] {
        let began = Instant::now();
        let error = client.query(script, ExecuteOptions::here()).await.expect_err("a refusal");
        assert_eq!(error.code, "54000", "{error}");
        assert!(!error.hint.is_empty(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        client.query("SHOW MOUNTS", ExecuteOptions::here()).await.expect("the session goes on");
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_nesting_bomb_is_refused() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    for bomb in ["(", "NOT ", "-", "NOT ("] {
        for count in [200, 20_000, 100_000] {
            let script =
                format!("USE \"v\"; SELECT * FROM FEATURES WHERE {}layer = 1", bomb.repeat(count));
            let began = Instant::now();
            let Err(error) = timeout(PATIENCE, daemon.query(&script)).await.expect("in time")
            else {
                panic!("{count} times {bomb:?} succeeded")
            };
            assert!(["54000", "42601"].contains(&&*error.code), "{count} {bomb:?}: {error}");
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert_well(&daemon).await;
        }
    }
    let explains = format!("{}STATS", "EXPLAIN ".repeat(50_000));
    let Err(error) = daemon.query(&explains).await else { panic!("EXPLAIN of EXPLAIN succeeded") };
    assert!(["54000", "0A000", "42601"].contains(&&*error.code), "{error}");
    let chain = format!(
        "USE \"v\"; SELECT * FROM FEATURES WHERE layer = 1{}",
        " OR layer = 2".repeat(20_000)
    );
    if let Err(error) = timeout(PATIENCE, daemon.query(&chain)).await.expect("in time") {
        assert_eq!(error.code, "54000", "{error}");
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_list_of_a_million_terms_is_refused_fast() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    let list = vec!["1"; 1_000_000].join(",");
    let script = format!("USE \"v\"; SELECT * FROM FEATURES WHERE layer IN ({list})");
    let began = Instant::now();
    refused(&daemon, &script, "54000", &[]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let many = "SHOW MOUNTS;".repeat(100_000);
    refused(&daemon, &many, "54000", &[]).await;
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_wherever_it_comes_from() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "WITH INFERENCE").await;
    let long = "a b ".repeat(400);
    refused(&daemon, &format!("USE \"v\"; INFER \"{long}\""), "54000", &["256"]).await;
    refused(&daemon, &format!("USE \"v\"; EXPLAIN INFER \"{long}\""), "54000", &["256"]).await;
    let client = daemon.client().await;
    let logits = |token_ids: Vec<u32>, greedy_tokens| LogitsRequest {
        model: "v".to_owned(),
        token_ids,
        greedy_tokens,
        ..LogitsRequest::default()
    };
    for request in [logits(vec![1; 257], 0), logits(vec![1; 10], 247), logits(vec![1], u32::MAX)] {
        let error = client.logits(request).await.expect_err("a refusal");
        assert_call(&error, "54000", &["256"]);
        assert!(!error.hint.is_empty(), "{error}");
    }
    client.logits(logits(vec![1; 256], 0)).await.expect("a full context");
    let request = GenerateRequest {
        model: "v".to_owned(),
        prompt: long,
        tokens_max: 1,
        ..GenerateRequest::default()
    };
    let error = generate(&client, request.clone()).await.expect_err("a refusal");
    assert_call(&error, "54000", &["256"]);
    // A generation that meets the end of the context ends there.
    let request = GenerateRequest { prompt: "a".to_owned(), tokens_max: 1 << 20, ..request };
    assert!(generate(&client, request).await.expect("an end") <= 256);
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_token_that_is_not_in_the_vocabulary_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (token_ids, code, name) in [
        (vec![1, 512], "22023", "512"),
        (vec![u32::MAX], "22023", "4294967295"),
        (vec![], "22024", "token"),
    ] {
        let request = LogitsRequest {
            model: llama2().display().to_string(),
            token_ids,
            ..LogitsRequest::default()
        };
        let error = client.logits(request).await.expect_err("a refusal");
        assert_call(&error, code, &[name]);
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn options_of_a_generation_that_make_no_sense_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let request = GenerateRequest {
        model: llama2().display().to_string(),
        prompt: "a".to_owned(),
        tokens_max: 4,
        ..GenerateRequest::default()
    };
    for request in [
        GenerateRequest { tokens_max: u32::MAX, ..request.clone() },
        GenerateRequest { temperature: Some(f32::NAN), ..request.clone() },
        GenerateRequest { temperature: Some(-1.0), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_p: Some(2.0), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_p: Some(f32::NAN), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_k: Some(0), ..request.clone() },
        GenerateRequest { stop: vec!["x".to_owned(); 100], ..request.clone() },
        GenerateRequest { stop: vec![String::new()], ..request.clone() },
    ] {
        let error = generate(&client, request.clone()).await;
        let error = error.err().unwrap_or_else(|| panic!("{request:?} succeeded"));
        assert_call(&error, "22023", &[]);
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_with_their_place() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "WITH INFERENCE").await;
    for (statement, code, name) in [
        ("SELECT * FROM FEATURES LIMIT -1", "22003", "LIMIT -1"),
        ("SELECT * FROM FEATURES LIMIT 9223372036854775808", "22003", "9223372036854775808"),
        ("SELECT * FROM FEATURES LIMIT 99999999999999999999999999", "22003", "LIMIT"),
        ("WALK \"a\" TOP 0", "22023", "TOP 0"),
        ("WALK \"a\" TOP -3", "22003", "TOP -3"),
        ("WALK \"a\" TOP 9223372036854775808", "22003", "9223372036854775808"),
        ("INFER \"a\" TOP 0", "22023", "TOP 0"),
        ("INFER \"a\" TOP 9223372036854775808", "22003", "TOP"),
        ("DESCRIBE \"a\" AT LAYER -1", "22003", "layer -1"),
        ("DESCRIBE \"a\" AT LAYER 3", "22023", "layer 3"),
        ("DESCRIBE \"a\" AT LAYER 4294967296", "22003", "4294967296"),
        ("WALK \"a\" LAYERS 1-9", "22023", "9"),
        ("WALK \"a\" LAYERS 2-1", "22023", "2-1"),
        ("SET describe_z = -1", "22023", "describe_z"),
        ("SET describe_z = 1001", "22023", "describe_z"),
        ("SET describe_z = 1e400", "22003", "large"),
        ("SET describe_z = nan", "22023", "describe_z"),
    ] {
        let script = format!("USE \"v\"; {statement}");
        let error = failure(&daemon, &script, code, &[name]).await;
        let position =
            error.position.unwrap_or_else(|| panic!("{statement}: {error} has no place"));
        assert!(position.offset >= 9, "{statement}: {position:?}");
    }
    // The largest counts that are allowed mean "all".
    let script = "USE \"v\"; WALK \"a\" TOP 9223372036854775807; INFER \"a\" TOP 9223372036854775807; \
                  SELECT * FROM FEATURES LIMIT 9223372036854775807; SELECT * FROM FEATURES LIMIT 0";
    let answers = daemon.query(script).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answers[2].rows.len(), 512);
    assert_eq!(answers[1].rows.len(), 3 * 88);
    assert_eq!(answers[4].rows.len(), 0);
    let (_, expected) = (0, 3 * 88);
    assert_eq!(answers[3].rows.len(), expected);
    assert_well(&daemon).await;
}

// --- the protocol ------------------------------------------------------------------------------

type SessionClient = wire::session_client::SessionClient<tonic::transport::Channel>;

async fn connect(daemon: &Daemon) -> SessionClient {
    let endpoint = format!("unix://{}", daemon.socket().display());
    let channel =
        tonic::transport::Endpoint::try_from(endpoint).expect("an address").connect().await;
    SessionClient::new(channel.expect("a connection"))
}

/// Opens a stream and sends those frames.
async fn converse(
    client: &mut SessionClient,
    frames: Vec<Option<client_frame::Frame>>,
) -> (mpsc::UnboundedSender<wire::ClientFrame>, tonic::Streaming<wire::ServerFrame>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    for frame in frames {
        sender.send(wire::ClientFrame { frame }).expect("room");
    }
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let answer = client.open(outgoing).await.expect("a stream").into_inner();
    (sender, answer)
}

fn hello(version_min: u32, version_max: u32) -> Option<client_frame::Frame> {
    let client = "test".to_owned();
    Some(client_frame::Frame::Hello(wire::Hello { version_min, version_max, client }))
}

fn execute(id: u64, script: &str) -> Option<client_frame::Frame> {
    let script = script.to_owned();
    Some(client_frame::Frame::Execute(wire::Execute { id, script, ..wire::Execute::default() }))
}

/// Reads frames until the stream ends; one of them must be a refusal. What a script had answered
/// before it was stopped may come after it.
async fn refusal(mut frames: tonic::Streaming<wire::ServerFrame>) -> wire::Refused {
    let mut refused = None;
    while let Some(frame) =
        timeout(PATIENCE, frames.message()).await.expect("a frame").expect("a frame")
    {
        if let Some(server_frame::Frame::Refused(found)) = frame.frame {
            refused = Some(found);
        }
    }
    refused.expect("a refusal before the end")
}

#[tokio::test]
async fn a_client_of_another_protocol_version_is_refused_with_both_ranges() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    for (oldest, newest) in [(7, 9), (0, 0), (9, 7), (u32::MAX, u32::MAX)] {
        let (_sender, frames) = converse(&mut client, vec![hello(oldest, newest)]).await;
        let refused = refusal(frames).await;
        assert_eq!(refused.code, "08P01");
        let range = format!("{oldest} to {newest}");
        assert!(refused.message.contains(&range), "{}", refused.message);
        assert_eq!((refused.version_min, refused.version_max), (1, 1));
        assert!(!refused.hint.is_empty());
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn frames_out_of_order_end_their_session_and_no_other() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    let cancel = Some(client_frame::Frame::Cancel(wire::Cancel { id: 1 }));
    for frames in [
        vec![execute(1, "SHOW MOUNTS")],
        vec![cancel],
        vec![None],
        vec![hello(1, 1), None],
        vec![hello(1, 1), hello(1, 1)],
        vec![hello(1, 1), execute(1, "SHOW MOUNTS"), None],
    ] {
        let (_sender, answer) = converse(&mut client, frames.clone()).await;
        let refused = refusal(answer).await;
        assert_eq!(refused.code, "08P01", "{frames:?}");
        assert!(!refused.hint.is_empty());
        assert_well(&daemon).await;
    }
}

#[tokio::test]
async fn a_message_beyond_every_limit_ends_its_session_and_no_other() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    let script = "x".repeat(20 << 20);
    let (_sender, mut frames) = converse(&mut client, vec![hello(1, 1), execute(1, &script)]).await;
    let ended = async {
        while let Ok(Some(frame)) = frames.message().await {
            assert!(!matches!(frame.frame, Some(server_frame::Frame::Summary(_))), "{frame:?}");
        }
    };
    timeout(PATIENCE, ended).await.expect("an end");
    assert_well(&daemon).await;
}

#[tokio::test]
async fn bytes_that_are_no_protocol_leave_the_daemon_answering() {
    let (daemon, port) = listening(&[]);
    for bytes in
        [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut stream =
            std::os::unix::net::UnixStream::connect(daemon.socket()).expect("a connection");
        let _ = stream.write_all(bytes);
    }
    assert_well(&daemon).await;
}

/// A daemon that also listens on a loopback port.
fn listening(arguments: &[&str]) -> (Daemon, u16) {
    let daemon = Daemon::start_with(&[&["--listen", "127.0.0.1:0"], arguments].concat());
    let port = port(&daemon);
    (daemon, port)
}

/// The loopback port that the daemon chose.
fn port(daemon: &Daemon) -> u16 {
    let began = Instant::now();
    loop {
        let log = daemon.log();
        // The line is whole when the next one has begun.
        if let Some((_, rest)) = log.split_once("address=127.0.0.1:")
            && let Some((port, _)) = rest.split_once('\n')
        {
            return port.trim().parse().expect("a port");
        }
        assert!(began.elapsed() < PATIENCE, "{log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_caller_over_tcp_may_infer_and_change_nothing() {
    let (daemon, port) = listening(&[]);
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "WITH INFERENCE").await;
    let target = Target::Grpc { host: "127.0.0.1".to_owned(), port };
    let mut client = Client::connect(&target, ConnectOptions::default()).await.expect("a session");
    assert_eq!(client.welcome().role, "infer");
    let path = path.display().to_string();
    for script in [
        format!("EXTRACT MODEL \"{}\" INTO \"{path}2\"", llama2().display()),
        format!("MOUNT \"{path}\" AS w"),
        "UNMOUNT v".to_owned(),
        format!("VERIFY VINDEX \"{path}\""),
        format!("USE \"{path}\""),
        format!("USE MODEL \"{}\"", llama2().display()),
        "USE MODEL \"/etc\"".to_owned(),
    ] {
        let error = client.query(&script, ExecuteOptions::here()).await.expect_err(&script);
        assert_eq!(error.code, "42501", "{script}: {error}");
        assert!(!error.hint.is_empty(), "{script}: {error}");
    }
    let answers = client
        .query("USE \"v\"; DESCRIBE \"a\"; INFER \"a\"; SHOW MOUNTS", ExecuteOptions::here())
        .await;
    let answers = answers.unwrap_or_else(|error| panic!("{error}"));
    assert!(!answers[2].rows.is_empty());
    // Calls that take a path are bound by the same rule.
    let request = LogitsRequest {
        model: llama2().display().to_string(),
        token_ids: vec![1],
        ..LogitsRequest::default()
    };
    let error = client.logits(request).await.expect_err("a refusal");
    assert_call(&error, "42501", &["llama2"]);
    assert_call(&client.unpack_bundled("atlas").await.expect_err("a refusal"), "42501", &["admin"]);
    assert!(!PathBuf::from(format!("{path}2")).exists());
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_a_right_one_is_its_role() {
    let own = tempfile::tempdir().expect("a directory");
    // SHA-256 of "open sesame".
    let digest = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";
    let configuration = format!(
        "listen = ['127.0.0.1:0']\n[[tokens]]\nname = 'ali'\nrole = 'admin'\nsha256 = '{digest}'\n"
    );
    fs::write(own.path().join("larqld.toml"), configuration).expect("larqld.toml");
    let daemon = Daemon::start_in(own.path(), &[]);
    let address = format!("http://127.0.0.1:{}", port(&daemon));
    let endpoint = tonic::transport::Endpoint::try_from(address).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    for (header, role) in [
        ("Bearer open sesame", Some("admin")),
        ("Bearer open sesami", None),
        ("Bearer ", None),
        ("Basic open sesame", None),
        ("", None),
    ] {
        let header: tonic::metadata::MetadataValue<_> = header.parse().expect("a header");
        let mut client = wire::session_client::SessionClient::with_interceptor(
            channel.clone(),
            move |mut request: tonic::Request<()>| {
                request.metadata_mut().insert("authorization", header.clone());
                Ok(request)
            },
        );
        let frames = tokio_stream::once(wire::ClientFrame { frame: hello(1, 1) });
        match (client.open(frames).await, role) {
            (Ok(answer), Some(role)) => {
                let welcome =
                    answer.into_inner().message().await.expect("a frame").expect("a frame");
                let Some(server_frame::Frame::Welcome(welcome)) = welcome.frame else {
                    panic!("{welcome:?}")
                };
                assert_eq!(welcome.role, role);
            }
            (Err(status), None) => {
                assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
                assert!(status.message().contains("28000"), "{status}");
            }
            (answer, _) => panic!("{answer:?}"),
        }
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_parameter_is_refused_rather_than_ignored() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let options = ExecuteOptions { parameters: vec![Value::Integer(1)], ..ExecuteOptions::here() };
    let error = client.query("SHOW MOUNTS", options).await.expect_err("a refusal");
    assert_eq!(error.code, "0A000", "{error}");
    assert!(!error.hint.is_empty(), "{error}");
    assert_well(&daemon).await;
}
