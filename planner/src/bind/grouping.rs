//! GROUP BY and aggregates: what the select list, HAVING and ORDER BY may say about groups.
//!
//! A row of groups has the values of the keys, then those of the aggregates. Anything said about it is
//! a key as GROUP BY has it, an aggregate, or made of those and constants.

use std::cell::RefCell;
use std::sync::Arc;

use super::BindError;
use super::aggregate::{Aggregate, AggregateFunction};
use super::binder::Binder;
use super::expression::Expression;
use super::scope::Scope;
use super::select::not_too_many;
use crate::logical::Plan;
use crate::syntax::Span;
use crate::syntax::ast::{self, ExpressionKind, Select, SelectItem};
use crate::value::{Column, ColumnType};

/// The groups of a SELECT.
pub(super) struct Groups<'a> {
    input: &'a Scope,
    keys: Vec<Expression>,
    /// Those met so far; binding adds to them.
    aggregates: RefCell<Vec<Aggregate>>,
}

impl<'a> Groups<'a> {
    /// The groups that a SELECT over this scope asks for, if it asks for any.
    pub fn of(select: &Select, input: &'a Scope) -> Result<Option<Self>, BindError> {
        let selected = select.items.iter().filter_map(|item| match item {
            SelectItem::Expression { expression, .. } => Some(expression),
            SelectItem::All(_) => None,
        });
        let ordered = select.order_by.iter().map(|key| &key.expression);
        let mut said = selected.chain(ordered).chain(&select.having);
        if select.group_by.is_empty() && select.having.is_none() && !said.any(has_aggregate) {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(select.group_by.len());
        for written in &select.group_by {
            not_too_many("keys of GROUP BY", keys.len() + 1, written.span)?;
            keys.push(group_key(written, select, input)?);
        }
        Ok(Some(Self { input, keys, aggregates: RefCell::default() }))
    }

    /// The scope of the rows that are grouped.
    pub fn input(&self) -> &'a Scope {
        self.input
    }

    /// What an expression is over groups, where it is a key or an aggregate as a whole.
    pub fn find(&self, expression: &ast::Expression) -> Result<Option<Expression>, BindError> {
        if let ExpressionKind::Function { name, distinct, arguments } = &expression.value
            && let Some(function) = AggregateFunction::named(name)
        {
            let aggregate =
                self.aggregate(function, *distinct, arguments.as_deref(), expression.span)?;
            let read = self.read_aggregate(aggregate);
            not_too_many("aggregates", self.aggregates.borrow().len(), expression.span)?;
            return Ok(Some(read));
        }
        if self.keys.is_empty() {
            return Ok(None);
        }
        // What does not bind over rows is no key; binding over groups says what is wrong with it.
        let Ok(bound) = Binder::over(self.input).bind(expression) else { return Ok(None) };
        Ok(self.read_key(&bound))
    }

    /// The column of a key, if the expression over the grouped rows is one.
    pub fn read_key(&self, bound: &Expression) -> Option<Expression> {
        let index = self.keys.iter().position(|key| key == bound)?;
        let column = key_column(&self.keys[index]);
        Some(Expression::Column { index, name: column.name.into(), kind: column.kind })
    }

    fn aggregate(
        &self,
        function: AggregateFunction,
        distinct: bool,
        arguments: Option<&[ast::Expression]>,
        span: Span,
    ) -> Result<Aggregate, BindError> {
        let argument = match arguments {
            None if function == AggregateFunction::Count => None,
            None => {
                let name = function.name().to_owned();
                return Err(BindError::NoAggregate { name, span });
            }
            Some([argument]) => Some((Binder::over(self.input).bind(argument)?, argument.span)),
            Some(several) => {
                let (name, found) = (function.name(), several.len());
                return Err(BindError::ArgumentCount { name, expected: 1, found, span });
            }
        };
        if let Some((bound, span)) = &argument
            && let Some(kind) = bound.kind()
        {
            let fits = match function {
                AggregateFunction::Count => true,
                AggregateFunction::Sum | AggregateFunction::Avg => kind.is_number(),
                AggregateFunction::Min | AggregateFunction::Max => kind != ColumnType::List,
            };
            if !fits {
                let what = format!("{} does not take {kind}", function.name());
                return Err(BindError::TypeMismatch { what, span: *span });
            }
        }
        Ok(Aggregate { function, distinct, argument: argument.map(|(bound, _)| bound) })
    }

    fn read_aggregate(&self, aggregate: Aggregate) -> Expression {
        let name: Arc<str> = Arc::from(aggregate.to_string());
        let kind = aggregate.kind().unwrap_or(ColumnType::Text);
        let mut aggregates = self.aggregates.borrow_mut();
        let found = aggregates.iter().position(|known| *known == aggregate);
        let at = found.unwrap_or_else(|| {
            aggregates.push(aggregate);
            aggregates.len() - 1
        });
        Expression::Column { index: self.keys.len() + at, name, kind }
    }

    /// The plan that groups: called when everything that is said about groups has been bound.
    pub fn plan(self, input: Plan) -> Plan {
        let (keys, aggregates) = (self.keys, self.aggregates.into_inner());
        let aggregated = aggregates.iter().map(|aggregate| {
            Column::new(aggregate.to_string(), aggregate.kind().unwrap_or(ColumnType::Text))
        });
        let columns = keys.iter().map(key_column).chain(aggregated).collect();
        Plan::Aggregate { keys, aggregates, columns, input: Box::new(input) }
    }
}

fn key_column(key: &Expression) -> Column {
    Column::new(key.to_string(), key.kind().unwrap_or(ColumnType::Text))
}

/// What GROUP BY names: a column, the alias or the number of an item, or any expression over rows.
fn group_key(
    written: &ast::Expression,
    select: &Select,
    input: &Scope,
) -> Result<Expression, BindError> {
    let binder = Binder::over(input);
    let item = |at: usize| match select.items.get(at) {
        Some(SelectItem::Expression { expression, .. }) => Some(expression),
        _ => None,
    };
    match &written.value {
        ExpressionKind::Integer(position) => {
            let at = usize::try_from(*position).ok().and_then(|position| position.checked_sub(1));
            match at.and_then(item) {
                Some(expression) => binder.bind(expression),
                None => Err(BindError::Meaningless {
                    what: format!("GROUP BY {position} names no item of the select list"),
                    span: Some(written.span),
                    hint: "write a column, or the number of an item from 1".to_owned(),
                }),
            }
        }
        ExpressionKind::Column { qualifier: None, name } => binder.bind(written).or_else(|error| {
            // Columns come before aliases, as in SQL.
            let aliased = select.items.iter().find_map(|item| match item {
                SelectItem::Expression { expression, alias: Some(alias) }
                    if alias.value.eq_ignore_ascii_case(name) =>
                {
                    Some(expression)
                }
                _ => None,
            });
            match (aliased, error) {
                (Some(expression), BindError::UnknownColumn { .. }) => binder.bind(expression),
                (_, error) => Err(error),
            }
        }),
        _ => binder.bind(written),
    }
}

/// Whether an aggregate stands anywhere in an expression.
fn has_aggregate(expression: &ast::Expression) -> bool {
    let mut found = false;
    expression.value.visit(&mut |kind| {
        found |= matches!(kind, ExpressionKind::Function { name, .. }
            if AggregateFunction::named(name).is_some());
    });
    found
}
