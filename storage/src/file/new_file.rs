//! A new file: put together beside its destination, moved in whole, never over something.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Claim, FileWrite, Files, parent_of};

/// Why a new file was not made.
#[derive(Debug, thiserror::Error)]
pub enum NewFileError {
    /// Something is at the destination, or is left of a writer that died.
    #[error("{} exists already", .path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// Somebody else is writing it.
    #[error("{} is being written by somebody else", .path.display())]
    Busy {
        /// The destination.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was asked.
        action: &'static str,
        /// Of what.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

/// A file in the making. Dropped before [`NewFile::finish`], nothing is left of it.
pub struct NewFile {
    files: Arc<dyn Files>,
    destination: PathBuf,
    staging: PathBuf,
    /// `None` when it is done, so that what is left goes and nothing else.
    write: Option<Box<dyn FileWrite>>,
    _lock: Claim,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// `Exists`, `Busy`; `Io`.
    pub fn create(files: &Arc<dyn Files>, destination: &Path) -> Result<Self, NewFileError> {
        let beside = |suffix: &str| {
            let mut name = destination.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (staging, lock) = (beside(".partial"), beside(".lock"));
        let lock = Claim::take(files, &lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => NewFileError::Busy { path: destination.to_path_buf() },
            _ => failed("lock", destination)(error),
        })?;
        absent(files, destination)?;
        absent(files, &staging)?;
        let write = files.create(&staging).map_err(failed("create", &staging))?;
        Ok(Self {
            files: files.clone(),
            destination: destination.to_path_buf(),
            staging,
            write: Some(write),
            _lock: lock,
        })
    }

    /// What an error of writing is.
    pub fn failed(&self, source: io::Error) -> NewFileError {
        failed("write", &self.staging)(source)
    }

    /// Makes what was written durable, so that [`NewFile::finish`] has a name left to give.
    ///
    /// # Errors
    /// `Io`.
    pub fn prepare(&mut self) -> Result<(), NewFileError> {
        let Some(open) = &mut self.write else { return Ok(()) };
        open.sync().map_err(failed("sync", &self.staging))
    }

    /// Makes the file durable at its destination; returns its length in bytes.
    ///
    /// # Errors
    /// `Exists` when somebody put something there meanwhile; `Io`.
    pub fn finish(mut self) -> Result<u64, NewFileError> {
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
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.write {
            Some(write) => write.write(bytes),
            None => Err(io::Error::other("the file is finished")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write.as_mut().map_or(Ok(()), |write| write.flush())
    }
}

/// Whatever was not finished goes.
impl Drop for NewFile {
    fn drop(&mut self) {
        if self.write.take().is_some() {
            // The next writer says that it is in the way.
            let _ = self.files.remove_file(&self.staging);
        }
    }
}

impl std::fmt::Debug for NewFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewFile").field("destination", &self.destination).finish_non_exhaustive()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NewFileError {
    let path = path.to_path_buf();
    move |source| NewFileError::Io { action, path, source }
}

fn absent(files: &Arc<dyn Files>, path: &Path) -> Result<(), NewFileError> {
    match files.metadata(path) {
        Ok(_) => Err(NewFileError::Exists { path: path.to_path_buf() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
    }
}
