//! GGUF files are read to the byte, whole and in parts, with every type of metadata.

mod support;

use larql_storage::checkpoint::gguf::{GgufMetadata, Value, ValueType};
use larql_storage::checkpoint::{Checkpoint, CheckpointError, CheckpointKind};
use larql_storage::file::{Files, MemoryFiles};
use std::path::Path;
use std::sync::Arc;
use support::{RawGguf, string};

const HOME: &str = "/models/m";

/// Files in memory, in one directory.
fn directory(files: &[(&str, Vec<u8>)]) -> Arc<dyn Files> {
    let memory = MemoryFiles::new();
    memory.create_dir_all(Path::new(HOME)).unwrap();
    for (name, bytes) in files {
        memory.put(&Path::new(HOME).join(name), bytes);
    }
    Arc::new(memory)
}

fn open(files: &[(&str, Vec<u8>)]) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(&directory(files), Path::new(HOME))
}

#[test]
fn tensors_have_their_dimensions_reversed_and_their_bytes_in_place() {
    for version in [2, 3] {
        let file = RawGguf { version, ..RawGguf::sample() }.build();
        let checkpoint = open(&[("m.gguf", file.clone()), ("README.md", vec![])]).unwrap();
        assert_eq!(checkpoint.kind(), CheckpointKind::Gguf);
        let found: Vec<_> = checkpoint
            .tensors()
            .map(|t| (t.name, t.format, t.shape.to_vec(), t.bytes.to_vec()))
            .collect();
        let expected = [
            ("a.weight", "F16", vec![2], (32..36).collect()),
            ("b.weight", "F32", vec![2, 3], (0..24).collect()),
            ("c.weight", "Q4_0", vec![1, 32], (64..82).collect::<Vec<u8>>()),
        ];
        assert_eq!(found, expected);
        assert_eq!(checkpoint.gguf().unwrap().version(), version);
        assert_eq!(checkpoint.bytes(), file.len() as u64);
        checkpoint.check().unwrap();
    }
}

#[test]
fn metadata_keeps_its_order_and_every_type() {
    let nested = [&4_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &9_u32.to_le_bytes()].concat();
    let raw = RawGguf::new()
        .entry("z.u8", 0, &[200])
        .entry("i8", 1, &[0xff])
        .entry("u16", 2, &60_000_u16.to_le_bytes())
        .entry("i16", 3, &(-2_i16).to_le_bytes())
        .u32("u32", u32::MAX)
        .entry("i32", 5, &(-3_i32).to_le_bytes())
        .entry("f32", 6, &1.5_f32.to_le_bytes())
        .entry("bool", 7, &[1])
        .text("text", "Größe")
        .entry("bytes", 8, &string(b"\xff"))
        .strings("tokens", &[b"a", b"", b"\xfe"])
        .array("nested", 9, 2, &[&nested[..], &nested].concat())
        .array("none", 6, 0, &[])
        .entry("u64", 10, &u64::MAX.to_le_bytes())
        .entry("i64", 11, &i64::MIN.to_le_bytes())
        .entry("a.f64", 12, &0.1_f64.to_le_bytes());
    let metadata = GgufMetadata::from_file(raw.build()).unwrap();
    let keys: Vec<_> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!((metadata.len(), keys[0], keys[15]), (16, "z.u8", "a.f64"));
    for (key, expected) in [
        ("z.u8", Value::U8(200)),
        ("i8", Value::I8(-1)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-2)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(-3)),
        ("f32", Value::F32(1.5)),
        ("bool", Value::Bool(true)),
        ("text", Value::String("Größe".as_bytes())),
        ("bytes", Value::String(b"\xff")),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("a.f64", Value::F64(0.1)),
    ] {
        assert_eq!(metadata.get(key), Some(expected), "{key}");
    }
    let tokens = metadata.array("tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), tokens.element_type()), (3, ValueType::String));
    let tokens: Vec<_> = tokens.iter().map(|token| token.as_bytes().unwrap()).collect();
    assert_eq!(tokens, [&b"a"[..], b"", b"\xfe"]);
    let nested = metadata.array("nested").unwrap().unwrap();
    let inner: Vec<_> = nested.iter().map(|inner| inner.as_array().unwrap()).collect();
    assert_eq!(inner.len(), 2);
    assert!(inner[1].iter().eq([Value::U32(9)]));
    assert!(metadata.array("none").unwrap().unwrap().is_empty());
    assert_eq!(metadata.get("absent"), None);
}

