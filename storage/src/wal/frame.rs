//! How a record lies in a log: twelve bytes before its payload, and a checksum that covers its number too.
//!
//! ```text
//! 0  u8   version, 1
//! 1  u8   kind, of meaning to `store`
//! 2  u8   1 where the payload is a reference to a segment, else 0
//! 3  u8   0
//! 4  u32  bytes of payload
//! 8  u32  CRC-32C over the LSN (u64), the eight bytes above, and the payload
//! ```
//!
//! Numbers are little-endian.

/// Bytes before the payload.
pub const FRAME_BYTES: usize = 12;

const VERSION: u8 = 1;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a frame says it has.
    #[error("is cut short: it has {found} bytes of {expected}")]
    Short {
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// More bytes than a frame says it has.
    #[error("has {0} bytes too many")]
    Surplus(usize),
    /// A checksum over other bytes, or another number.
    #[error("is damaged: its checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// Over the bytes found.
        found: u32,
        /// In the frame.
        expected: u32,
    },
    /// Written by a later larqld.
    #[error("has version {0}, this larqld reads version {VERSION}")]
    Version(u8),
}

/// A frame that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of record it is.
    pub kind: u8,
    /// Whether the payload lies in a segment, and this is the reference.
    pub is_reference: bool,
    /// The payload or the reference.
    pub payload: &'a [u8],
}

fn checksum(lsn: u64, head: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&lsn.to_le_bytes()), head);
    crc32c::crc32c_append(crc, payload)
}

/// A record as bytes. The payload is at most [`super::PAYLOAD_BYTES_MAX`], which a `u32` holds.
pub(crate) fn encode(lsn: u64, kind: u8, is_reference: bool, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are bounded");
    let mut frame = Vec::with_capacity(FRAME_BYTES + payload.len());
    frame.extend([VERSION, kind, u8::from(is_reference), 0]);
    frame.extend(length.to_le_bytes());
    let crc = checksum(lsn, &frame, payload);
    frame.extend(crc.to_le_bytes());
    frame.extend(payload);
    frame
}

/// The record of such bytes.
///
/// # Errors
/// What is wrong with it; the text continues "record 7 …".
pub(crate) fn decode(lsn: u64, bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let short = |expected| FrameError::Short { found: bytes.len(), expected };
    let (head, payload) = bytes.split_first_chunk::<FRAME_BYTES>().ok_or(short(FRAME_BYTES))?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let (length, expected) = (word(4) as usize, word(8));
    if payload.len() < length {
        return Err(short(FRAME_BYTES.saturating_add(length)));
    }
    if payload.len() > length {
        return Err(FrameError::Surplus(payload.len() - length));
    }
    let found = checksum(lsn, &head[..8], payload);
    if found != expected {
        return Err(FrameError::Checksum { found, expected });
    }
    // A version that is damaged is a damaged checksum: what is left was written so.
    if head[0] != VERSION {
        return Err(FrameError::Version(head[0]));
    }
    Ok(Frame { kind: head[1], is_reference: head[2] != 0, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_under_its_own_number_only() {
        let bytes = encode(7, 3, false, b"payload");
        let frame = Frame { kind: 3, is_reference: false, payload: b"payload" };
        assert_eq!(decode(7, &bytes), Ok(frame));
        assert!(matches!(decode(8, &bytes), Err(FrameError::Checksum { .. })));
    }

    #[test]
    fn every_bit_and_every_byte_counts() {
        let bytes = encode(7, 3, true, b"payload");
        for at in 0..bytes.len() {
            assert!(decode(7, &bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8u32 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1u8 << bit;
                assert!(decode(7, &damaged).is_err(), "bit {bit} of byte {at}");
            }
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(decode(7, &longer), Err(FrameError::Surplus(1)));
    }
}
