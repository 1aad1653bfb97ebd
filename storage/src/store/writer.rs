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
    record: Arc<Record>,
    /// Its kind and payload; none once the log has them.
    encoded: Encoded,
    /// The moment that it was decided upon: nothing that it changes may have changed since.
    seen: u64,
    /// The branch's last change for which its assertions hold with the record.
    asserted: Option<u64>,
    reply: mpsc::SyncSender<Result<u64, StoreError>>,
}

impl Waiting {
    /// With where its answer comes. What takes long is done here, by the thread that commits.
    pub(super) fn new(
        record: Record,
        seen: u64,
        asserted: Option<u64>,
    ) -> (Self, mpsc::Receiver<Result<u64, StoreError>>) {
        let (reply, answer) = mpsc::sync_channel(1);
        let encoded = record.encode();
        (Self { record: Arc::new(record), encoded, seen, asserted, reply }, answer)
    }
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
pub(super) fn run(durable: impl Durable, queue: &Queue<Job>, published: &ArcSwap<History>) {
    Writer { durable, queue, published, coming: 0 }.run();
}

/// A record's kind and payload.
type Encoded = (u8, Vec<u8>);

struct Writer<'a, D> {
    durable: D,
    queue: &'a Queue<Job>,
    published: &'a ArcSwap<History>,
    /// How many committers there are, as far as can be told: those who were answered last, and those who waited
    /// already when they were.
    coming: usize,
}

impl<D: Durable> Writer<'_, D> {
    fn run(mut self) {
        let mut sync_time = Duration::ZERO;
        loop {
            let patience = (sync_time / PATIENCE_PART).min(PATIENCE_MAX);
            let Some(jobs) = self.queue.take(self.coming, patience) else { return };
            let mut commits = Vec::new();
            for job in jobs {
                match job {
                    Job::Commit(waiting) => commits.push(waiting),
                    // Whoever asked may be gone.
                    Job::Verify { reply } => _ = reply.send(self.durable.verify()),
                    Job::Checkpoint { kind, reply } => {
                        // What came before is in it.
                        self.commit(std::mem::take(&mut commits));
                        // Whoever asked may be gone.
                        let _ = reply.send(self.checkpoint(kind));
                    }
                }
            }
            let began = Instant::now();
            self.commit(commits);
            sync_time = began.elapsed();
        }
    }

    fn checkpoint(&mut self, kind: CheckpointKind) -> Result<u64, StoreError> {
        let history = self.durable.checkpoint(kind, &self.published.load())?;
        let lsn = history.state().lsn;
        self.published.store(Arc::new(history));
        Ok(lsn)
    }

    /// Commits in order, in as many groups as their bytes need.
    fn commit(&mut self, commits: Vec<Waiting>) {
        let mut waiting = commits.into_iter().peekable();
        while waiting.peek().is_some() {
            let (mut group, mut bytes) = (Vec::new(), 0);
            while bytes < GROUP_BYTES_MAX
                && let Some(one) = waiting.next()
            {
                bytes += one.encoded.1.len().min(INLINE_BYTES_MAX);
                group.push(one);
            }
            self.commit_group(group);
        }
    }

    /// Decides about a group in order, makes what may happen durable together, and answers everybody.
    fn commit_group(&mut self, group: Vec<Waiting>) {
        let mut history = History::clone(&self.published.load());
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut decided = Vec::with_capacity(group.len());
        for mut one in group {
            let lsn = history.state().lsn + 1;
            let checked = match one.encoded.1.len() {
                // It alone is refused, and not those that it shares a group with.
                bytes if bytes > PAYLOAD_BYTES_MAX => Err(WalError::TooLarge { bytes }.into()),
                _ => history.state().check(&one.record, one.seen, one.asserted),
            };
            let pushed = checked.and_then(|()| history.push(lsn, one.record.clone()));
            let outcome = pushed.map(|()| {
                bytes += one.encoded.1.len().min(INLINE_BYTES_MAX);
                records.push(std::mem::take(&mut one.encoded));
                lsn
            });
            decided.push((one, outcome));
        }
        let failure = match self.keep(&records, bytes) {
            Ok(first) => {
                let lowest = decided.iter().find_map(|(_, outcome)| outcome.as_ref().ok());
                assert!(
                    lowest.is_none_or(|lsn| *lsn == first),
                    "the log and the state number alike"
                );
                if lowest.is_some() {
                    self.published.store(Arc::new(history));
                }
                None
            }
            Err(Refused::Segment(error)) => return self.commit_apart(decided, error),
            Err(Refused::Group(refuse)) => Some(refuse),
        };
        // Nobody of the group is back before it is answered: those who wait now are others.
        self.coming = decided.len() + self.queue.waiting();
        for (one, outcome) in decided {
            let outcome =
                outcome.and_then(|lsn| failure.as_ref().map_or(Ok(lsn), |refuse| Err(refuse())));
            // Whoever asked may be gone.
            let _ = one.reply.send(outcome);
        }
    }

    /// Makes records durable; returns the number of the first.
    fn keep(&mut self, records: &[Encoded], bytes: usize) -> Result<u64, Refused> {
        if records.is_empty() {
            return Ok(0);
        }
        if !self.durable.has_room(records.len(), bytes) {
            // History stays what it is; only where it lies changes.
            let made = self.durable.checkpoint(CheckpointKind::Whole, &self.published.load());
            made.map_err(|error| {
                let error = Arc::new(error);
                Refused::Group(Box::new(move || StoreError::NoCheckpoint(error.clone())))
            })?;
        }
        self.durable.append(records).map_err(|error| match error {
            WalError::Segment { .. } => Refused::Segment(error),
            error => {
                let error = Arc::new(error);
                Refused::Group(Box::new(move || StoreError::NotDurable(error.clone())))
            }
        })
    }

    /// Commits what shared a segment that could not be written, each large one by itself: only those fail whose own
    /// segment does. All are decided again, since what one of them was refused for may not have happened.
    fn commit_apart(&mut self, group: Vec<(Waiting, Result<u64, StoreError>)>, error: WalError) {
        let (mut again, mut failed) = (Vec::with_capacity(group.len()), Vec::new());
        for (mut one, outcome) in group {
            one.encoded = one.record.encode();
            if outcome.is_ok() && one.encoded.1.len() > INLINE_BYTES_MAX {
                failed.push(again.len());
            }
            again.push(one);
        }
        if let [at] = failed[..] {
            // It was its own segment, and nobody tries that again.
            let one = again.remove(at);
            let _ = one.reply.send(Err(error.into()));
            return self.commit_group(again);
        }
        for one in again {
            self.commit_group(vec![one]);
        }
    }
}

