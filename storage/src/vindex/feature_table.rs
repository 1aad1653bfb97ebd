//! The shape shared by `down_meta.bin` and `gate_meta.bin`: a header, then per layer a feature count
//! and that many records of one size. Little-endian throughout.
//!
//! Parsing walks the counts once and checks each against the bytes that are there, so that a lookup
//! afterwards is one multiplication and no lie in a count costs memory.

use crate::file::Mapping;
use std::sync::Arc;

/// Why a per-feature table was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeatureTableError {
    /// The first bytes are those of something else.
    #[error("it does not start like such a table (magic {found:#010x})")]
    Magic {
        /// The first four bytes, little-endian.
        found: u32,
    },
    /// Written for another version of the table.
    #[error("its version is {found}, this program reads {supported}")]
    Version {
        /// Version in the file.
        found: u32,
        /// Version that is read here.
        supported: u32,
    },
    /// A count asks for more bytes than there are.
    #[error("it ends inside {what}: {wanted} bytes from {offset} on, the file has {bytes}")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it starts.
        offset: u64,
        /// Bytes that it needs, saturated.
        wanted: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Bytes are left over.
    #[error("{bytes} bytes follow its last layer")]
    TrailingBytes {
        /// How many.
        bytes: u64,
    },
}

/// A mapped table whose counts were checked.
#[derive(Debug)]
pub(super) struct FeatureTable {
    mapping: Arc<dyn Mapping>,
    /// First record's offset and number of records, per layer.
    layers: Vec<(usize, u32)>,
    record_bytes: usize,
}

/// Reads a table's bytes from front to back.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, FeatureTableError> {
        let at = self.skip(4, || what.to_owned())?;
        Ok(u32_at(self.bytes, at))
    }

    /// Steps over `count` bytes and returns where they start.
    fn skip(&mut self, count: u64, what: impl Fn() -> String) -> Result<usize, FeatureTableError> {
        let (start, left) = (self.position, self.bytes.len() - self.position);
        match usize::try_from(count) {
            Ok(count) if count <= left => {
                self.position += count;
                Ok(start)
            }
            _ => Err(FeatureTableError::Truncated {
                what: what(),
                offset: start as u64,
                wanted: count,
                bytes: self.bytes.len() as u64,
            }),
        }
    }
}

impl FeatureTable {
    /// Checks the layers that follow a header of `header_bytes` bytes.
    pub(super) fn parse(
        mapping: Arc<dyn Mapping>,
        header_bytes: usize,
        layer_count: u32,
        record_bytes: u64,
    ) -> Result<Self, FeatureTableError> {
        let mut cursor = Cursor { bytes: mapping.bytes(), position: header_bytes };
        // A layer takes at least its count, so this bounds what the table below may take.
        let floor = u64::from(layer_count) * 4;
        cursor.skip(floor, || format!("the feature counts of {layer_count} layers"))?;
        cursor.position = header_bytes;
        let mut layers = Vec::with_capacity(layer_count as usize);
        for layer in 0..layer_count {
            let features = cursor.u32(&format!("the feature count of layer {layer}"))?;
            let wanted = u64::from(features).saturating_mul(record_bytes);
            let start =
                cursor.skip(wanted, || format!("the {features} features of layer {layer}"))?;
            layers.push((start, features));
        }
        let left = (cursor.bytes.len() - cursor.position) as u64;
        if left > 0 {
            return Err(FeatureTableError::TrailingBytes { bytes: left });
        }
        let record_bytes = usize::try_from(record_bytes).unwrap_or(usize::MAX);
        Ok(Self { mapping, layers, record_bytes })
    }

    pub(super) fn layers(&self) -> u32 {
        self.layers.len() as u32
    }

    pub(super) fn features(&self, layer: u32) -> u32 {
        self.layers.get(layer as usize).map_or(0, |&(_, features)| features)
    }

    pub(super) fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The bytes of one record; `None` beyond the counts.
    pub(super) fn record(&self, layer: u32, feature: u32) -> Option<&[u8]> {
        let &(start, features) = self.layers.get(layer as usize)?;
        let at = (feature < features).then(|| start + feature as usize * self.record_bytes)?;
        Some(&self.mapping.bytes()[at..at + self.record_bytes])
    }

    pub(super) fn check(&self) -> std::io::Result<()> {
        self.mapping.check()
    }
}

/// The little-endian number at `at`, which lies inside `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
