//! A vindex comes back as it was written, is never half there, and every damage is named.

use larql_storage::file::{DiskFiles, Fault, FaultyFiles, Files, MemoryFiles, Operation};
use larql_storage::vindex::{
    Checksum, FileState, InputToken, Labels, LayerBands, LayerScores, Layout, Manifest,
    ManifestHeader, Source, SourceFile, Statistics, TensorKey, TensorRecord, VerifyStep, Vindex,
    VindexError, VindexWriteError, VindexWriter, WritePlan, down_meta, gate_meta, verify,
};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LAYERS: u32 = 3;
const FEATURES: u32 = 5;

fn header() -> ManifestHeader {
    ManifestHeader {
        generator: "test 1".to_owned(),
        model: "Ätlas".to_owned(),
        family: "gemma3".to_owned(),
        level: "browse".to_owned(),
        quantisation: None,
        dtype: "f16".to_owned(),
        base_hash: "cd".repeat(32),
        source: Source {
            name: "atlas".to_owned(),
            files: vec![SourceFile {
                name: "model.safetensors".to_owned(),
                sha256: Checksum::of(b"m"),
            }],
        },
        layers: LAYERS,
        hidden_size: 7,
        vocabulary_size: 11,
        features: vec![u64::from(FEATURES); LAYERS as usize],
        embed_scale: 0.1 + 0.2,
        bands: Some(LayerBands { syntax: [0, 0], knowledge: [1, 1], output: [2, 2] }),
        tied_embeddings: true,
        notes: vec!["a note".to_owned()],
    }
}

fn gate(layer: u32) -> (TensorRecord, Vec<u8>) {
    let bytes: Vec<u8> = (0..70).map(|n| n as u8 ^ (layer as u8 * 77)).collect();
    let record = TensorRecord {
        name: format!("model.layers.{layer}.mlp.gate_proj.weight"),
        role: "gate".to_owned(),
        layer: Some(layer),
        expert: None,
        dtype: "f16".to_owned(),
        shape: vec![u64::from(FEATURES), 7],
        columns_padded: None,
        scales: None,
        layout: Layout::RowMajor,
        offset: 0,
        bytes: bytes.len() as u64,
    };
    (record, bytes)
}

fn embeddings() -> (TensorRecord, Vec<u8>) {
    let bytes = vec![9; 11 * 7 * 4];
    let record = TensorRecord {
        name: "embed".to_owned(),
        role: "embedding".to_owned(),
        layer: None,
        dtype: "f32".to_owned(),
        shape: vec![11, 7],
        bytes: bytes.len() as u64,
        ..gate(0).0
    };
    (record, bytes)
}

fn statistics() -> Statistics {
    let scores = |n: u32| LayerScores { mean: f64::from(n) / 3.0, deviation: 0.1, samples: 5_000 };
    Statistics { gate_scores: vec![Some(scores(0)), None, Some(scores(2))] }
}

fn labels() -> Labels {
    let mut labels = Labels::default();
    labels.insert(1, 4, "Hauptstadt");
    labels
}

type Outcome<T> = Result<T, VindexWriteError>;

/// Writes the tensors that are missing, a layer at a time, then the side files.
fn fill(writer: &mut VindexWriter) -> Outcome<()> {
    let (record, bytes) = embeddings();
    if !writer.has("embeddings.bin", &record.key()) {
        writer.tensor("embeddings.bin", record, &mut |out| out.write_all(&bytes))?;
    }
    if !writer.has_part("down_meta.bin", "header") {
        writer.append_part("down_meta.bin", "header", &down_meta::encode_header(LAYERS, 2))?;
    }
    for layer in 0..LAYERS {
        let (record, bytes) = gate(layer);
        if !writer.has("gate_vectors.bin", &record.key()) {
            // In small pieces, as a converting caller writes.
            let mut pieces =
                |out: &mut dyn Write| bytes.chunks(9).try_for_each(|chunk| out.write_all(chunk));
            writer.tensor("gate_vectors.bin", record, &mut pieces)?;
        }
        let part = format!("layer {layer}");
        if !writer.has_part("down_meta.bin", &part) {
            let token = |n: u32| down_meta::FeatureRecord {
                tokens: (0..n).map(|k| (layer * 10 + k, 3.0 - k as f32)).collect(),
            };
            let features = [token(2), token(1), token(0), token(2), token(2)];
            let mut bytes = Vec::new();
            down_meta::encode_layer(&mut bytes, 2, &features);
            writer.append_part("down_meta.bin", &part, &bytes)?;
        }
        writer.commit()?;
    }
    let mut tokens = gate_meta::encode_header(LAYERS).to_vec();
    for layer in 0..LAYERS {
        let token = InputToken { token_id: layer, score: 1.5 };
        gate_meta::encode_layer(&mut tokens, &[Some(token), None, Some(token), None, None]);
    }
    writer.side_file("gate_meta.bin", &tokens)?;
    writer.side_file("statistics.json", &statistics().encode())?;
    writer.side_file("feature_labels.json", &labels().encode())?;
    writer.side_file("config.json", b"{\"model_type\":\"gemma3\"}")
}

