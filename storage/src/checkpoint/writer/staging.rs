//! A model in the making, beside its destination.
//!
//! Everything is written into the directory `<destination>.partial`, under a lock on
//! `<destination>.lock` that ends with the process. A mark in it tells it from other people's
//! directories, from its first moment to its last: the model lies in a directory of its own in it, or is the one
//! file beside the mark. What an interrupted run left is thrown away by the next one.
//!
//! Promises: whatever fails, and whenever the process or the machine stops, the destination is what it was or
//! the whole new model. On file systems that cannot exchange two names the old model may lie in the staging directory
//! then, and the next run puts it back. Nothing that was replaced is removed before what replaces it is durable.

use super::{CheckpointWriteError, Result, WeightFile, io_error};
use crate::file::{Claim, FileKind, Files, create_durable_dir, is_plain_name, parent_of};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that says whose directory it is.
const MARK: &str = ".model_in_the_making";
/// The directory that becomes the model.
const MODEL: &str = "model";
/// Where the old model waits while the new one moves in, on file systems without exchange.
const REPLACED: &str = "replaced";

/// A model in the making: a directory, or a single weight file.
pub struct ModelStaging {
    files: Arc<dyn Files>,
    destination: PathBuf,
    staging: PathBuf,
    /// The one file's name, where the destination is a file.
    single: Option<String>,
    overwrite: bool,
    written: BTreeSet<String>,
    /// Weights were begun and not finished.
    pub(super) incomplete: bool,
    /// Created by us, so that it may go when we do.
    begun: bool,
    _lock: Claim,
}

impl ModelStaging {
    /// Begins a directory of files.
    ///
    /// # Errors
    /// `DestinationExists` without `overwrite`; `DestinationIsNotAModel` with it, when the
    /// destination is neither an empty directory nor one with weights or a `config.json`; `Busy`;
    /// `StagingOccupied`. Nothing has changed in these cases.
    pub fn directory(files: &Arc<dyn Files>, destination: &Path, overwrite: bool) -> Result<Self> {
        Self::begin(files, destination, None, overwrite)
    }

    /// Begins a single weight file.
    ///
    /// # Errors
    /// As [`ModelStaging::directory`]; with `overwrite` the destination may be a regular file with
    /// the same extension.
    pub fn file(files: &Arc<dyn Files>, destination: &Path, overwrite: bool) -> Result<Self> {
        let name = destination.file_name().and_then(|name| name.to_str());
        match name.filter(|name| is_plain_name(name) && is_weights(name)) {
            Some(name) => Self::begin(files, destination, Some(name.to_owned()), overwrite),
            None => Err(CheckpointWriteError::FileName {
                name: destination.display().to_string(),
                problem: "weights are named .safetensors or .gguf",
            }),
        }
    }

