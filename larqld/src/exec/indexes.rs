//! CREATE INDEX, DROP INDEX, ANALYZE and SHOW INDEXES.

use std::sync::Arc;

use larql_compute::cpu::Pool;
use larql_planner::catalog::IndexTarget;
use larql_planner::nearest_name::nearest;
use larql_planner::physical::plan;
use larql_planner::value::Value;
use larql_storage::file::Files;
use larql_storage::vindex::index::{NAME_BYTES_MAX, is_index_name, remove_index};

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::indexes::build::{self, DEFAULTS};
use crate::indexes::{INDEXES_MAX, Index};
use crate::mounts::{Kind, Model};

/// Makes an index and gives its row.
pub(super) struct CreateIndex {
    index: Option<plan::CreateIndex>,
}

impl CreateIndex {
    pub(super) fn new(index: plan::CreateIndex) -> Self {
        Self { index: Some(index) }
    }
}

impl Operator for CreateIndex {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(plan::CreateIndex { name, target, method }) = self.index.take() else {
            return Ok(None);
        };
        let model = work.model()?;
        if !is_index_name(&name) {
            let message = format!("{name:?} is no index's name");
            let hint = format!(
                "a letter or _, then letters, digits and _, at most {NAME_BYTES_MAX} together"
            );
            return Err(Failure::new(code::INVALID_PARAMETER, message).hint(hint));
        }
        let there = model.indexes();
        if there.get(&name).is_some() {
            let message = format!("there is an index {name:?} already");
            return Err(Failure::new(code::EXISTS, message)
                .hint(format!("ANALYZE makes it anew, DROP INDEX {name} removes it")));
        }
        if there.iter().len() >= INDEXES_MAX {
            let message = format!("a vindex has at most {INDEXES_MAX} indexes");
            return Err(Failure::new(code::LIMIT, message).hint("DROP INDEX one that is not used"));
        }
        let index = make(work, &model, &name, (target, method))?;
        Ok(Some(vec![row(&index)]))
    }
}

/// What indexes are made with.
fn context<'a>(work: &Work<'a>, model: &'a Model) -> (&'a Arc<dyn Files>, &'a Pool) {
    (model.files(), work.engine().pool())
}

/// Makes an index and tells how far it is.
fn make(
    work: &mut Work<'_>,
    model: &Model,
    name: &str,
    kind: (IndexTarget, plan::IndexMethod),
) -> Result<Arc<Index>, Failure> {
    let mut progress = |stage, done, total, unit| Work::progress(work, stage, done, total, unit);
    let made = build::make(context(work, model), model, name, kind, work.cancel, &mut progress)?;
    match kind.0 {
        IndexTarget::Gates => work.touch(gate_bytes(model)),
        IndexTarget::Targets => work.touch(token_bytes(model)),
        IndexTarget::Labels => (),
    }
    Ok(made)
}

/// Bytes of the output tokens of all features.
fn token_bytes(model: &Model) -> u64 {
    let features: u64 = (0..model.layers()).map(|layer| model.features(layer)).sum();
    model.down_meta().map_or(0, |meta| features * meta.record_bytes() as u64)
}

/// Bytes of the gates of all layers.
fn gate_bytes(model: &Model) -> u64 {
    let gates = (0..model.layers()).flat_map(|layer| model.gates(layer));
    gates.map(|(_, gates)| gates.view.bytes_touched()).sum()
}

/// Makes the indexes that come with every vindex. The vindex is whole without them.
pub(super) fn make_defaults(work: &Work<'_>) -> Result<(), Failure> {
    let model = work.model()?;
    let made = build::make_defaults(
        context(work, &model),
        &model,
        work.cancel,
        &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
    );
    may_go_without(work, made)
}

