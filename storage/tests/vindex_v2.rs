//! The ancestor's vindexes open onto the same manifest as ours; hostile ones are refused by name.

use larql_storage::file::{DiskFiles, Files, MemoryFiles};
use larql_storage::vindex::{
    FileState, TensorKey, TensorRecord, Vindex, VindexError, VindexWriter, verify,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HOME: &str = "/v";

/// A directory of samples that the ancestor's own tool wrote.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop").join(name)
}

fn open_sample(name: &str) -> Vindex {
    Vindex::open(&DiskFiles::shared(), &sample(name)).unwrap()
}

fn record<'v>(vindex: &'v Vindex, key: &TensorKey) -> &'v TensorRecord {
    vindex.tensor(key).unwrap_or_else(|| panic!("no {key}")).record
}

#[test]
fn every_tensor_of_a_llama_sample_has_its_role_and_place() {
    let vindex = open_sample("ancestor-llama2-f16.vindex");
    let manifest = vindex.manifest();
    assert_eq!((manifest.version, manifest.layers, manifest.hidden_size), (2, 3, 64));
    assert_eq!(manifest.features, [88; 3]);
    assert_eq!((&*manifest.family, &*manifest.level, &*manifest.dtype), ("llama", "all", "f16"));
    assert_eq!((manifest.quantisation.as_deref(), manifest.tied_embeddings), (None, false));
    for layer in 0..3 {
        for (role, shape) in [
            ("gate", &[88, 64][..]),
            ("up", &[88, 64]),
            ("down", &[64, 88]),
            ("attention_query", &[64, 64]),
            ("attention_output", &[64, 64]),
            ("attention_norm", &[64]),
            ("ffn_norm", &[64]),
        ] {
            let found = record(&vindex, &TensorKey::layer(role, layer));
            assert_eq!((&*found.dtype, &found.shape[..]), ("f16", shape), "{role} of {layer}");
        }
    }
    for (role, shape) in
        [("embedding", &[512, 64][..]), ("unembedding", &[512, 64]), ("final_norm", &[64])]
    {
        assert_eq!(record(&vindex, &TensorKey::model(role)).shape, shape);
    }
    assert_eq!(vindex.tensors().count(), 3 * 9 + 3);
    let gate = vindex.tensor(&TensorKey::layer("gate", 1)).unwrap();
    let file = std::fs::read(sample("ancestor-llama2-f16.vindex/gate_vectors.bin")).unwrap();
    assert!(gate.bytes == &file[11_264..22_528]);
    assert_eq!(vindex.down_meta().unwrap().features(2), 88);
    assert!(vindex.down_meta().unwrap().feature(0, 0).is_some());
    assert!(manifest.notes.iter().any(|note| note.contains("input embedding")));
    assert!(vindex.side_file("tokenizer.json").unwrap().is_some());
    assert!(vindex.side_file("config.json").unwrap().is_none());
    let config = vindex.ancestor().unwrap().model_config.as_ref().unwrap();
    assert_eq!((&*config.model_type, config.head_dim, config.num_kv_heads), ("llama", 16, 4));
    assert!(!vindex.is_replaced(&DiskFiles::shared()));
}

#[test]
fn norm_after_attention_has_its_meaning_from_the_other_norms() {
    let vindex = open_sample("ancestor-gemma3-f16.vindex");
    for role in ["attention_norm", "post_attention_norm", "ffn_norm", "post_ffn_norm"] {
        assert_eq!(record(&vindex, &TensorKey::layer(role, 6)).shape, [64]);
    }
    assert_eq!(record(&vindex, &TensorKey::layer("attention_query_norm", 0)).shape, [16]);
    let manifest = vindex.manifest();
    assert!(manifest.tied_embeddings);
    assert_eq!(manifest.embed_scale, 8.0);
    assert!(manifest.notes.is_empty(), "{:?}", manifest.notes);
    let config = vindex.ancestor().unwrap().model_config.as_ref().unwrap();
    assert_eq!(config.sliding_window_pattern, Some(6));
    assert_eq!(config.query_pre_attn_scalar, Some(16.0));
    assert!(config.other.is_empty());
}

