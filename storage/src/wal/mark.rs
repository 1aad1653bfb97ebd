//! The durable high-water mark: the last number that was acknowledged, kept outside the log.
//!
//! A file of two slots, each in a page of its own, written alternately: while one is being written, the
//! other says what was true before. The slot with the higher epoch counts. This is what turns a log that
//! lost its end into an error: the log alone cannot know how long it was.
//!
//! Behind the slots the file may have a tail: the records since the last checkpoint once more, one after the
//! other, made durable by the same sync. Sled moves old records while it writes new ones, so a loss of power
//! may take from it what was synced long ago; the tail gives that back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{WalError, frame};
use crate::file::{FileOverwrite, Files, parent_of};

/// The file's name.
const NAME: &str = "mark";
const MAGIC: [u8; 4] = *b"LQMK";
const VERSION: u32 = 1;
/// A page: whatever is torn while one slot is written, the other is not.
const SLOT_STRIDE: usize = 4096;
const SLOT_BYTES: usize = 28;
const SLOTS_BYTES: usize = 2 * SLOT_STRIDE;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Number and length of an entry of the tail.
const ENTRY_HEAD_BYTES: usize = 12;

/// The open mark.
pub(super) struct Mark {
    path: PathBuf,
    file: Box<dyn FileOverwrite>,
    epoch: u64,
    lsn: u64,
    doubtful: bool,
    tail: Tail,
}

/// Where the next record goes, and how much there is room for. Old entries behind the last are of earlier
/// numbers, so they never pass for what follows it.
#[derive(Debug, Default)]
struct Tail {
    capacity: usize,
    used: usize,
}

/// A record of the tail: its number, and its frame.
pub(super) type Entry = (u64, Vec<u8>);

/// The whole records at the start of a tail, with dense numbers, and the bytes that they take.
fn entries(tail: &[u8]) -> (Vec<Entry>, usize) {
    let (mut found, mut rest) = (Vec::<Entry>::new(), tail);
    while let Some((head, after)) = rest.split_first_chunk::<ENTRY_HEAD_BYTES>() {
        let lsn = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
        let length = u32::from_le_bytes(head[8..].try_into().expect("four bytes")) as usize;
        let Some((bytes, after)) = after.split_at_checked(length) else { break };
        let follows = found.last().is_none_or(|(last, _)| last + 1 == lsn);
        if lsn == 0 || !follows || frame::decode(lsn, bytes).is_err() {
            break;
        }
        found.push((lsn, bytes.to_vec()));
        rest = after;
    }
    let used = tail.len() - rest.len();
    (found, used)
}

/// One slot: what was acknowledged, and the how-manieth mark it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    epoch: u64,
    lsn: u64,
}

impl Slot {
    fn encode(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<SLOT_BYTES>()?;
        let crc = u32::from_le_bytes(bytes[24..].try_into().ok()?);
        let version = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
        if bytes[..4] != MAGIC || version != VERSION || crc32c::crc32c(&bytes[..24]) != crc {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        Some(Self { epoch: word(8), lsn: word(16) })
    }
}

impl Mark {
    /// Makes the mark of an empty log, with room for so many bytes of tail, unless there is one.
    pub(super) fn create(
        files: &Arc<dyn Files>,
        directory: &Path,
        tail_bytes: usize,
    ) -> Result<(), WalError> {
        let path = directory.join(NAME);
        if files.metadata(&path).is_ok() {
            return Ok(());
        }
        let staged = stage(files, &path, Slot { epoch: 1, lsn: 0 }, tail_bytes);
        let moved = staged.and_then(|staged| move_in(files, &staged, &path));
        moved.map_err(io_error("create", &path))
    }

