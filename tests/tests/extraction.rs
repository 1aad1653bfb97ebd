//! EXTRACT as a job: the same bytes every time, told as it goes, stopped when asked, remembered when
//! done, in memory that the model's size does not decide.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larql_client::{Event, ExecuteOptions, StatementError, Statements, Value};
use larql_tests::atlas_checkpoint;
use larql_tests::daemon::Daemon;
use larql_tests::files::assert_same_files;
use larql_tests::goldens::Golden;
use larql_tests::random_checkpoint::{self, Size};
use tokio::time::timeout;

/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(120);
/// A model whose extraction takes a second or two.
const MODEL: Size =
    Size { layers: 4, hidden: 256, features: 2048, experts: 0, vocabulary: 4000, context: 64 };

fn llama2() -> PathBuf {
    Golden::load("llama2").path
}

fn extract(source: &Path, destination: &Path, options: &str) -> String {
    format!("EXTRACT MODEL \"{}\" INTO \"{}\" {options}", source.display(), destination.display())
}

async fn next(statements: &mut Statements<'_>) -> Option<Event> {
    timeout(PATIENCE, statements.next()).await.expect("an event in time")
}

/// Reads events until the job reports that stage.
async fn until_stage(statements: &mut Statements<'_>, stage: &str) {
    loop {
        match next(statements).await {
            Some(Event::Progress(progress)) if progress.stage == stage => return,
            Some(Event::Error(error)) => panic!("{error}"),
            Some(_) => {}
            None => panic!("the job ended before {stage}"),
        }
    }
}

/// Reads the rest of the answer; its error, if it failed.
async fn rest(statements: &mut Statements<'_>) -> Option<StatementError> {
    let mut failure = None;
    while let Some(event) = next(statements).await {
        if let Event::Error(error) = event {
            failure = Some(error);
        }
    }
    failure
}

// --- bytes -------------------------------------------------------------------------------------

#[tokio::test]
async fn the_same_source_and_options_give_the_same_bytes_whatever_the_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    for (options, name) in [("WITH ALL", "all"), ("DTYPE F32 LAYERS 1-3", "part")] {
        let mut made = Vec::new();
        for threads in ["1", "2", "2"] {
            let daemon = Daemon::start_with(&["--threads", threads]);
            let path = directory.path().join(format!("{name}-{}.vindex", made.len()));
            daemon.extract(&atlas_checkpoint(), &path, options).await;
            made.push(path);
        }
        for path in &made[1..] {
            assert_same_files(path, &made[0]);
        }
    }
}

#[tokio::test]
async fn quantised_matrices_and_experts_are_the_same_bytes_whatever_the_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let random = directory.path().join("random");
    let experts = Size { layers: 2, hidden: 192, features: 320, experts: 3, ..MODEL };
    random_checkpoint::write(&random, experts, 7);
    let daemons = ["1", "3"].map(|threads| Daemon::start_with(&["--threads", threads]));
    let golden = |name: &str| Golden::load(name).path;
    for (source, options) in [
        (random.clone(), "WITH ALL QUANT Q4K"),
        (random.clone(), "WITH ALL QUANT FP4 DTYPE F32"),
        (random, "WITH INFERENCE QUANT Q8_0"),
        (golden("mixtral"), "WITH ALL"),
        (golden("qwen2_moe"), "WITH ALL QUANT Q4K DOWN Q4K"),
        (golden("gpt_oss_mxfp4"), "WITH ALL DTYPE SOURCE"),
        (golden("deepseek_v3_fp8"), "WITH ALL QUANT FP8"),
    ] {
        let made = [0, 1].map(|at| directory.path().join(format!("{at}.vindex")));
        for (daemon, path) in daemons.iter().zip(&made) {
            daemon.extract(&source, path, &format!("{options} OVERWRITE")).await;
        }
        assert_same_files(&made[1], &made[0]);
    }
}

