//! FROM: which rows a SELECT reads, and the names that they have.
//!
//! A source of rows is one of EDGES, FEATURES and ENTITIES, a table that the catalog knows, a
//! sub-query, or (in a pipe) the stage before. EDGES is two relations under one name: without
//! `entity = "…"` among the conditions joined by AND it has one row a feature with output tokens; with
//! it, the gate hits of that entity. Edges that labels know and edges that edits state stand beside both. Conditions of ON count like those of WHERE, since every JOIN is an
//! inner one.

use std::sync::Arc;

use super::BindError;
use super::binder::Binder;
use super::expression::{ComparisonOperator, Expression};
use super::scope::Scope;
use super::select::{filtered, limited, select};
use super::statement::Reader;
use super::system;
use crate::catalog::{Catalog, Component};
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::logical::plan::ENTITY_COLUMNS;
use crate::nearest_name::nearest;
use crate::physical::plan::{
    ENTITY_COUNT_INPUT, EditedEdges, FeatureColumn, KnownEdges, Operator, QueryVector, TableScan,
};
use crate::syntax::Span;
use crate::syntax::ast::{self, Name, Select, Source, Table};
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

/// The relations of a model, in the order of [`Relation`].
pub(super) const RELATIONS: [&str; 3] = ["EDGES", "FEATURES", "ENTITIES"];

/// Gate hits of an entity a layer, before the threshold.
pub(super) const ENTITY_K: u64 = 20;

/// Rows of NEAREST without LIMIT.
const NEAREST_ROWS: u64 = 20;

/// The most JOINs of one SELECT.
const JOINS_MAX: usize = 16;

/// Where the sources of a SELECT come from.
pub(super) struct Sources<'a> {
    catalog: &'a dyn Catalog,
    reader: Option<Reader<'a>>,
}

impl<'a> Sources<'a> {
    /// Those of a catalog and of the mount in use, if one is.
    pub fn new(catalog: &'a dyn Catalog) -> Self {
        Self { catalog, reader: Reader::current(catalog).ok() }
    }

    fn reader(&self) -> Result<&Reader<'a>, BindError> {
        self.reader.as_ref().ok_or(BindError::NothingInUse)
    }
}

/// A source of rows that is named, and not planned yet.
enum Relation {
    Edges,
    Features,
    Entities,
    Plan(Plan),
}

/// The rows that a SELECT is about, WHERE applied, with their names. `piped`: the stage before, for a
/// SELECT without FROM.
pub(super) fn rows(
    sources: &Sources<'_>,
    request: &Select,
    piped: Option<Plan>,
) -> Result<(Plan, Scope), BindError> {
    let mut scope = Scope::default();
    let first = match (&request.from, piped) {
        (Some(source), _) => relation(sources, source, &mut scope)?,
        (None, Some(stage)) => {
            let columns = stage.columns();
            let shown = columns.len();
            scope.push(None, "the rows of the stage before".to_owned(), columns, shown);
            Relation::Plan(stage)
        }
        (None, None) => {
            if let Some(join) = request.joins.first() {
                return Err(BindError::Meaningless {
                    what: "JOIN needs a FROM to join with".to_owned(),
                    span: Some(join.on.span),
                    hint: "SELECT … FROM a JOIN b ON …".to_owned(),
                });
            }
            Relation::Plan(Plan::OneRow)
        }
    };
    if let Some(join) = request.joins.get(JOINS_MAX) {
        let what = format!("a SELECT takes at most {JOINS_MAX} JOINs");
        return Err(BindError::TooMany { what, span: join.on.span });
    }
    let mut relations = vec![first];
    // The conditions of each JOIN, then those of WHERE.
    let mut conditions = Vec::with_capacity(request.joins.len() + 1);
    for join in &request.joins {
        relations.push(relation(sources, &join.source, &mut scope)?);
        conditions.push(Binder::over(&scope).predicate(&join.on)?.conjuncts());
    }
    let filter = request.filter.as_ref().map(|filter| Binder::over(&scope).predicate(filter));
    conditions.push(filter.transpose()?.map(Expression::conjuncts).unwrap_or_default());
    if let Some(nearest) = &request.nearest {
        if let Some(flag) = &request.approximate {
            return Err(approximate_nothing(flag.span));
        }
        let predicate = Expression::conjunction(conditions.concat());
        let plan = nearest_rows(sources, request, nearest, &relations, predicate)?;
        return Ok((plan, scope));
    }
    let mut has_hits = false;
    let mut planned = Vec::with_capacity(relations.len());
    let starts = scope.starts();
    for (at, relation) in relations.into_iter().enumerate() {
        planned.push(match relation {
            Relation::Plan(plan) => plan,
            Relation::Edges => {
                let approximate = request.approximate.is_some();
                let plan = edges(sources.reader()?, starts[at], &mut conditions, approximate)?;
                has_hits |= plan.has_gate_hits();
                plan
            }
            Relation::Features => {
                let reader = sources.reader()?;
                features(reader, &FEATURES, LayerSet::all(reader.layers()))?
            }
            Relation::Entities => {
                let reader = sources.reader()?;
                entities(reader, LayerSet::all(reader.layers()))?
            }
        });
    }
    if let Some(flag) = &request.approximate
        && !has_hits
    {
        return Err(approximate_nothing(flag.span));
    }
    let mut conditions = conditions.into_iter().map(Expression::conjunction);
    let joined = planned.into_iter().reduce(|left, right| Plan::Join {
        on: conditions.next().flatten(),
        inputs: Box::new([left, right]),
    });
    let Some(joined) = joined else { unreachable!("a SELECT has a first source") };
    Ok((filtered(joined, conditions.next().flatten()), scope))
}

