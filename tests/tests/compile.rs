//! COMPILE INTO MODEL: what comes out is what went in, and what other programs expect.
//!
//! The checkpoints are the goldens; GGUF files are compared with those that llama.cpp's own package
//! wrote from the same weights. Whether other programs load them is `cargo xtask test --reference`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_client::LogitsRequest;
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::quant::{Dtype, to_f32};
use larql_planner::physical::plan::CompileFormat;
use larql_storage::checkpoint::{Checkpoint, CheckpointKind};
use larql_storage::file::{DiskFiles, Files};
use larql_tests::checkpoint::write_changed;
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larqld::failure::code;
use larqld::pipeline;
use larqld::pipeline::compile::{Options, Origin};
use larqld::source::SourceModel;
use serde_json::Value;

/// GGUF files of the goldens by directory, name of the type, and what COMPILE is asked for.
const CONVERTED: &[(&str, &str, &str)] = &[
    ("llama3", "f16", "F16"),
    ("llama3", "q8_0", "Q8_0"),
    ("llama3", "q4_0", "Q4_0"),
    ("gemma3", "f16", "F16"),
    ("gemma3", "q8_0", "Q8_0"),
    ("gpt2", "f16", "F16"),
    ("gpt2", "q8_0", "Q8_0"),
];

fn golden(name: &str) -> PathBuf {
    repository().join("tests/goldens").join(name)
}

/// Every checkpoint of the goldens, whatever its family and format.
fn checkpoints() -> Vec<String> {
    let entries = fs::read_dir(repository().join("tests/goldens")).expect("the goldens");
    let directories = entries.map(|entry| entry.expect("an entry").path());
    let with_weights = directories.filter(|path| {
        path.join("model.safetensors").exists()
            || path.join("model.safetensors.index.json").exists()
    });
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    with_weights.map(name).collect()
}

/// Shape, type and bytes of every tensor by name.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, String, Vec<u8>)> {
    let files: Arc<dyn Files> = Arc::new(DiskFiles);
    let checkpoint = Checkpoint::open(&files, path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    checkpoint
        .tensors()
        .map(|tensor| {
            let content = (tensor.shape.to_vec(), tensor.format.to_owned(), tensor.bytes.to_vec());
            (tensor.name.to_owned(), content)
        })
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// Compares two models tensor by tensor, with names instead of bytes in the failure.
fn assert_same_tensors(found: &Path, expected: &Path) {
    let (found, expected) = (tensors(found), tensors(expected));
    let names = |tensors: &BTreeMap<String, _>| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, (shape, format, bytes)) in &expected {
        let (found_shape, found_format, found_bytes) = &found[name];
        assert_eq!((found_shape, found_format), (shape, format), "{name}");
        assert!(found_bytes == bytes, "{name} has other bytes");
    }
}

async fn compile(daemon: &Daemon, source: &str, into: &Path, options: &str) {
    let script = format!("{source}; COMPILE CURRENT INTO MODEL \"{}\" {options}", into.display());
    daemon
        .query(&script)
        .await
        .unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint));
}

fn use_model(path: &Path) -> String {
    format!("USE MODEL \"{}\"", path.display())
}

#[tokio::test]
async fn a_checkpoint_comes_back_byte_for_byte() {
    let daemon = Daemon::start();
    for name in checkpoints() {
        let (source, out) = (golden(&name), daemon.data_dir().join(format!("{name}-copy")));
        compile(&daemon, &use_model(&source), &out, "VERIFY").await;
        assert_same_tensors(&out, &source);
        for file in ["config.json", "tokenizer.json", "generation_config.json"] {
            let read = |directory: &Path| fs::read(directory.join(file)).ok();
            assert_eq!(read(&out), read(&source), "{name}/{file}");
        }
    }
}

