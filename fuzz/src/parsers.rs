//! The parsers of storage, compute and planner.

use larql_compute::model::{Architecture, Naming};
use larql_planner::syntax::parse_script;
use larql_storage::checkpoint::{Checkpoint, GgufMetadata};
use larql_storage::file::{Files, MemoryFiles};
use larql_storage::overlay;
use larql_storage::patch::PatchFile;
use larql_storage::store::{Engine, Store};
use larql_storage::trace::{ContextVectors, Node, TraceFile};
use larql_storage::vindex::index::graph::Graph;
use larql_storage::vindex::index::postings::Postings;
use larql_storage::vindex::{
    Checksum, DownMeta, GateMeta, IndexFile, IndexHeader, IndexWriter, Labels, Manifest,
    Statistics, Vindex,
};
use std::path::Path;
use std::sync::Arc;

/// A target: its name, and what is fed with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// What a target is called, and what it runs.
pub const TARGETS: &[Target] = &[
    ("config_json", config_json),
    ("down_meta", down_meta),
    ("edit_log", edit_log),
    ("gate_meta", gate_meta),
    ("gguf", gguf),
    ("index", index),
    ("labels", labels),
    ("lql", lql),
    ("operation", operation),
    ("patch", patch),
    ("safetensors", safetensors),
    ("safetensors_index", safetensors_index),
    ("statistics", statistics),
    ("trace", trace),
    ("vindex_manifest", vindex_manifest),
    ("vindex_v2", vindex_v2),
];

/// A directory `/m` in memory with these files.
pub fn directory(files: &[(&str, &[u8])]) -> Arc<dyn Files> {
    let memory = MemoryFiles::new();
    for (name, bytes) in files {
        memory.put(&Path::new("/m").join(name), bytes);
    }
    Arc::new(memory)
}

/// A GGUF file. What is accepted lies in the file, and its metadata can be written again.
pub fn gguf(bytes: &[u8]) {
    let files = directory(&[("m.gguf", bytes)]);
    let Ok(checkpoint) = Checkpoint::open(&files, Path::new("/m/m.gguf")) else { return };
    walk(&checkpoint);
    let metadata = checkpoint.gguf().expect("a GGUF file has metadata");
    let again = GgufMetadata::from_file(metadata.to_file()).expect("what was read can be written");
    // Compared as text: a number that is none is not equal to itself.
    assert_eq!(format!("{again:?}"), format!("{metadata:?}"));
    for (_, value) in metadata.iter() {
        assert!(value.to_string().len() < 1_000);
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
    }
}

/// Looks at every tensor.
fn walk(checkpoint: &Checkpoint) {
    let total: usize = checkpoint.tensors().map(|tensor| tensor.bytes.len()).sum();
    assert!(total as u64 <= checkpoint.bytes(), "tensors overlap");
    for tensor in checkpoint.tensors() {
        assert_eq!(checkpoint.tensor(tensor.name), Some(tensor));
    }
    checkpoint.check().expect("nobody changed the file");
}

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) {
    let files = directory(&[("model.safetensors", bytes)]);
    if let Ok(checkpoint) = Checkpoint::open(&files, Path::new("/m")) {
        walk(&checkpoint);
    }
}

/// An index of shards, two of which are there.
pub fn safetensors_index(bytes: &[u8]) {
    let header = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let shard = [&(header.len() as u64).to_le_bytes()[..], header, &[1, 2, 3, 4]].concat();
    let files = directory(&[
        ("model.safetensors.index.json", bytes),
        ("1.safetensors", &shard),
        ("2.safetensors", &shard),
    ]);
    if let Ok(checkpoint) = Checkpoint::open(&files, Path::new("/m")) {
        walk(&checkpoint);
    }
}

/// The manifest of a vindex; the bytes are its text up to the seal, which no fuzzer would guess.
pub fn vindex_manifest(bytes: &[u8]) {
    let sealed = [bytes, b",\n  "].concat();
    let seal = Checksum::of(&sealed);
    let tail = format!("\"manifest_sha256\": \"{seal}\"\n}}\n");
    let Ok(manifest) = Manifest::parse(&[&sealed[..], tail.as_bytes()].concat()) else { return };
    let again = Manifest::parse(&manifest.encode()).expect("what was read can be written");
    assert_eq!(again, manifest);
}

