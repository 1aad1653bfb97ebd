//! What the headers have in common: little-endian numbers at fixed places, lengths that are checked
//! before they are used, and the model's base in bytes that the ancestor reserves.

use std::sync::Arc;

use super::TraceFileError;
use crate::file::Mapping;
use crate::vindex::Checksum;

/// Bytes of one number of a vector.
pub(super) const NUMBER_BYTES: u64 = 4;

/// A mapped file whose length is known to reach wherever it is read.
#[derive(Debug)]
pub(super) struct Bytes(pub(super) Arc<dyn Mapping>);

impl Bytes {
    /// The file, if it is at least as long as a header and has the format's version.
    pub(super) fn with_header(
        mapping: Arc<dyn Mapping>,
        magic: [u8; 4],
        header_bytes: u64,
    ) -> Result<Self, TraceFileError> {
        let bytes = Self(mapping);
        bytes.require("the header", Some(header_bytes))?;
        let found = bytes.array::<4>(0);
        if found != magic {
            return Err(TraceFileError::Magic { found: Some(found) });
        }
        match bytes.u32(4) {
            super::VERSION => Ok(bytes),
            found => Err(TraceFileError::Version { found }),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.bytes().len() as u64
    }

    /// Fails unless the file has that many bytes; `None` is more than can be counted.
    pub(super) fn require(
        &self,
        what: &'static str,
        end: Option<u64>,
    ) -> Result<(), TraceFileError> {
        match end {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(TraceFileError::Truncated {
                what,
                wanted: end.unwrap_or(u64::MAX),
                bytes: self.len(),
            }),
        }
    }

    /// Bytes at a place that was checked.
    pub(super) fn array<const N: usize>(&self, place: u64) -> [u8; N] {
        let place = place as usize;
        self.0.bytes()[place..place + N].try_into().expect("as many bytes as asked for")
    }

    pub(super) fn u32(&self, place: u64) -> u32 {
        u32::from_le_bytes(self.array(place))
    }

    pub(super) fn u64(&self, place: u64) -> u64 {
        u64::from_le_bytes(self.array(place))
    }

    /// The base that 32 bytes name; none where they are zero.
    pub(super) fn base(&self, place: u64) -> Option<Checksum> {
        let bytes: [u8; 32] = self.array(place);
        (bytes != [0; 32]).then(|| Checksum::from_bytes(bytes))
    }

    /// Replaces `row` by the numbers at a place that was checked.
    pub(super) fn vector(&self, place: u64, numbers: u32, row: &mut Vec<f32>) {
        let (place, length) = (place as usize, numbers as usize * NUMBER_BYTES as usize);
        let (numbers, _) = self.0.bytes()[place..place + length].as_chunks::<4>();
        row.clear();
        row.extend(numbers.iter().map(|&number| f32::from_le_bytes(number)));
    }
}

/// Refuses a count of zero.
pub(super) fn at_least_one(field: &'static str, found: u32) -> Result<u32, TraceFileError> {
    match found {
        0 => Err(TraceFileError::Field { field, found: 0, expected: "at least 1".to_owned() }),
        count => Ok(count),
    }
}

/// A header in the making.
#[derive(Debug)]
pub(super) struct HeaderBytes<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> HeaderBytes<N> {
    pub(super) fn new(magic: [u8; 4]) -> Self {
        let mut header = Self([0; N]);
        header.put(0, &magic);
        header.put(4, &super::VERSION.to_le_bytes());
        header
    }

    pub(super) fn put(&mut self, place: usize, bytes: &[u8]) {
        self.0[place..place + bytes.len()].copy_from_slice(bytes);
    }

    /// Numbers one after another.
    pub(super) fn numbers(&mut self, place: usize, numbers: &[u32]) {
        for (index, number) in numbers.iter().enumerate() {
            self.put(place + index * 4, &number.to_le_bytes());
        }
    }

    pub(super) fn base(&mut self, place: usize, base: Option<Checksum>) {
        if let Some(base) = base {
            self.put(place, base.as_bytes());
        }
    }
}
