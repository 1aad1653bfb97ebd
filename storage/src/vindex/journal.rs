//! The journal of a vindex in the making: which tensors and parts are wholly on disk.
//!
//! One line an entry: 16 hexadecimal digits of the SHA-256 of the rest, a space, JSON. An entry is
//! appended only after the data it names was synced. Reading stops at the first line that does not
//! match its digest, which is what a crash leaves of an append.

use super::{Checksum, TensorRecord};
use serde::{Deserialize, Serialize};

/// The journal's name in the staging directory; the leading dot keeps it out of manifests.
pub(super) const NAME: &str = ".extract_journal";
/// Largest journal that is read back.
pub(super) const BYTES_MAX: u64 = 256 << 20;

const VERSION: u32 = 1;
const DIGEST_CHARS: usize = 16;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// The first entry: what is being written.
    Start { version: u32, fingerprint: String },
    /// A tensor is complete.
    Tensor { file: String, record: TensorRecord },
    /// A part of a file without tensors is complete and ends at byte `end`.
    Part { file: String, part: String, end: u64 },
}

impl Entry {
    pub(super) fn start(fingerprint: &str) -> Self {
        Self::Start { version: VERSION, fingerprint: fingerprint.to_owned() }
    }

    /// The entry's line.
    pub(super) fn encode(&self) -> Vec<u8> {
        let text = serde_json::to_string(self).expect("an entry is plain data");
        format!("{} {text}\n", digest(&text)).into_bytes()
    }
}

/// What a journal says.
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    pub(super) fingerprint: String,
    /// Everything after the first entry.
    pub(super) entries: Vec<Entry>,
    /// Bytes of the intact lines.
    pub(super) bytes: u64,
}

/// Reads the intact lines; `None` when not even the first is, or it is of another version.
pub(super) fn parse(bytes: &[u8]) -> Option<Contents> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').map_while(parse_line);
    let (Entry::Start { version: VERSION, fingerprint }, mut length) = lines.next()? else {
        return None;
    };
    let mut entries = Vec::new();
    for (entry, line_bytes) in lines {
        length += line_bytes;
        entries.push(entry);
    }
    Some(Contents { fingerprint, entries, bytes: length })
}

fn parse_line(line: &[u8]) -> Option<(Entry, u64)> {
    let text = str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (found, text) = text.split_at_checked(DIGEST_CHARS)?;
    let text = text.strip_prefix(' ')?;
    let intact = found == digest(text);
    Some((intact.then(|| serde_json::from_str(text).ok()).flatten()?, line.len() as u64))
}

fn digest(text: &str) -> String {
    let mut digits = Checksum::of(text.as_bytes()).to_string();
    digits.truncate(DIGEST_CHARS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torn_or_flipped_journal_reads_as_a_prefix_of_its_entries() {
        let parts = (0..3).map(|n| Entry::Part { file: "f".into(), part: n.to_string(), end: n });
        let entries: Vec<_> = parts.collect();
        let mut text = Entry::start("print").encode();
        let first_bytes = text.len();
        entries.iter().for_each(|entry| text.extend(entry.encode()));
        assert_eq!(parse(&text).unwrap().entries, entries);
        for cut in 0..text.len() {
            let mut flipped = text.clone();
            flipped[cut] ^= 1;
            for damaged in [&text[..cut], &flipped] {
                match parse(damaged) {
                    Some(found) => assert_eq!(found.entries, entries[..found.entries.len()]),
                    None => assert!(cut < first_bytes),
                }
            }
        }
    }
}
