//! What every parser here is made of: a cursor over lexemes, and the parsers of one lexeme.
//!
//! A parser that does not match leaves a note of what it expected and where. When a statement fails,
//! the notes at the furthest place make the message, so that no parser has to word its own.

use std::cell::{Cell, RefCell};
use std::iter::{Copied, Enumerate};
use std::slice::Iter;

use nom::error::{ErrorKind, ParseError};
use nom::{IResult, Input, Needed, Parser};

use crate::nearest_name::nearest;
use crate::syntax::ast::{Flag, Literal, Name, Parameter, Text, TextOperand};
use crate::syntax::error::{
    INVALID_VALUE, LIMIT_EXCEEDED, OUT_OF_RANGE, SYNTAX_ERROR, SyntaxError,
};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::{Lexeme, LexemeKind, Symbol, unescape};
use crate::syntax::span::{Span, Spanned};

/// The deepest nesting of parentheses, NOT and minus signs, and of the expressions they make. A
/// statement within a statement counts [`STATEMENT_LEVELS`].
pub const NESTING_MAX: u16 = 128;

/// How many levels a statement within a statement counts.
pub const STATEMENT_LEVELS: u16 = 8;

/// The most alternatives that one message lists.
const LISTED_MAX: usize = 8;

/// What a parser expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Keyword(Keyword),
    Symbol(Symbol),
    Thing(Thing),
}

/// What is no word and no symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    End,
    Expression,
    Name,
    Number,
    Statement,
    String,
    WholeNumber,
}

impl Expected {
    fn text(self) -> String {
        match self {
            Self::Keyword(keyword) => keyword.text().to_owned(),
            Self::Symbol(symbol) => format!("`{}`", symbol.text()),
            Self::Thing(thing) => match thing {
                Thing::End => "the end of the statement",
                Thing::Expression => "an expression",
                Thing::Name => "a name",
                Thing::Number => "a number",
                Thing::Statement => "a statement",
                Thing::String => "a string",
                Thing::WholeNumber => "a whole number",
            }
            .to_owned(),
        }
    }
}

/// What was expected at the furthest place that parsing reached.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Lexemes left at that place.
    left: Cell<usize>,
    expected: RefCell<Vec<Expected>>,
}

impl Notes {
    pub(super) fn reset(&self) {
        self.left.set(usize::MAX);
        self.expected.borrow_mut().clear();
    }

    fn record(&self, left: usize, expected: Expected) {
        if left > self.left.get() {
            return;
        }
        let mut list = self.expected.borrow_mut();
        if left < self.left.get() {
            self.left.set(left);
            list.clear();
        }
        list.push(expected);
    }

    /// The error that the notes amount to. `lexemes` are those of the whole statement.
    pub(super) fn error(&self, lexemes: &[Lexeme<'_>], statements: &[Keyword]) -> SyntaxError {
        let at = lexemes.len().saturating_sub(self.left.get().max(1));
        let found = lexemes[at.min(lexemes.len() - 1)];
        let mut expected: Vec<Expected> = Vec::new();
        for one in self.expected.borrow().iter() {
            if !expected.contains(one) {
                expected.push(*one);
            }
        }
        let words = expected.iter().filter_map(|one| match one {
            Expected::Keyword(keyword) => Some(std::slice::from_ref(keyword)),
            Expected::Thing(Thing::Statement) => Some(statements),
            _ => None,
        });
        let is_word = matches!(found.kind, LexemeKind::Word | LexemeKind::Keyword(_));
        let meant = is_word
            .then(|| nearest(found.text, words.flatten().map(|word| word.text())))
            .flatten()
            .filter(|meant| !meant.eq_ignore_ascii_case(found.text));
        let listed: Vec<String> = expected.iter().take(LISTED_MAX).map(|one| one.text()).collect();
        let more = if expected.len() > LISTED_MAX { " …" } else { "" };
        let list = match listed.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) if more.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => format!("one of {}{more}", listed.join(", ")),
        };
        let message = format!("expected {list}, found {}", found.describe());
        let error = SyntaxError::new(SYNTAX_ERROR, message, found.span);
        match meant {
            Some(word) => error.with_hint(format!("did you mean {word}?")),
            None => error,
        }
    }
}

