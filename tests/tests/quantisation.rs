//! Trips through vindexes of every type: what comes back is exact arithmetic over the numbers that
//! were stored, and what is kept is kept bit for bit.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use larql_client::LogitsRequest;
use larql_compute::model::{Architecture, Naming, TensorSpec};
use larql_compute::quant::Dtype;
use larql_storage::checkpoint::Checkpoint;
use larql_storage::file::DiskFiles;
use larql_tests::daemon::Daemon;
use larql_tests::dequantised::{self, Record};
use larql_tests::goldens::{ids, reals};
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::{atlas_checkpoint, repository};
use serde_json::Value as Json;

/// A checkpoint with what the reference made of it.
struct Source {
    /// The directory, or the GGUF file.
    path: PathBuf,
    golden: Json,
}

impl Source {
    fn name(&self) -> String {
        let stem = self.path.file_stem().expect("a name").to_string_lossy().into_owned();
        if self.is_gguf() { format!("{stem}-gguf") } else { stem }
    }

    fn is_gguf(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "gguf")
    }

    /// The largest difference of a logit that exact arithmetic may show.
    fn tolerance(&self) -> f64 {
        let stability = self.golden["stability_max_logit_change_rel_1e-5"].as_f64().unwrap_or(0.0);
        (0.1 * stability).max(3e-4)
    }

    /// Prompts with the logits that the reference gave.
    fn prompts(&self) -> Vec<(Vec<u32>, Vec<f64>)> {
        let prompts = self.golden["prompts"].as_array().expect("prompts").iter();
        prompts.map(|prompt| (ids(&prompt["input_ids"]), reals(&prompt["last_logits"]))).collect()
    }
}

/// Every golden checkpoint, GGUF files of their own included.
fn sources() -> Vec<Source> {
    let read =
        |path: PathBuf| serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    let mut sources = Vec::new();
    for entry in fs::read_dir(repository().join("tests/goldens")).expect("goldens") {
        let directory = entry.expect("an entry").path();
        if directory.join("golden.json").exists() {
            sources.push(Source {
                golden: read(directory.join("golden.json")),
                path: directory.clone(),
            });
        }
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "gguf") {
                continue;
            }
            let variant = name.rsplit('-').next().expect("a part");
            let golden = directory.join(format!("golden.{variant}.gguf.json"));
            sources.push(Source { golden: read(golden), path });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 25, "{} sources", sources.len());
    sources
}

async fn logits(daemon: &Daemon, model: &Path, token_ids: &[u32]) -> Vec<f32> {
    let request = LogitsRequest {
        model: model.display().to_string(),
        token_ids: token_ids.to_vec(),
        ..LogitsRequest::default()
    };
    let answer = daemon.client().await.logits(request).await;
    answer.unwrap_or_else(|error| panic!("{}: {error} ({})", model.display(), error.hint)).logits
}

fn largest_difference(found: &[f32], expected: impl IntoIterator<Item = f64>) -> f64 {
    let pairs = found.iter().zip(expected);
    pairs.map(|(&found, expected)| (f64::from(found) - expected).abs()).fold(0.0, f64::max)
}

/// Extracts every golden with these options and compares its logits with those of a checkpoint that
/// holds the vindex's own numbers in f32.
async fn assert_exact_over_stored_numbers(options: &str) {
    let daemon = Daemon::start();
    for source in sources() {
        let vindex = daemon.data_dir().join(format!("{}.vindex", source.name()));
        let plain = daemon.data_dir().join(format!("{}-plain", source.name()));
        daemon.extract(&source.path, &vindex, &format!("WITH INFERENCE {options}")).await;
        dequantised::write_checkpoint_of(&vindex, &plain);
        for (index, (prompt, _)) in source.prompts().iter().enumerate() {
            let found = logits(&daemon, &vindex, prompt).await;
            let expected = logits(&daemon, &plain, prompt).await;
            let difference = largest_difference(&found, expected.iter().copied().map(f64::from));
            assert!(
                difference <= source.tolerance(),
                "{} {options}: prompt {index} is off by {difference:e}",
                source.name()
            );
        }
    }
}

#[tokio::test]
async fn an_f16_vindex_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("DTYPE F16").await;
}

#[tokio::test]
async fn a_q4k_vindex_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("QUANT Q4K").await;
}

#[tokio::test]
async fn a_q4k_vindex_with_q4k_down_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("QUANT Q4K DOWN Q4K").await;
}

#[tokio::test]
async fn a_q8_0_vindex_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("QUANT Q8_0").await;
}

#[tokio::test]
async fn an_fp4_vindex_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("QUANT FP4").await;
}

#[tokio::test]
async fn an_fp8_vindex_of_every_golden_computes_what_its_numbers_make() {
    assert_exact_over_stored_numbers("QUANT FP8 DTYPE SOURCE").await;
}

