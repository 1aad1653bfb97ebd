//! TRACE: which positions, layers and token, and what of the run a file keeps.

use super::BindError;
use super::statement::{Bound, Reader, literal};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::TRACE_COLUMNS;
use crate::physical::plan::Operator;
use crate::physical::trace::{Trace, TraceFormat, TraceSave};
use crate::planned::Role;
use crate::syntax::Span;
use crate::syntax::ast::{self, Literal};

/// Layers that a tiered context keeps at most.
const CRITICAL_LAYERS_MAX: u32 = 8;

/// Binds a TRACE.
///
/// # Errors
/// Nothing in use, what the mount lacks, a layer that it has not, clauses that contradict each other.
pub(super) fn trace(request: &ast::Trace, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let all_positions = request.all_positions.unwrap_or(false);
    let save = request.save.as_ref().map(|path| save(&reader, request, path)).transpose()?;
    let role = if save.is_some() { Role::Admin } else { Role::Infer };
    let operator = Operator::Trace(Trace {
        prompt: literal(&request.prompt)?,
        other: request.diff.as_ref().map(literal).transpose()?,
        target: request.target.as_ref().map(literal).transpose()?,
        decompose: request.decompose,
        layers: reader.range(request.layers.as_ref())?,
        all_positions,
        save,
        ffn: reader.ffn(),
    });
    Ok(reader.bound(Plan::leaf(operator, &TRACE_COLUMNS), "TRACE", role))
}

fn save(reader: &Reader<'_>, request: &ast::Trace, path: &Literal) -> Result<TraceSave, BindError> {
    let refuse = |what: &str, span: Span, hint: &str| {
        let (what, hint) = (what.to_owned(), hint.to_owned());
        Err(BindError::Meaningless { what, span: Some(span), hint })
    };
    if let Some(diff) = &request.diff {
        return refuse(
            "SAVE keeps one run, and DIFF makes two",
            diff.span,
            "leave one of them out",
        );
    }
    if request.all_positions != Some(true) {
        return refuse("SAVE keeps all positions", path.span, "add POSITIONS ALL");
    }
    let window = reader.settings().trace_window();
    let ends_with = |end: &str| {
        let (_, found) = path.value.rsplit_once('.').unwrap_or_default();
        found.eq_ignore_ascii_case(end)
    };
    let format = if ends_with("bndx") {
        TraceFormat::Boundaries { window }
    } else if ends_with("ctxt") {
        let critical = match &request.layers {
            None => Vec::new(),
            Some(range) => {
                let ast::Range { first, last } = range.value;
                if last - first >= CRITICAL_LAYERS_MAX || last > u8::MAX.into() {
                    let what = "a .ctxt file keeps at most eight layers, each below 256";
                    return refuse(what, range.span, "name fewer, or SAVE to a .trace file");
                }
                (first..=last).map(|layer| layer as u8).collect()
            }
        };
        let attention = request.decompose && !critical.is_empty();
        TraceFormat::Context { window, critical, attention }
    } else {
        TraceFormat::Chain
    };
    Ok(TraceSave { path: path.value.clone(), format })
}

/// Binds a TRACE OPEN.
///
/// # Errors
/// Nothing in use, what the mount lacks.
pub(super) fn open(path: &Literal, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let operator = Operator::TraceOpen { path: path.value.clone() };
    Ok(reader.bound(Plan::leaf(operator, &TRACE_COLUMNS), "TRACE OPEN", Role::Admin))
}
