//! What the writers write, the readers and the libraries of others read back to the byte; a failure
//! leaves the destination as it was.

mod support;

use larql_storage::checkpoint::gguf::{GgufMetadataBuilder, Value};
use larql_storage::checkpoint::{
    Checkpoint, CheckpointKind, CheckpointWriteError, GgufWriter, ModelStaging,
    SHARD_BYTES_DEFAULT, SafetensorsWriter, TensorDescription,
};
use larql_storage::file::{DiskFiles, Fault, FaultyFiles, Files, MemoryFiles};
use larql_storage::vindex::Checksum;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::RawGguf;

const DESTINATION: &str = "/out/m";
const PT: &[(&str, &str)] = &[("format", "pt")];

fn description(name: &str, format: &str, shape: &[usize]) -> TensorDescription {
    TensorDescription { name: name.into(), format: format.into(), shape: shape.to_vec() }
}

/// The tensors of a checkpoint in the order of their bytes.
fn in_place_order(checkpoint: &Checkpoint) -> Vec<TensorDescription> {
    let mut tensors: Vec<_> = checkpoint.tensors().collect();
    tensors.sort_by_key(|tensor| tensor.bytes.as_ptr());
    tensors.iter().map(|tensor| description(tensor.name, tensor.format, tensor.shape)).collect()
}

/// Writes the tensors of `source` again as safetensors.
fn copy_safetensors(
    staging: &mut ModelStaging,
    source: &Checkpoint,
    metadata: &[(&str, &str)],
    shard_bytes_max: u64,
) -> Result<(), CheckpointWriteError> {
    let tensors = in_place_order(source);
    let mut writer = SafetensorsWriter::create(staging, tensors, metadata, shard_bytes_max)?;
    for name in writer.order().map(str::to_owned).collect::<Vec<_>>() {
        let bytes = source.tensor(&name).unwrap().bytes;
        writer.tensor(&name, &mut |out| out.write_all(bytes))?;
    }
    writer.finish()
}

/// Writes the tensors of `source` again as GGUF.
fn copy_gguf(
    staging: &mut ModelStaging,
    name: &str,
    source: &Checkpoint,
) -> Result<(), CheckpointWriteError> {
    let tensors = in_place_order(source);
    let mut writer = GgufWriter::create(staging, name, source.gguf().unwrap(), &tensors)?;
    for tensor in &tensors {
        let bytes = source.tensor(&tensor.name).unwrap().bytes;
        // In pieces, as a stream would come.
        writer.tensor(&tensor.name, &mut |out| {
            bytes.chunks(100).try_for_each(|piece| out.write_all(piece))
        })?;
    }
    writer.finish()
}

fn memory() -> Arc<dyn Files> {
    let memory = MemoryFiles::new();
    memory.create_dir_all(Path::new("/out")).unwrap();
    Arc::new(memory)
}

fn read(files: &Arc<dyn Files>, path: &str) -> Vec<u8> {
    files.read(Path::new(path), u64::MAX).unwrap()
}

/// Every entry below a directory of the memory backend.
fn listing(files: &Arc<dyn Files>, directory: &str) -> Vec<String> {
    let names = files.list(Path::new(directory)).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// The directories with reference outputs, where the checkout has them.
fn goldens() -> Vec<PathBuf> {
    let root = std::env::var_os("LARQL_GOLDENS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens"),
        PathBuf::from,
    );
    let mut found: Vec<_> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no golden checkpoint in {}", root.display());
    found
}

