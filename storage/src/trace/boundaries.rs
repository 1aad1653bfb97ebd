//! The boundary store: the residual stream at the end of each window of tokens.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::header::{Bytes, HeaderBytes, NUMBER_BYTES, at_least_one};
use super::writer::VectorWriter;
use super::{TraceFileError, Window};
use crate::file::{Files, Mapping};
use crate::vindex::Checksum;

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"BNDX";
const HEADER_BYTES: u64 = 64;
const BASE_PLACE: usize = 24;
const ENTRY_BYTES: u64 = 16;
/// Windows that the index has room for, whether it needs it or not.
pub const BOUNDARIES_MAX: u32 = 10_000;
const DATA_PLACE: u64 = HEADER_BYTES + BOUNDARIES_MAX as u64 * ENTRY_BYTES;

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundaryHeader {
    /// Numbers in a vector.
    pub hidden: u32,
    /// Tokens of a window; the last may have fewer.
    pub window: u32,
    /// Tokens of all windows.
    pub tokens: u32,
    /// The base of the model, where the file names it.
    pub base: Option<Checksum>,
}

/// A mapped boundary store.
#[derive(Debug)]
pub struct BoundaryStore {
    bytes: Bytes,
    header: BoundaryHeader,
    count: u32,
}

impl BoundaryStore {
    /// Checks a mapped file: header, index, and that every vector lies in the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, TraceFileError> {
        let bytes = Bytes::with_header(mapping, MAGIC, HEADER_BYTES)?;
        let count = bytes.u32(16);
        let header = BoundaryHeader {
            hidden: at_least_one("the size of a vector", bytes.u32(8))?,
            window: at_least_one("the size of a window", bytes.u32(12))?,
            tokens: bytes.u32(20),
            base: bytes.base(BASE_PLACE as u64),
        };
        if count > BOUNDARIES_MAX {
            return Err(TraceFileError::Field {
                field: "the number of windows",
                found: count.into(),
                expected: format!("at most {BOUNDARIES_MAX}"),
            });
        }
        bytes.require("its index", Some(HEADER_BYTES + u64::from(count) * ENTRY_BYTES))?;
        let store = Self { bytes, header, count };
        for index in 0..count {
            let end = store.place(index) + u64::from(header.hidden) * NUMBER_BYTES;
            store.bytes.require("a window's vector", Some(end))?;
            if store.place(index) < HEADER_BYTES {
                return Err(TraceFileError::Field {
                    field: "the place of a window's vector",
                    found: store.place(index),
                    expected: format!("at least {HEADER_BYTES}"),
                });
            }
        }
        Ok(store)
    }

    /// What it holds.
    pub fn header(&self) -> &BoundaryHeader {
        &self.header
    }

    /// Windows.
    pub fn count(&self) -> u32 {
        self.count
    }

    fn entry(index: u32) -> u64 {
        HEADER_BYTES + u64::from(index) * ENTRY_BYTES
    }

    fn place(&self, index: u32) -> u64 {
        self.bytes.u32(Self::entry(index) + 8).into()
    }

    /// Reads the stream at a window's end into `residual`; `None` where there is no such window.
    pub fn read(&self, index: u32, residual: &mut Vec<f32>) -> Option<Window> {
        if index >= self.count {
            return None;
        }
        self.bytes.vector(self.place(index), self.header.hidden, residual);
        let entry = Self::entry(index);
        Some(Window { token_first: self.bytes.u32(entry), tokens: self.bytes.u32(entry + 4) })
    }

    /// As [`Mapping::check`].
    ///
    /// # Errors
    /// When the file was truncated under the mapping.
    pub fn check(&self) -> io::Result<()> {
        self.bytes.0.check()
    }
}

/// Writes a boundary store, window by window.
#[derive(Debug)]
pub struct BoundaryWriter(VectorWriter);

impl BoundaryWriter {
    /// Begins a file that is not there yet.
    ///
    /// # Errors
    /// `Exists`, `Busy`, `TooLarge`; `Io`.
    pub fn create(
        files: &Arc<dyn Files>,
        path: &Path,
        header: &BoundaryHeader,
    ) -> Result<Self, TraceFileError> {
        let windows = Window::of(header.tokens, header.window);
        let count = windows.len() as u64;
        let vector = u64::from(header.hidden) * NUMBER_BYTES;
        // Places are 32 bits.
        let room = u64::from(u32::MAX - DATA_PLACE as u32) / vector.max(1) + 1;
        let max = room.min(BOUNDARIES_MAX.into());
        if count > max {
            return Err(TraceFileError::TooLarge { what: "the number of windows", count, max });
        }
        let mut bytes = HeaderBytes::<{ HEADER_BYTES as usize }>::new(MAGIC);
        let numbers = [header.hidden, header.window, count as u32, header.tokens];
        bytes.numbers(8, &numbers);
        bytes.base(BASE_PLACE, header.base);
        let mut index = vec![0; (DATA_PLACE - HEADER_BYTES) as usize];
        for ((entry, window), place) in
            index.chunks_exact_mut(ENTRY_BYTES as usize).zip(windows).zip(0..)
        {
            let place = DATA_PLACE + place * vector;
            for (bytes, number) in
                entry.chunks_exact_mut(4).zip([window.token_first, window.tokens, place as u32])
            {
                bytes.copy_from_slice(&number.to_le_bytes());
            }
        }
        let numbers = count * u64::from(header.hidden);
        VectorWriter::create(files, path, &[&bytes.0, &index], numbers).map(Self)
    }

    /// Appends the stream at the next window's end.
    ///
    /// # Errors
    /// `Incomplete` for one more than announced; `Io`.
    pub fn boundary(&mut self, residual: &[f32]) -> Result<(), TraceFileError> {
        self.0.vector(residual)
    }

    /// Makes the file durable and returns its length.
    ///
    /// # Errors
    /// `Incomplete`, `Exists`; `Io`.
    pub fn finish(self) -> Result<u64, TraceFileError> {
        self.0.finish()
    }
}
