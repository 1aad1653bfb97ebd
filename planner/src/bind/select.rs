//! SELECT: which source, which rows, which columns.
//!
//! EDGES is two relations under one name. Without `entity = "…"` among the conditions joined by AND
//! it has one row a feature with output tokens; with it, the gate hits of that entity. NEAREST takes
//! the features of one layer that satisfy WHERE, in order of nearness, as many as LIMIT (and OFFSET)
//! ask for, 20 by default; ORDER BY then sorts those.

use std::sync::Arc;

use super::BindError;
use super::expression::{ComparisonOperator, Expression};
use super::scope::Scope;
use super::statement::Reader;
use crate::catalog::Component;
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::logical::plan::ENTITY_COLUMNS;
use crate::nearest_name::nearest;
use crate::physical::plan::{ENTITY_COUNT_INPUT, FeatureColumn, QueryVector, SortKey};
use crate::syntax::ast::{self, ExpressionKind, Select, SelectItem, Table, TextOperand};
use crate::value::{Column, Value};

/// The columns of EDGES in the order of `*`; `z` and `top_tokens` can be asked for by name.
const EDGES: [FeatureColumn; 11] = [
    FeatureColumn::Entity,
    FeatureColumn::Relation,
    FeatureColumn::Target,
    FeatureColumn::Layer,
    FeatureColumn::Feature,
    FeatureColumn::GateScore,
    FeatureColumn::Logit,
    FeatureColumn::Confidence,
    FeatureColumn::Source,
    FeatureColumn::Z,
    FeatureColumn::TopTokens,
];

/// How many of [`EDGES`] `*` stands for.
const EDGES_SHOWN: usize = 9;

/// The columns of FEATURES.
const FEATURES: [FeatureColumn; 7] = [
    FeatureColumn::Layer,
    FeatureColumn::Feature,
    FeatureColumn::Entity,
    FeatureColumn::Relation,
    FeatureColumn::Target,
    FeatureColumn::Logit,
    FeatureColumn::TopTokens,
];

const TABLES: [&str; 3] = ["EDGES", "FEATURES", "ENTITIES"];

/// Gate hits of an entity a layer, before the threshold.
pub(super) const ENTITY_K: u64 = 20;

/// Rows of NEAREST without LIMIT.
const NEAREST_ROWS: u64 = 20;

/// Which relation a FROM names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Edges,
    Features,
    Entities,
}

/// Binds a SELECT that passed [`crate::support`].
pub(super) fn select(reader: &Reader<'_>, select: &Select) -> Result<Plan, BindError> {
    let (relation, mut scope) = source_scope(select)?;
    let shown = if relation == Relation::Edges { EDGES_SHOWN } else { scope.columns.len() };
    let predicate = select.filter.as_ref().map(|filter| scope.predicate(filter)).transpose()?;
    let mut plan = match (relation, &select.nearest) {
        (Relation::Entities, Some(nearest)) => {
            return Err(BindError::Meaningless {
                what: "ENTITIES have no gates to be nearest by".to_owned(),
                span: Some(nearest.span),
                hint: "SELECT … FROM EDGES NEAREST TO …".to_owned(),
            });
        }
        (_, Some(nearest)) => {
            let columns = if relation == Relation::Edges { &EDGES[..] } else { &FEATURES[..] };
            nearest_rows(reader, select, &nearest.value, columns, predicate)?
        }
        (Relation::Edges, None) => edges(reader, predicate)?,
        (Relation::Features, None) => {
            let plan = features(reader, &FEATURES, LayerSet::all(reader.layers()))?;
            filtered(plan, predicate)
        }
        (Relation::Entities, None) => {
            filtered(entities(reader, LayerSet::all(reader.layers()))?, predicate)
        }
    };
    let items = output_items(select, &scope, shown)?;
    let keys = sort_keys(select, &scope, &items)?;
    // What NEAREST keeps is counted already; what is left of LIMIT is the OFFSET.
    let (count, offset) = match (&select.nearest, select.limit) {
        (Some(_), None) => (None, 0),
        _ => (select.limit, select.offset.unwrap_or(0)),
    };
    if select.distinct {
        plan = Plan::Distinct { input: Box::new(projected(plan, &items)) };
        scope.columns = plan.columns();
        let keys = distinct_keys(select, &keys, &items, &scope)?;
        plan = limited(sorted(plan, keys), count, offset);
    } else {
        plan = projected(limited(sorted(plan, keys), count, offset), &items);
    }
    Ok(plan)
}

