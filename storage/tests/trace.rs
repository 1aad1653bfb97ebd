//! Trace files: what is written is read again, the ancestor's bytes are read, and damage is refused.

use std::path::Path;
use std::sync::Arc;

use larql_storage::file::{Files, MemoryFiles};
use larql_storage::trace::{
    BOUNDARIES_MAX, BoundaryHeader, BoundaryStore, BoundaryWriter, ChainHeader, ChainWriter,
    ContextHeader, ContextVectors, ContextWriter, Node, Tier, TieredContext, TraceChain, TraceFile,
    TraceFileError, Window,
};
use larql_storage::vindex::Checksum;
use proptest::prelude::*;

const PATH: &str = "/t/x";

fn memory() -> Arc<dyn Files> {
    let memory = MemoryFiles::new();
    memory.put(Path::new("/t/other"), b"mine");
    Arc::new(memory)
}

fn with(bytes: &[u8]) -> Result<TraceFile, TraceFileError> {
    let memory = MemoryFiles::new();
    memory.put(Path::new(PATH), bytes);
    let files: Arc<dyn Files> = Arc::new(memory);
    TraceFile::open(&files, Path::new(PATH))
}

fn read(files: &Arc<dyn Files>) -> Vec<u8> {
    files.read(Path::new(PATH), 1 << 30).unwrap()
}

/// A vector that tells where it belongs.
fn vector(token: u32, node: u32, kind: u32) -> Vec<f32> {
    (0..4).map(|index| (token * 1000 + node * 100 + kind * 10 + index) as f32 / 8.0).collect()
}

fn chain() -> (Arc<dyn Files>, ChainHeader) {
    let files = memory();
    let base = Some(Checksum::of(b"base"));
    let header = ChainHeader { hidden: 4, layers: 2, tokens: 3, base };
    let mut writer = ChainWriter::create(&files, Path::new(PATH), &header).unwrap();
    for (token, node) in (0..3).flat_map(|token| (0..3).map(move |node| (token, node))) {
        let [residual, attention, network] = [0, 1, 2].map(|kind| vector(token, node, kind));
        writer.node(&residual, &attention, &network).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 64 + 3 * 3 * 3 * 4 * 4);
    (files, header)
}

fn boundaries() -> (Arc<dyn Files>, BoundaryHeader) {
    let files = memory();
    let header = BoundaryHeader { hidden: 4, window: 5, tokens: 12, base: None };
    let mut writer = BoundaryWriter::create(&files, Path::new(PATH), &header).unwrap();
    (0..3).for_each(|window| writer.boundary(&vector(window, 0, 0)).unwrap());
    writer.finish().unwrap();
    (files, header)
}

fn context(tier: Tier) -> (Arc<dyn Files>, ContextHeader) {
    let files = memory();
    let header = ContextHeader {
        hidden: 4,
        layers: 6,
        window: 5,
        tier,
        critical: vec![1, 4],
        tokens: 12,
        base: Some(Checksum::of(b"base")),
    };
    let mut writer = ContextWriter::create(&files, Path::new(PATH), &header).unwrap();
    for window in 0..3 {
        let network = [1, 4].map(|layer| vector(window, layer, 2));
        let attention = [1, 4].map(|layer| vector(window, layer, 1));
        let rows = |rows: &[Vec<f32>; 2]| rows.clone().map(|row| row);
        let (network, attention) = (rows(&network), rows(&attention));
        writer
            .boundary(
                &vector(window, 0, 0),
                &network.each_ref().map(Vec::as_slice),
                &attention.each_ref().map(Vec::as_slice),
            )
            .unwrap();
    }
    writer.finish().unwrap();
    (files, header)
}

#[test]
fn a_chain_is_read_as_it_was_written() {
    let (files, header) = chain();
    let TraceFile::Chain(chain) = TraceFile::open(&files, Path::new(PATH)).unwrap() else {
        panic!("no chain")
    };
    assert_eq!(*chain.header(), header);
    let mut node = Node::default();
    for (token, place) in (0..3).flat_map(|token| (0..3).map(move |node| (token, node))) {
        assert!(chain.read(token, place, &mut node));
        assert_eq!(node.residual, vector(token, place, 0));
        assert_eq!(node.attention, vector(token, place, 1));
        assert_eq!(node.network, vector(token, place, 2));
    }
    assert!(!chain.read(3, 0, &mut node) && !chain.read(0, 3, &mut node));
}