#[tokio::test]
async fn a_source_at_another_place_gives_the_same_bytes() {
    let daemon = Daemon::start();
    let moved = daemon.data_dir().join("elsewhere/llama2");
    fs::create_dir_all(&moved).expect("a directory");
    for entry in fs::read_dir(llama2()).expect("a checkpoint") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, moved.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let (a, b) = (daemon.data_dir().join("a.vindex"), daemon.data_dir().join("b.vindex"));
    daemon.extract(&llama2(), &a, "WITH ALL").await;
    daemon.extract(&moved, &b, "WITH ALL").await;
    assert_same_files(&a, &b);
}

#[tokio::test]
async fn an_overwritten_vindex_is_replaced_whole_and_seen_at_once() {
    let daemon = Daemon::start();
    let (path, other) = (daemon.data_dir().join("v.vindex"), daemon.data_dir().join("w.vindex"));
    daemon.extract(&llama2(), &path, "").await;
    daemon.extract(&Golden::load("gemma3").path, &other, "WITH INFERENCE").await;
    let mut client = daemon.client().await;
    let here = ExecuteOptions::here;
    let second = format!("MOUNT \"{}\" AS second; USE \"second\"; STATS", path.display());
    let before = client.query(&second, here()).await.expect("an answer");
    daemon.extract(&Golden::load("gemma3").path, &path, "WITH INFERENCE OVERWRITE").await;
    assert_same_files(&path, &other);
    // Under each of its names, and in a session that was using it.
    let after = client.query("STATS; INFER \"a\"", here()).await.expect("an answer");
    assert_ne!(before[2].summary.base_hash, after[0].summary.base_hash);
    for name in ["v", "second"] {
        let answers = daemon.query(&format!("USE \"{name}\"; STATS")).await.expect("an answer");
        assert_eq!(answers[1].summary.base_hash, after[0].summary.base_hash, "{name}");
    }
}

#[tokio::test]
async fn every_level_has_one_base_hash_and_every_type_and_model_another() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    let hash = async |source: &Path, options: &str| {
        let script = extract(source, &path, &format!("{options} OVERWRITE"));
        let answer = daemon.query(&script).await.expect("an extraction").remove(0);
        let hash =
            answer.column("base_hash").expect("a column")[0].as_text().expect("text").to_owned();
        assert_eq!(answer.summary.base_hash, hash);
        let used = daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("an answer").remove(1);
        assert_eq!(used.summary.base_hash, hash, "{options}");
        hash
    };
    let browse = hash(&llama2(), "").await;
    assert_eq!(browse.len(), 64);
    for options in ["WITH ATTENTION", "WITH INFERENCE", "WITH ALL", "DTYPE F16", "LAYERS 0-1"] {
        assert_eq!(hash(&llama2(), options).await, browse, "{options}");
    }
    let mut hashes = vec![browse];
    hashes.push(hash(&llama2(), "DTYPE F32").await);
    hashes.push(hash(&llama2(), "DTYPE SOURCE").await);
    hashes.push(hash(&Golden::load("llama3").path, "").await);
    let changed = daemon.data_dir().join("changed");
    larql_tests::checkpoint::write_rounded_to_f16(&llama2(), &changed);
    let weights = changed.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&weights, bytes).expect("weights");
    hashes.push(hash(&changed, "").await);
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 5, "{hashes:?}");
}

// --- the job -----------------------------------------------------------------------------------

