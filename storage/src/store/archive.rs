//! Records in one file: what a log checkpoint is, and an export.
//!
//! ```text
//! "LQRA"  u32 version 1
//! u16 bytes of the base hash, the base hash
//! u64 the last LSN   u64 the first moment that can be asked for   u64 records
//! a record: u64 LSN, a frame as in the log, payload inline
//! SHA-256 of everything above
//! ```
//!
//! Written beside its place and moved in whole; read only when the digest is right.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::StoreError;
use super::history::{History, Numbered};
use super::record::Record;
use crate::file::{Files, parent_of};
use crate::wal::{FRAME_BYTES, decode_frame, encode_frame};

const MAGIC: [u8; 4] = *b"LQRA";
const VERSION: u32 = 1;
const DIGEST_BYTES: usize = 32;
const COPIED_AT_ONCE: usize = 1 << 20;

/// The file's content, as written and read.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) base_hash: String,
    /// The last LSN, whether or not its record is among them.
    pub(super) lsn: u64,
    /// The first moment that can be asked for.
    pub(super) first: u64,
    pub(super) records: Vec<Numbered>,
}

impl Archive {
    /// The history that it tells.
    pub(super) fn history(self) -> Result<History, StoreError> {
        let mut history = History::beginning_at(self.first);
        for (lsn, record) in self.records {
            history.push(lsn, record)?;
        }
        history.advance_to(self.lsn);
        Ok(history)
    }

    /// Writes it.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut to = Digesting { inner: to, digest: Sha256::new() };
        to.write_all(&MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let length =
            u16::try_from(self.base_hash.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        to.write_all(&length.to_le_bytes())?;
        to.write_all(self.base_hash.as_bytes())?;
        for number in [self.lsn, self.first, self.records.len() as u64] {
            to.write_all(&number.to_le_bytes())?;
        }
        for (lsn, record) in &self.records {
            let (kind, payload) = record.encode();
            to.write_all(&lsn.to_le_bytes())?;
            to.write_all(&encode_frame(*lsn, kind, false, &payload))?;
        }
        let Digesting { inner, digest } = to;
        inner.write_all(&digest.finalize())
    }

    /// Writes it to a file, in whole or not at all, over one that is there.
    pub(super) fn write_file(&self, files: &Arc<dyn Files>, path: &Path) -> io::Result<()> {
        write_whole(files, path, |to| self.write(to))
    }

    /// Writes one that was parsed to a file, in whole or not at all, as it is: piece by piece, so that no more
    /// memory is taken for it.
    pub(super) fn copy_file(files: &Arc<dyn Files>, path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_whole(files, path, |to| {
            let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
            let (content, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(cut)?;
            let mut to = Digesting { inner: to, digest: Sha256::new() };
            content.chunks(COPIED_AT_ONCE).try_for_each(|piece| to.write_all(piece))?;
            let Digesting { inner, digest: found } = to;
            if found.finalize()[..] != *digest {
                // A mapped file says what it says now.
                let message = "it changed while it was read";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            inner.write_all(digest)
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong; the text continues the file's name.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let content = bytes.len().checked_sub(DIGEST_BYTES).ok_or("is cut short")?;
        let (content, digest) = bytes.split_at(content);
        if content.get(..4) != Some(&MAGIC) {
            return Err("is no archive of edits".into());
        }
        if Sha256::digest(content)[..] != *digest {
            return Err("is damaged or cut short: its digest is wrong".into());
        }
        let mut rest = Reader(&content[4..]);
        let version = u32::from_le_bytes(rest.take()?);
        if version != VERSION {
            return Err(format!("has version {version}, this larqld reads version {VERSION}"));
        }
        let length = u16::from_le_bytes(rest.take()?);
        let base_hash = String::from_utf8(rest.bytes(length.into())?.to_vec());
        let base_hash = base_hash.map_err(|_| "has a base hash that is no text")?;
        let [lsn, first, count] = [rest.number()?, rest.number()?, rest.number()?];
        let mut records = Vec::new();
        let mut previous = 0;
        for _ in 0..count {
            let number = rest.number()?;
            if number <= previous || number > lsn {
                return Err(format!("has record {number} after {previous}, and {lsn} as its last"));
            }
            let head = rest.0.get(..FRAME_BYTES).ok_or("is cut short")?;
            let payload = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
            let length = FRAME_BYTES.checked_add(payload as usize).ok_or("is cut short")?;
            let frame = rest.bytes(length)?;
            let record = decode_frame(number, frame).map_err(|error| error.to_string());
            let record = record.and_then(|frame| {
                Record::decode(frame.kind, frame.payload).map_err(|error| error.to_string())
            });
            let record =
                record.map_err(|problem| format!("has record {number}, which {problem}"))?;
            records.push((number, Arc::new(record)));
            previous = number;
        }
        if !rest.0.is_empty() {
            return Err(format!("has {} bytes too many", rest.0.len()));
        }
        Ok(Self { base_hash, lsn, first: first.min(lsn), records })
    }
}

/// Writes a file beside its place, and moves it in when all of it is durable.
fn write_whole(
    files: &Arc<dyn Files>,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    let staging = Path::new(&name);
    let written = (|| {
        let mut file = files.create(staging)?;
        write(&mut file)?;
        file.sync()?;
        drop(file);
        files.rename(staging, path)?;
        files.sync_dir(parent_of(path))
    })();
    if written.is_err() {
        // It is in nobody's way: the next one begins anew.
        let _ = files.remove_file(staging);
    }
    written
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.bytes(N)?.try_into().expect("as many as asked for"))
    }

    fn number(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

struct Digesting<'a> {
    inner: &'a mut dyn Write,
    digest: Sha256,
}

impl Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