/// The rest of a statement's lexemes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'s> {
    pub(super) lexemes: &'s [Lexeme<'s>],
    depth: u16,
    notes: &'s Notes,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(lexemes: &'s [Lexeme<'s>], notes: &'s Notes) -> Self {
        Self { lexemes, depth: 0, notes }
    }

    pub(super) fn first(self) -> Option<Lexeme<'s>> {
        self.lexemes.first().copied()
    }

    pub(super) fn second_keyword(self) -> Option<Keyword> {
        self.keyword_at(1)
    }

    pub(super) fn keyword_at(self, index: usize) -> Option<Keyword> {
        match self.lexemes.get(index)?.kind {
            LexemeKind::Keyword(keyword) => Some(keyword),
            _ => None,
        }
    }

    pub(super) fn symbol_at(self, index: usize) -> Option<Symbol> {
        match self.lexemes.get(index)?.kind {
            LexemeKind::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    pub(super) fn after(self, count: usize) -> Self {
        Self { lexemes: &self.lexemes[count.min(self.lexemes.len())..], ..self }
    }

    /// Where the next lexeme stands.
    pub(super) fn span(self) -> Span {
        self.first().map_or(Span::default(), |lexeme| lexeme.span)
    }

    /// From the next lexeme to the one before `rest`.
    pub(super) fn span_until(self, rest: Self) -> Span {
        let consumed = self.lexemes.len() - rest.lexemes.len();
        let last = self.lexemes[..consumed].last().map_or(self.span(), |lexeme| lexeme.span);
        self.span().to(last)
    }

    /// Notes what was expected here.
    pub(super) fn refuse<T>(self, expected: Expected) -> Parsed<'s, T> {
        self.notes.record(self.lexemes.len(), expected);
        Err(nom::Err::Error(Refusal(None)))
    }
}

impl<'s> Input for Cursor<'s> {
    type Item = Lexeme<'s>;
    type Iter = Copied<Iter<'s, Lexeme<'s>>>;
    type IterIndices = Enumerate<Self::Iter>;

    fn input_len(&self) -> usize {
        self.lexemes.len()
    }

    fn take(&self, index: usize) -> Self {
        Self { lexemes: &self.lexemes[..index], ..*self }
    }

    fn take_from(&self, index: usize) -> Self {
        Self { lexemes: &self.lexemes[index..], ..*self }
    }

    fn take_split(&self, index: usize) -> (Self, Self) {
        (self.take_from(index), self.take(index))
    }

    fn position<P: Fn(Self::Item) -> bool>(&self, predicate: P) -> Option<usize> {
        self.lexemes.iter().position(|lexeme| predicate(*lexeme))
    }

    fn iter_elements(&self) -> Self::Iter {
        self.lexemes.iter().copied()
    }

    fn iter_indices(&self) -> Self::IterIndices {
        self.iter_elements().enumerate()
    }

    fn slice_index(&self, count: usize) -> Result<usize, Needed> {
        if count <= self.lexemes.len() { Ok(count) } else { Err(Needed::Unknown) }
    }
}

/// Why a parser did not match: nothing (then the notes say), or an error that ends parsing.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Option<Box<SyntaxError>>);

