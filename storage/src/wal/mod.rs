//! The write-ahead log: the only place where an edit becomes durable.
//!
//! A group of records is appended to a [`PatchLog`], each in a checksummed [`frame`], and made durable;
//! then a high-water mark in a file of its own says so, and only then is anything acknowledged. Under sled the
//! same file keeps the records since the last checkpoint once more. Payloads
//! that are too large for a frame lie in content-addressed segment files, synced before the record that
//! names them. Recovery reads every record up to the mark and refuses the log if one is missing or
//! damaged: a log is never opened short. What lies above the mark was never acknowledged; it is kept
//! while it is whole, and cut off where it is not.
//!
//! Invariants: LSNs are dense, only grow and are never reused. After a failed append the log is poisoned,
//! and nobody retries a sync.
//!
//! Two logs pass one suite (`storage/tests/edits/conformance.rs`): sled, used the safe way (docs/adr), and a plain file,
//! which goes through the file seam and therefore through every fault that the seam can make.
//!
//! Elsewhere: what records say (`store`), what edits do (`overlay`), bytes (docs/formats/wal.md).

mod error;
mod file_log;
mod frame;
mod mark;
mod segment;
mod sled_log;

use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::Files;

pub use error::{Lost, WalError};
pub use file_log::FileLog;
pub use frame::{FRAME_BYTES, Frame, FrameError};
pub(crate) use frame::{decode as decode_frame, encode as encode_frame};
pub use segment::{SegmentReference, Segments};
pub use sled_log::SledLog;

use mark::Mark;

/// Largest payload that a frame holds; larger ones lie in segments. Sled would write much larger values to
/// files of its own that nobody syncs.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// Largest payload of one record.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// Where records are kept: entries of bytes under dense numbers, durable when an append returns.
pub trait PatchLog: Send + Debug {
    /// Adds entries under `first`, `first + 1` and so on. All of them are durable on return.
    ///
    /// # Errors
    /// What the system says; which of the entries are there is unknown then.
    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> io::Result<()>;

    /// Gives every entry at or above a number, in order.
    ///
    /// # Errors
    /// What the system or the store says about reading; entries given before are good.
    fn scan(&self, from: u64, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()>;

    /// Removes entries below a number, durably.
    ///
    /// # Errors
    /// What the system says; some of them may be gone.
    fn remove_before(&mut self, lsn: u64) -> io::Result<()>;

    /// Removes entries at or above a number, durably: what was never acknowledged.
    ///
    /// # Errors
    /// What the system says; some of them may be gone.
    fn remove_from(&mut self, lsn: u64) -> io::Result<()>;
}

/// A record as recovery gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its number.
    pub lsn: u64,
    /// What kind of record it is.
    pub kind: u8,
    /// Its content.
    pub payload: Vec<u8>,
}

/// What was found of a log that may be damaged.
#[derive(Debug, Default)]
pub struct Survey {
    /// Whole records, in order.
    pub records: Vec<Recovered>,
    /// What is wrong with others, by number.
    pub damaged: Vec<(u64, String)>,
    /// The last number that was acknowledged, as far as the mark can be read.
    pub mark: Option<u64>,
    /// Why reading ended early.
    pub stopped: Option<String>,
}

/// An open log.
#[derive(Debug)]
pub struct Wal {
    directory: PathBuf,
    log: Box<dyn PatchLog>,
    mark: Mark,
    segments: Segments,
    next: u64,
    poisoned: bool,
}

