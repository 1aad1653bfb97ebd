//! The kept inputs of every fuzz target, replayed: each parser refuses or accepts them and keeps what
//! its target claims. `cargo xtask fuzz` looks for new ones.

#[path = "../../fuzz/src/daemon.rs"]
mod daemon;
#[path = "../../fuzz/src/parsers.rs"]
mod parsers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every target with its function.
fn targets() -> impl Iterator<Item = (&'static str, fn(&[u8]))> {
    parsers::TARGETS.iter().chain(daemon::TARGETS).copied()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Names of a folder's entries without their extension.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

#[test]
fn kept_inputs_break_no_parser() {
    for (target, run) in targets() {
        let folder = fuzz().join("corpus").join(target);
        let mut inputs: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let outcome = std::panic::catch_unwind(|| run(&bytes));
            assert!(outcome.is_ok(), "{} breaks {target}", input.display());
        }
    }
}

#[test]
fn kept_inputs_cut_short_break_no_parser() {
    for (target, run) in targets() {
        let folder = fuzz().join("corpus").join(target);
        for entry in folder.read_dir().unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let step = (bytes.len() / 40).max(1);
            for length in (0..bytes.len()).step_by(step) {
                run(&bytes[..length]);
            }
        }
    }
}

#[test]
fn every_target_has_its_program_and_its_inputs() {
    let listed: BTreeSet<String> = targets().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), listed);
    assert_eq!(names(&fuzz().join("corpus")), listed);
}
