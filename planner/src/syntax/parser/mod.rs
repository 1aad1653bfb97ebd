//! Lexemes to statements, with nom.
//!
//! A statement is known by its first word; each family of statements has its own file. Nothing here
//! recurses without counting ([`NESTING_MAX`]), so no text can exhaust the stack.

mod cursor;
mod expression;
mod lifecycle;
mod mutation;
mod query;
mod session;

use super::ast::{Moment, Statement};
use super::error::{LIMIT_EXCEEDED, SYNTAX_ERROR, SyntaxError};
use super::keyword::Keyword;
use super::lexer::{LexemeKind, Lexer, Symbol};
use super::span::Span;
use cursor::{
    Cursor, Expected, Notes, Parsed, Thing, count, keyword, nested_statement, string, symbol,
};
use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt};
use nom::sequence::preceded;

pub use cursor::{NESTING_MAX, STATEMENT_LEVELS};

/// The most statements of one script.
pub const STATEMENTS_MAX: usize = 1 << 16;

/// A statement with its place in the script. Equality ignores the place.
#[derive(Debug, Clone)]
pub struct SpannedStatement {
    /// The statement.
    pub statement: Statement,
    /// From its first word to its last lexeme, without `;`.
    pub span: Span,
}

impl PartialEq for SpannedStatement {
    fn eq(&self, other: &Self) -> bool {
        self.statement == other.statement
    }
}

/// Parses a script: statements separated by `;`, with `--` comments; empty statements are skipped.
///
/// ```
/// let statements = larql_planner::syntax::parse_script("USE \"atlas\"; STATS -- done").unwrap();
/// assert_eq!(statements.len(), 2);
/// ```
///
/// # Errors
/// The first thing that is no LQL, with its place; scripts beyond 4 MiB, statements beyond 2^17
/// lexemes, nesting beyond [`NESTING_MAX`].
pub fn parse_script(text: &str) -> Result<Vec<SpannedStatement>, SyntaxError> {
    let mut lexer = Lexer::new(text)?;
    let notes = Notes::default();
    let mut statements = Vec::new();
    let mut lexemes = Vec::new();
    while lexer.next_statement(&mut lexemes)? {
        if statements.len() == STATEMENTS_MAX {
            let message = format!("the script has more than {STATEMENTS_MAX} statements");
            return Err(SyntaxError::new(LIMIT_EXCEEDED, message, lexemes[0].span)
                .with_hint("send it in parts"));
        }
        notes.reset();
        let input = Cursor::new(&lexemes, &notes);
        match pipeline(input).and_then(|(rest, statement)| Ok((end(rest)?.0, statement))) {
            Ok((_, statement)) => statements.push(statement),
            Err(nom::Err::Failure(refusal)) if refusal.0.is_some() => {
                return Err(refusal
                    .0
                    .map_or_else(|| notes.error(&lexemes, STARTS), |error| *error));
            }
            Err(_) => return Err(notes.error(&lexemes, STARTS)),
        }
    }
    Ok(statements)
}

/// Parses one statement, perhaps followed by `;`.
///
/// # Errors
/// As [`parse_script`], and where there is no statement or more than one.
pub fn parse_statement(text: &str) -> Result<SpannedStatement, SyntaxError> {
    let mut statements = parse_script(text)?.into_iter();
    let end = text.len().min(u32::MAX as usize) as u32;
    let Some(first) = statements.next() else {
        let message = "expected a statement, found nothing";
        return Err(SyntaxError::new(SYNTAX_ERROR, message, Span::new(end, end)));
    };
    match statements.next() {
        None => Ok(first),
        Some(second) => {
            let message = "expected one statement, found several";
            Err(SyntaxError::new(SYNTAX_ERROR, message, second.span))
        }
    }
}

/// The words that statements start with.
const STARTS: &[Keyword] = &[
    Keyword::Analyze,
    Keyword::Apply,
    Keyword::Begin,
    Keyword::Blame,
    Keyword::Check,
    Keyword::Commit,
    Keyword::Compact,
    Keyword::Compile,
    Keyword::Copy,
    Keyword::Create,
    Keyword::Deallocate,
    Keyword::Delete,
    Keyword::Describe,
    Keyword::Diff,
    Keyword::Drop,
    Keyword::Execute,
    Keyword::Explain,
    Keyword::Export,
    Keyword::Extract,
    Keyword::Generate,
    Keyword::Infer,
    Keyword::Insert,
    Keyword::Kill,
    Keyword::Label,
    Keyword::Merge,
    Keyword::Mount,
    Keyword::Prepare,
    Keyword::Rebalance,
    Keyword::Remove,
    Keyword::Reset,
    Keyword::Rollback,
    Keyword::Save,
    Keyword::Savepoint,
    Keyword::Select,
    Keyword::Set,
    Keyword::Show,
    Keyword::Stats,
    Keyword::Trace,
    Keyword::Unmount,
    Keyword::Update,
    Keyword::Use,
    Keyword::Verify,
    Keyword::Walk,
];

