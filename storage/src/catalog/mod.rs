//! What is mounted, and the machine's own constants: small records that survive a restart.
//!
//! They live in sled, whose `flush` is no fsync on Linux: every change is flushed and then fdatasynced
//! through a handle of our own before the call returns, and after one failure the catalog takes no
//! more changes. Each value carries a version and a digest over key and content, so that a damaged
//! record is reported, not half read.
//!
//! One process at a time: sled's lock on the directory answers a second one with `Locked`.
//!
//! Elsewhere: mounting itself (larqld); the write-ahead log, which has a sled directory of its own (`wal`).

mod record;

pub use record::{MountKind, MountRecord};

use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Memory for sled's pages; the catalog is a few kilobytes.
const CACHE_BYTES: u64 = 4 << 20;
/// How often sled's own thread writes, should we not have asked it to.
const FLUSH_EVERY_MS: u64 = 200;
/// Largest setting that is kept; sled writes much larger values to files that we do not sync.
pub const SETTING_BYTES_MAX: usize = 16 << 10;
/// Longest name of a mount or key of a setting.
pub const NAME_BYTES_MAX: usize = 255;

/// Why the catalog refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// Another process has it open.
    #[error("the catalog in {} is in use by another process", .directory.display())]
    Locked {
        /// The catalog's directory.
        directory: PathBuf,
    },
    /// The store cannot be read.
    #[error("the catalog in {} is damaged: {problem}", .directory.display())]
    Damaged {
        /// The catalog's directory.
        directory: PathBuf,
        /// What the store said.
        problem: String,
    },
    /// One record is not what was written.
    #[error("the record of {what} is damaged: {problem}")]
    DamagedRecord {
        /// The mount or setting.
        what: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A record that cannot be kept.
    #[error("{what} cannot be kept in the catalog: {problem}")]
    TooLarge {
        /// The mount or setting.
        what: String,
        /// Which bound it breaks.
        problem: String,
    },
    /// An earlier write failed, so the state of the disk is unknown.
    #[error("the catalog takes no changes after an earlier I/O error")]
    Poisoned,
    /// The system refused.
    #[error("could not {action} the catalog in {}: {source}", .directory.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The catalog's directory.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl CatalogError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Locked { .. } => {
                "connect to the daemon that runs, or give this one another --data-dir"
            }
            Self::Damaged { .. } => "move the catalog directory away and mount your models again",
            Self::DamagedRecord { .. } => "UNMOUNT it and MOUNT it again",
            Self::TooLarge { .. } => "choose a shorter one",
            Self::Poisoned | Self::Io { .. } => "check the disk, then restart the daemon",
        }
    }
}

/// The open catalog.
pub struct Catalog {
    directory: PathBuf,
    database: sled::Db,
    mounts: sled::Tree,
    settings: sled::Tree,
    /// Our own handle on sled's file, for the fdatasync; and one change at a time.
    durable: Mutex<Durable>,
}

struct Durable {
    file: File,
    poisoned: bool,
}

