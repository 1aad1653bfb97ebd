//! What a labelling run has done so far, so that an interrupted one can go on.
//!
//! One JSON line a finished piece of work, after a first line that says of which run: weights, facts
//! and version. A torn last line, and all after it, counts as not written.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_storage::file::{FileWrite, Files};
use larql_storage::vindex::knowledge::{KNOWLEDGE_BYTES_MAX, RelationRecord};
use serde::{Deserialize, Serialize};

use super::edges::Found;
use crate::failure::Failure;
use crate::knowledge::evidence::Evidence;

/// The file's name in the vindex directory.
const JOURNAL: &str = "knowledge.labels.journal";

/// A finished piece of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// How to ask for a relation, if the model can be asked.
    Relation(String, Option<RelationRecord>),
    /// What an entity's questions brought.
    Answers(String, Vec<Evidence>),
    /// The features behind an entity's edges.
    Edges(String, Vec<Found>),
}

#[derive(Serialize, Deserialize)]
struct Header {
    fingerprint: String,
}

/// The journal of a run.
pub struct Journal {
    files: Arc<dyn Files>,
    path: PathBuf,
    file: Box<dyn FileWrite>,
}

impl Journal {
    /// Begins a journal, or goes on with the one of an interrupted run and returns what it did.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
        fingerprint: &str,
        resume: bool,
    ) -> Result<(Self, Vec<Entry>), Failure> {
        let path = directory.join(JOURNAL);
        let failed = |error: &io::Error| Failure::io(path.display(), error);
        let (entries, length) = match resume {
            true => read(files, &path, fingerprint).map_err(|error| failed(&error))?,
            false => (Vec::new(), 0),
        };
        let file = match length {
            0 => files.create(&path),
            length => files.resume(&path, length),
        };
        let file = file.map_err(|error| failed(&error))?;
        let mut journal = Self { files: files.clone(), path, file };
        if length == 0 {
            journal.put(&Header { fingerprint: fingerprint.to_owned() })?;
        }
        Ok((journal, entries))
    }

    /// Adds a finished piece.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.put(entry)
    }

    fn put(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(line).expect("a journal's entries are plain data");
        text.push(b'\n');
        // Out of this process with each piece, so that a kill loses at most the one in work.
        let written = self.file.write_all(&text).and_then(|()| self.file.flush());
        written.map_err(|error| Failure::io(self.path.display(), &error))
    }

    /// Ends the run: what it did stands in the knowledge file by now.
    pub fn finish(self) {
        drop(self.file);
        // A journal that stays is overwritten by the next run, or resumed to the same end.
        let _ = self.files.remove_file(&self.path);
    }
}

/// The entries of a run with that fingerprint, and where they end.
fn read(files: &Arc<dyn Files>, path: &Path, fingerprint: &str) -> io::Result<(Vec<Entry>, u64)> {
    let text = match files.read(path, KNOWLEDGE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let mut lines =
        text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let Some(first) = lines.next() else { return Ok((Vec::new(), 0)) };
    let header = serde_json::from_slice::<Header>(first);
    if !header.is_ok_and(|header| header.fingerprint == fingerprint) {
        return Ok((Vec::new(), 0));
    }
    let mut length = first.len();
    let mut entries = Vec::new();
    for line in lines {
        let Ok(entry) = serde_json::from_slice(line) else { break };
        entries.push(entry);
        length += line.len();
    }
    Ok((entries, length as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use larql_storage::file::MemoryFiles;

    #[test]
    fn a_torn_line_is_not_read_and_another_run_begins_anew() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let directory = Path::new("/v");
        files.create_dir_all(directory).unwrap();
        let (mut journal, entries) = Journal::open(&files, directory, "a", true).unwrap();
        assert!(entries.is_empty());
        journal.add(&Entry::Relation("capital".to_owned(), None)).unwrap();
        journal.file.write_all(b"{\"torn").unwrap();
        drop(journal);
        let (mut journal, entries) = Journal::open(&files, directory, "a", true).unwrap();
        assert!(matches!(&entries[..], [Entry::Relation(name, None)] if name == "capital"));
        journal.add(&Entry::Answers("France".to_owned(), Vec::new())).unwrap();
        drop(journal);
        let (_, entries) = Journal::open(&files, directory, "a", true).unwrap();
        assert_eq!(entries.len(), 2);
        for (fingerprint, resume) in [("b", true), ("a", false)] {
            let (_, entries) = Journal::open(&files, directory, fingerprint, resume).unwrap();
            assert!(entries.is_empty(), "{fingerprint} {resume}");
        }
    }
}
