//! COMPILE: which format and type, from which model.

use super::BindError;
use super::statement::Bound;
use crate::catalog::Catalog;
use crate::logical::Plan;
use crate::logical::plan::COMPILE_COLUMNS;
use crate::nearest_name::nearest;
use crate::physical::plan::{Compile, CompileFormat, Level, Operator, WeightType};
use crate::planned::Role;
use crate::syntax::ast;

/// Binds a COMPILE.
///
/// # Errors
/// A type that is none or that the format cannot hold, a clause without effect, nothing in use.
pub(super) fn bind(request: &ast::Compile, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let meaningless = |what: &str, hint: &str| {
        Err(BindError::Meaningless { what: what.to_owned(), span: None, hint: hint.to_owned() })
    };
    if request.conflict.is_some() && request.into_model {
        return meaningless(
            "ON CONFLICT says how patches are joined in a vindex, and INTO MODEL compiles what is in force",
            "leave it out, or COMPILE INTO VINDEX first",
        );
    }
    if !request.into_model && (request.format.is_some() || request.dtype.is_some()) {
        return meaningless(
            "FORMAT and DTYPE say how a model is written, and a vindex keeps its own types",
            "leave them out, or write INTO MODEL",
        );
    }
    let level = match &request.level {
        Some(name) if request.into_model => {
            return Err(BindError::Meaningless {
                what: "WITH says how much of a vindex is kept, and a model is whole".to_owned(),
                span: Some(name.span),
                hint: "leave it out, or COMPILE INTO VINDEX".to_owned(),
            });
        }
        Some(name) => {
            Some(Level::from_name(&name.value).ok_or_else(|| BindError::Meaningless {
                what: format!("{} is no level of a vindex", name.value),
                span: Some(name.span),
                hint: format!("levels are {}", Level::ALL.map(Level::name).join(", ")),
            })?)
        }
        None => None,
    };
    let dtype = match &request.dtype {
        None => None,
        Some(name) => Some(WeightType::from_name(&name.value).ok_or_else(|| {
            let names = WeightType::ALL.map(WeightType::name);
            BindError::Meaningless {
                what: format!("{} is no type that COMPILE writes", name.value),
                span: Some(name.span),
                hint: match nearest(&name.value, names) {
                    Some(name) => format!("did you mean {name}?"),
                    None => format!("types are {}", names.join(", ")),
                },
            }
        })?),
    };
    let format = request.format.unwrap_or(CompileFormat::Safetensors);
    if let (Some(dtype), Some(name)) = (dtype, &request.dtype)
        && format == CompileFormat::Safetensors
        && !dtype.is_plain()
    {
        return Err(BindError::Meaningless {
            what: format!("safetensors hold no {}", dtype.name()),
            span: Some(name.span),
            hint: "write FORMAT GGUF, or one of F32, F16 and BF16".to_owned(),
        });
    }
    let (source, mount) = match &request.source {
        ast::Reference::Current => (None, Some(catalog.current().ok_or(BindError::NothingInUse)?)),
        ast::Reference::Named(name) => (Some(name.value.clone()), None),
    };
    let operator = Operator::Compile(Compile {
        source,
        destination: request.destination.value.clone(),
        into_vindex: !request.into_model,
        level,
        conflict: request.conflict.unwrap_or(ast::CompileConflict::LastWins),
        format,
        dtype,
        overwrite: request.overwrite,
        verify: request.verify,
    });
    let plan = Plan::leaf(operator, &COMPILE_COLUMNS);
    Ok(Bound { plan, tag: "COMPILE", required_role: Role::Admin, mount })
}
