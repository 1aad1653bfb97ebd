//! What hostile safetensors checkpoints cost: a fixed factor of their bytes, and no more. That they
//! are refused, and with which words, is in `checkpoint.rs`.

#[path = "support/memory.rs"]
mod memory;

use larql_storage::checkpoint::{Checkpoint, CheckpointError};
use larql_storage::file::{Files, MemoryFiles};
use memory::measured;
use std::path::Path;
use std::sync::Arc;

/// Memory for each byte of the files, the backend's own copy included, and what anything may cost.
const FACTOR: usize = 16;
const FLOOR_BYTES: usize = 16 << 10;

/// Opens a directory with these files, and checks what that held.
fn open(files: &[(&str, &[u8])]) -> Result<Checkpoint, CheckpointError> {
    let memory = MemoryFiles::new();
    for (name, bytes) in files {
        memory.put(&Path::new("/m").join(name), bytes);
    }
    let memory: Arc<dyn Files> = Arc::new(memory);
    let (outcome, held) = measured(|| Checkpoint::open(&memory, Path::new("/m")));
    let length: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(held <= FLOOR_BYTES + FACTOR * length, "{held} bytes held for {length}");
    outcome
}

/// A file from a header's text.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn header_length_is_not_believed_before_the_file_was_looked_at() {
    for length in [0, 100_000_000, 100_000_001, 1 << 40, u64::MAX] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        open(&[("model.safetensors", &bytes)]).unwrap_err();
    }
}

#[test]
fn hundred_thousand_tensors_cost_a_fixed_factor_of_their_header() {
    let entry =
        |n: usize| format!(r#""{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{}]}}"#, n + 1);
    let entries: Vec<_> = (0..100_000).map(entry).collect();
    let bytes = file(&format!("{{{}}}", entries.join(",")), entries.len());
    let checkpoint = open(&[("model.safetensors", &bytes)]).unwrap();
    assert_eq!(checkpoint.tensors().count(), 100_000);
}

#[test]
fn deep_and_endless_json_costs_a_fixed_factor_of_its_text() {
    let (open_brackets, close) = ("[".repeat(200_000), "]".repeat(200_000));
    for header in [
        format!(r#"{{"a":{open_brackets}{close}}}"#),
        format!(r#"{{"a":{{"dtype":"U8","shape":{open_brackets}"#),
        format!(r#"{{"a":{{"dtype":"U8","shape":[{}"#, "1,".repeat(200_000)),
        format!(r#"{{"__metadata__":{{"{}"#, "x".repeat(200_000)),
    ] {
        open(&[("model.safetensors", &file(&header, 0))]).unwrap_err();
    }
    let index = format!(r#"{{"weight_map":{{{}"#, r#""a":"b.safetensors","#.repeat(20_000));
    open(&[("model.safetensors.index.json", index.as_bytes())]).unwrap_err();
}

#[test]
fn index_of_many_entries_costs_a_fixed_factor_of_its_text() {
    let entries: Vec<_> = (0..50_000).map(|n| format!(r#""{n}":"s.safetensors""#)).collect();
    let index = format!(r#"{{"weight_map":{{{}}}}}"#, entries.join(","));
    let shard = file(r#"{"0":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, 0);
    let files = [("model.safetensors.index.json", index.as_bytes()), ("s.safetensors", &shard[..])];
    let text = open(&files).unwrap_err().to_string();
    assert!(text.contains("which has no such tensor"), "{text}");
}