fn plan() -> WritePlan {
    WritePlan { fingerprint: "atlas f16".to_owned(), ..WritePlan::default() }
}

fn write(files: &Arc<dyn Files>, destination: &Path, plan: &WritePlan) -> Outcome<Manifest> {
    let mut writer = VindexWriter::create(files, destination, plan)?;
    fill(&mut writer)?;
    writer.finish(header())
}

/// An empty tree with a vindex directory's path in it.
fn memory() -> (Arc<dyn Files>, PathBuf) {
    let files = MemoryFiles::shared();
    files.create_dir_all(Path::new("/work")).unwrap();
    (files, PathBuf::from("/work/atlas.vindex"))
}

/// Every file of a directory with its bytes.
fn contents(files: &Arc<dyn Files>, directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = files.list(directory).unwrap().into_iter();
    let read = |name: String| (name.clone(), files.read(&directory.join(name), u64::MAX).unwrap());
    names.map(|name| read(name.into_string().unwrap())).collect()
}

fn put(files: &Arc<dyn Files>, path: &Path, bytes: &[u8]) {
    files.create(path).unwrap().write_all(bytes).unwrap();
}

fn is_intact(files: &Arc<dyn Files>, directory: &Path) -> bool {
    verify(files, directory, &mut |_| ControlFlow::Continue(())).unwrap().is_ok()
}

/// What an uninterrupted run writes.
fn reference() -> Vec<(String, Vec<u8>)> {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    contents(&files, &path)
}

#[test]
fn everything_written_is_read_back_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (files, path) = (DiskFiles::shared(), directory.path().join("new/atlas.vindex"));
    let manifest = write(&files, &path, &plan()).unwrap();
    let vindex = Vindex::open(&files, &path).unwrap();
    assert_eq!(*vindex.manifest(), manifest);
    assert_eq!(vindex.manifest().header, header());
    for layer in 0..LAYERS {
        let (record, bytes) = gate(layer);
        let found = vindex.tensor(&TensorKey::layer("gate", layer)).unwrap();
        assert_eq!(found.bytes, bytes);
        assert_eq!(found.bytes.as_ptr().align_offset(64), 0);
        assert_eq!(*found.record, TensorRecord { offset: u64::from(layer) * 128, ..record });
    }
    assert_eq!(vindex.tensor(&TensorKey::model("embedding")).unwrap().bytes, embeddings().1);
    assert!(vindex.tensor(&TensorKey::layer("gate", LAYERS)).is_none());
    assert!(vindex.tensor(&TensorKey::expert("gate", 0, 0)).is_none());
    assert_eq!(vindex.tensors().count(), 4);

    let down = vindex.down_meta().unwrap();
    assert_eq!((down.layers(), down.features(2), down.top_k(), down.record_bytes()), (3, 5, 2, 24));
    let tokens = down.feature(2, 0).unwrap();
    assert_eq!((tokens.top_token_id(), tokens.score()), (20, 3.0));
    assert_eq!(tokens.tokens().collect::<Vec<_>>(), [(20, 3.0), (21, 2.0)]);
    assert_eq!(down.feature(2, 1).unwrap().tokens().collect::<Vec<_>>(), [(20, 3.0)]);
    assert_eq!(down.feature(0, 0).unwrap().tokens().count(), 2, "token 0 is a token");
    for (layer, feature) in [(2, 2), (2, 5), (3, 0), (u32::MAX, u32::MAX)] {
        assert!(down.feature(layer, feature).is_none(), "{layer} {feature}");
    }
    let gates = vindex.gate_meta().unwrap();
    assert_eq!(gates.feature(2, 2), Some(InputToken { token_id: 2, score: 1.5 }));
    assert_eq!((gates.feature(2, 1), gates.feature(2, 5), gates.features(3)), (None, None, 0));
    assert_eq!(*vindex.statistics().unwrap(), statistics());
    assert_eq!(vindex.labels().unwrap().get(1, 4), Some("Hauptstadt"));
    assert_eq!(vindex.side_file("config.json").unwrap().unwrap(), b"{\"model_type\":\"gemma3\"}");
    assert_eq!(vindex.side_file("tokenizer.json").unwrap(), None);
    let index_bytes = files.metadata(&path.join("index.json")).unwrap().length;
    let on_disk: u64 = contents(&files, &path).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(vindex.bytes(), on_disk - index_bytes);
    vindex.check().unwrap();
    assert_eq!(
        std::fs::read_dir(directory.path().join("new")).unwrap().count(),
        1,
        "nothing is left over"
    );
    assert_eq!(files.list(&path).unwrap().len(), manifest.files.len() + 1, "the journal is gone");
    assert!(is_intact(&files, &path));
}

