//! Hostile GGUF files: a clear error that names the file, no panic, and no more memory than a fixed
//! factor of what is in the file.

mod support;

#[path = "support/memory.rs"]
mod memory;

use larql_storage::checkpoint::gguf::GgufMetadata;
use larql_storage::checkpoint::{Checkpoint, CheckpointError};
use larql_storage::file::{DiskFiles, Files, MemoryFiles};
use memory::measured;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use support::{RawGguf, string};

/// Memory for each byte of a file, and what anything may cost.
const FACTOR: usize = 16;
const FLOOR_BYTES: usize = 16 << 10;

const PATH: &str = "/models/m/evil.gguf";

/// Opens a file's bytes; the memory of parsing is measured apart from that of the test's backend.
fn open(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let (_, held) = measured(|| GgufMetadata::from_file(bytes.to_vec()));
    let allowed = FLOOR_BYTES + FACTOR * bytes.len();
    assert!(held <= allowed, "{held} bytes held for a file of {}", bytes.len());
    let memory = MemoryFiles::new();
    memory.put(Path::new(PATH), bytes);
    let memory: Arc<dyn Files> = Arc::new(memory);
    Checkpoint::open(&memory, Path::new(PATH))
}

/// The refusal of a file, which names it, fits a screen and says what to do.
fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(PATH) && text.len() < 600, "{text}");
    assert!(!error.hint().is_empty());
    text
}

/// Asserts that a file is refused with a message that has these words.
fn refused(raw: &RawGguf, says: &str) {
    let text = refusal(&raw.build());
    assert!(text.contains(says), "{says}: {text}");
}

const HUGE: [u64; 4] = [1 << 63, u64::MAX, i64::MAX as u64, 1 << 32];

#[test]
fn tensor_count_beyond_the_file_is_refused() {
    for count in HUGE {
        let raw = RawGguf { tensor_count: Some(count), ..RawGguf::sample() };
        refused(&raw, &format!("claims {count} tensors"));
    }
    // One too many reads data as a description, or the file's end.
    refusal(&RawGguf { tensor_count: Some(4), ..RawGguf::sample() }.build());
}

#[test]
fn metadata_count_beyond_the_file_is_refused() {
    for count in HUGE {
        let raw = RawGguf { entry_count: Some(count), ..RawGguf::sample() };
        refused(&raw, &format!("claims {count} metadata entries"));
    }
    refusal(&RawGguf { entry_count: Some(7), ..RawGguf::sample() }.build());
}

#[test]
fn string_beyond_the_file_is_refused_as_key_value_element_and_name() {
    for length in [100_000, u64::MAX, u64::MAX - 7, 1 << 63] {
        let bytes = &[&length.to_le_bytes()[..], b"x"].concat();
        let raw = RawGguf::new();
        let mut key = raw.clone();
        key.entries.push(bytes.clone());
        // Wide enough to hold an entry, so that the count is believed.
        refused(&key.data(vec![0; 64]), "the key of metadata entry 0");
        refused(&raw.clone().entry("k", 8, bytes), "the value of \"k\"");
        refused(&raw.clone().array("k", 8, 1, bytes), "the value of \"k\"");
        let mut name = raw;
        name.tensors.push(bytes.clone());
        refused(&name.data(vec![0; 64]), "the name of tensor 0");
    }
}

#[test]
fn arrays_nested_deeply_or_larger_than_the_file_are_refused() {
    for element in [0, 4, 8, 10, 12] {
        for count in HUGE {
            let raw = RawGguf::new().array("k", element, count, &[0; 64]);
            refused(&raw, &format!("claims {count} elements in the value of \"k\""));
        }
    }
    // A count whose product with the element's size comes out small again.
    refused(&RawGguf::new().array("k", 10, (1 << 61) + 1, &[0; 8]), "elements in the value");
    let nested = |depth: usize| {
        let level = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
        let last = [&0_u32.to_le_bytes()[..], &0_u64.to_le_bytes()].concat();
        RawGguf::new().entry("k", 9, &[level.repeat(depth), last].concat())
    };
    GgufMetadata::from_file(nested(3).build()).unwrap();
    refused(&nested(4), "nests arrays more than 4 deep");
    refused(&nested(100_000), "nests arrays more than 4 deep");
    refused(&RawGguf::new().array("k", 13, 0, &[]), "has type 13");
    refused(&RawGguf::new().array("k", u32::MAX, 0, &[]), "has type -1");
}

