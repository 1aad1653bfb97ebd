//! What a statement answers when it fails: a five-character code, a message, a position and a hint.
//!
//! Every error of storage, compute and planner becomes a [`Failure`] in `convert` and nowhere else, so that
//! one cause has one code whichever statement met it. The codes follow SQLSTATE where SQL has the
//! notion; the table is in `docs/lql/errors.md`, printed from [`CODES`].

mod convert;

use std::ops::Range;

/// Every code that the daemon can answer, with what it means.
pub const CODES: &[(&str, &str)] = &[
    (code::NOT_SUPPORTED, "the statement or clause is understood and not supported yet"),
    (code::CONNECTION, "the daemon that the session was sent to cannot be reached any more"),
    (code::PROTOCOL, "the client broke the protocol"),
    (code::VALUE_RANGE, "a number is out of range"),
    (code::INVALID_PARAMETER, "a value is not one that this place accepts"),
    (code::UNAUTHENTICATED, "the caller could not be identified"),
    (code::NO_MOUNT_IN_USE, "the statement needs a mount and none is in use"),
    (code::TRANSACTION_OPEN, "the statement stands outside transactions, and one is open"),
    (code::NO_TRANSACTION, "the statement stands in a transaction, and none is open"),
    (code::UNDEFINED_SAVEPOINT, "the transaction has no such savepoint"),
    (code::CONFLICT, "another transaction changed the same thing first: begin again"),
    (code::HARM, "the edit would harm neighbours beyond the budget"),
    (code::ASSERTION, "an assertion would not hold, or does not"),
    (code::HISTORY, "a moment that is not kept any more, or has not been"),
    (code::OTHER_BASE, "the patch was made for other weights"),
    (code::UNDEFINED_PREPARED, "no statement is prepared under that name"),
    (code::SYNTAX, "the statement does not parse"),
    (code::FORBIDDEN, "the session's role does not allow the statement"),
    (code::AMBIGUOUS, "a name that several columns or sources of rows have"),
    (code::UNDEFINED_COLUMN, "no such column"),
    (code::UNDEFINED_TABLE, "no such table"),
    (code::UNDEFINED_PARAMETER, "a parameter has no value"),
    (code::UNDEFINED_FUNCTION, "no such function, or not with so many arguments"),
    (code::UNDEFINED_OBJECT, "no such mount, setting or model"),
    (code::GROUPING, "a column or an aggregate stands where groups do not allow it"),
    (code::WRONG_TYPE, "the operands of an operator do not fit together"),
    (code::EXISTS, "the thing to be made exists already"),
    (code::BAD_FILE, "the contents of a file are not what its format promises"),
    (code::EMPTY_TEXT, "the text has no token in the model's vocabulary"),
    (code::DISK_FULL, "the disk is full"),
    (code::OVERLOADED, "the daemon has too much to do"),
    (code::LIMIT, "a limit of the daemon or of the model was exceeded"),
    (code::MISSING_COMPONENT, "the vindex lacks a component that the statement needs"),
    (code::BUSY, "somebody else is using the thing"),
    (code::CANCELLED, "the statement was cancelled or its deadline passed"),
    (code::SHUTTING_DOWN, "the daemon is shutting down"),
    (code::IO, "reading or writing failed"),
    (code::NO_SUCH_FILE, "no such file or directory"),
    (code::DAMAGED, "stored data is damaged"),
    (
        code::UNSUPPORTED_FORMAT,
        "the file's version, family or format is not one that this build reads",
    ),
    (code::INTERNAL, "a defect of larqld"),
];

/// The codes by name.
pub mod code {
    #![allow(missing_docs)]
    pub const TRANSACTION_OPEN: &str = "25001";
    pub const NO_TRANSACTION: &str = "25P01";
    pub const UNDEFINED_SAVEPOINT: &str = "3B001";
    pub const CONFLICT: &str = "40001";
    pub const HARM: &str = "23514";
    pub const ASSERTION: &str = "P0004";
    pub const HISTORY: &str = "72000";
    pub const OTHER_BASE: &str = "22P05";
    pub const NOT_SUPPORTED: &str = "0A000";
    pub const CONNECTION: &str = "08006";
    pub const PROTOCOL: &str = "08P01";
    pub const VALUE_RANGE: &str = "22003";
    pub const INVALID_PARAMETER: &str = "22023";
    pub const UNAUTHENTICATED: &str = "28000";
    pub const NO_MOUNT_IN_USE: &str = "3F000";
    pub const UNDEFINED_PREPARED: &str = "26000";
    pub const AMBIGUOUS: &str = "42702";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const GROUPING: &str = "42803";
    pub const SYNTAX: &str = "42601";
    pub const FORBIDDEN: &str = "42501";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const WRONG_TYPE: &str = "42804";
    pub const EXISTS: &str = "42P07";
    pub const BAD_FILE: &str = "22P04";
    pub const EMPTY_TEXT: &str = "22024";
    pub const DISK_FULL: &str = "53100";
    pub const OVERLOADED: &str = "53400";
    pub const LIMIT: &str = "54000";
    pub const MISSING_COMPONENT: &str = "55000";
    pub const BUSY: &str = "55006";
    pub const CANCELLED: &str = "57014";
    pub const SHUTTING_DOWN: &str = "57P01";
    pub const IO: &str = "58030";
    pub const NO_SUCH_FILE: &str = "58P01";
    pub const DAMAGED: &str = "XX001";
    pub const UNSUPPORTED_FORMAT: &str = "0A001";
    pub const INTERNAL: &str = "XX000";
}

/// Why a statement failed, as its user is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// One of [`CODES`].
    pub code: &'static str,
    /// What failed, with what.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// The offending bytes of the script.
    pub position: Option<Range<usize>>,
}

impl Failure {
    /// A failure without hint or position.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), position: None }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same failure at a place in the script.
    #[must_use]
    pub fn at(mut self, position: Range<usize>) -> Self {
        self.position = Some(position);
        self
    }

    /// The statement was stopped by its user.
    pub fn cancelled() -> Self {
        Self::new(code::CANCELLED, "the statement was cancelled")
    }

    /// Reading or writing `what` failed.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (code, hint) = match error.kind() {
            ErrorKind::NotFound => (code::NO_SUCH_FILE, "check the path"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                (code::DISK_FULL, "free some space and run the statement again")
            }
            ErrorKind::PermissionDenied => (code::IO, "check who may read the path"),
            ErrorKind::AlreadyExists => (code::EXISTS, ""),
            ErrorKind::WouldBlock | ErrorKind::ResourceBusy => (code::BUSY, ""),
            ErrorKind::FileTooLarge => (code::LIMIT, "check that it is the right file"),
            ErrorKind::InvalidData => (code::DAMAGED, "`larql verify` tells what is damaged"),
            _ => (code::IO, ""),
        };
        Self::new(code, format!("{what}: {error}")).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_and_no_other() {
        let table = include_str!("../../../docs/lql/errors.md");
        let documented: Vec<&str> =
            table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        let expected: Vec<String> =
            CODES.iter().map(|(code, meaning)| format!("| {code} | {meaning} |")).collect();
        assert_eq!(documented, expected, "docs/lql/errors.md");
    }

    #[test]
    fn a_code_has_one_meaning() {
        for (index, (code, _)) in CODES.iter().enumerate() {
            assert_eq!(code.len(), 5);
            assert!(CODES[..index].iter().all(|(other, _)| other != code), "{code} stands twice");
        }
    }
}
