//! Checkpoints as published are read to the byte; hostile ones are refused by name.

use larql_storage::checkpoint::{Checkpoint, CheckpointError};
use larql_storage::file::{DiskFiles, Files, MemoryFiles};
use std::path::Path;
use std::sync::Arc;

const HOME: &str = "/models/m";

/// A safetensors file from a header's text and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn tensor(name: &str, dtype: &str, shape: &str, begin: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A header of entries.
fn header(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

/// Opens a directory in memory with these files.
fn open(files: &[(&str, Vec<u8>)]) -> Result<Checkpoint, CheckpointError> {
    let memory = MemoryFiles::new();
    memory.create_dir_all(Path::new(HOME)).unwrap();
    for (name, bytes) in files {
        memory.put(&Path::new(HOME).join(name), bytes);
    }
    let memory: Arc<dyn Files> = Arc::new(memory);
    Checkpoint::open(&memory, Path::new(HOME))
}

/// The refusal of a single `model.safetensors`, which must name the file and carry a hint.
fn refusal(bytes: Vec<u8>) -> String {
    let error = open(&[("model.safetensors", bytes)]).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
    assert!(!error.hint().is_empty());
    let text = error.to_string();
    assert!(text.contains("/models/m/model.safetensors"), "{text}");
    assert!(text.len() < 500, "{text}");
    text
}

fn sample() -> Vec<u8> {
    let entries = [
        r#""__metadata__":{"format":"pt"}"#.to_owned(),
        tensor("b.weight", "BF16", "[2,3]", 0, 12),
        tensor("a.weight", "F32", "[2]", 12, 20),
        tensor("empty", "F16", "[0,7]", 20, 20),
        tensor("scalar", "I64", "[]", 20, 28),
    ];
    file(&header(&entries), &(0..28).collect::<Vec<u8>>())
}

#[test]
fn tensors_are_sorted_by_name_with_their_formats_shapes_and_bytes() {
    let config = br#"{"auto_map":{"AutoModel":"evil.Model"}}"#.to_vec();
    let checkpoint =
        open(&[("model.safetensors", sample()), ("config.json", config.clone())]).unwrap();
    let found: Vec<_> = checkpoint
        .tensors()
        .map(|t| (t.name, t.format, t.shape.to_vec(), t.bytes.to_vec()))
        .collect();
    let expected = [
        ("a.weight", "F32", vec![2], (12..20).collect()),
        ("b.weight", "BF16", vec![2, 3], (0..12).collect()),
        ("empty", "F16", vec![0, 7], vec![]),
        ("scalar", "I64", vec![], (20..28).collect::<Vec<u8>>()),
    ];
    assert_eq!(found, expected);
    assert_eq!(checkpoint.tensor("b.weight").unwrap().bytes.len(), 12);
    assert_eq!(checkpoint.tensor("c.weight"), None);
    assert_eq!(checkpoint.bytes(), sample().len() as u64);
    assert_eq!(checkpoint.side_file("config.json").unwrap(), Some(config));
    assert_eq!(checkpoint.side_file("tokenizer.json").unwrap(), None);
    let names: Vec<_> = checkpoint.weight_files().map(|(name, _)| name).collect();
    assert_eq!(names, ["model.safetensors"]);
    checkpoint.check().unwrap();
}

#[test]
fn file_written_by_the_reference_crate_is_read_back() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let data: Vec<u8> = (0..24).collect();
    let views = [
        ("x", TensorView::new(Dtype::F32, vec![3, 2], &data).unwrap()),
        ("y", TensorView::new(Dtype::F16, vec![12], &data).unwrap()),
    ];
    let bytes = serialize(views, None).unwrap();
    let checkpoint = open(&[("model.safetensors", bytes)]).unwrap();
    for (name, format, shape) in [("x", "F32", &[3, 2][..]), ("y", "F16", &[12])] {
        let found = checkpoint.tensor(name).unwrap();
        assert_eq!((found.format, found.shape, found.bytes), (format, shape, &data[..]));
    }
}

