//! Errors of the other crates as failures: one cause, one code.

use std::io;
use std::path::Path;

use larql_compute::cpu::{Cancelled, Reason};
use larql_compute::model::{ArchitectureError, DecodeError};
use larql_compute::sample::SampleError;
use larql_planner::PlanError;
use larql_planner::syntax::{Span, SyntaxError};
use larql_storage::catalog::CatalogError;
use larql_storage::checkpoint::{CheckpointError, CheckpointWriteError};
use larql_storage::file::NewFileError;
use larql_storage::patch::PatchError;
use larql_storage::store::StoreError;
use larql_storage::vindex::{IndexError, KnowledgeError, VindexError, VindexWriteError};
use larql_storage::wal::WalError;

use super::{CODES, Failure, code};
use crate::text::{ChatTemplateError, GuideError, TextError};

/// The daemon's own constant for a code of the planner.
fn known(found: &'static str) -> &'static str {
    CODES.iter().map(|(code, _)| *code).find(|&code| code == found).unwrap_or(code::INTERNAL)
}

fn at(failure: Failure, span: Option<Span>) -> Failure {
    match span {
        Some(span) => failure.at(span.start as usize..span.end as usize),
        None => failure,
    }
}

/// The code of a failed read or write.
fn io_code(error: &io::Error) -> &'static str {
    Failure::io("", error).code
}

impl From<SyntaxError> for Failure {
    fn from(error: SyntaxError) -> Self {
        let failure =
            Self::new(known(error.code), error.message).hint(error.hint.unwrap_or_default());
        at(failure, Some(error.span))
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let failure = Self::new(known(error.code()), error.to_string())
            .hint(error.hint().unwrap_or_default());
        at(failure, error.span())
    }
}