#[test]
fn verify_compares_what_has_a_checksum_and_says_what_has_none() {
    let scratch = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(sample("ancestor-llama2-f16.vindex")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), scratch.path().join(entry.file_name())).unwrap();
    }
    let files = DiskFiles::shared();
    let run = || verify(&files, scratch.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    let report = run();
    assert!(report.is_ok());
    let state = |name: &str| {
        let report = run();
        report.files.into_iter().find(|file| file.name == name).unwrap().state
    };
    assert_eq!(state("up_weights.bin"), FileState::Ok);
    assert_eq!(state("tokenizer.json"), FileState::Unchecked);
    let path = scratch.path().join("up_weights.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[17] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(state("up_weights.bin"), FileState::WrongChecksum { .. }));
    assert!(!run().is_ok());
}

#[test]
fn quantised_sample_has_the_ancestors_formats() {
    let Some(root) = std::env::var_os("LARQL_INTEROP") else {
        eprintln!("skipped: LARQL_INTEROP names no directory with ancestor-atlas-q4k.vindex");
        return;
    };
    let path = Path::new(&root).join("ancestor-atlas-q4k.vindex");
    let vindex = Vindex::open(&DiskFiles::shared(), &path).unwrap();
    for (role, dtype, shape) in [
        ("gate", "f16", [1024, 256]),
        ("up", "q4_k", [1024, 256]),
        ("down", "ancestor_q6_k", [256, 1024]),
        ("attention_query", "q4_k", [256, 256]),
        ("attention_value", "ancestor_q6_k", [128, 256]),
        ("attention_output", "q4_k", [256, 256]),
    ] {
        let found = record(&vindex, &TensorKey::layer(role, 5));
        assert_eq!((&*found.dtype, &found.shape[..]), (dtype, &shape[..]), "{role}");
        assert_eq!(found.columns_padded, None);
    }
    assert_eq!(vindex.manifest().quantisation.as_deref(), Some("q4k"));
    let notes = &vindex.manifest().notes;
    assert!(notes.iter().any(|note| note.starts_with("interleaved_q4k.bin")), "{notes:?}");
}

/// A small vindex in memory, whose `index.json` has `more` and whose files are these.
fn small(more: &str, files: &[(&str, Vec<u8>)]) -> Result<Vindex, VindexError> {
    let index = format!(
        r#"{{"version":2,"model":"m","family":"llama","num_layers":2,"hidden_size":4,
        "intermediate_size":3,"vocab_size":5,"embed_scale":1.0,"extract_level":"browse",
        "dtype":"f32","checksums":null{more}}}"#
    );
    let memory = MemoryFiles::new();
    memory.put(&Path::new(HOME).join("index.json"), index.as_bytes());
    for (name, bytes) in files {
        memory.put(&Path::new(HOME).join(name), bytes);
    }
    let memory: Arc<dyn Files> = Arc::new(memory);
    Vindex::open(&memory, Path::new(HOME))
}

const LAYERS: &str = r#","layers":[{"layer":0,"num_features":3,"offset":0,"length":48},
    {"layer":1,"num_features":3,"offset":48,"length":48}]"#;

/// One entry of a manifest of weights.
fn weight(key: &str, kind: &str, shape: &str, offset: u64, length: u64) -> Vec<u8> {
    format!(
        r#"[{{"key":"{key}","kind":"{kind}","shape":{shape},"offset":{offset},
        "length":{length},"file":"w.bin"}}]"#
    )
    .into_bytes()
}

#[test]
fn rows_that_are_no_whole_blocks_are_recorded_as_padded() {
    let manifest = |entries: &[(&str, [u64; 2], &str, u64)]| {
        let mut offset = 0;
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, [rows, columns], format, length)| {
                let entry = format!(
                    r#"{{"key":"layers.0.{key}","shape":[{rows},{columns}],"format":"{format}",
                    "offset":{offset},"length":{length}}}"#
                );
                offset += length;
                entry
            })
            .collect();
        format!("[{}]", entries.join(",")).into_bytes()
    };
    let attention = [
        ("self_attn.q_proj.weight", [6, 256], "Q4_K", 6 * 144),
        ("self_attn.v_proj.weight", [2, 256], "Q6_K", 2 * 210),
        ("self_attn.o_proj.weight", [4, 256], "Q4_K", 4 * 144),
    ];
    let ffn = [
        ("mlp.gate_proj.weight", [3, 256], "Q4_K", 3 * 144),
        ("mlp.up_proj.weight", [3, 256], "Q4_K", 3 * 144),
        ("mlp.down_proj.weight", [4, 256], "Q6_K", 4 * 210),
    ];
    let files = [
        ("attn_weights_q4k.bin", vec![0; 12 * 210]),
        ("attn_weights_q4k_manifest.json", manifest(&attention)),
        ("interleaved_q4k.bin", vec![0; 10 * 210]),
        ("interleaved_q4k_manifest.json", manifest(&ffn)),
        ("lm_head_q4.bin", vec![0; 5 * 144]),
    ];
    let vindex = small(r#","quant":"q4k""#, &files).unwrap();
    for (role, shape) in [
        ("attention_query", [6, 4]),
        ("attention_output", [4, 6]),
        ("gate", [3, 4]),
        ("down", [4, 3]),
    ] {
        let found = record(&vindex, &TensorKey::layer(role, 0));
        assert_eq!((found.columns_padded, &found.shape[..]), (Some(256), &shape[..]), "{role}");
    }
    let unembedding = record(&vindex, &TensorKey::model("unembedding"));
    assert_eq!((&*unembedding.dtype, unembedding.columns_padded), ("q4_k", Some(256)));
    // A width that does not follow from anything else is refused.
    let alone = manifest(&[("mlp.down_proj.weight", [4, 256], "Q6_K", 840)]);
    let files = [("interleaved_q4k.bin", vec![0; 840]), ("interleaved_q4k_manifest.json", alone)];
    let text = small("", &files).unwrap_err().to_string();
    assert!(text.contains("width is nowhere"), "{text}");
}

