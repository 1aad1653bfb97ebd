//! The EXTRACT statement: runs the pipeline, then mounts its result.

use std::time::Instant;

use larql_planner::physical::plan::{self, Level};
use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work, indexes, label};
use crate::failure::{Failure, code};
use crate::paths;
use crate::pipeline::extract::{self, Options};
use crate::pipeline::label::{Labelled, Table};

/// Runs the job once and gives one row about what came of it.
pub(super) struct Extract {
    extract: Option<plan::Extract>,
}

impl Extract {
    pub(super) fn new(extract: plan::Extract) -> Self {
        Self { extract: Some(extract) }
    }
}

impl Operator for Extract {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(plan) = self.extract.take() else { return Ok(None) };
        let options = Options {
            source: work.resolve(&plan.source)?,
            destination: work.resolve(&plan.destination)?,
            level: plan.level,
            components: plan.components,
            layers: plan.layers,
            dtype: plan.dtype,
            quantisation: plan.quantisation,
            overwrite: plan.overwrite,
            resume: plan.resume,
        };
        let engine = work.engine().clone();
        let files = work.files();
        let mut clock = StageClock::default();
        let done = extract::extract(
            &files,
            engine.pool(),
            &options,
            work.cancel,
            &mut |stage, done, total, unit| {
                clock.enter(stage);
                work.progress(stage, done, total, unit)
            },
        )?;
        clock.enter("mounting");
        if plan.drop_gate_vectors {
            let notice = "DROP GATE VECTORS had nothing to drop: browsing reads the quantised gate vectors in place, and there is no other copy";
            work.notice(notice, "")?;
        }
        if !plan.labels && plan.level < Level::Inference {
            let notice = "WITHOUT LABELS changed nothing: labels come with the level inference";
            work.notice(notice, "")?;
        }
        for note in &done.notes {
            work.notice(note.clone(), "")?;
        }
        engine.remember_source(&done.base_hash, &options.source)?;
        let name = paths::stem(&options.destination);
        let mount = match engine.mount(&files, &options.destination, &name, work.cancel) {
            Ok(mounted) => {
                work.mounted = Some(mounted);
                Value::text(name)
            }
            Err(failure) if failure.code == code::EXISTS => {
                work.notice(failure.message, failure.hint)?;
                Value::Null
            }
            Err(failure) => return Err(failure),
        };
        if plan.labels && mount != Value::Null && work.model()?.require_inference().is_ok() {
            if done.bytes > LABELLED_BYTES_MAX {
                let megabytes = done.bytes >> 20;
                let notice =
                    format!("no labels: {megabytes} MiB take long to ask thousands of times");
                work.notice(notice, "LABEL FROM DEFAULT asks, and RESUME goes on after a stop")?;
            } else {
                clock.enter("labelling");
                learn_labels(work)?;
            }
        }
        if mount != Value::Null {
            clock.enter("indexing");
            indexes::make_defaults(work)?;
        }
        clock.enter("");
        Ok(Some(vec![vec![
            mount,
            Value::text(options.destination.display().to_string()),
            Value::text(plan.level.name()),
            integer(done.layers.into()),
            integer(done.features),
            integer(done.bytes),
            Value::text(done.base_hash),
        ]]))
    }
}

/// Bytes of a vindex up to which EXTRACT labels it by itself. Its questions are some thousands of
/// sentences: seconds for a model of some million parameters, hours for one of some billion.
const LABELLED_BYTES_MAX: u64 = 512 << 20;

/// Labels the new vindex from the bundled table. The vindex is whole without labels, so that a model
/// that cannot be asked is no failure.
fn learn_labels(work: &mut Work<'_>) -> Result<(), Failure> {
    match label::run(work, &Table::bundled()?, false) {
        Ok(done) if done.relations_known > 0 => {
            let Labelled { relations, relations_known, .. } = done;
            let message =
                format!("the model knows {relations_known} of {relations} relations asked for");
            work.notice(message, "LABEL FROM FACTS 'table.tsv' teaches others")
        }
        Ok(_) => Ok(()),
        Err(failure) if label::may_go_without(&failure) => {
            work.notice(format!("no labels: {}", failure.message), failure.hint)
        }
        Err(failure) => Err(failure),
    }
}

/// Tells the log how long each stage of a job took.
#[derive(Default)]
struct StageClock {
    stage: Option<(&'static str, Instant)>,
}

impl StageClock {
    /// A stage goes on, or begins and so ends the one before; the empty one only ends.
    fn enter(&mut self, stage: &'static str) {
        if self.stage.is_some_and(|(current, _)| current == stage) {
            return;
        }
        if let Some((ended, began)) = self.stage.take() {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(stage = ended, seconds, "a stage of EXTRACT is done");
        }
        self.stage = (!stage.is_empty()).then(|| (stage, Instant::now()));
    }
}
