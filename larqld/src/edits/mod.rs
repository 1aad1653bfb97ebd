//! Edits of mounted models: which stores are open, what a session sees of them, and its transactions.
//!
//! A base hash has one store below `<data-dir>/edits/`, whatever it is mounted as and however often: an edit is
//! of the model's knowledge, not of a name. A store is opened with the first mount of its base that has edits, so
//! that a damaged one is told when it is mounted and not when somebody asks; it is closed when no model of its base
//! is left ([`stores`]).
//!
//! A [`View`] is what one statement sees: a branch in one moment, with what its transaction has not committed yet.
//! Its [`Identity`] with the base hash is the identity of every answer, and part of every cache's key.
//!
//! Promises: a view never changes; an edit outside a transaction is durable when it is told; a transaction that
//! is dropped with its session is told at the next statement of that principal.
//!
//! Elsewhere: durability (`storage::store`), what statements change (`editing`), statements (`exec::transaction`).

mod joined;
mod names;
mod stores;
mod transaction;
mod view;
mod wal;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larql_storage::file::{Files, is_plain_name};
use larql_storage::overlay::{BaseShape, Overlay};
use larql_storage::patch::PatchFile;
use larql_storage::store::{
    Branch, Commit, Engine as LogEngine, History, MAIN, Record, Store, StoreError,
};
use parking_lot::Mutex;

pub use names::PatchPlace;
pub use stores::OpenStore;
pub(crate) use transaction::provenance;
pub use transaction::{Transaction, now_ms, timestamp};
pub use view::{Identity, View};
pub use wal::wal;

use stores::Stores;

use crate::failure::{Failure, code};
use crate::mounts::{Kind, Model};
use crate::pipeline::compile::EDITS;
use crate::session::Principal;

/// The patch that the log of a compiled vindex begins with, where it has edits that are no weights.
pub const COMPILED: &str = "compiled";

/// How often assertions are checked again because somebody else committed meanwhile.
const ASSERTED_TRIES_MAX: usize = 16;

/// Notices that wait for one principal.
const DROPPED_MAX: usize = 16;

/// The stores of all bases.
#[derive(Debug)]
pub struct Edits {
    files: Arc<dyn Files>,
    directory: PathBuf,
    /// The latest LSNs that can be asked for; 0: all that there are.
    history_lsns: u64,
    stores: Stores,
    /// What sessions left behind when they ended.
    dropped: Mutex<HashMap<Principal, Vec<String>>>,
    /// Numbers of views that nobody else has.
    pending: AtomicU64,
}

impl Edits {
    /// The stores below a data directory; none is opened yet. `history_lsns` of the latest LSNs can be asked for,
    /// or 0 for all that there are.
    pub fn new(files: Arc<dyn Files>, data_dir: &Path, history_lsns: u64) -> Self {
        Self {
            files,
            history_lsns,
            directory: data_dir.join("edits"),
            stores: Stores::default(),
            dropped: Mutex::default(),
            pending: AtomicU64::new(0),
        }
    }

    /// Where the store of a base lies.
    ///
    /// # Errors
    /// `DAMAGED` for a base hash that is no name.
    pub fn directory_of(&self, base_hash: &str) -> Result<PathBuf, Failure> {
        if is_plain_name(base_hash) {
            return Ok(self.directory.join(base_hash));
        }
        Err(Failure::new(code::DAMAGED, format!("{base_hash:?} is no base hash")))
    }

    /// The store of a base, opened where it is closed; `None` where nothing was ever edited.
    ///
    /// # Errors
    /// Why it cannot be opened, with what is missing of it.
    pub fn existing(&self, base_hash: &str) -> Result<Option<Arc<OpenStore>>, Failure> {
        if let Some(store) = self.stores.get(base_hash) {
            return Ok(Some(store));
        }
        if !Store::exists(&self.files, &self.directory_of(base_hash)?) {
            return Ok(None);
        }
        self.open(base_hash).map(Some)
    }

    /// Closes the stores of which no model is left: `is_used` says of a base hash whether one is.
    pub fn close_unused(&self, is_used: impl Fn(&str) -> bool) {
        self.stores.close_unused(is_used);
    }

