//! A statement that runs once for each row of the stage before it in a pipe.

use larql_planner::bind::prepared::substitute;
use larql_planner::physical::plan;
use larql_planner::syntax::ast::Parameter;

use super::{Operator, Row, Work, build_unmetered};
use crate::failure::{Failure, code};
use crate::session;

/// Rows that one stage runs its statement for at most.
const RUNS_MAX: u64 = 100_000;

/// Plans and runs the statement for one row after another.
pub(super) struct ForEach {
    input: Box<dyn Operator>,
    each: plan::ForEach,
    waiting: std::vec::IntoIter<Row>,
    running: Option<Box<dyn Operator>>,
    /// Bytes of rows that the statement held before the run.
    held: usize,
    runs: u64,
}

impl ForEach {
    pub(super) fn new(input: Box<dyn Operator>, each: plan::ForEach) -> Self {
        Self { input, each, waiting: Vec::new().into_iter(), running: None, held: 0, runs: 0 }
    }

    /// The statement for a row, ready to run; `None` where a text that it needs is NULL.
    fn start(&mut self, row: &Row, work: &Work<'_>) -> Result<Option<Box<dyn Operator>>, Failure> {
        let columns = &self.each.columns;
        let is_missing = |column: &plan::BoundColumn| {
            column.is_text && row.get(column.index).is_none_or(|value| value.is_null())
        };
        if columns.iter().any(is_missing) {
            return Ok(None);
        }
        self.runs += 1;
        if self.runs > RUNS_MAX {
            let message = format!("a stage of the pipe has more than {RUNS_MAX} rows to run for");
            return Err(Failure::new(code::LIMIT, message)
                .hint("narrow the rows of the stage before with WHERE, or add LIMIT"));
        }
        let mut statement = (*self.each.statement).clone();
        substitute(&mut statement, &|parameter, _| match parameter {
            Parameter::Column(name) => {
                let column = columns.iter().find(|column| column.name == *name)?;
                row.get(column.index).cloned()
            }
            Parameter::Position(_) => None,
        })
        .map_err(larql_planner::PlanError::from)?;
        let planned = larql_planner::plan(&statement, work.snapshot())?;
        session::require(work.context.role(), super::role(planned.required_role), planned.tag)?;
        build_unmetered(&planned.physical).map(Some)
    }
}

impl Operator for ForEach {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        loop {
            work.cancel.check()?;
            if let Some(running) = &mut self.running {
                if let Some(rows) = running.next(work)? {
                    return Ok(Some(rows));
                }
                self.running = None;
                work.release_to(self.held);
            }
            let Some(row) = self.waiting.next() else {
                match self.input.next(work)? {
                    Some(rows) => self.waiting = rows.into_iter(),
                    None => return Ok(None),
                }
                continue;
            };
            self.held = work.held();
            self.running = self.start(&row, work)?;
        }
    }
}
