//! GGUF, the single-file format of ggml: typed metadata, then tensors whose elements are in blocks.
//!
//! Versions 2 and 3, little-endian, are read. [`GgufMetadata`] is the metadata, `reader.rs` the checks,
//! `types.rs` the numbers of the format, `split.rs` the rules of models in several files. Tensors come
//! out with the dimensions outermost first, the reverse of ggml's order, and with the name of ggml's
//! element type as format tag.
//!
//! A file is believed as far as it agrees with itself: counts fit the bytes that are there, keys and
//! names are distinct, tensors lie whole and aligned inside the file and do not overlap. Bytes that no
//! tensor claims are allowed, as ggml does.
//!
//! Source: `docs/gguf.md` of the ggml repository.

mod builder;
mod metadata;
mod reader;
mod split;
mod types;

pub use builder::GgufMetadataBuilder;
pub use metadata::{Array, GgufMetadata, MetadataTypeError, Value};
pub use types::{ELEMENT_TYPES, ElementType, ValueType};

pub(super) use metadata::{encode_header, encode_string};
pub(super) use reader::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, DIMENSIONS_MAX};
pub(super) use split::{SplitName, check_parts};

use super::Found;
use crate::file::Mapping;
use std::sync::Arc;

/// Reads the description of a mapped file.
///
/// # Errors
/// A sentence fragment saying what is wrong with the file, and where.
pub(super) fn parse(mapping: &Arc<dyn Mapping>) -> Result<(GgufMetadata, Vec<Found>), String> {
    let parsed = reader::parse(mapping.bytes())?;
    let metadata = GgufMetadata::mapped(mapping.clone(), parsed.version, parsed.entries);
    Ok((metadata, parsed.tensors))
}