impl Wal {
    /// Prepares a directory for a log: its segments and its mark, with so many bytes for records that are
    /// kept twice. What is there already stays.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(
        files: &Arc<dyn Files>,
        directory: &Path,
        tail_bytes: usize,
    ) -> Result<(), WalError> {
        Segments::create(files, directory)?;
        Mark::create(files, directory, tail_bytes)
    }

    /// Whether the mark's tail has every record that was acknowledged after a number: then a log that cannot
    /// be opened may begin anew.
    ///
    /// # Errors
    /// `Mark`, `Io`.
    pub fn is_kept_twice(
        files: &Arc<dyn Files>,
        directory: &Path,
        after: u64,
    ) -> Result<bool, WalError> {
        let (mark, tail) = Mark::open(files, directory)?;
        let covers = |lsn| tail.iter().any(|(one, _)| *one == lsn);
        Ok(mark.lsn() <= after || (covers(after + 1) && covers(mark.lsn())))
    }

    /// Opens a log whose records up to `after` are kept elsewhere, and gives the records above.
    ///
    /// # Errors
    /// `Lost` when a record that was acknowledged is missing or damaged, with which; `Io`.
    pub fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
        mut log: Box<dyn PatchLog>,
        after: u64,
    ) -> Result<(Self, Vec<Recovered>), WalError> {
        let segments = Segments::open(files, directory)?;
        let (mark, tail) = Mark::open(files, directory)?;
        let acknowledged = mark.lsn();
        let mut found = survey(&*log, &segments, after);
        // What the log lost and the tail has is put back.
        let mut gone = HashSet::new();
        for (first, last) in found.lost(after + 1, acknowledged) {
            gone.extend(first..=last);
        }
        let gone: Vec<_> = tail.iter().filter(|(lsn, _)| gone.contains(lsn)).collect();
        if !gone.is_empty() {
            for (lsn, frame) in gone {
                log.append(*lsn, std::slice::from_ref(frame)).map_err(|source| WalError::Io {
                    action: "put back what was lost of",
                    path: directory.to_path_buf(),
                    source,
                })?;
            }
            found = survey(&*log, &segments, after);
        }
        let lost = found.lost(after + 1, acknowledged);
        let in_doubt = mark.is_doubtful() && !found.damaged.is_empty();
        if !lost.is_empty() || in_doubt {
            return Err(WalError::Lost(Box::new(Lost {
                directory: directory.to_path_buf(),
                missing: lost,
                first: after + 1,
                acknowledged: acknowledged.max(after),
                detail: found.detail(),
            })));
        }
        // Above the mark: what is whole and follows without a gap.
        let whole = found.records.iter().zip(after + 1..);
        let kept = whole.take_while(|(record, expected)| record.lsn == *expected).count();
        let end = after + kept as u64;
        let cut =
            found.records.len() > kept || !found.damaged.is_empty() || found.stopped.is_some();
        found.records.truncate(kept);
        let mut wal = Self {
            directory: directory.to_path_buf(),
            log,
            mark,
            segments,
            next: end + 1,
            poisoned: false,
        };
        if cut {
            let cut = wal.log.remove_from(end + 1);
            cut.map_err(|source| wal.failed("cut off the end of", source))?;
        }
        // Also where a checkpoint was imported into an empty log.
        if end > acknowledged {
            wal.mark.advance(end, &[])?;
        }
        let kept = tail.iter().filter(|(lsn, _)| *lsn > after).map(|(lsn, _)| *lsn);
        if !kept.eq(after + 1..=end) || tail.first().is_some_and(|(lsn, _)| *lsn <= after) {
            let mut frames = Vec::new();
            let scanned =
                wal.log.scan(after + 1, &mut |lsn, frame| frames.push((lsn, frame.to_vec())));
            scanned.map_err(|source| wal.failed("read", source))?;
            wal.mark.restart_tail(&frames)?;
        }
        Ok((wal, found.records))
    }

    /// Appends records and makes them durable; returns the number of the first.
    ///
    /// # Errors
    /// `TooLarge` before anything is written. `Segment` when a large payload could not be kept: nothing of
    /// the group is in the log. After any other the log is poisoned.
    pub fn append(&mut self, records: &[(u8, Vec<u8>)]) -> Result<u64, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let first = self.next;
        if let Some((_, payload)) =
            records.iter().find(|(_, payload)| payload.len() > PAYLOAD_BYTES_MAX)
        {
            return Err(WalError::TooLarge { bytes: payload.len() });
        }
        let large = records.iter().map(|(_, payload)| payload).filter(|one| is_large(one));
        let mut references = self.segments.write(large)?.into_iter();
        let frames = records.iter().zip(first..).map(|((kind, payload), lsn)| {
            let reference = is_large(payload).then(|| references.next().expect("one a payload"));
            match reference {
                Some(reference) => frame::encode(lsn, *kind, true, &reference.encode()),
                None => frame::encode(lsn, *kind, false, payload),
            }
        });
        let frames: Vec<_> = frames.collect();
        self.poisoned = true;
        self.log.append(first, &frames).map_err(|source| self.failed("append to", source))?;
        let last = first + frames.len() as u64 - 1;
        let kept: Vec<_> = (first..).zip(&frames).map(|(lsn, frame)| (lsn, &frame[..])).collect();
        self.mark.advance(last, &kept)?;
        self.next = last + 1;
        self.poisoned = false;
        Ok(first)
    }

    /// Removes records up to and including a number, which are durable elsewhere now, and the segments
    /// that no remaining record names.
    ///
    /// # Errors
    /// `Io`; where the log itself could not be shortened it is poisoned, and otherwise the next call removes
    /// what is left.
    pub fn forget_through(&mut self, lsn: u64) -> Result<(), WalError> {
        let removed = self.log.remove_before(lsn + 1);
        // A sync that failed is not tried again: what the system dropped with it is unknown.
        self.poisoned |= removed.is_err();
        removed.map_err(|source| self.failed("shorten", source))?;
        if lsn >= self.last() {
            self.mark.empty_tail();
        }
        let mut used = Vec::new();
        let scanned = self.log.scan(lsn + 1, &mut |lsn, entry| {
            if let Ok(frame) = frame::decode(lsn, entry)
                && frame.is_reference
            {
                used.extend(SegmentReference::decode(frame.payload));
            }
        });
        scanned.map_err(|source| self.failed("read", source))?;
        self.segments.retain(&used)
    }

    /// Makes room for records of so many bytes to be kept twice, so that the next checkpoint comes later; only where that
    /// is much more than there is, and while none is kept, as after a checkpoint of everything.
    ///
    /// # Errors
    /// `Io`, and the log is poisoned. Where only room lacks, there stays as much as there was.
    pub fn make_room(&mut self, files: &Arc<dyn Files>, bytes: usize) -> Result<(), WalError> {
        let made = self.mark.make_room(files, bytes);
        self.poisoned |= made.is_err();
        made
    }

    /// Reads everything from `after` on again, segments with it; returns how many records are whole.
    ///
    /// # Errors
    /// `Lost` when one of them is not any more.
    pub fn verify(&self, after: u64) -> Result<u64, WalError> {
        let mut found = survey(&*self.log, &self.segments, after);
        let damaged = self.segments.damaged()?;
        found
            .damaged
            .extend(damaged.into_iter().map(|name| (0, format!("lies in a damaged {name}"))));
        let missing = found.lost(after + 1, self.last());
        if missing.is_empty() && found.damaged.is_empty() {
            return Ok(found.records.len() as u64);
        }
        Err(WalError::Lost(Box::new(Lost {
            directory: self.directory.clone(),
            missing,
            first: after + 1,
            acknowledged: self.last(),
            detail: found.detail(),
        })))
    }

    /// Whether records of so many payload bytes together can be appended before there is a checkpoint.
    pub fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.mark.has_room(records, bytes.saturating_add(records.saturating_mul(FRAME_BYTES)))
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Whether an earlier failure stopped it.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn failed(&self, action: &'static str, source: io::Error) -> WalError {
        WalError::Io { action, path: self.directory.clone(), source }
    }
}

