//! The durable high-water mark: the last number that was acknowledged, kept outside the log.
//!
//! A file of two slots, each in a page of its own, written alternately: while one is being written, the
//! other says what was true before. The slot with the higher epoch counts. This is what turns a log that
//! lost its end into an error: the log alone cannot know how long it was.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::WalError;
use crate::file::{FileOverwrite, Files, parent_of};

/// The file's name.
const NAME: &str = "mark";
const MAGIC: [u8; 4] = *b"LQMK";
const VERSION: u32 = 1;
/// A page: whatever is torn while one slot is written, the other is not.
const SLOT_STRIDE: usize = 4096;
const SLOT_BYTES: usize = 28;
const FILE_BYTES: usize = 2 * SLOT_STRIDE;

/// The open mark.
pub(super) struct Mark {
    path: PathBuf,
    file: Box<dyn FileOverwrite>,
    epoch: u64,
    lsn: u64,
    doubtful: bool,
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
    /// Makes the mark of an empty log, unless there is one.
    pub(super) fn create(files: &Arc<dyn Files>, directory: &Path) -> Result<(), WalError> {
        let path = directory.join(NAME);
        if files.metadata(&path).is_ok() {
            return Ok(());
        }
        let mut bytes = vec![0; FILE_BYTES];
        for epoch in 0..2 {
            let slot = Slot { epoch, lsn: 0 }.encode();
            bytes[epoch as usize * SLOT_STRIDE..][..SLOT_BYTES].copy_from_slice(&slot);
        }
        let staging = directory.join("mark.partial");
        let failed = |action| io_error(action, &path);
        let mut file = files.create(&staging).map_err(failed("create"))?;
        io::Write::write_all(&mut file, &bytes).map_err(failed("create"))?;
        file.sync().map_err(failed("create"))?;
        drop(file);
        files.rename(&staging, &path).map_err(failed("create"))?;
        files.sync_dir(parent_of(&path)).map_err(failed("create"))
    }

    /// Opens the mark.
    pub(super) fn open(files: &Arc<dyn Files>, directory: &Path) -> Result<Self, WalError> {
        let path = directory.join(NAME);
        let bytes = files.read(&path, FILE_BYTES as u64).map_err(io_error("read", &path))?;
        let slots = [0, SLOT_STRIDE].map(|at| bytes.get(at..).and_then(Slot::decode));
        let Some(newest) = slots.into_iter().flatten().max() else {
            let problem = "neither of its two slots can be read";
            return Err(WalError::Mark { path, problem });
        };
        if bytes.len() != FILE_BYTES {
            return Err(WalError::Mark { path, problem: "it is not two pages long" });
        }
        let file = files.overwrite(&path).map_err(io_error("open", &path))?;
        let doubtful = slots.contains(&None);
        Ok(Self { path, file, epoch: newest.epoch, lsn: newest.lsn, doubtful })
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

    /// Says durably that everything up to a number was acknowledged.
    pub(super) fn advance(&mut self, lsn: u64) -> Result<(), WalError> {
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
        Mark::create(&files, directory).unwrap();
        let mut mark = Mark::open(&files, directory).unwrap();
        for lsn in [3, 9, 10] {
            mark.advance(lsn).unwrap();
            let reopened = Mark::open(&files, directory).unwrap();
            assert_eq!((reopened.lsn(), reopened.is_doubtful()), (lsn, false));
        }
        let path = directory.join(NAME);
        let bytes = files.read(&path, FILE_BYTES as u64).unwrap();
        let newest = (mark.epoch % 2) as usize;
        memory.put(&path, &damaged_at(&bytes, newest));
        let reopened = Mark::open(&files, directory).unwrap();
        assert_eq!((reopened.lsn(), reopened.is_doubtful()), (9, true));
        memory.put(&path, &damaged_at(&damaged_at(&bytes, 0), 1));
        assert!(matches!(Mark::open(&files, directory), Err(WalError::Mark { .. })));
        memory.put(&path, &bytes[..SLOT_STRIDE + SLOT_BYTES]);
        assert!(matches!(Mark::open(&files, directory), Err(WalError::Mark { .. })));
    }
}
