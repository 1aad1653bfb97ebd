//! The log in sled, used for what it is good at and for nothing else: an ordered map of small values.
//!
//! One tree for each base, so that a directory that was swapped with another base's is found empty, and its
//! mark says so. An append is one `Batch`, `flush`, and an fdatasync of sled's file through a handle of our
//! own, since sled's flush on Linux is no fsync. Sled asserts on some kinds of damage: its calls are made
//! where a panic becomes an error.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::PatchLog;

const CACHE_BYTES: u64 = 8 << 20;
const FLUSH_EVERY_MS: u64 = 200;
const FOLDER: &str = "log";

/// The open store.
pub struct SledLog {
    directory: PathBuf,
    database: sled::Db,
    tree: sled::Tree,
    /// Our own handle on sled's file.
    file: File,
}

impl SledLog {
    /// Opens the log of a base in a directory, created when missing.
    ///
    /// # Errors
    /// `WouldBlock` while another process has it open; `InvalidData` when sled cannot read its files.
    pub fn open(directory: &Path, base_hash: &str) -> io::Result<Self> {
        let directory = directory.join(FOLDER);
        std::fs::create_dir_all(&directory)?;
        let config = sled::Config::new()
            .path(&directory)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let (database, tree) = guarded(|| {
            let database = config.open()?;
            let tree = database.open_tree(format!("wal {base_hash}"))?;
            Ok((database, tree))
        })?;
        let file = File::options().write(true).open(directory.join("db"))?;
        let log = Self { directory, database, tree, file };
        log.make_durable()?;
        // The names of sled's files, and the directory's own.
        for path in [Some(&*log.directory), log.directory.parent()].into_iter().flatten() {
            File::open(path)?.sync_all()?;
        }
        Ok(log)
    }

    /// Bytes that sled's files take.
    ///
    /// # Errors
    /// What the system says.
    pub fn size_on_disk(&self) -> io::Result<u64> {
        guarded(|| self.database.size_on_disk())
    }

    fn make_durable(&self) -> io::Result<()> {
        guarded(|| self.database.flush())?;
        self.file.sync_data()
    }

    fn remove(&mut self, range: std::ops::RangeTo<u64>, from: u64) -> io::Result<()> {
        let keys = guarded(|| {
            let keys = self.tree.range(from.to_be_bytes()..range.end.to_be_bytes()).keys();
            keys.collect::<sled::Result<Vec<_>>>()
        })?;
        for keys in keys.chunks(REMOVED_AT_ONCE) {
            let mut batch = sled::Batch::default();
            keys.iter().for_each(|key| batch.remove(key));
            guarded(|| self.tree.apply_batch(batch))?;
        }
        self.make_durable()
    }
}

const REMOVED_AT_ONCE: usize = 1024;

impl PatchLog for SledLog {
    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (entry, lsn) in entries.iter().zip(first..) {
            batch.insert(&lsn.to_be_bytes(), entry.as_slice());
        }
        guarded(|| self.tree.apply_batch(batch))?;
        self.make_durable()
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        guarded(|| {
            for entry in self.tree.range(from.to_be_bytes()..) {
                let (key, value) = entry?;
                match <[u8; 8]>::try_from(&*key) {
                    Ok(key) => visit(u64::from_be_bytes(key), &value),
                    Err(_) => return Err(sled::Error::ReportableBug("a key is no number".into())),
                }
            }
            Ok(())
        })
    }

    fn remove_before(&mut self, lsn: u64) -> io::Result<()> {
        self.remove(..lsn, 0)
    }

    fn remove_from(&mut self, lsn: u64) -> io::Result<()> {
        self.remove(..u64::MAX, lsn)
    }
}

/// Calls into sled, whose panics are errors here.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(call));
    let result = result.map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "sled failed an assertion about its own files")
    })?;
    result.map_err(|error| match error {
        // Sled has no error kind for it; this is its text since 0.23.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            io::Error::new(io::ErrorKind::WouldBlock, "another process has it open")
        }
        sled::Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    })
}

impl std::fmt::Debug for SledLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledLog").field("directory", &self.directory).finish_non_exhaustive()
    }
}
