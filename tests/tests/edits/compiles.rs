//! COMPILE on a disk that fails: each write, sync and stop once, a full disk, and a loss of power after it.
//!
//! Whatever fails, the source keeps every byte, what lies at the destination is what lay there before or the whole
//! product, and compiling again succeeds and leaves nothing else behind.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_planner::physical::plan::{CompileFormat, ExtractDtype, Level};
use larql_storage::checkpoint::CheckpointKind;
use larql_storage::file::{Fault, FaultyFiles, FileKind, Files, MemoryFiles};
use larql_storage::overlay::{
    Fact, LowRank, Matrix, Mode, Operation, Overlay, SetFeature, SetKnn, Slot, Vector,
};
use larql_tests::repository;
use larqld::editing::stated::Stated;
use larqld::failure::{Failure, code};
use larqld::mounts::Model;
use larqld::pipeline::compile::{self, Origin, VindexOptions, compile_vindex};
use larqld::pipeline::edited::EditedModel;
use larqld::pipeline::extract;

/// What is compiled.
const SOURCE: &str = "/m/source";

/// Files by their paths.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// What COMPILE makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    Vindex,
    Safetensors,
    Gguf,
}

impl Product {
    const ALL: [Self; 3] = [Self::Vindex, Self::Safetensors, Self::Gguf];

    fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Vindex | Self::Safetensors => "/m/out",
            Self::Gguf => "/m/out.gguf",
        })
    }
}

/// Everything below a directory, or the file of that name.
fn tree(files: &dyn Files, path: &Path) -> Tree {
    let mut tree = Tree::new();
    let Ok(found) = files.metadata(path) else { return tree };
    if found.kind == FileKind::File {
        tree.insert(path.to_owned(), files.read(path, 1 << 30).expect("readable"));
        return tree;
    }
    for name in files.list(path).expect("a directory") {
        tree.extend(self::tree(files, &path.join(name)));
    }
    tree
}

fn planted(tree: &Tree) -> Arc<MemoryFiles> {
    let files = MemoryFiles::new();
    tree.iter().for_each(|(path, bytes)| files.put(path, bytes));
    Arc::new(files)
}

/// A vindex of a small model, in memory.
fn source() -> Tree {
    let memory = MemoryFiles::new();
    let directory = repository().join("tests/goldens/llama2");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let bytes = std::fs::read(directory.join(name)).expect("a golden checkpoint");
        memory.put(&Path::new("/checkpoint").join(name), &bytes);
    }
    let files: Arc<dyn Files> = Arc::new(memory);
    let options = extract::Options {
        source: "/checkpoint".into(),
        destination: SOURCE.into(),
        level: Level::Inference,
        components: None,
        layers: None,
        dtype: ExtractDtype::F32,
        quantisation: None,
        overwrite: false,
        resume: false,
    };
    let (pool, cancel) = (Pool::new(1), Cancel::new());
    extract::extract(&files, &pool, &options, &cancel, &mut |_, _, _, _| Ok(()))
        .expect("the model is extracted");
    tree(&*files, Path::new(SOURCE))
}

/// A feature with other rows, one that is hidden, an update, and a retrieved fact.
fn edits(model: &Model) -> Overlay {
    let hidden = model.architecture().hidden_size;
    let row = |value: f32| -> Vector { vec![value; hidden].into() };
    let fact = Fact { entity: "France".into(), relation: "capital".into(), target: "Lyon".into() };
    let set = SetFeature {
        slot: Slot { layer: 0, feature: 3 },
        gate: Some(row(0.25)),
        up: None,
        down: Some(row(0.5)),
        entity: None,
        relation: None,
        target: None,
        target_ids: Vec::new(),
        confidence: None,
        mode: Mode::Rows,
    };
    let update = LowRank {
        id: 1,
        layer: 1,
        matrix: Matrix::Down,
        rank: 1,
        left: row(0.125),
        right: vec![0.5; model.features(1) as usize].into(),
        facts: vec![fact.clone()],
        confidence: None,
    };
    let knn = SetKnn {
        layer: 1,
        key: row(1.0),
        threshold: 0.5,
        fact,
        entity_ids: vec![vec![1]],
        target_ids: vec![1],
        confidence: None,
    };
    let mut overlay = Overlay::default();
    overlay.apply(&Operation::SetFeature(set), 1);
    overlay.apply(&Operation::HideFeature(Slot { layer: 0, feature: 5 }), 1);
    overlay.apply(&Operation::LowRank(update), 1);
    overlay.apply(&Operation::SetKnn(knn), 1);
    overlay
}

