//! The records of the catalog as bytes.
//!
//! A stored value is a version byte, the first 8 bytes of the SHA-256 over key length, key and
//! content, and the content. A mount's content is its kind as one byte, then name, path and base hash,
//! each behind its length as little-endian `u32`; the path keeps its bytes, whatever their encoding.

use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 8;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRecord {
    /// The name it is used by.
    pub name: String,
    /// The directory or file.
    pub path: PathBuf,
    /// What is there.
    pub kind: MountKind,
    /// Identity of the base when it was mounted.
    pub base_hash: String,
}

/// What a mount is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountKind {
    /// A vindex directory.
    Vindex,
    /// A published checkpoint, used without extraction.
    Checkpoint,
}

impl MountKind {
    /// The kind in words: `vindex` or `checkpoint`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vindex => "vindex",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl MountRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut content = vec![match self.kind {
            MountKind::Vindex => 0,
            MountKind::Checkpoint => 1,
        }];
        for field in
            [self.name.as_bytes(), self.path.as_os_str().as_bytes(), self.base_hash.as_bytes()]
        {
            let length = u32::try_from(field.len()).expect("a name, path or hash of 4 GiB");
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(field);
        }
        content
    }

    pub(super) fn parse(content: &[u8]) -> Result<Self, &'static str> {
        let (&kind, mut rest) = content.split_first().ok_or("it is empty")?;
        let kind = match kind {
            0 => MountKind::Vindex,
            1 => MountKind::Checkpoint,
            _ => return Err("it is of a kind that this program does not know"),
        };
        let mut field = || -> Result<&[u8], &'static str> {
            let (length, tail) = rest.split_first_chunk().ok_or("it ends early")?;
            let length = u32::from_le_bytes(*length) as usize;
            let (field, tail) = tail.split_at_checked(length).ok_or("it ends early")?;
            rest = tail;
            Ok(field)
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "it is not UTF-8");
        let name = text(field()?)?;
        let path = PathBuf::from(OsString::from_vec(field()?.to_vec()));
        let base_hash = text(field()?)?;
        if rest.is_empty() { Ok(Self { name, path, kind, base_hash }) } else { Err("it ends late") }
    }

    pub(super) fn require_name(self, key: &[u8]) -> Result<Self, &'static str> {
        if self.name.as_bytes() == key { Ok(self) } else { Err("it belongs to another name") }
    }
}

/// The stored value of `content` under `key`.
pub(super) fn frame(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&digest(key, content));
    value.extend_from_slice(content);
    value
}

/// The content of a stored value.
pub(super) fn unframe<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (&version, rest) = value.split_first().ok_or("it is empty")?;
    if version != VERSION {
        return Err("it is of a version that this program does not know");
    }
    let (found, content) = rest.split_first_chunk().ok_or("it ends early")?;
    if *found == digest(key, content) { Ok(content) } else { Err("its digest does not match") }
}

fn digest(key: &[u8], content: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(content);
    let whole: [u8; 32] = hasher.finalize().into();
    *whole.first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> MountRecord {
        let path = PathBuf::from(OsString::from_vec(b"/models/\xff\xfe atlas".to_vec()));
        let (name, base_hash) = ("Größe".to_owned(), "ab".repeat(32));
        MountRecord { name, path, kind: MountKind::Checkpoint, base_hash }
    }

    #[test]
    fn mount_record_survives_the_round_trip_with_a_path_that_is_not_utf_8() {
        assert_eq!(MountRecord::parse(&record().encode()), Ok(record()));
    }

    #[test]
    fn every_truncated_or_flipped_value_is_refused() {
        let value = frame(b"key", &record().encode());
        assert!(unframe(b"key", &value).is_ok());
        assert!(unframe(b"kez", &value).is_err());
        for at in 0..value.len() {
            assert!(unframe(b"key", &value[..at]).is_err(), "cut at {at}");
            let mut flipped = value.clone();
            flipped[at] ^= 0x10;
            assert!(unframe(b"key", &flipped).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn every_truncated_content_is_refused_without_its_digest_too() {
        let content = record().encode();
        for at in 0..content.len() {
            assert!(MountRecord::parse(&content[..at]).is_err(), "cut at {at}");
        }
        assert!(MountRecord::parse(&[content, vec![0]].concat()).is_err());
    }
}