#[test]
fn windows_and_their_vectors_are_read_as_they_were_written() {
    let windows: Vec<Window> = Window::of(12, 5).collect();
    let ends: Vec<u64> = windows.iter().map(Window::boundary).collect();
    assert_eq!(ends, [4, 9, 11]);
    assert_eq!(Window::of(0, 5).len(), 0);

    let (files, header) = boundaries();
    let TraceFile::Boundaries(store) = TraceFile::open(&files, Path::new(PATH)).unwrap() else {
        panic!("no boundaries")
    };
    assert_eq!(*store.header(), header);
    let mut residual = Vec::new();
    for (index, window) in (0..).zip(&windows) {
        assert_eq!(store.read(index, &mut residual), Some(*window));
        assert_eq!(residual, vector(index, 0, 0));
    }
    assert_eq!(store.read(3, &mut residual), None);

    for tier in [Tier::Residual, Tier::Network, Tier::Attention] {
        let (files, header) = context(tier);
        let TraceFile::Context(context) = TraceFile::open(&files, Path::new(PATH)).unwrap() else {
            panic!("no context")
        };
        assert_eq!(*context.header(), header);
        assert_eq!(context.count(), 3);
        let mut vectors = ContextVectors::default();
        for (index, window) in (0..).zip(&windows) {
            assert_eq!(context.read(index, &mut vectors), Some(*window));
            assert_eq!(vectors.residual, vector(index, 0, 0));
            let rows = |kind| [1, 4].map(|layer| vector(index, layer, kind)).to_vec();
            let network = if tier >= Tier::Network { rows(2) } else { Vec::new() };
            let attention = if tier >= Tier::Attention { rows(1) } else { Vec::new() };
            assert_eq!((&vectors.network, &vectors.attention), (&network, &attention));
        }
        assert_eq!(context.read(3, &mut vectors), None);
    }
}

