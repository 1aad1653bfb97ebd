//! The tiered context: the residual stream at the end of each window of tokens, and in the higher tiers
//! what some layers added there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::header::{Bytes, HeaderBytes, NUMBER_BYTES, at_least_one};
use super::writer::VectorWriter;
use super::{TraceFileError, Window};
use crate::file::{Files, Mapping};
use crate::vindex::Checksum;

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"CTXT";
const HEADER_BYTES: u64 = 128;
const TIER_PLACE: u64 = 20;
const CRITICAL_PLACE: u64 = 24;
const BASE_PLACE: usize = 40;
const ENTRY_BYTES: u64 = 24;
/// Layers whose vectors a file may hold.
pub const CRITICAL_LAYERS_MAX: usize = 8;

/// How much is kept of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The stream.
    Residual = 1,
    /// And what the networks of the critical layers added.
    Network = 2,
    /// And what their attention added.
    Attention = 3,
}

impl Tier {
    /// The tier's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u8) -> Result<Self, TraceFileError> {
        match number {
            1 => Ok(Self::Residual),
            2 => Ok(Self::Network),
            3 => Ok(Self::Attention),
            other => Err(TraceFileError::Field {
                field: "the tier",
                found: other.into(),
                expected: "1, 2 or 3".to_owned(),
            }),
        }
    }
}

/// What a tiered context holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextHeader {
    /// Numbers in a vector.
    pub hidden: u32,
    /// Layers of the model.
    pub layers: u32,
    /// Tokens of a window; the last may have fewer.
    pub window: u32,
    /// How much is kept.
    pub tier: Tier,
    /// The critical layers, at most [`CRITICAL_LAYERS_MAX`].
    pub critical: Vec<u8>,
    /// Tokens of all windows.
    pub tokens: u32,
    /// The base of the model, where the file names it.
    pub base: Option<Checksum>,
}

impl ContextHeader {
    /// Vectors of a window.
    fn vectors(&self) -> u64 {
        1 + u64::from(self.tier.number() - 1) * self.critical.len() as u64
    }

    fn window_bytes(&self) -> u64 {
        self.vectors() * u64::from(self.hidden) * NUMBER_BYTES
    }
}

/// The vectors of one window's end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContextVectors {
    /// The stream: `[hidden]`.
    pub residual: Vec<f32>,
    /// What each critical layer's network added; empty in tier 1.
    pub network: Vec<Vec<f32>>,
    /// What each critical layer's attention added; empty below tier 3.
    pub attention: Vec<Vec<f32>>,
}

/// A mapped tiered context.
#[derive(Debug)]
pub struct TieredContext {
    bytes: Bytes,
    header: ContextHeader,
    count: u32,
}

