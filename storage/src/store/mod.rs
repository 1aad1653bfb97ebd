//! A base's edits: transactions, branches and history above a log, with snapshots that nobody waits for.
//!
//! One store for each base hash. Writers commit one at a time, in groups that share a sync: the first to
//! commit wins, and whoever changed the same slot or fact after looking at an older moment gets an error
//! that says so. Readers take the history that is published as one `Arc` and never wait or lock: a snapshot
//! stays what it was for as long as it is held.
//!
//! On disk, below the store's directory (docs/formats/wal.md):
//!
//! ```text
//! format.json   what this is: version, kind of log, base hash
//! lock          held by the process that has it open
//! log/          sled's files, or `records` of the plain log
//! mark          what was acknowledged
//! segments/     payloads too large for a record
//! checkpoint    records that left the log, once there is one
//! ```
//!
//! Promises: what was acknowledged is in every later history; a transaction is visible whole or not at all;
//! a store that lost something acknowledged is not opened. Elsewhere: bytes (`wal`), deltas (`overlay`).

mod archive;
mod error;
mod format;
mod history;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod queue;
mod record;
mod salvage;
mod state;
mod sync;
mod writer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::file::{FileLock, Files, create_durable_dir};
use crate::wal::{FileLog, PatchLog, SledLog, Wal, WalError};

pub use error::StoreError;
pub use format::Engine;
pub use history::{History, Numbered};
pub use record::{
    Assertion, Commit, Compaction, CompactionKind, NAME_BYTES_MAX, OPERATIONS_MAX, Provenance,
    Record, Rewrite,
};
pub use salvage::{Salvage, salvage};
pub use state::{Branch, MAIN, Origin, State, Transaction, digest};

use archive::Archive;
use queue::Queue;
use sync::{mpsc, thread};
use writer::{Job, Waiting};

const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";

/// Most bytes of records that lie in the log before there is a checkpoint.
const TAIL_BYTES_MAX: usize = 64 << 20;

/// What a log checkpoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointKind {
    /// Every record: history stays whole.
    Whole,
    /// What is needed from now on: earlier moments cannot be asked for any more.
    Forgetting,
}

/// What a store has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The last LSN.
    pub lsn: u64,
    /// The first moment that can be asked for.
    pub first: u64,
    /// The last LSN of the checkpoint; 0 without one.
    pub checkpoint: u64,
    /// Records known.
    pub records: u64,
}

/// An open store; dropped, it writes what was asked of it and closes.
pub struct Store {
    directory: PathBuf,
    base_hash: String,
    published: Arc<ArcSwap<History>>,
    queue: Arc<Queue<Job>>,
    writer: Option<thread::JoinHandle<()>>,
}

/// What the writer owns.
struct Disk {
    files: Arc<dyn Files>,
    directory: PathBuf,
    base_hash: String,
    wal: Wal,
    _lock: Box<dyn FileLock>,
}

impl Store {
    /// Whether a directory holds a store.
    pub fn exists(files: &Arc<dyn Files>, directory: &Path) -> bool {
        files.metadata(&directory.join(format::NAME)).is_ok()
    }

