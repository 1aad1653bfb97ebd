//! Parameters, PREPARE and EXECUTE: values put in the place of `$1` before a statement is bound.
//!
//! PREPARE binds its statement with NULL for every parameter, so that its names, and the types of
//! everything else, are checked at once; EXECUTE binds it again with the values, so that a plan is
//! made for them and for what is mounted then.

use std::borrow::Cow;
use std::sync::Arc;

use super::BindError;
use super::binder::Binder;
use super::scope::Scope;
use super::statement::{Bound, Context, bind};
use crate::logical::Plan;
use crate::physical::plan::Operator;
use crate::syntax::ast::{
    Expression, ExpressionKind, Name, Parameter, ParameterPlace, Statement, TextOperand,
};
use crate::syntax::{Span, SpannedStatement};
use crate::value::Value;

/// The most parameters of a statement.
pub const PARAMETERS_MAX: u32 = 1024;

/// A statement that waits for the values of its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The statement, with its parameters.
    pub statement: SpannedStatement,
    /// How many values it takes.
    pub parameters: u32,
}

/// Puts values in the place of the parameters that have one; `is_text` says whether the place takes
/// text only.
///
/// # Errors
/// `ParameterType` for a value that cannot stand where its parameter does.
pub fn substitute(
    statement: &mut SpannedStatement,
    value: &dyn Fn(&Parameter, bool) -> Option<Value>,
) -> Result<(), BindError> {
    statement.visit_parameters(&mut |place| {
        let is_text = matches!(place, ParameterPlace::Text(_));
        let span = place.span();
        let Some(parameter) = place.parameter() else { return Ok(()) };
        let Some(value) = value(parameter, is_text) else { return Ok(()) };
        let name = parameter.to_string();
        let refuse = |what: String| Err(BindError::ParameterType { name, what, span });
        match place {
            ParameterPlace::Text(text) => match value {
                Value::Text(value) => text.value = TextOperand::Literal(value.to_string()),
                other => {
                    return refuse(match other.kind() {
                        Some(kind) => format!("a value of type {kind}"),
                        None => "NULL".to_owned(),
                    });
                }
            },
            ParameterPlace::Expression(expression) => {
                expression.value = match value {
                    Value::Null => ExpressionKind::Null,
                    Value::Boolean(truth) => ExpressionKind::Boolean(truth),
                    Value::Integer(integer) => ExpressionKind::Integer(integer),
                    Value::Real(real) => ExpressionKind::Real(real),
                    Value::Score(_) => {
                        value.as_real().map_or(ExpressionKind::Null, ExpressionKind::Real)
                    }
                    Value::Text(text) => ExpressionKind::Text(text.to_string()),
                    Value::List(_) => return refuse("a list".to_owned()),
                };
            }
        }
        Ok(())
    })
}

/// Puts the values of `$1`, `$2` … in a statement.
///
/// # Errors
/// As [`substitute`].
pub fn with_values<'a>(
    statement: &'a SpannedStatement,
    values: &[Value],
) -> Result<Cow<'a, SpannedStatement>, BindError> {
    if values.is_empty() {
        return Ok(Cow::Borrowed(statement));
    }
    let mut statement = statement.clone();
    substitute(&mut statement, &|parameter, _| match parameter {
        Parameter::Position(position) => values.get((*position as usize).checked_sub(1)?).cloned(),
        Parameter::Column(_) => None,
    })?;
    Ok(Cow::Owned(statement))
}

/// PREPARE name AS statement.
pub(super) fn prepare(
    name: &Name,
    statement: &SpannedStatement,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    if let Some(hint) = match statement.statement {
        Statement::Prepare { .. } | Statement::Execute { .. } | Statement::Deallocate(_) => {
            Some("prepare the statement itself")
        }
        Statement::Explain(_) => Some("prepare the statement itself, and EXPLAIN EXECUTE it"),
        _ => None,
    } {
        return Err(BindError::Meaningless {
            what: "a statement about statements cannot be prepared".to_owned(),
            span: Some(statement.span),
            hint: hint.to_owned(),
        });
    }
    let mut parameters = 0;
    for (parameter, span) in statement.parameters() {
        if let Parameter::Position(position) = parameter {
            if position > PARAMETERS_MAX {
                let what = format!("a statement takes at most {PARAMETERS_MAX} parameters");
                return Err(BindError::TooMany { what, span });
            }
            parameters = parameters.max(position);
        }
    }
    let mut checked = statement.clone();
    substitute(&mut checked, &|parameter, is_text| match parameter {
        Parameter::Position(_) if is_text => Some(Value::text(parameter.to_string())),
        Parameter::Position(_) => Some(Value::Null),
        Parameter::Column(_) => None,
    })?;
    let required_role = bind(&checked.statement, checked.span, context)?.required_role;
    let prepared = Arc::new(Prepared { statement: statement.clone(), parameters });
    let operator = Operator::Prepare { name: name.value.clone(), prepared };
    Ok(Bound { plan: Plan::leaf(operator, &[]), tag: "PREPARE", required_role, mount: None })
}

/// What `EXECUTE name (values)` runs.
pub(super) fn execute(
    name: &Name,
    arguments: &[Expression],
    span: Span,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    let Some(prepared) = context.catalog.prepared(&name.value) else {
        let (name, span) = (name.value.clone(), name.span);
        return Err(BindError::UnknownPrepared { name, span });
    };
    let (expected, found) = (prepared.parameters as usize, arguments.len());
    if expected != found {
        return Err(BindError::ArgumentCount { name: "EXECUTE", expected, found, span });
    }
    let scope = Scope::default();
    let mut values = Vec::with_capacity(found);
    for argument in arguments {
        values.push(Binder::over(&scope).bind(argument)?.evaluate(&|_| Value::Null));
    }
    with_values(&prepared.statement, &values)
        .and_then(|statement| bind(&statement.statement, statement.span, context))
        .map_err(|source| BindError::Prepared { source: Box::new(source), span })
}