impl ParseError<Cursor<'_>> for Refusal {
    fn from_error_kind(_: Cursor<'_>, _: ErrorKind) -> Self {
        Self(None)
    }

    fn append(_: Cursor<'_>, _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// What a parser gives.
///
/// A clause stores its operand from within `map`; repeat such parsers with `many0`, which produces
/// values, and not with `many0_count`, which does not call `map` at all.
pub(super) type Parsed<'s, T> = IResult<Cursor<'s>, T, Refusal>;

/// An error that no alternative can mend.
pub(super) fn fatal<'s, T>(error: SyntaxError) -> Parsed<'s, T> {
    Err(nom::Err::Failure(Refusal(Some(Box::new(error)))))
}

/// One level deeper: parentheses, NOT, minus signs.
pub(super) fn nested<'s, T>(
    input: Cursor<'s>,
    parser: impl FnOnce(Cursor<'s>) -> Parsed<'s, T>,
) -> Parsed<'s, T> {
    deeper(input, 1, parser)
}

/// A statement within a statement, which takes the stack of [`STATEMENT_LEVELS`].
pub(super) fn nested_statement<'s, T>(
    input: Cursor<'s>,
    parser: impl FnOnce(Cursor<'s>) -> Parsed<'s, T>,
) -> Parsed<'s, T> {
    deeper(input, STATEMENT_LEVELS, parser)
}

fn deeper<'s, T>(
    input: Cursor<'s>,
    levels: u16,
    parser: impl FnOnce(Cursor<'s>) -> Parsed<'s, T>,
) -> Parsed<'s, T> {
    if input.depth + levels > NESTING_MAX {
        return too_deep(input);
    }
    let (rest, value) = parser(Cursor { depth: input.depth + levels, ..input })?;
    Ok((Cursor { depth: input.depth, ..rest }, value))
}

/// The refusal of a statement that nests too deeply here.
pub(super) fn too_deep<'s, T>(input: Cursor<'s>) -> Parsed<'s, T> {
    let message = format!("the statement nests deeper than {NESTING_MAX} levels");
    fatal(SyntaxError::new(LIMIT_EXCEEDED, message, input.span()))
}

/// This keyword.
pub(super) fn keyword<'s>(wanted: Keyword) -> impl Fn(Cursor<'s>) -> Parsed<'s, Span> {
    move |input| match input.first() {
        Some(Lexeme { kind: LexemeKind::Keyword(found), span, .. }) if found == wanted => {
            Ok((input.after(1), span))
        }
        _ => input.refuse(Expected::Keyword(wanted)),
    }
}

/// These keywords, one after another.
pub(super) fn keywords<'s, const N: usize>(
    wanted: [Keyword; N],
) -> impl Fn(Cursor<'s>) -> Parsed<'s, ()> {
    move |mut input| {
        for one in wanted {
            (input, _) = keyword(one)(input)?;
        }
        Ok((input, ()))
    }
}

/// One of these keywords, as the value beside it.
pub(super) fn one_of<'s, T: Copy, const N: usize>(
    choices: [(Keyword, T); N],
) -> impl Fn(Cursor<'s>) -> Parsed<'s, T> {
    move |input| {
        for (wanted, value) in choices {
            if let Ok((rest, _)) = keyword(wanted)(input) {
                return Ok((rest, value));
            }
        }
        Err(nom::Err::Error(Refusal(None)))
    }
}

/// A clause that is written once at most: `place` takes what it gives, and a second is an error where it stands.
pub(super) fn once<'p, 's: 'p, T>(
    what: &'static str,
    place: &'p mut Option<T>,
    mut clause: impl Parser<Cursor<'s>, Output = T, Error = Refusal> + 'p,
) -> impl FnMut(Cursor<'s>) -> Parsed<'s, ()> + 'p {
    move |input| {
        let (rest, value) = clause.parse(input)?;
        if place.replace(value).is_some() {
            let message = format!("{what} is given twice");
            let error = SyntaxError::new(SYNTAX_ERROR, message, input.span_until(rest));
            return fatal(error.with_hint("leave one of them out"));
        }
        Ok((rest, ()))
    }
}