#[test]
fn experts_are_found_in_their_folder_and_in_the_gates() {
    let mixture = r#","layers":[{"layer":0,"num_features":4,"offset":0,"length":64,
        "num_experts":2,"num_features_per_expert":2}]"#;
    let vindex = small(mixture, &[("gate_vectors.bin", (0..64).collect())]).unwrap();
    let second = vindex.tensor(&TensorKey::expert("gate", 0, 1)).unwrap();
    assert_eq!((second.record.shape.clone(), second.bytes[0]), (vec![2, 4], 32));
    assert_eq!(vindex.manifest().features, [4, 0]);
    // Two experts of three features in f16, the second in front; down is padded to 256.
    let (gate_up, down) = (2 * 3 * 4 * 2_u64, 4 * 256 * 2_u64);
    let start = 24 + 2 * 32_u64;
    let table = [
        [start + gate_up + down, gate_up, start + 2 * gate_up + down, down],
        [start, gate_up, start + gate_up, down],
    ];
    let mut bytes = b"LYRW".to_vec();
    bytes.extend([1_u32, 1, 2, 3, 4].iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(table.iter().flatten().flat_map(|number| number.to_le_bytes()));
    bytes.resize((start + 2 * (gate_up + down)) as usize, 0);
    let name = "layers/layer_01.weights";
    let vindex = small(LAYERS, &[(name, bytes.clone()), ("layers/notes", vec![])]).unwrap();
    let up = record(&vindex, &TensorKey::expert("up", 1, 1));
    assert_eq!((up.offset, up.bytes, &*up.dtype), (start + gate_up / 2, gate_up / 2, "f16"));
    let down = record(&vindex, &TensorKey::expert("down", 1, 0));
    assert_eq!((&down.shape[..], down.columns_padded), (&[4, 3][..], Some(256)));
    assert!(vindex.manifest().notes[0].contains("layers/notes"));
    for length in 0..bytes.len() {
        if length % 97 != 0 && length > 120 {
            continue;
        }
        let error = small(LAYERS, &[(name, bytes[..length].to_vec())]).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }
    for (at, value, says) in [
        (0, 0, "LYRW"),
        (4, 2, "version"),
        (8, 9, "format 9"),
        (12, 255, "255 entries"),
        (16, 7, "7 features"),
        (20, 8, "rows of 8"),
        (24 + 7, 255, "reach beyond"),
        (24 + 8, 1, "bytes are not"),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] = value;
        let text = small(LAYERS, &[(name, damaged)]).unwrap_err().to_string();
        assert!(text.contains(says), "{at}: {text}");
    }
}

