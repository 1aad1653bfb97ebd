//! The LABEL statement: reads the table, runs the job.

use std::time::Instant;

use larql_planner::physical::plan;
use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work, indexes};
use crate::failure::{Failure, code};
use crate::pipeline::label::{self, FACTS_BYTES_MAX, Labelled, Table};

/// Runs the job once and gives one row about what came of it.
pub(super) struct Label {
    label: Option<plan::Label>,
}

impl Label {
    pub(super) fn new(label: plan::Label) -> Self {
        Self { label: Some(label) }
    }
}

impl Operator for Label {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(plan) = self.label.take() else { return Ok(None) };
        let table = match &plan.facts {
            Some(path) => {
                let path = work.resolve(path)?;
                let bytes = work.files().read(&path, FACTS_BYTES_MAX);
                let bytes = bytes.map_err(|error| Failure::io(path.display(), &error))?;
                Table::parse(&path.display().to_string(), &bytes)?
            }
            None => Table::bundled()?,
        };
        let done = run(work, &table, plan.resume)?;
        indexes::refresh_labels(work)?;
        if done.relations_known == 0 {
            work.notice(
                format!("the model knows none of the {} relations", done.relations),
                "label from facts that it was trained on, in sentences as it reads them",
            )?;
        }
        Ok(Some(vec![row(&table, &done)]))
    }
}

/// Labels the model in use, and tells the log how long it took.
pub(super) fn run(work: &mut Work<'_>, table: &Table, resume: bool) -> Result<Labelled, Failure> {
    let began = Instant::now();
    let model = work.model()?;
    let engine = work.engine();
    let done = label::label(
        (model.files(), engine.pool()),
        &model,
        table,
        resume,
        work.cancel,
        &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
    )?;
    work.touch_passes(&done.passes);
    tracing::info!(
        relations = done.relations_known,
        edges = done.edges,
        features = done.features,
        seconds = began.elapsed().as_secs_f64(),
        "labels were learned"
    );
    Ok(done)
}

fn row(table: &Table, done: &Labelled) -> Row {
    let counts = [done.relations, done.relations_known, done.entities, done.edges, done.features];
    let mut row = vec![Value::text(table.name.clone())];
    row.extend(counts.map(integer));
    row.push(done.calibration_error.map_or(Value::Null, Value::Real));
    row
}

/// Whether a failure is one that EXTRACT may go on after: the model lacks something that labels need.
pub(super) fn may_go_without(failure: &Failure) -> bool {
    failure.code != code::CANCELLED && failure.code != code::DISK_FULL && failure.code != code::IO
}
