//! What one statement sees of a base's edits.

use std::sync::Arc;

use larql_planner::syntax::ast::Moment;
use larql_storage::overlay::{Operation, Overlay};
use larql_storage::store::{Branch, History, MAIN, State, Store, StoreError};

use super::PatchPlace;
use crate::failure::{Failure, code};

/// What makes one state of edits the same as another, of one base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The branch.
    pub branch: Arc<str>,
    /// The LSN of the branch's last change.
    pub lsn: u64,
    /// A number that no other view has, where a transaction changed something; else 0.
    pub pending: u64,
}

/// A branch in one moment, and what the session's transaction did above it.
#[derive(Debug, Clone)]
pub struct View {
    identity: Identity,
    /// The moment that was looked at: later changes of others conflict with what is decided now.
    seen: u64,
    /// The first moment that may be asked for.
    first: u64,
    /// `None` where nothing was ever edited.
    history: Option<Arc<History>>,
    branch: Option<Arc<Branch>>,
    overlay: Overlay,
}

impl Default for View {
    fn default() -> Self {
        let identity = Identity { branch: MAIN.into(), lsn: 0, pending: 0 };
        Self {
            identity,
            seen: 0,
            first: 0,
            history: None,
            branch: None,
            overlay: Overlay::default(),
        }
    }
}

impl View {
    /// The view of a base without a store.
    ///
    /// # Errors
    /// `UNDEFINED_OBJECT` for a branch other than `main`.
    pub(super) fn unedited(branch: &str) -> Result<Self, Failure> {
        if branch == MAIN { Ok(Self::default()) } else { Err(no_branch(branch)) }
    }

    /// The view of a branch now.
    pub(super) fn now(store: &Store, branch: &str, history_lsns: u64) -> Result<Self, Failure> {
        let history = store.history();
        let state = history.state().clone();
        let branch = state.branch(branch)?.clone();
        let latest = match history_lsns {
            0 => 0,
            count => state.lsn.saturating_sub(count),
        };
        let first = history.first().max(latest);
        Ok(Self::of(history, branch, state.lsn, first))
    }

    fn of(history: Arc<History>, branch: Arc<Branch>, seen: u64, first: u64) -> Self {
        let identity =
            Identity { branch: branch.name.as_str().into(), lsn: branch.lsn, pending: 0 };
        let overlay = branch.overlay().clone();
        Self { identity, seen, first, history: Some(history), branch: Some(branch), overlay }
    }

    /// The same branch in a moment of the past; before it began, its origin.
    ///
    /// # Errors
    /// `HISTORY` for a moment that is not kept or has not been, `UNDEFINED_OBJECT` for a patch that is not applied.
    pub fn as_of(&self, moment: &Moment) -> Result<Self, Failure> {
        let lsn = match moment {
            Moment::Lsn(lsn) => *lsn,
            Moment::Patch(name) => {
                let name = PatchPlace::name_of(&name.value);
                let patch = self.branch.as_ref().and_then(|branch| branch.patch(&name).cloned());
                let none = || StoreError::NoPatch {
                    branch: self.identity.branch.to_string(),
                    patch: name.clone(),
                };
                patch.ok_or_else(none)?.lsn
            }
        };
        let Some(history) = &self.history else {
            return if lsn == 0 {
                Ok(Self::default())
            } else {
                Err(StoreError::Future { lsn, last: 0 }.into())
            };
        };
        if lsn < self.first {
            return Err(StoreError::Forgotten { lsn, first: self.first }.into());
        }
        let state = history.as_of(lsn)?;
        let branch = self.branch_in(&state)?;
        Ok(Self::of(history.clone(), branch, lsn, self.first))
    }

    /// The view's branch in another state, or where it came from.
    fn branch_in(&self, state: &State) -> Result<Arc<Branch>, Failure> {
        let mut now = self.branch.clone();
        while let Some(branch) = now {
            if let Ok(found) = state.branch(&branch.name) {
                return Ok(found.clone());
            }
            let history = self.history.as_ref().map(|history| history.state());
            now = branch.origin.as_ref().and_then(|origin| {
                state.branch(&origin.branch).ok().or(history?.branch(&origin.branch).ok()).cloned()
            });
        }
        Err(no_branch(&self.identity.branch))
    }

    /// The view with operations that are not committed.
    pub(super) fn with_pending(&self, operations: &[Operation], number: u64) -> Self {
        let mut view = self.clone();
        // Like the LSN that they will have: above all that there are.
        operations.iter().for_each(|operation| view.overlay.apply(operation, u64::MAX));
        view.identity.pending = if operations.is_empty() { 0 } else { number };
        view
    }

    /// What the edits amount to.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// What tells it from other views of its base.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The moment that decisions made on this view refer to.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The branch as it was committed; `None` where nothing was ever edited.
    pub fn branch(&self) -> Option<&Arc<Branch>> {
        self.branch.as_ref()
    }

    /// Every moment up to this view's; `None` where nothing was ever edited.
    pub fn history(&self) -> Option<&Arc<History>> {
        self.history.as_ref()
    }
}

fn no_branch(branch: &str) -> Failure {
    let message = format!("there is no branch \"{branch}\"");
    Failure::new(code::UNDEFINED_OBJECT, message)
        .hint("USE CURRENT BRANCH main; SHOW BRANCHES then lists those that there are")
}
