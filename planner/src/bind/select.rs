//! SELECT: which of the rows, grouped how, which columns, in which order, how many.
//!
//! The rows come from [`super::source`]. NEAREST takes the features of one layer that satisfy WHERE, in
//! order of nearness, as many as LIMIT (and OFFSET) ask for, 20 by default; ORDER BY then sorts those.

use super::BindError;
use super::binder::Binder;
use super::expression::Expression;
use super::grouping::Groups;
use super::scope::Scope;
use super::source::{Sources, rows};
use crate::logical::Plan;
use crate::physical::plan::SortKey;
use crate::syntax::Span;
use crate::syntax::ast::{ExpressionKind, Select, SelectItem};
use crate::value::{Column, ColumnType};

/// The most items of a select list, keys and aggregates: each is looked for among the others.
pub(super) const ITEMS_MAX: usize = 1600;

/// Refuses more of something than [`ITEMS_MAX`].
pub(super) fn not_too_many(what: &str, count: usize, span: Span) -> Result<(), BindError> {
    if count <= ITEMS_MAX {
        return Ok(());
    }
    let what = format!("a SELECT takes at most {ITEMS_MAX} {what}");
    Err(BindError::TooMany { what, span })
}

/// Binds a SELECT. `piped`: the stage before, whose rows a SELECT without FROM reads.
pub(super) fn select(
    sources: &Sources<'_>,
    request: &Select,
    piped: Option<Plan>,
) -> Result<Plan, BindError> {
    let (mut plan, scope) = rows(sources, request, piped)?;
    let groups = Groups::of(request, &scope)?;
    let binder = match &groups {
        Some(groups) => Binder::over_groups(groups),
        None => Binder::over(&scope),
    };
    let items = output_items(request, binder, &scope, groups.as_ref())?;
    let keys = sort_keys(request, binder, &items)?;
    let having = request.having.as_ref().map(|having| binder.predicate(having)).transpose()?;
    if let Some(groups) = groups {
        plan = filtered(groups.plan(plan), having);
    }
    // What NEAREST keeps is counted already; what is left of LIMIT is the OFFSET.
    let (count, offset) = match (&request.nearest, request.limit) {
        (Some(_), None) => (None, 0),
        _ => (request.limit, request.offset.unwrap_or(0)),
    };
    if request.distinct {
        let keys = distinct_keys(request, &keys, &items)?;
        plan = Plan::Distinct { input: Box::new(projected(plan, &items)) };
        plan = limited(sorted(plan, keys), count, offset);
    } else {
        plan = projected(limited(sorted(plan, keys), count, offset), &items);
    }
    Ok(plan)
}

/// One column of the answer.
struct Item {
    expression: Expression,
    name: String,
}

impl Item {
    fn column(&self) -> Column {
        Column::new(self.name.as_str(), self.expression.kind().unwrap_or(ColumnType::Text))
    }
}

fn output_items(
    select: &Select,
    binder: Binder<'_>,
    scope: &Scope,
    groups: Option<&Groups<'_>>,
) -> Result<Vec<Item>, BindError> {
    let mut items = Vec::new();
    for item in &select.items {
        match item {
            SelectItem::All(all) => {
                let shown = scope.shown(all.value.as_deref(), all.span)?;
                if shown.is_empty() {
                    return Err(BindError::Meaningless {
                        what: "* stands for the columns of a FROM, and there is none".to_owned(),
                        span: Some(all.span),
                        hint: "SELECT * FROM EDGES".to_owned(),
                    });
                }
                for index in shown {
                    let name = scope.columns()[index].name.clone();
                    let read = scope.read(index);
                    let expression = match groups {
                        None => read,
                        Some(groups) => groups.read_key(&read).ok_or_else(|| {
                            BindError::Ungrouped { name: name.clone(), span: all.span }
                        })?,
                    };
                    items.push(Item { expression, name });
                }
            }
            SelectItem::Expression { expression, alias } => {
                not_too_many("items", items.len() + 1, expression.span)?;
                let bound = binder.bind(expression)?;
                let name = match (alias, &expression.value) {
                    (Some(alias), _) => alias.value.clone(),
                    (None, ExpressionKind::Column { qualifier, name }) => {
                        let index = scope.column(qualifier.as_deref(), name, expression.span)?;
                        scope.columns()[index].name.clone()
                    }
                    (None, _) => expression.to_string(),
                };
                items.push(Item { expression: bound, name });
            }
        }
    }
    Ok(items)
}

/// What ORDER BY sorts by: the name of an item, its number, or any expression.
fn sort_keys(
    select: &Select,
    binder: Binder<'_>,
    items: &[Item],
) -> Result<Vec<SortKey>, BindError> {
    let mut keys = Vec::with_capacity(select.order_by.len());
    for key in &select.order_by {
        let written = &key.expression;
        not_too_many("keys of ORDER BY", keys.len() + 1, written.span)?;
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
                    None => binder.bind(written)?,
                }
            }
            _ => binder.bind(written)?,
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
) -> Result<Vec<SortKey>, BindError> {
    let mut over_output = Vec::with_capacity(keys.len());
    for (key, written) in keys.iter().zip(&select.order_by) {
        let Some(index) = items.iter().position(|item| item.expression == key.expression) else {
            return Err(BindError::Meaningless {
                what: "with DISTINCT, ORDER BY must name a column of the answer".to_owned(),
                span: Some(written.expression.span),
                hint: "add it to the select list".to_owned(),
            });
        };
        let Column { name, kind } = items[index].column();
        let expression = Expression::Column { index, name: name.into(), kind };
        over_output.push(SortKey { expression, descending: key.descending });
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
    let columns = items.iter().map(Item::column).collect();
    let expressions = items.iter().map(|item| item.expression.clone()).collect();
    Plan::Project { expressions, columns, input: Box::new(plan) }
}
