//! What the records of the log make, as an immutable value: branches, each with its transactions and the
//! overlay that they amount to. Pure: no files, no threads, no clock.

use std::sync::{Arc, OnceLock};

use rpds::{RedBlackTreeMapSync, VectorSync};
use sha2::{Digest, Sha256};

use super::StoreError;
use super::record::{Assertion, Commit, NAME_BYTES_MAX, Record};
use crate::overlay::{self, Effect, Operation, Overlay, Touched};

/// The branch that every store has.
pub const MAIN: &str = "main";

/// A transaction of a branch.
#[derive(Debug)]
pub struct Transaction {
    /// Its number.
    pub lsn: u64,
    /// What it changed.
    pub commit: Commit,
    /// Of what it changed; few ask for it, and writers do not wait for it.
    digest: OnceLock<([u8; 32], u64)>,
}

impl Transaction {
    fn new(lsn: u64, commit: Commit) -> Self {
        Self { lsn, commit, digest: OnceLock::new() }
    }

    fn digested(&self) -> ([u8; 32], u64) {
        *self.digest.get_or_init(|| digest(&self.commit.operations))
    }

    /// SHA-256 of its operations as they were committed: the same operations have the same.
    pub fn digest(&self) -> [u8; 32] {
        self.commit.digest.unwrap_or_else(|| self.digested().0)
    }

    /// Bytes that its operations take in the log.
    pub fn bytes(&self) -> u64 {
        self.digested().1
    }

    /// The same transaction with other operations that say the same.
    fn rewritten(&self, operations: Arc<[Operation]>) -> Self {
        let digest = Some(self.digest());
        Self::new(self.lsn, Commit { operations, digest, ..self.commit.clone() })
    }

    /// How many of its operations insert, update and delete.
    pub fn effects(&self) -> [(Effect, usize); 3] {
        [Effect::Insert, Effect::Update, Effect::Delete].map(|wanted| {
            let of = |operation: &&Operation| operation.effect() == wanted;
            (wanted, self.commit.operations.iter().filter(of).count())
        })
    }
}

/// The identity of operations in order, and the bytes that they take.
pub fn digest(operations: &[Operation]) -> ([u8; 32], u64) {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    for operation in operations {
        let encoded = overlay::encode(operation);
        bytes += encoded.len() as u64;
        hash.update((encoded.len() as u64).to_le_bytes());
        hash.update(&encoded);
    }
    (hash.finalize().into(), bytes)
}

/// Where a branch comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its parent.
    pub branch: String,
    /// The moment of its parent that it started at.
    pub lsn: u64,
}

/// One line of transactions.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// `None` for `main`.
    pub origin: Option<Origin>,
    /// The LSN that created it; 0 for `main`.
    pub created: u64,
    /// The LSN of its last change.
    pub lsn: u64,
    /// Those that are in force, oldest first.
    transactions: VectorSync<Arc<Transaction>>,
    overlay: Overlay,
    assertions: RedBlackTreeMapSync<String, Arc<Assertion>>,
    /// When each thing was changed last.
    touched: RedBlackTreeMapSync<Touched, u64>,
}

impl Branch {
    fn main() -> Self {
        Self {
            name: MAIN.to_owned(),
            origin: None,
            created: 0,
            lsn: 0,
            transactions: VectorSync::default(),
            overlay: Overlay::default(),
            assertions: RedBlackTreeMapSync::default(),
            touched: RedBlackTreeMapSync::default(),
        }
    }

    /// What its transactions amount to.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The transactions in force, oldest first.
    pub fn transactions(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<Transaction>> + ExactSizeIterator {
        self.transactions.iter()
    }

    /// The patch of that name, if it is in force.
    pub fn patch(&self, name: &str) -> Option<&Arc<Transaction>> {
        self.transactions.iter().find(|one| one.commit.patch.as_deref() == Some(name))
    }

    /// The transaction of that number.
    ///
    /// # Errors
    /// `NoTransaction` when it is not in force.
    pub fn transaction(&self, lsn: u64) -> Result<&Arc<Transaction>, StoreError> {
        let none = || StoreError::NoTransaction { branch: self.name.clone(), lsn };
        self.transactions.iter().find(|one| one.lsn == lsn).ok_or_else(none)
    }

    /// The assertions, by name.
    pub fn assertions(&self) -> impl Iterator<Item = &Arc<Assertion>> {
        self.assertions.values()
    }

    /// The assertion of that name.
    pub fn assertion(&self, name: &str) -> Option<&Arc<Assertion>> {
        self.assertions.get(name)
    }

    /// What some operations of its transactions, by their index in them, would amount to: what BLAME measures.
    pub fn overlay_of(&self, keeps: impl Fn(&Transaction, usize) -> bool) -> Overlay {
        let mut overlay = Overlay::default();
        for transaction in self.transactions.iter() {
            for (index, operation) in transaction.commit.operations.iter().enumerate() {
                if keeps(transaction, index) {
                    overlay.apply(operation, transaction.lsn);
                }
            }
        }
        overlay
    }

    fn touch(&mut self, touched: impl IntoIterator<Item = Touched>, lsn: u64) {
        for one in touched {
            self.touched.insert_mut(one.compared(), lsn);
        }
        self.lsn = lsn;
    }
}

fn apply_all(overlay: &mut Overlay, operations: &[Operation], lsn: u64) {
    operations.iter().for_each(|operation| overlay.apply(operation, lsn));
}

/// Everything that a transaction changes, its name included.
fn touched_by<'a>(
    operations: &'a [Operation],
    patch: Option<&'a str>,
) -> impl Iterator<Item = Touched> + 'a {
    let named = patch.map(|name| Touched::Patch(name.to_owned()));
    operations.iter().flat_map(Operation::touched).chain(named)
}

