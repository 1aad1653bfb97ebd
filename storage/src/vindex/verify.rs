//! Reading every byte of a vindex and comparing it with the manifest's checksums.

use super::reader::{VindexError, read_manifest};
use super::{Checksum, Checksummer, layout::INDEX};
use crate::file::Files;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// What [`verify`] found in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file's name in the vindex.
    pub name: String,
    /// Its length according to the manifest.
    pub bytes: u64,
    /// How it is.
    pub state: FileState,
}

/// How a file compares with the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// Every byte is the one that was written.
    Ok,
    /// It has the right length, and nothing to compare its bytes with: a file of version 2.
    Unchecked,
    /// It is not there.
    Missing,
    /// It has another length.
    WrongSize {
        /// Its length.
        found: u64,
    },
    /// It has other bytes.
    WrongChecksum {
        /// SHA-256 of its bytes.
        found: Checksum,
        /// SHA-256 in the manifest.
        expected: Checksum,
    },
    /// It could not be read, or is no regular file.
    Unreadable {
        /// Why.
        problem: String,
    },
}

impl FileState {
    /// Whether the file is known not to be as it was written.
    pub fn is_damaged(&self) -> bool {
        !matches!(self, Self::Ok | Self::Unchecked)
    }
}

/// What [`verify`] found in all files that it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// One entry a file, in manifest order, `index.json` first.
    pub files: Vec<FileReport>,
    /// Whether the caller stopped before the last file.
    pub stopped: bool,
}

impl VerifyReport {
    /// Whether every file was looked at and none is found damaged.
    pub fn is_ok(&self) -> bool {
        !self.stopped && self.damaged().next().is_none()
    }

    /// The files that are not as they were written.
    pub fn damaged(&self) -> impl Iterator<Item = &FileReport> {
        self.files.iter().filter(|file| file.state.is_damaged())
    }
}

/// Bytes hashed between two looks at the mapping.
const CHUNK_BYTES: usize = 8 << 20;

/// What [`verify`] tells while it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyStep {
    /// So many more bytes were read, of the file that is being read.
    Read {
        /// How many.
        bytes: u64,
    },
    /// A file is done.
    File(FileReport),
}

/// Compares the SHA-256 of every file of a vindex with its manifest. `on_step` sees each report as it
/// is made, and how far it is within a file, and may stop the rest.
///
/// # Errors
/// When the manifest itself is missing or damaged, as [`super::Vindex::open`]; a damaged file is a
/// report, not an error.
pub fn verify(
    files: &Arc<dyn Files>,
    directory: &Path,
    on_step: &mut dyn FnMut(VerifyStep) -> ControlFlow<()>,
) -> Result<VerifyReport, VindexError> {
    let (manifest, _) = read_manifest(files, directory)?;
    let index_bytes = files.metadata(&directory.join(INDEX)).map_or(0, |found| found.length);
    let index = FileReport { name: INDEX.to_owned(), bytes: index_bytes, state: FileState::Ok };
    let mut report = VerifyReport::default();
    let mut stopped = on_step(VerifyStep::File(index.clone())).is_break();
    report.files.push(index);
    for entry in &manifest.files {
        if stopped {
            report.stopped = true;
            return Ok(report);
        }
        let path = directory.join(&entry.name);
        let mut on_read = |bytes| on_step(VerifyStep::Read { bytes });
        let Some(state) = state_of(files, &path, entry.bytes, entry.sha256, &mut on_read) else {
            report.stopped = true;
            return Ok(report);
        };
        let file = FileReport { name: entry.name.clone(), bytes: entry.bytes, state };
        report.files.push(file.clone());
        stopped = on_step(VerifyStep::File(file)).is_break();
    }
    Ok(report)
}

/// How a file compares; `None` when told to stop within it.
fn state_of(
    files: &Arc<dyn Files>,
    path: &Path,
    bytes: u64,
    expected: Option<Checksum>,
    on_read: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Option<FileState> {
    let unreadable = |error: io::Error| FileState::Unreadable { problem: error.to_string() };
    let mapping = match files.map(path) {
        Ok(mapping) => mapping,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(FileState::Missing),
        Err(error) => return Some(unreadable(error)),
    };
    let found = mapping.bytes().len() as u64;
    if found != bytes {
        return Some(FileState::WrongSize { found });
    }
    let Some(expected) = expected else { return Some(FileState::Unchecked) };
    let mut checksummer = Checksummer::new();
    for chunk in mapping.bytes().chunks(CHUNK_BYTES) {
        checksummer.update(chunk);
        if on_read(chunk.len() as u64).is_break() {
            return None;
        }
    }
    if let Err(error) = mapping.check() {
        return Some(unreadable(error));
    }
    Some(match checksummer.finish() {
        found if found == expected => FileState::Ok,
        found => FileState::WrongChecksum { found, expected },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_or_damaged_report_is_not_ok() {
        let file = |state| FileReport { name: "a".to_owned(), bytes: 1, state };
        let good = VerifyReport { files: vec![file(FileState::Ok)], stopped: false };
        assert!(good.is_ok());
        assert!(!VerifyReport { stopped: true, ..good.clone() }.is_ok());
        let damaged = VerifyReport { files: vec![file(FileState::Missing)], stopped: false };
        assert!(!damaged.is_ok());
        assert_eq!(damaged.damaged().count(), 1);
    }
}
