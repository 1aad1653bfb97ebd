//! The file seam: every byte that storage reads or writes passes through [`Files`].
//!
//! Three backends share one contract (and one test suite, `storage/tests/file_backends.rs`):
//! [`DiskFiles`] maps real files, [`MemoryFiles`] keeps everything in memory, and [`FaultyFiles`]
//! wraps another backend to fail at a chosen operation or to lose what was never synced.
//!
//! Promises: only regular files are opened, and never through a symbolic link in the last component
//! of a path (whoever wants to follow one calls [`Files::canonicalize`] first and looks at the
//! answer). A mapping whose file is truncated by somebody else stays readable, as zeros, and says so
//! in [`Mapping::check`]; it never ends the process. Data is durable after [`FileWrite::sync`], a
//! directory entry after [`Files::sync_dir`] of its directory; nobody retries a failed sync.
//!
//! This folder holds the only unsafe code of the crate.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod claim;
mod exact;
mod faulty;
mod memory;
mod mmap;
mod new_file;
mod truncation;

pub(crate) use claim::Claim;
pub(crate) use exact::ExactWriter;
pub use faulty::{Fault, FaultyFiles, Operation};
pub use memory::MemoryFiles;
pub use mmap::DiskFiles;
pub use new_file::{NewFile, NewFileError};

/// A place where files live.
pub trait Files: Send + Sync + Debug {
    /// Maps a whole regular file, read-only.
    ///
    /// # Errors
    /// `InvalidInput` for a directory, FIFO, device, socket or symbolic link.
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapping>>;

    /// Reads a whole regular file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// `FileTooLarge` above the bound, before memory is taken; else as [`Files::map`].
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;

    /// Creates a file, or truncates the one that is there, and writes from its start.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>>;

    /// Opens an existing file, cuts it to `length` bytes and appends from there.
    ///
    /// # Errors
    /// `InvalidInput` when the file is shorter than `length`, or has a second name (hard link):
    /// writing through it would change the other file.
    fn resume(&self, path: &Path, length: u64) -> io::Result<Box<dyn FileWrite>>;

    /// Opens an existing file to be overwritten in place, within the length that it has.
    ///
    /// # Errors
    /// `InvalidInput` when it is no regular file, or has a second name (hard link).
    fn overwrite(&self, path: &Path) -> io::Result<Box<dyn FileOverwrite>>;

    /// Length and kind of what `path` names, symbolic links followed.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The absolute path without symbolic links, `.` and `..`; the file must exist.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Names of a directory's entries, sorted by their bytes.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Creates a directory and the missing ones above it; an existing one is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory; an existing file or empty directory at `to` is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a regular file a second name (a hard link); both are the same bytes from then on.
    ///
    /// # Errors
    /// `AlreadyExists` when there is something at `to`, `InvalidInput` when `from` is no regular file;
    /// what the system says where it links no such file, or not to there, and whoever asked may copy it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Swaps the two names in one step, so that no moment lacks either of them.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot do it; nothing has changed then.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;

    /// Removes one file (or symbolic link, itself).
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything below it, following no symbolic link.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the directory's entries durable: creations, renames and removals in it.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on the file at `path` (created when missing), without waiting.
    ///
    /// The lock ends when the value is dropped or the process dies; the file stays. Its holder may
    /// remove the file: a lock on a file that `path` no longer names is never handed out.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else, in this process or another, holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// The bytes of one file, borrowed from the page cache where the backend can.
pub trait Mapping: Send + Sync + Debug {
    /// The whole content as of mapping. The first byte is aligned to at least 64 bytes.
    fn bytes(&self) -> &[u8];

    /// The path that was mapped.
    fn path(&self) -> &Path;

    /// Says whether the file still has the length that was mapped.
    ///
    /// # Errors
    /// `InvalidData`, naming the path, when it was truncated or grew; bytes read in the meantime may
    /// have been zeros, so whoever computed with them discards the result.
    fn check(&self) -> io::Result<()>;

    /// Hints that `range` is about to be read; out-of-range parts are ignored.
    fn will_need(&self, range: Range<usize>);
}

/// A file being written from one position onwards.
pub trait FileWrite: Write + Send {
    /// Makes everything written so far durable (data and length). After a failure the content is
    /// unknown: the writer gives up, and nobody retries.
    fn sync(&mut self) -> io::Result<()>;

    /// Bytes in the file up to and including everything written.
    fn position(&self) -> u64;
}

/// A file whose bytes are replaced where they lie; its length stays.
pub trait FileOverwrite: Send {
    /// Replaces the bytes at an offset.
    ///
    /// # Errors
    /// `InvalidInput` beyond the end of the file; what the system says, after which the bytes are unknown.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable. Nobody retries a failed one.
    fn sync(&mut self) -> io::Result<()>;
}

/// An exclusive lock, released on drop.
pub trait FileLock: Send + Debug {}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; of meaning for regular files only.
    pub length: u64,
    /// The kind of entry.
    pub kind: FileKind,
}

/// The kinds of directory entries that storage tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a FIFO, device or socket.
    Other,
}

/// Creates a directory with the missing ones above it, and makes their entries durable.
///
/// # Errors
/// The path that could not be created or synced, what was attempted, and the system's answer.
pub(crate) fn create_durable_dir(
    files: &Arc<dyn Files>,
    directory: &Path,
) -> Result<(), (&'static str, PathBuf, io::Error)> {
    let missing: Vec<_> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && files.metadata(path).is_err())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    files.create_dir_all(directory).map_err(|error| ("create", directory.to_path_buf(), error))?;
    for path in missing.into_iter().rev() {
        let above = parent_of(path);
        files.sync_dir(above).map_err(|error| ("sync", above.to_path_buf(), error))?;
    }
    Ok(())
}

/// The directory that a path lies in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Whether `name` is one plain path component: no separator, NUL or leading dot, not too long.
///
/// The rule for every file name that comes out of a manifest or a shard index.
pub fn is_plain_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 255;
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_have_no_way_out_of_their_directory() {
        for good in ["index.json", "model-00001-of-00002.safetensors", "Ünïcode"] {
            assert!(is_plain_name(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in
            ["", ".", "..", ".hidden", "a/b", "../x", "/etc/passwd", "a\\b", "c:x", "a\0", &long]
        {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
