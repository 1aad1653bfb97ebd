//! Expressions bound over a scope, with their types checked.

use super::BindError;
use super::aggregate::AggregateFunction;
use super::expression::{ArithmeticOperator, ComparisonOperator, Expression, Function};
use super::grouping::Groups;
use super::scope::Scope;
use crate::nearest_name::nearest;
use crate::syntax::Span;
use crate::syntax::ast::{self, ExpressionKind};
use crate::value::{ColumnType, Value};

/// Binds expressions: over the columns of a scope, or over the groups that its rows fall into.
#[derive(Clone, Copy)]
pub(super) struct Binder<'a> {
    scope: &'a Scope,
    groups: Option<&'a Groups<'a>>,
}

impl<'a> Binder<'a> {
    /// Over rows.
    pub fn over(scope: &'a Scope) -> Self {
        Self { scope, groups: None }
    }

    /// Over groups: columns are keys, and aggregates are allowed.
    pub fn over_groups(groups: &'a Groups<'a>) -> Self {
        Self { scope: groups.input(), groups: Some(groups) }
    }

    /// Binds an expression that must be boolean.
    pub fn predicate(&self, expression: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.bind(expression)?;
        expect_boolean(&bound, expression.span, "a condition")?;
        Ok(bound)
    }

    /// Binds an expression.
    ///
    /// # Errors
    /// Unknown and ambiguous names, types that do not go together, aggregates where there are no
    /// groups, columns that are no key where there are, and parameters without a value.
    pub fn bind(&self, expression: &ast::Expression) -> Result<Expression, BindError> {
        if let Some(groups) = self.groups
            && let Some(found) = groups.find(expression)?
        {
            return Ok(found);
        }
        let span = expression.span;
        match &expression.value {
            ExpressionKind::Null => Ok(Expression::Literal(Value::Null)),
            ExpressionKind::Boolean(truth) => Ok(Expression::Literal(Value::Boolean(*truth))),
            ExpressionKind::Integer(integer) => Ok(Expression::Literal(Value::Integer(*integer))),
            ExpressionKind::Real(real) => Ok(Expression::Literal(Value::Real(*real))),
            ExpressionKind::Text(text) => Ok(Expression::Literal(Value::text(text.as_str()))),
            ExpressionKind::Parameter(parameter) => {
                Err(BindError::UnboundParameter { name: parameter.to_string(), span })
            }
            ExpressionKind::Column { qualifier, name } => {
                let index = self.scope.column(qualifier.as_deref(), name, span)?;
                match self.groups {
                    None => Ok(self.scope.read(index)),
                    Some(_) => Err(BindError::Ungrouped { name: name.clone(), span }),
                }
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
                let bound = Box::new(self.bind(value)?);
                Ok(negate_if(*negated, Expression::IsNull(bound)))
            }
            ExpressionKind::Arithmetic { first, rest } => self.arithmetic(first, rest),
            ExpressionKind::Negate(operand) => {
                Ok(Expression::Negate(Box::new(self.number(operand)?)))
            }
            ExpressionKind::Function { name, distinct, arguments } => {
                if AggregateFunction::named(name).is_some() {
                    return Err(BindError::MisplacedAggregate { name: name.clone(), span });
                }
                match arguments {
                    Some(arguments) if !distinct => self.function(name, arguments, span),
                    _ => Err(BindError::NoAggregate { name: name.clone(), span }),
                }
            }
        }
    }

    fn not(&self, operand: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.bind(operand)?;
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
        let (left, right) = (self.bind(left)?, self.bind(right)?);
        comparable(&left, &right, word, span)?;
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(Expression::Comparison { operator, left, right })
    }

    fn like(
        &self,
        value: &ast::Expression,
        pattern: &ast::Expression,
    ) -> Result<Expression, BindError> {
        let (bound_value, bound_pattern) = (self.bind(value)?, self.bind(pattern)?);
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
        let value = self.bind(value)?;
        let mut list = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let bound = self.bind(candidate)?;
            comparable(&value, &bound, "IN", candidate.span)?;
            list.push(bound);
        }
        Ok(Expression::in_list(value, list))
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
            let expression = self.bind(operand)?;
            expect_boolean(&expression, operand.span, word)?;
            bound.push(expression);
        }
        Ok(bound)
    }

    fn number(&self, operand: &ast::Expression) -> Result<Expression, BindError> {
        let bound = self.bind(operand)?;
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
            let expression = self.bind(argument)?;
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
            && !(a.is_number() && b.is_number())
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