/// Makes the indexes of labels anew. The labels are whole without them.
pub(super) fn refresh_labels(work: &Work<'_>) -> Result<(), Failure> {
    let model = work.model()?;
    let made = build::refresh_labels(
        context(work, &model),
        &model,
        work.cancel,
        &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
    );
    may_go_without(work, made)
}

fn may_go_without(work: &Work<'_>, made: Result<(), Failure>) -> Result<(), Failure> {
    match made {
        Err(failure) if failure.code != code::CANCELLED => {
            work.notice(format!("not all indexes were made: {}", failure.message), "ANALYZE")
        }
        other => other,
    }
}

/// Removes an index.
pub(super) struct DropIndex {
    name: Option<String>,
}

impl DropIndex {
    pub(super) fn new(name: String) -> Self {
        Self { name: Some(name) }
    }
}

impl Operator for DropIndex {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(name) = self.name.take() else { return Ok(None) };
        let model = work.model()?;
        let indexes = model.indexes();
        if indexes.get(&name).is_none() {
            let names = indexes.iter().map(|index| index.name.as_str());
            let hint = match nearest(&name, names) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "SHOW INDEXES lists what there is".to_owned(),
            };
            let message = format!("there is no index {name:?}");
            return Err(Failure::new(code::UNDEFINED_OBJECT, message).hint(hint));
        }
        remove_index(model.files(), model.path(), &name)?;
        model.change_indexes(|indexes| indexes.without(&name));
        Ok(None)
    }
}

/// Makes statistics and indexes anew and gives the indexes.
#[derive(Default)]
pub(super) struct Analyze {
    done: bool,
}

impl Operator for Analyze {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let model = work.model()?;
        for layer in 0..model.layers() {
            work.progress("statistics", layer.into(), model.layers().into(), "layers")?;
            model.learn_gate_scores(layer, work.engine().pool(), work.cancel)?;
        }
        if model.kind() == Kind::Checkpoint {
            return Ok(None);
        }
        let defaults = DEFAULTS.iter().map(|(name, target, method)| (*name, (*target, *method)));
        for index in model.indexes().iter() {
            let by_name = defaults.clone().find(|(name, _)| *name == index.name);
            match index.kind.or(by_name.map(|(_, kind)| kind)) {
                Some(kind) => drop(make(work, &model, &index.name, kind)?),
                None => work.notice(
                    format!("nobody knows of what {:?} was an index", index.name),
                    format!("DROP INDEX {}, then CREATE INDEX", index.name),
                )?,
            }
        }
        for (name, kind) in defaults {
            let has_tokens = model.down_meta().is_some() && model.tokenizer().is_ok();
            let can = kind.0 == IndexTarget::Labels || has_tokens;
            let there = model.indexes().iter().any(|index| index.kind == Some(kind));
            if can && !there {
                make(work, &model, name, kind)?;
            }
        }
        Ok(rows(&model))
    }
}

/// Gives the indexes of the model in use.
#[derive(Default)]
pub(super) struct ShowIndexes {
    done: bool,
}

impl Operator for ShowIndexes {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        match std::mem::replace(&mut self.done, true) {
            true => Ok(None),
            false => Ok(rows(&*work.model()?)),
        }
    }
}

fn rows(model: &Model) -> Option<Vec<Row>> {
    let rows: Vec<Row> = model.indexes().iter().map(|index| row(index)).collect();
    (!rows.is_empty()).then_some(rows)
}

fn row(index: &Index) -> Row {
    let header = index.header.as_ref();
    let text = |text: Option<&String>| text.map_or(Value::Null, |text| Value::text(text.as_str()));
    vec![
        Value::text(index.name.as_str()),
        text(header.map(|header| &header.target)),
        text(header.map(|header| &header.method)),
        Value::text(index.state.words()),
        header.map_or(Value::Null, |header| integer(header.keys)),
        header.map_or(Value::Null, |header| integer(header.entries)),
        integer(index.bytes),
        header.and_then(|header| header.recall).map_or(Value::Null, Value::Real),
    ]
}
