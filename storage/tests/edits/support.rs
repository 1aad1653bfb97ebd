//! Edits to make, and stores to make them in.

use larql_storage::file::{DiskFiles, Files, MemoryFiles};
use larql_storage::overlay::{Fact, Mode, Operation, SetFeature, SetKnn, Slot, Vector};
use larql_storage::store::{Commit, Engine, MAIN, Provenance, Record, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const BASE: &str = "b45e";

/// A place for a store: its files, its directory, and what removes it again.
pub struct Place {
    pub name: &'static str,
    pub files: Arc<dyn Files>,
    pub directory: PathBuf,
    pub engine: Engine,
    _guard: Option<tempfile::TempDir>,
}

impl Place {
    pub fn sled() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let directory = guard.path().join("edits");
        let (files, engine) = (DiskFiles::shared(), Engine::Sled);
        Self { name: "sled", files, directory, engine, _guard: Some(guard) }
    }

    pub fn file_on_disk() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let directory = guard.path().join("edits");
        let (files, engine) = (DiskFiles::shared(), Engine::File);
        Self { name: "file on disk", files, directory, engine, _guard: Some(guard) }
    }

    pub fn file_in(files: Arc<dyn Files>) -> Self {
        let directory = PathBuf::from("/edits");
        Self { name: "file", files, directory, engine: Engine::File, _guard: None }
    }

    pub fn all() -> Vec<Self> {
        vec![Self::sled(), Self::file_on_disk(), Self::file_in(MemoryFiles::shared())]
    }

    pub fn open(&self) -> Store {
        self.try_open().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.files, &self.directory, BASE, self.engine)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

pub fn provenance(statement: &str) -> Provenance {
    Provenance {
        author: "uid 1000".into(),
        at_ms: 1_700_000_000_000,
        statement: statement.into(),
        base_hash: BASE.into(),
    }
}

pub fn knn(entity: &str, target: &str, width: usize) -> Operation {
    let key: Vec<f32> = (0..width).map(|at| (at % 7) as f32 / 7.0 + 0.1).collect();
    Operation::SetKnn(SetKnn {
        layer: 1,
        key: key.into(),
        threshold: 0.8,
        fact: Fact { entity: entity.into(), relation: "capital".into(), target: target.into() },
        entity_ids: vec![vec![1, 2]],
        target_ids: vec![3],
        confidence: Some(1.0),
    })
}

pub fn feature(layer: u32, feature: u32, value: f32) -> Operation {
    let row: Option<Vector> = Some([value, 1.0].into());
    Operation::SetFeature(SetFeature {
        slot: Slot { layer, feature },
        gate: row.clone(),
        up: row.clone(),
        down: row,
        entity: None,
        relation: None,
        target: None,
        target_ids: Vec::new(),
        confidence: None,
        mode: Mode::Rows,
    })
}

pub fn on(branch: &str, patch: Option<&str>, operations: Vec<Operation>) -> Record {
    Record::Commit(Commit {
        branch: branch.into(),
        patch: patch.map(str::to_owned),
        operations: operations.into(),
        provenance: provenance("INSERT …"),
        digest: None,
    })
}

pub fn edit(operations: Vec<Operation>) -> Record {
    on(MAIN, None, operations)
}

pub fn remove(patch: &str) -> Record {
    remove_from(MAIN, patch)
}

pub fn remove_from(branch: &str, patch: &str) -> Record {
    let (branch, patch) = (branch.to_owned(), patch.to_owned());
    Record::RemovePatch { branch, patch, provenance: provenance("REMOVE PATCH") }
}

pub fn create_branch(name: &str, from: &str, at: u64) -> Record {
    let (name, from) = (name.to_owned(), from.to_owned());
    Record::CreateBranch { name, from, at, provenance: provenance("CREATE BRANCH") }
}

/// Commits on what is there now.
pub fn commit(store: &Store, record: Record) -> Result<u64, StoreError> {
    let seen = store.history().state().lsn;
    store.commit(record, seen)
}

/// What a branch answers for an entity.
pub fn answer(store: &Store, branch: &str, entity: &str) -> Option<String> {
    let history = store.history();
    let branch = history.state().branch(branch).ok()?.clone();
    branch.overlay().fact(entity, "capital").map(|knn| knn.set.fact.target.clone())
}

/// Copies a directory as it is now.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