/// What a parser gives, with its place.
pub(super) fn spanned<'s, T>(
    mut parser: impl Parser<Cursor<'s>, Output = T, Error = Refusal>,
) -> impl FnMut(Cursor<'s>) -> Parsed<'s, Spanned<T>> {
    move |input| {
        let (rest, value) = parser.parse(input)?;
        Ok((rest, Spanned::new(value, input.span_until(rest))))
    }
}

/// This keyword, as a flag that knows where it stood.
pub(super) fn flag<'s>(wanted: Keyword) -> impl Fn(Cursor<'s>) -> Parsed<'s, Flag> {
    move |input| {
        let (rest, span) = keyword(wanted)(input)?;
        Ok((rest, Some(Spanned::new((), span))))
    }
}

/// This punctuation.
pub(super) fn symbol<'s>(wanted: Symbol) -> impl Fn(Cursor<'s>) -> Parsed<'s, Span> {
    move |input| match input.first() {
        Some(Lexeme { kind: LexemeKind::Symbol(found), span, .. }) if found == wanted => {
            Ok((input.after(1), span))
        }
        _ => input.refuse(Expected::Symbol(wanted)),
    }
}

/// Any word.
pub(super) fn name(input: Cursor<'_>) -> Parsed<'_, Name> {
    match input.first() {
        Some(lexeme) if matches!(lexeme.kind, LexemeKind::Word | LexemeKind::Keyword(_)) => {
            Ok((input.after(1), Spanned::new(lexeme.text.to_owned(), lexeme.span)))
        }
        _ => input.refuse(Expected::Thing(Thing::Name)),
    }
}

/// A string.
pub(super) fn string(input: Cursor<'_>) -> Parsed<'_, Literal> {
    match input.first() {
        Some(lexeme @ Lexeme { kind: LexemeKind::String { escaped }, .. }) => {
            let value = match escaped {
                false => lexeme.text.to_owned(),
                true => match unescape(&lexeme) {
                    Ok(value) => value,
                    Err(error) => return fatal(error),
                },
            };
            Ok((input.after(1), Spanned::new(value, lexeme.span)))
        }
        _ => input.refuse(Expected::Thing(Thing::String)),
    }
}

/// `$1` or `$name`.
pub(super) fn parameter(input: Cursor<'_>) -> Parsed<'_, Spanned<Parameter>> {
    match input.first() {
        Some(lexeme @ Lexeme { kind: LexemeKind::Parameter, .. }) => {
            let parameter = if lexeme.text.starts_with(|c: char| c.is_ascii_digit()) {
                match lexeme.text.parse() {
                    Ok(position) if position > 0 => Parameter::Position(position),
                    _ => {
                        let message = format!("there is no parameter `${}`", lexeme.text);
                        return fatal(
                            SyntaxError::new(INVALID_VALUE, message, lexeme.span)
                                .with_hint("parameters are $1, $2 …; columns of a pipe are $name"),
                        );
                    }
                }
            } else {
                Parameter::Column(lexeme.text.to_owned())
            };
            Ok((input.after(1), Spanned::new(parameter, lexeme.span)))
        }
        _ => Err(nom::Err::Error(Refusal(None))),
    }
}

/// A string or a parameter.
pub(super) fn text(input: Cursor<'_>) -> Parsed<'_, Text> {
    if let Some(Lexeme { kind: LexemeKind::Parameter, .. }) = input.first() {
        let (rest, found) = parameter(input)?;
        return Ok((rest, Spanned::new(TextOperand::Parameter(found.value), found.span)));
    }
    let (rest, found) = string(input)?;
    Ok((rest, Spanned::new(TextOperand::Literal(found.value), found.span)))
}

/// A whole number from `min` to `max`; anything else that is a number is an error with its place.
pub(super) fn whole_number<'s>(
    what: &'static str,
    min: u64,
    max: u64,
) -> impl Fn(Cursor<'s>) -> Parsed<'s, Spanned<u64>> {
    move |input| {
        let negative = input.symbol_at(0) == Some(Symbol::Minus);
        let digits = input.after(usize::from(negative));
        let Some(lexeme @ Lexeme { kind: LexemeKind::Integer, .. }) = digits.first() else {
            return input.refuse(Expected::Thing(Thing::WholeNumber));
        };
        let span = input.span().to(lexeme.span);
        let value = if negative { None } else { lexeme.text.parse::<u64>().ok() };
        match value {
            Some(value) if (min..=max).contains(&value) => {
                Ok((digits.after(1), Spanned::new(value, span)))
            }
            value => {
                // A value of the right kind that makes no sense here, or none that fits at all.
                let code = if value.is_some_and(|value| value < min) {
                    INVALID_VALUE
                } else {
                    OUT_OF_RANGE
                };
                let sign = if negative { "-" } else { "" };
                let message = format!(
                    "{what} {sign}{} is out of range: it must be {min} to {max}",
                    lexeme.text
                );
                fatal(SyntaxError::new(code, message, span))
            }
        }
    }
}

/// The greatest count: what a signed 64-bit column can hold.
const COUNT_MAX: u64 = i64::MAX as u64;

/// `TOP n` and its like: at least one.
pub(super) fn positive<'s>(wanted: Keyword) -> impl Fn(Cursor<'s>) -> Parsed<'s, Option<u64>> {
    move |input| {
        let (rest, _) = keyword(wanted)(input)?;
        let (rest, count) = whole_number(wanted.text(), 1, COUNT_MAX)(rest)?;
        Ok((rest, Some(count.value)))
    }
}

/// `LIMIT n` and its like: zero or more.
pub(super) fn count<'s>(wanted: Keyword) -> impl Fn(Cursor<'s>) -> Parsed<'s, Option<u64>> {
    move |input| {
        let (rest, _) = keyword(wanted)(input)?;
        let (rest, count) = whole_number(wanted.text(), 0, COUNT_MAX)(rest)?;
        Ok((rest, Some(count.value)))
    }
}