    fn begin(
        files: &Arc<dyn Files>,
        destination: &Path,
        single: Option<String>,
        overwrite: bool,
    ) -> Result<Self> {
        let Some(name) = destination.file_name() else {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(io_error("write to", destination)(error));
        };
        let sibling = |suffix: &str| {
            let mut name = OsString::from(name);
            name.push(suffix);
            destination.with_file_name(name)
        };
        let (staging, lock) = (sibling(".partial"), sibling(".lock"));
        create_durable_dir(files, parent_of(destination))
            .map_err(|(action, path, source)| CheckpointWriteError::Io { action, path, source })?;
        let lock = Claim::take(files, &lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                CheckpointWriteError::Busy { destination: destination.to_path_buf() }
            }
            _ => io_error("lock", &lock)(error),
        })?;
        let mut this = Self {
            files: files.clone(),
            destination: destination.to_path_buf(),
            staging,
            single,
            overwrite,
            written: BTreeSet::new(),
            incomplete: false,
            begun: false,
            _lock: lock,
        };
        this.restore_replaced()?;
        this.check_destination()?;
        this.clear_staging()?;
        this.begun = true;
        let Self { staging, .. } = &this;
        files.create_dir_all(staging).map_err(io_error("create", staging))?;
        let mark = staging.join(MARK);
        let mut write = files.create(&mark).map_err(io_error("create", &mark))?;
        write.sync().map_err(io_error("sync", &mark))?;
        // Without the mark nothing else may be found in it, whatever happens to the machine.
        this.sync(staging)?;
        this.sync(parent_of(staging))?;
        if this.single.is_none() {
            let model = this.path();
            files.create_dir_all(&model).map_err(io_error("create", &model))?;
        }
        Ok(this)
    }

    fn sync(&self, directory: &Path) -> Result<()> {
        self.files.sync_dir(directory).map_err(io_error("sync", directory))
    }

    fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        match self.files.metadata(path) {
            Ok(found) => Ok(Some(found.kind)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("look at", path)(error)),
        }
    }

    fn check_destination(&self) -> Result<()> {
        let destination = || self.destination.clone();
        let Some(kind) = self.kind(&self.destination)? else { return Ok(()) };
        if !self.overwrite {
            return Err(CheckpointWriteError::DestinationExists { destination: destination() });
        }
        let replaceable = match (kind, &self.single) {
            (FileKind::File, Some(_)) => true,
            (FileKind::Directory, None) => {
                let names = self
                    .files
                    .list(&self.destination)
                    .map_err(io_error("list", &self.destination))?;
                let marks_a_model = |name: &OsString| {
                    name.to_str().is_some_and(|name| name == "config.json" || is_weights(name))
                };
                names.is_empty() || names.iter().any(marks_a_model)
            }
            _ => false,
        };
        match replaceable {
            true => Ok(()),
            false => {
                Err(CheckpointWriteError::DestinationIsNotAModel { destination: destination() })
            }
        }
    }

    /// Whether there is a staging directory, which then is one of ours.
    fn has_staging(&self) -> Result<bool> {
        let Self { files, staging, .. } = self;
        let occupied = || CheckpointWriteError::StagingOccupied { staging: staging.clone() };
        match self.kind(staging)? {
            None => return Ok(false),
            Some(FileKind::Directory) => {}
            Some(_) => return Err(occupied()),
        }
        let real = files.canonicalize(staging).map_err(io_error("look at", staging))?;
        let parent = parent_of(staging);
        let parent = files.canonicalize(parent).map_err(io_error("look at", parent))?;
        let is_link = real.parent() != Some(&*parent) || real.file_name() != staging.file_name();
        let names = files.list(staging).map_err(io_error("list", staging))?;
        if is_link || !(names.is_empty() || names.iter().any(|name| name == MARK)) {
            return Err(occupied());
        }
        Ok(true)
    }

    /// Undoes half an overwrite: the old model was moved away, the new one did not arrive.
    fn restore_replaced(&self) -> Result<()> {
        let Self { files, staging, destination, .. } = self;
        let replaced = staging.join(REPLACED);
        if self.kind(destination)?.is_none()
            && self.has_staging()?
            && self.kind(&replaced)?.is_some()
        {
            files.rename(&replaced, destination).map_err(io_error("move back", &replaced))?;
            self.sync(parent_of(destination))?;
        }
        Ok(())
    }

    /// Removes what an interrupted run left, and nothing else.
    fn clear_staging(&self) -> Result<()> {
        if self.has_staging()? { self.discard() } else { Ok(()) }
    }

    /// Removes the staging directory, the mark in it last.
    fn discard(&self) -> Result<()> {
        let Self { files, staging, .. } = self;
        for name in files.list(staging).map_err(io_error("list", staging))? {
            if name == MARK {
                continue;
            }
            let path = staging.join(name);
            match self.kind(&path)? {
                Some(FileKind::Directory) => files.remove_dir_all(&path),
                Some(_) => files.remove_file(&path),
                None => Ok(()),
            }
            .map_err(io_error("remove", &path))?;
        }
        files.remove_dir_all(staging).map_err(io_error("remove", staging))
    }

    /// Opens a new file of the model.
    pub(super) fn create(&mut self, name: &str) -> Result<WeightFile> {
        let refuse =
            |problem| Err(CheckpointWriteError::FileName { name: name.to_owned(), problem });
        if !is_plain_name(name) {
            return refuse("it is not a plain file name");
        }
        if self.single.as_ref().is_some_and(|single| single != name) {
            return refuse("the model is a single file of another name");
        }
        if !self.written.insert(name.to_owned()) {
            return refuse("it was written already");
        }
        let path = match self.single {
            Some(_) => self.path(),
            None => self.path().join(name),
        };
        let write = self.files.create(&path).map_err(io_error("create", &path))?;
        Ok(WeightFile { path, write })
    }

    /// Writes and syncs a whole small file, for example `config.json`.
    ///
    /// # Errors
    /// `FileName`, also when the destination is a single file; `Io`.
    pub fn side_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.create(name)?;
        file.put(bytes)?;
        file.sync()
    }

    /// The name of the one file, where the destination is a file.
    pub fn single_name(&self) -> Option<&str> {
        self.single.as_deref()
    }

    /// Where the model lies until it is moved: the directory, or the one file.
    pub fn path(&self) -> PathBuf {
        match &self.single {
            Some(single) => self.staging.join(single),
            None => self.staging.join(MODEL),
        }
    }

    /// How many files were begun.
    pub fn file_count(&self) -> usize {
        self.written.len()
    }

    /// Moves the model to its destination, and makes that durable. Whoever writes a single file has
    /// written it before.
    ///
    /// # Errors
    /// `Order`, when weights were begun and not finished; as [`ModelStaging::directory`], when somebody put something at the destination meanwhile;
    /// `Io`, after which the destination is as it was or, if only the last sync failed, the new model.
    pub fn finish(mut self) -> Result<()> {
        if self.incomplete {
            let (expected, got) = ("the rest of the weights".to_owned(), "the end".to_owned());
            return Err(CheckpointWriteError::Order { expected, got });
        }
        self.check_destination()?;
        let model = self.path();
        let Self { files, destination, staging, .. } = &self;
        if self.single.is_none() {
            self.sync(&model)?;
        }
        if self.single.is_some() || self.kind(destination)?.is_none() {
            files.rename(&model, destination).map_err(io_error("move to", destination))?;
        } else {
            match files.exchange(&model, destination) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    let replaced = staging.join(REPLACED);
                    // What is in the staging directory from here on may be all that there is of the old model.
                    self.begun = false;
                    let Self { files, destination, .. } = &self;
                    files
                        .rename(destination, &replaced)
                        .map_err(io_error("move aside", destination))?;
                    if let Err(error) = files.rename(&model, destination) {
                        self.restore_replaced()?;
                        return Err(io_error("move to", destination)(error));
                    }
                }
                exchanged => exchanged.map_err(io_error("replace", destination))?,
            }
        }
        // The old model may lie in the staging directory now: it goes once the new one is durable.
        self.begun = false;
        self.sync(parent_of(&self.destination))?;
        self.sync(&self.staging)?;
        self.discard()
    }
}

/// Whatever was not finished goes.
impl Drop for ModelStaging {
    fn drop(&mut self) {
        if self.begun {
            // The next run to the same destination finds the mark and removes the rest.
            let _ = self.discard();
        }
    }
}

impl std::fmt::Debug for ModelStaging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelStaging")
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}
