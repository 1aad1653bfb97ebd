//! Every moment of a store, from its records: the state now, and any state before.
//!
//! Records are kept as long as history is; a state is kept every so many of them, so that a moment of the
//! past is a short replay away. Clones share what they have in common.

use std::collections::HashMap;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, VectorSync};

use super::StoreError;
use super::record::{Compaction, CompactionKind, Record};
use super::state::{State, Transaction};

/// Records between two states that are kept.
const STRIDE: usize = 128;

/// A record under its number.
pub type Numbered = (u64, Arc<Record>);

/// What there is and was.
#[derive(Debug, Clone)]
pub struct History {
    records: VectorSync<Numbered>,
    /// By LSN; the first is the empty one, at 0.
    kept: RedBlackTreeMapSync<u64, State>,
    state: State,
    /// The first moment that may be asked for.
    first: u64,
}

impl Default for History {
    fn default() -> Self {
        let state = State::default();
        let kept = RedBlackTreeMapSync::default().insert(0, state.clone());
        Self { records: VectorSync::default(), kept, state, first: 0 }
    }
}

impl History {
    /// The empty history that begins at a moment: what was before it is not told.
    pub(super) fn beginning_at(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// The state now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Numbered> + ExactSizeIterator {
        self.records.iter()
    }

    /// The first moment that can be asked for.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The state in a moment of the past.
    ///
    /// # Errors
    /// `Forgotten`, `Future`.
    pub fn as_of(&self, lsn: u64) -> Result<State, StoreError> {
        if lsn < self.first {
            return Err(StoreError::Forgotten { lsn, first: self.first });
        }
        if lsn > self.state.lsn {
            return Err(StoreError::Future { lsn, last: self.state.lsn });
        }
        self.replay(lsn)
    }

    fn replay(&self, lsn: u64) -> Result<State, StoreError> {
        if lsn >= self.state.lsn {
            return Ok(self.state.clone());
        }
        let (_, nearest) = self.kept.range(..=lsn).next_back().expect("the empty state is kept");
        let mut state = nearest.clone();
        let after = self.position_after(nearest.lsn);
        for (number, record) in (after..).map_while(|at| self.records.get(at)) {
            if *number > lsn {
                break;
            }
            state = self.applied(&state, *number, record)?;
        }
        state.lsn = lsn;
        Ok(state)
    }

    /// The index of the first record above a number.
    fn position_after(&self, lsn: u64) -> usize {
        let (mut low, mut high) = (0, self.records.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.records[middle].0 <= lsn { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn applied(&self, state: &State, lsn: u64, record: &Record) -> Result<State, StoreError> {
        state.apply(lsn, record, |branch, at| {
            // Of its own moment the state is at hand: a replay would come here again.
            if at >= state.lsn {
                return state.branch(branch).cloned();
            }
            self.replay(at)?.branch(branch).cloned()
        })
    }

    /// Says that everything up to a number is told, records that were left out included.
    pub(super) fn advance_to(&mut self, lsn: u64) {
        self.state.lsn = self.state.lsn.max(lsn);
    }

    /// Adds one more record.
    ///
    /// # Errors
    /// As [`State::apply`]; it is then what it was.
    pub fn push(&mut self, lsn: u64, record: Arc<Record>) -> Result<(), StoreError> {
        self.state = self.applied(&self.state, lsn, &record)?;
        self.records.push_back_mut((lsn, record));
        if self.records.len().is_multiple_of(STRIDE) {
            self.kept.insert_mut(lsn, self.state.clone());
        }
        Ok(())
    }

    /// The records without which nothing would be different from now on: patches that no branch has any
    /// more are left out, and what removed them, and transactions are as compactions left them.
    ///
    /// # Errors
    /// As [`State::apply`]; never for a history that exists.
    pub(super) fn condensed(&self) -> Result<Vec<Numbered>, StoreError> {
        // What branches have of each transaction now; none where they differ.
        let mut alive: HashMap<u64, Option<&Arc<Transaction>>> = HashMap::new();
        for one in self.state.branches().flat_map(|branch| branch.transactions()) {
            let known = alive.entry(one.lsn).or_insert(Some(one));
            if known.is_some_and(|known| !Arc::ptr_eq(known, one)) {
                *known = None;
            }
        }
        let mut condensed = Vec::new();
        for (lsn, record) in self.records() {
            let wanted = match &**record {
                Record::Commit(_) => match alive.get(lsn) {
                    None => continue,
                    // As compactions left it, so that nothing of what it was is kept.
                    Some(Some(now)) => Arc::new(Record::Commit(now.commit.clone())),
                    Some(None) => record.clone(),
                },
                Record::Compact(compaction) => {
                    let mut compaction = compaction.clone();
                    compaction.rewrites.retain(|one| matches!(alive.get(&one.lsn), Some(None)));
                    Arc::new(Record::Compact(compaction))
                }
                Record::RemovePatch { branch, patch, provenance } => {
                    let before = self.replay(lsn - 1)?;
                    match before.branch(branch)?.patch(patch) {
                        Some(removed) if alive.contains_key(&removed.lsn) => record.clone(),
                        // The branch keeps its last change: no two states of it have one number.
                        _ if self.state.branch(branch).is_ok_and(|now| now.lsn > *lsn) => continue,
                        _ => Arc::new(Record::Compact(Compaction {
                            branch: branch.clone(),
                            kind: CompactionKind::Forgotten,
                            rewrites: Vec::new(),
                            provenance: provenance.clone(),
                        })),
                    }
                }
                _ => record.clone(),
            };
            condensed.push((*lsn, wanted));
        }
        Ok(condensed)
    }
}
