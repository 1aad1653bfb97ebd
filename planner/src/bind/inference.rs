//! WALK, INFER, and EXPLAIN of either: which features, by the embedding of a prompt's last token or by a
//! pass of the model.

use std::sync::Arc;

use super::BindError;
use super::expression::Expression;
use super::select::filtered;
use super::statement::{Reader, literal};
use crate::catalog::{Component, INFERENCE_COMPONENTS};
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::physical::plan::{ExplainInfer, FeatureColumn, FfnPath, Infer, QueryVector};
use crate::planned::Role;
use crate::syntax::ast::{self, Text, WalkMode};
use crate::value::{Column, ColumnType, Value};

/// Features a layer that WALK shows unless told otherwise.
const WALK_TOP: u64 = 10;
/// Features a layer that EXPLAIN WALK shows.
const EXPLAIN_WALK_TOP: u64 = 5;
/// Features a layer that EXPLAIN INFER shows.
const EXPLAIN_INFER_TOP: u64 = 3;
/// Features a layer that either shows with VERBOSE.
const EXPLAIN_VERBOSE_TOP: u64 = 10;
/// Tokens that INFER lists.
const INFER_TOP: u64 = 5;

/// The columns of WALK and EXPLAIN WALK.
const WALK_COLUMNS: [FeatureColumn; 6] = [
    FeatureColumn::Layer,
    FeatureColumn::Feature,
    FeatureColumn::GateScore,
    FeatureColumn::Target,
    FeatureColumn::Relation,
    FeatureColumn::TopTokens,
];

fn walk_hits(
    reader: &Reader<'_>,
    prompt: &Text,
    layers: LayerSet,
    top: u64,
) -> Result<Plan, BindError> {
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
    ])?;
    Ok(Plan::GateHits {
        query: QueryVector::LastToken(literal(prompt)?),
        layers,
        k: Some(top),
        z_min: None,
        tokens_required: true,
        approximate: false,
        columns: WALK_COLUMNS.to_vec(),
    })
}

/// The least role that may run a WALK: one that looks at a pass of the model runs it.
pub(super) fn walk_role(request: &ast::Walk) -> Role {
    let dense = request.mode.as_ref().is_some_and(|mode| mode.value == WalkMode::Dense);
    if dense || request.compare.is_some() { Role::Infer } else { Role::Reader }
}

/// Binds a WALK.
///
/// # Errors
/// What the mount lacks, a layer that it has not, a comparison of a mode with itself.
pub(super) fn walk(reader: &Reader<'_>, request: &ast::Walk) -> Result<Plan, BindError> {
    let layers = reader.range(request.layers.as_ref())?;
    let top = request.top.unwrap_or(WALK_TOP);
    let mode = request.mode.as_ref().map_or(WalkMode::Hybrid, |mode| mode.value);
    let one = |mode| match mode {
        WalkMode::Hybrid => walk_hits(reader, &request.prompt, layers.clone(), top),
        WalkMode::Pure => walk_pure(reader, &request.prompt, layers.clone(), top),
        WalkMode::Dense => walk_dense(reader, &request.prompt, layers.clone(), top),
    };
    let Some(compare) = &request.compare else { return one(mode) };
    if mode == WalkMode::Dense {
        return Err(BindError::Meaningless {
            what: "COMPARE puts MODE DENSE beside another mode".to_owned(),
            span: Some(compare.span),
            hint: "write MODE HYBRID or PURE, or leave COMPARE out".to_owned(),
        });
    }
    let name = if mode == WalkMode::Pure { "pure" } else { "hybrid" };
    let inputs = [(mode, name), (WalkMode::Dense, "dense")];
    let inputs = inputs.map(|(mode, name)| one(mode).map(|plan| with_mode(plan, name)));
    Ok(Plan::Concatenate { inputs: inputs.into_iter().collect::<Result<_, _>>()? })
}

/// Gate scores alone: nothing is read about what features write, and none is dropped for it.
fn walk_pure(
    reader: &Reader<'_>,
    prompt: &Text,
    layers: LayerSet,
    top: u64,
) -> Result<Plan, BindError> {
    reader.needs(&[Component::Gates, Component::Embeddings, Component::Tokenizer])?;
    let columns = vec![FeatureColumn::Layer, FeatureColumn::Feature, FeatureColumn::GateScore];
    let expressions = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Expression::Column {
            index,
            name: Arc::from(column.name()),
            kind: column.kind(),
        })
        .chain(std::iter::repeat_n(Expression::Literal(Value::Null), 3))
        .collect();
    let hits = Plan::GateHits {
        query: QueryVector::LastToken(literal(prompt)?),
        layers,
        k: Some(top),
        z_min: None,
        tokens_required: false,
        approximate: false,
        columns,
    };
    let columns = WALK_COLUMNS.iter().map(|column| column.column()).collect();
    Ok(Plan::Project { expressions, columns, input: Box::new(hits) })
}

/// The gates of each layer that answer what a dense pass hands to the layer's network.
fn walk_dense(
    reader: &Reader<'_>,
    prompt: &Text,
    layers: LayerSet,
    top: u64,
) -> Result<Plan, BindError> {
    reader.needs(&INFERENCE_COMPONENTS)?;
    reader.needs(&[Component::DownMeta])?;
    Ok(Plan::ExplainInfer(ExplainInfer {
        prompt: literal(prompt)?,
        top,
        layers,
        ffn: FfnPath::Dense,
        tokens_required: true,
        attention: false,
        columns: WALK_COLUMNS.to_vec(),
    }))
}