/// The end of the statement.
fn end(input: Cursor<'_>) -> Parsed<'_, ()> {
    match input.first() {
        Some(lexeme) if lexeme.kind == LexemeKind::End => Ok((input.after(1), ())),
        _ => input.refuse(Expected::Thing(Thing::End)),
    }
}

/// `statement { "|>" stage }`.
fn pipeline(input: Cursor<'_>) -> Parsed<'_, SpannedStatement> {
    let (mut rest, first) = stage(input)?;
    if rest.symbol_at(0) != Some(Symbol::Pipe) {
        return Ok((rest, first));
    }
    let mut stages = vec![first];
    while let Ok((after, _)) = symbol(Symbol::Pipe)(rest) {
        let (next, statement) = stage(after)?;
        stages.push(statement);
        rest = next;
    }
    let span = input.span_until(rest);
    Ok((rest, SpannedStatement { statement: Statement::Pipe(stages), span }))
}

/// One statement with its `AS OF`.
fn stage(input: Cursor<'_>) -> Parsed<'_, SpannedStatement> {
    let (rest, statement) = statement(input)?;
    let spanned = SpannedStatement { statement, span: input.span_until(rest) };
    if !reads(&spanned.statement) {
        return Ok((rest, spanned));
    }
    let (rest, moment) = opt(as_of).parse(rest)?;
    let Some(at) = moment else { return Ok((rest, spanned)) };
    let statement = Statement::AsOf { statement: Box::new(spanned), at };
    Ok((rest, SpannedStatement { statement, span: input.span_until(rest) }))
}

fn reads(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Walk(_)
            | Statement::Infer(_)
            | Statement::Select(_)
            | Statement::Describe(_)
            | Statement::ExplainFeatures(_)
            | Statement::Trace(_)
            | Statement::Generate(_)
            | Statement::Diff(_)
            | Statement::Blame { .. }
            | Statement::CheckAssertions
            | Statement::VerifyEdge(_)
            | Statement::Show(_)
            | Statement::Stats(_)
    )
}

/// `AS OF LSN n` or `AS OF PATCH name`.
fn as_of(input: Cursor<'_>) -> Parsed<'_, Moment> {
    let (input, _) = keyword(Keyword::As)(input)?;
    let (input, _) = keyword(Keyword::Of)(input)?;
    alt((
        map(count(Keyword::Lsn), |lsn| Moment::Lsn(lsn.unwrap_or_default())),
        map(preceded(keyword(Keyword::Patch), string), Moment::Patch),
    ))
    .parse(input)
}

/// Whether `AS OF` with its operand starts here, rather than `AS` and an alias `of`.
fn is_as_of(input: Cursor<'_>) -> bool {
    input.keyword_at(0) == Some(Keyword::As)
        && input.second_keyword() == Some(Keyword::Of)
        && matches!(input.keyword_at(2), Some(Keyword::Lsn | Keyword::Patch))
}

fn statement(input: Cursor<'_>) -> Parsed<'_, Statement> {
    let Some(first) = input.keyword_at(0) else {
        return input.refuse(Expected::Thing(Thing::Statement));
    };
    let rest = input.after(1);
    match first {
        Keyword::Select => query::select_statement(rest),
        Keyword::Describe => query::describe(rest),
        Keyword::Walk => query::walk(rest),
        Keyword::Infer => query::infer(rest),
        Keyword::Explain => nested_statement(rest, query::explain),
        Keyword::Trace => query::trace(rest),
        Keyword::Generate => query::generate(rest),
        Keyword::Blame => query::blame(rest),

        Keyword::Extract => lifecycle::extract(rest),
        Keyword::Compile => lifecycle::compile(rest),
        Keyword::Diff => lifecycle::diff(rest),
        Keyword::Use => lifecycle::use_statement(rest),
        Keyword::Mount => lifecycle::mount(rest),
        Keyword::Unmount => lifecycle::unmount(rest),
        Keyword::Label => lifecycle::label(rest),
        Keyword::Verify => lifecycle::verify(rest),
        Keyword::Copy => nested_statement(rest, lifecycle::copy),
        Keyword::Export => lifecycle::export(rest),

        Keyword::Insert => mutation::insert(rest),
        Keyword::Delete => mutation::delete(rest),
        Keyword::Update => mutation::update(rest),
        Keyword::Merge => mutation::merge(rest),
        Keyword::Rebalance => mutation::rebalance(rest),
        Keyword::Compact => mutation::compact(rest),
        Keyword::Begin => mutation::begin(rest),
        Keyword::Commit => Ok((rest, Statement::Commit)),
        Keyword::Rollback => mutation::rollback(rest),
        Keyword::Savepoint => mutation::savepoint(rest),
        Keyword::Save => mutation::save_patch(rest),
        Keyword::Apply => mutation::apply_patch(rest),
        Keyword::Remove => mutation::remove_patch(rest),
        Keyword::Create => mutation::create(rest),
        Keyword::Drop => mutation::drop_statement(rest),
        Keyword::Check => mutation::check(rest),

        Keyword::Show => session::show(rest),
        Keyword::Stats => session::stats(rest),
        Keyword::Set => session::set(rest),
        Keyword::Reset => session::reset(rest),
        Keyword::Prepare => nested_statement(rest, session::prepare),
        Keyword::Execute => session::execute(rest),
        Keyword::Deallocate => session::deallocate(rest),
        Keyword::Analyze => Ok((rest, Statement::Analyze)),
        Keyword::Kill => session::kill(rest),
        _ => input.refuse(Expected::Thing(Thing::Statement)),
    }
}