#[test]
fn every_golden_checkpoint_is_written_again_byte_for_byte() {
    let files = DiskFiles::shared();
    let scratch = tempfile::tempdir().unwrap();
    let mut rewritten = 0;
    for golden in goldens() {
        let mut names: Vec<_> = std::fs::read_dir(&golden)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        for name in names {
            let (from, to) = (golden.join(&name), scratch.path().join(&name));
            if name.ends_with(".safetensors") {
                let source = Checkpoint::open(&files, &from).unwrap();
                // The library that wrote it is the file's own metadata.
                let head = String::from_utf8_lossy(&source.weight_files().next().unwrap().1[..80])
                    .into_owned();
                let maker = if head.contains(r#""format":"mlx""#) { "mlx" } else { "pt" };
                let mut staging = ModelStaging::file(&files, &to, true).unwrap();
                copy_safetensors(&mut staging, &source, &[("format", maker)], u64::MAX).unwrap();
                staging.finish().unwrap();
                if maker == "mlx" {
                    // MLX writes its headers in another order; the content is the same.
                    let copy = Checkpoint::open(&files, &to).unwrap();
                    assert!(copy.tensors().eq(source.tensors()), "{}", from.display());
                } else {
                    assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "{name}");
                }
            } else if name.ends_with(".gguf") {
                let source = Checkpoint::open(&files, &from).unwrap();
                let mut staging = ModelStaging::file(&files, &to, true).unwrap();
                copy_gguf(&mut staging, &name, &source).unwrap();
                staging.finish().unwrap();
                assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap(), "{name}");
            } else {
                continue;
            }
            rewritten += 1;
        }
    }
    assert!(rewritten > 0);
    let left = std::fs::read_dir(scratch.path()).unwrap();
    assert!(left.into_iter().all(|entry| !entry.unwrap().path().is_dir()), "staging stayed behind");
}

#[test]
fn header_is_that_of_the_reference_crate() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let data: Vec<u8> = (0..24).collect();
    let views = [
        ("z.wide", TensorView::new(Dtype::F32, vec![3, 2], &data).unwrap()),
        ("a\"quoted", TensorView::new(Dtype::F8_E4M3, vec![24], &data).unwrap()),
        ("empty", TensorView::new(Dtype::BF16, vec![0, 2], &[]).unwrap()),
        ("m", TensorView::new(Dtype::F16, vec![12], &data).unwrap()),
    ];
    let expected = serialize(views, Some([("format".into(), "pt".into())].into())).unwrap();
    let files = memory();
    let mut staging = ModelStaging::directory(&files, Path::new(DESTINATION), false).unwrap();
    let tensors = vec![
        description("m", "F16", &[12]),
        description("empty", "BF16", &[0, 2]),
        description("a\"quoted", "F8_E4M3", &[24]),
        description("z.wide", "F32", &[3, 2]),
    ];
    let mut writer =
        SafetensorsWriter::create(&mut staging, tensors, PT, SHARD_BYTES_DEFAULT).unwrap();
    let order: Vec<_> = writer.order().map(str::to_owned).collect();
    assert_eq!(order, ["z.wide", "empty", "m", "a\"quoted"]);
    for name in &order {
        let bytes = if name == "empty" { &[][..] } else { &data };
        writer.tensor(name, &mut |out| out.write_all(bytes)).unwrap();
    }
    writer.finish().unwrap();
    staging.side_file("config.json", b"{}").unwrap();
    staging.finish().unwrap();
    assert_eq!(read(&files, "/out/m/model.safetensors"), expected);
    assert_eq!(listing(&files, DESTINATION), ["config.json", "model.safetensors"]);
    assert_eq!(listing(&files, "/out"), ["m"]);
}