#[tokio::test]
async fn a_vindex_at_source_precision_gives_the_same_tensors() {
    let daemon = Daemon::start();
    for name in &checkpoints() {
        let source = golden(name);
        let vindex = daemon.data_dir().join(format!("{name}.vindex"));
        daemon.extract(&source, &vindex, "WITH ALL DTYPE SOURCE").await;
        let out = daemon.data_dir().join(format!("{name}-out"));
        compile(&daemon, &format!("USE \"{name}\""), &out, "FORMAT SAFETENSORS VERIFY").await;
        assert_same_tensors(&out, &source);
        assert_eq!(json(&out.join("config.json")), json(&source.join("config.json")), "{name}");
    }
}

/// `config.json` ties embedding and unembedding, and the weights do not.
#[tokio::test]
async fn an_unembedding_of_its_own_survives_a_vindex_whatever_the_configuration_says() {
    let daemon = Daemon::start();
    let (plain, source) = (golden("mistral"), daemon.data_dir().join("contradicted"));
    write_changed(&plain, &source, |_, config| config["tie_word_embeddings"] = true.into());
    let vindex = daemon.data_dir().join("contradicted.vindex");
    daemon.extract(&source, &vindex, "WITH ALL DTYPE SOURCE").await;
    assert_eq!(json(&vindex.join("index.json"))["tied_embeddings"], false);
    let mut answers = Vec::new();
    for model in [&plain, &source, &vindex] {
        let request = LogitsRequest {
            model: model.display().to_string(),
            token_ids: vec![1, 5, 9],
            ..LogitsRequest::default()
        };
        answers.push(daemon.client().await.logits(request).await.expect("logits").logits);
    }
    assert_eq!(answers[0], answers[1]);
    // A vindex keeps down projections the other way around, and sums in another order.
    let pairs = answers[0].iter().zip(&answers[2]);
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-4);
    let out = daemon.data_dir().join("contradicted-out");
    compile(&daemon, "USE \"contradicted\"", &out, "FORMAT SAFETENSORS VERIFY").await;
    assert_same_tensors(&out, &source);
    let gguf = daemon.data_dir().join("contradicted.gguf");
    compile(&daemon, "USE \"contradicted\"", &gguf, "FORMAT GGUF VERIFY").await;
    assert!(tensors(&gguf).contains_key("output.weight"));
}

#[tokio::test]
async fn numbers_of_quantised_weights_get_the_names_and_the_layout_of_plain_ones() {
    let daemon = Daemon::start();
    for name in ["gpt_oss_mxfp4", "deepseek_v3_fp8", "llama3_mlx4"] {
        let (source, out) = (golden(name), daemon.data_dir().join(format!("{name}-plain")));
        compile(&daemon, &use_model(&source), &out, "DTYPE BF16 VERIFY").await;
        for (tensor, (_, format, _)) in &tensors(&out) {
            assert_eq!(format, "BF16", "{name} {tensor}");
            let of_packed = ["_blocks", "_scales", "_scale_inv", ".scales", ".biases"];
            assert!(!of_packed.iter().any(|suffix| tensor.ends_with(suffix)), "{name} {tensor}");
        }
        let config = json(&out.join("config.json"));
        assert!(["quantization_config", "quantization"].iter().all(|key| config[key].is_null()));
    }
    // Experts are turned: a row for each input, gate and up outputs alternating in it.
    let experts = &tensors(&daemon.data_dir().join("gpt_oss_mxfp4-plain"));
    let (shape, _, _) = &experts["model.layers.0.mlp.experts.gate_up_proj"];
    assert_eq!(shape, &[4, 64, 128]);
}

#[tokio::test]
async fn a_vindex_in_f32_gives_the_type_that_the_configuration_names() {
    let daemon = Daemon::start();
    let (source, vindex) = (golden("llama2"), daemon.data_dir().join("wide.vindex"));
    daemon.extract(&source, &vindex, "WITH INFERENCE DTYPE F32").await;
    let out = daemon.data_dir().join("narrow");
    let script = format!("USE \"wide\"; COMPILE CURRENT INTO MODEL \"{}\"", out.display());
    let answers = daemon.query(&script).await.expect("a model");
    let notices = &answers[1].notices;
    let told = |text: &str| notices.iter().any(|notice| notice.message.contains(text));
    assert!(told("rounded from F32 to F16, the type that config.json names"), "{notices:?}");
    // Every number of the source is one of f32, so the way there and back changes nothing.
    assert_same_tensors(&out, &source);
    let wide = daemon.data_dir().join("as-f32");
    let script =
        format!("USE \"wide\"; COMPILE CURRENT INTO MODEL \"{}\" DTYPE F32", wide.display());
    let answers = daemon.query(&script).await.expect("a model");
    assert!(answers[1].notices.is_empty(), "{:?}", answers[1].notices);
    assert!(tensors(&wide).values().all(|(_, format, _)| format == "F32"));
    assert_eq!(json(&wide.join("config.json"))["torch_dtype"], "float32");
}

