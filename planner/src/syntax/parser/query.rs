//! Statements that read: SELECT, DESCRIBE, WALK, INFER, EXPLAIN, TRACE, GENERATE, BLAME.

use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt, value};
use nom::multi::{many0, separated_list1};
use nom::sequence::preceded;

use super::cursor::{
    Cursor, Parsed, count, flag, keyword, keywords, layer, name, nested_statement, number, one_of,
    positive, range, string, symbol, text,
};
use super::expression::{expression, expressions};
use super::{is_as_of, pipeline};
use crate::syntax::ast::{
    Band, Describe, Display, Explain, ExplainFeatures, ExplainFormat, Generate, Infer, Join,
    LayerChoice, NearestTo, OrderKey, Select, SelectItem, Source, Statement, Table, Trace, Walk,
    WalkMode,
};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::{LexemeKind, Symbol};
use crate::syntax::span::Spanned;

pub(super) fn select_statement(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (rest, select) = select(input)?;
    Ok((rest, Statement::Select(Box::new(select))))
}

/// A select after its first word.
fn select(input: Cursor<'_>) -> Parsed<'_, Select> {
    let (input, distinct) = opt(keyword(Keyword::Distinct)).parse(input)?;
    let (input, items) = separated_list1(symbol(Symbol::Comma), select_item).parse(input)?;
    let (input, from) = opt(preceded(keyword(Keyword::From), source)).parse(input)?;
    let (input, joins) = many0(join).parse(input)?;
    let (input, nearest) = opt(nearest).parse(input)?;
    let (input, filter) = opt(preceded(keyword(Keyword::Where), expression)).parse(input)?;
    let (input, group_by) =
        opt(preceded(keywords([Keyword::Group, Keyword::By]), expressions)).parse(input)?;
    let (input, having) = match group_by {
        Some(_) => opt(preceded(keyword(Keyword::Having), expression)).parse(input)?,
        None => (input, None),
    };
    let keys = separated_list1(symbol(Symbol::Comma), order_key);
    let (input, order_by) =
        opt(preceded(keywords([Keyword::Order, Keyword::By]), keys)).parse(input)?;
    let (input, limit) = opt(count(Keyword::Limit)).parse(input)?;
    let (input, offset) = match limit {
        Some(_) => opt(count(Keyword::Offset)).parse(input)?,
        None => (input, None),
    };
    let (input, approximate) = opt(flag(Keyword::Approx)).parse(input)?;
    let select = Select {
        distinct: distinct.is_some(),
        items,
        from,
        joins,
        nearest,
        filter,
        group_by: group_by.unwrap_or_default(),
        having,
        order_by: order_by.unwrap_or_default(),
        limit: limit.flatten(),
        offset: offset.flatten(),
        approximate: approximate.flatten(),
    };
    Ok((input, select))
}

fn select_item(input: Cursor<'_>) -> Parsed<'_, SelectItem> {
    if let Ok((rest, span)) = symbol(Symbol::Star)(input) {
        return Ok((rest, SelectItem::All(Spanned::new(None, span))));
    }
    if input.symbol_at(1) == Some(Symbol::Dot) && input.symbol_at(2) == Some(Symbol::Star) {
        let (_, qualifier) = name(input)?;
        let rest = input.after(3);
        let all = Spanned::new(Some(qualifier.value), input.span_until(rest));
        return Ok((rest, SelectItem::All(all)));
    }
    let (rest, expression) = expression(input)?;
    let (rest, alias) = alias(rest)?;
    Ok((rest, SelectItem::Expression { expression, alias }))
}

fn alias(input: Cursor<'_>) -> Parsed<'_, Option<crate::syntax::ast::Name>> {
    if is_as_of(input) {
        return Ok((input, None));
    }
    opt(preceded(keyword(Keyword::As), name)).parse(input)
}

fn source(input: Cursor<'_>) -> Parsed<'_, Source> {
    let (rest, table) = if input.symbol_at(0) == Some(Symbol::Open) {
        let (rest, _) = keyword(Keyword::Select)(input.after(1))?;
        let (rest, inner) = nested_statement(rest, select)?;
        let (rest, _) = symbol(Symbol::Close)(rest)?;
        (rest, Table::Select(Spanned::new(Box::new(inner), input.span_until(rest))))
    } else {
        let (rest, first) = name(input)?;
        let (rest, second) = opt(preceded(symbol(Symbol::Dot), name)).parse(rest)?;
        let table = match second {
            Some(name) => Table::Named { schema: Some(first), name },
            None => Table::Named { schema: None, name: first },
        };
        (rest, table)
    };
    let (rest, alias) = alias(rest)?;
    Ok((rest, Source { table, alias }))
}

fn join(input: Cursor<'_>) -> Parsed<'_, Join> {
    let (rest, source) = preceded(keyword(Keyword::Join), source).parse(input)?;
    let (rest, on) = preceded(keyword(Keyword::On), expression).parse(rest)?;
    Ok((rest, Join { source, on }))
}

fn nearest(input: Cursor<'_>) -> Parsed<'_, Spanned<NearestTo>> {
    let (rest, _) = keywords([Keyword::Nearest, Keyword::To])(input)?;
    let (rest, entity) = text(rest)?;
    let (rest, layer) = preceded(keywords([Keyword::At, Keyword::Layer]), layer).parse(rest)?;
    Ok((rest, Spanned::new(NearestTo { entity, layer }, input.span_until(rest))))
}

fn order_key(input: Cursor<'_>) -> Parsed<'_, OrderKey> {
    let (rest, expression) = expression(input)?;
    let direction = one_of([(Keyword::Asc, false), (Keyword::Desc, true)]);
    let (rest, descending) = opt(direction).parse(rest)?;
    Ok((rest, OrderKey { expression, descending: descending.unwrap_or(false) }))
}

pub(super) fn describe(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, entity) = text(input)?;
    let mut describe = Describe {
        entity,
        layers: None,
        relations_only: false,
        display: None,
        stream: false,
        limit: None,
    };
    let (rest, _) = many0(alt((
        map(layer_choice, |choice| describe.layers = Some(choice)),
        map(relations_only, |()| describe.relations_only = true),
        map(display, |display| describe.display = Some(display)),
        map(keyword(Keyword::Stream), |_| describe.stream = true),
        map(count(Keyword::Limit), |limit| describe.limit = limit),
    )))
    .parse(input)?;
    Ok((rest, Statement::Describe(Box::new(describe))))
}

/// `AT LAYER n`, `ALL LAYERS` or a band.
fn layer_choice(input: Cursor<'_>) -> Parsed<'_, LayerChoice> {
    alt((
        map(at_layer, LayerChoice::At),
        value(LayerChoice::All, keywords([Keyword::All, Keyword::Layers])),
        map(band, LayerChoice::Band),
    ))
    .parse(input)
}

/// `AT LAYER n`.
pub(super) fn at_layer(input: Cursor<'_>) -> Parsed<'_, Spanned<u32>> {
    preceded(keywords([Keyword::At, Keyword::Layer]), layer).parse(input)
}

/// `VERBOSE`, `BRIEF` or `RAW`.
pub(super) fn display(input: Cursor<'_>) -> Parsed<'_, Display> {
    one_of([
        (Keyword::Verbose, Display::Verbose),
        (Keyword::Brief, Display::Brief),
        (Keyword::Raw, Display::Raw),
    ])(input)
}

fn band(input: Cursor<'_>) -> Parsed<'_, Band> {
    one_of([
        (Keyword::Syntax, Band::Syntax),
        (Keyword::Knowledge, Band::Knowledge),
        (Keyword::Output, Band::Output),
    ])(input)
}

fn relations_only(input: Cursor<'_>) -> Parsed<'_, ()> {
    keywords([Keyword::Relations, Keyword::Only])(input)
}

fn layers_range(input: Cursor<'_>) -> Parsed<'_, Spanned<crate::syntax::ast::Range>> {
    preceded(keyword(Keyword::Layers), range).parse(input)
}

pub(super) fn walk(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, prompt) = text(input)?;
    let mut walk = Walk { prompt, top: None, layers: None, mode: None, compare: None };
    let mode = one_of([
        (Keyword::Hybrid, WalkMode::Hybrid),
        (Keyword::Pure, WalkMode::Pure),
        (Keyword::Dense, WalkMode::Dense),
    ]);
    let layers =
        alt((value(None, keywords([Keyword::Layers, Keyword::All])), map(layers_range, Some)));
    let mode = |input| {
        let (rest, _) = keyword(Keyword::Mode)(input)?;
        let (after, found) = mode(rest)?;
        Ok((after, Spanned::new(found, rest.span())))
    };
    let (rest, _) = many0(alt((
        map(positive(Keyword::Top), |top| walk.top = top),
        map(layers, |layers| walk.layers = layers),
        map(mode, |mode| walk.mode = Some(mode)),
        map(flag(Keyword::Compare), |compare| walk.compare = compare),
    )))
    .parse(input)?;
    Ok((rest, Statement::Walk(Box::new(walk))))
}

pub(super) fn infer(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, prompt) = text(input)?;
    let mut infer = Infer { prompt, top: None, compare: None };
    let (rest, _) = many0(alt((
        map(positive(Keyword::Top), |top| infer.top = top),
        map(flag(Keyword::Compare), |compare| infer.compare = compare),
    )))
    .parse(input)?;
    Ok((rest, Statement::Infer(Box::new(infer))))
}

/// Bare EXPLAIN of WALK or INFER answers features; everything else answers a plan.
pub(super) fn explain(input: Cursor<'_>) -> Parsed<'_, Statement> {
    if let Some(first @ (Keyword::Walk | Keyword::Infer)) = input.keyword_at(0) {
        return explain_features(input.after(1), first == Keyword::Infer);
    }
    // ANALYZE is also a statement of its own: it is one where nothing follows.
    let follows = input.after(1).first().map(|lexeme| lexeme.kind);
    let flagged = input.keyword_at(0) == Some(Keyword::Analyze)
        && matches!(
            follows,
            Some(LexemeKind::Word | LexemeKind::Keyword(_) | LexemeKind::Symbol(Symbol::Open))
        );
    let mut explain = ExplainOptions { analyze: flagged, ..ExplainOptions::default() };
    let mut rest = input.after(usize::from(flagged));
    if let Ok((inside, _)) = symbol(Symbol::Open)(rest) {
        let option = alt((
            map(keyword(Keyword::Rules), |_| explain.rules = true),
            map(keyword(Keyword::Analyze), |_| explain.analyze = true),
            map(
                preceded(
                    keyword(Keyword::Format),
                    one_of([
                        (Keyword::Text, ExplainFormat::Text),
                        (Keyword::Json, ExplainFormat::Json),
                    ]),
                ),
                |format| explain.format = format,
            ),
        ));
        let (after, _) = separated_list1(symbol(Symbol::Comma), option).parse(inside)?;
        (rest, _) = symbol(Symbol::Close)(after)?;
    }
    let (rest, statement) = pipeline(rest)?;
    let ExplainOptions { analyze, format, rules } = explain;
    let explain = Explain { analyze, format, rules, statement };
    Ok((rest, Statement::Explain(Box::new(explain))))
}

#[derive(Default)]
struct ExplainOptions {
    analyze: bool,
    format: ExplainFormat,
    rules: bool,
}

fn explain_features(input: Cursor<'_>, infer: bool) -> Parsed<'_, Statement> {
    let (input, prompt) = text(input)?;
    let mut explain = ExplainFeatures {
        infer,
        prompt,
        layers: None,
        band: None,
        verbose: false,
        top: None,
        relations_only: false,
        with_attention: None,
    };
    let with_attention = preceded(keyword(Keyword::With), flag(Keyword::Attention));
    let scope = alt((value(None, keywords([Keyword::All, Keyword::Layers])), map(band, Some)));
    let (rest, _) = many0(alt((
        map(layers_range, |range| explain.layers = Some(range)),
        map(keyword(Keyword::Verbose), |_| explain.verbose = true),
        map(positive(Keyword::Top), |top| explain.top = top),
        map(relations_only, |()| explain.relations_only = true),
        map(with_attention, |flag| explain.with_attention = flag),
        map(scope, |scope| explain.band = Some(scope)),
    )))
    .parse(input)?;
    Ok((rest, Statement::ExplainFeatures(Box::new(explain))))
}

pub(super) fn trace(input: Cursor<'_>) -> Parsed<'_, Statement> {
    if let Ok((rest, _)) = keyword(Keyword::Open)(input) {
        return map(string, Statement::TraceOpen).parse(rest);
    }
    let (input, prompt) = text(input)?;
    let mut trace = Trace {
        prompt,
        target: None,
        decompose: false,
        layers: None,
        all_positions: None,
        save: None,
        diff: None,
    };
    let which = one_of([(Keyword::All, true), (Keyword::Last, false)]);
    let positions = preceded(keyword(Keyword::Positions), opt(which));
    let (rest, _) = many0(alt((
        map(preceded(keyword(Keyword::For), text), |target| trace.target = Some(target)),
        map(keyword(Keyword::Decompose), |_| trace.decompose = true),
        map(layers_range, |range| trace.layers = Some(range)),
        map(positions, |all| trace.all_positions = Some(all.unwrap_or(true))),
        map(preceded(keyword(Keyword::Save), string), |file| trace.save = Some(file)),
        map(preceded(keyword(Keyword::Diff), text), |prompt| trace.diff = Some(prompt)),
    )))
    .parse(input)?;
    Ok((rest, Statement::Trace(Box::new(trace))))
}

pub(super) fn generate(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, prompt) = text(input)?;
    let mut generate = Generate {
        prompt,
        tokens_max: None,
        temperature: None,
        top_k: None,
        top_p: None,
        seed: None,
        stop: Vec::new(),
    };
    let temperature = preceded(keyword(Keyword::Temperature), number);
    let (rest, _) = many0(alt((
        map(positive(Keyword::Max), |tokens| generate.tokens_max = tokens),
        map(temperature, |temperature| generate.temperature = Some(temperature)),
        map(positive(Keyword::TopK), |k| generate.top_k = k),
        map(preceded(keyword(Keyword::TopP), number), |p| generate.top_p = Some(p)),
        map(count(Keyword::Seed), |seed| generate.seed = seed),
        map(preceded(keyword(Keyword::Stop), string), |stop| generate.stop.push(stop)),
    )))
    .parse(input)?;
    Ok((rest, Statement::Generate(Box::new(generate))))
}

pub(super) fn blame(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, prompt) = text(input)?;
    let (input, target) = opt(preceded(keyword(Keyword::For), text)).parse(input)?;
    let (input, top) = opt(positive(Keyword::Top)).parse(input)?;
    Ok((input, Statement::Blame { prompt, target, top: top.flatten() }))
}