#[test]
fn same_input_gives_the_same_bytes_in_memory_and_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (files, path) = (DiskFiles::shared(), directory.path().join("atlas.vindex"));
    write(&files, &path, &plan()).unwrap();
    assert_eq!(contents(&files, &path), reference());
}

#[test]
fn one_bit_flipped_in_any_file_is_found_by_verify_which_names_it() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    for (name, bytes) in contents(&files, &path) {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            put(&files, &path.join(&name), &flipped);
            let named = match verify(&files, &path, &mut |_| ControlFlow::Continue(())) {
                Ok(report) => {
                    let damaged: Vec<_> = report.damaged().collect();
                    assert!(
                        matches!(damaged[0].state, FileState::WrongChecksum { .. }),
                        "{damaged:?}"
                    );
                    assert_eq!(damaged.len(), 1);
                    damaged[0].name.clone()
                }
                Err(error) => {
                    assert!(Vindex::open(&files, &path).is_err(), "{name} opens");
                    error.to_string()
                }
            };
            assert!(named.contains(&name), "{name} at {at}: {named}");
        }
        put(&files, &path.join(&name), &bytes);
    }
    assert!(is_intact(&files, &path));
}

#[test]
fn every_bit_flipped_in_the_manifest_is_found_at_open() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    let text = files.read(&path.join("index.json"), u64::MAX).unwrap();
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(Manifest::parse(&flipped).is_err(), "byte {at}");
    }
}

#[test]
fn every_truncated_missing_or_swapped_file_is_refused_at_open_by_name() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    for (name, bytes) in contents(&files, &path) {
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            put(&files, &path.join(&name), &bytes[..length]);
            let text = Vindex::open(&files, &path).unwrap_err().to_string();
            assert!(text.contains(&name), "{name} cut to {length}: {text}");
        }
        put(&files, &path.join(&name), &[&bytes[..], b"x"].concat());
        let text = Vindex::open(&files, &path).unwrap_err().to_string();
        assert!(text.contains(&name), "{name} grown: {text}");
        files.remove_file(&path.join(&name)).unwrap();
        let error = Vindex::open(&files, &path).unwrap_err();
        if name == "index.json" {
            assert!(matches!(error, VindexError::NotAVindex { .. }), "{error}");
        } else {
            assert!(
                matches!(&error, VindexError::MissingFile { path } if path.ends_with(&name)),
                "{error}"
            );
            let report = verify(&files, &path, &mut |_| ControlFlow::Continue(())).unwrap();
            let damaged: Vec<_> = report.damaged().map(|file| (&*file.name, &file.state)).collect();
            assert_eq!(damaged, [(&*name, &FileState::Missing)]);
        }
        put(&files, &path.join(&name), &bytes);
    }
    let error = Vindex::open(&files, Path::new("/work/nowhere")).unwrap_err();
    assert!(matches!(error, VindexError::NoSuchDirectory { .. }), "{error}");
}

#[test]
fn verify_stops_when_asked_and_says_so() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    let mut seen = 0;
    let report = verify(&files, &path, &mut |step| {
        seen += u32::from(matches!(step, VerifyStep::File(_)));
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.unwrap();
    assert_eq!((report.files.len(), report.stopped, report.is_ok()), (2, true, false));
}

#[test]
fn verify_stops_within_a_file_when_asked() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    let report = verify(&files, &path, &mut |step| match step {
        VerifyStep::Read { .. } => ControlFlow::Break(()),
        VerifyStep::File(_) => ControlFlow::Continue(()),
    });
    let report = report.unwrap();
    assert_eq!((report.files.len(), report.stopped, report.is_ok()), (1, true, false));
}