#[test]
fn shards_are_filled_in_order_and_listed_in_an_index() {
    let files = memory();
    let mut staging = ModelStaging::directory(&files, Path::new(DESTINATION), false).unwrap();
    let sizes = [("d", 40), ("c", 60), ("b", 1), ("a", 500), ("e", 1)];
    let tensors = sizes.map(|(name, size)| description(name, "U8", &[size])).to_vec();
    let mut writer = SafetensorsWriter::create(&mut staging, tensors, PT, 100).unwrap();
    for name in writer.order().map(str::to_owned).collect::<Vec<_>>() {
        let size = sizes.iter().find(|(other, _)| *other == name).unwrap().1;
        writer.tensor(&name, &mut |out| out.write_all(&vec![name.as_bytes()[0]; size])).unwrap();
    }
    writer.finish().unwrap();
    staging.finish().unwrap();
    let checkpoint = Checkpoint::open(&files, Path::new(DESTINATION)).unwrap();
    assert_eq!(checkpoint.kind(), CheckpointKind::Safetensors);
    let names: Vec<_> = checkpoint.weight_files().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        (1..=4).map(|n| format!("model-{n:05}-of-00004.safetensors")).collect::<Vec<_>>()
    );
    for (name, size) in sizes {
        assert_eq!(checkpoint.tensor(name).unwrap().bytes, vec![name.as_bytes()[0]; size]);
    }
    let index = read(&files, "/out/m/model.safetensors.index.json");
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 602);
    assert_eq!(index["weight_map"]["d"], "model-00001-of-00004.safetensors");
    assert_eq!(index["weight_map"]["a"], "model-00003-of-00004.safetensors");
}

#[test]
fn gguf_is_written_with_its_metadata_and_alignment() {
    let mut builder = GgufMetadataBuilder::new();
    builder.text("general.architecture", "llama").value("general.alignment", Value::U32(128));
    builder.array("tokenizer.ggml.tokens", [&b"a"[..], b"\xff"].map(Value::String));
    builder.array("tokenizer.ggml.merges", []);
    let metadata = builder.finish().unwrap();
    let tensors = [description("x", "Q8_0", &[2, 32]), description("y", "F32", &[3])];
    let files = memory();
    let path = Path::new("/out/m.gguf");
    let mut staging = ModelStaging::file(&files, path, false).unwrap();
    assert_eq!(staging.single_name(), Some("m.gguf"));
    let mut writer = GgufWriter::create(&mut staging, "m.gguf", &metadata, &tensors).unwrap();
    writer.tensor("x", &mut |out| out.write_all(&[7; 68])).unwrap();
    writer.tensor("y", &mut |out| out.write_all(&[8; 12])).unwrap();
    writer.finish().unwrap();
    staging.finish().unwrap();
    let checkpoint = Checkpoint::open(&files, path).unwrap();
    let (x, y) = (checkpoint.tensor("x").unwrap(), checkpoint.tensor("y").unwrap());
    assert_eq!((x.format, x.shape, x.bytes), ("Q8_0", &[2, 32][..], &[7; 68][..]));
    assert_eq!((y.format, y.shape, y.bytes), ("F32", &[3][..], &[8; 12][..]));
    let file = checkpoint.weight_files().next().unwrap().1;
    for bytes in [x.bytes, y.bytes] {
        assert_eq!((bytes.as_ptr() as usize - file.as_ptr() as usize) % 128, 0);
    }
    assert_eq!(file.len() % 128, 0);
    assert!(checkpoint.gguf().unwrap().iter().eq(metadata.iter()));
}

#[test]
fn metadata_survives_as_a_file_of_its_own_and_can_be_built_upon() {
    let sample = GgufMetadataBuilder::default().finish().unwrap();
    assert!(sample.is_empty());
    let file = RawGguf::sample().build();
    let metadata = larql_storage::checkpoint::GgufMetadata::from_file(file).unwrap();
    let again = larql_storage::checkpoint::GgufMetadata::from_file(metadata.to_file()).unwrap();
    assert!(again.iter().eq(metadata.iter()));
    let mut builder = GgufMetadataBuilder::new();
    builder.extend(&metadata, |key| !key.starts_with("tokenizer.")).text("extra", "x");
    let built = builder.finish().unwrap();
    assert_eq!((built.len(), built.get("extra")), (5, Some(Value::String(b"x"))));
    let mut twice = GgufMetadataBuilder::new();
    twice.text("a", "1").text("a", "2");
    assert!(twice.finish().unwrap_err().contains("\"a\" twice"));
}