/// All branches in one moment. A clone costs nothing.
#[derive(Debug, Clone)]
pub struct State {
    /// The moment.
    pub lsn: u64,
    branches: RedBlackTreeMapSync<String, Arc<Branch>>,
}

impl Default for State {
    fn default() -> Self {
        let main = Arc::new(Branch::main());
        let branches = RedBlackTreeMapSync::default().insert(MAIN.to_owned(), main);
        Self { lsn: 0, branches }
    }
}

impl State {
    /// Every branch, by name.
    pub fn branches(&self) -> impl Iterator<Item = &Arc<Branch>> {
        self.branches.values()
    }

    /// The branch of that name.
    ///
    /// # Errors
    /// `NoBranch`.
    pub fn branch(&self, name: &str) -> Result<&Arc<Branch>, StoreError> {
        self.branches.get(name).ok_or_else(|| StoreError::NoBranch(name.to_owned()))
    }

    /// Whether a record, decided upon in the moment `seen`, may still happen. `asserted` is the branch's last
    /// change for which its assertions were found to hold with the record; none where there was none to check.
    ///
    /// # Errors
    /// `Conflict` when somebody changed the same thing since; when it names what is not there, or makes
    /// what is there already; `Unasserted` when assertions have to be checked against what the branch is now.
    pub fn check(
        &self,
        record: &Record,
        seen: u64,
        asserted: Option<u64>,
    ) -> Result<(), StoreError> {
        self.check_decided(record, seen)?;
        let changes_answers =
            matches!(record, Record::Commit(_) | Record::RemovePatch { .. } | Record::Compact(_));
        let branch = match changes_answers {
            true => self.branch(record.branch())?,
            false => return Ok(()),
        };
        if branch.assertions.is_empty() || asserted == Some(branch.lsn) {
            return Ok(());
        }
        Err(StoreError::Unasserted { branch: branch.name.clone(), lsn: branch.lsn })
    }