#[test]
fn safetensors_truncated_at_every_byte_is_refused() {
    let whole = sample();
    for length in 0..whole.len() {
        refusal(whole[..length].to_vec());
    }
    refusal([&whole[..], &[0]].concat());
}

#[test]
fn header_length_zero_beyond_the_limit_and_beyond_the_file_is_refused() {
    for (length, says) in [
        (0, "EOF"),
        (100_000_001, "the most is 100000000"),
        (u64::MAX, "the most is 100000000"),
        (1 << 63, "the most is 100000000"),
        (100_000_000, "are left"),
    ] {
        let text = refusal([&length.to_le_bytes()[..], b"{}  "].concat());
        assert!(text.contains(says), "{length}: {text}");
    }
}

#[test]
fn shape_that_does_not_fit_its_range_is_refused() {
    for (dtype, shape, says) in [
        ("F32", "[2,2]", "takes 16 bytes, 8 are given"),
        ("F16", "[3]", "takes 6 bytes, 8 are given"),
        ("F32", "[4611686018427387904,4]", "overflows"),
        ("F32", "[9223372036854775808,2,2]", "overflows"),
        ("F4", "[15]", "does not fill whole bytes"),
        ("Q4_K", "[8]", "is not known"),
        ("U8", "[1,1,1,1,1,1,1,1,8]", "9 dimensions"),
        ("F32", "[-2]", "invalid value"),
        ("F32", "[2.0]", "invalid type"),
    ] {
        let text = refusal(file(&header(&[tensor("t", dtype, shape, 0, 8)]), &[0; 8]));
        assert!(text.contains(says), "{dtype} {shape}: {text}");
    }
}

#[test]
fn reversed_overlapping_and_gaping_ranges_are_refused_and_empty_ones_may_touch() {
    let u8s =
        |name, begin: usize, end| tensor(name, "U8", &format!("[{}]", end - begin), begin, end);
    for (entries, says) in [
        (vec![tensor("a", "U8", "[0]", 5, 3)], "5..3 is not within"),
        (vec![u8s("a", 0, 5), u8s("b", 4, 8)], "4..8 should start at 5"),
        (vec![u8s("a", 0, 8), u8s("b", 0, 8)], "0..8 should start at 8"),
        (vec![u8s("a", 0, 3), u8s("b", 4, 8)], "4..8 should start at 3"),
        (vec![u8s("a", 1, 8)], "1..8 should start at 0"),
        (vec![u8s("a", 0, 7)], "end after 7 of 8"),
        (vec![u8s("a", 0, 9)], "0..9 is not within 8"),
        (vec![tensor("a", "U8", "[0]", usize::MAX, usize::MAX)], "is not within 8"),
    ] {
        let text = refusal(file(&header(&entries), &[0; 8]));
        assert!(text.contains(says), "{says}: {text}");
    }
    let touching = [u8s("a", 0, 4), u8s("b", 4, 4), u8s("c", 4, 4), u8s("d", 4, 8)];
    let checkpoint = open(&[("model.safetensors", file(&header(&touching), &[0; 8]))]).unwrap();
    assert_eq!(checkpoint.tensors().count(), 4);
}