#[test]
fn shape_whose_size_overflows_is_refused() {
    for dimensions in [
        &[1_u64 << 32, 1 << 32][..],
        &[1 << 63, 2],
        &[1 << 62, 4, 0],
        &[u64::MAX],
        &[u64::MAX, u64::MAX, u64::MAX, u64::MAX],
        &[1 << 62, 1, 1, 1],
    ] {
        let raw = RawGguf::new().tensor("t", dimensions, 0, 0).data(vec![0; 64]);
        let text = refusal(&raw.build());
        assert!(text.contains("overflows") || text.contains("reach beyond"), "{text}");
    }
    let many = RawGguf::new().tensor("t", &[1; 5], 0, 0).data(vec![0; 64]);
    refused(&many, "5 dimensions");
    let mut endless = RawGguf::new().data(vec![0; 64]);
    endless.tensors.push([&string(b"t")[..], &u32::MAX.to_le_bytes(), &[0; 40]].concat());
    refused(&endless, "4294967295 dimensions");
}

#[test]
fn tensor_beyond_the_file_is_refused_be_it_by_one_byte() {
    let at = |offset| RawGguf::new().tensor("t", &[16], 0, offset).data(vec![0; 64]);
    assert!(open(&at(0).build()).is_ok());
    let whole = at(0).build();
    let text = refusal(&whole[..whole.len() - 1]);
    assert!(text.contains("reach beyond"), "{text}");
    for offset in [32, 1 << 63, u64::MAX - 31, u64::MAX - 63] {
        refused(&at(offset), "reach beyond");
    }
    // An empty tensor takes nothing, and lies somewhere all the same.
    let empty = |offset| RawGguf::new().tensor("t", &[0], 0, offset).data(vec![0; 64]);
    assert!(open(&empty(64).build()).is_ok());
    refused(&empty(96), "reach beyond");
}

#[test]
fn overlapping_tensors_are_refused_and_gaps_are_not() {
    let two = |first: u64, second: u64| {
        RawGguf::new().tensor("a", &[16], 0, first).tensor("b", &[16], 0, second).data(vec![0; 192])
    };
    for (first, second) in [(0, 0), (0, 32), (64, 32), (32, 0)] {
        refused(&two(first, second), "overlaps");
    }
    assert!(open(&two(128, 0).build()).is_ok());
    let touching = RawGguf::new()
        .tensor("a", &[16], 0, 0)
        .tensor("none", &[0], 0, 0)
        .tensor("b", &[16], 0, 64)
        .data(vec![0; 128]);
    assert!(open(&touching.build()).is_ok());
}

#[test]
fn alignment_that_is_no_power_of_two_or_too_large_is_refused() {
    let with = |alignment| RawGguf::new().u32("general.alignment", alignment);
    for alignment in [0, 3, 33, 1 << 31, u32::MAX] {
        let raw = with(alignment).tensor("t", &[1], 0, 0).data(vec![0; 64]);
        refused(&raw, &format!("general.alignment is {alignment}"));
    }
    let text = RawGguf::new().text("general.alignment", "32");
    refused(&text.tensor("t", &[1], 0, 0).data(vec![0; 64]), "is not a number");
    let mut wide = with(128).tensor("t", &[1], 0, 0).tensor("u", &[1], 0, 128).data(vec![0; 132]);
    wide.alignment = 128;
    assert!(open(&wide.build()).is_ok());
    let mut off = with(128).tensor("t", &[1], 0, 32).data(vec![0; 132]);
    off.alignment = 128;
    refused(&off, "not a multiple of 128");
    refused(&RawGguf::new().tensor("t", &[1], 0, 4).data(vec![0; 64]), "not a multiple of 32");
}

