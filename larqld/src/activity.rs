//! Who is connected, what runs, and what ran lately: what SHOW SESSIONS, `larql.statements` and KILL see.
//!
//! Sessions are known for as long as they are open. Statements that ended stay in a list of bounded
//! length, their texts cut, so that however much a daemon answers, this takes no more memory.
//!
//! Elsewhere: who may see whose (`exec/sessions`), how a session ends (`session`, `server/grpc`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::session::Principal;

/// Statements that are remembered after their end.
const RECENT_MAX: usize = 256;
/// Characters of a statement that are kept.
const TEXT_CHARACTERS_MAX: usize = 1000;

/// A statement that runs or ran.
#[derive(Debug, Clone)]
pub struct StatementRecord {
    /// The session's number.
    pub session: u64,
    /// Whose it is.
    pub principal: Principal,
    /// As it was written, cut where it is long.
    pub text: String,
    /// When it began.
    pub began: Instant,
    /// How it ended; `None` while it runs.
    pub ended: Option<StatementEnd>,
}

/// How a statement ended.
#[derive(Debug, Clone, Default)]
pub struct StatementEnd {
    /// How long it took.
    pub elapsed: Duration,
    /// Rows answered.
    pub rows: u64,
    /// Bytes of weights and indexes read.
    pub bytes: u64,
    /// The code that it failed with.
    pub code: Option<&'static str>,
}

impl StatementRecord {
    /// One that begins now.
    pub fn begin(session: u64, principal: &Principal, text: &str) -> Self {
        let mut kept: String = text.chars().take(TEXT_CHARACTERS_MAX).collect();
        if kept.len() < text.len() {
            kept.push('…');
        }
        let principal = principal.clone();
        Self { session, principal, text: kept, began: Instant::now(), ended: None }
    }
}

/// The statements that ended lately, oldest first.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<StatementRecord>>);

impl Recent {
    /// Takes note of a statement that ended.
    pub fn push(&self, record: StatementRecord) {
        let mut recent = self.0.lock();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(record);
    }

    /// All that are remembered.
    pub fn all(&self) -> Vec<StatementRecord> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_statements_are_kept_and_only_their_beginnings() {
        let recent = Recent::default();
        for index in 0..RECENT_MAX as u64 + 7 {
            recent.push(StatementRecord::begin(index, &Principal::Loopback, "SHOW MOUNTS"));
        }
        let all = recent.all();
        assert_eq!((all.len(), all[0].session), (RECENT_MAX, 7));
        let long = StatementRecord::begin(1, &Principal::Loopback, &"ä".repeat(5000));
        assert_eq!(long.text.chars().count(), TEXT_CHARACTERS_MAX + 1);
    }
}