/// What separates the files in the input of [`vindex_v2`]: this, a name, the end of the line.
const SECTION: &[u8] = b"\n== ";

/// A vindex of version 2: its `index.json`, then sections with its other manifests and files.
pub fn vindex_v2(bytes: &[u8]) {
    let memory = MemoryFiles::new();
    for name in ["gate_vectors.bin", "embeddings.bin", "w.bin", "interleaved_q4k.bin"] {
        memory.put(&Path::new("/m").join(name), &[0; 4_096]);
    }
    let mut name = "index.json";
    let mut rest = bytes;
    loop {
        let end = rest.windows(SECTION.len()).position(|window| window == SECTION);
        memory.put(&Path::new("/m").join(name), &rest[..end.unwrap_or(rest.len())]);
        let Some(end) = end else { break };
        rest = &rest[end + SECTION.len()..];
        let line = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let Ok(next) = std::str::from_utf8(&rest[..line]) else { return };
        let inside = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !next.split('/').all(inside) {
            return;
        }
        name = next;
        rest = &rest[(line + 1).min(rest.len())..];
    }
    let files: Arc<dyn Files> = Arc::new(memory);
    let Ok(vindex) = Vindex::open(&files, Path::new("/m")) else { return };
    for tensor in vindex.tensors() {
        assert_eq!(tensor.bytes.len() as u64, tensor.record.bytes);
    }
}

/// Output tokens of features.
pub fn down_meta(bytes: &[u8]) {
    let files = directory(&[("t", bytes)]);
    let mapping = files.map(Path::new("/m/t")).expect("it is there");
    let Ok(table) = DownMeta::parse(mapping) else { return };
    for layer in 0..table.layers() {
        for feature in 0..table.features(layer).min(1_000) {
            if let Some(tokens) = table.feature(layer, feature) {
                assert!(tokens.tokens().count() <= table.top_k() as usize);
            }
        }
    }
}

/// An index; the graph of a layer; then posting lists of the same bytes, cut in three by the first two of
/// them and sealed.
pub fn index(bytes: &[u8]) {
    read_index(&directory(&[("one.index", bytes)]));
    read_graph(bytes);
    let [first, second, rest @ ..] = bytes else { return };
    let texts = rest.len().min(usize::from(*first));
    let keys = texts + (rest.len() - texts).min(16 * usize::from(*second));
    let files = directory(&[]);
    files.create_dir_all(Path::new("/m")).expect("a directory in memory");
    let header = IndexHeader {
        target: "targets".to_owned(),
        method: "postings".to_owned(),
        base_hash: String::new(),
        made_from: String::new(),
        generator: String::new(),
        keys: 0,
        entries: 0,
        recall: None,
        sections: Vec::new(),
    };
    let mut writer =
        IndexWriter::create(&files, Path::new("/m"), "one", header).expect("nobody else writes");
    let sections =
        [("texts", &rest[..texts]), ("keys", &rest[texts..keys]), ("features", &rest[keys..])];
    for (name, section) in sections {
        writer.section(name, section).expect("memory has room");
    }
    writer.finish().expect("memory has room");
    read_index(&files);
}

/// Reads the graph of a layer of seven gates.
fn read_graph(bytes: &[u8]) {
    const VECTORS: u32 = 7;
    let Ok(graph) = Graph::read(bytes, VECTORS as usize) else { return };
    assert_eq!(graph.to_bytes(), bytes);
    assert!(graph.entry() < VECTORS);
    for level in 0..graph.levels() {
        for vector in 0..VECTORS {
            assert!(graph.neighbours(level, vector).iter().all(|&one| one < VECTORS));
        }
    }
}

/// Reads the index `one`, of a model of two layers.
fn read_index(files: &Arc<dyn Files>) {
    const FEATURES: [u64; 2] = [64, 8];
    let Ok(file) = IndexFile::open(files, Path::new("/m/one.index")) else { return };
    for (number, record) in file.header().sections.iter().enumerate() {
        if let Ok(section) = file.section(number) {
            assert_eq!(section.len() as u64, record.bytes);
        }
    }
    let Ok(lists) = Postings::read(&file, &FEATURES) else { return };
    assert_eq!(lists.iter().map(|(_, list)| list.len()).sum::<usize>(), lists.entries());
    for (text, list) in lists.iter() {
        assert_eq!(lists.list(text).len(), list.len());
        let known = |layer: u32| FEATURES.get(layer as usize).copied().unwrap_or(0);
        assert!(list.iter().all(|one| u64::from(one.feature) < known(one.layer)));
    }
}