    /// Opens the store of a base, created when missing.
    ///
    /// # Errors
    /// `Locked` inside `Wal` while somebody else has it open; `Lost` inside `Wal`, `Record` or `Format`
    /// when what is there is not what was acknowledged; `Io`.
    pub fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
        base_hash: &str,
        engine: Engine,
    ) -> Result<Self, StoreError> {
        let (disk, history) = Disk::open(files, directory, base_hash, engine)?;
        let published = Arc::new(ArcSwap::from_pointee(history));
        let queue = Arc::new(Queue::new());
        let (jobs, cell) = (queue.clone(), published.clone());
        let writer = thread::spawn(move || writer::run(disk, &jobs, &cell));
        Ok(Self {
            directory: directory.to_path_buf(),
            base_hash: base_hash.to_owned(),
            published,
            queue,
            writer: Some(writer),
        })
    }

    /// The base that it edits.
    pub fn base_hash(&self) -> &str {
        &self.base_hash
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Everything as of now. Nobody waits for this, and nobody waits for who holds it.
    pub fn history(&self) -> Arc<History> {
        self.published.load_full()
    }

    /// Makes a record durable and visible; returns its LSN.
    ///
    /// `seen` is the moment that the record was decided upon.
    ///
    /// # Errors
    /// `Operation`; as [`State::check`]; `NotDurable`, after which it may or may not be there when the store is opened
    /// again; `Closed`.
    pub fn commit(&self, record: Record, seen: u64) -> Result<u64, StoreError> {
        self.commit_asserted(record, seen, None)
    }

    /// The same on a branch that has assertions, which hold with the record as of the branch's change `asserted`.
    ///
    /// # Errors
    /// As [`Store::commit`]; `Unasserted` when the branch is another by now.
    pub fn commit_asserted(
        &self,
        record: Record,
        seen: u64,
        asserted: Option<u64>,
    ) -> Result<u64, StoreError> {
        record.check()?;
        let (waiting, answer) = Waiting::new(record, seen, asserted);
        self.ask(Job::Commit(waiting), &answer)
    }

    /// Puts the records into a file of their own and shortens the log; returns the last LSN in it.
    ///
    /// # Errors
    /// `Io`, `Wal`; the log then still holds what it held.
    pub fn checkpoint(&self, kind: CheckpointKind) -> Result<u64, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.ask(Job::Checkpoint { kind, reply }, &answer)
    }

    /// Reads the log and the checkpoint again; returns how many records are whole.
    ///
    /// # Errors
    /// `Lost` inside `Wal`, `Format`: what is damaged now.
    pub fn verify(&self) -> Result<u64, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.ask(Job::Verify { reply }, &answer)
    }

    fn ask(
        &self,
        job: Job,
        answer: &mpsc::Receiver<Result<u64, StoreError>>,
    ) -> Result<u64, StoreError> {
        self.queue.put(job).map_err(|_| StoreError::Closed)?;
        answer.recv().map_err(|_| StoreError::Closed)?
    }

    /// What there is.
    pub fn status(&self, files: &Arc<dyn Files>) -> Status {
        let history = self.history();
        let checkpoint = read_checkpoint(files, &self.directory, &self.base_hash);
        Status {
            lsn: history.state().lsn,
            first: history.first(),
            checkpoint: checkpoint.ok().flatten().map_or(0, |archive| archive.lsn),
            records: history.records().len() as u64,
        }
    }

    /// Writes everything as one file that another store can begin with.
    ///
    /// # Errors
    /// What the writer says.
    pub fn export(&self, to: &mut dyn Write) -> std::io::Result<()> {
        export(&self.history(), &self.base_hash, to)
    }

    /// Begins a store with what another one exported. The bytes may be a mapped file: they are read and written piece
    /// by piece, and what they tell is in memory once, as it is while the store is open.
    ///
    /// # Errors
    /// `NotEmpty` when there is something already; `Format` when the bytes are no export, one of another base, or
    /// tell no history; `Io`. Nothing of them is kept then.
    pub fn import(
        files: &Arc<dyn Files>,
        directory: &Path,
        base_hash: &str,
        engine: Engine,
        exported: &[u8],
    ) -> Result<u64, StoreError> {
        let format = |problem| StoreError::Format { path: "the export".into(), problem };
        let archive = Archive::parse(exported).map_err(format)?;
        if archive.base_hash != base_hash {
            let problem = format!("is of base {}, not of {base_hash}", archive.base_hash);
            return Err(StoreError::Format { path: "the export".into(), problem });
        }
        let told =
            archive.history().map_err(|error| format(format!("tells no history: {error}")))?;
        drop(told);
        let (disk, history) = Disk::open(files, directory, base_hash, engine)?;
        let lsn = history.state().lsn;
        if lsn > 0 {
            return Err(StoreError::NotEmpty { directory: directory.to_path_buf(), lsn });
        }
        let path = directory.join(CHECKPOINT);
        Archive::copy_file(files, &path, exported).map_err(io("write", &path))?;
        drop(disk);
        // What was written is read as it will be read from now on.
        let (_, history) = Disk::open(files, directory, base_hash, engine)?;
        Ok(history.state().lsn)
    }
}

