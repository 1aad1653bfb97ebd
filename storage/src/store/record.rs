//! What the log says: commits, what takes them back, branches and assertions.

use std::sync::Arc;

use prost::Message;

use crate::overlay::{self, DecodeError, Operation, Problem};

/// Longest name of a branch, patch or assertion.
pub const NAME_BYTES_MAX: usize = 255;

/// Most operations of one transaction.
pub const OPERATIONS_MAX: usize = 1 << 20;

/// Most bytes of a statement that are kept with what it did.
const STATEMENT_BYTES_MAX: usize = 4096;

/// Where a change comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Who made it.
    pub author: String,
    /// When, in milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// By which statement, cut at some length.
    pub statement: String,
    /// For which base it was made.
    pub base_hash: String,
}

impl Provenance {
    /// The same with a statement of bounded length.
    pub fn bounded(mut self) -> Self {
        if self.statement.len() > STATEMENT_BYTES_MAX {
            let mut end = STATEMENT_BYTES_MAX;
            while !self.statement.is_char_boundary(end) {
                end -= 1;
            }
            self.statement.truncate(end);
        }
        self
    }
}

/// Operations that become visible together.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The branch.
    pub branch: String,
    /// The patch that they are, if they have a name.
    pub patch: Option<String>,
    /// In order.
    pub operations: Arc<[Operation]>,
    /// Where they come from.
    pub provenance: Provenance,
    /// The digest that they had when they were committed, where a compaction changed them since.
    pub digest: Option<[u8; 32]>,
}

/// What a transaction's operations are replaced by, which say the same in another tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewrite {
    /// The transaction.
    pub lsn: u64,
    /// All of its operations from now on, in order.
    pub operations: Arc<[Operation]>,
}

/// What a compaction was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionKind {
    /// COMPACT MINOR.
    Minor,
    /// COMPACT MAJOR.
    Major,
    /// A checkpoint left out what was taken back, and put this in the place of what took it back.
    Forgotten,
}

impl CompactionKind {
    const ALL: [Self; 3] = [Self::Minor, Self::Major, Self::Forgotten];

    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// Facts move down a tier: transactions keep their numbers, names and provenance, so that each can be taken
/// back as before.
#[derive(Debug, Clone, PartialEq)]
pub struct Compaction {
    /// The branch.
    pub branch: String,
    /// What it was.
    pub kind: CompactionKind,
    /// In the order of the transactions; none that a later checkpoint has put into the transaction itself.
    pub rewrites: Vec<Rewrite>,
    /// By whom and when.
    pub provenance: Provenance,
}

/// What an INFER should answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// Its name.
    pub name: String,
    /// The prompt.
    pub prompt: String,
    /// The expected answer.
    pub expected: String,
    /// The least probability.
    pub at_least: Option<f64>,
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// Operations become visible.
    Commit(Commit),
    /// A patch is taken back.
    RemovePatch {
        /// The branch.
        branch: String,
        /// The patch.
        patch: String,
        /// By whom and when.
        provenance: Provenance,
    },
    /// A branch begins.
    CreateBranch {
        /// Its name.
        name: String,
        /// The branch it starts as.
        from: String,
        /// That branch's moment it starts at.
        at: u64,
        /// By whom and when.
        provenance: Provenance,
    },
    /// A branch ends.
    DropBranch {
        /// Its name.
        name: String,
        /// By whom and when.
        provenance: Provenance,
    },
    /// An assertion is made, replacing none.
    CreateAssertion {
        /// The branch.
        branch: String,
        /// The assertion.
        assertion: Assertion,
    },
    /// An assertion is no more.
    DropAssertion {
        /// The branch.
        branch: String,
        /// Its name.
        name: String,
    },
    /// Transactions are kept otherwise.
    Compact(Compaction),
}

#[derive(Clone, PartialEq, Message)]
struct ProvenanceMessage {
    #[prost(string, tag = "1")]
    author: String,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    #[prost(string, tag = "3")]
    statement: String,
    #[prost(string, tag = "4")]
    base_hash: String,
}

