//! Statements that write: edits, transactions, patches, branches, assertions, tables, indexes.

use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt, value};
use nom::multi::{many0, separated_list1};
use nom::sequence::{delimited, preceded};

use super::as_of;
use super::cursor::{
    Cursor, Parsed, fatal, keyword, keywords, layer, name, number, once, one_of, positive, range,
    spanned, string, symbol,
};
use super::expression::{expression, expressions};
use crate::syntax::ast::{
    Expression, Harm, IndexTarget, Insert, InsertMode, MergeConflict, Name, Range, Statement,
};
use crate::syntax::error::{SYNTAX_ERROR, SyntaxError};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::Symbol;
use crate::syntax::span::Spanned;

/// `(value, …)`.
pub(super) fn tuple(input: Cursor<'_>) -> Parsed<'_, Vec<Expression>> {
    delimited(symbol(Symbol::Open), expressions, symbol(Symbol::Close)).parse(input)
}

/// `WITH MAX HARM x [POINTS]` or `WITHOUT RECEIPT`.
fn harm(input: Cursor<'_>) -> Parsed<'_, Harm> {
    let max = |input| {
        let (rest, _) = keywords([Keyword::With, Keyword::Max, Keyword::Harm])(input)?;
        let (rest, budget) = number(rest)?;
        let (rest, points) = opt(keyword(Keyword::Points)).parse(rest)?;
        Ok((rest, Harm::Max { budget, points: points.is_some() }))
    };
    let without = keywords([Keyword::Without, Keyword::Receipt]);
    alt((max, value(Harm::WithoutReceipt, without))).parse(input)
}

fn optional_equals(input: Cursor<'_>) -> Parsed<'_, ()> {
    value((), opt(symbol(Symbol::Equal))).parse(input)
}

pub(super) fn insert(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = keywords([Keyword::Into, Keyword::Edges])(input)?;
    let names = separated_list1(symbol(Symbol::Comma), name);
    let (input, columns) =
        delimited(symbol(Symbol::Open), names, symbol(Symbol::Close)).parse(input)?;
    let (mut input, _) = keyword(Keyword::Values)(input)?;
    let mut rows = Vec::new();
    loop {
        let (rest, row) = tuple(input)?;
        if row.len() != columns.len() {
            let message = format!("expected {} values, found {}", columns.len(), row.len());
            return fatal(SyntaxError::new(SYNTAX_ERROR, message, input.span_until(rest)));
        }
        rows.push(row);
        input = rest;
        match symbol(Symbol::Comma)(input) {
            Ok((rest, _)) => input = rest,
            Err(_) => break,
        }
    }
    let mut insert = Insert {
        columns,
        rows,
        layers: None,
        confidence: None,
        alpha: None,
        mode: None,
        harm: None,
    };
    let at_layer = preceded(keywords([Keyword::At, Keyword::Layer]), layer);
    let at_layer = map(at_layer, |layer: Spanned<u32>| {
        Spanned::new(Range { first: layer.value, last: layer.value }, layer.span)
    });
    let at_layers = preceded(keywords([Keyword::At, Keyword::Layers]), range);
    let mode = one_of([
        (Keyword::Knn, InsertMode::Knn),
        (Keyword::Compose, InsertMode::Compose),
        (Keyword::Memit, InsertMode::Memit),
    ]);
    let mode = preceded((keyword(Keyword::Mode), optional_equals), mode);
    let number_of = |word| preceded(keyword(word), spanned(number));
    let (rest, _) = many0(alt((
        once("AT LAYERS", &mut insert.layers, alt((at_layer, at_layers))),
        once("CONFIDENCE", &mut insert.confidence, number_of(Keyword::Confidence)),
        once("ALPHA", &mut insert.alpha, number_of(Keyword::Alpha)),
        once("MODE", &mut insert.mode, mode),
        once("what harm is allowed", &mut insert.harm, harm),
    )))
    .parse(input)?;
    Ok((rest, Statement::Insert(Box::new(insert))))
}

pub(super) fn delete(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = keywords([Keyword::From, Keyword::Edges, Keyword::Where])(input)?;
    let (input, filter) = expression(input)?;
    let (rest, harm) = opt(harm).parse(input)?;
    Ok((rest, Statement::Delete { filter, harm }))
}

pub(super) fn update(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = keywords([Keyword::Edges, Keyword::Set])(input)?;
    let (input, assignments) = separated_list1(symbol(Symbol::Comma), assignment).parse(input)?;
    let (input, filter) = preceded(keyword(Keyword::Where), expression).parse(input)?;
    let (rest, harm) = opt(harm).parse(input)?;
    Ok((rest, Statement::Update { assignments, filter, harm }))
}

fn assignment(input: Cursor<'_>) -> Parsed<'_, (Name, Expression)> {
    let (rest, name) = name(input)?;
    let (rest, value) = preceded(symbol(Symbol::Equal), expression).parse(rest)?;
    Ok((rest, (name, value)))
}

pub(super) fn merge(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, source) = string(input)?;
    let (input, target) = opt(preceded(keyword(Keyword::Into), string)).parse(input)?;
    let conflict = one_of([
        (Keyword::KeepSource, MergeConflict::KeepSource),
        (Keyword::KeepTarget, MergeConflict::KeepTarget),
        (Keyword::HighestConfidence, MergeConflict::HighestConfidence),
    ]);
    let on_conflict = keywords([Keyword::On, Keyword::Conflict]);
    let (input, conflict) = opt(preceded(on_conflict, conflict)).parse(input)?;
    let (rest, harm) = opt(harm).parse(input)?;
    Ok((rest, Statement::Merge { source, target, conflict, harm }))
}

pub(super) fn rebalance(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (mut until_converged, mut rounds_max, mut floor, mut ceiling) = (false, None, None, None);
    let probability = |word| preceded((keyword(word), optional_equals), number);
    let (rest, _) = many0(alt((
        map(keywords([Keyword::Until, Keyword::Converged]), |()| until_converged = true),
        once("MAX", &mut rounds_max, positive(Keyword::Max)),
        once("FLOOR", &mut floor, probability(Keyword::Floor)),
        once("CEILING", &mut ceiling, probability(Keyword::Ceiling)),
    )))
    .parse(input)?;
    let rounds_max = rounds_max.flatten();
    Ok((rest, Statement::Rebalance { until_converged, rounds_max, floor, ceiling }))
}

pub(super) fn compact(input: Cursor<'_>) -> Parsed<'_, Statement> {
    if let Ok((rest, _)) = keyword(Keyword::Minor)(input) {
        return Ok((rest, Statement::CompactMinor));
    }
    let (input, _) = keyword(Keyword::Major)(input)?;
    let (input, full) = opt(alt((keyword(Keyword::Full), keyword(Keyword::All)))).parse(input)?;
    let with_lambda = (keywords([Keyword::With, Keyword::Lambda]), symbol(Symbol::Equal));
    let (rest, lambda) = opt(preceded(with_lambda, number)).parse(input)?;
    Ok((rest, Statement::CompactMajor { full: full.is_some(), lambda }))
}

pub(super) fn begin(input: Cursor<'_>) -> Parsed<'_, Statement> {
    if let Ok((rest, _)) = keyword(Keyword::Patch)(input) {
        return map(string, Statement::BeginPatch).parse(rest);
    }
    value(Statement::Begin, opt(keyword(Keyword::Transaction))).parse(input)
}

pub(super) fn rollback(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(opt(preceded(keyword(Keyword::To), name)), Statement::Rollback).parse(input)
}

pub(super) fn savepoint(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(name, Statement::Savepoint).parse(input)
}

pub(super) fn save_patch(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = keyword(Keyword::Patch)(input)?;
    map(opt(preceded(keyword(Keyword::As), string)), Statement::SavePatch).parse(input)
}

pub(super) fn apply_patch(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, patch) = preceded(keyword(Keyword::Patch), string).parse(input)?;
    let (input, force) = opt(keyword(Keyword::Force)).parse(input)?;
    let (rest, harm) = opt(harm).parse(input)?;
    Ok((rest, Statement::ApplyPatch { patch, force: force.is_some(), harm }))
}

pub(super) fn remove_patch(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(preceded(keyword(Keyword::Patch), string), Statement::RemovePatch).parse(input)
}

pub(super) fn create(input: Cursor<'_>) -> Parsed<'_, Statement> {
    alt((create_branch, create_assertion, create_table, create_index)).parse(input)
}

fn create_branch(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = preceded(keyword(Keyword::Branch), name).parse(input)?;
    let (input, from) = opt(preceded(keyword(Keyword::From), super::cursor::name)).parse(input)?;
    let (rest, at) = opt(as_of).parse(input)?;
    Ok((rest, Statement::CreateBranch { name, from, at }))
}

fn create_assertion(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = preceded(keyword(Keyword::Assertion), name).parse(input)?;
    let (input, _) = keywords([Keyword::As, Keyword::Infer])(input)?;
    let (input, prompt) = string(input)?;
    let (input, expected) = preceded(symbol(Symbol::Equal), string).parse(input)?;
    let at_least = preceded(keywords([Keyword::At, Keyword::Least]), number);
    let (rest, at_least) = opt(at_least).parse(input)?;
    Ok((rest, Statement::CreateAssertion { name, prompt, expected, at_least }))
}

fn create_table(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = preceded(keyword(Keyword::Table), name).parse(input)?;
    let (rest, file) = preceded(keyword(Keyword::From), string).parse(input)?;
    Ok((rest, Statement::CreateTable { name, file }))
}

fn create_index(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = preceded(keyword(Keyword::Index), name).parse(input)?;
    let target = one_of([
        (Keyword::Gates, IndexTarget::Gates),
        (Keyword::Targets, IndexTarget::Targets),
        (Keyword::Labels, IndexTarget::Labels),
    ]);
    let (input, target) = preceded(keyword(Keyword::On), target).parse(input)?;
    let (rest, method) =
        opt(preceded(keyword(Keyword::Using), super::cursor::name)).parse(input)?;
    Ok((rest, Statement::CreateIndex { name, target, method }))
}

pub(super) fn drop_statement(input: Cursor<'_>) -> Parsed<'_, Statement> {
    alt((
        map(preceded(keyword(Keyword::Branch), name), Statement::DropBranch),
        map(preceded(keyword(Keyword::Assertion), name), Statement::DropAssertion),
        map(preceded(keyword(Keyword::Table), name), Statement::DropTable),
        map(preceded(keyword(Keyword::Index), name), Statement::DropIndex),
    ))
    .parse(input)
}

pub(super) fn check(input: Cursor<'_>) -> Parsed<'_, Statement> {
    value(Statement::CheckAssertions, keyword(Keyword::Assertions)).parse(input)
}
