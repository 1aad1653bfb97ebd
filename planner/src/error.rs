//! Why there is no plan: either binding failed, or the statement is not served yet.

use crate::bind::BindError;
use crate::support::Unsupported;
use crate::syntax::Span;

/// Why a statement could not be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A name, type, layer or component is wrong.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It parses, and is not served.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl PlanError {
    /// Five characters, after SQLSTATE.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind(error) => error.code(),
            Self::Unsupported(_) => Unsupported::CODE,
        }
    }

    /// Where in the script, if the error has a place.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::Bind(error) => error.span(),
            Self::Unsupported(error) => Some(error.span),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bind(error) => error.hint(),
            Self::Unsupported(error) => error.hint.map(str::to_owned),
        }
    }
}