#[test]
fn fp4_matrices_have_the_ancestors_blocks() {
    let fp4 = |hidden: u64, version: u32, file: &str| {
        let index = format!(
            r#"{{"version":2,"family":"llama","num_layers":1,"hidden_size":{hidden},
            "intermediate_size":2,"vocab_size":5,"dtype":"f16",
            "layers":[{{"layer":0,"num_features":2,"offset":0,"length":0}}],
            "fp4":{{"fp4_format_version":{version},"block_elements":256,"sub_block_elements":32,
            "projections":{{"up":{{"precision":"fp4","file":"{file}"}},
            "down":{{"precision":"fp8","file":"down_features_fp8.bin"}}}}}}}}"#
        );
        let memory = MemoryFiles::new();
        memory.put(Path::new("/v/index.json"), index.as_bytes());
        memory.put(Path::new("/v/up_features_fp4.bin"), &[0; 2 * 2 * 137]);
        memory.put(Path::new("/v/down_features_fp8.bin"), &[0; 2 * 2 * 257]);
        let memory: Arc<dyn Files> = Arc::new(memory);
        Vindex::open(&memory, Path::new(HOME))
    };
    let vindex = fp4(512, 1, "up_features_fp4.bin").unwrap();
    for (role, dtype, bytes) in [("up", "ancestor_fp4", 548), ("down", "ancestor_fp8", 1_028)] {
        let found = record(&vindex, &TensorKey::layer(role, 0));
        assert_eq!((&*found.dtype, found.bytes, &found.shape[..]), (dtype, bytes, &[2, 512][..]));
    }
    for (outcome, says) in [
        (fp4(500, 1, "up_features_fp4.bin"), "whole blocks"),
        (fp4(512, 2, "up_features_fp4.bin"), "is not known"),
        (fp4(512, 1, "../secret"), "plain file name"),
        (fp4(512, 1, "absent.bin"), "absent.bin is missing"),
        (fp4(768, 1, "up_features_fp4.bin"), "reach beyond"),
    ] {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn counts_offsets_and_names_that_lie_are_refused_by_name() {
    for (more, says) in [
        (r#","num_layers":2"#, "duplicate field"),
        (r#","layers":[{"layer":2,"num_features":1,"offset":0,"length":16}]"#, "layer 2 of"),
        (
            r#","layers":[{"layer":0,"num_features":1,"offset":0,"length":16},
            {"layer":0,"num_features":1,"offset":0,"length":16}]"#,
            "layer 0 twice",
        ),
        (
            r#","layers":[{"layer":0,"num_features":9223372036854775807,"offset":0,"length":16}]"#,
            "overflows",
        ),
        (
            r#","layers":[{"layer":0,"num_features":3,"offset":18446744073709551600,"length":48}]"#,
            "reach beyond",
        ),
        (r#","layers":[{"layer":0,"num_features":3,"offset":49,"length":48}]"#, "reach beyond"),
        (r#","layers":[{"layer":0,"num_features":3,"offset":0,"length":47}]"#, "neither f16"),
        (
            r#","layers":[{"layer":0,"num_features":3,"offset":0,"length":48,"num_experts":2}]"#,
            "2 experts",
        ),
        (
            r#","layers":[{"layer":0,"num_features":0,"offset":0,"length":0,
            "num_experts":4294967295}]"#,
            "experts",
        ),
        (
            r#","layers":[{"layer":0,"num_features":4294967295,"offset":0,"length":34359738360,
            "num_experts":4294967295}]"#,
            "reach beyond the 96",
        ),
        (r#","quant":"q5x""#, "q5x"),
        (r#","layer_bands":{"syntax":[0,1],"knowledge":[1,9],"output":[1,1]}"#, "band 1-9"),
    ] {
        let error = small(more, &[("gate_vectors.bin", vec![0; 96])]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("index.json") && text.contains(says), "{says}: {text}");
        assert!(!error.hint().is_empty());
    }
    let layers = r#"{"version":2,"family":"x","num_layers":4294967295,"hidden_size":1,
        "intermediate_size":1,"vocab_size":1}"#;
    let memory = MemoryFiles::new();
    memory.put(Path::new("/v/index.json"), layers.as_bytes());
    let memory: Arc<dyn Files> = Arc::new(memory);
    let text = Vindex::open(&memory, Path::new(HOME)).unwrap_err().to_string();
    assert!(text.contains("4294967295 layers"), "{text}");
    for (entry, says) in [
        (weight("norm.weight", "vector", "[4]", 0, 15), "neither f16"),
        (weight("norm.weight", "vector", "[4]", 1, 16), "reach beyond"),
        (weight("norm.weight", "vector", "[4]", u64::MAX, 16), "reach beyond"),
        (weight("norm.weight", "vector", "[4294967296,4294967296]", 0, 0), "overflows"),
        (weight("norm.weight", "tensor_q9", "[4]", 0, 16), "tensor_q9"),
        (weight("layers.7.mlp.up_proj.weight", "tensor", "[4]", 0, 16), "layer 7"),
        (b"[{}]".to_vec(), "missing field"),
        (b"[".repeat(100_000), "invalid"),
    ] {
        let files = [("weight_manifest.json", entry), ("w.bin", vec![0; 16])];
        let text = small("", &files).unwrap_err().to_string();
        assert!(text.contains(says), "{says}: {text}");
    }
    let elsewhere = weight("norm.weight", "vector", "[4]", 0, 16);
    let elsewhere = String::from_utf8(elsewhere).unwrap().replace("w.bin", "../w.bin");
    let files = [("weight_manifest.json", elsewhere.into_bytes())];
    let text = small("", &files).unwrap_err().to_string();
    assert!(text.contains("plain file name"), "{text}");
    let down_meta = [0x444D_4554_u32, 1, 2, 1, 9, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let error = small(LAYERS, &[("down_meta.bin", down_meta)]).unwrap_err();
    assert!(matches!(error, VindexError::FeatureTable { .. }), "{error}");
}

#[test]
fn both_byte_orders_of_the_magic_of_down_meta_are_read() {
    for magic in [0x444D_4554_u32, 0x444D_4554_u32.swap_bytes()] {
        let table = [magic, 1, 2, 1, 1, 7, 0, 7, 0, 0];
        let table = table.iter().flat_map(|number| number.to_le_bytes()).collect();
        let layers = r#","layers":[{"layer":0,"num_features":1,"offset":0,"length":16}]"#;
        let vindex = small(layers, &[("down_meta.bin", table)]).unwrap();
        assert_eq!(vindex.down_meta().unwrap().feature(0, 0).unwrap().top_token_id(), 7);
    }
}

#[test]
fn vindex_of_version_two_is_replaced_when_asked() {
    let memory = MemoryFiles::new();
    memory.put(Path::new("/v/index.json"), br#"{"version":2}"#);
    let files: Arc<dyn Files> = Arc::new(memory);
    assert!(VindexWriter::check_destination(&files, Path::new(HOME), false).is_err());
    VindexWriter::check_destination(&files, Path::new(HOME), true).unwrap();
}

#[test]
fn more_experts_than_any_model_has_are_refused_though_the_file_holds_them() {
    let layers = r#","layers":[{"layer":0,"num_features":4097,"offset":0,"length":32776,
        "num_experts":4097}]"#;
    let error = small(layers, &[("gate_vectors.bin", vec![0; 32_776])]).unwrap_err();
    assert!(error.to_string().contains("the most is 4096"), "{error}");
}

#[test]
fn routers_of_a_model_without_layers_may_not_overflow() {
    let index =
        br#"{"version":2,"family":"mixtral","num_layers":0,"hidden_size":18446744073709551615,
        "intermediate_size":1,"vocab_size":1,"model_config":{"model_type":"mixtral","head_dim":1,
        "num_q_heads":1,"num_kv_heads":1,"rope_base":1.0,
        "moe":{"num_experts":4294967295,"top_k":1}}}"#;
    let memory = MemoryFiles::new();
    memory.put(Path::new("/v/index.json"), index);
    memory.put(Path::new("/v/router_weights.bin"), &[]);
    let memory: Arc<dyn Files> = Arc::new(memory);
    let text = Vindex::open(&memory, Path::new(HOME)).unwrap_err().to_string();
    assert!(text.contains("router_weights.bin") && text.contains("overflows"), "{text}");
}

