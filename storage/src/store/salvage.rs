//! What can be saved of a store that does not open: looked at, never changed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::format::Engine;
use super::history::History;
use super::record::Record;
use super::{StoreError, export, io, open_log, read_checkpoint};
use crate::file::Files;
use crate::wal::Survey;

/// What was found of a store.
#[derive(Debug)]
pub struct Salvage {
    /// What is wrong with the checkpoint, if something is.
    pub checkpoint: Option<String>,
    /// Records that are whole, in the log and the checkpoint.
    pub whole: u64,
    /// The last LSN of an unbroken history.
    pub unbroken: u64,
    /// Whole records behind the first that is missing: they are counted, and not part of what is saved,
    /// since what they build upon is gone.
    pub stranded: u64,
    /// The last LSN that was acknowledged, as far as the mark can be read.
    pub acknowledged: Option<u64>,
    /// Inclusive ranges of LSNs that were acknowledged and are not whole.
    pub missing: Vec<(u64, u64)>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
    base_hash: String,
    history: History,
}

impl Salvage {
    /// Writes the unbroken history as an export.
    ///
    /// # Errors
    /// What the writer says.
    pub fn export(&self, to: &mut dyn Write) -> std::io::Result<()> {
        export(&self.history, &self.base_hash, to)
    }
}

/// Looks at a store that nobody has open. Its files stay as they are: sled, which changes what it opens,
/// works on a copy in `scratch`.
///
/// # Errors
/// `Io` when the files cannot even be copied.
pub fn salvage(
    files: &Arc<dyn Files>,
    directory: &Path,
    base_hash: &str,
    engine: Engine,
    scratch: &Path,
) -> Result<Salvage, StoreError> {
    let mut problems = Vec::new();
    let checkpoint = read_checkpoint(files, directory, base_hash);
    let checkpoint = checkpoint.and_then(|found| found.map(super::Archive::history).transpose());
    let (mut history, checkpoint) = match checkpoint {
        Ok(found) => (found.unwrap_or_default(), None),
        Err(error) => (History::default(), Some(error.to_string())),
    };
    problems.extend(checkpoint.clone());
    let after = history.state().lsn;
    let in_checkpoint = history.records().len();
    let log = match engine {
        Engine::File => open_log(files, directory, base_hash, engine),
        Engine::Sled => {
            copy(&directory.join("log"), &scratch.join("log"), |_| true)
                .map_err(io("copy the log to", scratch))?;
            let opened = open_log(files, scratch, base_hash, engine);
            opened.or_else(|first| {
                // Its snapshot is derived from the rest: without it, sled reads everything anew.
                problems.push(first.to_string());
                let again = scratch.join("again");
                copy(&directory.join("log"), &again.join("log"), |name| !name.starts_with("snap."))
                    .map_err(io("copy the log to", scratch))?;
                open_log(files, &again, base_hash, engine)
            })
        }
    };
    let survey = match log {
        Ok(log) => Survey::of(files, directory, &*log, after),
        Err(error) => Survey { stopped: Some(error.to_string()), ..Survey::default() },
    };
    problems.extend(survey.damaged.iter().map(|(lsn, problem)| format!("record {lsn} {problem}")));
    problems.extend(survey.stopped.clone());
    let mut stranded = 0;
    for record in &survey.records {
        let next = history.state().lsn + 1;
        let decoded = Record::decode(record.kind, &record.payload);
        match decoded {
            Ok(decoded) if record.lsn == next => {
                if let Err(error) = history.push(next, Arc::new(decoded)) {
                    problems.push(format!("record {next}: {error}"));
                    stranded += 1;
                }
            }
            Ok(_) => stranded += 1,
            Err(error) => problems.push(format!("record {} {error}", record.lsn)),
        }
    }
    let acknowledged = survey.mark;
    let whole = survey.records.len() + in_checkpoint;
    Ok(Salvage {
        checkpoint,
        whole: whole as u64,
        unbroken: history.state().lsn,
        stranded,
        missing: survey.lost(after + 1, acknowledged.unwrap_or(after)),
        acknowledged,
        problems,
        base_hash: base_hash.to_owned(),
        history,
    })
}

fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(wanted) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to.join(&name), wanted)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}