#[test]
fn links_inside_a_vindex_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (files, path) = (DiskFiles::shared(), directory.path().join("atlas.vindex"));
    write(&files, &path, &plan()).unwrap();
    let (inside, outside) = (path.join("config.json"), directory.path().join("config.json"));
    std::fs::rename(&inside, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &inside).unwrap();
    let text = Vindex::open(&files, &path).unwrap_err().to_string();
    assert!(text.contains("config.json") && text.contains("symbolic link"), "{text}");
    let report = verify(&files, &path, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(matches!(report.damaged().next().unwrap().state, FileState::Unreadable { .. }));
}

#[test]
fn file_truncated_under_a_mount_is_named_by_check() {
    let directory = tempfile::tempdir().unwrap();
    let (files, path) = (DiskFiles::shared(), directory.path().join("atlas.vindex"));
    write(&files, &path, &plan()).unwrap();
    let vindex = Vindex::open(&files, &path).unwrap();
    let name = path.join("gate_vectors.bin");
    std::fs::File::options().write(true).open(name).unwrap().set_len(0).unwrap();
    assert_eq!(vindex.tensor(&TensorKey::layer("gate", 1)).unwrap().bytes, [0; 70]);
    let text = vindex.check().unwrap_err().to_string();
    assert!(text.contains("gate_vectors.bin was truncated while mounted"), "{text}");
}

/// A manifest with something changed, encoded and parsed again.
fn reparsed(change: impl FnOnce(&mut Manifest)) -> String {
    let (files, path) = memory();
    let mut manifest = write(&files, &path, &plan()).unwrap();
    change(&mut manifest);
    Manifest::parse(&manifest.encode()).unwrap_err().to_string()
}