#[tokio::test]
async fn progress_is_told_stage_by_stage_and_never_goes_back() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let script = extract(
        &atlas_checkpoint(),
        &daemon.data_dir().join("v.vindex"),
        "WITH ALL WITHOUT LABELS",
    );
    let mut statements = client.execute(script, ExecuteOptions::here());
    let mut stages: Vec<String> = Vec::new();
    let mut reported = BTreeMap::new();
    while let Some(event) = next(&mut statements).await {
        match event {
            Event::Progress(progress) => {
                if stages.last() != Some(&progress.stage) {
                    stages.push(progress.stage.clone());
                }
                assert!(progress.total == 0 || progress.done <= progress.total, "{progress:?}");
                let (done, count) = reported.entry(progress.stage.clone()).or_insert((0, 0));
                assert!(*done <= progress.done, "{progress:?} after {done}");
                (*done, *count) = (progress.done, *count + 1);
            }
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(stages, ["reading", "weights", "features", "syncing", "indexing"]);
    assert!(reported["weights"].1 > 10 && reported["features"].1 >= 6, "{reported:?}");
}

#[tokio::test]
async fn a_cancelled_extract_stops_promptly_leaves_nothing_that_mounts_and_can_be_resumed() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("model");
    random_checkpoint::write(&source, MODEL, 11);
    let expected = daemon.data_dir().join("expected.vindex");
    daemon.extract(&source, &expected, "WITH ALL").await;
    let destination = daemon.data_dir().join("v.vindex");
    let mut waits = Vec::new();
    for stage in ["reading", "weights", "features"] {
        let mut client = daemon.client().await;
        let script = extract(&source, &destination, "WITH ALL");
        let mut statements = client.execute(script, ExecuteOptions::here());
        until_stage(&mut statements, stage).await;
        let began = Instant::now();
        statements.cancel();
        let error = rest(&mut statements).await.unwrap_or_else(|| panic!("{stage}: it went on"));
        waits.push(began.elapsed());
        drop(statements);
        assert_eq!(error.code, "57014", "{stage}: {error}");
        assert!(!destination.exists(), "{stage}");
        let mounted = client.query("USE \"v\"", ExecuteOptions::here()).await;
        assert_eq!(mounted.expect_err("nothing is mounted").code, "42704", "{stage}");
        let partial = format!("MOUNT \"{}.partial\" AS p", destination.display());
        if let Ok(answers) = client.query(&partial, ExecuteOptions::here()).await {
            panic!("{stage}: {answers:?}");
        }
        daemon.extract(&source, &destination, "WITH ALL RESUME").await;
        assert_same_files(&destination, &expected);
        let unmount = client.query("UNMOUNT v", ExecuteOptions::here()).await;
        unmount.unwrap_or_else(|error| panic!("{error}"));
        fs::remove_dir_all(&destination).expect("removed");
    }
    // Closing the staging files may have to wait for the disk.
    assert!(waits.iter().all(|wait| *wait < Duration::from_secs(5)), "{waits:?}");
    assert!(waits.iter().min().is_some_and(|wait| *wait < Duration::from_millis(500)), "{waits:?}");
    assert!(!daemon.log().contains("panicked"));
}

#[tokio::test]
async fn an_extract_whose_client_vanished_stops_and_can_be_resumed() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("model");
    random_checkpoint::write(&source, MODEL, 11);
    let destination = daemon.data_dir().join("v.vindex");
    let mut client = daemon.client().await;
    let script = extract(&source, &destination, "WITH ALL");
    let mut statements = client.execute(script, ExecuteOptions::here());
    until_stage(&mut statements, "features").await;
    drop(statements);
    drop(client);
    // The lock is free again when the job has ended.
    let began = Instant::now();
    loop {
        let script = extract(&source, &destination, "WITH ALL RESUME");
        match daemon.query(&script).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code, "55006", "{error}"),
        }
        assert!(began.elapsed() < PATIENCE, "the job goes on without its client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answers = daemon.query("USE \"v\"; INFER \"Word5\"").await;
    answers.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_deadline_ends_an_extract() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("model");
    random_checkpoint::write(&source, MODEL, 11);
    let destination = daemon.data_dir().join("v.vindex");
    let mut client = daemon.client().await;
    let options =
        ExecuteOptions { deadline: Some(Duration::from_millis(100)), ..ExecuteOptions::here() };
    let answer = client.query(extract(&source, &destination, "WITH ALL"), options).await;
    let error = answer.expect_err("a deadline");
    assert_eq!(error.code, "57014", "{error}");
    assert!(error.message.contains("deadline"), "{error}");
    assert!(!destination.exists());
}