/// Why none of a group is durable.
enum Refused {
    /// A large payload could not be kept. Nothing is in the log, which goes on.
    Segment(WalError),
    /// What every one of them is told.
    Group(Box<dyn Fn() -> StoreError>),
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::overlay::{Fact, Operation, SetKnn};
    use crate::store::{Commit, MAIN, Provenance};

    /// Keeps everything, but for segments of transactions whose statement is "bad"; remembers how many records it was asked to
    /// keep.
    #[derive(Default)]
    struct Picky {
        next: u64,
        asked: Vec<usize>,
    }

    impl Durable for Picky {
        fn append(&mut self, records: &[(u8, Vec<u8>)]) -> Result<u64, WalError> {
            self.asked.push(records.len());
            let large = records.iter().filter(|(_, payload)| payload.len() > INLINE_BYTES_MAX);
            let mut names = large.filter_map(|(kind, payload)| Record::decode(*kind, payload).ok());
            if names.any(|record| record.provenance().is_some_and(|of| of.statement == "bad")) {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(WalError::Segment { path: "segments".into(), source });
            }
            let first = self.next + 1;
            self.next += records.len() as u64;
            Ok(first)
        }

        fn checkpoint(
            &mut self,
            _: CheckpointKind,
            history: &History,
        ) -> Result<History, StoreError> {
            Ok(history.clone())
        }

        fn has_room(&self, _: usize, _: usize) -> bool {
            true
        }

        fn verify(&mut self) -> Result<u64, StoreError> {
            Ok(self.next)
        }
    }

    /// A fact of an entity, with a key of so many numbers.
    fn record(entity: &str, numbers: usize, statement: &str) -> Record {
        let fact = Fact { entity: entity.into(), relation: "r".into(), target: "t".into() };
        let set = SetKnn {
            layer: 0,
            key: vec![0.5; numbers].into(),
            threshold: 0.5,
            fact,
            entity_ids: Vec::new(),
            target_ids: vec![1],
            confidence: None,
        };
        let provenance = Provenance {
            author: "a".into(),
            at_ms: 0,
            statement: statement.into(),
            base_hash: "b".into(),
        };
        Record::Commit(Commit {
            branch: MAIN.into(),
            patch: None,
            operations: [Operation::SetKnn(set)].into(),
            provenance,
            digest: None,
        })
    }

    /// Commits records as one group; what each was told, and what was appended how often.
    fn told(records: Vec<Record>) -> (Vec<Result<u64, String>>, Vec<usize>, u64) {
        let (queue, published) = (Queue::new(), ArcSwap::from_pointee(History::default()));
        let (mut commits, mut answers) = (Vec::new(), Vec::new());
        for record in records {
            let (waiting, answer) = Waiting::new(record, 0, None);
            commits.push(waiting);
            answers.push(answer);
        }
        let picky = Picky::default();
        let mut writer = Writer { durable: picky, queue: &queue, published: &published, coming: 0 };
        writer.commit(commits);
        let told = answers.iter().map(|answer| {
            let outcome = answer.recv().expect("everybody is answered");
            outcome.map_err(|error| match error {
                StoreError::Wal(WalError::Segment { .. }) => "segment".to_owned(),
                StoreError::Conflict { .. } => "conflict".to_owned(),
                other => other.to_string(),
            })
        });
        (told.collect(), writer.durable.asked, published.load().state().lsn)
    }

    const LARGE: usize = INLINE_BYTES_MAX;

    #[test]
    fn a_segment_that_cannot_be_written_fails_its_own_transaction_and_no_other() {
        let (told, asked, lsn) =
            told(vec![record("a", 4, "small"), record("b", LARGE, "bad"), record("c", 4, "small")]);
        assert_eq!(told, [Ok(1), Err("segment".into()), Ok(2)]);
        assert_eq!((asked, lsn), (vec![3, 2], 2), "and it is not tried again");
    }

    #[test]
    fn of_several_large_ones_each_is_tried_by_itself() {
        let (told, asked, lsn) = told(vec![
            record("a", LARGE, "good"),
            record("b", LARGE, "bad"),
            record("c", 4, "small"),
            record("d", LARGE, "good"),
        ]);
        assert_eq!(told, [Ok(1), Err("segment".into()), Ok(2), Ok(3)]);
        assert_eq!((asked, lsn), (vec![4, 1, 1, 1, 1], 3));
    }

    #[test]
    fn what_lost_against_a_transaction_that_failed_wins_after_all() {
        let (told, ..) = told(vec![record("a", LARGE, "bad"), record("a", 4, "small")]);
        assert_eq!(told, [Err("segment".into()), Ok(1)]);
        let (told, ..) = self::told(vec![record("a", 4, "small"), record("a", 4, "small")]);
        assert_eq!(told, [Ok(1), Err("conflict".into())]);
    }
}