fn source_scope(select: &Select) -> Result<(Relation, Scope), BindError> {
    let Some(ast::Source { table: Table::Named { schema, name }, alias }) = &select.from else {
        unreachable!("support refuses sub-queries and a missing FROM");
    };
    let unknown = |full: String, span| BindError::UnknownTable {
        nearest: nearest(&full, TABLES),
        name: full,
        span,
    };
    if let Some(schema) = schema {
        return Err(unknown(format!("{}.{}", schema.value, name.value), schema.span.to(name.span)));
    }
    let at = TABLES.iter().position(|table| table.eq_ignore_ascii_case(&name.value));
    let relation = match at {
        Some(0) => Relation::Edges,
        Some(1) => Relation::Features,
        Some(2) => Relation::Entities,
        _ => return Err(unknown(name.value.clone(), name.span)),
    };
    let columns = match relation {
        Relation::Edges => EDGES.iter().map(|column| column.column()).collect(),
        Relation::Features => FEATURES.iter().map(|column| column.column()).collect(),
        Relation::Entities => {
            ENTITY_COLUMNS.iter().map(|(name, kind)| Column::new(*name, *kind)).collect()
        }
    };
    let table = TABLES[at.unwrap_or_default()].to_owned();
    Ok((relation, Scope { table, alias: alias.as_ref().map(|name| name.value.clone()), columns }))
}

/// Features with output tokens.
pub(super) fn features(
    reader: &Reader<'_>,
    columns: &[FeatureColumn],
    layers: LayerSet,
) -> Result<Plan, BindError> {
    reader.needs(&[Component::DownMeta, Component::Tokenizer])?;
    Ok(Plan::Features { layers, rows_max: None, columns: columns.to_vec() })
}

/// Targets that look like names.
pub(super) fn entities(reader: &Reader<'_>, layers: LayerSet) -> Result<Plan, BindError> {
    let input = features(reader, &ENTITY_COUNT_INPUT, layers)?;
    Ok(Plan::EntityCount { input: Box::new(input) })
}

/// EDGES: the hits of the entity that the condition names, or every feature.
fn edges(reader: &Reader<'_>, predicate: Option<Expression>) -> Result<Plan, BindError> {
    let layers = LayerSet::all(reader.layers());
    let mut conjuncts = predicate.map(Expression::conjuncts).unwrap_or_default();
    let named = conjuncts.iter().position(|conjunct| named_entity(conjunct).is_some());
    let Some(at) = named else {
        return Ok(filtered(features(reader, &EDGES, layers)?, Expression::conjunction(conjuncts)));
    };
    let Some(entity) = named_entity(&conjuncts.remove(at)) else {
        unreachable!("the conjunct was found by naming an entity");
    };
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
        Component::Statistics,
    ])?;
    let hits = Plan::GateHits {
        query: QueryVector::Entity(entity),
        layers,
        k: Some(ENTITY_K),
        z_min: Some(reader.settings().describe_z()),
        tokens_required: true,
        columns: EDGES.to_vec(),
    };
    Ok(filtered(hits, Expression::conjunction(conjuncts)))
}

/// The entity in `entity = "…"`, written either way around.
fn named_entity(conjunct: &Expression) -> Option<Arc<str>> {
    let Expression::Comparison { operator: ComparisonOperator::Equal, left, right } = conjunct
    else {
        return None;
    };
    let is_entity = |operand: &Expression| {
        matches!(operand, Expression::Column { index, .. }
            if EDGES.get(*index) == Some(&FeatureColumn::Entity))
    };
    match (&**left, &**right) {
        (column, Expression::Literal(Value::Text(text))) if is_entity(column) => Some(text.clone()),
        (Expression::Literal(Value::Text(text)), column) if is_entity(column) => Some(text.clone()),
        _ => None,
    }
}

fn nearest_rows(
    reader: &Reader<'_>,
    select: &Select,
    nearest: &ast::NearestTo,
    columns: &[FeatureColumn],
    predicate: Option<Expression>,
) -> Result<Plan, BindError> {
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
    ])?;
    let TextOperand::Literal(entity) = &nearest.entity.value else {
        unreachable!("support refuses parameters");
    };
    let layer = reader.layer(&nearest.layer)?;
    let rows = match select.limit {
        Some(limit) => limit.saturating_add(select.offset.unwrap_or(0)),
        None => NEAREST_ROWS,
    };
    let scan = Plan::Nearest {
        entity: Arc::from(entity.as_str()),
        layer,
        k: None,
        columns: columns.to_vec(),
    };
    Ok(limited(filtered(scan, predicate), Some(rows), 0))
}

