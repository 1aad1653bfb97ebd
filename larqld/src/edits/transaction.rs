//! A session's transaction: operations that nobody else sees yet, above the moment at which it began.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use larql_storage::overlay::Operation;
use larql_storage::store::{OPERATIONS_MAX, Provenance};

use super::{Edits, PatchPlace, View};
use crate::failure::{Failure, code};

/// Savepoints of one transaction.
const SAVEPOINTS_MAX: usize = 1024;

/// An open transaction.
#[derive(Debug)]
pub struct Transaction {
    /// The base that it edits.
    pub base_hash: String,
    /// The patch that it is to become, where it began as one.
    pub patch: Option<PatchPlace>,
    /// The statements that changed something.
    pub statements: Vec<String>,
    operations: Vec<Operation>,
    began: Arc<View>,
    view: Arc<View>,
    savepoints: Vec<(String, usize, usize)>,
}

impl Transaction {
    /// Begins on a view.
    pub fn begin(base_hash: &str, view: Arc<View>, patch: Option<PatchPlace>) -> Self {
        Self {
            base_hash: base_hash.to_owned(),
            patch,
            statements: Vec::new(),
            operations: Vec::new(),
            began: view.clone(),
            view,
            savepoints: Vec::new(),
        }
    }

    /// What its statements see.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What it saw when it began.
    pub fn began(&self) -> &Arc<View> {
        &self.began
    }

    /// What it did, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Does more, seen by itself only.
    ///
    /// # Errors
    /// `LIMIT` beyond what one transaction holds.
    pub fn add(
        &mut self,
        edits: &Edits,
        operations: Vec<Operation>,
        statement: String,
    ) -> Result<(), Failure> {
        if self.operations.len() + operations.len() > OPERATIONS_MAX {
            let message = format!("a transaction holds at most {OPERATIONS_MAX} operations");
            return Err(Failure::new(code::LIMIT, message).hint("COMMIT, and BEGIN another"));
        }
        let view = self.view.with_pending(&operations, edits.next_pending());
        self.operations.extend(operations);
        self.statements.push(statement);
        self.view = Arc::new(view);
        Ok(())
    }

    /// Remembers how far it is; a name that was used before now means this.
    ///
    /// # Errors
    /// `LIMIT` beyond what one transaction remembers.
    pub fn savepoint(&mut self, name: &str) -> Result<(), Failure> {
        self.savepoints.retain(|(known, ..)| !known.eq_ignore_ascii_case(name));
        if self.savepoints.len() == SAVEPOINTS_MAX {
            let message = format!("a transaction has at most {SAVEPOINTS_MAX} savepoints");
            return Err(Failure::new(code::LIMIT, message));
        }
        self.savepoints.push((name.to_owned(), self.operations.len(), self.statements.len()));
        Ok(())
    }

    /// Takes back what was done after a savepoint, which stays.
    ///
    /// # Errors
    /// `UNDEFINED_SAVEPOINT`.
    pub fn rollback_to(&mut self, edits: &Edits, name: &str) -> Result<(), Failure> {
        let known = |(known, ..): &(String, usize, usize)| known.eq_ignore_ascii_case(name);
        let Some(at) = self.savepoints.iter().position(known) else {
            let message = format!("the transaction has no savepoint \"{name}\"");
            return Err(Failure::new(code::UNDEFINED_SAVEPOINT, message)
                .hint(format!("SAVEPOINT {name} makes one")));
        };
        let (_, operations, statements) = self.savepoints[at];
        self.savepoints.truncate(at + 1);
        self.operations.truncate(operations);
        self.statements.truncate(statements);
        self.view = Arc::new(self.began.with_pending(&self.operations, edits.next_pending()));
        Ok(())
    }

    /// What a notice calls it.
    pub fn title(&self) -> String {
        match &self.patch {
            Some(patch) => format!("patch \"{}\"", patch.name),
            None => "the transaction".to_owned(),
        }
    }
}

/// Milliseconds since 1970 (UTC).
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as text, in UTC (RFC 3339).
pub fn timestamp(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(String::new, |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Where a change that is made now comes from.
pub(crate) fn provenance(author: &impl ToString, statement: String, base_hash: &str) -> Provenance {
    Provenance {
        author: author.to_string(),
        at_ms: now_ms(),
        statement,
        base_hash: base_hash.to_owned(),
    }
    .bounded()
}