/// APPROX where there is nothing that it could change.
fn approximate_nothing(span: Span) -> BindError {
    BindError::Meaningless {
        what: "APPROX is for the gate hits of an entity, and nothing here looks for any".to_owned(),
        span: Some(span),
        hint: "SELECT … FROM EDGES WHERE entity = \"…\" APPROX, or leave it out".to_owned(),
    }
}

/// Finds a source and adds its names to the scope.
fn relation(
    sources: &Sources<'_>,
    source: &Source,
    scope: &mut Scope,
) -> Result<Relation, BindError> {
    let alias = source.alias.as_ref();
    let (relation, name, described, columns, shown) = match &source.table {
        Table::Select(inner) => {
            let plan = select(sources, &inner.value, None)?;
            let columns = plan.columns();
            let shown = columns.len();
            (Relation::Plan(plan), None, "the sub-query".to_owned(), columns, shown)
        }
        Table::Named { schema, name } => {
            let (relation, described, columns, shown) = named(sources, schema.as_ref(), name)?;
            (relation, Some(name), described, columns, shown)
        }
    };
    let called = alias.or(name);
    if let Some(called) = called
        && scope.has(&called.value)
    {
        return Err(BindError::DuplicateTable { name: called.value.clone(), span: called.span });
    }
    scope.push(called.map(|name| name.value.clone()), described, columns, shown);
    Ok(relation)
}

/// A table by its name: its rows, its name in messages, its columns and how many of them `*` shows.
fn named(
    sources: &Sources<'_>,
    schema: Option<&Name>,
    name: &Name,
) -> Result<(Relation, String, Vec<Column>, usize), BindError> {
    let of_model = |name: &str| {
        let at = RELATIONS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(match at {
            0 => (Relation::Edges, EDGES.iter().map(|column| column.column()).collect()),
            1 => (Relation::Features, FEATURES.iter().map(|column| column.column()).collect()),
            _ => {
                let columns = ENTITY_COLUMNS.iter().map(|(name, kind)| Column::new(*name, *kind));
                (Relation::Entities, columns.collect::<Vec<_>>())
            }
        })
    };
    if schema.is_none()
        && let Some((relation, columns)) = of_model(&name.value)
    {
        let shown = if matches!(relation, Relation::Edges) { EDGES_SHOWN } else { columns.len() };
        return Ok((relation, name.value.to_uppercase(), columns, shown));
    }
    let qualifier = schema.map(|schema| schema.value.as_str());
    if qualifier.is_some_and(|schema| schema.eq_ignore_ascii_case(system::SCHEMA))
        && let Some(plan) = system::table(&name.value, sources.reader())?
    {
        let (columns, described) = (plan.columns(), format!("{}.{}", system::SCHEMA, name.value));
        let shown = columns.len();
        return Ok((Relation::Plan(plan), described, columns, shown));
    }
    let found = sources.catalog.table(qualifier, &name.value).map_err(|reason| {
        BindError::UnreadableTable { name: name.value.clone(), reason, span: name.span }
    })?;
    if let Some(table) = found {
        let columns = table.columns().to_vec();
        let scan = TableScan {
            schema: schema.map(|schema| schema.value.clone()),
            name: table.name().to_owned(),
            columns: (0..columns.len()).collect(),
            rows: table.rows(),
        };
        let shown = columns.len();
        let plan = Plan::TableScan { scan, columns: columns.clone() };
        return Ok((Relation::Plan(plan), table.name().to_owned(), columns, shown));
    }
    let (full, span) = match schema {
        Some(schema) => (format!("{}.{}", schema.value, name.value), schema.span.to(name.span)),
        None => (name.value.clone(), name.span),
    };
    Err(unknown_table(sources.catalog, full, span))
}