#[test]
fn manifest_that_contradicts_itself_is_refused() {
    fn gates(manifest: &mut Manifest) -> &mut Vec<TensorRecord> {
        let gates = manifest.files.iter_mut().find(|file| file.name == "gate_vectors.bin");
        &mut gates.unwrap().tensors
    }
    type Change = fn(&mut Manifest);
    let cases: [(&str, Change); 17] = [
        ("version is 2", |m| m.version = 2),
        ("version is 4", |m| m.version = 4),
        ("layer 3 of a model with 3 layers", |m| gates(m)[2].layer = Some(LAYERS)),
        ("stored twice", |m| gates(m)[2].layer = Some(1)),
        ("not a multiple of 64", |m| gates(m)[1].offset = 100),
        ("overlap", |m| gates(m)[1].offset = 64),
        ("overlap", |m| gates(m).swap(0, 1)),
        ("reach beyond", |m| gates(m)[2].bytes += 1),
        ("reach beyond", |m| gates(m)[2].bytes = u64::MAX),
        ("overflows", |m| gates(m)[2].shape = vec![1 << 32, 1 << 32]),
        ("9 dimensions", |m| gates(m)[2].shape = vec![1; 9]),
        ("not a plain file name", |m| m.files[0].name = "../config.json".to_owned()),
        ("not a plain file name", |m| m.files[0].name = "index.json".to_owned()),
        ("listed twice", |m| m.files[0].name = m.files[1].name.clone()),
        ("feature counts", |m| m.header.features.clear()),
        ("the most is 65536", |m| m.header.layers = u32::MAX),
        ("band 1-3", |m| m.header.bands.as_mut().unwrap().knowledge = [1, 3]),
    ];
    for (says, change) in cases {
        let text = reparsed(change);
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn unknown_fields_are_tolerated_and_text_that_is_no_manifest_is_refused() {
    let (files, path) = memory();
    let manifest = write(&files, &path, &plan()).unwrap();
    let text = String::from_utf8(manifest.encode()).unwrap();
    let (body, _) = text.rsplit_once("\"manifest_sha256\"").unwrap();
    let body =
        body.replace("\"generator\"", "\"from the future\": {\"deep\": [1]},\n  \"generator\"");
    let seal = Checksum::of(body.as_bytes());
    let extended = format!("{body}\"manifest_sha256\": \"{seal}\"\n}}\n");
    assert_eq!(Manifest::parse(extended.as_bytes()).unwrap(), manifest);
    let deep = format!("{{\"version\":3,\"x\":{}", "[".repeat(100_000));
    for bad in ["", "{}", "[]", "null", "{\"version\":-3}", "{\"version\":3}", &deep] {
        assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad:.40}");
    }
}

/// Replaces a side file's bytes and keeps the manifest true, then opens.
fn open_with(name: &str, bytes: &[u8]) -> Result<Vindex, VindexError> {
    let (files, path) = memory();
    let mut writer = VindexWriter::create(&files, &path, &plan()).unwrap();
    writer.side_file(name, bytes).unwrap();
    writer.finish(header()).unwrap();
    Vindex::open(&files, &path)
}

#[test]
fn feature_tables_with_lying_counts_are_refused_by_name() {
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let down = down_meta::MAGIC;
    let gate = gate_meta::MAGIC;
    for (name, bytes, says) in [
        ("down_meta.bin", words(&[]), "ends inside the header"),
        ("down_meta.bin", words(&[1, 1, 3, 2]), "magic"),
        ("down_meta.bin", words(&[down, 2, 3, 2]), "version is 2"),
        ("down_meta.bin", words(&[down, 1, u32::MAX, 2]), "feature counts"),
        ("down_meta.bin", words(&[down, 1, 3, 2, u32::MAX, 0, 0]), "features of layer 0"),
        ("down_meta.bin", words(&[down, 1, 3, u32::MAX, 0, 1, 0]), "features of layer 1"),
        ("down_meta.bin", words(&[down, 1, 3, 0, 0, 0, 0, 0]), "4 bytes follow"),
        ("down_meta.bin", words(&[down, 1, 2, 0, 0, 0]), "it has 2 layers"),
        ("down_meta.bin", words(&[down, 1, 3, 0, 1, 0, 0, 0, 0]), "layer 0 has 1 features"),
        ("gate_meta.bin", words(&[down, 1, 3, 0, 0, 0]), "magic"),
        ("gate_meta.bin", words(&[gate, 2, 3, 0, 0, 0]), "version is 2"),
        ("gate_meta.bin", words(&[gate, 1, u32::MAX, 0, 0]), "feature counts"),
        ("gate_meta.bin", words(&[gate, 1, 3, 1, 0, 0, 0]), "layer 2"),
        ("statistics.json", b"{\"gate_scores\":[]}".to_vec(), "0 layers"),
        ("statistics.json", b"{}".to_vec(), "gate_scores"),
        ("feature_labels.json", b"{\"L3_F0\":\"x\"}".to_vec(), "L3_F0"),
        ("feature_labels.json", b"{\"L0_F5\":\"x\"}".to_vec(), "L0_F5"),
        ("feature_labels.json", b"[]".to_vec(), "invalid type"),
    ] {
        let error = open_with(name, &bytes).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(name), "{says}: {text}");
        assert!(!error.hint().is_empty());
    }
    let ancestor = words(&[down.swap_bytes(), 1, 3, 0, 0, 0, 0]);
    assert_eq!(open_with("down_meta.bin", &ancestor).unwrap().down_meta().unwrap().layers(), 3);
}

#[test]
fn destination_in_use_is_refused_and_overwrite_replaces_only_a_vindex() {
    let (files, path) = memory();
    write(&files, &path, &plan()).unwrap();
    let error = write(&files, &path, &plan()).unwrap_err();
    assert!(matches!(error, VindexWriteError::DestinationExists { .. }), "{error}");
    assert!(error.hint().contains("OVERWRITE"));
    let over = WritePlan { overwrite: true, ..plan() };
    let mut writer = VindexWriter::create(&files, &path, &over).unwrap();
    writer.side_file("config.json", b"new").unwrap();
    assert!(is_intact(&files, &path), "the old one stays until the end");
    writer.finish(header()).unwrap();
    let names = files.list(&path).unwrap();
    assert_eq!(names, ["config.json", "index.json"]);
    assert_eq!(files.list(Path::new("/work")).unwrap(), ["atlas.vindex"]);

    let other = PathBuf::from("/work/home");
    files.create_dir_all(&other).unwrap();
    put(&files, &other.join("thesis.txt"), b"important");
    let error = write(&files, &other, &over).unwrap_err();
    assert!(matches!(error, VindexWriteError::DestinationIsNotAVindex { .. }), "{error}");
    assert_eq!(files.list(&other).unwrap(), ["thesis.txt"]);
    let partial = PathBuf::from("/work/fresh.partial");
    files.create_dir_all(&partial).unwrap();
    put(&files, &partial.join("thesis.txt"), b"important");
    let error = write(&files, Path::new("/work/fresh"), &plan()).unwrap_err();
    assert!(matches!(error, VindexWriteError::Staging { .. }), "{error}");
    assert_eq!(files.list(&partial).unwrap(), ["thesis.txt"]);
}