#[derive(Clone, PartialEq, Message)]
struct CommitMessage {
    #[prost(string, tag = "1")]
    branch: String,
    #[prost(string, optional, tag = "2")]
    patch: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    operations: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "4")]
    provenance: Option<ProvenanceMessage>,
    #[prost(bytes = "vec", optional, tag = "5")]
    digest: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct RewriteMessage {
    #[prost(uint64, tag = "1")]
    lsn: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    operations: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct CompactionMessage {
    #[prost(string, tag = "1")]
    branch: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(message, repeated, tag = "3")]
    rewrites: Vec<RewriteMessage>,
    #[prost(message, optional, tag = "4")]
    provenance: Option<ProvenanceMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct BranchMessage {
    #[prost(string, tag = "1")]
    branch: String,
    /// The patch of a removal, the parent of a branch, the name of an assertion.
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(message, optional, tag = "4")]
    provenance: Option<ProvenanceMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AssertionMessage {
    #[prost(string, tag = "1")]
    branch: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    prompt: String,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(double, optional, tag = "5")]
    at_least: Option<f64>,
}

/// The numbers of kinds on disk.
mod kind {
    pub(super) const COMMIT: u8 = 1;
    pub(super) const REMOVE_PATCH: u8 = 2;
    pub(super) const CREATE_BRANCH: u8 = 3;
    pub(super) const DROP_BRANCH: u8 = 4;
    pub(super) const CREATE_ASSERTION: u8 = 5;
    pub(super) const DROP_ASSERTION: u8 = 6;
    pub(super) const COMPACT: u8 = 7;
}

impl From<&Provenance> for ProvenanceMessage {
    fn from(from: &Provenance) -> Self {
        Self {
            author: from.author.clone(),
            at_ms: from.at_ms,
            statement: from.statement.clone(),
            base_hash: from.base_hash.clone(),
        }
    }
}

fn provenance(message: Option<ProvenanceMessage>) -> Provenance {
    let message = message.unwrap_or_default();
    Provenance {
        author: message.author,
        at_ms: message.at_ms,
        statement: message.statement,
        base_hash: message.base_hash,
    }
    .bounded()
}

/// Operations as many as a transaction may have.
fn operations(encoded: &[Vec<u8>]) -> Result<Arc<[Operation]>, DecodeError> {
    if encoded.len() > OPERATIONS_MAX {
        return Err(DecodeError::Unknown("has too many operations"));
    }
    encoded.iter().map(|bytes| overlay::decode(bytes)).collect()
}