/// No table has that name; the message lists those there are.
pub(super) fn unknown_table(catalog: &dyn Catalog, name: String, span: Span) -> BindError {
    let others = catalog.table_names();
    let known = RELATIONS.into_iter().chain(system::TABLES);
    let names: Vec<&str> = known.chain(others.iter().map(String::as_str)).collect();
    BindError::UnknownTable {
        nearest: nearest(&name, names.iter().copied()).map(str::to_owned),
        tables: names.join(", "),
        name,
        span,
    }
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

/// EDGES, whose columns begin at `start`: the hits of the entity that a condition names, which is
/// then taken from the conditions, or every feature.
fn edges(
    reader: &Reader<'_>,
    start: usize,
    conditions: &mut [Vec<Expression>],
    approximate: bool,
) -> Result<Plan, BindError> {
    let layers = LayerSet::all(reader.layers());
    let entity_column = EDGES.iter().position(|column| *column == FeatureColumn::Entity);
    let entity_column = start + entity_column.unwrap_or_default();
    let named = conditions.iter_mut().find_map(|conjuncts| {
        let entity = |conjunct: &Expression| named_entity(conjunct, entity_column);
        let at = conjuncts.iter().position(|conjunct| entity(conjunct).is_some())?;
        entity(&conjuncts.remove(at))
    });
    let known = reader.mount.has(Component::KnownEdges).then(|| {
        let known = KnownEdges { entity: named.clone(), columns: EDGES.to_vec() };
        let columns = EDGES.iter().map(|column| column.column()).collect();
        Plan::Leaf { operator: Operator::KnownEdges(known), columns }
    });
    let edited = reader.mount.is_edited().then(|| {
        let edited = EditedEdges { entity: named.clone(), columns: EDGES.to_vec() };
        let columns = EDGES.iter().map(|column| column.column()).collect();
        Plan::Leaf { operator: Operator::EditedEdges(edited), columns }
    });
    let beside = |plan| match (edited, known) {
        (None, None) => plan,
        (edited, known) => {
            Plan::Concatenate { inputs: edited.into_iter().chain(known).chain([plan]).collect() }
        }
    };
    let Some(entity) = named else { return Ok(beside(features(reader, &EDGES, layers)?)) };
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
        Component::Statistics,
    ])?;
    Ok(beside(Plan::GateHits {
        query: QueryVector::Entity(entity),
        layers,
        k: Some(ENTITY_K),
        z_min: Some(reader.settings().describe_z()),
        tokens_required: true,
        approximate,
        columns: EDGES.to_vec(),
    }))
}

/// The entity in `entity = "…"`, written either way around.
fn named_entity(conjunct: &Expression, column: usize) -> Option<Arc<str>> {
    let Expression::Comparison { operator: ComparisonOperator::Equal, left, right } = conjunct
    else {
        return None;
    };
    let is_entity = |operand: &Expression| matches!(operand, Expression::Column { index, .. } if *index == column);
    match (&**left, &**right) {
        (operand, Expression::Literal(Value::Text(text)))
        | (Expression::Literal(Value::Text(text)), operand)
            if is_entity(operand) =>
        {
            Some(text.clone())
        }
        _ => None,
    }
}

fn nearest_rows(
    sources: &Sources<'_>,
    request: &Select,
    clause: &crate::syntax::Spanned<ast::NearestTo>,
    relations: &[Relation],
    predicate: Option<Expression>,
) -> Result<Plan, BindError> {
    let columns = match relations {
        [Relation::Edges] => &EDGES[..],
        [Relation::Features] => &FEATURES[..],
        [Relation::Entities] => {
            return Err(BindError::Meaningless {
                what: "ENTITIES have no gates to be nearest by".to_owned(),
                span: Some(clause.span),
                hint: "SELECT … FROM EDGES NEAREST TO …".to_owned(),
            });
        }
        _ => {
            return Err(BindError::Meaningless {
                what: "NEAREST goes with EDGES or FEATURES alone".to_owned(),
                span: Some(clause.span),
                hint: "join with (SELECT … FROM EDGES NEAREST TO …)".to_owned(),
            });
        }
    };
    let reader = sources.reader()?;
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
    ])?;
    let entity = super::statement::literal(&clause.value.entity)?;
    let layer = reader.layer(&clause.value.layer)?;
    let rows = match request.limit {
        Some(limit) => limit.saturating_add(request.offset.unwrap_or(0)),
        None => NEAREST_ROWS,
    };
    let scan = Plan::Nearest { entity, layer, k: None, columns: columns.to_vec() };
    Ok(limited(filtered(scan, predicate), Some(rows), 0))
}

/// The scope of EDGES, for conditions that are looked at by themselves.
pub(super) fn edges_scope() -> Scope {
    Scope::of_table("EDGES", EDGES.iter().map(|column| column.column()).collect())
}

/// The scope of FEATURES, for SHOW FEATURES … WHERE.
pub(super) fn features_scope() -> (Scope, &'static [FeatureColumn]) {
    let columns = FEATURES.iter().map(|column| column.column()).collect();
    (Scope::of_table("FEATURES", columns), &FEATURES)
}
