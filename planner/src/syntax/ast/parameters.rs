//! Where parameters stand in a statement: one walk over every place that may hold a value.

use super::{
    Expression, ExpressionKind, Parameter, Select, SelectItem, Show, Statement, Table, Text,
};
use super::{SpannedStatement, TextOperand};
use crate::syntax::span::Span;

/// A place that holds a parameter.
#[derive(Debug)]
pub enum ParameterPlace<'a> {
    /// Instead of a string: a prompt, an entity.
    Text(&'a mut Text),
    /// Within an expression.
    Expression(&'a mut Expression),
}

impl ParameterPlace<'_> {
    /// The parameter.
    pub fn parameter(&self) -> Option<&Parameter> {
        match self {
            Self::Text(text) => match &text.value {
                TextOperand::Parameter(parameter) => Some(parameter),
                TextOperand::Literal(_) => None,
            },
            Self::Expression(expression) => match &expression.value {
                ExpressionKind::Parameter(parameter) => Some(parameter),
                _ => None,
            },
        }
    }

    /// Where it is written.
    pub fn span(&self) -> Span {
        match self {
            Self::Text(text) => text.span,
            Self::Expression(expression) => expression.span,
        }
    }
}

/// What is done with a place; an error ends the walk.
type See<'s, E> = dyn FnMut(ParameterPlace<'_>) -> Result<(), E> + 's;

impl SpannedStatement {
    /// Visits every place that holds a parameter, in the order of the text where that is easy. What
    /// PREPARE names is left alone: its parameters are for EXECUTE. So is a parameter as a whole key of
    /// ORDER BY or GROUP BY, where a number would mean a column.
    ///
    /// # Errors
    /// What `see` answers first.
    pub fn visit_parameters<E>(&mut self, see: &mut See<'_, E>) -> Result<(), E> {
        match &mut self.statement {
            Statement::Walk(walk) => text(&mut walk.prompt, see),
            Statement::Infer(infer) => text(&mut infer.prompt, see),
            Statement::Describe(describe) => text(&mut describe.entity, see),
            Statement::ExplainFeatures(explain) => text(&mut explain.prompt, see),
            Statement::Generate(generate) => text(&mut generate.prompt, see),
            Statement::Trace(trace) => {
                text(&mut trace.prompt, see)?;
                let others = trace.target.iter_mut().chain(&mut trace.diff);
                others.into_iter().try_for_each(|operand| text(operand, see))
            }
            Statement::Blame { prompt, target, .. } => {
                text(prompt, see)?;
                target.iter_mut().try_for_each(|operand| text(operand, see))
            }
            Statement::Select(request) => select(request, see),
            Statement::Insert(insert) => {
                insert.rows.iter_mut().flatten().try_for_each(|value| expression(value, see))
            }
            Statement::Delete { filter, .. } | Statement::VerifyEdge(filter) => {
                expression(filter, see)
            }
            Statement::Update { assignments, filter, .. } => {
                assignments.iter_mut().try_for_each(|(_, value)| expression(value, see))?;
                expression(filter, see)
            }
            Statement::Show(Show::Features { filter: Some(filter), .. }) => expression(filter, see),
            Statement::Execute { arguments, .. } => {
                arguments.iter_mut().try_for_each(|argument| expression(argument, see))
            }
            Statement::Explain(explain) => explain.statement.visit_parameters(see),
            Statement::AsOf { statement, .. } | Statement::Copy { statement, .. } => {
                statement.visit_parameters(see)
            }
            Statement::Pipe(stages) => {
                stages.iter_mut().try_for_each(|stage| stage.visit_parameters(see))
            }
            _ => Ok(()),
        }
    }

    /// The parameters it has, each as often as it is written.
    pub fn parameters(&self) -> Vec<(Parameter, Span)> {
        let mut found = Vec::new();
        let visited: Result<(), std::convert::Infallible> =
            self.clone().visit_parameters(&mut |place| {
                found.extend(place.parameter().cloned().map(|parameter| (parameter, place.span())));
                Ok(())
            });
        match visited {
            Ok(()) => found,
        }
    }
}

fn text<E>(operand: &mut Text, see: &mut See<'_, E>) -> Result<(), E> {
    match operand.value {
        TextOperand::Parameter(_) => see(ParameterPlace::Text(operand)),
        TextOperand::Literal(_) => Ok(()),
    }
}

fn expression<E>(operand: &mut Expression, see: &mut See<'_, E>) -> Result<(), E> {
    if matches!(operand.value, ExpressionKind::Parameter(_)) {
        return see(ParameterPlace::Expression(operand));
    }
    operand.value.operands_mut().into_iter().try_for_each(|operand| expression(operand, see))
}

/// A key of ORDER BY or GROUP BY.
fn key<E>(operand: &mut Expression, see: &mut See<'_, E>) -> Result<(), E> {
    match operand.value {
        ExpressionKind::Parameter(_) => Ok(()),
        _ => expression(operand, see),
    }
}

fn select<E>(select: &mut Select, see: &mut See<'_, E>) -> Result<(), E> {
    for item in &mut select.items {
        if let SelectItem::Expression { expression: value, .. } = item {
            expression(value, see)?;
        }
    }
    if let Some(from) = &mut select.from {
        table(&mut from.table, see)?;
    }
    for join in &mut select.joins {
        table(&mut join.source.table, see)?;
        expression(&mut join.on, see)?;
    }
    if let Some(nearest) = &mut select.nearest {
        text(&mut nearest.value.entity, see)?;
    }
    select.filter.iter_mut().try_for_each(|filter| expression(filter, see))?;
    select.group_by.iter_mut().try_for_each(|written| key(written, see))?;
    select.having.iter_mut().try_for_each(|having| expression(having, see))?;
    select.order_by.iter_mut().try_for_each(|written| key(&mut written.expression, see))
}

fn table<E>(table: &mut Table, see: &mut See<'_, E>) -> Result<(), E> {
    match table {
        Table::Select(inner) => select(&mut inner.value, see),
        Table::Named { .. } => Ok(()),
    }
}
