//! Statements about whole models: EXTRACT, COMPILE, DIFF, USE, MOUNT, LABEL, VERIFY, COPY, EXPORT.

use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt, value};
use nom::multi::{many0, separated_list1};
use nom::sequence::preceded;

use super::cursor::{
    Cursor, Parsed, count, flag, keyword, keywords, layer, name, once, one_of, range, spanned,
    string, symbol,
};
use super::expression::expression;
use super::pipeline;
use crate::syntax::ast::{
    Compile, CompileConflict, CompileFormat, Diff, Extract, ExtractComponent, ExtractDtype,
    ExtractLevel, ExtractQuant, Name, Reference, Statement, Use,
};
use crate::syntax::keyword::Keyword;
use crate::syntax::lexer::Symbol;

pub(super) fn extract(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, source) = preceded(keyword(Keyword::Model), string).parse(input)?;
    let (input, destination) = preceded(keyword(Keyword::Into), string).parse(input)?;
    let mut extract = Extract {
        source,
        destination,
        components: None,
        layers: None,
        level: None,
        dtype: None,
        quant: None,
        down_q4k: None,
        drop_gate_vectors: None,
        without_labels: false,
        overwrite: false,
        resume: false,
    };
    let component = one_of([
        (Keyword::FfnGate, ExtractComponent::FfnGate),
        (Keyword::FfnDown, ExtractComponent::FfnDown),
        (Keyword::FfnUp, ExtractComponent::FfnUp),
        (Keyword::Embeddings, ExtractComponent::Embeddings),
        (Keyword::AttnOv, ExtractComponent::AttentionOv),
        (Keyword::AttnQk, ExtractComponent::AttentionQk),
    ]);
    let components = separated_list1(symbol(Symbol::Comma), component);
    let level = one_of([
        (Keyword::Inference, ExtractLevel::Inference),
        (Keyword::All, ExtractLevel::All),
        (Keyword::Weights, ExtractLevel::Weights),
        (Keyword::Attention, ExtractLevel::Attention),
    ]);
    let dtype = one_of([
        (Keyword::F16, ExtractDtype::F16),
        (Keyword::F32, ExtractDtype::F32),
        (Keyword::Source, ExtractDtype::Source),
    ]);
    let quant = one_of([
        (Keyword::Q4K, ExtractQuant::Q4K),
        (Keyword::Q4Underscore, ExtractQuant::Q4K),
        (Keyword::Q8_0, ExtractQuant::Q8_0),
        (Keyword::Fp4, ExtractQuant::Fp4),
        (Keyword::Fp8, ExtractQuant::Fp8),
    ]);
    let q4k = one_of([(Keyword::Q4K, ()), (Keyword::Q4Underscore, ())]);
    let (rest, _) = many0(alt((
        map(preceded(keyword(Keyword::Components), components), |components| {
            extract.components = Some(components);
        }),
        map(preceded(keyword(Keyword::Layers), range), |range| extract.layers = Some(range)),
        map(preceded(keyword(Keyword::With), level), |level| extract.level = Some(level)),
        map(preceded(keyword(Keyword::Dtype), dtype), |dtype| extract.dtype = Some(dtype)),
        map(preceded(keyword(Keyword::Quant), spanned(quant)), |quant| extract.quant = Some(quant)),
        map(spanned(preceded(keyword(Keyword::Down), q4k)), |down| extract.down_q4k = Some(down)),
        map(spanned(keywords([Keyword::Drop, Keyword::Gate, Keyword::Vectors])), |drop| {
            extract.drop_gate_vectors = Some(drop);
        }),
        map(keywords([Keyword::Without, Keyword::Labels]), |()| extract.without_labels = true),
        map(keyword(Keyword::Overwrite), |_| extract.overwrite = true),
        map(keyword(Keyword::Resume), |_| extract.resume = true),
    )))
    .parse(input)?;
    Ok((rest, Statement::Extract(Box::new(extract))))
}

