//! COPY and EXPORT: rows into files.

use super::BindError;
use super::pipe::check_reads;
use super::select::select;
use super::source::Sources;
use super::statement::{Bound, Context, bind};
use crate::logical::Plan;
use crate::nearest_name::nearest;
use crate::physical::plan::{FileFormat, Write};
use crate::planned::Role;
use crate::syntax::ast::{Literal, Name, Select, Statement};
use crate::syntax::{Span, SpannedStatement};

/// Binds `COPY (statement) TO file [FORMAT name]`. Without a format, the file's ending says it.
pub(super) fn copy(
    statement: &SpannedStatement,
    file: &Literal,
    format: Option<&Name>,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    if !matches!(statement.statement, Statement::Pipe(_)) {
        check_reads(statement, context.catalog, "be copied")?;
    }
    let format = match format {
        Some(name) => named(name, &FileFormat::TABLES)?,
        None => ending(file)?,
    };
    let bound = bind(&statement.statement, statement.span, context)?;
    Ok(written(bound, file, format, "COPY"))
}

/// The format that a file's ending names.
fn ending(file: &Literal) -> Result<FileFormat, BindError> {
    let ending = file.value.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
    let known = FileFormat::TABLES.into_iter();
    ending.and_then(|(_, ending)| known.clone().find(|format| format.is_named(ending))).ok_or_else(
        || BindError::Meaningless {
            what: "the file's ending names no format".to_owned(),
            span: Some(file.span),
            hint: format!("add FORMAT and one of {}", list(&FileFormat::TABLES)),
        },
    )
}

/// Binds `EXPORT CURRENT INTO file FORMAT name`: all edges of the mount in use.
pub(super) fn export(
    file: &Literal,
    format: &Name,
    span: Span,
    context: &Context<'_>,
) -> Result<Bound, BindError> {
    let format = named(format, &FileFormat::GRAPHS)?;
    let request = Select::all_of("EDGES", None, span);
    let plan = select(&Sources::new(context.catalog), &request, None)?;
    let mount = context.catalog.current();
    let bound = Bound { plan, tag: "SELECT", required_role: Role::Reader, mount };
    Ok(written(bound, file, format, "EXPORT"))
}

fn named(name: &Name, formats: &[FileFormat]) -> Result<FileFormat, BindError> {
    let known = formats.iter().copied().find(|format| format.is_named(&name.value));
    known.ok_or_else(|| {
        let names = formats.iter().map(|format| format.name());
        let hint = match nearest(&name.value, names) {
            Some(near) => format!("did you mean {near}? There are {}", list(formats)),
            None => format!("there are {}", list(formats)),
        };
        let what = format!("{:?} is no format that is written here", name.value);
        BindError::Meaningless { what, span: Some(name.span), hint }
    })
}

fn list(formats: &[FileFormat]) -> String {
    let names: Vec<&str> = formats.iter().map(|format| format.name()).collect();
    names.join(", ")
}

/// Whoever names a path to write is an admin, as for EXTRACT.
fn written(bound: Bound, file: &Literal, format: FileFormat, tag: &'static str) -> Bound {
    let columns = bound.plan.columns();
    let write = Write { path: file.value.clone(), format, columns };
    let plan = Plan::Write { write, input: Box::new(bound.plan) };
    Bound { plan, tag, required_role: bound.required_role.max(Role::Admin), ..bound }
}
