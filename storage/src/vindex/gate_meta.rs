//! `gate_meta.bin`: for every feature, the input token that excites its gate most.
//!
//! 12 bytes of header (the letters `GMTA`, version, layer count), then per layer a feature count and
//! records of 8 bytes: token and score. Everything is a little-endian `u32` or `f32`. A record of
//! zeros is a feature that no token stands out for.

use super::feature_table::{Cursor, FeatureTable, FeatureTableError, u32_at};
use crate::file::Mapping;
use std::sync::Arc;

/// First number of the file: the letters `GMTA` in reading order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"GMTA");
/// The version that is read and written.
pub const VERSION: u32 = 1;
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 12;

/// The input token that excites a gate most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputToken {
    /// The token.
    pub token_id: u32,
    /// Its score at the gate.
    pub score: f32,
}

/// The header of a file with `layers` layers.
pub fn encode_header(layers: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (place, value) in header.chunks_exact_mut(4).zip([MAGIC, VERSION, layers]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// Appends one layer to `out`, `None` for a feature that no token stands out for. Layers follow the
/// header in order, every one of them.
///
/// # Panics
/// When the layer has more than `u32::MAX` features.
pub fn encode_layer(out: &mut Vec<u8>, features: &[Option<InputToken>]) {
    let count = u32::try_from(features.len()).expect("more features than the format counts");
    out.extend_from_slice(&count.to_le_bytes());
    for feature in features {
        let InputToken { token_id, score } =
            feature.unwrap_or(InputToken { token_id: 0, score: 0.0 });
        out.extend_from_slice(&token_id.to_le_bytes());
        out.extend_from_slice(&score.to_le_bytes());
    }
}

/// A mapped `gate_meta.bin`.
#[derive(Debug)]
pub struct GateMeta {
    table: FeatureTable,
}

impl GateMeta {
    /// Checks header and counts; reads no record.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, FeatureTableError> {
        let mut header = Cursor::new(mapping.bytes());
        let found = header.u32("the header")?;
        if found != MAGIC {
            return Err(FeatureTableError::Magic { found });
        }
        let version = header.u32("the header")?;
        if version != VERSION {
            return Err(FeatureTableError::Version { found: version, supported: VERSION });
        }
        let layers = header.u32("the header")?;
        Ok(Self { table: FeatureTable::parse(mapping, HEADER_BYTES, layers, 8)? })
    }

    /// Layers in the file.
    pub fn layers(&self) -> u32 {
        self.table.layers()
    }

    /// Features of a layer; 0 beyond the last layer.
    pub fn features(&self, layer: u32) -> u32 {
        self.table.features(layer)
    }

    /// Bytes of one feature's record.
    pub fn record_bytes(&self) -> usize {
        self.table.record_bytes()
    }

    /// The strongest input token of a feature; `None` when none stands out or it does not exist.
    pub fn feature(&self, layer: u32, feature: u32) -> Option<InputToken> {
        let record = self.table.record(layer, feature)?;
        let token =
            InputToken { token_id: u32_at(record, 0), score: f32::from_bits(u32_at(record, 4)) };
        (record != [0; 8]).then_some(token)
    }

    /// As [`Mapping::check`].
    pub fn check(&self) -> std::io::Result<()> {
        self.table.check()
    }
}