#[tokio::test]
async fn an_option_that_changes_nothing_is_told() {
    let daemon = Daemon::start();
    let destination = daemon.data_dir().join("v.vindex");
    let script = extract(&llama2(), &destination, "WITHOUT LABELS");
    let answer = daemon.query(&script).await.expect("made").remove(0);
    let told = |text: &str| answer.notices.iter().any(|notice| notice.message.contains(text));
    assert!(told("WITHOUT LABELS changed nothing"), "{:?}", answer.notices);
}

// --- the mount that it makes -------------------------------------------------------------------

#[tokio::test]
async fn the_result_is_mounted_under_its_stem_unless_that_name_is_taken() {
    let daemon = Daemon::start();
    let (first, second) =
        (daemon.data_dir().join("a/little.vindex"), daemon.data_dir().join("b/little.vindex"));
    let answer = daemon.query(&extract(&llama2(), &first, "")).await.expect("made").remove(0);
    assert_eq!(answer.column("name").expect("names")[0], &Value::Text("little".to_owned()));
    daemon.query("USE \"little\"; DESCRIBE \"a\"").await.expect("mounted");
    let answer = daemon.query(&extract(&llama2(), &second, "DTYPE F32")).await;
    let answer = answer.expect("made").remove(0);
    assert_eq!(answer.column("name").expect("names")[0], &Value::Null);
    let notice = answer.notices.first().expect("a notice");
    assert!(
        notice.message.contains("little") && notice.message.contains("a/little.vindex"),
        "{notice:?}"
    );
    assert!(notice.hint.contains("MOUNT"), "{notice:?}");
    let path = first.canonicalize().expect("a path").display().to_string();
    assert_eq!(mounts(&daemon).await.get("little"), Some(&path), "the name stays with the first");
    let script = format!("MOUNT \"{}\" AS big; USE \"big\"", second.display());
    daemon.query(&script).await.expect("the second under another name");
}

