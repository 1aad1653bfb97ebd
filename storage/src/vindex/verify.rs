//! Reading every byte of a vindex and comparing it with the manifest's checksums; of what was learned
//! later and lies beside (labels, indexes), with those in the files themselves.

use super::index::{INDEX_SUFFIX, IndexError, IndexFile, index_names, index_path};
use super::knowledge::{KNOWLEDGE, KNOWLEDGE_BYTES_MAX, KnowledgeFile};
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
    /// It is not what it says that it is.
    Damaged {
        /// What is wrong with it.
        problem: String,
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
    /// One entry a file: `index.json`, those of the manifest in its order, labels, indexes by name.
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
    for name in learned(files, directory) {
        if stopped {
            report.stopped = true;
            return Ok(report);
        }
        let (bytes, state) = state_of_learned(files, directory, &name, &manifest.base_hash);
        let file = FileReport { name, bytes, state };
        report.files.push(file.clone());
        stopped = on_step(VerifyStep::Read { bytes }).is_break()
            || on_step(VerifyStep::File(file)).is_break();
    }
    Ok(report)
}

/// The files that are there of those that are made after a vindex.
fn learned(files: &Arc<dyn Files>, directory: &Path) -> Vec<String> {
    let labels = files.metadata(&directory.join(KNOWLEDGE)).is_ok();
    let labels = labels.then(|| KNOWLEDGE.to_owned());
    // A directory that cannot be listed has shown that with its manifest.
    let indexes = index_names(files, directory).unwrap_or_default();
    labels.into_iter().chain(indexes.iter().map(|name| format!("{name}{INDEX_SUFFIX}"))).collect()
}

/// The length of such a file, and how it compares with its own checksums and with the weights that it
/// is beside.
fn state_of_learned(
    files: &Arc<dyn Files>,
    directory: &Path,
    name: &str,
    base_hash: &str,
) -> (u64, FileState) {
    const OTHER: &str = "it was made of other weights";
    let path = directory.join(name);
    let bytes = files.metadata(&path).map_or(0, |found| found.length);
    let problem = match name.strip_suffix(INDEX_SUFFIX) {
        None => match files.read(&path, KNOWLEDGE_BYTES_MAX) {
            Ok(text) => match KnowledgeFile::base_hash_of(&text) {
                Ok(found) => (found != base_hash).then(|| OTHER.to_owned()),
                Err(error) => Some(error.to_string()),
            },
            Err(error) => return (bytes, FileState::Unreadable { problem: error.to_string() }),
        },
        Some(index) => {
            let read = || {
                let file = IndexFile::open(files, &index_path(directory, index))?;
                for section in 0..file.header().sections.len() {
                    file.section(section)?;
                }
                file.check()?;
                Ok(file.header().base_hash == base_hash)
            };
            match read() {
                Ok(same) => (!same).then(|| OTHER.to_owned()),
                Err::<_, IndexError>(error) => Some(error.to_string()),
            }
        }
    };
    (bytes, problem.map_or(FileState::Ok, |problem| FileState::Damaged { problem }))
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
