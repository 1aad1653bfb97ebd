//! Segment files: payloads too large for a frame, in files named after what they hold.
//!
//! One file for each group of records that has such payloads, one payload after the other. Its name is the
//! SHA-256 of its bytes, so it can be checked by itself and is never written twice with other content. A
//! record names a payload by file, offset and length with a CRC-32C of it. A segment is whole and synced,
//! its name included, before a record names it; one that no record names is removed with the log's old
//! records.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{PAYLOAD_BYTES_MAX, WalError};
use crate::file::{Files, create_durable_dir};

const FOLDER: &str = "segments";
const SUFFIX: &str = ".seg";
const REFERENCE_BYTES: usize = 52;

/// Where a payload lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReference {
    /// SHA-256 of the file.
    digest: [u8; 32],
    /// Offset in it.
    offset: u64,
    /// Bytes.
    length: u64,
    /// CRC-32C of them.
    crc: u32,
}

impl SegmentReference {
    /// As bytes, little-endian: digest, offset, length, checksum.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.digest.to_vec();
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.crc.to_le_bytes());
        bytes
    }

    /// The reference of such bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REFERENCE_BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        Some(Self {
            digest: bytes[..32].try_into().ok()?,
            offset: word(32),
            length: word(40),
            crc: u32::from_le_bytes(bytes[48..].try_into().ok()?),
        })
    }

    fn name(&self) -> String {
        let digits: String = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        digits + SUFFIX
    }
}

/// The segments of one log.
#[derive(Debug)]
pub struct Segments {
    files: Arc<dyn Files>,
    folder: PathBuf,
}

impl Segments {
    pub(super) fn create(files: &Arc<dyn Files>, directory: &Path) -> Result<(), WalError> {
        let folder = directory.join(FOLDER);
        create_durable_dir(files, &folder).map_err(|(action, path, source)| WalError::Io {
            action,
            path,
            source,
        })
    }

    pub(super) fn open(files: &Arc<dyn Files>, directory: &Path) -> Result<Self, WalError> {
        let folder = directory.join(FOLDER);
        files.metadata(&folder).map_err(|source| WalError::Io {
            action: "find the segments of",
            path: directory.to_path_buf(),
            source,
        })?;
        Ok(Self { files: files.clone(), folder })
    }

    /// Keeps payloads in one new file, durably; says where each lies. No payloads, no file.
    pub(super) fn write<'a>(
        &self,
        payloads: impl Iterator<Item = &'a Vec<u8>> + Clone,
    ) -> Result<Vec<SegmentReference>, WalError> {
        let mut digest = Sha256::new();
        payloads.clone().for_each(|payload| digest.update(payload));
        let digest: [u8; 32] = digest.finalize().into();
        let mut offset = 0;
        let references = payloads.clone().map(|payload| {
            let length = payload.len() as u64;
            let here = offset;
            offset += length;
            SegmentReference { digest, offset: here, length, crc: crc32c::crc32c(payload) }
        });
        let references: Vec<_> = references.collect();
        let Some(first) = references.first() else { return Ok(references) };
        let staging = self.folder.join(format!("{}.partial", first.name()));
        self.write_file(&staging, &first.name(), payloads).map_err(|source| {
            // Nothing names it: whoever writes the same again begins anew.
            let _ = self.files.remove_file(&staging);
            WalError::Segment { path: self.folder.clone(), source }
        })?;
        Ok(references)
    }

    fn write_file<'a>(
        &self,
        staging: &Path,
        name: &str,
        payloads: impl Iterator<Item = &'a Vec<u8>>,
    ) -> io::Result<()> {
        let mut file = self.files.create(staging)?;
        for payload in payloads {
            file.write_all(payload)?;
        }
        file.sync()?;
        drop(file);
        self.files.rename(staging, &self.folder.join(name))?;
        self.files.sync_dir(&self.folder)
    }

    /// The payload that a reference names, checked.
    ///
    /// # Errors
    /// What is wrong; the text continues "record 7 …".
    pub(super) fn read(&self, reference: &SegmentReference) -> Result<Vec<u8>, String> {
        let name = reference.name();
        if reference.length > PAYLOAD_BYTES_MAX as u64 {
            return Err(format!("names {} bytes of segment {name}", reference.length));
        }
        let mapping = self.files.map(&self.folder.join(&name));
        let mapping = mapping.map_err(|error| format!("lacks its segment {name}: {error}"))?;
        let range = usize::try_from(reference.offset).ok().and_then(|start| {
            Some(start..start.checked_add(usize::try_from(reference.length).ok()?)?)
        });
        let payload = range.and_then(|range| mapping.bytes().get(range));
        let payload =
            payload.ok_or_else(|| format!("names bytes beyond the end of segment {name}"))?;
        if crc32c::crc32c(payload) != reference.crc {
            return Err(format!("names damaged bytes of segment {name}"));
        }
        Ok(payload.to_vec())
    }

    /// Removes every file but those that references name.
    pub(super) fn retain(&self, used: &[SegmentReference]) -> Result<(), WalError> {
        let failed = |source| WalError::Io {
            action: "remove segments of",
            path: self.folder.clone(),
            source,
        };
        let used: BTreeSet<_> = used.iter().map(SegmentReference::name).collect();
        for name in self.files.list(&self.folder).map_err(failed)? {
            if name.to_str().is_none_or(|name| !used.contains(name)) {
                self.files.remove_file(&self.folder.join(&name)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Names of segments whose bytes are not what their name says.
    ///
    /// # Errors
    /// `Io` when the folder cannot be listed.
    pub fn damaged(&self) -> Result<Vec<String>, WalError> {
        let listed = self.files.list(&self.folder);
        let names = listed.map_err(|source| WalError::Io {
            action: "list segments of",
            path: self.folder.clone(),
            source,
        })?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let damaged = names.filter(|name| name.ends_with(SUFFIX)).filter(|name| {
            let mapping = self.files.map(&self.folder.join(name));
            let digest = mapping.map(|mapping| <[u8; 32]>::from(Sha256::digest(mapping.bytes())));
            let expected =
                |digest| SegmentReference { digest, offset: 0, length: 0, crc: 0 }.name();
            digest.map(expected).ok().as_ref() != Some(name)
        });
        Ok(damaged.collect())
    }
}
