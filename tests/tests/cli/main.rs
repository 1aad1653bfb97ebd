//! The programs as a user runs them: arguments in, exit code, standard output and standard error
//! out, as the contract says.

mod commands;
mod daemon;
mod formats;
mod statements;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larql_client::quote;
use larql_tests::home::{Finished, Home, daemons_of, eventually, finish, finish_child};
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::{atlas_checkpoint, program};
use serde_json::Value as Json;

/// The values of the lines of ndjson, each of which must be one object.
fn objects(text: &str) -> Vec<serde_json::Map<String, Json>> {
    let object = |line| match serde_json::from_str(line) {
        Ok(Json::Object(object)) => object,
        other => panic!("{line:?} is no JSON object: {other:?}"),
    };
    text.lines().map(object).collect()
}

/// The names of an object's members, in the order in which they are written.
fn names(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0, false, false, 0);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => {
                in_string = !in_string;
                if in_string {
                    start = at + 1;
                } else if depth == 1 && line[at + 1..].starts_with(':') {
                    names.push(line[start..at].to_owned());
                }
            }
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    names
}

fn one_object(text: &str) -> Json {
    let json: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(json.is_object(), "{text}");
    json
}

fn interrupt(child: &Child, signal: i32) {
    // SAFETY: kill takes numbers only; the child is not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.expect("the program starts")
}

/// A checkpoint with words of several scripts.
fn write_words_of_every_script(directory: &Path) {
    random_checkpoint::write(directory, Size::FEW_FEATURES, 5);
    let path = directory.join("tokenizer.json");
    let mut tokenizer = std::fs::read_to_string(&path).expect("tokenizer.json");
    for id in 3..Size::FEW_FEATURES.vocabulary {
        let word = ["Zürich", "東京", "Київ", "مدينة"][id % 4];
        tokenizer = tokenizer.replace(&format!("\"Word{id}\""), &format!("\"{word}{id}\""));
    }
    std::fs::write(path, tokenizer).expect("tokenizer.json");
}
