//! Expressions, from the loosest binding to the tightest: OR, AND, NOT, one predicate (comparison,
//! LIKE, IN, BETWEEN, IS NULL; they do not chain), `+ -`, `* /`, sign, operand.
//!
//! Written as plain functions, one a level, so that a nesting bomb meets small frames.

use nom::Parser;
use nom::multi::separated_list1;

use super::cursor::{
    Cursor, Expected, Parsed, Thing, fatal, keyword, nested, parameter, real, string, symbol,
};
use crate::syntax::ast::{ArithmeticOperator, ComparisonOperator, Expression, ExpressionKind};
use crate::syntax::error::{OUT_OF_RANGE, SyntaxError};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::{LexemeKind, Symbol};
use crate::syntax::span::Spanned;

/// A whole expression.
pub(super) fn expression(input: Cursor<'_>) -> Parsed<'_, Expression> {
    let (rest, operands) = chain(input, Keyword::Or, conjunction)?;
    Ok((rest, joined(input, rest, operands, ExpressionKind::Or)))
}

/// Expressions with commas between them.
pub(super) fn expressions(input: Cursor<'_>) -> Parsed<'_, Vec<Expression>> {
    separated_list1(symbol(Symbol::Comma), expression).parse(input)
}

fn conjunction(input: Cursor<'_>) -> Parsed<'_, Expression> {
    let (rest, operands) = chain(input, Keyword::And, negation)?;
    Ok((rest, joined(input, rest, operands, ExpressionKind::And)))
}

/// One or more operands with a word between them.
fn chain<'s>(
    input: Cursor<'s>,
    word: Keyword,
    operand: fn(Cursor<'s>) -> Parsed<'s, Expression>,
) -> Parsed<'s, (Expression, Vec<Expression>)> {
    let (mut rest, first) = operand(input)?;
    let mut others = Vec::new();
    while let Ok((after, _)) = keyword(word)(rest) {
        let (next, operand) = operand(after)?;
        others.push(operand);
        rest = next;
    }
    Ok((rest, (first, others)))
}

fn joined<'s>(
    input: Cursor<'s>,
    rest: Cursor<'s>,
    (first, mut others): (Expression, Vec<Expression>),
    join: fn(Vec<Expression>) -> ExpressionKind,
) -> Expression {
    if others.is_empty() {
        return first;
    }
    others.insert(0, first);
    Spanned::new(join(others), input.span_until(rest))
}

fn negation(input: Cursor<'_>) -> Parsed<'_, Expression> {
    if input.keyword_at(0) != Some(Keyword::Not) {
        return predicate(input);
    }
    let (rest, operand) = nested(input.after(1), negation)?;
    let span = input.span_until(rest);
    Ok((rest, Spanned::new(ExpressionKind::Not(Box::new(operand)), span)))
}

fn predicate(input: Cursor<'_>) -> Parsed<'_, Expression> {
    let (rest, left) = sum(input)?;
    if let Some(operator) = comparison_operator(rest) {
        let (rest, right) = sum(rest.after(1))?;
        let (left, right) = (Box::new(left), Box::new(right));
        let kind = ExpressionKind::Comparison { operator, left, right };
        return Ok((rest, Spanned::new(kind, input.span_until(rest))));
    }
    let negated = rest.keyword_at(0) == Some(Keyword::Not)
        && matches!(rest.second_keyword(), Some(Keyword::Like | Keyword::In | Keyword::Between));
    let word = rest.after(usize::from(negated));
    match word.keyword_at(0) {
        Some(Keyword::Like) => {
            let (rest, pattern) = sum(word.after(1))?;
            let (value, pattern) = (Box::new(left), Box::new(pattern));
            let kind = ExpressionKind::Like { value, pattern, negated };
            Ok((rest, Spanned::new(kind, input.span_until(rest))))
        }
        Some(Keyword::In) => {
            let (rest, _) = symbol(Symbol::Open)(word.after(1))?;
            let (rest, list) = nested(rest, expressions)?;
            let (rest, _) = symbol(Symbol::Close)(rest)?;
            let kind = ExpressionKind::InList { value: Box::new(left), list, negated };
            Ok((rest, Spanned::new(kind, input.span_until(rest))))
        }
        Some(Keyword::Between) => {
            let (rest, low) = sum(word.after(1))?;
            let (rest, _) = keyword(Keyword::And)(rest)?;
            let (rest, high) = sum(rest)?;
            let (value, low, high) = (Box::new(left), Box::new(low), Box::new(high));
            let kind = ExpressionKind::Between { value, low, high, negated };
            Ok((rest, Spanned::new(kind, input.span_until(rest))))
        }
        Some(Keyword::Is) => {
            let negated = word.second_keyword() == Some(Keyword::Not);
            let (rest, _) = keyword(Keyword::Null)(word.after(1 + usize::from(negated)))?;
            let kind = ExpressionKind::IsNull { value: Box::new(left), negated };
            Ok((rest, Spanned::new(kind, input.span_until(rest))))
        }
        _ => Ok((rest, left)),
    }
}

fn comparison_operator(input: Cursor<'_>) -> Option<ComparisonOperator> {
    Some(match input.symbol_at(0)? {
        Symbol::Equal => ComparisonOperator::Equal,
        Symbol::NotEqual => ComparisonOperator::NotEqual,
        Symbol::Less => ComparisonOperator::Less,
        Symbol::LessOrEqual => ComparisonOperator::LessOrEqual,
        Symbol::Greater => ComparisonOperator::Greater,
        Symbol::GreaterOrEqual => ComparisonOperator::GreaterOrEqual,
        _ => return None,
    })
}

fn sum(input: Cursor<'_>) -> Parsed<'_, Expression> {
    arithmetic(input, true, product)
}

fn product(input: Cursor<'_>) -> Parsed<'_, Expression> {
    arithmetic(input, false, signed)
}

fn arithmetic<'s>(
    input: Cursor<'s>,
    additive: bool,
    operand: fn(Cursor<'s>) -> Parsed<'s, Expression>,
) -> Parsed<'s, Expression> {
    let (mut rest, first) = operand(input)?;
    let mut others = Vec::new();
    while let Some(operator) = arithmetic_operator(rest, additive) {
        let (next, operand) = operand(rest.after(1))?;
        others.push((operator, operand));
        rest = next;
    }
    if others.is_empty() {
        return Ok((rest, first));
    }
    let kind = ExpressionKind::Arithmetic { first: Box::new(first), rest: others };
    Ok((rest, Spanned::new(kind, input.span_until(rest))))
}

fn arithmetic_operator(input: Cursor<'_>, additive: bool) -> Option<ArithmeticOperator> {
    let operator = match input.symbol_at(0)? {
        Symbol::Plus => ArithmeticOperator::Add,
        Symbol::Minus => ArithmeticOperator::Subtract,
        Symbol::Star => ArithmeticOperator::Multiply,
        Symbol::Slash => ArithmeticOperator::Divide,
        _ => return None,
    };
    (operator.is_additive() == additive).then_some(operator)
}

/// A minus sign before digits is part of the number; before anything else it changes the sign.
fn signed(input: Cursor<'_>) -> Parsed<'_, Expression> {
    match input.symbol_at(0) {
        Some(Symbol::Minus) => {
            let rest = input.after(1);
            if let Some(LexemeKind::Integer | LexemeKind::Real) = rest.first().map(|one| one.kind) {
                return numeral(input, rest, true);
            }
            let (rest, operand) = nested(rest, signed)?;
            let span = input.span_until(rest);
            Ok((rest, Spanned::new(ExpressionKind::Negate(Box::new(operand)), span)))
        }
        Some(Symbol::Plus) => nested(input.after(1), signed),
        _ => operand(input),
    }
}

fn numeral<'s>(input: Cursor<'s>, digits: Cursor<'s>, negative: bool) -> Parsed<'s, Expression> {
    let Some(lexeme) = digits.first() else {
        return digits.refuse(Expected::Thing(Thing::Number));
    };
    let rest = digits.after(1);
    let span = input.span_until(rest);
    let kind = if lexeme.kind == LexemeKind::Real {
        let value = real(&lexeme)?;
        ExpressionKind::Real(if negative { -value } else { value })
    } else {
        let value = lexeme.text.parse::<u64>().ok().and_then(|value| {
            if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
        });
        let Some(value) = value else {
            let message = "the whole number does not fit in 64 bits";
            return fatal(
                SyntaxError::new(OUT_OF_RANGE, message, span)
                    .with_hint("write it with a fraction or an exponent"),
            );
        };
        ExpressionKind::Integer(value)
    };
    Ok((rest, Spanned::new(kind, span)))
}

fn operand(input: Cursor<'_>) -> Parsed<'_, Expression> {
    let Some(lexeme) = input.first() else {
        return input.refuse(Expected::Thing(Thing::Expression));
    };
    match lexeme.kind {
        LexemeKind::Integer | LexemeKind::Real => numeral(input, input, false),
        LexemeKind::String { .. } => {
            let (rest, text) = string(input)?;
            Ok((rest, Spanned::new(ExpressionKind::Text(text.value), text.span)))
        }
        LexemeKind::Parameter => {
            let (rest, found) = parameter(input)?;
            Ok((rest, Spanned::new(ExpressionKind::Parameter(found.value), found.span)))
        }
        LexemeKind::Symbol(Symbol::Open) => {
            let (rest, inner) = nested(input.after(1), expression)?;
            let (rest, _) = symbol(Symbol::Close)(rest)?;
            Ok((rest, inner))
        }
        LexemeKind::Keyword(Keyword::Null) => literal(input, ExpressionKind::Null),
        LexemeKind::Keyword(Keyword::True) => literal(input, ExpressionKind::Boolean(true)),
        LexemeKind::Keyword(Keyword::False) => literal(input, ExpressionKind::Boolean(false)),
        LexemeKind::Word | LexemeKind::Keyword(_) => column_or_function(input, lexeme.text),
        _ => input.refuse(Expected::Thing(Thing::Expression)),
    }
}

fn literal(input: Cursor<'_>, kind: ExpressionKind) -> Parsed<'_, Expression> {
    Ok((input.after(1), Spanned::new(kind, input.span())))
}

fn column_or_function<'s>(input: Cursor<'s>, word: &str) -> Parsed<'s, Expression> {
    match input.symbol_at(1) {
        Some(Symbol::Open) => call(input, word),
        Some(Symbol::Dot) => {
            let (rest, name) = super::cursor::name(input.after(2))?;
            let qualifier = Some(word.to_owned());
            let kind = ExpressionKind::Column { qualifier, name: name.value };
            Ok((rest, Spanned::new(kind, input.span_until(rest))))
        }
        _ => {
            let kind = ExpressionKind::Column { qualifier: None, name: word.to_owned() };
            Ok((input.after(1), Spanned::new(kind, input.span())))
        }
    }
}

fn call<'s>(input: Cursor<'s>, word: &str) -> Parsed<'s, Expression> {
    let inside = input.after(2);
    let name = word.to_owned();
    let (rest, (distinct, arguments)) = if inside.symbol_at(0) == Some(Symbol::Star) {
        (inside.after(1), (false, None))
    } else if inside.symbol_at(0) == Some(Symbol::Close) {
        (inside, (false, Some(Vec::new())))
    } else {
        // `distinct` may also be a column: it is one where an operand cannot follow it.
        let distinct = inside.keyword_at(0) == Some(Keyword::Distinct)
            && !matches!(
                inside.after(1).first().map(|lexeme| lexeme.kind),
                Some(LexemeKind::Symbol(symbol)) if !matches!(symbol, Symbol::Open | Symbol::Minus)
            );
        let (rest, arguments) = nested(inside.after(usize::from(distinct)), expressions)?;
        (rest, (distinct, Some(arguments)))
    };
    let (rest, _) = symbol(Symbol::Close)(rest)?;
    let kind = ExpressionKind::Function { name, distinct, arguments };
    Ok((rest, Spanned::new(kind, input.span_until(rest))))
}
