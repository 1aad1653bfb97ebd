//! A token by which one side stops what another side computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What ended a computation before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Cancel,
    /// Its time ran out.
    Deadline,
}

/// The computation was stopped; what it wrote so far is not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .reason {
    Reason::Cancel => "the computation was cancelled",
    Reason::Deadline => "the deadline passed before the computation was done; allow more time or ask for less",
})]
pub struct Cancelled {
    /// Who or what stopped it.
    pub reason: Reason,
}

/// A cloneable stop sign, asked between tiles and between layers; all clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// Those for whom the work is done together; empty where nobody in particular is named.
    sharers: Arc<[Cancel]>,
}

impl Cancel {
    /// A token that nobody has cancelled, without a deadline.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// A token for work that several share: it stops when each of `tokens` has, or by itself. Without
    /// any it is [`new`](Cancel::new).
    pub fn when_all(tokens: &[Cancel]) -> Cancel {
        Cancel { sharers: tokens.into(), ..Cancel::default() }
    }

    /// The same flag with a deadline; of two deadlines the earlier counts.
    pub fn with_deadline(&self, deadline: Instant) -> Cancel {
        let deadline = self.deadline.map_or(deadline, |already| already.min(deadline));
        Cancel { deadline: Some(deadline), ..self.clone() }
    }

    /// Stops every computation that holds a clone, at its next check.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Cancel::cancel) was called on any clone (a deadline does not count, nor do
    /// those who share the work).
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// The moment after which [`check`](Cancel::check) fails.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Passes while the work may go on.
    ///
    /// # Errors
    /// `Cancelled` with the reason; a cancel is named before a deadline.
    #[inline]
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.flag.load(Ordering::Acquire) {
            return Err(Cancelled { reason: Reason::Cancel });
        }
        if let Some(deadline) = self.deadline
            && Instant::now() >= deadline
        {
            return Err(Cancelled { reason: Reason::Deadline });
        }
        let mut stopped = Ok(());
        for sharer in &*self.sharers {
            match sharer.check() {
                Ok(()) => return Ok(()),
                cancelled => stopped = cancelled,
            }
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cancel_reaches_every_clone_and_is_named_before_the_deadline() {
        let token = Cancel::new();
        let timed = token.with_deadline(Instant::now() - Duration::from_millis(1));
        assert_eq!(token.check(), Ok(()));
        assert_eq!(timed.check(), Err(Cancelled { reason: Reason::Deadline }));
        token.clone().cancel();
        assert_eq!(token.check(), Err(Cancelled { reason: Reason::Cancel }));
        assert_eq!(timed.check(), Err(Cancelled { reason: Reason::Cancel }));
    }

    #[test]
    fn shared_work_stops_when_the_last_of_those_who_share_it_has_stopped() {
        let (first, second) = (Cancel::new(), Cancel::new());
        let late = second.with_deadline(Instant::now() - Duration::from_millis(1));
        let shared = Cancel::when_all(&[first.clone(), late]);
        assert_eq!(shared.check(), Ok(()));
        first.cancel();
        assert_eq!(shared.check(), Err(Cancelled { reason: Reason::Deadline }));
        let alone = Cancel::when_all(&[Cancel::new()]);
        assert_eq!(alone.check(), Ok(()));
        alone.cancel();
        assert_eq!(alone.check(), Err(Cancelled { reason: Reason::Cancel }));
        assert_eq!(Cancel::when_all(&[]).check(), Ok(()));
    }

    #[test]
    fn a_second_deadline_cannot_postpone_the_first() {
        let first = Instant::now() + Duration::from_secs(5);
        let token = Cancel::new().with_deadline(first);
        assert_eq!(token.with_deadline(first + Duration::from_secs(9)).deadline(), Some(first));
    }
}