/// Input tokens of features.
pub fn gate_meta(bytes: &[u8]) {
    let files = directory(&[("t", bytes)]);
    let mapping = files.map(Path::new("/m/t")).expect("it is there");
    let Ok(table) = GateMeta::parse(mapping) else { return };
    for layer in 0..table.layers() {
        let features = table.features(layer);
        assert!(table.feature(layer, features).is_none());
        for feature in 0..features.min(1_000) {
            table.feature(layer, feature);
        }
    }
}

/// Relation labels.
pub fn labels(bytes: &[u8]) {
    let Ok(labels) = Labels::parse(bytes) else { return };
    assert_eq!(Labels::parse(&labels.encode()).as_ref(), Ok(&labels));
}

/// Score statistics of four layers.
pub fn statistics(bytes: &[u8]) {
    let Ok(statistics) = Statistics::parse(bytes, 4) else { return };
    assert!(Statistics::parse(&statistics.encode(), 4).is_ok());
}

/// A `.vlp` file. What is accepted can be written, and reads back the same.
pub fn patch(bytes: &[u8]) {
    let Ok(patch) = PatchFile::parse(bytes) else { return };
    let mut written = Vec::new();
    patch.write(&mut written).expect("memory takes it");
    assert_eq!(PatchFile::parse(&written).expect("it was written by us"), patch);
}

/// An edit as the log keeps it. What is accepted can be written, and reads back the same.
pub fn operation(bytes: &[u8]) {
    let Ok(operation) = overlay::decode(bytes) else { return };
    assert_eq!(overlay::decode(&overlay::encode(&operation)).as_ref(), Ok(&operation));
}

/// A log of edits in a plain file. What is opened can be opened again, and is the same.
pub fn edit_log(bytes: &[u8]) {
    let memory = MemoryFiles::new();
    let files: Arc<dyn Files> = Arc::new(memory.clone());
    let place = Path::new("/m");
    let open = || Store::open(&files, place, "base", Engine::File);
    drop(open().expect("an empty store"));
    memory.put(&place.join("records"), bytes);
    let Ok(store) = open() else { return };
    let found = store.history();
    drop(store);
    let again = open().expect("it was opened before").history();
    assert!(found.records().eq(again.records()));
}

/// A saved trace, of whichever format. What is accepted can be read to its end.
pub fn trace(bytes: &[u8]) {
    let files = directory(&[("t", bytes)]);
    let Ok(file) = TraceFile::open(&files, Path::new("/m/t")) else { return };
    match &file {
        TraceFile::Chain(chain) => {
            let mut node = Node::default();
            for token in 0..chain.header().tokens.min(1_000) {
                assert!(chain.read(token, chain.header().layers, &mut node));
            }
        }
        TraceFile::Boundaries(store) => {
            let mut residual = Vec::new();
            for window in 0..store.count().min(1_000) {
                assert!(store.read(window, &mut residual).is_some());
            }
        }
        TraceFile::Context(context) => {
            let mut vectors = ContextVectors::default();
            for window in 0..context.count().min(1_000) {
                assert!(context.read(window, &mut vectors).is_some());
            }
        }
    }
    file.check().expect("nobody changed the file");
}

/// A model's configuration.
pub fn config_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(architecture) = Architecture::from_config(text) else { return };
    // As many as real models have: more is legal, and takes the time that it takes.
    if architecture.layers() > 200 {
        return;
    }
    let mut tensors = 0;
    for layer in 0..architecture.layers() {
        let networks = architecture.networks(layer);
        tensors += networks.len();
        let features: usize = networks.iter().map(|network| network.features).sum();
        assert_eq!(features, architecture.features(layer));
    }
    if tensors < 10_000 {
        for naming in [Naming::Hub, Naming::Gguf] {
            for spec in architecture.tensors(naming) {
                assert!(!spec.shape.is_empty(), "{:?}", spec.key);
            }
        }
    }
}

/// A script. What is accepted prints as a script that means the same.
pub fn lql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(statements) = parse_script(text) else { return };
    for statement in statements {
        let printed = format!("{};", statement.statement);
        let again = parse_script(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
        assert_eq!(again.len(), 1, "{printed}");
        assert_eq!(format!("{};", again[0].statement), printed);
    }
}
