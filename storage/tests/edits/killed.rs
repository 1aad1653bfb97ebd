//! A real process that is killed at random points, while it opens, edits, spills and checkpoints: what it was
//! told is there, is there.
//!
//! `LARQL_CRASH_ROUNDS` says how often (`cargo xtask crash`: 3,000); `LARQL_CRASH_SEED` where randomness begins.

use super::support::*;
use larql_storage::overlay::Slot;
use larql_storage::store::{CheckpointKind, Engine, MAIN, Store};
use larql_storage::wal::INLINE_BYTES_MAX;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const ROUNDS: u64 = 300;
/// Kills of one store before the next.
const ROUNDS_OF_A_STORE: u64 = 30;
const WRITERS: u32 = 4;
/// The longest that a process lives, in microseconds: at least, and at most.
const WINDOW: u64 = 90_000;
const WINDOW_MAX: u64 = 400_000;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn open(directory: &Path) -> Store {
    let files = larql_storage::file::DiskFiles::shared();
    Store::open(&files, directory, BASE, Engine::Sled)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

/// What a writer's fact and its feature say; the same number, or somebody saw half a transaction.
fn written(store: &Store, writer: u32) -> u64 {
    let fact = answer(store, MAIN, &format!("E{writer}"));
    let of_fact = fact.map_or(0, |text| text[1..].parse().unwrap());
    let history = store.history();
    let overlay = history.state().branch(MAIN).unwrap().overlay().clone();
    let feature = overlay.feature(Slot { layer: 0, feature: writer }).cloned();
    let of_feature = feature.map_or(0, |delta| delta.gate.as_ref().unwrap()[0] as u64);
    assert_eq!(of_fact, of_feature, "writer {writer}: half a transaction");
    of_fact
}

#[test]
#[ignore = "the process that is killed by the test below"]
fn writer() {
    let directory =
        PathBuf::from(std::env::var("LARQL_CRASH_STORE").expect("the parent says where"));
    let store = open(&directory);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                for n in written(store, writer) + 1.. {
                    let width = if n % 7 == 0 { INLINE_BYTES_MAX } else { 8 };
                    let fact = knn(&format!("E{writer}"), &format!("T{n}"), width);
                    commit(store, edit(vec![fact, feature(0, writer, n as f32)])).unwrap();
                    // One write of a line to a pipe is not torn.
                    std::io::stderr().write_all(format!("told {writer} {n}\n").as_bytes()).unwrap();
                    if writer == 0 && n % 20 == 0 {
                        store.checkpoint(CheckpointKind::Whole).unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_that_it_was_told() {
    let (rounds, mut random) =
        (number("LARQL_CRASH_ROUNDS", ROUNDS), number("LARQL_CRASH_SEED", 1));
    let (mut told_in_all, mut window) = (0, WINDOW);
    let mut place = tempfile::tempdir().unwrap();
    let mut told: BTreeMap<u32, u64> = BTreeMap::new();
    for round in 0..rounds {
        if round % ROUNDS_OF_A_STORE == 0 {
            place = tempfile::tempdir().unwrap();
            told.clear();
        }
        let directory = place.path().join("edits");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::writer", "--exact", "--ignored", "--nocapture"])
            .env("LARQL_CRASH_STORE", &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let mut told = BTreeMap::new();
            let mut other = String::new();
            for line in lines.map_while(Result::ok) {
                let words: Vec<_> = line.split(' ').collect();
                match words[..] {
                    ["told", writer, n] => {
                        told.insert(writer.parse::<u32>().unwrap(), n.parse::<u64>().unwrap());
                    }
                    _ => other += &line,
                }
            }
            (told, other)
        });
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some are killed while they open, most while they write.
        std::thread::sleep(Duration::from_micros((random >> 33) % window));
        let ended_before = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (now, other) = reader.join().unwrap();
        assert!(ended_before.is_none(), "round {round}: the process ended by itself: {other}");
        told_in_all += now.len();
        // A machine with other things to do takes longer to get to the writing.
        window = if now.is_empty() {
            (window + window / 2).min(WINDOW_MAX)
        } else {
            (window / 2).max(WINDOW)
        };
        told.extend(now);
        let store = open(&directory);
        for (&writer, &n) in &told {
            let found = written(&store, writer);
            assert!(
                found >= n,
                "round {round}: writer {writer} was told {n}, and {found} is there"
            );
        }
    }
    assert!(told_in_all as u64 > rounds / 4, "the processes were killed before they did anything");
}