#[test]
fn second_writer_of_one_destination_is_told_to_wait() {
    let directory = tempfile::tempdir().unwrap();
    let (memory, path) = memory();
    for (files, path) in [(memory, path), (DiskFiles::shared(), directory.path().join("a.vindex"))]
    {
        let first = VindexWriter::create(&files, &path, &plan()).unwrap();
        let error = VindexWriter::create(&files, &path, &plan()).unwrap_err();
        assert!(matches!(error, VindexWriteError::Busy { .. }), "{error}");
        drop(first);
        write(&files, &path, &plan()).unwrap();
    }
}

#[test]
fn run_of_another_source_is_not_continued_and_is_discarded_without_resume() {
    let (files, path) = memory();
    let mut writer = VindexWriter::create(&files, &path, &plan()).unwrap();
    let (record, bytes) = embeddings();
    writer.tensor("old.bin", record.clone(), &mut |out| out.write_all(&bytes)).unwrap();
    drop(writer);
    let resume = WritePlan { resume: true, fingerprint: "other".to_owned(), ..plan() };
    let error = VindexWriter::create(&files, &path, &resume).unwrap_err();
    assert!(matches!(error, VindexWriteError::FingerprintMismatch { .. }), "{error}");
    let resume = WritePlan { resume: true, ..plan() };
    let writer = VindexWriter::create(&files, &path, &resume).unwrap();
    assert!(writer.has("old.bin", &record.key()), "an interrupted run keeps what was complete");
    drop(writer);
    write(&files, &path, &plan()).unwrap();
    assert_eq!(contents(&files, &path), reference());
}

#[test]
fn wrong_lengths_duplicates_and_bad_names_are_refused() {
    let (files, path) = memory();
    let start = || {
        let over = WritePlan { overwrite: true, ..plan() };
        VindexWriter::create(&files, &path, &over).unwrap()
    };
    for length in [0, 69, 71] {
        let mut writer = start();
        let bytes = vec![0; length];
        let error = writer.tensor("a", gate(0).0, &mut |out| out.write_all(&bytes)).unwrap_err();
        assert!(
            matches!(error, VindexWriteError::WrongLength { expected: 70, .. }),
            "{length}: {error}"
        );
        assert!(matches!(writer.finish(header()), Err(VindexWriteError::Poisoned)));
    }
    let mut writer = start();
    let error = writer.tensor("a", gate(0).0, &mut |_| Err(io::ErrorKind::Interrupted.into()));
    assert!(matches!(error, Err(VindexWriteError::Io { .. })), "{error:?}");
    drop(writer);
    let mut writer = start();
    let mut tensor = |file: &str, layer| {
        let (record, bytes) = gate(layer);
        writer.tensor(file, record, &mut |out| out.write_all(&bytes))
    };
    tensor("a", 0).unwrap();
    assert!(matches!(tensor("b", 0), Err(VindexWriteError::Duplicate { .. })));
    for name in ["../a", "index.json", ".extract_journal", "", "a/b"] {
        assert!(matches!(tensor(name, 1), Err(VindexWriteError::FileName { .. })), "{name}");
    }
    for name in ["../a", "index.json", ".extract_journal", "a/b"] {
        let error = writer.side_file(name, b"").unwrap_err();
        assert!(matches!(error, VindexWriteError::FileName { .. }), "{name}");
    }
    assert!(matches!(writer.side_file("a", b""), Err(VindexWriteError::Duplicate { .. })));
    assert!(matches!(writer.append_part("a", "p", b""), Err(VindexWriteError::FileName { .. })));
    writer.append_part("p", "1", b"x").unwrap();
    assert!(matches!(writer.append_part("p", "1", b"x"), Err(VindexWriteError::Duplicate { .. })));
    let wrong = ManifestHeader { layers: 0, features: vec![], bands: None, ..header() };
    let error = writer.finish(wrong).unwrap_err();
    assert!(matches!(error, VindexWriteError::Manifest { .. }), "{error}");
    assert!(Vindex::open(&files, &path).is_err());
}

