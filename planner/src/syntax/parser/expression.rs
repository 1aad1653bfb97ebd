//! Expressions, by climbing the precedence of operators: OR, AND, NOT, one predicate (comparison,
//! LIKE, IN, BETWEEN, IS NULL; they do not chain), `+ -`, `* /`, sign, operand.
//!
//! A nesting bomb meets few frames a level and small ones: results are boxed, and what does not
//! recurse stands in functions of its own. The height of the tree is bounded too, because printing,
//! binding and dropping it recurse.

use nom::Parser;
use nom::multi::separated_list1;

use super::cursor::{
    Cursor, Expected, NESTING_MAX, Parsed, Thing, fatal, keyword, name, nested, one_of, parameter,
    real, string, symbol, too_deep,
};
use crate::syntax::ast::{ArithmeticOperator, ComparisonOperator, Expression, ExpressionKind};
use crate::syntax::error::{OUT_OF_RANGE, SyntaxError};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::{LexemeKind, Symbol};
use crate::syntax::span::Spanned;

/// A whole expression.
pub(super) fn expression(input: Cursor<'_>) -> Parsed<'_, Expression> {
    let (rest, tree) = climb(input, Binding::Or)?;
    Ok((rest, *tree.root))
}

/// Expressions with commas between them.
pub(super) fn expressions(input: Cursor<'_>) -> Parsed<'_, Vec<Expression>> {
    separated_list1(symbol(Symbol::Comma), expression).parse(input)
}

/// An expression and the number of nodes on its longest branch.
struct Tree {
    root: Box<Expression>,
    height: u16,
}

/// How tightly an operator binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
    Predicate,
    Sum,
    Product,
    Operand,
}

impl Binding {
    fn tighter(self) -> Self {
        match self {
            Self::Or => Self::And,
            Self::And => Self::Not,
            Self::Not => Self::Predicate,
            Self::Predicate => Self::Sum,
            Self::Sum => Self::Product,
            Self::Product | Self::Operand => Self::Operand,
        }
    }
}

/// Makes a node over operands of at most this height.
fn node<'s>(
    input: Cursor<'s>,
    rest: Cursor<'s>,
    kind: ExpressionKind,
    operands_height: u16,
) -> Parsed<'s, Tree> {
    let height = operands_height + 1;
    if height > NESTING_MAX {
        return too_deep(input);
    }
    let root = Box::new(Spanned::new(kind, input.span_until(rest)));
    Ok((rest, Tree { root, height }))
}

/// An expression whose operators bind at least as tightly as `loosest`.
fn climb<'s>(input: Cursor<'s>, loosest: Binding) -> Parsed<'s, Tree> {
    let (mut rest, mut tree) = first_operand(input, loosest)?;
    // What has been joined is an operand of looser operators only; a predicate of none but logic.
    let mut tightest = Binding::Product;
    while let Some(binding) = next_operator(rest) {
        if binding < loosest || binding > tightest {
            break;
        }
        (rest, tree) = match binding {
            Binding::Predicate => predicate(input, rest, tree)?,
            _ => chain(input, rest, tree, binding)?,
        };
        tightest = match binding {
            Binding::Predicate => Binding::And,
            other => other,
        };
    }
    if let Some(LexemeKind::Word) = rest.first().map(|lexeme| lexeme.kind) {
        // Leaves a note, for the message and the hint.
        let _ = one_of([(Keyword::And, ()), (Keyword::Or, ())])(rest);
    }
    Ok((rest, tree))
}

fn first_operand<'s>(input: Cursor<'s>, loosest: Binding) -> Parsed<'s, Tree> {
    if input.keyword_at(0) == Some(Keyword::Not) && loosest <= Binding::Not {
        let (rest, operand) = nested(input.after(1), |input| climb(input, Binding::Not))?;
        return node(input, rest, ExpressionKind::Not(operand.root), operand.height);
    }
    signed(input)
}

/// How tightly the operator binds that comes next, if one does.
fn next_operator(input: Cursor<'_>) -> Option<Binding> {
    match input.first()?.kind {
        LexemeKind::Symbol(symbol) => match symbol {
            Symbol::Plus | Symbol::Minus => Some(Binding::Sum),
            Symbol::Star | Symbol::Slash => Some(Binding::Product),
            _ => comparison_operator(input).map(|_| Binding::Predicate),
        },
        LexemeKind::Keyword(word) => match word {
            Keyword::Or => Some(Binding::Or),
            Keyword::And => Some(Binding::And),
            Keyword::Like | Keyword::In | Keyword::Between | Keyword::Is => {
                Some(Binding::Predicate)
            }
            Keyword::Not => matches!(
                input.second_keyword(),
                Some(Keyword::Like | Keyword::In | Keyword::Between)
            )
            .then_some(Binding::Predicate),
            _ => None,
        },
        _ => None,
    }
}

