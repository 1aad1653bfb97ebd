//! Pipes: rows flow from each stage to the next.
//!
//! A SELECT without FROM reads the rows of the stage before. Any other reading statement runs once for
//! each of those rows, with `$name` standing for the row's column of that name.

use std::sync::Arc;

use super::BindError;
use super::prepared::substitute;
use super::select::select;
use super::source::Sources;
use super::statement::{Bound, Context, bind};
use crate::catalog::Catalog;
use crate::logical::Plan;
use crate::nearest_name::nearest;
use crate::physical::plan::{BoundColumn, ForEach};
use crate::planned::Role;
use crate::syntax::ast::{Parameter, ParameterPlace, Statement};
use crate::syntax::{Span, SpannedStatement};
use crate::value::{Column, ColumnType, Value};

/// The most stages of a pipe.
const STAGES_MAX: usize = 64;

/// Binds the stages of a pipe, each to the rows of the one before.
pub(super) fn pipe(
    stages: &[SpannedStatement],
    span: Span,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    if let Some(stage) = stages.get(STAGES_MAX) {
        let what = format!("a pipe has at most {STAGES_MAX} stages");
        return Err(BindError::TooMany { what, span: stage.span });
    }
    let Some((first, others)) = stages.split_first() else {
        let (what, hint) = ("a pipe without stages".to_owned(), "write a statement".to_owned());
        return Err(BindError::Meaningless { what, span: Some(span), hint });
    };
    check_reads(first, context.catalog, "stand in a pipe")?;
    let mut bound = bind(&first.statement, first.span, context)?;
    for stage in others {
        check_reads(stage, context.catalog, "stand in a pipe")?;
        bound = next_stage(bound, stage, context)?;
    }
    Ok(bound)
}

fn next_stage(
    before: Bound,
    stage: &SpannedStatement,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    let columns = columns_used(stage);
    if let Statement::Select(request) = &stage.statement
        && request.from.is_none()
    {
        if let Some((name, span)) = columns.first() {
            return Err(BindError::Meaningless {
                what: format!("${name} stands for one row, and a SELECT without FROM reads all"),
                span: Some(*span),
                hint: format!("write {name}"),
            });
        }
        let plan = select(&Sources::new(context.catalog), request, Some(before.plan))?;
        let required_role = before.required_role.max(Role::Reader);
        let mount = before.mount.or_else(|| context.catalog.current());
        return Ok(Bound { plan, tag: "SELECT", required_role, mount });
    }
    if columns.is_empty() {
        return Err(BindError::Meaningless {
            what: "this stage reads nothing of the stage before".to_owned(),
            span: Some(stage.span),
            hint: "use a column of it as $name, SELECT without FROM, or separate the statements \
                   with `;`"
                .to_owned(),
        });
    }
    let available = before.plan.columns();
    let mut used: Vec<BoundColumn> = Vec::new();
    for (name, span) in columns {
        if used.iter().all(|column| column.name != name) {
            let index = find(&available, &name, span)?;
            used.push(BoundColumn { name, index, is_text: false });
        }
    }
    let mut template = stage.clone();
    let visited: Result<(), std::convert::Infallible> = template.visit_parameters(&mut |place| {
        if let (ParameterPlace::Text(_), Some(Parameter::Column(name))) =
            (&place, place.parameter())
        {
            used.iter_mut()
                .filter(|column| column.name == *name)
                .for_each(|column| column.is_text = true);
        }
        Ok(())
    });
    let Ok(()) = visited;
    // One row of the right types says what the statement answers, and whether it binds.
    substitute(&mut template, &|parameter, _| match parameter {
        Parameter::Column(name) => {
            let column = used.iter().find(|column| column.name == *name)?;
            Some(sample(name, available[column.index].kind))
        }
        Parameter::Position(_) => None,
    })?;
    let inner = bind(&template.statement, template.span, context)?;
    let each = ForEach { statement: Arc::new(stage.clone()), columns: used };
    let plan = Plan::ForEach { each, inputs: Box::new([before.plan, inner.plan]) };
    let required_role = before.required_role.max(inner.required_role);
    Ok(Bound { plan, tag: inner.tag, required_role, mount: inner.mount.or(before.mount) })
}

/// The columns of the stage before that a stage names, each as often as it does.
fn columns_used(stage: &SpannedStatement) -> Vec<(String, Span)> {
    let names = stage.parameters().into_iter().filter_map(|(parameter, span)| match parameter {
        Parameter::Column(name) => Some((name, span)),
        Parameter::Position(_) => None,
    });
    names.collect()
}

fn find(available: &[Column], name: &str, span: Span) -> Result<usize, BindError> {
    let mut found = available
        .iter()
        .enumerate()
        .filter(|(_, column)| column.name.eq_ignore_ascii_case(name))
        .map(|(index, _)| index);
    let names: Vec<&str> = available.iter().map(|column| column.name.as_str()).collect();
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(BindError::AmbiguousColumn {
            name: name.to_owned(),
            tables: "twice in the rows of the stage before".to_owned(),
            span,
        }),
        (None, _) => Err(BindError::UnknownColumn {
            name: name.to_owned(),
            table: "the rows of the stage before".to_owned(),
            nearest: nearest(name, names.iter().copied()).map(str::to_owned),
            columns: names.join(", "),
            span,
        }),
    }
}

/// Some value of a type, for binding; text shows which column it stands for.
fn sample(name: &str, kind: ColumnType) -> Value {
    match kind {
        ColumnType::Text => Value::text(format!("${name}")),
        ColumnType::Integer => Value::Integer(1),
        ColumnType::Real => Value::Real(1.0),
        ColumnType::Boolean => Value::Boolean(true),
        ColumnType::List => Value::List(Arc::from([])),
    }
}

/// Refuses a stage that answers no rows, or changes what the stages after it see.
pub(super) fn check_reads(
    stage: &SpannedStatement,
    catalog: &dyn Catalog,
    purpose: &str,
) -> Result<(), BindError> {
    let reads = |statement: &Statement| match statement {
        // Each row would write the same file.
        Statement::Trace(trace) => trace.save.is_none(),
        other => matches!(
            other,
            Statement::Select(_)
                | Statement::Describe(_)
                | Statement::Walk(_)
                | Statement::Infer(_)
                | Statement::ExplainFeatures(_)
                | Statement::Generate(_)
                | Statement::TraceOpen(_)
                | Statement::VerifyEdge(_)
                | Statement::Blame { .. }
                | Statement::Diff(_)
                | Statement::Show(_)
                | Statement::Stats(_)
        ),
    };
    let served = match &stage.statement {
        Statement::Execute { name, .. } => catalog
            .prepared(&name.value)
            .is_none_or(|prepared| reads(&prepared.statement.statement)),
        statement => reads(statement),
    };
    if served {
        return Ok(());
    }
    Err(BindError::Meaningless {
        what: format!("only statements that read rows can {purpose}"),
        span: Some(stage.span),
        hint: "statements that change something stand alone, separated by `;`".to_owned(),
    })
}