/// The ancestor's layout, put together by hand from its description: reserved bytes are zero.
#[test]
fn the_ancestors_files_are_read() {
    let words = |numbers: &[u32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let floats = |numbers: &[f32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    let padded = |mut bytes: Vec<u8>, length: usize| {
        bytes.resize(length, 0);
        bytes
    };
    let numbers: Vec<f32> = (0..12).map(|number| number as f32).collect();
    // One token, one layer, vectors of two numbers.
    let head = padded([b"TRAC".to_vec(), words(&[1, 2, 1, 1])].concat(), 64);
    let file = [head, floats(&numbers)].concat();
    let TraceFile::Chain(chain) = with(&file).unwrap() else { panic!("no chain") };
    assert_eq!(*chain.header(), ChainHeader { hidden: 2, layers: 1, tokens: 1, base: None });
    let mut node = Node::default();
    assert!(chain.read(0, 1, &mut node));
    assert_eq!((&node.residual[..], &node.network[..]), (&[6.0, 7.0][..], &[10.0, 11.0][..]));

    // One window of five tokens; room for ten thousand in the index.
    let head = padded([b"BNDX".to_vec(), words(&[1, 2, 8, 1, 5])].concat(), 64);
    let index = padded(words(&[0, 5, 160_064, 0]), 160_000);
    let file = [head, index, floats(&[1.5, -2.0])].concat();
    let TraceFile::Boundaries(store) = with(&file).unwrap() else { panic!("no boundaries") };
    let mut residual = Vec::new();
    assert_eq!(store.read(0, &mut residual), Some(Window { token_first: 0, tokens: 5 }));
    assert_eq!(residual, [1.5, -2.0]);

    // Tier 2 with one critical layer, number 3 of 4.
    let mut head = [b"CTXT".to_vec(), words(&[1, 2, 4, 8])].concat();
    head.extend([2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let head = padded([head, words(&[1, 5])].concat(), 128);
    let index = padded([words(&[0, 5]), 152u64.to_le_bytes().to_vec()].concat(), 24);
    let file = [head, index, floats(&[1.5, -2.0, 3.0, 4.0])].concat();
    let TraceFile::Context(context) = with(&file).unwrap() else { panic!("no context") };
    assert_eq!((context.header().tier, &context.header().critical[..]), (Tier::Network, &[3][..]));
    let mut vectors = ContextVectors::default();
    assert!(context.read(0, &mut vectors).is_some());
    assert_eq!((vectors.residual, vectors.network), (vec![1.5, -2.0], vec![vec![3.0, 4.0]]));
}

#[test]
fn a_file_that_is_cut_short_or_goes_on_is_refused() {
    for (bytes, exact) in [
        (read(&chain().0), true),
        (read(&boundaries().0), false),
        (read(&context(Tier::Attention).0), false),
    ] {
        assert!(with(&bytes).is_ok());
        for length in (0..bytes.len()).filter(|length| *length < 400 || length % 997 == 0) {
            assert!(with(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        let longer = [&bytes[..], &[0; 4]].concat();
        assert_eq!(with(&longer).is_err(), exact, "whoever has an index finds what it needs");
    }
}

#[test]
fn a_lie_in_a_header_is_refused_by_the_name_of_its_field() {
    let refused = |mut bytes: Vec<u8>, place: usize, number: u32, words: &str| {
        bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
        let error = with(&bytes).unwrap_err();
        assert!(error.to_string().contains(words), "{place}: {error}");
        assert!(!error.hint().is_empty(), "{error}");
    };
    let (chain, store, context) =
        (read(&chain().0), read(&boundaries().0), read(&context(Tier::Network).0));
    for bytes in [&chain, &store, &context] {
        refused(bytes.clone(), 0, 7, "no trace");
        refused(bytes.clone(), 4, 2, "version is 2");
        refused(bytes.clone(), 8, 0, "size of a vector");
        refused(bytes.clone(), 8, u32::MAX, "ends inside");
    }
    refused(chain.clone(), 12, 0, "number of layers");
    refused(chain.clone(), 12, u32::MAX, "ends inside");
    refused(chain, 16, u32::MAX, "ends inside");
    refused(store.clone(), 12, 0, "size of a window");
    refused(store.clone(), 16, BOUNDARIES_MAX + 1, "number of windows");
    refused(store.clone(), 64 + 8, u32::MAX, "ends inside");
    refused(store, 64 + 8, 4, "place of a window");
    refused(context.clone(), 20, 4, "tier");
    refused(context.clone(), 20, 0x0902, "critical layers");
    refused(context.clone(), 24, 6, "critical layer is 6, expected below 6");
    refused(context.clone(), 32, u32::MAX, "ends inside");
    refused(context.clone(), 128 + 12, u32::MAX, "ends inside");
    refused(context, 128 + 8, 100, "place of a window");
}

#[test]
fn nothing_that_is_there_is_written_over_and_nothing_half_written_stays() {
    let (files, header) = chain();
    let bytes = read(&files);
    let again = ChainWriter::create(&files, Path::new(PATH), &header);
    assert!(matches!(again, Err(TraceFileError::Exists { .. })));
    assert_eq!(read(&files), bytes);
    // Half of it, and more than it.
    let path = Path::new("/t/y");
    let mut writer = ChainWriter::create(&files, path, &header).unwrap();
    let busy = ChainWriter::create(&files, path, &header);
    assert!(matches!(busy, Err(TraceFileError::Busy { .. })), "two at a time");
    writer.node(&[1.0; 4], &[1.0; 4], &[1.0; 4]).unwrap();
    assert!(matches!(writer.finish(), Err(TraceFileError::Incomplete { .. })));
    let mut writer = ChainWriter::create(&files, path, &header).unwrap();
    assert!((0..10).any(|_| writer.node(&[1.0; 4], &[1.0; 4], &[1.0; 4]).is_err()));
    drop(writer);
    let names = files.list(Path::new("/t")).unwrap();
    assert_eq!(names, ["other", "x"]);
}

#[test]
fn more_windows_than_the_index_holds_are_refused_before_anything_is_written() {
    let files = memory();
    let header = BoundaryHeader { hidden: 4, window: 1, tokens: BOUNDARIES_MAX + 1, base: None };
    let error = BoundaryWriter::create(&files, Path::new(PATH), &header).unwrap_err();
    assert!(matches!(error, TraceFileError::TooLarge { max: 10_000, .. }), "{error}");
    let header = BoundaryHeader { hidden: 1 << 30, window: 1, tokens: 2, base: None };
    let error = BoundaryWriter::create(&files, Path::new(PATH), &header).unwrap_err();
    assert!(matches!(error, TraceFileError::TooLarge { max: 1, .. }), "{error}");
    assert_eq!(files.list(Path::new("/t")).unwrap(), ["other"]);
}

/// Reads all that a file says it holds.
fn read_all(file: &TraceFile) {
    match file {
        TraceFile::Chain(chain) => read_chain(chain),
        TraceFile::Boundaries(store) => read_boundaries(store),
        TraceFile::Context(context) => read_context(context),
    }
    file.check().unwrap();
}

fn read_chain(chain: &TraceChain) {
    let mut node = Node::default();
    for token in 0..chain.header().tokens.min(50) {
        for layer in 0..=chain.header().layers.min(50) {
            assert!(chain.read(token, layer, &mut node));
            assert_eq!(node.network.len(), chain.header().hidden as usize);
        }
    }
}

fn read_boundaries(store: &BoundaryStore) {
    let mut residual = Vec::new();
    for index in 0..store.count() {
        store.read(index, &mut residual).unwrap().boundary();
    }
}

fn read_context(context: &TieredContext) {
    let mut vectors = ContextVectors::default();
    for index in 0..context.count().min(1_000) {
        context.read(index, &mut vectors).unwrap().boundary();
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_file_it_is_read_or_refused(
        which in 0usize..3,
        changes in prop::collection::vec((0usize..200, any::<u8>()), 0..12),
        length in 0usize..200_000,
    ) {
        let mut bytes = match which {
            0 => read(&chain().0),
            1 => read(&boundaries().0),
            _ => read(&context(Tier::Attention).0),
        };
        for (place, value) in changes {
            let place = place % bytes.len();
            bytes[place] = value;
        }
        bytes.truncate(length);
        if let Ok(file) = with(&bytes) {
            read_all(&file);
        }
    }
}