#[tokio::test]
async fn gguf_has_the_bytes_that_the_reference_writes() {
    let daemon = Daemon::start();
    for (name, variant, dtype) in CONVERTED {
        let source = golden(name);
        let reference = source.join(format!("{name}-{variant}.gguf"));
        let out = daemon.data_dir().join(format!("{name}-{variant}.gguf"));
        let options = format!("FORMAT GGUF DTYPE {dtype} VERIFY");
        compile(&daemon, &use_model(&source), &out, &options).await;
        let (found, expected) = (tensors(&out), tensors(&reference));
        for (tensor, (shape, format, bytes)) in &expected {
            let (found_shape, found_format, found_bytes) =
                found.get(tensor).unwrap_or_else(|| panic!("{name}: no {tensor}"));
            assert_eq!((found_shape, found_format), (shape, format), "{name} {variant} {tensor}");
            // Quantisers may choose other scales; how good ours is has tests of its own.
            let plain = matches!(format.as_str(), "F32" | "F16");
            assert!(
                if plain {
                    near(bytes, found_bytes, format)
                } else {
                    alike(bytes, found_bytes, format)
                },
                "{name} {variant} {tensor} has other numbers"
            );
        }
        assert_eq!(found.len(), expected.len(), "{name} {variant}");
    }
}

/// Whether plain numbers agree to the last bits of `f32`, in which divisors are computed.
fn near(expected: &[u8], found: &[u8], format: &str) -> bool {
    let dtype = Dtype::from_tag(format).expect("a plain type");
    let width = dtype.block().1;
    if expected.len() != found.len() {
        return false;
    }
    let decode = |bytes: &[u8]| {
        let mut values = vec![0.0; bytes.len() / width];
        to_f32(dtype, bytes, &mut values);
        values
    };
    let (expected, found) = (decode(expected), decode(found));
    expected.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs())
}

/// Whether blocks stand for the same numbers, but for what choosing another scale changes: two steps
/// of the largest number of a block, of which Q4_0 has 8 and Q8_0 127 to a side.
fn alike(expected: &[u8], found: &[u8], format: &str) -> bool {
    let dtype = Dtype::from_tag(format).expect("a block type");
    let (numbers, width) = dtype.block();
    let steps = match dtype {
        Dtype::Q8_0 => 127.0,
        Dtype::Q6K => 32.0,
        _ => 8.0,
    };
    if expected.len() != found.len() {
        return false;
    }
    let decode = |bytes: &[u8]| {
        let mut values = vec![0.0; bytes.len() / width * numbers];
        to_f32(dtype, bytes, &mut values);
        values
    };
    let (expected, found) = (decode(expected), decode(found));
    expected.chunks(numbers).zip(found.chunks(numbers)).all(|(expected, found)| {
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        expected.iter().zip(found).all(|(a, b)| (a - b).abs() <= 2.0 / steps * largest)
    })
}