    /// Opens the mark, and gives what is in its tail.
    pub(super) fn open(
        files: &Arc<dyn Files>,
        directory: &Path,
    ) -> Result<(Self, Vec<Entry>), WalError> {
        let path = directory.join(NAME);
        let bytes = files.read(&path, FILE_BYTES_MAX).map_err(io_error("read", &path))?;
        let slots = [0, SLOT_STRIDE].map(|at| bytes.get(at..).and_then(Slot::decode));
        let Some(newest) = slots.into_iter().flatten().max() else {
            let problem = "neither of its two slots can be read";
            return Err(WalError::Mark { path, problem });
        };
        let Some(tail) = bytes.get(SLOTS_BYTES..) else {
            return Err(WalError::Mark { path, problem: "it is shorter than two pages" });
        };
        let file = files.overwrite(&path).map_err(io_error("open", &path))?;
        let doubtful = slots.contains(&None);
        let (found, used) = entries(tail);
        let tail = Tail { capacity: tail.len(), used };
        Ok((Self { path, file, epoch: newest.epoch, lsn: newest.lsn, doubtful, tail }, found))
    }

    /// Whether the tail takes records of so many bytes together, or there is none.
    pub(super) fn has_room(&self, frames: usize, bytes: usize) -> bool {
        let needed = bytes.saturating_add(frames.saturating_mul(ENTRY_HEAD_BYTES));
        self.tail.capacity == 0 || needed <= self.tail.capacity - self.tail.used
    }

    /// Begins the tail anew with records, if they fit; what was in it lies elsewhere.
    pub(super) fn restart_tail(&mut self, frames: &[Entry]) -> Result<(), WalError> {
        self.tail.used = 0;
        let bytes = frames.iter().map(|(_, frame)| frame.len()).sum();
        if self.tail.capacity == 0 || !self.has_room(frames.len(), bytes) {
            // Full: nothing is appended before there is a checkpoint.
            self.tail.used = self.tail.capacity;
            return Ok(());
        }
        let frames: Vec<_> = frames.iter().map(|(lsn, frame)| (*lsn, frame.as_slice())).collect();
        let lsn = self.lsn;
        self.advance(lsn, &frames)
    }

    /// Forgets what is in the tail, which is durable elsewhere.
    pub(super) fn empty_tail(&mut self) {
        self.tail.used = 0;
    }

    /// Moves to a file with room for so many bytes of tail, if it has less than two thirds of that, has a tail at all, and
    /// nothing is in it. What cannot be written leaves it with the room that it has.
    ///
    /// # Errors
    /// When it is not known which of the two files has the name now: nothing may be written to either.
    pub(super) fn make_room(
        &mut self,
        files: &Arc<dyn Files>,
        tail_bytes: usize,
    ) -> Result<(), WalError> {
        if self.tail.used > 0 || !(1..tail_bytes / 3 * 2).contains(&self.tail.capacity) {
            return Ok(());
        }
        let slot = Slot { epoch: self.epoch, lsn: self.lsn };
        let Ok(staged) = stage(files, &self.path, slot, tail_bytes) else { return Ok(()) };
        let moved = move_in(files, &staged, &self.path);
        let opened = moved.and_then(|()| files.overwrite(&self.path));
        self.file = opened.map_err(io_error("make room in the mark of", &self.path))?;
        self.tail.capacity = tail_bytes;
        Ok(())
    }

    /// What was acknowledged.
    pub(super) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Whether one slot cannot be read: it was being written, and what it would have said was not
    /// acknowledged. Then the log's end, which was synced before, is whole.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Says durably that everything up to a number was acknowledged, and keeps records in the tail.
    pub(super) fn advance(&mut self, lsn: u64, frames: &[(u64, &[u8])]) -> Result<(), WalError> {
        if self.tail.capacity > 0 && !frames.is_empty() {
            let mut bytes = Vec::new();
            for (lsn, frame) in frames {
                bytes.extend(lsn.to_le_bytes());
                bytes.extend((frame.len() as u32).to_le_bytes());
                bytes.extend(*frame);
            }
            let offset = (SLOTS_BYTES + self.tail.used) as u64;
            let failed = io_error("mark the end of", &self.path);
            self.file.write_at(offset, &bytes).map_err(failed)?;
            self.tail.used += bytes.len();
        }
        let epoch = self.epoch + 1;
        let offset = (epoch % 2) * SLOT_STRIDE as u64;
        let failed = |action| io_error(action, &self.path);
        let slot = Slot { epoch, lsn }.encode();
        self.file.write_at(offset, &slot).map_err(failed("mark the end of"))?;
        self.file.sync().map_err(failed("mark the end of"))?;
        (self.epoch, self.lsn) = (epoch, lsn);
        Ok(())
    }
}

/// Writes a mark with an empty tail beside its place, durably; returns where.
fn stage(
    files: &Arc<dyn Files>,
    path: &Path,
    newest: Slot,
    tail_bytes: usize,
) -> io::Result<PathBuf> {
    let mut bytes = vec![0; SLOTS_BYTES + tail_bytes];
    for slot in [Slot { epoch: newest.epoch.saturating_sub(1), ..newest }, newest] {
        let at = slot.epoch as usize % 2 * SLOT_STRIDE;
        bytes[at..at + SLOT_BYTES].copy_from_slice(&slot.encode());
    }
    let staging = parent_of(path).join("mark.partial");
    let mut file = files.create(&staging)?;
    let written = io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync());
    drop(file);
    if let Err(error) = written {
        // It is in nobody's way: the next one begins anew.
        let _ = files.remove_file(&staging);
        return Err(error);
    }
    Ok(staging)
}