#[test]
fn tensors_that_a_format_cannot_hold_are_refused_before_anything_is_written() {
    let files = memory();
    let mut staging = ModelStaging::directory(&files, Path::new(DESTINATION), false).unwrap();
    let metadata = GgufMetadataBuilder::new().finish().unwrap();
    let mut safetensors = |tensors: &[TensorDescription]| {
        let created = SafetensorsWriter::create(&mut staging, tensors.to_vec(), PT, 100);
        created.unwrap_err().to_string()
    };
    assert!(safetensors(&[description("t", "Q4_K", &[256])]).contains("Q4_K"));
    assert!(safetensors(&[description("t", "F32", &[usize::MAX, 8])]).contains("overflows"));
    assert!(safetensors(&[description("__metadata__", "F32", &[1])]).contains("keeps this name"));
    let twins = [description("t", "F32", &[1]), description("t", "F16", &[1])];
    assert!(safetensors(&twins).contains("another tensor"));
    let mut gguf = |tensors: &[TensorDescription]| {
        GgufWriter::create(&mut staging, "m.gguf", &metadata, tensors).unwrap_err().to_string()
    };
    assert!(gguf(&[description("t", "Q4_K", &[4, 255])]).contains("whole Q4_K blocks"));
    assert!(gguf(&[description("t", "F8_E4M3", &[4])]).contains("no element type"));
    assert!(gguf(&[description(&"t".repeat(64), "F32", &[4])]).contains("64 bytes"));
    assert!(gguf(&[description("t", "F32", &[1; 5])]).contains("5 dimensions"));
    assert!(gguf(&twins).contains("another tensor"));
    drop(staging);
    assert!(listing(&files, "/out").is_empty());
}

#[test]
fn tensors_out_of_order_or_of_another_length_are_refused() {
    let files = memory();
    let tensors = || vec![description("a", "U8", &[4]), description("b", "U8", &[4])];
    let attempt = |run: &dyn Fn(&mut SafetensorsWriter<'_>) -> Result<(), CheckpointWriteError>| {
        let mut staging = ModelStaging::directory(&files, Path::new(DESTINATION), false).unwrap();
        let mut writer = SafetensorsWriter::create(&mut staging, tensors(), PT, 100).unwrap();
        let error = match run(&mut writer) {
            Ok(()) => writer.finish().unwrap_err(),
            Err(error) => error,
        };
        // Whoever goes on regardless does not get half a model.
        assert!(matches!(staging.finish(), Err(CheckpointWriteError::Order { .. })));
        assert!(listing(&files, "/out").is_empty());
        error.to_string()
    };
    let text = attempt(&|writer| writer.tensor("b", &mut |out| out.write_all(&[0; 4])));
    assert_eq!(text, "tensor \"b\" was written where tensor \"a\" was to come");
    let text = attempt(&|writer| writer.tensor("a", &mut |out| out.write_all(&[0; 3])));
    assert_eq!(text, "tensor \"a\" takes 4 bytes, 3 were written");
    let text = attempt(&|writer| writer.tensor("a", &mut |out| out.write_all(&[0; 5])));
    assert_eq!(text, "tensor \"a\" takes 4 bytes, 1 were written");
    let text = attempt(&|writer| writer.tensor("a", &mut |out| out.write_all(&[0; 4])));
    assert_eq!(text, "the end was written where tensor \"b\" was to come");
}