    /// Opens the store of a model that has edits; one that was compiled with edits beside its weights begins
    /// with them, as the patch [`COMPILED`]. Part of mounting it.
    ///
    /// # Errors
    /// As [`Edits::existing`]; `DAMAGED` for edits that are not the model's.
    pub fn open_of(&self, model: &Model) -> Result<(), Failure> {
        let base_hash = model.base_hash();
        if self.existing(base_hash)?.is_some() || model.kind() != Kind::Vindex {
            return Ok(());
        }
        let Some(bytes) = model.side_file(EDITS)? else { return Ok(()) };
        let path = model.path().join(EDITS);
        let file = PatchFile::parse(&bytes).map_err(|error| Failure::patch(&path, &error))?;
        file.check_on(base_hash, &base_shape(model), false)
            .map_err(|error| Failure::patch(&path, &error))?;
        let operations = file.operations_on(&Overlay::default());
        if operations.is_empty() {
            return Ok(());
        }
        let record = Record::Commit(Commit {
            branch: MAIN.to_owned(),
            patch: Some(COMPILED.to_owned()),
            operations: operations.into(),
            provenance: provenance(&"larqld", format!("MOUNT \"{}\"", path.display()), base_hash),
            digest: None,
        });
        match self.open(base_hash)?.commit(record, 0) {
            // Somebody else mounted it at the same time.
            Ok(_) | Err(StoreError::PatchExists { .. } | StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The store of a base, created when missing.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(&self, base_hash: &str) -> Result<Arc<OpenStore>, Failure> {
        let directory = self.directory_of(base_hash)?;
        self.stores.open(&mut self.stores.hold(), base_hash, || {
            Ok(Store::open(&self.files, &directory, base_hash, LogEngine::Sled)?)
        })
    }

    /// What a branch of a base is now.
    ///
    /// # Errors
    /// `UNDEFINED_OBJECT` when there is no such branch; as [`Edits::existing`].
    pub fn view(&self, base_hash: &str, branch: &str) -> Result<View, Failure> {
        match self.existing(base_hash)? {
            Some(store) => View::now(&store, branch, self.history_lsns),
            None => View::unedited(branch),
        }
    }

    /// Makes a record durable. Where the branch has assertions, `holds` says of what it would be with the record,
    /// and of its assertions, whether they hold; it is asked again when somebody else commits meanwhile.
    ///
    /// # Errors
    /// What `holds` says; `CONFLICT` when somebody changed the same thing after the moment `seen`, or others
    /// commit faster than assertions are checked; when the log fails.
    pub fn commit(
        &self,
        base_hash: &str,
        record: Record,
        seen: u64,
        holds: impl Fn(&Branch) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let store = self.open(base_hash)?;
        let mut tries = 0;
        loop {
            let asserted = asserted(&store.history(), &record, seen, &holds)?;
            match store.commit_asserted(record.clone(), seen, asserted) {
                Err(StoreError::Unasserted { .. }) if tries < ASSERTED_TRIES_MAX => tries += 1,
                outcome => return Ok(outcome?),
            }
        }
    }

    /// A number for a view that is like no other.
    fn next_pending(&self) -> u64 {
        self.pending.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps a notice for the next statement of a principal.
    pub fn tell_later(&self, principal: &Principal, notice: String) {
        let mut dropped = self.dropped.lock();
        let waiting = dropped.entry(principal.clone()).or_default();
        if waiting.len() < DROPPED_MAX {
            waiting.push(notice);
        }
    }

    /// The notices that wait for a principal.
    pub fn told(&self, principal: &Principal) -> Vec<String> {
        let mut dropped = self.dropped.lock();
        dropped.remove(principal).unwrap_or_default()
    }

    /// The files.
    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }
}

/// The change of a record's branch for which the branch's assertions hold with the record; `None` where nothing
/// has to.
fn asserted(
    history: &History,
    record: &Record,
    seen: u64,
    holds: impl Fn(&Branch) -> Result<(), Failure>,
) -> Result<Option<u64>, Failure> {
    let state = history.state();
    let Err(StoreError::Unasserted { lsn, .. }) = state.check(record, seen, None) else {
        // Whatever else it says, the writer says again.
        return Ok(None);
    };
    let mut after = history.clone();
    after.push(state.lsn + 1, Arc::new(record.clone()))?;
    holds(after.state().branch(record.branch())?)?;
    Ok(Some(lsn))
}

/// What operations must fit to be applied to a model.
pub fn base_shape(model: &Model) -> BaseShape {
    let whole = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let architecture = model.architecture();
    BaseShape {
        hidden: whole(architecture.hidden_size as u64),
        features: (0..model.layers()).map(|layer| whole(model.features(layer))).collect(),
        vocabulary: whole(architecture.vocabulary_size as u64),
    }
}

/// Refuses to edit what is not extracted.
///
/// # Errors
/// `MISSING_COMPONENT`, with the EXTRACT to run.
pub fn require_vindex(model: &Model, name: &str) -> Result<(), Failure> {
    match model.kind() {
        Kind::Vindex => Ok(()),
        Kind::Checkpoint => {
            let message = format!("\"{name}\" is a checkpoint, and edits are made to a vindex");
            let hint = format!(
                "EXTRACT MODEL \"{}\" INTO \"{name}.vindex\" WITH INFERENCE, then USE it; or USE MODEL … AUTO_EXTRACT",
                model.path().display()
            );
            Err(Failure::new(code::MISSING_COMPONENT, message).hint(hint))
        }
    }
}