/// Nothing is lost on these trips, so the reference itself is the oracle.
#[tokio::test]
async fn a_vindex_of_every_golden_in_f32_or_as_stored_equals_the_reference() {
    let daemon = Daemon::start();
    for source in sources() {
        for dtype in ["F32", "SOURCE"] {
            let vindex = daemon.data_dir().join(format!("{}-{dtype}.vindex", source.name()));
            daemon.extract(&source.path, &vindex, &format!("WITH ALL DTYPE {dtype}")).await;
            for (index, (prompt, expected)) in source.prompts().into_iter().enumerate() {
                let found = logits(&daemon, &vindex, &prompt).await;
                let difference = largest_difference(&found, expected);
                assert!(
                    difference <= source.tolerance(),
                    "{} {dtype}: prompt {index} is off by {difference:e}",
                    source.name()
                );
            }
        }
    }
}

// --- bytes -------------------------------------------------------------------------------------

fn of_role<'a>(records: impl IntoIterator<Item = &'a Record>, role: &str) -> Vec<&'a Record> {
    records.into_iter().filter(|record| record.key().0 == role).collect()
}

#[tokio::test]
async fn a_quantised_vindex_has_the_block_formats_of_its_table() {
    let daemon = Daemon::start();
    for (options, gate, down, value, embedding) in [
        ("QUANT Q4K", "q4_k", "q6_k", "q6_k", "q6_k"),
        ("QUANT Q4K DOWN Q4K", "q4_k", "q4_k", "q6_k", "q6_k"),
        ("QUANT Q8_0", "q8_0", "q8_0", "q8_0", "q8_0"),
        ("QUANT FP4", "fp4", "fp8", "f16", "f16"),
        ("QUANT FP8 DTYPE F32", "fp8", "fp8", "f32", "f32"),
    ] {
        let path = daemon.data_dir().join("v.vindex");
        daemon.extract(&atlas_checkpoint(), &path, &format!("WITH ALL OVERWRITE {options}")).await;
        let records = dequantised::records(&path);
        for (role, expected) in [
            ("gate", gate),
            ("up", gate),
            ("down", down),
            ("attention_value", value),
            ("embedding", embedding),
            ("attention_norm", "bf16"),
        ] {
            let found = of_role(records.values(), role);
            assert!(!found.is_empty(), "{options}: no {role}");
            for record in found {
                assert_eq!(record.dtype(), expected, "{options}: {}", record.entry);
            }
        }
        assert!(!records.keys().any(|(role, ..)| role == "unembedding"), "{options}: stored twice");
        for record in of_role(records.values(), "down") {
            assert_eq!(record.shape(), [1024, 256], "{options}: a row for each feature");
        }
    }
}

/// What a `q4k` vindex takes for a weight of a bf16 source, from its shape `[outputs, inputs]` alone.
fn q4k_bytes(role: &str, shape: &[usize]) -> usize {
    let blocks = |rows: usize, columns: usize| rows * columns.div_ceil(256);
    match (role, shape) {
        (
            "gate" | "up" | "attention_query" | "attention_key" | "attention_output",
            &[rows, columns],
        ) => blocks(rows, columns) * 144,
        ("attention_value" | "embedding", &[rows, columns]) => blocks(rows, columns) * 210,
        // A row for each feature.
        ("down", &[outputs, features]) => blocks(features, outputs) * 210,
        ("router", &[rows, columns]) => rows * columns * 2,
        (_, &[length]) => length * 2,
        _ => panic!("{role} {shape:?} is in no q4k vindex"),
    }
}

#[tokio::test]
async fn a_q4k_vindex_stores_each_matrix_once_and_in_one_precision() {
    let daemon = Daemon::start();
    let random = daemon.data_dir().join("random");
    let size = Size { layers: 2, hidden: 192, features: 320, experts: 3, ..Size::FEW_FEATURES };
    random_checkpoint::write(&random, size, 5);
    for source in [atlas_checkpoint(), random] {
        let path = daemon.data_dir().join("v.vindex");
        daemon.extract(&source, &path, "WITH INFERENCE QUANT Q4K OVERWRITE").await;
        let records = dequantised::records(&path);
        let config = fs::read_to_string(source.join("config.json")).expect("config.json");
        let architecture = Architecture::from_config(&config).expect("a family");
        let mut expected = 0;
        let mut count = 0;
        for TensorSpec { key, shape, .. } in architecture.tensors(Naming::Hub) {
            let role = key.role.as_str();
            // Tied: the embedding serves.
            if role == "unembedding" {
                continue;
            }
            let place = (role.to_owned(), key.layer.map(u64::from), key.expert.map(u64::from));
            let record = records.get(&place).unwrap_or_else(|| panic!("no {key}"));
            assert_eq!(record.bytes.len(), q4k_bytes(role, &shape), "{key}");
            expected += record.bytes.len();
            count += 1;
        }
        assert_eq!(records.len(), count, "something is stored beside the model's weights");
        let files: HashSet<&str> = records.values().map(|record| record.file.as_str()).collect();
        let tables = ["down_meta.bin", "gate_meta.bin"];
        let mut on_disk = 0;
        for entry in fs::read_dir(&path).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".bin") && !tables.contains(&name.as_str()) {
                assert!(files.contains(name.as_str()), "{name} holds no tensor");
                on_disk += entry.metadata().expect("metadata").len() as usize;
            }
        }
        let padding = 64 * count;
        assert!((expected..=expected + padding).contains(&on_disk), "{on_disk} for {expected}");
    }
}

