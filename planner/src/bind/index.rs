//! CREATE INDEX, DROP INDEX and ANALYZE: what of a vindex is to be found without a scan.

use super::BindError;
use super::statement::{Bound, Reader};
use crate::catalog::{Catalog, Component, MountKind};
use crate::logical::Plan;
use crate::logical::plan::INDEX_COLUMNS;
use crate::nearest_name::nearest;
use crate::physical::plan::{CreateIndex, IndexMethod, Operator};
use crate::planned::Role;
use crate::syntax::ast::{IndexTarget, Name};

/// CREATE INDEX.
pub(super) fn create(
    name: &Name,
    target: IndexTarget,
    method: Option<&Name>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = vindex(catalog, name)?;
    reader.needs(match target {
        IndexTarget::Targets => &[Component::DownMeta, Component::Tokenizer],
        IndexTarget::Labels => &[],
        IndexTarget::Gates => &[Component::Gates, Component::Embeddings],
    })?;
    let index = CreateIndex {
        name: name.value.to_lowercase(),
        target,
        method: chosen_method(target, method)?,
    };
    let plan = Plan::leaf(Operator::CreateIndex(index), &INDEX_COLUMNS);
    Ok(reader.bound(plan, "CREATE INDEX", Role::Admin))
}

/// DROP INDEX.
pub(super) fn drop_index(name: &Name, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let plan = Plan::leaf(Operator::DropIndex { name: name.value.to_lowercase() }, &[]);
    Ok(reader.bound(plan, "DROP INDEX", Role::Admin))
}

/// ANALYZE.
pub(super) fn analyze(catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let plan = Plan::leaf(Operator::Analyze, &INDEX_COLUMNS);
    Ok(reader.bound(plan, "ANALYZE", Role::Admin))
}

/// The mount in use, which has a place for indexes.
fn vindex<'a>(catalog: &'a dyn Catalog, name: &Name) -> Result<Reader<'a>, BindError> {
    let reader = Reader::current(catalog)?;
    if reader.mount.kind() == MountKind::Vindex {
        return Ok(reader);
    }
    Err(BindError::Meaningless {
        what: format!("{} is a checkpoint, which keeps no indexes", reader.mount.name()),
        span: Some(name.span),
        hint: "EXTRACT MODEL \"…\" INTO \"…\", then index the vindex".to_owned(),
    })
}

/// The method that USING names, or the first that can index the target.
fn chosen_method(target: IndexTarget, named: Option<&Name>) -> Result<IndexMethod, BindError> {
    let fitting = || IndexMethod::ALL.iter().filter(|(_, targets)| targets.contains(&target));
    let found = match named {
        None => fitting().next(),
        Some(named) => {
            fitting().find(|(method, _)| method.name().eq_ignore_ascii_case(&named.value))
        }
    };
    found.map(|(method, _)| *method).ok_or_else(|| {
        let names: Vec<&str> = fitting().map(|(method, _)| method.name()).collect();
        let written = named.map(|named| named.value.as_str()).unwrap_or_default();
        let hint = match nearest(written, names.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("USING {}", names.join(" or ")),
        };
        BindError::Meaningless {
            what: format!("{target} cannot be indexed USING {written}"),
            span: named.map(|named| named.span),
            hint,
        }
    })
}