#[test]
fn unknown_types_are_refused_by_number() {
    for (number, says) in [(4, "type 4"), (200, "type 200"), (u32::MAX, "type -1")] {
        refused(&RawGguf::new().tensor("t", &[32], number, 0).data(vec![0; 64]), says);
        refused(&RawGguf::new().entry("k", number.max(13), &[0; 8]), "is not known");
    }
    // Known, though nothing computes with it: its name is handed on.
    let exotic = RawGguf::new().tensor("t", &[256], 16, 0).data(vec![0; 66]);
    assert_eq!(open(&exotic.build()).unwrap().tensor("t").unwrap().format, "IQ2_XXS");
    refused(&RawGguf::new().entry("k", 7, &[2]), "truth value 2");
    refused(&RawGguf::new().array("k", 7, 3, &[0, 1, 255]), "truth value 255");
}

#[test]
fn keys_and_names_given_twice_are_refused() {
    refused(&RawGguf::new().u32("a", 1).u32("b", 2).u32("a", 1), "\"a\" twice");
    let twice = RawGguf::new().tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32);
    refused(&twice.data(vec![0; 64]), "\"t\" twice");
}

#[test]
fn names_that_are_paths_have_control_characters_or_no_end_are_refused() {
    let long = vec![b'x'; 1 << 20];
    for (name, says) in [
        (&b"../../etc/passwd"[..], "is a path"),
        (b"a/../b", "is a path"),
        (b"a\\..\\b", "is a path"),
        (b"/etc/passwd", "is a path"),
        (b"nul\0byte", "control characters"),
        (b"line\nbreak", "control characters"),
        (b"escape\x1b[2J", "control characters"),
        (b"", "0 bytes"),
        (b"\xff\xfe", "not UTF-8"),
        (&long, "1048576 bytes"),
    ] {
        refused(&RawGguf::new().tensor_bytes(name, &[1], 0, 0).data(vec![0; 32]), says);
    }
    refused(&RawGguf::new().u32("", 1), "has 0 bytes");
    refused(&RawGguf::new().u32(&"k".repeat(65_536), 1), "has 65536 bytes");
    let mut key = RawGguf::new();
    key.entries.push([&string(b"\xff")[..], &[0; 5]].concat());
    refused(&key, "not UTF-8");
}

#[test]
fn file_truncated_at_every_byte_is_refused() {
    let whole = RawGguf::sample().build();
    // The last tensor ends 14 bytes before the file: what follows is padding that nobody needs.
    let needed = whole.len() - 14;
    for length in 0..needed {
        refusal(&whole[..length]);
    }
    for length in needed..=whole.len() {
        assert_eq!(open(&whole[..length]).unwrap().tensors().count(), 3);
    }
}

#[test]
fn big_endian_files_and_other_versions_are_refused_by_name() {
    let big = |version: u32| RawGguf { version: version.swap_bytes(), ..RawGguf::sample() };
    for version in 1..=3 {
        refused(&big(version), "big-endian");
    }
    for version in [0, 1, 4, u32::MAX] {
        let raw = RawGguf { version, ..RawGguf::sample() };
        refused(&raw, &format!("its version is {version}, versions 2 and 3 are read"));
    }
    let mut other = RawGguf::sample().build();
    other[..4].copy_from_slice(b"FUGG");
    assert!(refusal(&other).contains("not GGUF"));
    assert!(refusal(b"").contains("its magic"));
}

#[test]
fn file_that_shrinks_under_its_mapping_reads_as_zeros_and_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("m.gguf");
    std::fs::write(&path, RawGguf::sample().build()).unwrap();
    let checkpoint = Checkpoint::open(&DiskFiles::shared(), &path).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(checkpoint.tensor("b.weight").unwrap().bytes, [0; 24]);
    // Metadata is read in place too: it may be anything now, and no reader of it panics.
    let metadata = checkpoint.gguf().unwrap();
    for (key, value) in metadata.iter() {
        assert!(!key.is_empty());
        assert!(value.as_array().is_none_or(|array| array.iter().count() <= array.len()));
        assert!(!value.to_string().is_empty());
    }
    let text = checkpoint.check().unwrap_err().to_string();
    assert!(text.contains("m.gguf was truncated"), "{text}");
}

#[test]
fn scales_that_are_no_numbers_are_handed_on_as_bytes() {
    let mut block = vec![0xff; 144];
    block[..4].copy_from_slice(&[0x00, 0x7e, 0x00, 0x7c]);
    let raw = RawGguf::new().tensor("t", &[256], 12, 0).data(block.clone());
    assert_eq!(open(&raw.build()).unwrap().tensor("t").unwrap().bytes, block);
}