/// `first op a op b …` for operators of one binding; flat.
fn chain<'s>(
    input: Cursor<'s>,
    mut rest: Cursor<'s>,
    first: Tree,
    binding: Binding,
) -> Parsed<'s, Tree> {
    let mut height = first.height;
    let mut others = Vec::new();
    while next_operator(rest) == Some(binding) {
        let operator = rest;
        let (after, operand) = climb(rest.after(1), binding.tighter())?;
        height = height.max(operand.height);
        others.push((operator, *operand.root));
        rest = after;
    }
    let logic = |first: Tree, others: Vec<(Cursor<'s>, Expression)>| {
        let others = others.into_iter().map(|(_, operand)| operand);
        std::iter::once(*first.root).chain(others).collect()
    };
    let kind = match binding {
        Binding::Or => ExpressionKind::Or(logic(first, others)),
        Binding::And => ExpressionKind::And(logic(first, others)),
        _ => {
            let others = others
                .into_iter()
                .filter_map(|(at, operand)| Some((arithmetic_operator(at)?, operand)))
                .collect();
            ExpressionKind::Arithmetic { first: first.root, rest: others }
        }
    };
    node(input, rest, kind, height)
}

/// `left` is followed by a comparison, LIKE, IN, BETWEEN or IS.
fn predicate<'s>(input: Cursor<'s>, rest: Cursor<'s>, left: Tree) -> Parsed<'s, Tree> {
    if let Some(operator) = comparison_operator(rest) {
        let (rest, right) = climb(rest.after(1), Binding::Sum)?;
        let height = left.height.max(right.height);
        let kind = ExpressionKind::Comparison { operator, left: left.root, right: right.root };
        return node(input, rest, kind, height);
    }
    let negated = rest.keyword_at(0) == Some(Keyword::Not);
    let word = rest.after(usize::from(negated));
    match word.keyword_at(0) {
        Some(Keyword::Like) => {
            let (rest, pattern) = climb(word.after(1), Binding::Sum)?;
            let height = left.height.max(pattern.height);
            let kind = ExpressionKind::Like { value: left.root, pattern: pattern.root, negated };
            node(input, rest, kind, height)
        }
        Some(Keyword::In) => in_list(input, word.after(1), left, negated),
        Some(Keyword::Between) => between(input, word.after(1), left, negated),
        _ => {
            let negated = word.second_keyword() == Some(Keyword::Not);
            let (rest, _) = keyword(Keyword::Null)(word.after(1 + usize::from(negated)))?;
            let kind = ExpressionKind::IsNull { value: left.root, negated };
            node(input, rest, kind, left.height)
        }
    }
}

fn in_list<'s>(input: Cursor<'s>, rest: Cursor<'s>, left: Tree, negated: bool) -> Parsed<'s, Tree> {
    let (rest, _) = symbol(Symbol::Open)(rest)?;
    let (rest, (list, height)) = nested(rest, list)?;
    let kind = ExpressionKind::InList { value: left.root, list, negated };
    node(input, rest, kind, left.height.max(height))
}

