//! What a running statement says to its client, piece by piece.

use std::borrow::Cow;
use std::time::Duration;

use larql_planner::value::{Column, Value};

use crate::failure::Failure;

/// One row of an answer.
pub type Row = Vec<Value>;

/// A piece of a script's answer, in the order in which clients see it: for each statement Schema,
/// then rows, notices and progress, then Summary or Failure; Finished at the end.
#[derive(Debug, Clone)]
pub enum Output {
    /// Opens the answer of one statement.
    Schema {
        /// Its index in the script.
        statement: u32,
        /// Its first keywords.
        tag: Cow<'static, str>,
        /// What its rows hold.
        columns: Vec<Column>,
    },
    /// Rows.
    Rows(Vec<Row>),
    /// Something worth knowing that is not an error.
    Notice {
        /// What.
        message: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// How far a long job is.
    Progress {
        /// What the job is doing.
        stage: Cow<'static, str>,
        /// How much is done.
        done: u64,
        /// Of how much; 0 when unknown.
        total: u64,
        /// What is counted.
        unit: Cow<'static, str>,
    },
    /// Closes the answer of a statement that succeeded.
    Summary(Summary),
    /// Closes the answer of a statement that failed.
    Failure {
        /// Its index in the script.
        statement: u32,
        /// Why.
        failure: Failure,
    },
    /// The script is over.
    Finished {
        /// How many statements were answered.
        statements: u32,
        /// Whether one failed.
        failed: bool,
    },
}

/// What a statement cost and what it answered from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Rows answered.
    pub rows: u64,
    /// Bytes of weights and indexes read.
    pub bytes_touched: u64,
    /// From parse to last row.
    pub elapsed: Duration,
    /// The base's hash; empty where no mount took part.
    pub base_hash: String,
    /// The branch.
    pub branch: String,
    /// The log sequence number of the snapshot.
    pub lsn: u64,
    /// The mount's name.
    pub mount: String,
}

/// The client is gone: there is nobody to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkClosed;

/// Where a script's answer goes.
pub trait OutputSink {
    /// Hands over one piece, waiting while the client has enough to read.
    ///
    /// # Errors
    /// [`SinkClosed`] when the client is gone.
    fn send(&self, output: Output) -> Result<(), SinkClosed>;
}
