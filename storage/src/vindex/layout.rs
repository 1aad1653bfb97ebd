//! Names, limits and alignments of the vindex directory, in one place (`docs/formats/vindex.md`).

use serde::{Deserialize, Serialize};

/// The version that this crate writes.
pub const VERSION: u32 = 3;

/// Every tensor starts at a multiple of this many bytes in its file: a cache line, an AVX-512
/// register.
pub const TENSOR_ALIGNMENT_BYTES: u64 = 64;

/// The manifest.
pub const INDEX: &str = "index.json";
/// Per-feature output tokens ([`super::DownMeta`]).
pub const DOWN_META: &str = "down_meta.bin";
/// Per-feature input tokens ([`super::GateMeta`]).
pub const GATE_META: &str = "gate_meta.bin";
/// Score statistics ([`super::Statistics`]).
pub const STATISTICS: &str = "statistics.json";
/// Relation labels ([`super::Labels`]).
pub const FEATURE_LABELS: &str = "feature_labels.json";

/// Largest manifest that is read. DeepSeek V3 needs about 12 MB.
pub const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Largest side file that is read whole (a tokenizer of 256,000 tokens has about 33 MB).
pub const SIDE_FILE_BYTES_MAX: u64 = 256 << 20;
/// Most layers a manifest may claim.
pub const LAYERS_MAX: u32 = 1 << 16;
/// Most dimensions a tensor may have.
pub const DIMENSIONS_MAX: usize = 8;

/// How the elements of a matrix lie in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layout {
    /// Row-major in `shape`, as in the source.
    RowMajor,
    /// The transpose of the source, row-major in `shape`: row `f` is feature `f`.
    FeatureMajor,
}