fn is_large(payload: &[u8]) -> bool {
    payload.len() > INLINE_BYTES_MAX
}

/// Looks at everything that a log holds, whole or not.
pub fn survey(log: &dyn PatchLog, segments: &Segments, after: u64) -> Survey {
    let mut survey = Survey::default();
    let scanned = log.scan(after + 1, &mut |lsn, entry| {
        let record = frame::decode(lsn, entry).map_err(|error| error.to_string());
        let record = record.and_then(|frame| {
            let payload = if frame.is_reference {
                let reference = SegmentReference::decode(frame.payload);
                let reference = reference.ok_or("its reference to a segment is unreadable")?;
                segments.read(&reference)?
            } else {
                frame.payload.to_vec()
            };
            Ok(Recovered { lsn, kind: frame.kind, payload })
        });
        match record {
            Ok(record) => survey.records.push(record),
            Err(problem) => survey.damaged.push((lsn, problem)),
        }
    });
    survey.stopped = scanned.err().map(|error| error.to_string());
    survey
}

impl Survey {
    /// As [`survey`], with what the mark in the directory says.
    pub fn of(files: &Arc<dyn Files>, directory: &Path, log: &dyn PatchLog, after: u64) -> Self {
        let mut found = match Segments::open(files, directory) {
            Ok(segments) => survey(log, &segments, after),
            Err(error) => Self { stopped: Some(error.to_string()), ..Self::default() },
        };
        found.mark = Mark::open(files, directory).ok().map(|(mark, _)| mark.lsn());
        found
    }

    /// The numbers from `first` to `last` that have no whole record, as inclusive ranges.
    pub fn lost(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut lost = Vec::new();
        let mut expected = first;
        for record in &self.records {
            if record.lsn > expected && expected <= last {
                lost.push((expected, (record.lsn - 1).min(last)));
            }
            expected = expected.max(record.lsn + 1);
        }
        if expected <= last {
            lost.push((expected, last));
        }
        lost
    }

    fn detail(&self) -> String {
        let damaged = self.damaged.first().map(|(lsn, problem)| format!("record {lsn} {problem}"));
        damaged.or_else(|| self.stopped.clone()).unwrap_or_default()
    }
}