impl TieredContext {
    /// Checks a mapped file: header, index, and that every vector lies in the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, TraceFileError> {
        let bytes = Bytes::with_header(mapping, MAGIC, HEADER_BYTES)?;
        let [tier, critical, ..] = bytes.array::<4>(TIER_PLACE);
        let layers = at_least_one("the number of layers", bytes.u32(12))?;
        let expected = |expected: String, field, found: u8| {
            Err(TraceFileError::Field { field, found: found.into(), expected })
        };
        if usize::from(critical) > CRITICAL_LAYERS_MAX {
            let at_most = format!("at most {CRITICAL_LAYERS_MAX}");
            return expected(at_most, "the number of critical layers", critical);
        }
        let listed: [u8; CRITICAL_LAYERS_MAX] = bytes.array(CRITICAL_PLACE);
        let critical = listed[..usize::from(critical)].to_vec();
        if let Some(&layer) = critical.iter().find(|&&layer| u32::from(layer) >= layers) {
            return expected(format!("below {layers}"), "a critical layer", layer);
        }
        let header = ContextHeader {
            hidden: at_least_one("the size of a vector", bytes.u32(8))?,
            layers,
            window: at_least_one("the size of a window", bytes.u32(16))?,
            tier: Tier::from_number(tier)?,
            critical,
            tokens: bytes.u32(36),
            base: bytes.base(BASE_PLACE as u64),
        };
        let count = bytes.u32(32);
        let index_end = HEADER_BYTES + u64::from(count) * ENTRY_BYTES;
        bytes.require("its index", Some(index_end))?;
        let context = Self { bytes, header, count };
        for index in 0..count {
            let place = context.place(index);
            let end = place.checked_add(context.header.window_bytes());
            context.bytes.require("a window's vectors", end)?;
            if place < HEADER_BYTES {
                return Err(TraceFileError::Field {
                    field: "the place of a window's vectors",
                    found: place,
                    expected: format!("at least {HEADER_BYTES}"),
                });
            }
        }
        Ok(context)
    }

    /// What it holds.
    pub fn header(&self) -> &ContextHeader {
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
        self.bytes.u64(Self::entry(index) + 8)
    }

    /// Reads a window's vectors; `None` where there is no such window.
    pub fn read(&self, index: u32, into: &mut ContextVectors) -> Option<Window> {
        if index >= self.count {
            return None;
        }
        let ContextHeader { hidden, tier, ref critical, .. } = self.header;
        let mut place = self.place(index);
        let mut next = |row: &mut Vec<f32>| {
            self.bytes.vector(place, hidden, row);
            place += u64::from(hidden) * NUMBER_BYTES;
        };
        next(&mut into.residual);
        for (rows, least) in
            [(&mut into.network, Tier::Network), (&mut into.attention, Tier::Attention)]
        {
            let count = if tier >= least { critical.len() } else { 0 };
            rows.resize_with(count, Vec::new);
            rows.iter_mut().for_each(&mut next);
        }
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

/// Writes a tiered context, window by window.
#[derive(Debug)]
pub struct ContextWriter {
    vectors: VectorWriter,
    header: ContextHeader,
}

impl ContextWriter {
    /// Begins a file that is not there yet.
    ///
    /// # Errors
    /// `Exists`, `Busy`, `TooLarge`; `Io`.
    pub fn create(
        files: &Arc<dyn Files>,
        path: &Path,
        header: &ContextHeader,
    ) -> Result<Self, TraceFileError> {
        let critical = header.critical.len();
        if critical > CRITICAL_LAYERS_MAX {
            return Err(TraceFileError::TooLarge {
                what: "the number of critical layers",
                count: critical as u64,
                max: CRITICAL_LAYERS_MAX as u64,
            });
        }
        let windows = Window::of(header.tokens, header.window);
        let count = windows.len() as u64;
        let mut bytes = HeaderBytes::<{ HEADER_BYTES as usize }>::new(MAGIC);
        bytes.numbers(8, &[header.hidden, header.layers, header.window]);
        bytes.put(TIER_PLACE as usize, &[header.tier.number(), critical as u8]);
        bytes.put(CRITICAL_PLACE as usize, &header.critical);
        bytes.numbers(32, &[count as u32, header.tokens]);
        bytes.base(BASE_PLACE, header.base);
        let mut index = Vec::with_capacity((count * ENTRY_BYTES) as usize);
        let first = HEADER_BYTES + count * ENTRY_BYTES;
        for (window, place) in windows.zip(0..) {
            index.extend_from_slice(&window.token_first.to_le_bytes());
            index.extend_from_slice(&window.tokens.to_le_bytes());
            index.extend_from_slice(&(first + place * header.window_bytes()).to_le_bytes());
            index.extend_from_slice(&[0; 8]);
        }
        let numbers = count * header.vectors() * u64::from(header.hidden);
        let vectors = VectorWriter::create(files, path, &[&bytes.0, &index], numbers)?;
        Ok(Self { vectors, header: header.clone() })
    }

    /// Appends the vectors of the next window's end. `network` and `attention` have a row for each
    /// critical layer, in the header's order; those that the tier leaves out are not written.
    ///
    /// # Errors
    /// `Incomplete` for one more than announced; `Io`.
    pub fn boundary(
        &mut self,
        residual: &[f32],
        network: &[&[f32]],
        attention: &[&[f32]],
    ) -> Result<(), TraceFileError> {
        self.vectors.vector(residual)?;
        for (rows, least) in [(network, Tier::Network), (attention, Tier::Attention)] {
            if self.header.tier >= least {
                rows.iter().try_for_each(|row| self.vectors.vector(row))?;
            }
        }
        Ok(())
    }

    /// Makes the file durable and returns its length.
    ///
    /// # Errors
    /// `Incomplete`, `Exists`; `Io`.
    pub fn finish(self) -> Result<u64, TraceFileError> {
        self.vectors.finish()
    }
}
