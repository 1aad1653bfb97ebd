//! The one thread that writes: it takes what has gathered, decides in order what may happen, makes the
//! group durable, publishes, and only then answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::history::History;
use super::queue::Queue;
use super::record::Record;
use super::sync::mpsc;
use super::{CheckpointKind, Disk, StoreError};
use crate::wal::{INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX, WalError};

/// Most bytes of payload in one group, about; one record may be larger by itself.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// The part of a sync's time that a group waits for those who are about to come.
const PATIENCE_PART: u32 = 2;

/// The longest that a group waits. The scheduler of tests knows no time, and a wait would have no end.
const PATIENCE_MAX: Duration =
    if cfg!(feature = "shuttle") { Duration::ZERO } else { Duration::from_millis(4) };

/// What the writer is asked to do.
pub(super) enum Job {
    /// Make a record durable and visible.
    Commit(Waiting),
    /// Put the records into a file, and shorten the log.
    Checkpoint { kind: CheckpointKind, reply: mpsc::SyncSender<Result<u64, StoreError>> },
    /// Read everything again, and say how many records are whole.
    Verify { reply: mpsc::SyncSender<Result<u64, StoreError>> },
}

/// A record that waits to be durable and visible.
pub(super) struct Waiting {
    pub(super) record: Arc<Record>,
    /// The moment that it was decided upon: nothing that it changes may have changed since.
    pub(super) seen: u64,
    /// The branch's last change for which its assertions hold with the record.
    pub(super) asserted: Option<u64>,
    pub(super) reply: mpsc::SyncSender<Result<u64, StoreError>>,
}

/// Where records become durable: the log, or in a test something that is watched.
pub(super) trait Durable: Send {
    /// As [`crate::wal::Wal::append`].
    fn append(&mut self, records: &[(u8, Vec<u8>)]) -> Result<u64, WalError>;

    /// Puts a history's records into a file, and shortens the log; gives the history from now on.
    fn checkpoint(
        &mut self,
        kind: CheckpointKind,
        history: &History,
    ) -> Result<History, StoreError>;

    /// Whether that much can be appended before there is a checkpoint.
    fn has_room(&self, records: usize, bytes: usize) -> bool;

    /// Reads everything again; returns how many records are whole.
    fn verify(&mut self) -> Result<u64, StoreError>;
}

impl Durable for Disk {
    fn append(&mut self, records: &[(u8, Vec<u8>)]) -> Result<u64, WalError> {
        self.wal.append(records)
    }

    fn checkpoint(
        &mut self,
        kind: CheckpointKind,
        history: &History,
    ) -> Result<History, StoreError> {
        Disk::checkpoint(self, kind, history)
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.wal.has_room(records, bytes)
    }

    fn verify(&mut self) -> Result<u64, StoreError> {
        Disk::verify(self)
    }
}

/// Runs until the queue is closed and empty.
pub(super) fn run(mut durable: impl Durable, queue: &Queue<Job>, published: &ArcSwap<History>) {
    let (mut groups, mut sync_time) = ([0, 0], Duration::ZERO);
    loop {
        let expected = groups.iter().sum();
        let patience = (sync_time / PATIENCE_PART).min(PATIENCE_MAX);
        let Some(jobs) = queue.take(expected, patience) else { return };
        groups = [groups[1], jobs.len()];
        let mut commits = Vec::new();
        for job in jobs {
            match job {
                Job::Commit(waiting) => commits.push(waiting),
                // Whoever asked may be gone.
                Job::Verify { reply } => _ = reply.send(durable.verify()),
                Job::Checkpoint { kind, reply } => {
                    // What came before is in it.
                    commit(&mut durable, std::mem::take(&mut commits), published);
                    let outcome = durable.checkpoint(kind, &published.load());
                    // Whoever asked may be gone.
                    let _ = reply.send(outcome.map(|history| {
                        let lsn = history.state().lsn;
                        published.store(Arc::new(history));
                        lsn
                    }));
                }
            }
        }
        let began = Instant::now();
        commit(&mut durable, commits, published);
        sync_time = began.elapsed();
    }
}

/// Decides about commits in order, in as many groups as their bytes need.
fn commit(durable: &mut impl Durable, commits: Vec<Waiting>, published: &ArcSwap<History>) {
    let mut waiting = commits.into_iter().peekable();
    while waiting.peek().is_some() {
        let mut history = History::clone(&published.load());
        let (mut records, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < GROUP_BYTES_MAX
            && let Some(Waiting { record, seen, asserted, reply }) = waiting.next()
        {
            let lsn = history.state().lsn + 1;
            let encoded = record.encode();
            let checked = match encoded.1.len() {
                // It alone is refused, and not those that it shares a group with.
                bytes if bytes > PAYLOAD_BYTES_MAX => Err(WalError::TooLarge { bytes }.into()),
                _ => history.state().check(&record, seen, asserted),
            };
            match checked.and_then(|()| history.with(lsn, record.clone())) {
                Ok(next) => {
                    history = next;
                    bytes += encoded.1.len().min(INLINE_BYTES_MAX);
                    records.push(encoded);
                    replies.push((lsn, reply));
                }
                // Whoever asked may be gone; the same below.
                Err(error) => _ = reply.send(Err(error)),
            }
        }
        if records.is_empty() {
            continue;
        }
        if !durable.has_room(records.len(), bytes) {
            // History stays what it is; only where it lies changes.
            if let Err(error) = durable.checkpoint(CheckpointKind::Whole, &published.load()) {
                let error = Arc::new(error);
                for (_, reply) in replies {
                    let _ = reply.send(Err(StoreError::NoCheckpoint(error.clone())));
                }
                continue;
            }
        }
        match durable.append(&records) {
            Ok(first) => {
                assert_eq!(first, replies[0].0, "the log and the state number alike");
                published.store(Arc::new(history));
                replies.into_iter().for_each(|(lsn, reply)| _ = reply.send(Ok(lsn)));
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, reply) in replies {
                    let _ = reply.send(Err(StoreError::NotDurable(error.clone())));
                }
            }
        }
    }
}
