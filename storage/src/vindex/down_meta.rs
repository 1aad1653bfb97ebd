//! `down_meta.bin`: for every feature, the tokens that its down vector promotes.
//!
//! The layout is the ancestor's version 1, so that its files read like ours: 16 bytes of header
//! (magic, version, layer count, `top_k`), then per layer a feature count and records of
//! `8 + 8 * top_k` bytes (top token, its score, `top_k` pairs of token and logit). Everything is a
//! little-endian `u32` or `f32`. A record of zeros is a feature without tokens; a pair of zeros ends
//! a record's list early.

use super::feature_table::{Cursor, FeatureTable, FeatureTableError, u32_at};
use crate::file::Mapping;
use std::sync::Arc;

/// First number of the file.
pub const MAGIC: u32 = 0x444D_4554;
/// The version that is read and written.
pub const VERSION: u32 = 1;
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 16;

/// The output tokens of one feature, to be encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureRecord {
    /// Token and logit, best first; at most `top_k` of them. Empty for a feature without tokens.
    pub tokens: Vec<(u32, f32)>,
}

/// The header of a file with `layers` layers and `top_k` tokens a feature.
pub fn encode_header(layers: u32, top_k: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (place, value) in header.chunks_exact_mut(4).zip([MAGIC, VERSION, layers, top_k]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// Appends one layer to `out`. Layers follow the header in order, every one of them, those without
/// features as an empty slice.
///
/// # Panics
/// When a feature has more than `top_k` tokens, or the layer more than `u32::MAX` features.
pub fn encode_layer(out: &mut Vec<u8>, top_k: u32, features: &[FeatureRecord]) {
    let count = u32::try_from(features.len()).expect("more features than the format counts");
    out.extend_from_slice(&count.to_le_bytes());
    for FeatureRecord { tokens } in features {
        assert!(tokens.len() <= top_k as usize, "{} tokens, top_k is {top_k}", tokens.len());
        let padding = std::iter::repeat_n((0, 0.0), top_k as usize - tokens.len());
        let top = tokens.first().copied().unwrap_or_default();
        for (token, logit) in [top].into_iter().chain(tokens.iter().copied()).chain(padding) {
            out.extend_from_slice(&token.to_le_bytes());
            out.extend_from_slice(&logit.to_le_bytes());
        }
    }
}

/// A mapped `down_meta.bin`.
#[derive(Debug)]
pub struct DownMeta {
    table: FeatureTable,
    top_k: u32,
}

impl DownMeta {
    /// Checks header and counts; reads no record.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, FeatureTableError> {
        let mut header = Cursor::new(mapping.bytes());
        let found = header.u32("the header")?;
        // Some of the ancestor's files have the four letters in reading order.
        if found != MAGIC && found != MAGIC.swap_bytes() {
            return Err(FeatureTableError::Magic { found });
        }
        let version = header.u32("the header")?;
        if version != VERSION {
            return Err(FeatureTableError::Version { found: version, supported: VERSION });
        }
        let layers = header.u32("the header")?;
        let top_k = header.u32("the header")?;
        let record_bytes = 8 + 8 * u64::from(top_k);
        Ok(Self { table: FeatureTable::parse(mapping, HEADER_BYTES, layers, record_bytes)?, top_k })
    }

    /// Layers in the file.
    pub fn layers(&self) -> u32 {
        self.table.layers()
    }

    /// Features of a layer; 0 beyond the last layer.
    pub fn features(&self, layer: u32) -> u32 {
        self.table.features(layer)
    }

    /// Most tokens kept for one feature.
    pub fn top_k(&self) -> u32 {
        self.top_k
    }

    /// Bytes of one feature's record.
    pub fn record_bytes(&self) -> usize {
        self.table.record_bytes()
    }

    /// The output tokens of a feature; `None` when it has none or does not exist.
    pub fn feature(&self, layer: u32, feature: u32) -> Option<FeatureTokens<'_>> {
        let record = self.table.record(layer, feature)?;
        record.iter().any(|&byte| byte != 0).then_some(FeatureTokens { record })
    }

    /// As [`Mapping::check`].
    pub fn check(&self) -> std::io::Result<()> {
        self.table.check()
    }
}

/// The output tokens of one feature, read in place.
#[derive(Debug, Clone, Copy)]
pub struct FeatureTokens<'a> {
    record: &'a [u8],
}

impl<'a> FeatureTokens<'a> {
    /// The token with the best logit.
    pub fn top_token_id(&self) -> u32 {
        u32_at(self.record, 0)
    }

    /// The best logit.
    pub fn score(&self) -> f32 {
        f32::from_bits(u32_at(self.record, 4))
    }

    /// Token and logit, best first.
    pub fn tokens(&self) -> impl Iterator<Item = (u32, f32)> + use<'a> {
        let (pairs, _) = self.record[8..].as_chunks::<8>();
        let pairs = pairs.iter().take_while(|pair| **pair != [0; 8]);
        pairs.map(|pair| (u32_at(pair, 0), f32::from_bits(u32_at(pair, 4))))
    }
}
