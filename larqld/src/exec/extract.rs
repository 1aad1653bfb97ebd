//! The EXTRACT statement: runs the pipeline, then mounts its result.

use larql_planner::physical::plan;
use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::paths;
use crate::pipeline::extract::{self, Options};

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
        let done = extract::extract(
            engine.files(),
            engine.pool(),
            &options,
            work.cancel,
            &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
        )?;
        for note in &done.notes {
            work.notice(note.clone(), "")?;
        }
        engine.remember_source(&done.base_hash, &options.source)?;
        let name = paths::stem(&options.destination);
        let mount = match engine.mount(&options.destination, &name, work.cancel) {
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