impl Record {
    /// The record as a kind and a payload.
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        let branch =
            |branch: &str, name: &str, at, provenance: Option<&Provenance>| BranchMessage {
                branch: branch.to_owned(),
                name: name.to_owned(),
                at,
                provenance: provenance.map(Into::into),
            };
        match self {
            Self::Commit(commit) => {
                let message = CommitMessage {
                    branch: commit.branch.clone(),
                    patch: commit.patch.clone(),
                    operations: commit.operations.iter().map(overlay::encode).collect(),
                    provenance: Some((&commit.provenance).into()),
                    digest: commit.digest.map(Vec::from),
                };
                (kind::COMMIT, message.encode_to_vec())
            }
            Self::Compact(compaction) => {
                let rewrites = compaction.rewrites.iter().map(|one| RewriteMessage {
                    lsn: one.lsn,
                    operations: one.operations.iter().map(overlay::encode).collect(),
                });
                let message = CompactionMessage {
                    branch: compaction.branch.clone(),
                    kind: compaction.kind.number(),
                    rewrites: rewrites.collect(),
                    provenance: Some((&compaction.provenance).into()),
                };
                (kind::COMPACT, message.encode_to_vec())
            }
            Self::RemovePatch { branch: of, patch, provenance } => {
                (kind::REMOVE_PATCH, branch(of, patch, 0, Some(provenance)).encode_to_vec())
            }
            Self::CreateBranch { name, from, at, provenance } => {
                (kind::CREATE_BRANCH, branch(name, from, *at, Some(provenance)).encode_to_vec())
            }
            Self::DropBranch { name, provenance } => {
                (kind::DROP_BRANCH, branch(name, "", 0, Some(provenance)).encode_to_vec())
            }
            Self::CreateAssertion { branch, assertion } => {
                let message = AssertionMessage {
                    branch: branch.clone(),
                    name: assertion.name.clone(),
                    prompt: assertion.prompt.clone(),
                    expected: assertion.expected.clone(),
                    at_least: assertion.at_least,
                };
                (kind::CREATE_ASSERTION, message.encode_to_vec())
            }
            Self::DropAssertion { branch: of, name } => {
                (kind::DROP_ASSERTION, branch(of, name, 0, None).encode_to_vec())
            }
        }
    }

    /// The record of such a kind and payload.
    ///
    /// # Errors
    /// When they are none, or one that makes no sense.
    pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let record = match kind {
            kind::COMMIT => {
                let message = CommitMessage::decode(payload)?;
                let digest = message.digest.map(<[u8; 32]>::try_from).transpose();
                Self::Commit(Commit {
                    branch: message.branch,
                    patch: message.patch,
                    operations: operations(&message.operations)?,
                    provenance: provenance(message.provenance),
                    digest: digest
                        .map_err(|_| DecodeError::Unknown("has a digest that is none"))?,
                })
            }
            kind::COMPACT => {
                let message = CompactionMessage::decode(payload)?;
                let rewrites = message.rewrites.iter().map(|one| {
                    Ok(Rewrite { lsn: one.lsn, operations: operations(&one.operations)? })
                });
                Self::Compact(Compaction {
                    branch: message.branch,
                    kind: CompactionKind::of_number(message.kind)
                        .ok_or(DecodeError::Unknown("is an unknown kind of compaction"))?,
                    rewrites: rewrites.collect::<Result<_, DecodeError>>()?,
                    provenance: provenance(message.provenance),
                })
            }
            kind::CREATE_ASSERTION => {
                let message = AssertionMessage::decode(payload)?;
                let assertion = Assertion {
                    name: message.name,
                    prompt: message.prompt,
                    expected: message.expected,
                    at_least: message.at_least,
                };
                Self::CreateAssertion { branch: message.branch, assertion }
            }
            kind::REMOVE_PATCH | kind::CREATE_BRANCH | kind::DROP_BRANCH | kind::DROP_ASSERTION => {
                let message = BranchMessage::decode(payload)?;
                let (branch, name) = (message.branch, message.name);
                let provenance = provenance(message.provenance);
                match kind {
                    kind::REMOVE_PATCH => Self::RemovePatch { branch, patch: name, provenance },
                    kind::CREATE_BRANCH => {
                        Self::CreateBranch { name: branch, from: name, at: message.at, provenance }
                    }
                    kind::DROP_BRANCH => Self::DropBranch { name: branch, provenance },
                    _ => Self::DropAssertion { branch, name },
                }
            }
            _ => return Err(DecodeError::Unknown("is of a kind that this version does not know")),
        };
        Ok(record)
    }

    /// Refuses what could be written and not be read again.
    ///
    /// # Errors
    /// The first operation that is none, or that there are more than a transaction may have.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let checked = |operations: &[Operation]| {
            if operations.len() > OPERATIONS_MAX {
                let problem = format!("{}, the most is {OPERATIONS_MAX}", operations.len());
                return Err(Problem { what: "operations of one transaction", problem });
            }
            operations.iter().try_for_each(Operation::check)
        };
        match self {
            Self::Commit(commit) => checked(&commit.operations),
            Self::Compact(compaction) => {
                compaction.rewrites.iter().try_for_each(|rewrite| checked(&rewrite.operations))
            }
            _ => Ok(()),
        }
    }

    /// The branch that it changes.
    pub fn branch(&self) -> &str {
        match self {
            Self::Commit(commit) => &commit.branch,
            Self::Compact(compaction) => &compaction.branch,
            Self::RemovePatch { branch, .. }
            | Self::CreateAssertion { branch, .. }
            | Self::DropAssertion { branch, .. } => branch,
            Self::CreateBranch { name, .. } | Self::DropBranch { name, .. } => name,
        }
    }

    /// What it is called in `larql.wal`.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Commit(_) => "commit",
            Self::RemovePatch { .. } => "remove patch",
            Self::CreateBranch { .. } => "create branch",
            Self::DropBranch { .. } => "drop branch",
            Self::CreateAssertion { .. } => "create assertion",
            Self::DropAssertion { .. } => "drop assertion",
            Self::Compact(compaction) => match compaction.kind {
                CompactionKind::Minor => "compact minor",
                CompactionKind::Major => "compact major",
                CompactionKind::Forgotten => "forgotten",
            },
        }
    }

    /// Where it comes from, for those that say.
    pub fn provenance(&self) -> Option<&Provenance> {
        match self {
            Self::Commit(commit) => Some(&commit.provenance),
            Self::Compact(compaction) => Some(&compaction.provenance),
            Self::RemovePatch { provenance, .. }
            | Self::CreateBranch { provenance, .. }
            | Self::DropBranch { provenance, .. } => Some(provenance),
            Self::CreateAssertion { .. } | Self::DropAssertion { .. } => None,
        }
    }
}