    fn check_decided(&self, record: &Record, seen: u64) -> Result<(), StoreError> {
        if let Record::CreateBranch { name, from, at, .. } = record {
            check_name("branch", name)?;
            if self.branches.contains_key(name) {
                return Err(StoreError::BranchExists(name.clone()));
            }
            self.branch(from)?;
            return if *at <= self.lsn {
                Ok(())
            } else {
                Err(StoreError::Future { lsn: *at, last: self.lsn })
            };
        }
        let branch = self.branch(record.branch())?;
        let since =
            |touched: &Touched| branch.touched.get(&touched.compared()).filter(|&&lsn| lsn > seen);
        let conflict = |mut all: Box<dyn Iterator<Item = Touched> + '_>| {
            let found = all.find_map(|touched| since(&touched).map(|&lsn| (touched, lsn)));
            found.map_or(Ok(()), |(touched, lsn)| Err(StoreError::Conflict { touched, lsn }))
        };
        if branch.created > seen {
            // Another branch of the same name.
            return Err(StoreError::NoBranch(branch.name.clone()));
        }
        match record {
            Record::Commit(commit) => {
                let patch = commit.patch.as_deref();
                conflict(Box::new(touched_by(&commit.operations, patch)))?;
                let Some(patch) = patch else { return Ok(()) };
                check_name("patch", patch)?;
                match branch.patch(patch) {
                    Some(_) => Err(StoreError::PatchExists {
                        branch: branch.name.clone(),
                        patch: patch.to_owned(),
                    }),
                    None => Ok(()),
                }
            }
            Record::RemovePatch { patch, .. } => match branch.patch(patch) {
                Some(there) => {
                    conflict(Box::new(touched_by(&there.commit.operations, Some(patch))))
                }
                None => {
                    Err(StoreError::NoPatch { branch: branch.name.clone(), patch: patch.clone() })
                }
            },
            Record::Compact(compaction) => {
                for rewrite in &compaction.rewrites {
                    conflict(Box::new(touched_by(&rewrite.operations, None)))?;
                    let there = branch.transaction(rewrite.lsn)?;
                    conflict(Box::new(touched_by(&there.commit.operations, None)))?;
                }
                Ok(())
            }
            Record::DropBranch { name, .. } if name == MAIN => Err(StoreError::MainStays),
            Record::DropBranch { .. } | Record::CreateBranch { .. } => Ok(()),
            Record::CreateAssertion { assertion, .. } => {
                check_name("assertion", &assertion.name)?;
                match branch.assertion(&assertion.name) {
                    Some(_) => Err(StoreError::AssertionExists(assertion.name.clone())),
                    None => Ok(()),
                }
            }
            Record::DropAssertion { name, .. } => match branch.assertion(name) {
                Some(_) => Ok(()),
                None => Err(StoreError::NoAssertion(name.clone())),
            },
        }
    }

    /// The state after a record that [`State::check`] allowed.
    ///
    /// `parent` gives the branch that a new one starts as, in the moment that it starts at.
    ///
    /// # Errors
    /// When it names what is not there: it was not checked, or the log is not of this store.
    pub fn apply(
        &self,
        lsn: u64,
        record: &Record,
        parent: impl FnOnce(&str, u64) -> Result<Arc<Branch>, StoreError>,
    ) -> Result<Self, StoreError> {
        let mut state = self.clone();
        state.lsn = lsn;
        match record {
            Record::CreateBranch { name, from, at, .. } => {
                let mut branch = Branch::clone(&*parent(from, *at)?);
                branch.origin = Some(Origin { branch: from.clone(), lsn: *at });
                branch.name.clone_from(name);
                (branch.created, branch.lsn) = (lsn, lsn);
                state.branches.insert_mut(name.clone(), Arc::new(branch));
                return Ok(state);
            }
            Record::DropBranch { name, .. } => {
                state.branch(name)?;
                state.branches.remove_mut(name);
                return Ok(state);
            }
            _ => {}
        }
        let mut branch = Branch::clone(&**state.branch(record.branch())?);
        match record {
            Record::Commit(commit) => {
                apply_all(&mut branch.overlay, &commit.operations, lsn);
                branch.touch(touched_by(&commit.operations, commit.patch.as_deref()), lsn);
                branch.transactions.push_back_mut(Arc::new(Transaction::new(lsn, commit.clone())));
            }
            Record::RemovePatch { patch, .. } => {
                let removed = branch.patch(patch).cloned().ok_or_else(|| StoreError::NoPatch {
                    branch: branch.name.clone(),
                    patch: patch.clone(),
                })?;
                branch.overlay = branch.overlay_of(|one, _| one.lsn != removed.lsn);
                let left = branch.transactions.iter().filter(|one| one.lsn != removed.lsn);
                branch.transactions = left.cloned().collect();
                branch.touch(touched_by(&removed.commit.operations, Some(patch)), lsn);
            }
            Record::CreateAssertion { assertion, .. } => {
                branch.assertions.insert_mut(assertion.name.clone(), Arc::new(assertion.clone()));
                branch.touch([Touched::Assertion(assertion.name.clone())], lsn);
            }
            Record::DropAssertion { name, .. } => {
                branch.assertions.remove_mut(name);
                branch.touch([Touched::Assertion(name.clone())], lsn);
            }
            Record::Compact(compaction) => {
                for rewrite in &compaction.rewrites {
                    let before = branch.transaction(rewrite.lsn)?.clone();
                    let after = Arc::new(before.rewritten(rewrite.operations.clone()));
                    branch.touch(touched_by(&before.commit.operations, None), lsn);
                    branch.touch(touched_by(&rewrite.operations, None), lsn);
                    let all = branch.transactions.iter();
                    let replaced = |one: &Arc<Transaction>| one.lsn == rewrite.lsn;
                    let all = all.map(|one| if replaced(one) { &after } else { one });
                    branch.transactions = all.cloned().collect();
                }
                branch.overlay = branch.overlay_of(|_, _| true);
                branch.lsn = lsn;
            }
            Record::CreateBranch { .. } | Record::DropBranch { .. } => {}
        }
        state.branches.insert_mut(branch.name.clone(), Arc::new(branch));
        Ok(state)
    }
}

/// Refuses a name that could not be written again.
fn check_name(what: &'static str, name: &str) -> Result<(), StoreError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(StoreError::Name { what, name: name.chars().take(40).collect(), problem })
}
