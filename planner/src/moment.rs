//! AS OF: the moment that a statement reads, taken out of it before it is bound.
//!
//! What is bound is the statement alone; the daemon gives it the mount as it was. A pipe reads one moment:
//! `AS OF` at one of its stages holds for all.

use crate::bind::BindError;
use crate::syntax::SpannedStatement;
use crate::syntax::ast::{Moment, Statement};

/// The statement without its moments, and the moment, if it has one.
///
/// # Errors
/// When it has two that differ, or stands where no moment can be kept.
pub fn split(
    statement: &SpannedStatement,
) -> Result<(SpannedStatement, Option<Moment>), BindError> {
    let (mut statement, mut moment) = (statement.clone(), None);
    take(&mut statement, &mut moment)?;
    Ok((statement, moment))
}

fn take(statement: &mut SpannedStatement, found: &mut Option<Moment>) -> Result<(), BindError> {
    let span = statement.span;
    let refuse = |what: &str, hint: &str| {
        Err(BindError::Meaningless {
            what: what.to_owned(),
            span: Some(span),
            hint: hint.to_owned(),
        })
    };
    match &mut statement.statement {
        Statement::AsOf { statement: inner, at } => {
            if found.as_ref().is_some_and(|found| found != at) {
                return refuse(
                    "a statement reads one moment, and this one names two",
                    "write AS OF once, or run two statements",
                );
            }
            *found = Some(at.clone());
            take(inner, found)?;
            let inner = inner.statement.clone();
            statement.statement = inner;
            Ok(())
        }
        Statement::Explain(explain) => take(&mut explain.statement, found),
        Statement::Copy { statement: inner, .. } => take(inner, found),
        Statement::Pipe(stages) => stages.iter_mut().try_for_each(|stage| take(stage, found)),
        Statement::Prepare { statement: inner, .. } => {
            let mut inside = None;
            take(inner, &mut inside)?;
            match inside {
                None => Ok(()),
                Some(_) => refuse(
                    "a prepared statement reads what is there when it runs",
                    "run the statement with AS OF by itself",
                ),
            }
        }
        _ => Ok(()),
    }
}
