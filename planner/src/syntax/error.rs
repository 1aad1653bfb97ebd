//! What is wrong with a text that is no LQL.

use super::span::Span;

/// The code of an ordinary syntax error.
pub const SYNTAX_ERROR: &str = "42601";
/// The code of a statement that is too large or too deeply nested.
pub const LIMIT_EXCEEDED: &str = "54000";
/// The code of a number that does not fit.
pub const OUT_OF_RANGE: &str = "22003";
/// The code of a value that is no possible operand.
pub const INVALID_VALUE: &str = "22023";

/// Why a script could not be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What was expected and what was found.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Five characters, after SQLSTATE.
    pub code: &'static str,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl SyntaxError {
    /// An error without a hint.
    pub fn new(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { message: message.into(), span, code, hint: None }
    }

    /// The same error with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