fn move_in(files: &Arc<dyn Files>, staged: &Path, path: &Path) -> io::Result<()> {
    files.rename(staged, path)?;
    files.sync_dir(parent_of(path))
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").field("epoch", &self.epoch).field("lsn", &self.lsn).finish()
    }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> WalError {
    let path = parent_of(path).to_path_buf();
    move |source| WalError::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::MemoryFiles;

    fn damaged_at(bytes: &[u8], slot: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[slot * SLOT_STRIDE + 17] ^= 1;
        bytes
    }

    #[test]
    fn a_mark_that_is_torn_while_written_says_what_was_true_before() {
        let memory = MemoryFiles::new();
        let files: Arc<dyn Files> = Arc::new(memory.clone());
        let directory = Path::new("/log");
        files.create_dir_all(directory).unwrap();
        Mark::create(&files, directory, 0).unwrap();
        let (mut mark, _) = Mark::open(&files, directory).unwrap();
        for lsn in [3, 9, 10] {
            mark.advance(lsn, &[]).unwrap();
            let (reopened, _) = Mark::open(&files, directory).unwrap();
            assert_eq!((reopened.lsn(), reopened.is_doubtful()), (lsn, false));
        }
        let path = directory.join(NAME);
        let bytes = files.read(&path, FILE_BYTES_MAX).unwrap();
        let newest = (mark.epoch % 2) as usize;
        memory.put(&path, &damaged_at(&bytes, newest));
        let (reopened, _) = Mark::open(&files, directory).unwrap();
        assert_eq!((reopened.lsn(), reopened.is_doubtful()), (9, true));
        memory.put(&path, &damaged_at(&damaged_at(&bytes, 0), 1));
        assert!(matches!(Mark::open(&files, directory), Err(WalError::Mark { .. })));
        memory.put(&path, &bytes[..SLOT_STRIDE + SLOT_BYTES]);
        assert!(matches!(Mark::open(&files, directory), Err(WalError::Mark { .. })));
    }

    #[test]
    fn a_tail_gives_back_its_whole_records_and_none_of_an_earlier_life() {
        let files: Arc<dyn Files> = MemoryFiles::shared();
        let directory = Path::new("/log");
        files.create_dir_all(directory).unwrap();
        Mark::create(&files, directory, 400).unwrap();
        let (mut mark, found) = Mark::open(&files, directory).unwrap();
        assert!(found.is_empty());
        let frames: Vec<Entry> =
            (1..=9).map(|lsn| (lsn, frame::encode(lsn, 1, false, &[lsn as u8; 20]))).collect();
        let borrowed: Vec<_> = frames.iter().map(|(lsn, frame)| (*lsn, &frame[..])).collect();
        mark.advance(4, &borrowed[..4]).unwrap();
        mark.advance(6, &borrowed[4..6]).unwrap();
        let (_, found) = Mark::open(&files, directory).unwrap();
        assert_eq!(found, frames[..6]);
        assert!(mark.has_room(3, 96) && !mark.has_room(4, 128));
        mark.empty_tail();
        mark.advance(8, &borrowed[6..8]).unwrap();
        let (reopened, found) = Mark::open(&files, directory).unwrap();
        assert_eq!((found.as_slice(), reopened.lsn()), (&frames[6..8], 8));
    }
}