fn reference(input: Cursor<'_>) -> Parsed<'_, Reference> {
    alt((value(Reference::Current, keyword(Keyword::Current)), map(string, Reference::Named)))
        .parse(input)
}

pub(super) fn compile(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, source) = reference(input)?;
    let kind = one_of([(Keyword::Model, true), (Keyword::Vindex, false)]);
    let (input, into_model) = preceded(keyword(Keyword::Into), kind).parse(input)?;
    let (input, destination) = string(input)?;
    let mut compile = Compile {
        source,
        into_model,
        destination,
        format: None,
        dtype: None,
        level: None,
        conflict: None,
        overwrite: false,
        verify: false,
    };
    let format = one_of([
        (Keyword::Safetensors, CompileFormat::Safetensors),
        (Keyword::Gguf, CompileFormat::Gguf),
    ]);
    let conflict = one_of([
        (Keyword::LastWins, CompileConflict::LastWins),
        (Keyword::HighestConfidence, CompileConflict::HighestConfidence),
        (Keyword::Fail, CompileConflict::Fail),
    ]);
    let on_conflict = keywords([Keyword::On, Keyword::Conflict]);
    let (rest, _) = many0(alt((
        once("FORMAT", &mut compile.format, preceded(keyword(Keyword::Format), format)),
        once("DTYPE", &mut compile.dtype, preceded(keyword(Keyword::Dtype), name)),
        once("WITH", &mut compile.level, preceded(keyword(Keyword::With), name)),
        once("ON CONFLICT", &mut compile.conflict, preceded(on_conflict, conflict)),
        map(keyword(Keyword::Overwrite), |_| compile.overwrite = true),
        map(keyword(Keyword::Verify), |_| compile.verify = true),
    )))
    .parse(input)?;
    Ok((rest, Statement::Compile(Box::new(compile))))
}

pub(super) fn diff(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, left) = reference(input)?;
    let (input, right) = reference(input)?;
    let mut diff = Diff { left, right, layer: None, relation: None, limit: None, into_patch: None };
    let relation = alt((keyword(Keyword::Relation), keyword(Keyword::Relations)));
    let (input, _) = many0(alt((
        map(preceded(keyword(Keyword::Layer), layer), |layer| diff.layer = Some(layer)),
        map(preceded(relation, string), |relation| diff.relation = Some(relation)),
        map(count(Keyword::Limit), |limit| diff.limit = limit),
    )))
    .parse(input)?;
    let into_patch = preceded(keywords([Keyword::Into, Keyword::Patch]), string);
    let (rest, patch) = opt(into_patch).parse(input)?;
    diff.into_patch = patch;
    Ok((rest, Statement::Diff(Box::new(diff))))
}

pub(super) fn use_statement(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let model = |input| {
        let (rest, path) = preceded(keyword(Keyword::Model), string).parse(input)?;
        let (rest, auto_extract) = opt(flag(Keyword::AutoExtract)).parse(rest)?;
        Ok((rest, Use::Model { path, auto_extract: auto_extract.flatten() }))
    };
    let vindex = |input| {
        let (rest, reference) = reference(input)?;
        let (rest, branch) = opt(preceded(keyword(Keyword::Branch), name)).parse(rest)?;
        Ok((rest, Use::Vindex { reference, branch }))
    };
    let remote = map(preceded(keyword(Keyword::Remote), string), Use::Remote);
    map(alt((model, remote, vindex)), Statement::Use).parse(input)
}

pub(super) fn mount(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (rest, path) = string(input)?;
    let (rest, name) = opt(preceded(keyword(Keyword::As), mount_name)).parse(rest)?;
    Ok((rest, Statement::Mount { path, name }))
}

pub(super) fn unmount(input: Cursor<'_>) -> Parsed<'_, Statement> {
    map(mount_name, Statement::Unmount).parse(input)
}

/// A mount's name: bare where it is an identifier, else a string, because directories have names
/// such as `Llama-3.2-1B`.
fn mount_name(input: Cursor<'_>) -> Parsed<'_, Name> {
    alt((string, name)).parse(input)
}

pub(super) fn label(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = opt(keyword(Keyword::Current)).parse(input)?;
    let (input, _) = keyword(Keyword::From)(input)?;
    let (input, facts) = alt((
        map(preceded(keyword(Keyword::Facts), string), Some),
        value(None, keyword(Keyword::Default)),
    ))
    .parse(input)?;
    let (rest, resume) = opt(keyword(Keyword::Resume)).parse(input)?;
    Ok((rest, Statement::Label { facts, resume: resume.is_some() }))
}

pub(super) fn verify(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let edge = keywords([Keyword::Edge, Keyword::Where]);
    alt((
        map(preceded(edge, expression), Statement::VerifyEdge),
        map(preceded(keyword(Keyword::Vindex), string), Statement::VerifyVindex),
    ))
    .parse(input)
}

pub(super) fn copy(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = symbol(Symbol::Open)(input)?;
    let (input, statement) = pipeline(input)?;
    let (input, _) = symbol(Symbol::Close)(input)?;
    let (input, file) = preceded(keyword(Keyword::To), string).parse(input)?;
    let (rest, format) = opt(preceded(keyword(Keyword::Format), name)).parse(input)?;
    Ok((rest, Statement::Copy { statement: Box::new(statement), file, format }))
}

pub(super) fn export(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let (input, _) = keywords([Keyword::Current, Keyword::Into])(input)?;
    let (input, file) = string(input)?;
    let (rest, format) = preceded(keyword(Keyword::Format), name).parse(input)?;
    Ok((rest, Statement::Export { file, format }))
}
