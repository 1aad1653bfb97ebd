//! What goes wrong outside the daemon fails one statement, names the thing, says what to do, and
//! leaves the daemon answering. Each claim is a test of its own.

mod extract;
mod files;
mod models;
mod mounts;
mod patches;
mod protocol;
mod start;
mod statements;

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
use larql_tests::files::{assert_same_files, contents};
use larql_tests::goldens::Golden;
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::{atlas_checkpoint, checkpoint, repository};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a refusal may take, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

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

async fn generate(client: &Client, request: GenerateRequest) -> Result<u32, CallError> {
    let mut generation = client.generate(request).await?;
    let mut tokens = 0;
    while let Some(event) = generation.next().await? {
        tokens += u32::from(matches!(event, GenerateEvent::Token { .. }));
    }
    Ok(tokens)
}
