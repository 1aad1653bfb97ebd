//! VERIFY VINDEX: every file against its checksum.

use std::ops::ControlFlow;

use larql_planner::value::Value;
use larql_storage::vindex::{FileState, VerifyStep, verify};

use super::mount_row::integer;
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};

/// Gives one row a file, and fails after them if one is damaged.
pub(super) struct VerifyVindex {
    path: String,
    ready: Option<Ready>,
    damaged: Vec<String>,
}

impl VerifyVindex {
    pub(super) fn new(path: String) -> Self {
        Self { path, ready: None, damaged: Vec::new() }
    }

    fn run(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let path = work.resolve(&self.path)?;
        let mut rows = Vec::new();
        let mut read = 0;
        let report = verify(&work.files(), &path, &mut |step| {
            match step {
                VerifyStep::Read { bytes } => read += bytes,
                VerifyStep::File(file) => {
                    if file.state.is_damaged() {
                        self.damaged.push(file.name.clone());
                    }
                    rows.push(vec![
                        Value::text(file.name),
                        Value::text(state(&file.state)),
                        integer(file.bytes),
                    ]);
                }
            }
            let told = work.progress("verifying", read, 0, "bytes");
            match told.and(work.cancel.check().map_err(Failure::from)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        work.cancel.check()?;
        if report.stopped {
            return Err(Failure::cancelled());
        }
        work.touch(read);
        Ok(Ready::new(rows))
    }
}

fn state(state: &FileState) -> String {
    match state {
        FileState::Ok => "ok".to_owned(),
        FileState::Unchecked => "no checksum".to_owned(),
        FileState::Missing => "missing".to_owned(),
        FileState::WrongSize { .. } => "wrong size".to_owned(),
        FileState::WrongChecksum { .. } => "wrong checksum".to_owned(),
        FileState::Damaged { problem } => format!("damaged: {problem}"),
        FileState::Unreadable { problem } => format!("unreadable: {problem}"),
        other => format!("{other:?}"),
    }
}

impl Operator for VerifyVindex {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.run(work)?);
        }
        match self.ready.as_mut().and_then(Ready::batch) {
            Some(rows) => Ok(Some(rows)),
            None if self.damaged.is_empty() => Ok(None),
            None => {
                let message = format!("{} is damaged: {}", self.path, self.damaged.join(", "));
                Err(Failure::new(code::DAMAGED, message)
                    .hint("restore those files, or make them again: weights by EXTRACT, labels by LABEL, an index by ANALYZE"))
            }
        }
    }
}