#[test]
fn typed_getters_take_any_number_that_fits_and_name_what_does_not() {
    let raw = RawGguf::new()
        .entry("small", 0, &[7])
        .entry("negative", 5, &(-1_i32).to_le_bytes())
        .entry("half", 6, &0.5_f32.to_le_bytes())
        .text("name", "x")
        .entry("odd", 8, &string(b"\xff"));
    let metadata = GgufMetadata::from_file(raw.build()).unwrap();
    assert_eq!(metadata.u64("small"), Ok(Some(7)));
    assert_eq!(metadata.f64("small"), Ok(Some(7.0)));
    assert_eq!(metadata.f64("half"), Ok(Some(0.5)));
    assert_eq!(metadata.f64("negative"), Ok(Some(-1.0)));
    assert_eq!(metadata.text("name"), Ok(Some("x")));
    assert_eq!(metadata.u64("absent"), Ok(None));
    let refusals = [
        metadata.u64("negative").unwrap_err().to_string(),
        metadata.u64("half").unwrap_err().to_string(),
        metadata.text("odd").unwrap_err().to_string(),
        metadata.bool("small").unwrap_err().to_string(),
        metadata.array("name").unwrap_err().to_string(),
    ];
    assert_eq!(refusals[0], "metadata \"negative\" is -1, it should be a non-negative integer");
    assert_eq!(refusals[4], "metadata \"name\" is \"x\", it should be an array");
    assert!(refusals[1].contains("0.5") && refusals[3].contains("true or false"));
}

/// One part of a model, with the tensor `name`.
fn part(number: u16, count: u16, tensors: i32, name: &str) -> Vec<u8> {
    RawGguf::new()
        .text("general.architecture", if number == 0 { "llama" } else { "-" })
        .entry("split.no", 2, &number.to_le_bytes())
        .entry("split.count", 2, &count.to_le_bytes())
        .entry("split.tensors.count", 5, &tensors.to_le_bytes())
        .tensor(name, &[4], 24, 0)
        .data(vec![number as u8; 4])
        .build()
}

#[test]
fn any_part_of_a_split_model_stands_for_all() {
    let files = [
        ("m-00001-of-00002.gguf", part(0, 2, 2, "b")),
        ("m-00002-of-00002.gguf", part(1, 2, 2, "a")),
    ];
    let memory = directory(&files);
    for path in [HOME.into(), format!("{HOME}/{}", files[0].0), format!("{HOME}/{}", files[1].0)] {
        let checkpoint = Checkpoint::open(&memory, Path::new(&path)).unwrap();
        let found: Vec<_> = checkpoint.tensors().map(|t| (t.name, t.bytes[0])).collect();
        assert_eq!(found, [("a", 1), ("b", 0)], "{path}");
        let metadata = checkpoint.gguf().unwrap();
        assert_eq!(metadata.text("general.architecture"), Ok(Some("llama")));
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused_by_name() {
    let (first, second) = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf");
    let refuse = |files: &[(&str, Vec<u8>)], says: &[&str]| {
        let text = open(files).unwrap_err().to_string();
        assert!(says.iter().all(|part| text.contains(part)), "{text}");
    };
    refuse(&[(first, part(0, 2, 2, "b"))], &[second, "is missing"]);
    refuse(&[(second, part(1, 2, 2, "b"))], &[first, "is missing"]);
    let swapped = [(first, part(1, 2, 2, "a")), (second, part(0, 2, 2, "b"))];
    refuse(&swapped, &[first, "split.no is 1, it should be 0"]);
    let of_three = [(first, part(0, 2, 2, "a")), (second, part(1, 3, 2, "b"))];
    refuse(&of_three, &[second, "split.count is 3, it should be 2"]);
    let total = [(first, part(0, 2, 3, "a")), (second, part(1, 2, 3, "b"))];
    refuse(&total, &[first, "split.tensors.count is 3, it should be 2"]);
    let twins = [(first, part(0, 2, 2, "a")), (second, part(1, 2, 2, "a"))];
    refuse(&twins, &[first, second, "\"a\" is in"]);
    refuse(&[("m.gguf", part(0, 2, 2, "a"))], &["m.gguf", "one of 2 parts"]);
    let plain = [(first, RawGguf::sample().build()), (second, part(1, 2, 4, "x"))];
    refuse(&plain, &[first, "has no split.count"]);
}

#[test]
fn directory_of_several_models_asks_which_is_meant() {
    let one = RawGguf::sample().build();
    let files = [
        ("m-00001-of-00002.gguf", part(0, 2, 2, "b")),
        ("m-00002-of-00002.gguf", part(1, 2, 2, "a")),
        ("m-q8_0.gguf", one.clone()),
    ];
    let error = open(&files).unwrap_err();
    assert!(matches!(error, CheckpointError::SeveralModels { count: 2, .. }), "{error}");
    assert!(error.hint().contains(".gguf"));
    let path = Path::new(HOME).join("m-q8_0.gguf");
    assert_eq!(Checkpoint::open(&directory(&files), &path).unwrap().tensors().count(), 3);
    // A vocabulary alone is no model.
    let error = open(&[("m.gguf", RawGguf::new().build())]).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
}