/// The same rows with a column that says which mode they are of.
fn with_mode(plan: Plan, mode: &str) -> Plan {
    let mut columns = plan.columns();
    let mut expressions: Vec<Expression> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Expression::Column {
            index,
            name: Arc::from(column.name.as_str()),
            kind: column.kind,
        })
        .collect();
    expressions.push(Expression::Literal(Value::text(mode)));
    columns.push(Column::new("mode", ColumnType::Text));
    Plan::Project { expressions, columns, input: Box::new(plan) }
}

/// Binds an INFER.
///
/// # Errors
/// What the mount lacks.
pub(super) fn infer(reader: &Reader<'_>, request: &ast::Infer) -> Result<Plan, BindError> {
    reader.needs(&INFERENCE_COMPONENTS)?;
    let prompt = literal(&request.prompt)?;
    let top = request.top.unwrap_or(INFER_TOP);
    if request.compare.is_none() {
        return Ok(Plan::Infer(Infer { prompt, top, ffn: reader.ffn(), compare: false }));
    }
    let walk = FfnPath::Walk { k: reader.settings().walk_k() };
    let inputs = [walk, FfnPath::Dense]
        .map(|ffn| Plan::Infer(Infer { prompt: prompt.clone(), top, ffn, compare: true }));
    Ok(Plan::Concatenate { inputs: inputs.to_vec() })
}

fn explain_layers(
    reader: &Reader<'_>,
    request: &ast::ExplainFeatures,
) -> Result<LayerSet, BindError> {
    let layers = reader.range(request.layers.as_ref())?;
    match request.band {
        Some(Some(band)) => {
            let band = reader.band(band)?;
            Ok(layers.filter(|layer| band.contains(layer)))
        }
        Some(None) | None => Ok(layers),
    }
}

/// Leaves out unlabelled features. Rows that are about no feature stay.
fn labelled_only(plan: Plan, columns: &[FeatureColumn]) -> Plan {
    let is_null = |wanted: FeatureColumn| {
        let index = columns.iter().position(|column| *column == wanted)?;
        let (name, kind) = (Arc::from(wanted.name()), wanted.kind());
        Some(Expression::IsNull(Box::new(Expression::Column { index, name, kind })))
    };
    let labelled =
        is_null(FeatureColumn::Relation).map(|unlabelled| Expression::Not(Box::new(unlabelled)));
    let about_attention = columns.contains(&FeatureColumn::Weight);
    let no_feature = is_null(FeatureColumn::Feature).filter(|_| about_attention);
    let predicate = match (labelled, no_feature) {
        (Some(labelled), Some(no_feature)) => Some(Expression::Or(vec![labelled, no_feature])),
        (labelled, _) => labelled,
    };
    filtered(plan, predicate)
}

/// Binds an EXPLAIN WALK.
///
/// # Errors
/// As [`walk`]; WITH ATTENTION, because a walk runs none.
pub(super) fn explain_walk(
    reader: &Reader<'_>,
    request: &ast::ExplainFeatures,
) -> Result<Plan, BindError> {
    if let Some(flag) = &request.with_attention {
        return Err(BindError::Meaningless {
            what: "a walk looks up the last token's embedding and runs no attention".to_owned(),
            span: Some(flag.span),
            hint: "EXPLAIN INFER \"…\" WITH ATTENTION shows where the heads look".to_owned(),
        });
    }
    let layers = explain_layers(reader, request)?;
    let default = if request.verbose { EXPLAIN_VERBOSE_TOP } else { EXPLAIN_WALK_TOP };
    let hits = walk_hits(reader, &request.prompt, layers, request.top.unwrap_or(default))?;
    Ok(if request.relations_only { labelled_only(hits, &WALK_COLUMNS) } else { hits })
}

/// The columns of EXPLAIN INFER; with attention the rest follows.
const EXPLAIN_INFER_COLUMNS: [FeatureColumn; 6] = [
    FeatureColumn::Layer,
    FeatureColumn::Feature,
    FeatureColumn::GateScore,
    FeatureColumn::Activation,
    FeatureColumn::Target,
    FeatureColumn::Relation,
];
const ATTENTION_COLUMNS: [FeatureColumn; 4] =
    [FeatureColumn::Head, FeatureColumn::Position, FeatureColumn::Token, FeatureColumn::Weight];

/// Binds an EXPLAIN INFER.
///
/// # Errors
/// What the mount lacks, a layer that it has not.
pub(super) fn explain_infer(
    reader: &Reader<'_>,
    request: &ast::ExplainFeatures,
) -> Result<Plan, BindError> {
    reader.needs(&INFERENCE_COMPONENTS)?;
    reader.needs(&[Component::DownMeta])?;
    let layers = explain_layers(reader, request)?;
    let default = if request.verbose { EXPLAIN_VERBOSE_TOP } else { EXPLAIN_INFER_TOP };
    let attention = request.with_attention.is_some();
    let mut columns = EXPLAIN_INFER_COLUMNS.to_vec();
    columns.extend(ATTENTION_COLUMNS.into_iter().filter(|_| attention));
    let plan = Plan::ExplainInfer(ExplainInfer {
        prompt: literal(&request.prompt)?,
        top: request.top.unwrap_or(default),
        layers,
        ffn: reader.ffn(),
        tokens_required: false,
        attention,
        columns: columns.clone(),
    });
    Ok(if request.relations_only { labelled_only(plan, &columns) } else { plan })
}