/// `a, b, …)` with the height of the highest.
fn list(mut input: Cursor<'_>) -> Parsed<'_, (Vec<Expression>, u16)> {
    let mut operands = Vec::new();
    let mut height = 0;
    loop {
        let (rest, operand) = climb(input, Binding::Or)?;
        height = height.max(operand.height);
        operands.push(*operand.root);
        match symbol(Symbol::Comma)(rest) {
            Ok((rest, _)) => input = rest,
            Err(_) => {
                let (rest, _) = symbol(Symbol::Close)(rest)?;
                return Ok((rest, (operands, height)));
            }
        }
    }
}

fn between<'s>(input: Cursor<'s>, rest: Cursor<'s>, left: Tree, negated: bool) -> Parsed<'s, Tree> {
    let (rest, low) = climb(rest, Binding::Sum)?;
    let (rest, _) = keyword(Keyword::And)(rest)?;
    let (rest, high) = climb(rest, Binding::Sum)?;
    let height = left.height.max(low.height).max(high.height);
    let (value, low, high) = (left.root, low.root, high.root);
    node(input, rest, ExpressionKind::Between { value, low, high, negated }, height)
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

fn arithmetic_operator(input: Cursor<'_>) -> Option<ArithmeticOperator> {
    Some(match input.symbol_at(0)? {
        Symbol::Plus => ArithmeticOperator::Add,
        Symbol::Minus => ArithmeticOperator::Subtract,
        Symbol::Star => ArithmeticOperator::Multiply,
        Symbol::Slash => ArithmeticOperator::Divide,
        _ => return None,
    })
}

/// A minus sign before digits is part of the number; before anything else it changes the sign.
fn signed(input: Cursor<'_>) -> Parsed<'_, Tree> {
    match input.symbol_at(0) {
        Some(Symbol::Minus) if is_numeral(input.after(1)) => numeral(input, input.after(1), true),
        Some(Symbol::Minus) => {
            let (rest, operand) = nested(input.after(1), signed)?;
            node(input, rest, ExpressionKind::Negate(operand.root), operand.height)
        }
        Some(Symbol::Plus) => nested(input.after(1), signed),
        Some(Symbol::Open) => {
            let (rest, inner) = nested(input.after(1), |input| climb(input, Binding::Or))?;
            let (rest, _) = symbol(Symbol::Close)(rest)?;
            Ok((rest, inner))
        }
        _ if input.symbol_at(1) == Some(Symbol::Open) && is_word(input) => call(input),
        _ => leaf(input),
    }
}

fn is_numeral(input: Cursor<'_>) -> bool {
    matches!(input.first().map(|lexeme| lexeme.kind), Some(LexemeKind::Integer | LexemeKind::Real))
}

/// Whether a name comes next: any word but those that keep their meaning inside expressions.
fn is_word(input: Cursor<'_>) -> bool {
    match input.first().map(|lexeme| lexeme.kind) {
        Some(LexemeKind::Word) => true,
        Some(LexemeKind::Keyword(word)) => {
            !matches!(word, Keyword::Not | Keyword::Null | Keyword::True | Keyword::False)
        }
        _ => false,
    }
}

fn numeral<'s>(input: Cursor<'s>, digits: Cursor<'s>, negative: bool) -> Parsed<'s, Tree> {
    let Some(lexeme) = digits.first() else {
        return digits.refuse(Expected::Thing(Thing::Number));
    };
    let rest = digits.after(1);
    if lexeme.kind == LexemeKind::Real {
        let value = real(&lexeme)?;
        let value = if negative { -value } else { value };
        return node(input, rest, ExpressionKind::Real(value), 0);
    }
    let value = lexeme.text.parse::<u64>().ok().and_then(|value| {
        if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
    });
    match value {
        Some(value) => node(input, rest, ExpressionKind::Integer(value), 0),
        None => {
            let message = "the whole number does not fit in 64 bits";
            let error = SyntaxError::new(OUT_OF_RANGE, message, input.span_until(rest));
            fatal(error.with_hint("write it with a fraction or an exponent"))
        }
    }
}

/// A literal, a parameter or a column.
fn leaf(input: Cursor<'_>) -> Parsed<'_, Tree> {
    let Some(lexeme) = input.first() else {
        return input.refuse(Expected::Thing(Thing::Expression));
    };
    let mut rest = input.after(1);
    let kind = match lexeme.kind {
        LexemeKind::Integer | LexemeKind::Real => return numeral(input, input, false),
        LexemeKind::String { .. } => {
            let (_, text) = string(input)?;
            ExpressionKind::Text(text.value)
        }
        LexemeKind::Parameter => {
            let (_, found) = parameter(input)?;
            ExpressionKind::Parameter(found.value)
        }
        LexemeKind::Keyword(Keyword::Null) => ExpressionKind::Null,
        LexemeKind::Keyword(Keyword::True) => ExpressionKind::Boolean(true),
        LexemeKind::Keyword(Keyword::False) => ExpressionKind::Boolean(false),
        _ if is_word(input) => {
            let mut column = lexeme.text.to_owned();
            let mut qualifier = None;
            if let Ok((after, _)) = symbol(Symbol::Dot)(rest) {
                let (after, found) = name(after)?;
                qualifier = Some(std::mem::replace(&mut column, found.value));
                rest = after;
            }
            ExpressionKind::Column { qualifier, name: column }
        }
        _ => return input.refuse(Expected::Thing(Thing::Expression)),
    };
    node(input, rest, kind, 0)
}

/// `name(…)`.
fn call(input: Cursor<'_>) -> Parsed<'_, Tree> {
    let (_, name) = name(input)?;
    let (name, inside) = (name.value, input.after(2));
    if inside.symbol_at(0) == Some(Symbol::Star) {
        let (rest, _) = symbol(Symbol::Close)(inside.after(1))?;
        let kind = ExpressionKind::Function { name, distinct: false, arguments: None };
        return node(input, rest, kind, 0);
    }
    if let Ok((rest, _)) = symbol(Symbol::Close)(inside) {
        let arguments = Some(Vec::new());
        let kind = ExpressionKind::Function { name, distinct: false, arguments };
        return node(input, rest, kind, 0);
    }
    // `distinct` may also be a column: it is one where an operand cannot follow it.
    let follows = inside.after(1).first().map(|lexeme| lexeme.kind);
    let distinct = inside.keyword_at(0) == Some(Keyword::Distinct)
        && !matches!(
            follows,
            Some(LexemeKind::Symbol(symbol)) if !matches!(symbol, Symbol::Open | Symbol::Minus)
        );
    let (rest, (arguments, height)) = nested(inside.after(usize::from(distinct)), list)?;
    let kind = ExpressionKind::Function { name, distinct, arguments: Some(arguments) };
    node(input, rest, kind, height)
}