/// The names and paths of all mounts.
async fn mounts(daemon: &Daemon) -> BTreeMap<String, String> {
    let answer = daemon.query("SHOW MOUNTS").await.expect("mounts").remove(0);
    let text = |column: &str| -> Vec<String> {
        let values = answer.column(column).unwrap_or_else(|| panic!("no column {column}"));
        values.into_iter().map(|value| value.as_text().expect("text").to_owned()).collect()
    };
    text("name").into_iter().zip(text("path")).collect()
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().join("data");
    let mut expected = BTreeMap::new();
    let shared = directory.path().join("shared.vindex");
    for round in 0..10 {
        let mut daemon = Daemon::start_in(&data_dir, &[]);
        assert_eq!(mounts(&daemon).await, expected, "round {round}");
        let path = match round {
            0 => shared.clone(),
            _ => directory.path().join(format!("v{round}.vindex")),
        };
        let script = match round % 3 {
            0 => {
                let name = path.file_stem().expect("a stem").to_string_lossy().into_owned();
                expected.insert(name, path.display().to_string());
                extract(&llama2(), &path, "")
            }
            1 => {
                expected.insert(format!("m{round}"), shared.display().to_string());
                format!("MOUNT \"{}\" AS m{round}", shared.display())
            }
            _ => {
                let (name, _) = expected.pop_first().expect("a mount");
                format!("UNMOUNT {name}")
            }
        };
        let answer = daemon.query(&script).await;
        // The answer is here, so what it says is on the disk.
        daemon.kill();
        answer.unwrap_or_else(|error| panic!("{script}: {error}"));
    }
    let daemon = Daemon::start_in(&data_dir, &[]);
    assert_eq!(mounts(&daemon).await, expected);
    for name in expected.keys() {
        daemon.query(&format!("USE \"{name}\"; DESCRIBE \"a\"")).await.expect("it answers");
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[tokio::test]
async fn a_kill_at_any_moment_of_mount_and_unmount_leaves_a_catalog_that_opens() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().join("data");
    let path = directory.path().join("v.vindex");
    {
        let mut daemon = Daemon::start_in(&data_dir, &[]);
        daemon.extract(&llama2(), &path, "").await;
        daemon.kill();
    }
    for round in 0..10_u64 {
        let mut daemon = Daemon::start_in(&data_dir, &[]);
        let before = mounts(&daemon).await;
        assert!(before.contains_key("v"), "round {round}: {before:?}");
        assert!(before.keys().all(|name| name == "v" || name == "w"), "{before:?}");
        let mut client = daemon.client().await;
        let script = format!("MOUNT \"{}\" AS w; UNMOUNT w; ", path.display()).repeat(500);
        let mut statements = client.execute(script, ExecuteOptions::here());
        assert!(matches!(next(&mut statements).await, Some(Event::Schema { .. })));
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        daemon.kill();
    }
    let daemon = Daemon::start_in(&data_dir, &[]);
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("it answers");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

// --- memory ------------------------------------------------------------------------------------

/// Threads of the daemons whose memory is watched.
const THREADS: &str = "2";

/// How much anonymous memory an extraction adds at its peak, and the model's size, both in bytes.
async fn peak_of_extract(size: Size, options: &str) -> (u64, u64) {
    let daemon = Daemon::start_with(&["--threads", THREADS]);
    let source = daemon.data_dir().join("model");
    random_checkpoint::write(&source, size, 1);
    let bytes = fs::metadata(source.join("model.safetensors")).expect("weights").len();
    let before = daemon.anonymous_bytes();
    let (peak, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = {
        let (peak, over, pid) = (peak.clone(), over.clone(), daemon.pid());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    daemon.extract(&source, &daemon.data_dir().join("v.vindex"), options).await;
    over.store(true, Ordering::Relaxed);
    watch.join().expect("the watch");
    (peak.load(Ordering::Relaxed).saturating_sub(before), bytes)
}

fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What docs/formats/vindex.md allows.
fn stated_bound(size: Size) -> u64 {
    let threads: usize = THREADS.parse().expect("a number");
    let Size { layers, hidden, features, experts, vocabulary, .. } = size;
    let tensors = 2 + layers * (7 + 3 * experts.max(1));
    let kept = 4000 * hidden + 32 * vocabulary + 512 * features * experts.max(1) + 4096 * tensors;
    let block = (4096 * (5 * hidden + 2048)).saturating_sub(40 << 20);
    ((72 << 20) + block + threads * 2048 * hidden + kept) as u64
}

#[tokio::test]
async fn anonymous_memory_of_extraction_keeps_the_stated_bound_for_models_ten_times_larger() {
    let dense =
        Size { layers: 16, hidden: 1024, features: 8192, experts: 0, vocabulary: 400, context: 64 };
    let experts = Size { features: 1024, experts: 8, ..dense };
    for (size, options) in [(dense, "WITH ALL"), (experts, "WITH ALL QUANT Q4K")] {
        let began = Instant::now();
        let (peak, model) = peak_of_extract(size, options).await;
        let bound = stated_bound(size);
        let mib = |bytes| bytes / (1 << 20);
        println!(
            "{options}: {} MiB at the peak, {} allowed, a model of {} MiB, {:.1} s",
            mib(peak),
            mib(bound),
            mib(model),
            began.elapsed().as_secs_f64()
        );
        assert!(model >= 10 * bound, "{options}: {model} bytes, a bound of {bound}");
        assert!(peak > 1 << 20, "{options}: {peak} bytes: nothing was watched");
        assert!(peak <= bound, "{options}: {peak} bytes at the peak, {bound} allowed");
    }
}

#[tokio::test]
async fn anonymous_memory_of_extraction_does_not_grow_with_layers() {
    let of = |layers| Size { layers, hidden: 512, features: 2048, vocabulary: 2000, ..MODEL };
    let (small, small_model) = peak_of_extract(of(12), "WITH ALL").await;
    let (large, large_model) = peak_of_extract(of(24), "WITH ALL").await;
    // In f32, as it is computed with.
    let layer = 2 * (large_model - small_model) / 12;
    assert!(small > 1 << 20, "{small} bytes: nothing was watched");
    assert!(large < 3 * layer, "{large} bytes at a peak, a layer has {layer}");
    assert!(large < small + layer / 2, "{small} bytes for 12 layers, {large} for 24");
}