#[tokio::test]
async fn a_gguf_goes_to_gguf_with_its_metadata_and_blocks() {
    let daemon = Daemon::start();
    let files: Arc<dyn Files> = Arc::new(DiskFiles);
    for (name, variant) in [("llama3", "q8_0"), ("llama_k_quants", "q4_k_m"), ("gemma3", "f16")] {
        let source = golden(name).join(format!("{name}-{variant}.gguf"));
        let out = daemon.data_dir().join(format!("{name}-{variant}-again.gguf"));
        compile(&daemon, &use_model(&source), &out, "FORMAT GGUF").await;
        assert_same_tensors(&out, &source);
        let [found, expected] =
            [&out, &source].map(|path| Checkpoint::open(&files, path).expect("a GGUF"));
        let (found, expected) =
            (found.gguf().expect("metadata"), expected.gguf().expect("metadata"));
        for (key, value) in expected.iter().filter(|(key, _)| *key != "general.file_type") {
            assert_eq!(found.get(key), Some(value), "{key}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_and_nothing_is_left() {
    let daemon = Daemon::start();
    let source = golden("llama2");
    let out = daemon.data_dir().join("out");
    let ask = |options: &str| {
        let source = use_model(&source);
        format!("{source}; COMPILE CURRENT INTO MODEL \"{}\" {options}", out.display())
    };
    daemon.query(&ask("")).await.expect("the first time");
    let again = daemon.query(&ask("")).await.expect_err("it exists");
    assert_eq!(again.code, "42P07");
    daemon.query(&ask("OVERWRITE")).await.expect("asked to");
    let quantised = daemon.query(&ask("DTYPE Q4_K")).await.expect_err("not in safetensors");
    assert_eq!(quantised.code, "42601");
    // A vindex without all weights cannot be a model.
    let vindex = daemon.data_dir().join("browse.vindex");
    daemon.extract(&source, &vindex, "").await;
    let part = daemon.data_dir().join("part");
    let script = format!("USE \"browse\"; COMPILE CURRENT INTO MODEL \"{}\"", part.display());
    let missing = daemon.query(&script).await.expect_err("no attention");
    assert_eq!(missing.code, "55000", "{missing}");
    assert!(!part.exists());
}

/// What was written is damaged on the disk before it is read back.
#[test]
fn an_old_model_stays_in_place_when_the_new_one_does_not_verify() {
    let files = DiskFiles::shared();
    let source = SourceModel::open(&files, &golden("llama2")).expect("a checkpoint");
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("model");
    write_changed(&golden("llama2"), &destination, |_, config| config["old"] = true.into());
    let options = Options {
        destination: destination.clone(),
        format: CompileFormat::Safetensors,
        dtype: None,
        overwrite: true,
        verify: true,
    };
    let origin = Origin {
        architecture: source.architecture(),
        weights: &source,
        edited: None,
        names: HashMap::new(),
        types: HashMap::new(),
        packed: HashMap::new(),
        others: Vec::new(),
        source_kind: CheckpointKind::Safetensors,
        at_source_precision: true,
        checkpoint: Some(source.checkpoint()),
        metadata: None,
        side_file: &|name| source.side_file(name),
        name: "llama2".to_owned(),
    };
    let beside = || -> Vec<PathBuf> {
        let entries = fs::read_dir(directory.path()).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.is_dir() && *path != destination).collect()
    };
    let run = |damage: bool| {
        let progress = &mut |stage: &'static str, _, _, _| {
            if damage && stage == "syncing" {
                let weights = beside()[0].join("model/model.safetensors");
                let mut bytes = fs::read(&weights).expect("the new weights");
                *bytes.last_mut().expect("a byte") ^= 1;
                fs::write(&weights, bytes).expect("a file");
            }
            Ok(())
        };
        pipeline::compile::compile(
            &files,
            &Pool::new(1),
            &origin,
            &options,
            &Cancel::new(),
            progress,
            &mut |_| Ok(()),
        )
    };
    let failure = run(true).expect_err("the new model is damaged");
    assert_eq!(failure.code, code::DAMAGED, "{failure}");
    assert!(failure.message.contains("reads other than it was written"), "{failure}");
    assert_eq!(json(&destination.join("config.json"))["old"], true);
    assert_same_tensors(&destination, &golden("llama2"));
    assert!(beside().is_empty(), "{:?} is left", beside());
    run(false).expect("a model");
    assert_same_tensors(&destination, &golden("llama2"));
    assert!(json(&destination.join("config.json"))["old"].is_null() && beside().is_empty());
}