#[test]
fn side_file_is_not_written_through_a_hard_link_that_somebody_left() {
    let directory = tempfile::tempdir().unwrap();
    let (files, path) = (DiskFiles::shared(), directory.path().join("atlas.vindex"));
    let base = directory.path().join("base");
    std::fs::write(&base, b"base").unwrap();
    let mut writer = VindexWriter::create(&files, &path, &plan()).unwrap();
    for name in ["config.json", "embeddings.bin"] {
        std::fs::hard_link(&base, writer.staging().join(name)).unwrap();
    }
    fill(&mut writer).unwrap();
    writer.finish(header()).unwrap();
    assert_eq!(std::fs::read(&base).unwrap(), b"base");
    assert!(is_intact(&files, &path));
}

/// How a run before the sweep left things.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    OldVindex,
}

/// Writes under a fault, then after it (and perhaps a loss of power) checks that the destination is
/// absent, old or new, and that a resumed run ends with the reference's bytes.
fn sweep_one(fault: Fault, power_lost: bool, before: Before, exchange: bool) -> bool {
    let case = format!("{fault:?}, power lost: {power_lost}, {before:?}, exchange: {exchange}");
    let (inner, path) = memory();
    let over = WritePlan { overwrite: before == Before::OldVindex, ..plan() };
    if before == Before::OldVindex {
        let mut writer = VindexWriter::create(&inner, &path, &plan()).unwrap();
        writer.side_file("old.txt", b"old").unwrap();
        writer.finish(header()).unwrap();
    }
    let old = (before == Before::OldVindex).then(|| contents(&inner, &path));
    let faulty = FaultyFiles::new(inner.clone(), Some(fault));
    let faulty = if exchange { faulty } else { faulty.without_exchange() };
    let files: Arc<dyn Files> = Arc::new(faulty.clone());
    let outcome = write(&files, &path, &over);
    if power_lost {
        faulty.crash().unwrap();
    }
    // Where it was written nothing opens, except what an exchange put there.
    let staging = path.with_extension("vindex.partial");
    assert!(
        Vindex::open(&inner, &staging).is_err() || Some(contents(&inner, &staging)) == old,
        "{case}: the staging directory opens"
    );
    let new = reference();
    match Vindex::open(&inner, &path) {
        Ok(_) => {
            assert!(is_intact(&inner, &path), "{case}: a damaged vindex opens");
            let mut found = contents(&inner, &path);
            found.retain(|(name, _)| name != ".extract_journal");
            assert!(found == new || Some(&found) == old.as_ref(), "{case}: neither old nor new");
            assert!(outcome.is_err() || found == new, "{case}: success, but the old one is there");
        }
        Err(error) => {
            assert!(outcome.is_err(), "{case}: success, but {error}");
            if before == Before::OldVindex {
                // Without exchange there is a moment between two renames; then it stands aside.
                assert!(!exchange, "{case}: the old vindex is gone");
            } else {
                assert!(matches!(error, VindexError::NoSuchDirectory { .. }), "{case}: {error}");
            }
        }
    }
    if outcome.is_err() {
        // The next run, of a healthy process; the lock went with the old one.
        let again = WritePlan { overwrite: true, resume: true, ..plan() };
        write(&inner, &path, &again).unwrap_or_else(|error| panic!("{case}: resume: {error}"));
        assert_eq!(contents(&inner, &path), new, "{case}: resumed bytes differ");
        let left = inner.list(Path::new("/work")).unwrap();
        let strays: Vec<_> = left.iter().filter(|name| *name != "atlas.vindex").collect();
        // An overwrite that was stopped after both renames leaves the replaced one, no more.
        assert!(
            strays.iter().all(|name| *name == "atlas.vindex.replaced" && !exchange),
            "{case}: {left:?}"
        );
    }
    outcome.is_err()
}

/// Every place of a fault, until it comes too late to happen.
fn sweep(fault: impl Fn(usize) -> Fault, step: usize, before: Before, exchange: bool) -> usize {
    let happened = |at: usize| {
        let outcomes =
            [false, true].map(|power_lost| sweep_one(fault(at), power_lost, before, exchange));
        outcomes[0]
    };
    let mut quiet = 0;
    let mut last = 0;
    for at in (0..).step_by(step) {
        // Faults in what may fail unnoticed (clearing up) are followed by others that are not.
        quiet = if happened(at) { 0 } else { quiet + 1 };
        last = at;
        if quiet > 6 {
            break;
        }
    }
    last
}

