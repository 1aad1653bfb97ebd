//! How the tasks of a job are dealt to threads: each begins with a run of neighbours of its own, and
//! one that has no more takes the upper half of what another has left, one near the same memory if it can.
//!
//! Neighbouring tasks read neighbouring memory. A thread that stays in its run reads one long stream,
//! which the processor's prefetchers follow: on two threads of a Zen 4, tasks of 64 KiB that were
//! handed out one by one read 29 GB/s where runs read 33 (`docs/benchmarks/streaming.md`).
//!
//! Invariants: a task is handed out once; after `stop` none is handed out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One thread's run, `first << 32 | end`, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share(AtomicU64);

/// The runs of all threads.
#[derive(Debug)]
pub(super) struct Shares {
    each: Box<[Share]>,
    /// The memory node of each thread.
    nodes: Box<[usize]>,
    stopped: AtomicBool,
}

fn pack(first: u64, end: u64) -> u64 {
    first << 32 | end
}

fn unpack(share: u64) -> (u64, u64) {
    (share >> 32, share & u64::from(u32::MAX))
}

impl Shares {
    /// For a thread on each of these nodes, with nothing to do.
    pub(super) fn new(nodes: &[usize]) -> Shares {
        let each = nodes.iter().map(|_| Share::default()).collect();
        Shares { each, nodes: nodes.into(), stopped: AtomicBool::new(true) }
    }

    /// Deals `tasks` tasks, all of which must have been handed out or stopped before.
    pub(super) fn deal(&self, tasks: usize) {
        let tasks = u64::from(u32::try_from(tasks).expect("a job of more than 2^32 tasks"));
        let threads = self.each.len() as u64;
        for (thread, share) in (0..).zip(&self.each) {
            let run = pack(thread * tasks / threads, (thread + 1) * tasks / threads);
            share.0.store(run, Ordering::Relaxed);
        }
        self.stopped.store(false, Ordering::Relaxed);
    }

    /// Hands out no more tasks.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The next task of a thread. Whoever deals and whoever takes are ordered by the pool's state.
    pub(super) fn take(&self, thread: usize) -> Option<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let mine = &self.each[thread].0;
        loop {
            let share = mine.load(Ordering::Relaxed);
            let (first, end) = unpack(share);
            if first == end {
                break;
            }
            if exchange(mine, share, pack(first + 1, end)) {
                return Some(first as usize);
            }
        }
        // A run is left by its last task or by theft, and is never the same again: an exchange
        // that finds the run it read has found it untouched.
        loop {
            // Whoever has most left, threads of the same node first.
            let left = |&(other, share): &(usize, &Share)| {
                let (first, end) = unpack(share.0.load(Ordering::Relaxed));
                (first < end && self.nodes[other] == self.nodes[thread], end - first)
            };
            let (_, richest) = self.each.iter().enumerate().max_by_key(left)?;
            let share = richest.0.load(Ordering::Relaxed);
            let (first, end) = unpack(share);
            if first == end {
                return None;
            }
            let middle = first + (end - first) / 2;
            if exchange(&richest.0, share, pack(first, middle)) {
                mine.store(pack(middle + 1, end), Ordering::Relaxed);
                return Some(middle as usize);
            }
        }
    }
}

fn exchange(share: &AtomicU64, old: u64, new: u64) -> bool {
    share.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_a_run_of_neighbours_and_then_the_upper_half_of_anothers() {
        let shares = Shares::new(&[0; 2]);
        shares.deal(9);
        let own: Vec<_> = (0..4).map(|_| shares.take(0)).collect();
        assert_eq!(own, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(shares.take(1), Some(4));
        // 5, 6, 7 and 8 are left to the other.
        assert_eq!([shares.take(0), shares.take(0)], [Some(7), Some(8)]);
        assert_eq!([shares.take(0), shares.take(1), shares.take(1)], [Some(6), Some(5), None]);
        assert_eq!(shares.take(0), None);
    }

    #[test]
    fn a_thread_that_never_comes_leaves_its_run_to_the_others() {
        let shares = Shares::new(&[0; 3]);
        shares.deal(100);
        let mut taken: Vec<_> = std::iter::from_fn(|| shares.take(1)).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_takes_from_its_own_node_before_it_takes_from_others() {
        let shares = Shares::new(&[0, 0, 1, 1]);
        shares.deal(16);
        let taken: Vec<_> = (0..13).map_while(|_| shares.take(3)).collect();
        assert_eq!(taken[..4], [12, 13, 14, 15]);
        let mut near = taken[4..8].to_vec();
        near.sort_unstable();
        assert_eq!(near, [8, 9, 10, 11]);
        assert!(taken[8..].iter().all(|task| *task < 8), "{taken:?}");
    }

    #[test]
    fn after_a_stop_nothing_is_handed_out_until_tasks_are_dealt() {
        let shares = Shares::new(&[0; 2]);
        assert_eq!(shares.take(0), None);
        shares.deal(4);
        shares.stop();
        assert_eq!(shares.take(1), None);
        shares.deal(1);
        assert_eq!([shares.take(0), shares.take(0)], [Some(0), None]);
    }
}