fn compiled(files: Arc<dyn Files>, product: Product, overwrite: bool) -> Result<(), Failure> {
    let (pool, cancel) = (Pool::new(1), Cancel::new());
    let model = Model::open_vindex(&files, Path::new(SOURCE))?;
    let stored = edits(&model);
    let edited = EditedModel::new(&model, &stored, &cancel)?;
    if product == Product::Vindex {
        let carried: Vec<Operation> =
            stored.knn().map(|knn| Operation::SetKnn(knn.set.clone())).collect();
        let options = VindexOptions {
            destination: product.path().into(),
            overwrite,
            level: None,
            carried: &carried,
            stated: &[],
            said: &Stated::of(&stored),
        };
        let done = &mut |_: &'static str, _: u64, _: u64, _: &'static str| Ok(());
        let compiled = compile_vindex(&files, &pool, &edited, &options, &cancel, done)?;
        assert!(compiled.linked > 2, "{} files are linked", compiled.linked);
        compiled.sealed.finish()?;
        return Ok(());
    }
    let side_file = |name: &str| model.side_file(name);
    let origin = Origin {
        architecture: edited.architecture(),
        weights: &model,
        edited: Some(&edited),
        names: HashMap::new(),
        types: HashMap::new(),
        packed: HashMap::new(),
        others: Vec::new(),
        source_kind: CheckpointKind::Safetensors,
        at_source_precision: false,
        checkpoint: None,
        metadata: None,
        side_file: &side_file,
        name: "small".to_owned(),
    };
    let options = compile::Options {
        destination: product.path().into(),
        format: match product {
            Product::Gguf => CompileFormat::Gguf,
            _ => CompileFormat::Safetensors,
        },
        dtype: None,
        overwrite,
        verify: true,
    };
    let done = &mut |_: &'static str, _: u64, _: u64, _: &'static str| Ok(());
    compile::compile(&files, &pool, &origin, &options, &cancel, done, &mut |_| Ok(()))?;
    Ok(())
}

/// What a compile begins with.
struct World {
    source: Tree,
    product: Product,
    /// What lies at the destination; nothing where it is not to be replaced.
    before: Tree,
    /// What is to lie there.
    expected: Tree,
    /// Whether the disk can exchange two names.
    exchanges: bool,
}

