//! A new file of vectors: put together beside its destination, moved in whole.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TraceFileError;
use crate::file::{Claim, FileWrite, Files, parent_of};

/// Numbers that are turned into bytes at a time.
const NUMBERS_AT_ONCE: usize = 4 << 10;

/// A file in the making, of an announced number of `f32`s after what comes first.
pub(super) struct VectorWriter {
    files: Arc<dyn Files>,
    destination: PathBuf,
    staging: PathBuf,
    /// `None` when it is done, so that what is left goes and nothing else.
    write: Option<Box<dyn FileWrite>>,
    announced: u64,
    written: u64,
    bytes: Vec<u8>,
    _lock: Claim,
}

impl VectorWriter {
    /// Begins a file with these bytes, to be followed by so many numbers.
    ///
    /// # Errors
    /// `Exists`, `Busy`; `Io`.
    pub(super) fn create(
        files: &Arc<dyn Files>,
        destination: &Path,
        first: &[&[u8]],
        announced: u64,
    ) -> Result<Self, TraceFileError> {
        let beside = |suffix: &str| {
            let mut name = destination.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (staging, lock) = (beside(".partial"), beside(".lock"));
        let lock = Claim::take(files, &lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => TraceFileError::Busy { path: destination.to_path_buf() },
            _ => failed("lock", destination)(error),
        })?;
        absent(files, destination)?;
        absent(files, &staging)?;
        let mut write = files.create(&staging).map_err(failed("create", &staging))?;
        for bytes in first {
            write.write_all(bytes).map_err(failed("write", &staging))?;
        }
        Ok(Self {
            files: files.clone(),
            destination: destination.to_path_buf(),
            staging,
            write: Some(write),
            announced,
            written: 0,
            bytes: Vec::new(),
            _lock: lock,
        })
    }

    /// Appends a vector.
    ///
    /// # Errors
    /// `Incomplete` for one more than announced; `Io`.
    pub(super) fn vector(&mut self, row: &[f32]) -> Result<(), TraceFileError> {
        self.written += row.len() as u64;
        if self.written > self.announced {
            return Err(self.incomplete());
        }
        let Some(write) = &mut self.write else { return Err(self.incomplete()) };
        for numbers in row.chunks(NUMBERS_AT_ONCE) {
            self.bytes.clear();
            self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            write.write_all(&self.bytes).map_err(failed("write", &self.staging))?;
        }
        Ok(())
    }

    /// Makes the file durable at its destination; returns its length.
    ///
    /// # Errors
    /// `Incomplete`, `Exists` when somebody put something there meanwhile; `Io`.
    pub(super) fn finish(mut self) -> Result<u64, TraceFileError> {
        if self.written != self.announced {
            return Err(self.incomplete());
        }
        let Self { files, destination, staging, write, .. } = &mut self;
        let Some(open) = write else { return Ok(0) };
        open.sync().map_err(failed("sync", staging))?;
        let length = open.position();
        absent(files, destination)?;
        files.rename(staging, destination).map_err(failed("move to", destination))?;
        *write = None;
        let parent = parent_of(destination);
        files.sync_dir(parent).map_err(failed("sync", parent))?;
        Ok(length)
    }

    fn incomplete(&self) -> TraceFileError {
        TraceFileError::Incomplete { announced: self.announced, written: self.written }
    }
}

/// Whatever was not finished goes.
impl Drop for VectorWriter {
    fn drop(&mut self) {
        if self.write.take().is_some() {
            // The next writer says that it is in the way.
            let _ = self.files.remove_file(&self.staging);
        }
    }
}

impl std::fmt::Debug for VectorWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorWriter")
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TraceFileError {
    let path = path.to_path_buf();
    move |source| TraceFileError::Io { action, path, source }
}

fn absent(files: &Arc<dyn Files>, path: &Path) -> Result<(), TraceFileError> {
    match files.metadata(path) {
        Ok(_) => Err(TraceFileError::Exists { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
    }
}