impl From<Cancelled> for Failure {
    fn from(cancelled: Cancelled) -> Self {
        match cancelled.reason {
            Reason::Cancel => Self::cancelled(),
            Reason::Deadline => Self::new(code::CANCELLED, "the deadline passed")
                .hint("allow more time, or narrow the statement"),
        }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let code = match &error {
            DecodeError::Cancelled(cancelled) => return (*cancelled).into(),
            DecodeError::MissingTensor { .. } => code::MISSING_COMPONENT,
            DecodeError::Shape { .. } => code::UNSUPPORTED_FORMAT,
            DecodeError::EmptyPrompt => code::EMPTY_TEXT,
            DecodeError::TokenOutOfRange { .. } => code::INVALID_PARAMETER,
            DecodeError::ContextFull { .. } | DecodeError::Memory { .. } => code::LIMIT,
            DecodeError::PagesExhausted { .. } => code::OVERLOADED,
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NewFileError> for Failure {
    fn from(error: NewFileError) -> Self {
        match error {
            NewFileError::Io { path, source, .. } => Self::io(path.display(), &source),
            error @ NewFileError::Exists { .. } => Self::new(code::EXISTS, error.to_string())
                .hint("name another file, or remove that one"),
            error @ NewFileError::Busy { .. } => {
                Self::new(code::BUSY, error.to_string()).hint("name another file")
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Conflict { .. }
            | StoreError::NoTransaction { .. }
            | StoreError::Unasserted { .. } => code::CONFLICT,
            StoreError::NoBranch(_) | StoreError::NoPatch { .. } | StoreError::NoAssertion(_) => {
                code::UNDEFINED_OBJECT
            }
            StoreError::BranchExists(_)
            | StoreError::PatchExists { .. }
            | StoreError::AssertionExists(_)
            | StoreError::NotEmpty { .. } => code::EXISTS,
            StoreError::MainStays | StoreError::Name { .. } | StoreError::Operation(_) => {
                code::INVALID_PARAMETER
            }
            StoreError::Forgotten { .. } | StoreError::Future { .. } => code::HISTORY,
            StoreError::Record { .. } | StoreError::Format { .. } => code::DAMAGED,
            StoreError::Wal(error) => wal_code(error),
            StoreError::NotDurable(error) => wal_code(error),
            StoreError::Io { source, .. } => io_code(source),
            StoreError::NoCheckpoint(error) => match &**error {
                StoreError::Io { source, .. } => io_code(source),
                _ => code::IO,
            },
            StoreError::Closed => code::SHUTTING_DOWN,
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

fn wal_code(error: &WalError) -> &'static str {
    match error {
        WalError::Lost(_) | WalError::Mark { .. } => code::DAMAGED,
        WalError::TooLarge { .. } => code::LIMIT,
        WalError::Locked { .. } => code::BUSY,
        WalError::Segment { source, .. } | WalError::Io { source, .. } => io_code(source),
        _ => code::IO,
    }
}

impl Failure {
    /// A patch's file cannot be applied.
    pub fn patch(path: &Path, error: &PatchError) -> Self {
        let (code, hint) = match error {
            PatchError::OtherBase { .. } => {
                (code::OTHER_BASE, "USE the model that it was made for, or APPLY it with FORCE")
            }
            PatchError::Version(_) => (code::UNSUPPORTED_FORMAT, "update larqld"),
            _ => (code::BAD_FILE, "docs/formats/vlp.md says what a patch holds"),
        };
        Self::new(code, format!("{} {error}", path.display())).hint(hint)
    }
}

impl From<SampleError> for Failure {
    fn from(error: SampleError) -> Self {
        let code = match error {
            SampleError::NotFinite { .. } | SampleError::NoToken { .. } => code::DAMAGED,
            _ => code::INVALID_PARAMETER,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<ArchitectureError> for Failure {
    fn from(error: ArchitectureError) -> Self {
        let hint = match &error {
            ArchitectureError::Json { .. }
            | ArchitectureError::Missing { .. }
            | ArchitectureError::Invalid { .. } => "download config.json again, or correct it",
            _ => "this version cannot run the model: take one of a supported family",
        };
        Self::new(code::UNSUPPORTED_FORMAT, error.to_string()).hint(hint)
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        let code = match error {
            TextError::Unreadable(_) | TextError::NoBytes(_) => code::UNSUPPORTED_FORMAT,
            TextError::Refused(_) | TextError::Failed => code::INVALID_PARAMETER,
        };
        Self::new(code, error.to_string())
    }
}

impl From<GuideError> for Failure {
    fn from(error: GuideError) -> Self {
        let code = match &error {
            GuideError::Unusable { .. } => code::INVALID_PARAMETER,
            GuideError::TooLarge { .. } | GuideError::TooDeep { .. } | GuideError::Limit(_) => {
                code::LIMIT
            }
            GuideError::Tokenizer(_) => code::UNSUPPORTED_FORMAT,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<ChatTemplateError> for Failure {
    fn from(error: ChatTemplateError) -> Self {
        let code = match &error {
            ChatTemplateError::Absent => code::MISSING_COMPONENT,
            ChatTemplateError::Configuration(_) | ChatTemplateError::Template(_) => {
                code::UNSUPPORTED_FORMAT
            }
            ChatTemplateError::Refused(_)
            | ChatTemplateError::Limit(_)
            | ChatTemplateError::NoThinking
            | ChatTemplateError::NoTools => code::INVALID_PARAMETER,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        let code = match &error {
            CheckpointError::NoSuchPath { .. } | CheckpointError::MissingFile { .. } => {
                code::NO_SUCH_FILE
            }
            CheckpointError::NoWeights { .. }
            | CheckpointError::NoIndex { .. }
            | CheckpointError::SeveralModels { .. } => code::UNSUPPORTED_FORMAT,
            CheckpointError::Io { source, .. } => io_code(source),
            _ => code::DAMAGED,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<CheckpointWriteError> for Failure {
    fn from(error: CheckpointWriteError) -> Self {
        let code = match &error {
            CheckpointWriteError::DestinationExists { .. }
            | CheckpointWriteError::DestinationIsNotAModel { .. }
            | CheckpointWriteError::StagingOccupied { .. } => code::EXISTS,
            CheckpointWriteError::Busy { .. } => code::BUSY,
            CheckpointWriteError::FileName { .. } => code::INVALID_PARAMETER,
            CheckpointWriteError::Tensor { .. } => code::UNSUPPORTED_FORMAT,
            CheckpointWriteError::Io { source, .. } => {
                // Whoever gives the bytes may have been told to stop.
                let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Cancelled>());
                if let Some(cancelled) = inner {
                    return (*cancelled).into();
                }
                io_code(source)
            }
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<KnowledgeError> for Failure {
    fn from(error: KnowledgeError) -> Self {
        let code = match &error {
            KnowledgeError::Io { source, .. } => io_code(source),
            KnowledgeError::Version { .. } => code::UNSUPPORTED_FORMAT,
            _ => code::DAMAGED,
        };
        let hint = match &error {
            KnowledgeError::Io { .. } => "check the directory's permissions and free space",
            _ => "remove the file and LABEL again; the weights are not affected",
        };
        let message = match &error {
            KnowledgeError::Io { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        Self::new(code, message).hint(hint)
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        let (code, hint) = match &error {
            IndexError::Io { source, .. } => {
                (io_code(source), "check the directory's permissions and free space")
            }
            IndexError::Busy { .. } => (code::BUSY, "wait for its end"),
            _ => (code::DAMAGED, "ANALYZE makes it anew; the weights are not affected"),
        };
        let message = match &error {
            IndexError::Io { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        Self::new(code, message).hint(hint)
    }
}

impl From<VindexError> for Failure {
    fn from(error: VindexError) -> Self {
        let code = match &error {
            VindexError::NoSuchDirectory { .. } => code::NO_SUCH_FILE,
            VindexError::NotAVindex { .. }
            | VindexError::Unfinished { .. }
            | VindexError::UnsupportedVersion { .. } => code::UNSUPPORTED_FORMAT,
            VindexError::Io { source, .. } => io_code(source),
            _ => code::DAMAGED,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<VindexWriteError> for Failure {
    fn from(error: VindexWriteError) -> Self {
        let code = match &error {
            VindexWriteError::DestinationExists { .. }
            | VindexWriteError::DestinationIsNotAVindex { .. } => code::EXISTS,
            VindexWriteError::Busy { .. } => code::BUSY,
            VindexWriteError::FingerprintMismatch { .. } => code::INVALID_PARAMETER,
            VindexWriteError::Staging { .. } => code::DAMAGED,
            VindexWriteError::Io { source, .. } => io_code(source),
            VindexWriteError::Poisoned => code::IO,
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::Locked { .. } => code::BUSY,
            CatalogError::Damaged { .. } | CatalogError::DamagedRecord { .. } => code::DAMAGED,
            CatalogError::TooLarge { .. } => code::LIMIT,
            CatalogError::Io { source, .. } => io_code(source),
            _ => code::IO,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}