/// One column of the answer.
struct Item {
    expression: Expression,
    name: String,
}

fn output_items(select: &Select, scope: &Scope, shown: usize) -> Result<Vec<Item>, BindError> {
    let mut items = Vec::new();
    for item in &select.items {
        match item {
            SelectItem::All(all) => {
                if let Some(qualifier) = &all.value
                    && !scope.answers_to(qualifier)
                {
                    let (name, span) = (qualifier.clone(), all.span);
                    return Err(BindError::UnknownTable { name, nearest: None, span });
                }
                items.extend((0..shown).map(|index| Item {
                    expression: scope.read(index),
                    name: scope.columns[index].name.clone(),
                }));
            }
            SelectItem::Expression { expression, alias } => {
                let bound = scope.expression(expression)?;
                let name = match (alias, &bound) {
                    (Some(alias), _) => alias.value.clone(),
                    (None, Expression::Column { name, .. }) => name.to_string(),
                    (None, _) => expression.to_string(),
                };
                items.push(Item { expression: bound, name });
            }
        }
    }
    Ok(items)
}

/// What ORDER BY sorts by, over the source's columns: the name of an item, its number, or any
/// expression.
fn sort_keys(select: &Select, scope: &Scope, items: &[Item]) -> Result<Vec<SortKey>, BindError> {
    let mut keys = Vec::with_capacity(select.order_by.len());
    for key in &select.order_by {
        let written = &key.expression;
        let expression = match &written.value {
            ExpressionKind::Integer(position) => {
                let item =
                    usize::try_from(*position).ok().and_then(|at| items.get(at.checked_sub(1)?));
                let Some(item) = item else {
                    return Err(BindError::Meaningless {
                        what: format!("ORDER BY {position} names no column"),
                        span: Some(written.span),
                        hint: format!("the answer has columns 1 to {}", items.len()),
                    });
                };
                item.expression.clone()
            }
            ExpressionKind::Column { qualifier: None, name } => {
                match items.iter().find(|item| item.name.eq_ignore_ascii_case(name)) {
                    Some(item) => item.expression.clone(),
                    None => scope.expression(written)?,
                }
            }
            _ => scope.expression(written)?,
        };
        keys.push(SortKey { expression, descending: key.descending });
    }
    Ok(keys)
}

/// With DISTINCT, rows can only be sorted by what is left of them.
fn distinct_keys(
    select: &Select,
    keys: &[SortKey],
    items: &[Item],
    output: &Scope,
) -> Result<Vec<SortKey>, BindError> {
    let mut over_output = Vec::with_capacity(keys.len());
    for (key, written) in keys.iter().zip(&select.order_by) {
        let Some(at) = items.iter().position(|item| item.expression == key.expression) else {
            return Err(BindError::Meaningless {
                what: "with DISTINCT, ORDER BY must name a column of the answer".to_owned(),
                span: Some(written.expression.span),
                hint: "add it to the select list".to_owned(),
            });
        };
        over_output.push(SortKey { expression: output.read(at), descending: key.descending });
    }
    Ok(over_output)
}

pub(super) fn filtered(plan: Plan, predicate: Option<Expression>) -> Plan {
    match predicate {
        Some(predicate) => Plan::Filter { predicate, input: Box::new(plan) },
        None => plan,
    }
}

fn sorted(plan: Plan, keys: Vec<SortKey>) -> Plan {
    if keys.is_empty() { plan } else { Plan::Sort { keys, input: Box::new(plan) } }
}

pub(super) fn limited(plan: Plan, count: Option<u64>, offset: u64) -> Plan {
    if count.is_none() && offset == 0 {
        return plan;
    }
    Plan::Limit { count, offset, input: Box::new(plan) }
}

fn projected(plan: Plan, items: &[Item]) -> Plan {
    let columns = items
        .iter()
        .map(|item| {
            let kind = item.expression.kind().unwrap_or(crate::value::ColumnType::Text);
            Column::new(item.name.as_str(), kind)
        })
        .collect();
    let expressions = items.iter().map(|item| item.expression.clone()).collect();
    Plan::Project { expressions, columns, input: Box::new(plan) }
}

/// The scope of FEATURES, for SHOW FEATURES … WHERE.
pub(super) fn features_scope() -> (Scope, &'static [FeatureColumn]) {
    let columns = FEATURES.iter().map(|column| column.column()).collect();
    (Scope { table: "FEATURES".to_owned(), alias: None, columns }, &FEATURES)
}