impl Catalog {
    /// Opens the catalog in `directory`, created when missing.
    ///
    /// # Errors
    /// `Locked` while another process has it open; `Damaged` when the store cannot be read.
    pub fn open(directory: &Path) -> Result<Self, CatalogError> {
        let io_error = |action| {
            move |source| CatalogError::Io { action, directory: directory.to_path_buf(), source }
        };
        std::fs::create_dir_all(directory).map_err(io_error("create"))?;
        let store_error = |error| convert(directory, "open", error);
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        // Sled asserts on some kinds of damage; its state dies with the failed open.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = config.open()?;
            let (mounts, settings) =
                (database.open_tree("mounts")?, database.open_tree("settings")?);
            Ok((database, mounts, settings))
        }));
        let (database, mounts, settings) = match opened {
            Ok(opened) => opened.map_err(store_error)?,
            Err(_) => {
                let problem = "its store failed while reading it".to_owned();
                return Err(CatalogError::Damaged { directory: directory.to_path_buf(), problem });
            }
        };
        let file =
            File::options().write(true).open(directory.join("db")).map_err(io_error("open"))?;
        let durable = Mutex::new(Durable { file, poisoned: false });
        let catalog =
            Self { directory: directory.to_path_buf(), database, mounts, settings, durable };
        catalog.change(|| Ok(()))?;
        // The names of sled's files, and the directory's own.
        for path in [Some(directory), directory.parent()].into_iter().flatten() {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync"))?;
        }
        Ok(catalog)
    }

    /// Keeps a mount, replacing the one of the same name. Durable on return.
    pub fn put_mount(&self, record: &MountRecord) -> Result<(), CatalogError> {
        let what = format!("mount {:?}", record.name);
        check_name(&what, &record.name)?;
        let content = record.encode();
        if content.len() > SETTING_BYTES_MAX {
            let problem =
                format!("it takes {} bytes, the most is {SETTING_BYTES_MAX}", content.len());
            return Err(CatalogError::TooLarge { what, problem });
        }
        let framed = record::frame(record.name.as_bytes(), &content);
        self.change(|| self.mounts.insert(record.name.as_bytes(), framed).map(drop))
    }

    /// Forgets a mount, and says whether there was one. Durable on return.
    pub fn remove_mount(&self, name: &str) -> Result<bool, CatalogError> {
        self.change(|| self.mounts.remove(name).map(|found| found.is_some()))
    }

    /// Every mount, sorted by name.
    ///
    /// # Errors
    /// `DamagedRecord`, naming the mount, when one is not what was written.
    pub fn mounts(&self) -> Result<Vec<MountRecord>, CatalogError> {
        let (records, problems) = self.mounts_and_problems()?;
        problems.into_iter().next().map_or(Ok(records), Err)
    }

    /// Every mount that is intact, sorted by name, and what is wrong with the others: a daemon starts
    /// with the former and reports the latter.
    pub fn mounts_and_problems(
        &self,
    ) -> Result<(Vec<MountRecord>, Vec<CatalogError>), CatalogError> {
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        for entry in &self.mounts {
            let (key, value) = entry.map_err(|error| convert(&self.directory, "read", error))?;
            let record = record::unframe(&key, &value).and_then(MountRecord::parse);
            match record.and_then(|record| record.require_name(&key)) {
                Ok(record) => records.push(record),
                Err(problem) => {
                    let what = format!("mount {:?}", String::from_utf8_lossy(&key));
                    problems.push(CatalogError::DamagedRecord { what, problem });
                }
            }
        }
        Ok((records, problems))
    }

    /// Keeps a setting, for example a measured constant of this machine. Durable on return.
    pub fn put_setting(&self, key: &str, content: &[u8]) -> Result<(), CatalogError> {
        let what = format!("setting {key:?}");
        check_name(&what, key)?;
        if content.len() > SETTING_BYTES_MAX {
            let problem =
                format!("it has {} bytes, the most is {SETTING_BYTES_MAX}", content.len());
            return Err(CatalogError::TooLarge { what, problem });
        }
        let framed = record::frame(key.as_bytes(), content);
        self.change(|| self.settings.insert(key, framed).map(drop))
    }

    /// A setting as it was kept; `None` when it never was.
    pub fn get_setting(&self, key: &str) -> Result<Option<Vec<u8>>, CatalogError> {
        let found =
            self.settings.get(key).map_err(|error| convert(&self.directory, "read", error))?;
        let Some(value) = found else { return Ok(None) };
        match record::unframe(key.as_bytes(), &value) {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(problem) => {
                Err(CatalogError::DamagedRecord { what: format!("setting {key:?}"), problem })
            }
        }
    }

    /// Applies a change and makes it durable; a failure of either poisons the catalog.
    fn change<T>(&self, apply: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, CatalogError> {
        let mut durable = self.durable.lock();
        if durable.poisoned {
            return Err(CatalogError::Poisoned);
        }
        durable.poisoned = true;
        let changed = apply().map_err(|error| convert(&self.directory, "change", error))?;
        self.database.flush().map_err(|error| convert(&self.directory, "write", error))?;
        durable.file.sync_data().map_err(|source| CatalogError::Io {
            action: "sync",
            directory: self.directory.clone(),
            source,
        })?;
        durable.poisoned = false;
        Ok(changed)
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn check_name(what: &str, name: &str) -> Result<(), CatalogError> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let problem = format!("a name has 1 to {NAME_BYTES_MAX} bytes, this one {}", name.len());
    // The name may be of any length: do not repeat it whole.
    Err(CatalogError::TooLarge { what: what.chars().take(80).collect(), problem })
}

fn convert(directory: &Path, action: &'static str, error: sled::Error) -> CatalogError {
    let directory = directory.to_path_buf();
    match error {
        // Sled has no error kind for it; this is its text since 0.23.
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            CatalogError::Locked { directory }
        }
        sled::Error::Io(source) => CatalogError::Io { action, directory, source },
        other => CatalogError::Damaged { directory, problem: other.to_string() },
    }
}
