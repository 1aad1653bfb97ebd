//! The way from a commit to its answer, under a scheduler that tries interleavings: `cargo test -p
//! larql-storage --features shuttle --lib interleavings`. What is published is one atomic step to it, as
//! `arc-swap` promises; the queue, the groups and the answers are the real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::history::History;
use super::queue::Queue;
use super::sync::thread;
use super::writer::{self, Durable, Job, Waiting};
use super::{CheckpointKind, Commit, MAIN, Provenance, Record, StoreError};
use crate::overlay::{Operation, Slot};
use crate::wal::WalError;

/// A disk that says what it has been given, and fails from some record on.
struct Watched {
    durable: Arc<AtomicU64>,
    fails_after: u64,
}

impl Durable for Watched {
    fn append(&mut self, records: &[(u8, Vec<u8>)]) -> Result<u64, WalError> {
        let first = self.durable.load(Ordering::SeqCst) + 1;
        thread::yield_now();
        if first + records.len() as u64 > self.fails_after {
            return Err(WalError::Poisoned);
        }
        self.durable.fetch_add(records.len() as u64, Ordering::SeqCst);
        thread::yield_now();
        Ok(first)
    }

    fn checkpoint(&mut self, _: CheckpointKind, history: &History) -> Result<History, StoreError> {
        Ok(history.clone())
    }

    fn has_room(&self, _: usize, _: usize) -> bool {
        true
    }

    fn verify(&mut self) -> Result<u64, StoreError> {
        Ok(self.durable.load(Ordering::SeqCst))
    }
}

/// Two features that are hidden together.
fn pair(writer: u32, n: u32) -> Record {
    let hide = |layer| Operation::HideFeature(Slot { layer, feature: writer * 10 + n });
    Record::Commit(Commit {
        branch: MAIN.to_owned(),
        patch: None,
        operations: [hide(0), hide(1)].into(),
        provenance: Provenance::default(),
        digest: None,
    })
}

fn hidden(history: &History, layer: u32) -> usize {
    history.state().branch(MAIN).expect("it is there").overlay().features_of(layer).count()
}

fn run(fails_after: u64) {
    let durable = Arc::new(AtomicU64::new(0));
    let published = Arc::new(ArcSwap::from_pointee(History::default()));
    let queue = Arc::new(Queue::new());
    let watched = Watched { durable: durable.clone(), fails_after };
    let (jobs, cell) = (queue.clone(), published.clone());
    let writer = thread::spawn(move || writer::run(watched, &jobs, &cell));
    let committers = (0..2).map(|who| {
        let (queue, published) = (queue.clone(), published.clone());
        thread::spawn(move || {
            for n in 0..2 {
                let (waiting, answer) = Waiting::new(pair(who, n), 0, None);
                assert!(queue.put(Job::Commit(waiting)).is_ok(), "the queue is open");
                let Ok(lsn) = answer.recv().expect("everybody is answered") else { return };
                // Whoever was told sees it.
                let now = published.load_full();
                assert!(now.state().lsn >= lsn);
                let slot = Slot { layer: 0, feature: who * 10 + n };
                let main = now.state().branch(MAIN).expect("it is there");
                assert!(main.overlay().feature(slot).is_some_and(|delta| delta.lsn == lsn));
            }
        })
    });
    let committers: Vec<_> = committers.collect();
    let reader = {
        let (published, durable) = (published.clone(), durable.clone());
        thread::spawn(move || {
            let mut last = 0;
            for _ in 0..4 {
                let now = published.load_full();
                let lsn = now.state().lsn;
                assert!(lsn >= last, "time runs forward");
                assert!(
                    lsn <= durable.load(Ordering::SeqCst),
                    "nothing is seen that is not durable"
                );
                assert_eq!(hidden(&now, 0), hidden(&now, 1), "half a transaction");
                assert_eq!(hidden(&now, 0) as u64, lsn);
                last = lsn;
                thread::yield_now();
            }
        })
    };
    committers.into_iter().for_each(|one| one.join().expect("no assertion failed"));
    reader.join().expect("no assertion failed");
    queue.close();
    writer.join().expect("no assertion failed");
}

#[test]
fn whoever_is_told_sees_it_and_nobody_sees_what_is_not_durable() {
    shuttle::check_random(|| run(u64::MAX), 2_000);
    shuttle::check_pct(|| run(u64::MAX), 1_000, 3);
}

#[test]
fn what_failed_to_become_durable_is_never_seen() {
    shuttle::check_random(|| run(3), 2_000);
}