#[test]
fn deep_nesting_and_duplicate_keys_are_refused() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(file(&deep, &[])).contains("invalid type: sequence"));
    // An unknown field is skipped without recursion, however deep it is, and unfinished it is refused.
    let ignored = |closing: usize| {
        let (open, close) = ("[".repeat(100_000), "]".repeat(closing));
        format!(r#"{{"a":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":{open}{close}}}}}"#)
    };
    assert!(open(&[("model.safetensors", file(&ignored(100_000), &[]))]).is_ok());
    refusal(file(&ignored(99_999), &[]));
    let twice = header(&[tensor("a", "U8", "[0]", 0, 0), tensor("a", "U8", "[8]", 0, 8)]);
    assert!(refusal(file(&twice, &[0; 8])).contains("\"a\" twice"));
    let field = r#"{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(refusal(file(field, &[])).contains("duplicate field"));
    let metadata = r#"{"__metadata__":{"a":"b","a":"c"}}"#;
    assert!(refusal(file(metadata, &[])).contains("given twice"));
    assert!(refusal(file(r#"{"__metadata__":{"a":{}}}"#, &[])).contains("invalid type"));
    assert!(refusal(file("[]", &[])).contains("object of tensors"));
}

#[test]
fn hundred_thousand_tensors_are_read() {
    let entries: Vec<_> =
        (0..100_000).map(|n| tensor(&format!("t{n:06}"), "U8", "[1]", n, n + 1)).collect();
    let data: Vec<u8> = (0..100_000).map(|n| n as u8).collect();
    let checkpoint = open(&[("model.safetensors", file(&header(&entries), &data))]).unwrap();
    assert_eq!(checkpoint.tensors().count(), 100_000);
    assert_eq!(checkpoint.tensor("t012345").unwrap().bytes, [12_345_u32 as u8]);
}

fn shard(name: &str, byte: u8) -> Vec<u8> {
    file(&header(&[tensor(name, "U8", "[4]", 0, 4)]), &[byte; 4])
}

fn index(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<_> =
        entries.iter().map(|(name, file)| format!(r#""{name}":"{file}""#)).collect();
    format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#, entries.join(","))
        .into_bytes()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_are_joined_and_the_index_decides_between_two_of_a_name() {
    let both = header(&[tensor("a", "U8", "[4]", 0, 4), tensor("b", "U8", "[4]", 4, 8)]);
    let checkpoint = open(&[
        (INDEX, index(&[("a", "1.safetensors"), ("b", "2.safetensors")])),
        ("1.safetensors", shard("a", 1)),
        ("2.safetensors", file(&both, &[2; 8])),
        ("unrelated.safetensors", b"not looked at".to_vec()),
    ])
    .unwrap();
    let found: Vec<_> = checkpoint.tensors().map(|t| (t.name, t.bytes[0])).collect();
    assert_eq!(found, [("a", 1), ("b", 2)]);
    assert_eq!(checkpoint.weight_files().count(), 2);
}

#[test]
fn shard_names_that_leave_the_directory_are_refused() {
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "../x.safetensors",
        "sub/x.safetensors",
        "..",
        ".safetensors",
        "x.bin",
    ] {
        let error = open(&[(INDEX, index(&[("a", name)]))]).unwrap_err();
        assert!(
            matches!(&error, CheckpointError::FileName { name: n, .. } if n == name),
            "{error}"
        );
        assert!(error.to_string().contains(INDEX), "{error}");
    }
}

#[test]
fn index_that_does_not_match_its_shards_is_refused() {
    let refuse = |index: Vec<u8>, says: &str| {
        let files =
            [(INDEX, index), ("1.safetensors", shard("a", 1)), ("2.safetensors", shard("a", 2))];
        let text = open(&files).unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    };
    refuse(index(&[("a", "1.safetensors"), ("b", "1.safetensors")]), "\"b\" in 1.safetensors");
    refuse(index(&[("a", "1.safetensors"), ("c", "2.safetensors")]), "\"c\" in 2.safetensors");
    refuse(index(&[("a", "missing.safetensors")]), "missing.safetensors is missing");
    refuse(index(&[("a", "1.safetensors"), ("a", "2.safetensors")]), "\"a\" is given twice");
    refuse(index(&[]), "weight_map is empty");
    refuse(b"{}".to_vec(), "weight_map");
    refuse(format!("{{\"weight_map\":{}", "{\"a\":".repeat(100_000)).into_bytes(), INDEX);
}

#[test]
fn directories_without_usable_weights_say_what_is_missing() {
    let error = open(&[("config.json", b"{}".to_vec())]).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    let error = open(&[("model.safetensors", file("{}", &[]))]).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    let two = [("1.safetensors", shard("a", 1)), ("2.safetensors", shard("b", 2))];
    let error = open(&two).unwrap_err();
    assert!(matches!(error, CheckpointError::NoIndex { count: 2, .. }), "{error}");
    assert_eq!(open(&two[..1]).unwrap().tensors().count(), 1);
    let error = Checkpoint::open(&MemoryFiles::shared(), Path::new("/nowhere")).unwrap_err();
    assert!(matches!(error, CheckpointError::NoSuchPath { .. }), "{error}");
}

#[test]
fn single_file_is_opened_by_its_own_path() {
    let memory = MemoryFiles::new();
    memory.put(Path::new("/m/odd name.safetensors"), &sample());
    memory.put(Path::new("/m/config.json"), b"{}");
    let memory: Arc<dyn Files> = Arc::new(memory);
    let checkpoint = Checkpoint::open(&memory, Path::new("/m/odd name.safetensors")).unwrap();
    assert_eq!(checkpoint.directory(), Path::new("/m"));
    assert_eq!(checkpoint.tensors().count(), 4);
    let error = Checkpoint::open(&memory, Path::new("/m/config.json")).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
}

#[test]
fn side_files_are_bounded_and_stay_in_the_directory() {
    let big = vec![b' '; (1 << 20) + 1];
    let checkpoint = open(&[
        ("model.safetensors", sample()),
        ("config.json", big.clone()),
        ("tokenizer.json", big.clone()),
    ])
    .unwrap();
    let error = checkpoint.side_file("config.json").unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(checkpoint.side_file("tokenizer.json").unwrap(), Some(big));
    for name in ["../m/config.json", "/etc/passwd", "", ".."] {
        let error = checkpoint.side_file(name).unwrap_err();
        assert!(matches!(error, CheckpointError::FileName { .. }), "{error}");
    }
}

#[test]
fn links_out_of_the_checkpoint_are_refused_and_the_hub_cache_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let snapshot = root.join("snapshots/0123abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(root.join("blobs")).unwrap();
    std::fs::write(root.join("blobs/f00d"), sample()).unwrap();
    std::fs::write(root.join("secret"), sample()).unwrap();
    let link = snapshot.join("model.safetensors");
    std::os::unix::fs::symlink("../../blobs/f00d", &link).unwrap();
    let files = DiskFiles::shared();
    let checkpoint = Checkpoint::open(&files, &snapshot).unwrap();
    assert_eq!(checkpoint.tensors().count(), 4);
    std::os::unix::fs::symlink("../../secret", snapshot.join("config.json")).unwrap();
    let error = checkpoint.side_file("config.json").unwrap_err();
    assert!(
        matches!(&error, CheckpointError::LinkOutside { path } if path.ends_with("config.json")),
        "{error}"
    );
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(root.join("secret"), &link).unwrap();
    let error = Checkpoint::open(&files, &snapshot).unwrap_err();
    assert!(matches!(&error, CheckpointError::LinkOutside { .. }), "{error}");
}

#[test]
fn shard_truncated_while_open_is_named_by_check() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("model.safetensors");
    std::fs::write(&path, sample()).unwrap();
    let checkpoint = Checkpoint::open(&DiskFiles::shared(), root.path()).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(checkpoint.tensor("a.weight").unwrap().bytes, [0; 8]);
    let text = checkpoint.check().unwrap_err().to_string();
    assert!(text.contains("model.safetensors was truncated"), "{text}");
}

proptest::proptest! {
    #[test]
    fn any_damage_is_refused_by_name_or_changes_no_range(
        edits in proptest::collection::vec((0_usize..4_096, proptest::num::u8::ANY), 1..6)
    ) {
        let mut bytes = sample();
        let length = bytes.len();
        for (at, byte) in edits {
            bytes[at % length] = byte;
        }
        match open(&[("model.safetensors", bytes)]) {
            Ok(checkpoint) => {
                let held: usize = checkpoint.tensors().map(|tensor| tensor.bytes.len()).sum();
                assert_eq!(held, 28);
            }
            Err(error) => assert!(error.to_string().contains("/models/m"), "{error}"),
        }
    }
}