impl World {
    fn new(source: &Tree, product: Product, replaces: bool) -> Self {
        let files = planted(source);
        compiled(files.clone(), product, false).expect("nothing fails");
        let expected = tree(&*files, product.path());
        let mut before = Tree::new();
        if replaces {
            // Like the product, and with other bytes.
            before.clone_from(&expected);
            let side = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default();
                product == Product::Gguf || name == "tokenizer_config.json"
            };
            let other = before.keys().find(side).expect("such a file").clone();
            before.insert(other, b"what was there before".to_vec());
        }
        Self { source: source.clone(), product, before, expected, exchanges: true }
    }

    fn files(&self) -> Arc<MemoryFiles> {
        planted(&self.source.clone().into_iter().chain(self.before.clone()).collect())
    }

    /// A disk above files in memory.
    fn disk(&self, memory: &Arc<MemoryFiles>, fault: Option<Fault>) -> FaultyFiles {
        let disk = FaultyFiles::new(memory.clone(), fault);
        if self.exchanges { disk } else { disk.without_exchange() }
    }

    /// Compiles once for each fault until the faults come too late; returns how many came in time.
    fn each(&self, faults: &dyn Fn(usize) -> Fault, loses: Option<Loss>) -> usize {
        let mut survived = 0;
        for n in 0.. {
            let (memory, fault) = (self.files(), faults(n));
            let faulty = self.disk(&memory, Some(fault));
            let outcome = compiled(Arc::new(faulty.clone()), self.product, !self.before.is_empty());
            if let Some(loses) = loses {
                loses(&faulty, n);
            }
            let told = outcome.as_ref().map_err(|failure| failure.message.as_str());
            let what = format!("{:?}, {fault:?}, {told:?}", self.product);
            self.check(&memory, outcome.is_ok(), &what);
            survived = if outcome.is_ok() { survived + 1 } else { 0 };
            // Beyond the last operation there is nothing left to fail.
            if survived > 3 {
                return n;
            }
        }
        unreachable!("some fault comes too late")
    }

    fn check(&self, memory: &Arc<MemoryFiles>, is_done: bool, what: &str) {
        let path = self.product.path();
        let is_source = || tree(&**memory, Path::new(SOURCE)) == self.source;
        assert!(is_source(), "{what}: the source was written to");
        let found = tree(&**memory, path);
        let aside = Path::new(match self.product {
            Product::Vindex => "/m/out.replaced",
            Product::Safetensors | Product::Gguf => "/m/out.partial/replaced",
        });
        let waits = !self.exchanges && found.is_empty() && {
            let waiting = tree(&**memory, aside).into_values();
            waiting.eq(self.before.values().cloned())
        };
        let whole = found == self.expected || found == self.before && !is_done;
        let names = || found.keys().collect::<Vec<_>>();
        assert!(whole || waits && !is_done, "{what}: half a product: {:?}", names());
        // Without leave nothing is replaced; with it, it succeeds.
        let overwrite = !found.is_empty() || waits;
        if overwrite && !waits {
            let refused = compiled(memory.clone(), self.product, false).expect_err(what);
            assert_eq!(refused.code, code::EXISTS, "{what}: {}", refused.message);
            assert!(tree(&**memory, path) == found, "{what}: changed without leave");
        }
        compiled(Arc::new(self.disk(memory, None)), self.product, overwrite)
            .unwrap_or_else(|failure| panic!("{what}: not again: {}", failure.message));
        assert!(tree(&**memory, path) == self.expected, "{what}: another product");
        assert!(is_source(), "{what}: the source was written to the second time");
        let known = |found: &PathBuf| {
            found.starts_with(SOURCE)
                || found.starts_with(path)
                || found.extension().is_some_and(|end| end == "lock")
        };
        let all = tree(&**memory, Path::new("/m"));
        let left: Vec<&PathBuf> = all.keys().filter(|found| !known(found)).collect();
        assert!(left.is_empty(), "{what}: left behind: {left:?}");
    }
}

/// What a loss of power takes.
type Loss = fn(&FaultyFiles, usize);

fn lose(files: &FaultyFiles, _: usize) {
    files.crash().expect("what was lost is taken away");
}

fn tear(files: &FaultyFiles, n: usize) {
    files.crash_torn(n as u64).expect("what was lost is taken away");
}

fn worlds(source: &Tree) -> impl Iterator<Item = World> {
    Product::ALL.into_iter().flat_map(move |product| {
        [false, true].map(|replaces| World::new(source, product, replaces))
    })
}

#[test]
fn a_compile_that_is_stopped_anywhere_leaves_what_was_there_or_the_whole_product() {
    let source = source();
    for world in worlds(&source) {
        let tears = (!world.before.is_empty()).then_some(Some(tear as Loss));
        for loses in [None, Some(lose as Loss)].into_iter().chain(tears) {
            let stops = world.each(&Fault::Stop, loses);
            assert!(stops > 10, "{:?}: {stops}", world.product);
        }
    }
    for product in [Product::Vindex, Product::Safetensors] {
        let world = World { exchanges: false, ..World::new(&source, product, true) };
        world.each(&Fault::Stop, None);
    }
}

#[test]
fn the_failure_of_any_write_or_sync_of_a_compile_leaves_what_was_there() {
    for world in worlds(&source()) {
        let writes = world.each(&Fault::Write, None);
        assert!(writes > 3, "{:?}: {writes}", world.product);
        for loses in [None, Some(lose as Loss)] {
            let syncs = world.each(&Fault::Sync, loses);
            assert!(syncs > 2, "{:?}: {syncs}", world.product);
        }
    }
}

#[test]
fn a_disk_that_is_full_anywhere_leaves_what_was_there() {
    for world in worlds(&source()) {
        let bytes: usize = world.expected.values().map(Vec::len).sum();
        let full = world.each(&|n| Fault::DiskFull((n * bytes / 40) as u64), None);
        assert!(full > 2, "{:?}: {full}", world.product);
    }
}