#[tokio::test]
async fn rows_that_are_no_whole_blocks_are_padded_and_say_so() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    let source = repository().join("tests/goldens/llama2");
    daemon.extract(&source, &path, "WITH ALL QUANT Q4K").await;
    let mut padded = 0;
    for record in dequantised::records(&path).values() {
        let dtype = Dtype::from_tag(record.dtype()).expect("a type");
        let (shape, block) = (record.shape(), dtype.block().0);
        let columns = *shape.last().expect("a dimension");
        let whole = columns.next_multiple_of(block);
        let said = record.entry["columns_padded"].as_u64();
        assert_eq!(said, (whole > columns).then_some(whole as u64), "{}", record.entry);
        let rows = if shape.len() == 2 { shape[0] } else { 1 };
        assert_eq!(record.bytes.len(), rows * dtype.bytes_for(whole).expect("bytes"));
        padded += usize::from(whole > columns);
    }
    assert!(padded > 10, "{padded} padded tensors");
}

/// What is kept as stored is kept to the bit: the rows of the source's tensors in some order.
#[tokio::test]
async fn a_source_vindex_keeps_the_bytes_of_quantised_checkpoints() {
    let daemon = Daemon::start();
    for (name, types) in [
        ("gpt_oss_mxfp4", &["e2m1", "e8m0"][..]),
        ("deepseek_v3_fp8", &["f8_e4m3", "f32"]),
        ("llama3_mlx4", &["u4", "f16"]),
        ("qwen2_mlx8", &["u8"]),
        ("llama_k_quants/llama_k_quants-q4_k_m.gguf", &["q4_k", "q5_k", "q6_k"]),
        ("llama3/llama3-q4_0.gguf", &["q4_0"]),
    ] {
        let source = repository().join("tests/goldens").join(name);
        let path = daemon.data_dir().join("v.vindex");
        daemon.extract(&source, &path, "WITH ALL DTYPE SOURCE OVERWRITE").await;
        let checkpoint = Checkpoint::open(&DiskFiles::shared(), &source).expect("a checkpoint");
        let tensors: HashMap<&str, &[u8]> =
            checkpoint.tensors().map(|tensor| (tensor.name, tensor.bytes)).collect();
        let records = dequantised::records(&path);
        for expected in types {
            assert!(
                records.values().any(|record| record.dtype() == *expected),
                "{name}: {expected}"
            );
        }
        for record in records.values().filter(|record| record.entry["scales"].is_object()) {
            assert!(rows_are_of(record, tensors[record.name()]), "{name}: {}", record.entry);
        }
        for record in records.values() {
            let dtype = Dtype::from_tag(record.dtype());
            if dtype.is_none_or(|dtype| dtype.block().0 > 1 && dtype.block().0 <= 256) {
                assert!(rows_are_of(record, tensors[record.name()]), "{name}: {}", record.entry);
            }
        }
    }
}

/// Whether each row of a record is somewhere in those bytes, at a multiple of its length.
fn rows_are_of(record: &Record, bytes: &[u8]) -> bool {
    let rows = record.shape()[0];
    let length = record.bytes.len() / rows;
    let known: HashSet<&[u8]> = bytes.chunks_exact(length).collect();
    record.bytes.chunks_exact(length).all(|row| known.contains(row))
}

#[tokio::test]
async fn every_tensor_of_every_golden_is_accounted_for_at_the_level_all() {
    let daemon = Daemon::start();
    for source in sources() {
        let path = daemon.data_dir().join("v.vindex");
        daemon.extract(&source.path, &path, "WITH ALL DTYPE SOURCE OVERWRITE").await;
        let records = dequantised::records(&path);
        let names: HashSet<&str> = records.values().map(Record::name).collect();
        let checkpoint =
            Checkpoint::open(&DiskFiles::shared(), &source.path).expect("a checkpoint");
        for tensor in checkpoint.tensors() {
            // Latent values that a GGUF keeps beside their keys are stored with them, as one.
            let keys = tensor.name.replace("attn_v_b.", "attn_k_b.");
            let kept = names.contains(tensor.name) || names.contains(keys.as_str());
            assert!(kept, "{}: {} is lost", source.name(), tensor.name);
        }
    }
}
