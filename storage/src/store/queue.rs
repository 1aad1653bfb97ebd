//! The way to the writer: many put, one takes, and takes what has gathered.
//!
//! A group that is synced costs what one record costs. While the writer syncs, the next group gathers; when
//! fewer wait than came lately, it gives the others a moment, bounded by a part of what a sync takes, so
//! that sixteen writers make one group and not two that alternate.

use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex};

/// Most jobs that are taken at a time.
const GROUP_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// How many the writer sleeps for: fewer do not wake it.
    wanted: usize,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: Vec::new(), wanted: 1, closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Puts a job behind the others.
    ///
    /// # Errors
    /// The job, when the queue is closed.
    pub(super) fn put(&self, job: T) -> Result<(), T> {
        let mut state = self.state.lock().expect("no holder panics");
        if state.closed {
            return Err(job);
        }
        state.waiting.push(job);
        let enough = state.waiting.len() >= state.wanted;
        drop(state);
        if enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// How many wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().expect("no holder panics").waiting.len()
    }

    /// Waits for jobs, and a little longer while fewer than `expected` wait. `None` when the queue is
    /// closed and empty.
    pub(super) fn take(&self, expected: usize, patience: Duration) -> Option<Vec<T>> {
        let mut state = self.state.lock().expect("no holder panics");
        state.wanted = 1;
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).expect("no holder panics");
        }
        state.wanted = expected.min(GROUP_MAX);
        let until = Instant::now() + patience;
        while state.waiting.len() < state.wanted && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.arrived.wait_timeout(state, left).expect("no holder panics").0;
        }
        let taken = state.waiting.len().min(GROUP_MAX);
        Some(state.waiting.drain(..taken).collect())
    }

    /// Takes no more jobs; those that wait are still given.
    pub(super) fn close(&self) {
        self.state.lock().expect("no holder panics").closed = true;
        self.arrived.notify_all();
    }
}