#[test]
fn failing_write_leaves_nothing_that_opens_half_and_can_be_resumed() {
    assert!(sweep(Fault::Write, 1, Before::Nothing, true) > 20);
}

#[test]
fn failing_sync_leaves_nothing_that_opens_half_and_can_be_resumed() {
    assert!(sweep(Fault::Sync, 1, Before::Nothing, true) > 10);
    assert!(sweep(Fault::Sync, 1, Before::OldVindex, true) > 10);
}

#[test]
fn full_disk_leaves_nothing_that_opens_half_and_can_be_resumed() {
    assert!(sweep(|bytes| Fault::DiskFull(bytes as u64), 37, Before::Nothing, true) > 2_000);
}

#[test]
fn stop_anywhere_leaves_nothing_that_opens_half_and_can_be_resumed() {
    assert!(sweep(Fault::Stop, 1, Before::Nothing, true) > 40);
    assert!(sweep(Fault::Stop, 1, Before::OldVindex, true) > 40);
    assert!(sweep(Fault::Stop, 1, Before::OldVindex, false) > 40);
}

#[test]
fn resume_writes_only_what_is_missing() {
    let (inner, path) = memory();
    let probe = Arc::new(FaultyFiles::new(inner.clone(), None));
    let whole: Arc<dyn Files> = probe.clone();
    write(&whole, Path::new("/work/whole"), &plan()).unwrap();
    let operations = probe.operations().len();
    let files: Arc<dyn Files> =
        Arc::new(FaultyFiles::new(inner.clone(), Some(Fault::Stop(operations - 12))));
    write(&files, &path, &plan()).unwrap_err();
    let resume = WritePlan { resume: true, ..plan() };
    let mut writer = VindexWriter::create(&inner, &path, &resume).unwrap();
    for layer in 0..LAYERS {
        assert!(writer.has("gate_vectors.bin", &TensorKey::layer("gate", layer)), "layer {layer}");
        assert!(writer.has_part("down_meta.bin", &format!("layer {layer}")), "layer {layer}");
    }
    assert!(!writer.has("embeddings.bin", &TensorKey::layer("gate", 0)), "the file matters too");
    fill(&mut writer).unwrap();
    writer.finish(header()).unwrap();
    assert_eq!(contents(&inner, &path), reference());
}

#[test]
fn staging_that_was_finished_but_not_moved_does_not_open() {
    let (inner, path) = memory();
    let probe = FaultyFiles::new(inner.clone(), None);
    let whole: Arc<dyn Files> = Arc::new(probe.clone());
    write(&whole, Path::new("/work/whole"), &plan()).unwrap();
    let moves = |operation: &Operation| matches!(operation, Operation::Rename(..));
    let at = probe.operations().iter().position(moves).unwrap();
    let files: Arc<dyn Files> = Arc::new(FaultyFiles::new(inner.clone(), Some(Fault::Stop(at))));
    write(&files, &path, &plan()).unwrap_err();
    let staging = Path::new("/work/atlas.vindex.partial");
    let finished = inner.metadata(&staging.join("index.json"));
    assert!(finished.is_ok(), "the stop was meant to come right before the move");
    for path in [staging.to_path_buf(), staging.join("")] {
        let error = Vindex::open(&inner, &path).unwrap_err();
        assert!(matches!(error, VindexError::Unfinished { .. }), "{}: {error}", path.display());
    }
    let resume = WritePlan { resume: true, ..plan() };
    let mut writer = VindexWriter::create(&inner, &path, &resume).unwrap();
    assert!(Vindex::open(&inner, staging).is_err());
    fill(&mut writer).unwrap();
    writer.finish(header()).unwrap();
    assert_eq!(contents(&inner, &path), reference());
}

#[test]
fn data_shorter_than_its_journal_says_is_refused_by_name() {
    let (files, path) = memory();
    let mut writer = VindexWriter::create(&files, &path, &plan()).unwrap();
    fill(&mut writer).unwrap();
    let staging = writer.staging().to_path_buf();
    drop(writer);
    put(&files, &staging.join("gate_vectors.bin"), b"short");
    let resume = WritePlan { resume: true, ..plan() };
    let error = VindexWriter::create(&files, &path, &resume).unwrap_err();
    assert!(error.to_string().contains("gate_vectors.bin"), "{error}");
    write(&files, &path, &plan()).unwrap();
    assert_eq!(contents(&files, &path), reference());
}
