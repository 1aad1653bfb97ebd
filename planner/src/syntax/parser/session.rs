//! Statements about the session and what can be seen: SHOW, STATS, SET, RESET, PREPARE, KILL.

use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt, value};
use nom::multi::many0;
use nom::sequence::preceded;

use super::cursor::{
    Cursor, Parsed, count, keyword, keywords, layer, name, number, range, string, symbol,
    whole_number,
};
use super::expression::expression;
use super::mutation::tuple;
use super::pipeline;
use super::query::{at_layer, display};
use crate::syntax::ast::{Display, SettingLiteral, Show, Statement};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::{LexemeKind, Symbol};
use crate::syntax::span::Spanned;

pub(super) fn show(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let rest = input.after(1);
    let simple = |show| Ok((rest, show));
    let (rest, show) = match input.keyword_at(0) {
        Some(Keyword::Relations) => show_relations(rest),
        Some(Keyword::Layers) => show_layers(rest),
        Some(Keyword::Features) => show_features(rest),
        Some(Keyword::Entities) => show_entities(rest),
        Some(Keyword::Models) => simple(Show::Models),
        Some(Keyword::Mounts) => simple(Show::Mounts),
        Some(Keyword::Patches) => simple(Show::Patches),
        Some(Keyword::Branches) => simple(Show::Branches),
        Some(Keyword::Assertions) => simple(Show::Assertions),
        Some(Keyword::Indexes) => simple(Show::Indexes),
        Some(Keyword::Sessions) => simple(Show::Sessions),
        Some(Keyword::Compact) => value(Show::CompactStatus, keyword(Keyword::Status)).parse(rest),
        _ => {
            // Notes the words for the message and the hint, then takes any name.
            let _ = alt((
                keyword(Keyword::Relations),
                keyword(Keyword::Layers),
                keyword(Keyword::Features),
                keyword(Keyword::Entities),
                keyword(Keyword::Models),
                keyword(Keyword::Mounts),
            ))
            .parse(input);
            map(name, Show::Setting).parse(input)
        }
    }?;
    Ok((rest, Statement::Show(show)))
}

fn show_relations(input: Cursor<'_>) -> Parsed<'_, Show> {
    let (mut at, mut with_examples, mut shown) = (None, false, None);
    let (rest, _) = many0(alt((
        map(at_layer, |layer| at = Some(layer)),
        map(keywords([Keyword::With, Keyword::Examples]), |()| with_examples = true),
        map(spanned_display, |display| shown = Some(display)),
    )))
    .parse(input)?;
    Ok((rest, Show::Relations { layer: at, examples: with_examples, display: shown }))
}

fn spanned_display(input: Cursor<'_>) -> Parsed<'_, Spanned<Display>> {
    let (rest, found) = display(input)?;
    Ok((rest, Spanned::new(found, input.span())))
}

fn show_layers(input: Cursor<'_>) -> Parsed<'_, Show> {
    let (input, word) = opt(keyword(Keyword::Range)).parse(input)?;
    match word {
        Some(_) => map(range, |range| Show::Layers(Some(range))).parse(input),
        None => map(opt(range), Show::Layers).parse(input),
    }
}

fn show_features(input: Cursor<'_>) -> Parsed<'_, Show> {
    let (input, layer) = layer(input)?;
    let (input, filter) = opt(preceded(keyword(Keyword::Where), expression)).parse(input)?;
    let (rest, limit) = opt(count(Keyword::Limit)).parse(input)?;
    Ok((rest, Show::Features { layer, filter, limit: limit.flatten() }))
}

fn show_entities(input: Cursor<'_>) -> Parsed<'_, Show> {
    let (input, at) = opt(alt((at_layer, layer))).parse(input)?;
    let (rest, limit) = opt(count(Keyword::Limit)).parse(input)?;
    Ok((rest, Show::Entities { layer: at, limit: limit.flatten() }))
}

pub(super) fn stats(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(opt(string), Statement::Stats).parse(input)
}

pub(super) fn set(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = name(input)?;
    let (input, _) = symbol(Symbol::Equal)(input)?;
    let (rest, value) = setting_literal(input)?;
    let value = Spanned::new(value, input.span_until(rest));
    Ok((rest, Statement::Set { name, value }))
}

fn setting_literal(input: Cursor<'_>) -> Parsed<'_, SettingLiteral> {
    let negative = input.symbol_at(0) == Some(Symbol::Minus);
    let signed = negative || input.symbol_at(0) == Some(Symbol::Plus);
    let digits = input.after(usize::from(signed));
    let integer = digits
        .first()
        .filter(|lexeme| lexeme.kind == LexemeKind::Integer)
        .and_then(|lexeme| lexeme.text.parse::<u64>().ok())
        .and_then(|size| {
            if negative { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
        });
    if let Some(integer) = integer {
        return Ok((digits.after(1), SettingLiteral::Integer(integer)));
    }
    alt((
        map(string, |text| SettingLiteral::Word(text.value)),
        map(name, |word| SettingLiteral::Word(word.value)),
        map(number, SettingLiteral::Real),
    ))
    .parse(input)
}

pub(super) fn reset(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(name, Statement::Reset).parse(input)
}

pub(super) fn prepare(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = name(input)?;
    let (rest, statement) = preceded(keyword(Keyword::As), pipeline).parse(input)?;
    Ok((rest, Statement::Prepare { name, statement: Box::new(statement) }))
}

pub(super) fn execute(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, name) = name(input)?;
    let (rest, arguments) = opt(tuple).parse(input)?;
    Ok((rest, Statement::Execute { name, arguments: arguments.unwrap_or_default() }))
}

pub(super) fn deallocate(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(name, Statement::Deallocate).parse(input)
}

pub(super) fn kill(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let session = whole_number("session", 0, i64::MAX as u64);
    map(session, |session| Statement::Kill(session.value)).parse(input)
}
