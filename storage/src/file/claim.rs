//! A lock file that goes when its holder does.

use super::{FileLock, Files};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A held lock; its file is removed when it is dropped, and after that the lock ends: in this order,
/// so that nobody locks a nameless file.
pub(crate) struct Claim {
    files: Arc<dyn Files>,
    path: PathBuf,
    _lock: Box<dyn FileLock>,
}

impl Claim {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// As [`Files::lock`].
    pub(crate) fn take(files: &Arc<dyn Files>, path: &Path) -> io::Result<Self> {
        let lock = files.lock(path)?;
        Ok(Self { files: files.clone(), path: path.to_path_buf(), _lock: lock })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A lock file that stays behind locks nobody out.
        let _ = self.files.remove_file(&self.path);
    }
}
