//! A log that is a plain file behind the file seam: entries with their number and length, one after the
//! other. It is the second implementation that the suite asks for, and the one that every fault of the seam
//! can reach; `larql admin wal import` reads exports into either.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{INLINE_BYTES_MAX, PatchLog};
use crate::file::{FileWrite, Files, parent_of};

const NAME: &str = "records";
/// Number and length of an entry.
const HEAD_BYTES: usize = 12;
/// More than a frame with its payload, and far less than memory.
const ENTRY_BYTES_MAX: usize = INLINE_BYTES_MAX + 4096;

/// The open file.
pub struct FileLog {
    files: Arc<dyn Files>,
    path: PathBuf,
    write: Box<dyn FileWrite>,
}

impl FileLog {
    /// Opens the log in a directory, created when missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(files: &Arc<dyn Files>, directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        let write = match files.metadata(&path) {
            Ok(found) => files.resume(&path, found.length)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut write = files.create(&path)?;
                write.sync()?;
                files.sync_dir(directory)?;
                write
            }
            Err(error) => return Err(error),
        };
        Ok(Self { files: files.clone(), path, write })
    }

    /// Rewrites the file with the entries of some numbers, and moves it into place.
    fn keep(&mut self, wanted: impl Fn(u64) -> bool) -> io::Result<()> {
        let staging = parent_of(&self.path).join("records.partial");
        let mut bytes = Vec::new();
        self.scan(0, &mut |lsn, entry| {
            if wanted(lsn) {
                put_entry(&mut bytes, lsn, entry);
            }
        })?;
        let mut write = self.files.create(&staging)?;
        write.write_all(&bytes)?;
        write.sync()?;
        drop(write);
        self.files.rename(&staging, &self.path)?;
        self.files.sync_dir(parent_of(&self.path))?;
        self.write = self.files.resume(&self.path, bytes.len() as u64)?;
        Ok(())
    }
}

fn put_entry(bytes: &mut Vec<u8>, lsn: u64, entry: &[u8]) {
    bytes.extend(lsn.to_le_bytes());
    bytes.extend((entry.len() as u32).to_le_bytes());
    bytes.extend(entry);
}

impl PatchLog for FileLog {
    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        entries.iter().zip(first..).for_each(|(entry, lsn)| put_entry(&mut bytes, lsn, entry));
        self.write.write_all(&bytes)?;
        self.write.sync()
    }

    fn scan(&self, from: u64, visit: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
        let mapping = self.files.map(&self.path)?;
        let mut rest = mapping.bytes();
        let mut previous = None;
        while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let lsn = u64::from_le_bytes(head[..8].try_into().expect("eight bytes"));
            let length = u32::from_le_bytes(head[8..].try_into().expect("four bytes")) as usize;
            if length > ENTRY_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has no length"));
            }
            let Some((entry, after)) = after.split_at_checked(length) else { break };
            // Nothing writes them so: who cuts or appends behind such an entry would do it in the wrong place.
            if previous.replace(lsn).is_some_and(|previous| lsn <= previous) {
                let message = "an entry's number is not above the one before it";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if lsn >= from {
                visit(lsn, entry);
            }
            rest = after;
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last entry is cut short"))
    }

    fn remove_before(&mut self, lsn: u64) -> io::Result<()> {
        self.keep(|one| one >= lsn)
    }

    fn remove_from(&mut self, lsn: u64) -> io::Result<()> {
        let mapping = self.files.map(&self.path)?;
        let mut kept = 0u64;
        // What cannot be read comes after what can.
        let _ = self.scan(0, &mut |one, entry| {
            if one < lsn {
                kept += (HEAD_BYTES + entry.len()) as u64;
            }
        });
        drop(mapping);
        self.write = self.files.resume(&self.path, kept)?;
        self.write.sync()
    }
}

impl std::fmt::Debug for FileLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLog").field("path", &self.path).finish_non_exhaustive()
    }
}