#[test]
fn existing_models_are_replaced_whole_when_asked_and_anything_else_never() {
    let tree = MemoryFiles::new();
    tree.put(Path::new("/out/m/config.json"), b"old");
    tree.put(Path::new("/out/m/old.safetensors"), b"old");
    tree.put(Path::new("/out/photos/cat.png"), b"meow");
    tree.put(Path::new("/out/m2.partial/thesis.txt"), b"words");
    tree.put(Path::new("/src/m.gguf"), &RawGguf::sample().build());
    let files: Arc<dyn Files> = Arc::new(tree);
    let destination = Path::new(DESTINATION);
    let error = ModelStaging::directory(&files, destination, false).unwrap_err();
    assert!(matches!(error, CheckpointWriteError::DestinationExists { .. }), "{error}");
    let error = ModelStaging::directory(&files, Path::new("/out/photos"), true).unwrap_err();
    assert!(matches!(error, CheckpointWriteError::DestinationIsNotAModel { .. }), "{error}");
    let error = ModelStaging::directory(&files, Path::new("/out/m2"), true).unwrap_err();
    assert!(matches!(error, CheckpointWriteError::StagingOccupied { .. }), "{error}");
    assert_eq!(read(&files, "/out/m2.partial/thesis.txt"), b"words");
    let error = ModelStaging::file(&files, Path::new("/out/m.txt"), true).unwrap_err();
    assert!(matches!(error, CheckpointWriteError::FileName { .. }), "{error}");
    let source = Checkpoint::open(&files, Path::new("/src")).unwrap();
    let mut staging = ModelStaging::directory(&files, destination, true).unwrap();
    let error = ModelStaging::directory(&files, destination, true).unwrap_err();
    assert!(matches!(error, CheckpointWriteError::Busy { .. }), "{error}");
    copy_gguf(&mut staging, "m.gguf", &source).unwrap();
    let error = staging.side_file("m.gguf", b"").unwrap_err();
    assert!(matches!(error, CheckpointWriteError::FileName { .. }), "{error}");
    let error = staging.side_file("../up", b"").unwrap_err();
    assert!(matches!(error, CheckpointWriteError::FileName { .. }), "{error}");
    assert_eq!(read(&files, "/out/m/config.json"), b"old");
    staging.finish().unwrap();
    assert_eq!(listing(&files, DESTINATION), ["m.gguf"]);
    assert_eq!(read(&files, "/out/m/m.gguf"), read(&files, "/src/m.gguf"));
    assert_eq!(listing(&files, "/out"), ["m", "m2.partial", "photos"]);
}

#[test]
fn failure_anywhere_leaves_the_old_model_or_the_new_one() {
    let run = |fault: Option<Fault>| {
        let tree = MemoryFiles::new();
        tree.put(Path::new("/out/m/config.json"), b"old");
        tree.put(Path::new("/src/m.gguf"), &RawGguf::sample().build());
        let inner: Arc<dyn Files> = Arc::new(tree);
        let source = Checkpoint::open(&inner, Path::new("/src")).unwrap();
        let faulty = FaultyFiles::new(inner.clone(), fault);
        let files: Arc<dyn Files> = Arc::new(faulty.clone());
        let outcome = ModelStaging::directory(&files, Path::new(DESTINATION), true).and_then(
            |mut staging| {
                staging.side_file("config.json", b"new")?;
                copy_gguf(&mut staging, "m.gguf", &source)?;
                staging.finish()
            },
        );
        (inner, faulty, outcome)
    };
    let (inner, faulty, outcome) = run(None);
    outcome.unwrap();
    assert_eq!(read(&inner, "/out/m/config.json"), b"new");
    let operations = faulty.operations().len();
    assert!(operations > 10);
    for stop in 0..operations {
        let (inner, _, outcome) = run(Some(Fault::Stop(stop)));
        let config = read(&inner, "/out/m/config.json");
        assert!(outcome.is_err() || config == b"new", "stopped at {stop}");
        if config == b"new" {
            assert_eq!(read(&inner, "/out/m/m.gguf"), RawGguf::sample().build(), "at {stop}");
        } else {
            assert_eq!(config, b"old", "stopped at {stop}");
            // The next run takes what was left behind away.
            drop(ModelStaging::directory(&inner, Path::new(DESTINATION), true).unwrap());
            assert_eq!(listing(&inner, "/out"), ["m"], "stopped at {stop}");
        }
    }
    let (inner, _, outcome) = run(Some(Fault::DiskFull(100)));
    let error = outcome.unwrap_err();
    assert!(error.hint().contains("make room"), "{error}");
    assert_eq!(read(&inner, "/out/m/config.json"), b"old");
    assert_eq!(listing(&inner, "/out"), ["m"]);
}