fn export(history: &History, base_hash: &str, to: &mut dyn Write) -> std::io::Result<()> {
    let archive = Archive {
        base_hash: base_hash.to_owned(),
        lsn: history.state().lsn,
        first: history.first(),
        records: history.records().cloned().collect(),
    };
    archive.write(to)
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // Its panic was told to those who waited for it.
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Disk {
    fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
        base_hash: &str,
        engine: Engine,
    ) -> Result<(Self, History), StoreError> {
        create_durable_dir(files, directory).map_err(|(action, path, source)| StoreError::Io {
            action,
            path,
            source,
        })?;
        let lock = take_lock(files, directory)?;
        let is_new = format::check(files, directory, base_hash, engine)?;
        let checkpoint = read_checkpoint(files, directory, base_hash)?;
        if is_new {
            Wal::create(files, directory, engine.tail_bytes())?;
        }
        let mut history = match checkpoint {
            Some(archive) => archive.history()?,
            None => History::default(),
        };
        let log = match open_log(files, directory, base_hash, engine) {
            Err(StoreError::Io { .. })
                if Wal::is_kept_twice(files, directory, history.state().lsn)? =>
            {
                // What it held is in the mark's tail. Its files stay, for whoever wants to know.
                let (log, aside) = (directory.join("log"), directory.join("log.damaged"));
                let _ = files.remove_dir_all(&aside);
                files.rename(&log, &aside).map_err(io("set aside", &log))?;
                open_log(files, directory, base_hash, engine)?
            }
            opened => opened?,
        };
        let (wal, recovered) = Wal::open(files, directory, log, history.state().lsn)?;
        if is_new && !recovered.is_empty() {
            return Err(StoreError::Format {
                path: directory.join(format::NAME),
                problem: "is missing, and the log is not empty".into(),
            });
        }
        for one in recovered {
            let refused =
                |problem| StoreError::Record { lsn: one.lsn, directory: directory.into(), problem };
            let record = Record::decode(one.kind, &one.payload).map_err(refused)?;
            history.push(one.lsn, Arc::new(record)).map_err(|error| {
                let problem =
                    format!("record {} does not follow from those before: {error}", one.lsn);
                StoreError::Format { path: directory.to_path_buf(), problem }
            })?;
        }
        if is_new {
            format::write(files, directory, base_hash, engine)?;
        }
        let disk = Self {
            files: files.clone(),
            directory: directory.to_path_buf(),
            base_hash: base_hash.to_owned(),
            wal,
            _lock: lock,
        };
        Ok((disk, history))
    }

    fn verify(&self) -> Result<u64, StoreError> {
        let archive = read_checkpoint(&self.files, &self.directory, &self.base_hash)?;
        let (after, records) = archive.map_or((0, 0), |one| (one.lsn, one.records.len() as u64));
        Ok(records + self.wal.verify(after)?)
    }

    fn checkpoint(
        &mut self,
        kind: CheckpointKind,
        history: &History,
    ) -> Result<History, StoreError> {
        if self.wal.is_poisoned() {
            return Err(WalError::Poisoned.into());
        }
        let lsn = history.state().lsn;
        let (first, records) = match kind {
            CheckpointKind::Whole => (history.first(), history.records().cloned().collect()),
            CheckpointKind::Forgetting => (lsn, history.condensed()?),
        };
        let archive = Archive { base_hash: self.base_hash.clone(), lsn, first, records };
        let path = self.directory.join(CHECKPOINT);
        archive.write_file(&self.files, &path).map_err(io("write", &path))?;
        // From here on the records are in the file, and what is left of them in the log is skipped.
        self.wal.forget_through(lsn)?;
        // As many again before the next, so that the work of checkpoints is in proportion to what is written.
        let bytes = self.files.metadata(&path).map_err(io("read", &path))?.length;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(TAIL_BYTES_MAX);
        self.wal.make_room(&self.files, bytes)?;
        match kind {
            CheckpointKind::Whole => Ok(history.clone()),
            CheckpointKind::Forgetting => archive.history(),
        }
    }
}

fn take_lock(files: &Arc<dyn Files>, directory: &Path) -> Result<Box<dyn FileLock>, StoreError> {
    files.lock(&directory.join(LOCK)).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => WalError::Locked { path: directory.into() }.into(),
        _ => io("lock", directory)(source),
    })
}

fn open_log(
    files: &Arc<dyn Files>,
    directory: &Path,
    base_hash: &str,
    engine: Engine,
) -> Result<Box<dyn PatchLog>, StoreError> {
    let opened: std::io::Result<Box<dyn PatchLog>> = match engine {
        Engine::Sled => SledLog::open(directory, base_hash).map(|log| Box::new(log) as _),
        Engine::File => FileLog::open(files, directory).map(|log| Box::new(log) as _),
    };
    opened.map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => WalError::Locked { path: directory.into() }.into(),
        _ => io("open the log in", directory)(source),
    })
}

fn read_checkpoint(
    files: &Arc<dyn Files>,
    directory: &Path,
    base_hash: &str,
) -> Result<Option<Archive>, StoreError> {
    let path = directory.join(CHECKPOINT);
    let mapping = match files.map(&path) {
        Ok(mapping) => mapping,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let archive = Archive::parse(mapping.bytes())
        .map_err(|problem| StoreError::Format { path: path.clone(), problem })?;
    if archive.base_hash != base_hash {
        let problem = format!("is of base {}, not of {base_hash}", archive.base_hash);
        return Err(StoreError::Format { path, problem });
    }
    Ok(Some(archive))
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.to_path_buf(), source }
}