/// A layer's number.
pub(super) fn layer(input: Cursor<'_>) -> Parsed<'_, Spanned<u32>> {
    let (rest, layer) = whole_number("layer", 0, u64::from(u32::MAX))(input)?;
    // The bound above makes the value fit.
    Ok((rest, Spanned::new(layer.value as u32, layer.span)))
}

/// `a-b`.
pub(super) fn range(input: Cursor<'_>) -> Parsed<'_, Spanned<crate::syntax::ast::Range>> {
    let (rest, first) = layer(input)?;
    let (rest, _) = symbol(Symbol::Minus)(rest)?;
    let (rest, last) = layer(rest)?;
    let span = first.span.to(last.span);
    let (first, last) = (first.value, last.value);
    if first > last {
        let message =
            format!("the range {first}-{last} is empty: its first layer is above its last");
        let hint = format!("write {last}-{first}");
        return fatal(SyntaxError::new(INVALID_VALUE, message, span).with_hint(hint));
    }
    Ok((rest, Spanned::new(crate::syntax::ast::Range { first, last }, span)))
}

/// A number with or without a sign, fraction or exponent.
pub(super) fn number(input: Cursor<'_>) -> Parsed<'_, f64> {
    let sign = match input.symbol_at(0) {
        Some(Symbol::Minus) => -1.0,
        Some(Symbol::Plus) => 1.0,
        _ => 0.0,
    };
    let digits = input.after(usize::from(sign != 0.0));
    match digits.first() {
        Some(lexeme @ Lexeme { kind: LexemeKind::Integer | LexemeKind::Real, .. }) => {
            let value = real(&lexeme)?;
            Ok((digits.after(1), if sign < 0.0 { -value } else { value }))
        }
        _ => input.refuse(Expected::Thing(Thing::Number)),
    }
}

/// The value of a lexeme made of digits.
pub(super) fn real(lexeme: &Lexeme<'_>) -> Result<f64, nom::Err<Refusal>> {
    match lexeme.text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => {
            let message = "the number is too large";
            let error = SyntaxError::new(OUT_OF_RANGE, message, lexeme.span);
            Err(nom::Err::Failure(Refusal(Some(Box::new(error)))))
        }
    }
}