#[test]
fn vocabulary_of_two_to_the_thirty_first_costs_nothing() {
    let raw = RawGguf::new().array("tokenizer.ggml.tokens", 8, 1 << 31, &string(b"a").repeat(100));
    refused(&raw, "claims 2147483648 elements");
    let full = RawGguf::new().strings("tokenizer.ggml.tokens", &vec![&b""[..]; 200_000]);
    let metadata = GgufMetadata::from_file(full.build()).unwrap();
    let (count, held) =
        measured(|| metadata.array("tokenizer.ggml.tokens").unwrap().unwrap().iter().count());
    assert_eq!((count, held), (200_000, 0));
}

#[test]
fn architecture_is_handed_on_whatever_it_is() {
    // What a name or a head count means is decided where the model is described.
    let raw = RawGguf::new()
        .text("general.architecture", "no-such-thing")
        .u32("no-such-thing.attention.head_count", 0)
        .tensor("t", &[1], 0, 0)
        .data(vec![0; 4]);
    let checkpoint = open(&raw.build()).unwrap();
    let metadata = checkpoint.gguf().unwrap();
    assert_eq!(metadata.text("general.architecture"), Ok(Some("no-such-thing")));
    assert_eq!(metadata.u64("no-such-thing.attention.head_count"), Ok(Some(0)));
}

#[test]
fn rows_of_odd_widths_are_read_where_their_format_allows_it() {
    for width in [1_u64, 255, 257, 2_880] {
        let plain = RawGguf::new().tensor("t", &[width, 2], 1, 0);
        let file = plain.data(vec![0; (width * 4) as usize]).build();
        let checkpoint = open(&file).unwrap();
        assert_eq!(checkpoint.tensor("t").unwrap().shape, [2, width as usize]);
        let blocks = RawGguf::new().tensor("t", &[width, 2], 12, 0).data(vec![0; 4_096]);
        refused(&blocks, "is not whole Q4_K blocks");
    }
    let mxfp4 = RawGguf::new().tensor("t", &[2_880], 39, 0).data(vec![0; 90 * 17]);
    assert_eq!(open(&mxfp4.build()).unwrap().tensor("t").unwrap().bytes.len(), 1_530);
}

#[test]
fn memory_of_reading_is_a_fixed_factor_of_the_file() {
    let mut entries = RawGguf::new();
    for number in 0..20_000 {
        entries = entries.entry(&format!("{number:x}"), 0, &[1]);
    }
    let file = entries.build();
    let length = file.len();
    let (metadata, held) = measured(|| GgufMetadata::from_file(file).unwrap());
    assert_eq!(metadata.len(), 20_000);
    assert!(held <= FLOOR_BYTES + FACTOR * length, "{held} bytes for {length}");
    // Empty tensors may lie on one another; `open` holds the bound.
    let mut empty = RawGguf::new().data(vec![0; 4]);
    for number in 0..20_000 {
        empty = empty.tensor(&format!("{number:x}"), &[0], 24, 0);
    }
    assert_eq!(open(&empty.build()).unwrap().tensors().count(), 20_000);
}

proptest! {
    #[test]
    fn any_damage_is_refused_by_name_or_keeps_every_range_in_the_file(
        edits in prop::collection::vec((0_usize..4_096, any::<u8>()), 1..8)
    ) {
        let mut bytes = RawGguf::sample().build();
        let length = bytes.len();
        for (at, byte) in edits {
            bytes[at % length] = byte;
        }
        match open(&bytes) {
            Ok(checkpoint) => {
                for tensor in checkpoint.tensors() {
                    prop_assert!(tensor.bytes.len() <= length);
                }
                let metadata = checkpoint.gguf().unwrap();
                for (_, value) in metadata.iter() {
                    prop_assert!(value.to_string().len() < 400);
                }
                // What was read can be written, and reads back the same.
                let again = GgufMetadata::from_file(metadata.to_file());
                prop_assert!(again.is_ok_and(|again| again.len() == metadata.len()));
            }
            Err(error) => prop_assert!(error.to_string().contains("m")),
        }
    }
}