#[test]
fn remarks_on_many_tensors_are_one_and_remarks_have_a_bound() {
    let entries: Vec<String> = (0..30_000)
        .map(|number| {
            format!(
                r#"{{"key":"other.{number}","kind":"vector","shape":[0],"offset":0,"length":0,
                "file":"w.bin"}}"#
            )
        })
        .collect();
    let manifest = format!("[{}]", entries.join(",")).into_bytes();
    let files = [("weight_manifest.json", manifest), ("w.bin", Vec::new())];
    let vindex = small("", &files).unwrap();
    let notes = &vindex.manifest().notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("30000 tensors") && notes[0].contains("other.0 "), "{notes:?}");
    let strangers: Vec<String> = (0..300).map(|number| format!("layers/x{number}")).collect();
    let files: Vec<_> = strangers.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let notes = small("", &files).unwrap().manifest().notes.clone();
    assert_eq!(notes.len(), 101);
    assert!(notes[100].contains("more remarks"), "{notes:?}");
}

#[test]
fn what_decides_the_answers_is_in_the_identity_and_labels_are_not() {
    let hash = |name: &'static str, content: &str| {
        let files = [(name, content.as_bytes().to_vec())];
        small("", &files).unwrap().manifest().base_hash.clone()
    };
    let bare = small("", &[]).unwrap().manifest().base_hash.clone();
    for name in ["config.json", "generation_config.json", "tokenizer.json"] {
        let (first, second) = (hash(name, "{}"), hash(name, "{} "));
        assert!(first != bare && first != second, "{name}");
        assert_eq!(first, hash(name, "{}"), "{name}");
    }
    assert_ne!(hash("config.json", "{}"), hash("tokenizer.json", "{}"));
    assert_eq!(hash("chat_template.jinja", "x"), bare);
}
