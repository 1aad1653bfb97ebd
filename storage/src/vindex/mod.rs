//! The vindex: a directory that holds a model as a database, ready to be mapped.
//!
//! `index.json`, the manifest, names every file with its length and SHA-256, and every tensor in it
//! with role, shape, layout and byte range; readers follow it and never guess from a file name. The
//! byte layout is written down in `docs/formats/vindex.md`.
//!
//! Promises: a directory that opens is complete, because [`VindexWriter`] builds beside the
//! destination and moves the finished directory in as its last step. Opening is cheap (lengths and
//! headers); [`verify()`] reads everything. The same input gives the same bytes.
//!
//! Elsewhere: what goes in and what it means (`larqld/src/pipeline`), weights as published
//! ([`crate::checkpoint`]).

pub mod checksum;
pub mod down_meta;
pub mod gate_meta;
pub mod index;
pub mod knowledge;
pub mod labels;
pub mod layout;
pub mod manifest;
pub mod reader;
pub mod statistics;
pub mod v2;
pub mod verify;
pub mod writer;

mod feature_table;
mod journal;
mod staging;

pub use checksum::{Checksum, Checksummer};
pub use down_meta::{DownMeta, FeatureTokens};
pub use feature_table::FeatureTableError;
pub use gate_meta::{GateMeta, InputToken};
pub use index::{IndexError, IndexFile, IndexHeader, IndexWriter};
pub use knowledge::{KnowledgeError, KnowledgeFile, KnowledgeLimits};
pub use labels::Labels;
pub use layout::Layout;
pub use manifest::{
    FileEntry, LayerBands, Manifest, ManifestError, ManifestHeader, ScalesRecord, Source,
    SourceFile, TensorKey, TensorRecord,
};
pub use reader::{TensorSlice, Vindex, VindexError};
pub use statistics::{LayerScores, Statistics};
pub use v2::V2Header;
pub use verify::{FileReport, FileState, VerifyReport, VerifyStep, verify};
pub use writer::{Sealed, VindexWriteError, VindexWriter, WritePlan};
