//! The directory beside a destination in which a vindex is written, and its neighbours: what is ours
//! to continue, to replace or to remove, and what is not.
//!
//! Promises: nothing is removed or replaced that does not carry one of the marks that storage puts on
//! its own; no symbolic link is followed out of the destination's folder; what marks a directory goes
//! last.
//!
//! Elsewhere: what is written into it, and in which order (`writer`), the journal's text (`journal`).

use super::Checksummer;
use super::journal::{self, Entry};
use super::layout::INDEX;
use super::writer::{Result, VindexWriteError};
use crate::file::{FileKind, FileWrite, Files, parent_of};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of the directory beside the destination in which a vindex is written.
const STAGING_SUFFIX: &str = ".partial";

/// The paths that belong to one destination.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) destination: PathBuf,
    pub(super) parent: PathBuf,
    pub(super) staging: PathBuf,
    pub(super) lock: PathBuf,
    /// Where the old vindex waits while the new one moves in, on file systems without exchange.
    pub(super) aside: PathBuf,
}

impl Paths {
    pub(super) fn of(destination: &Path) -> Option<Self> {
        let name = destination.file_name()?;
        let sibling = |suffix: &str| {
            let mut name = OsString::from(name);
            name.push(suffix);
            destination.with_file_name(name)
        };
        Some(Self {
            destination: destination.to_path_buf(),
            parent: parent_of(destination).to_path_buf(),
            staging: sibling(STAGING_SUFFIX),
            lock: sibling(".lock"),
            aside: sibling(".replaced"),
        })
    }
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> VindexWriteError {
    let path = path.to_path_buf();
    move |source| VindexWriteError::Io { action, path, source }
}

pub(super) fn exists(files: &Arc<dyn Files>, path: &Path) -> Result<bool> {
    match files.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

fn has_entry(files: &Arc<dyn Files>, directory: &Path, name: &str) -> bool {
    matches!(files.metadata(&directory.join(name)), Ok(found) if found.kind == FileKind::File)
}

/// Whether a directory is empty, or carries one of the marks that storage puts on its own.
pub(super) fn is_replaceable(files: &Arc<dyn Files>, directory: &Path, marks: &[&str]) -> bool {
    marks.iter().any(|mark| has_entry(files, directory, mark))
        || files.list(directory).is_ok_and(|entries| entries.is_empty())
}

pub(super) fn check_destination(
    files: &Arc<dyn Files>,
    destination: &Path,
    overwrite: bool,
) -> Result<()> {
    let destination = || destination.to_path_buf();
    if !exists(files, &destination())? {
        return Ok(());
    }
    if !overwrite {
        return Err(VindexWriteError::DestinationExists { destination: destination() });
    }
    if !is_replaceable(files, &destination(), &[INDEX]) {
        return Err(VindexWriteError::DestinationIsNotAVindex { destination: destination() });
    }
    Ok(())
}

/// Undoes half an overwrite: the old vindex was moved aside, the new one did not arrive.
pub(super) fn restore_aside(files: &Arc<dyn Files>, paths: &Paths) -> Result<()> {
    let Paths { destination, parent, aside, .. } = paths;
    if !exists(files, destination)? && has_entry(files, aside, INDEX) {
        files.rename(aside, destination).map_err(io_error("move back", aside))?;
        files.sync_dir(parent).map_err(io_error("sync", parent))?;
    }
    Ok(())
}

/// Refuses a staging path that no writer left there, or that leads elsewhere.
pub(super) fn check_staging(files: &Arc<dyn Files>, paths: &Paths) -> Result<()> {
    let Paths { staging, parent, .. } = paths;
    let real = files.canonicalize(staging).map_err(io_error("look at", staging))?;
    let expected = files.canonicalize(parent).map_err(io_error("look at", parent))?;
    let problem = if real.parent() != Some(&*expected) || real.file_name() != staging.file_name() {
        "it is a symbolic link"
    } else if !is_replaceable(files, staging, &[journal::NAME, INDEX]) {
        "it was not left by an EXTRACT"
    } else {
        return Ok(());
    };
    Err(VindexWriteError::Staging { staging: staging.clone(), problem: problem.to_owned() })
}

pub(super) fn read_journal(
    files: &Arc<dyn Files>,
    paths: &Paths,
) -> Result<Option<journal::Contents>> {
    let path = paths.staging.join(journal::NAME);
    match files.read(&path, journal::BYTES_MAX) {
        Ok(bytes) => Ok(journal::parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// Opens the journal for more entries. An `index.json` that the interrupted run had come to goes
/// first: while data is appended, nothing may look finished.
pub(super) fn reopen_journal(
    files: &Arc<dyn Files>,
    paths: &Paths,
    bytes: u64,
) -> Result<Box<dyn FileWrite>> {
    let (staging, path) = (&paths.staging, paths.staging.join(journal::NAME));
    remove_if_there(files, &staging.join(INDEX))?;
    files.sync_dir(staging).map_err(io_error("sync", staging))?;
    files.resume(&path, bytes).map_err(io_error("continue", &path))
}

/// Starts over: an empty staging directory with a journal that names what is being written.
pub(super) fn begin_staging(
    files: &Arc<dyn Files>,
    paths: &Paths,
    fingerprint: &str,
) -> Result<Box<dyn FileWrite>> {
    let (staging, path) = (&paths.staging, paths.staging.join(journal::NAME));
    if exists(files, staging)? {
        discard(files, staging)?;
    }
    files.create_dir_all(staging).map_err(io_error("create", staging))?;
    let mut write = create_fresh(files, &path)?;
    write.write_all(&Entry::start(fingerprint).encode()).map_err(io_error("write", &path))?;
    write.sync().map_err(io_error("sync", &path))?;
    files.sync_dir(staging).map_err(io_error("sync", staging))?;
    files.sync_dir(&paths.parent).map_err(io_error("sync", &paths.parent))?;
    Ok(write)
}

/// Removes a staging directory or a replaced vindex. What marks it as ours goes last, so that an
/// interrupted removal can be told from somebody else's directory.
pub(super) fn discard(files: &Arc<dyn Files>, directory: &Path) -> Result<()> {
    let failed = || io_error("remove", directory);
    for name in files.list(directory).map_err(failed())? {
        if name != journal::NAME && name != INDEX {
            // A directory in it is left to the last step.
            let _ = files.remove_file(&directory.join(name));
        }
    }
    files.remove_dir_all(directory).map_err(failed())
}

/// Whether a writer works in this directory, or worked in it when it was interrupted. A finished
/// vindex may still hold a journal, but not under the name of a staging directory.
pub(super) fn is_staging(files: &Arc<dyn Files>, directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(STAGING_SUFFIX.as_bytes()) && has_entry(files, directory, journal::NAME)
}

fn remove_if_there(files: &Arc<dyn Files>, path: &Path) -> Result<()> {
    match files.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Creates a file of our own: what has the name already may be a link to somebody else's bytes.
pub(super) fn create_fresh(files: &Arc<dyn Files>, path: &Path) -> Result<Box<dyn FileWrite>> {
    remove_if_there(files, path)?;
    files.create(path).map_err(io_error("create", path))
}

pub(super) fn write_fresh(files: &Arc<dyn Files>, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut write = create_fresh(files, path)?;
    write.write_all(bytes).map_err(io_error("write", path))?;
    write.sync().map_err(io_error("sync", path))
}

/// Digests the first `length` bytes of a file.
pub(super) fn checksum_prefix(
    files: &Arc<dyn Files>,
    path: &Path,
    length: u64,
) -> io::Result<Checksummer> {
    let mapping = files.map(path)?;
    let bytes = usize::try_from(length).ok().and_then(|length| mapping.bytes().get(..length));
    let bytes = bytes.ok_or_else(|| {
        let found = mapping.bytes().len();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{found} bytes, its journal says {length}"),
        )
    })?;
    let mut checksummer = Checksummer::new();
    checksummer.update(bytes);
    mapping.check()?;
    Ok(checksummer)
}
