//! Names in scope, and expressions bound over them with their types checked.

use std::sync::Arc;

use super::BindError;
use super::expression::{ArithmeticOperator, ComparisonOperator, Expression, Function};
use crate::nearest_name::nearest;
use crate::syntax::Span;
use crate::syntax::ast::{self, ExpressionKind};
use crate::value::{Column, ColumnType, Value};

/// The columns that an expression may name.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// The table's name, in messages and as qualifier.
    pub table: String,
    /// The alias after AS, the only qualifier when there is one.
    pub alias: Option<String>,
    /// The columns, by index.
    pub columns: Vec<Column>,
}

impl Scope {
    /// Whether `qualifier` names this scope.
    pub fn answers_to(&self, qualifier: &str) -> bool {
        self.alias.as_deref().unwrap_or(&self.table).eq_ignore_ascii_case(qualifier)
    }

    /// The index of a column.
    pub fn column(
        &self,
        qualifier: Option<&str>,
        name: &str,
        span: Span,
    ) -> Result<usize, BindError> {
        if let Some(qualifier) = qualifier
            && !self.answers_to(qualifier)
        {
            let nearest = None;
            return Err(BindError::UnknownTable { name: qualifier.to_owned(), nearest, span });
        }
        let found = self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            BindError::UnknownColumn {
                name: name.to_owned(),
                table: self.table.clone(),
                nearest: nearest(name, names.iter().copied()).map(str::to_owned),
                columns: names.join(", "),
                span,
            }
        })
    }

    /// The expression that reads a column.
    pub fn read(&self, index: usize) -> Expression {
        let column = &self.columns[index];
        Expression::Column { index, name: Arc::from(column.name.as_str()), kind: column.kind }
    }

    /// Binds an expression that must be boolean.
    pub fn predicate(&self, expression: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.expression(expression)?;
        expect_boolean(&bound, expression.span, "a condition")?;
        Ok(bound)
    }

    /// Binds an expression. Parameters and aggregates were refused before.
    pub fn expression(&self, expression: &ast::Expression) -> Result<Expression, BindError> {
        let span = expression.span;
        match &expression.value {
            ExpressionKind::Null => Ok(Expression::Literal(Value::Null)),
            ExpressionKind::Boolean(truth) => Ok(Expression::Literal(Value::Boolean(*truth))),
            ExpressionKind::Integer(integer) => Ok(Expression::Literal(Value::Integer(*integer))),
            ExpressionKind::Real(real) => Ok(Expression::Literal(Value::Real(*real))),
            ExpressionKind::Text(text) => Ok(Expression::Literal(Value::text(text.as_str()))),
            ExpressionKind::Parameter(_) => Err(BindError::TypeMismatch {
                what: "a parameter has no value here".to_owned(),
                span,
            }),
            ExpressionKind::Column { qualifier, name } => {
                Ok(self.read(self.column(qualifier.as_deref(), name, span)?))
            }
            ExpressionKind::Not(operand) => self.not(operand),
            ExpressionKind::And(operands) => Ok(Expression::And(self.booleans(operands, "AND")?)),
            ExpressionKind::Or(operands) => Ok(Expression::Or(self.booleans(operands, "OR")?)),
            ExpressionKind::Comparison { operator, left, right } => {
                self.comparison(*operator, left, right, operator.symbol(), span)
            }
            ExpressionKind::Like { value, pattern, negated } => {
                Ok(negate_if(*negated, self.like(value, pattern)?))
            }
            ExpressionKind::InList { value, list, negated } => {
                Ok(negate_if(*negated, self.in_list(value, list)?))
            }
            ExpressionKind::Between { value, low, high, negated } => {
                Ok(negate_if(*negated, self.between(value, low, high)?))
            }
            ExpressionKind::IsNull { value, negated } => {
                let bound = Box::new(self.expression(value)?);
                Ok(negate_if(*negated, Expression::IsNull(bound)))
            }
            ExpressionKind::Arithmetic { first, rest } => self.arithmetic(first, rest),
            ExpressionKind::Negate(operand) => {
                Ok(Expression::Negate(Box::new(self.number(operand)?)))
            }
            ExpressionKind::Function { name, arguments, .. } => {
                self.function(name, arguments.as_deref().unwrap_or_default(), span)
            }
        }
    }

    fn not(&self, operand: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.expression(operand)?;
        expect_boolean(&bound, operand.span, "NOT")?;
        Ok(Expression::Not(Box::new(bound)))
    }

    fn comparison(
        &self,
        operator: ComparisonOperator,
        left: &ast::Expression,
        right: &ast::Expression,
        word: &str,
        span: Span,
    ) -> Result<Expression, BindError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        comparable(&left, &right, word, span)?;
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(Expression::Comparison { operator, left, right })
    }

    fn like(
        &self,
        value: &ast::Expression,
        pattern: &ast::Expression,
    ) -> Result<Expression, BindError> {
        let (bound_value, bound_pattern) = (self.expression(value)?, self.expression(pattern)?);
        expect(&bound_value, ColumnType::Text, value.span, "LIKE")?;
        expect(&bound_pattern, ColumnType::Text, pattern.span, "LIKE")?;
        let (value, pattern) = (Box::new(bound_value), Box::new(bound_pattern));
        Ok(Expression::Like { value, pattern })
    }

    fn in_list(
        &self,
        value: &ast::Expression,
        candidates: &[ast::Expression],
    ) -> Result<Expression, BindError> {
        let value = self.expression(value)?;
        let mut list = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let bound = self.expression(candidate)?;
            comparable(&value, &bound, "IN", candidate.span)?;
            list.push(bound);
        }
        Ok(Expression::InList { value: Box::new(value), list })
    }

    fn between(
        &self,
        value: &ast::Expression,
        low: &ast::Expression,
        high: &ast::Expression,
    ) -> Result<Expression, BindError> {
        let at_least = ComparisonOperator::GreaterOrEqual;
        let at_most = ComparisonOperator::LessOrEqual;
        Ok(Expression::And(vec![
            self.comparison(at_least, value, low, "BETWEEN", low.span)?,
            self.comparison(at_most, value, high, "BETWEEN", high.span)?,
        ]))
    }

    fn arithmetic(
        &self,
        first: &ast::Expression,
        operands: &[(ArithmeticOperator, ast::Expression)],
    ) -> Result<Expression, BindError> {
        let first = Box::new(self.number(first)?);
        let mut rest = Vec::with_capacity(operands.len());
        for (operator, operand) in operands {
            rest.push((*operator, self.number(operand)?));
        }
        Ok(Expression::Arithmetic { first, rest })
    }

    fn booleans(
        &self,
        operands: &[ast::Expression],
        word: &str,
    ) -> Result<Vec<Expression>, BindError> {
        let mut bound = Vec::with_capacity(operands.len());
        for operand in operands {
            let expression = self.expression(operand)?;
            expect_boolean(&expression, operand.span, word)?;
            bound.push(expression);
        }
        Ok(bound)
    }

    fn number(&self, operand: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.expression(operand)?;
        match bound.kind() {
            Some(kind) if !kind.is_number() => {
                let what = format!("arithmetic takes numbers, found {kind}");
                Err(BindError::TypeMismatch { what, span: operand.span })
            }
            _ => Ok(bound),
        }
    }

    fn function(
        &self,
        name: &str,
        arguments: &[ast::Expression],
        span: Span,
    ) -> Result<Expression, BindError> {
        let known = Function::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name));
        let Some(function) = known else {
            let nearest = nearest(name, Function::ALL.iter().map(|known| known.name()));
            return Err(BindError::UnknownFunction { name: name.to_owned(), nearest, span });
        };
        let (name, expected, found) = (function.name(), function.arity(), arguments.len());
        if expected != found {
            return Err(BindError::ArgumentCount { name, expected, found, span });
        }
        let mut bound = Vec::with_capacity(found);
        for argument in arguments {
            let expression = self.expression(argument)?;
            match function {
                Function::Length | Function::Lower | Function::Upper => {
                    expect(&expression, ColumnType::Text, argument.span, name)?;
                }
                Function::Abs | Function::Round => {
                    if expression.kind().is_some_and(|kind| !kind.is_number()) {
                        expect(&expression, ColumnType::Real, argument.span, name)?;
                    }
                }
                Function::Coalesce => {}
            }
            bound.push(expression);
        }
        if let (Function::Coalesce, [first, second]) = (function, bound.as_slice())
            && let (Some(a), Some(b)) = (first.kind(), second.kind())
            && a != b
        {
            let what = format!("coalesce takes two values of one type, found {a} and {b}");
            return Err(BindError::TypeMismatch { what, span });
        }
        Ok(Expression::Function { function, arguments: bound })
    }
}

fn negate_if(negated: bool, expression: Expression) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

fn expect_boolean(bound: &Expression, span: Span, word: &str) -> Result<(), BindError> {
    expect(bound, ColumnType::Boolean, span, word)
}

fn expect(bound: &Expression, wanted: ColumnType, span: Span, word: &str) -> Result<(), BindError> {
    match bound.kind() {
        Some(found) if found != wanted => {
            let what = format!("{word} takes {wanted}, found {found}");
            Err(BindError::TypeMismatch { what, span })
        }
        _ => Ok(()),
    }
}

/// Whether values of two expressions can be compared at all.
fn comparable(
    left: &Expression,
    right: &Expression,
    word: &str,
    span: Span,
) -> Result<(), BindError> {
    match (left.kind(), right.kind()) {
        (None, _) | (_, None) => Ok(()),
        (Some(a), Some(b)) if a == b && a != ColumnType::List => Ok(()),
        (Some(a), Some(b)) if a.is_number() && b.is_number() => Ok(()),
        (Some(a), Some(b)) => {
            let what = format!("{word} cannot compare {a} with {b}");
            Err(BindError::TypeMismatch { what, span })
        }
    }
}