/// What the packages of others find in a file: a line for each tensor, its name, shape and bytes.
const PYTHON: &str = r#"
import sys, hashlib
path = sys.argv[1]
def line(name, shape, data):
    print(name, "x".join(map(str, shape)), hashlib.sha256(data).hexdigest())
if path.endswith(".gguf"):
    from gguf import GGUFReader
    for tensor in GGUFReader(path).tensors:
        line(tensor.name, reversed([int(size) for size in tensor.shape]), tensor.data.tobytes())
else:
    from safetensors import safe_open
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
        for name in file.keys():
            tensor = file.get_tensor(name)
            line(name, tensor.shape, tensor.tobytes())
"#;

#[test]
fn written_files_are_read_by_the_python_packages() {
    let python = std::env::var_os("LARQL_PYTHON").unwrap_or_else(|| "python3".into());
    let run = |arguments: &[&std::ffi::OsStr]| {
        std::process::Command::new(&python).arg("-c").args(arguments).output()
    };
    let found = run(&["import gguf, safetensors, numpy".as_ref()]);
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: LARQL_PYTHON names no python with gguf, safetensors and numpy");
        return;
    }
    let (files, scratch) = (DiskFiles::shared(), tempfile::tempdir().unwrap());
    let data: Vec<u8> = (0..=255).cycle().take(256 * 18).collect();
    let tensors = [
        description("wide", "F32", &[2, 3, 4]),
        description("half", "F16", &[5]),
        description("bytes", "I8", &[7, 1]),
    ];
    let quantised = [description("q4", "Q4_0", &[3, 64]), description("q6", "Q6_K", &[2, 256])];
    let lengths = [("wide", 96), ("half", 10), ("bytes", 7), ("q4", 108), ("q6", 420)];
    let length = |name: &str| lengths.iter().find(|(other, _)| *other == name).unwrap().1;
    let mut builder = GgufMetadataBuilder::new();
    builder.text("general.architecture", "llama").value("x.half", Value::F32(0.5));
    builder.array("tokenizer.ggml.tokens", [&b"a"[..], b"b"].map(Value::String));
    let metadata = builder.finish().unwrap();
    for name in ["m.safetensors", "m.gguf"] {
        let path = scratch.path().join(name);
        let mut staging = ModelStaging::file(&files, &path, false).unwrap();
        let all =
            if name == "m.gguf" { [&tensors[..], &quantised].concat() } else { tensors.to_vec() };
        if name == "m.gguf" {
            let mut writer = GgufWriter::create(&mut staging, name, &metadata, &all).unwrap();
            for tensor in &all {
                let bytes = &data[..length(&tensor.name)];
                writer.tensor(&tensor.name, &mut |out| out.write_all(bytes)).unwrap();
            }
            writer.finish().unwrap();
        } else {
            let mut writer =
                SafetensorsWriter::create(&mut staging, all.clone(), PT, u64::MAX).unwrap();
            for name in writer.order().map(str::to_owned).collect::<Vec<_>>() {
                let bytes = &data[..length(&name)];
                writer.tensor(&name, &mut |out| out.write_all(bytes)).unwrap();
            }
            writer.finish().unwrap();
        }
        staging.finish().unwrap();
        let output = run(&[PYTHON.as_ref(), path.as_os_str()]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut found: Vec<_> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        let mut expected: Vec<_> = all
            .iter()
            .map(|tensor| {
                let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
                let digest = Checksum::of(&data[..length(&tensor.name)]);
                format!("{} {} {digest}", tensor.name, shape.join("x"))
            })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}
