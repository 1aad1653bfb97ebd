//! The manifest, `index.json`: what a vindex holds, file by file and tensor by tensor.
//!
//! Parsing is where hostility ends: a [`Manifest`] that came out of [`Manifest::parse`] has plain and
//! distinct file names, tensors inside their files that neither overlap nor share a key, layers below
//! its layer count, and no product that overflows. The text carries its own SHA-256 as last field, so
//! that a flipped bit in it is found like one in any other file.

use super::layout::{DIMENSIONS_MAX, LAYERS_MAX, Layout, TENSOR_ALIGNMENT_BYTES, VERSION};
use super::{Checksum, layout};
use crate::file::is_plain_name;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// What a whole vindex says about itself, apart from its files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// Program and version that wrote it, for example `larqld 0.1.0`.
    pub generator: String,
    /// Name of the model.
    pub model: String,
    /// Architecture family, for example `gemma3`.
    pub family: String,
    /// Extraction level: `browse`, `attention`, `inference` or `all`.
    pub level: String,
    /// Requested precision of the weights: `f16`, `f32` or `source`.
    pub dtype: String,
    /// Requested block format of the matrices, for example `q4k`; opaque to storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<String>,
    /// Identity of the base: SHA-256 over canonical weights, configuration and tokenizer.
    pub base_hash: String,
    /// Where the weights came from.
    pub source: Source,
    /// Layers of the model, extracted or not.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Tokens in the vocabulary.
    pub vocabulary_size: u64,
    /// FFN features per layer, one entry a layer; 0 for a layer that was not extracted.
    pub features: Vec<u64>,
    /// Factor on embedding rows before the first layer.
    pub embed_scale: f64,
    /// Layer bands, for models with enough layers to have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<LayerBands>,
    /// Whether the output matrix is the embedding matrix.
    pub tied_embeddings: bool,
    /// Remarks for people, for example tensors kept at source precision.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Where the weights of a vindex came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the checkpoint.
    pub name: String,
    /// Its weight files.
    #[serde(default)]
    pub files: Vec<SourceFile>,
}

/// One weight file of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// File name in the checkpoint.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Checksum,
}

/// Layer bands as first and last layer, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBands {
    /// Early layers: form.
    pub syntax: [u32; 2],
    /// Middle layers: facts.
    pub knowledge: [u32; 2],
    /// Late layers: the answer takes shape.
    pub output: [u32; 2],
}

/// One tensor of a vindex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Name in the source checkpoint.
    pub name: String,
    /// What the tensor does, for example `gate`; opaque to storage.
    pub role: String,
    /// Its layer; `None` for tensors of the whole model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// Its expert, in a mixture of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<u32>,
    /// Element format tag, for example `f16`; opaque to storage.
    pub dtype: String,
    /// Dimensions as they lie in the bytes, outermost first.
    pub shape: Vec<u64>,
    /// Elements that a row takes in the bytes, where that is more than the last dimension: rows of
    /// block formats are whole blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns_padded: Option<u64>,
    /// The scales that lie in records of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<ScalesRecord>,
    /// How those bytes relate to the source.
    pub layout: Layout,
    /// First byte in the file; a writer fills it in, whatever it is given.
    #[serde(default)]
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Scales that belong to a matrix and lie in records of their own, which have the matrix's layer and
/// expert, and its role with a suffix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ScalesRecord {
    /// A factor for each tile of the matrix, row-major, in `<role>.grid`.
    Grid {
        /// Rows of a tile.
        rows: u64,
        /// Columns of a tile.
        columns: u64,
    },
    /// A scale for each `group` elements of a row in `<role>.scales`, and what is added, if anything
    /// is, in `<role>.biases`.
    Groups {
        /// Elements that share a scale.
        group: u64,
    },
    /// An exponent for each 32 elements of a row, in `<role>.scales`.
    Mx,
}

/// Elements that share an exponent in the MX formats.
const MX_GROUP: u64 = 32;

impl ScalesRecord {
    /// The suffixes of the roles under which scales lie, the ones that must be there first.
    pub fn suffixes(&self) -> &'static [&'static str] {
        match self {
            Self::Grid { .. } => &[".grid"],
            Self::Groups { .. } => &[".scales", ".biases"],
            Self::Mx => &[".scales"],
        }
    }

    /// The shape of the scales of a matrix; `None` where a tile or group is empty.
    pub fn shape(&self, rows: u64, columns: u64) -> Option<[u64; 2]> {
        match *self {
            Self::Grid { rows: 0, .. }
            | Self::Grid { columns: 0, .. }
            | Self::Groups { group: 0 } => None,
            Self::Grid { rows: tile_rows, columns: tile_columns } => {
                Some([rows.div_ceil(tile_rows), columns.div_ceil(tile_columns)])
            }
            Self::Groups { group } => Some([rows, columns.div_ceil(group)]),
            Self::Mx => Some([rows, columns.div_ceil(MX_GROUP)]),
        }
    }
}

impl TensorRecord {
    /// The key of the record that holds this one's scales of that suffix.
    pub fn companion(&self, suffix: &str) -> TensorKey {
        TensorKey { role: Cow::Owned(format!("{}{suffix}", self.role)), ..self.key() }
    }

    /// What the tensor is looked up by.
    pub fn key(&self) -> TensorKey {
        TensorKey { role: Cow::Owned(self.role.clone()), layer: self.layer, expert: self.expert }
    }
}

/// What a tensor is looked up by: unique in a vindex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorKey {
    /// As [`TensorRecord::role`].
    pub role: Cow<'static, str>,
    /// As [`TensorRecord::layer`].
    pub layer: Option<u32>,
    /// As [`TensorRecord::expert`].
    pub expert: Option<u32>,
}

impl TensorKey {
    /// A tensor of the whole model.
    pub fn model(role: impl Into<Cow<'static, str>>) -> Self {
        Self { role: role.into(), layer: None, expert: None }
    }

    /// A tensor of one layer.
    pub fn layer(role: impl Into<Cow<'static, str>>, layer: u32) -> Self {
        Self { role: role.into(), layer: Some(layer), expert: None }
    }

    /// A tensor of one expert in one layer.
    pub fn expert(role: impl Into<Cow<'static, str>>, layer: u32, expert: u32) -> Self {
        Self { role: role.into(), layer: Some(layer), expert: Some(expert) }
    }
}

impl fmt::Display for TensorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.role)?;
        if let Some(layer) = self.layer {
            write!(f, " of layer {layer}")?;
        }
        if let Some(expert) = self.expert {
            write!(f, ", expert {expert}")?;
        }
        Ok(())
    }
}

/// One file of a vindex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Plain file name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file; `None` only for some files of version 2.
    pub sha256: Option<Checksum>,
    /// The tensors in it, by offset; empty for side files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorRecord>,
}

/// A parsed or finished `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version; [`layout::VERSION`] for what this crate writes.
    pub version: u32,
    /// What the vindex says about itself.
    #[serde(flatten)]
    pub header: ManifestHeader,
    /// Every file but `index.json` itself, sorted by name.
    pub files: Vec<FileEntry>,
}

impl std::ops::Deref for Manifest {
    type Target = ManifestHeader;

    fn deref(&self) -> &ManifestHeader {
        &self.header
    }
}

/// Why an `index.json` was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the JSON that a manifest is.
    #[error("it is not a manifest: {0}")]
    Json(#[source] serde_json::Error),
    /// Written for another version of the format.
    #[error("its version is {found}, this program reads {supported}")]
    UnsupportedVersion {
        /// Version in the file.
        found: u64,
        /// Version that is read here.
        supported: u32,
    },
    /// The text does not match the SHA-256 at its end.
    #[error("its text does not match its own SHA-256: it was damaged or edited")]
    Checksum,
    /// Well-formed, but contradicting itself.
    #[error("{0}")]
    Inconsistent(String),
}

/// The last field: SHA-256 of every byte of the text before it.
const SEAL: &str = "\"manifest_sha256\"";

/// What the versions of the format differ in.
pub(super) struct Rules {
    /// Every tensor starts at a multiple of this.
    pub(super) alignment_bytes: u64,
    pub(super) is_file_name: fn(&str) -> bool,
    /// Every file has a checksum.
    pub(super) checksums: bool,
}

/// Of the version that is written.
const RULES: Rules =
    Rules { alignment_bytes: TENSOR_ALIGNMENT_BYTES, is_file_name: is_plain_name, checksums: true };

impl Manifest {
    /// Parses and checks the text of an `index.json`.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let Versioned { version: found } =
            serde_json::from_slice(text).map_err(ManifestError::Json)?;
        if found != u64::from(VERSION) {
            return Err(ManifestError::UnsupportedVersion { found, supported: VERSION });
        }
        check_seal(text)?;
        let manifest: Self = serde_json::from_slice(text).map_err(ManifestError::Json)?;
        manifest.check().map_err(ManifestError::Inconsistent)?;
        Ok(manifest)
    }

    /// The text of the `index.json`, sealed with its SHA-256.
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory fails only for maps with keys that are no strings; there are none.
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        assert!(text.ends_with(b"\n}"), "a manifest is an object with fields");
        text.truncate(text.len() - 2);
        text.extend_from_slice(b",\n  ");
        let seal = Checksum::of(&text);
        text.extend_from_slice(format!("{SEAL}: \"{seal}\"\n}}\n").as_bytes());
        text
    }

    /// The entry of a file.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Every tensor, file by file.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorRecord> {
        self.files.iter().flat_map(|file| &file.tensors)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.check_as(&RULES)
    }

    /// Checks a manifest by the rules of its version.
    pub(super) fn check_as(&self, rules: &Rules) -> Result<(), String> {
        let header = &self.header;
        if header.layers > LAYERS_MAX {
            return Err(format!("it claims {} layers, the most is {LAYERS_MAX}", header.layers));
        }
        if header.features.len() != header.layers as usize {
            let entries = header.features.len();
            return Err(format!("it has {} layers but {entries} feature counts", header.layers));
        }
        if !header.embed_scale.is_finite() {
            return Err("embed_scale is not a finite number".to_owned());
        }
        if let Some(LayerBands { syntax, knowledge, output }) = header.bands {
            for [first, last] in [syntax, knowledge, output] {
                if first > last || last >= header.layers {
                    let layers = header.layers;
                    return Err(format!(
                        "band {first}-{last} is not a range of its {layers} layers"
                    ));
                }
            }
        }
        let mut names = HashSet::new();
        let mut keys = HashSet::new();
        for file in &self.files {
            if !(rules.is_file_name)(&file.name) || file.name == layout::INDEX {
                return Err(format!("{:?} is not a plain file name", file.name));
            }
            if !names.insert(file.name.as_str()) {
                return Err(format!("{} is listed twice", file.name));
            }
            if rules.checksums && file.sha256.is_none() {
                return Err(format!("{} has no checksum", file.name));
            }
            let mut free_from = 0;
            for tensor in &file.tensors {
                check_tensor(tensor, header.layers, free_from, file, rules.alignment_bytes)
                    .map_err(|problem| format!("{} in {}: {problem}", tensor.name, file.name))?;
                free_from = tensor.offset + tensor.bytes;
                if !keys.insert((tensor.role.as_str(), tensor.layer, tensor.expert)) {
                    return Err(format!("{} is stored twice, as {}", tensor.key(), tensor.name));
                }
            }
        }
        check_scales(&self.files)
    }
}

/// Checks that the scales of every tensor are there, and as many as it needs.
fn check_scales(files: &[FileEntry]) -> Result<(), String> {
    let tensors = || files.iter().flat_map(|file| &file.tensors);
    if tensors().all(|tensor| tensor.scales.is_none()) {
        return Ok(());
    }
    let by_key: HashMap<TensorKey, &TensorRecord> =
        tensors().map(|tensor| (tensor.key(), tensor)).collect();
    for tensor in tensors() {
        let Some(scales) = &tensor.scales else { continue };
        let problem = |what: String| Err(format!("{}: {what}", tensor.name));
        let &[rows, columns] = &tensor.shape[..] else {
            return problem("it has scales, and is no matrix".to_owned());
        };
        let Some(expected) = scales.shape(rows, columns) else {
            return problem("its scales are for tiles or groups of nothing".to_owned());
        };
        for (index, suffix) in scales.suffixes().iter().enumerate() {
            let key = tensor.companion(suffix);
            match by_key.get(&key) {
                Some(found) if found.shape == expected => {}
                Some(found) => {
                    let found = &found.shape;
                    return problem(format!("{key} has the shape {found:?}, not {expected:?}"));
                }
                None if index > 0 => {}
                None => return problem(format!("{key} is missing")),
            }
        }
    }
    Ok(())
}

/// Checks one tensor of `file` that may not start before `free_from`.
fn check_tensor(
    tensor: &TensorRecord,
    layers: u32,
    free_from: u64,
    file: &FileEntry,
    alignment_bytes: u64,
) -> Result<(), String> {
    let TensorRecord { offset, bytes, shape, .. } = tensor;
    if let Some(layer) = tensor.layer.filter(|&layer| layer >= layers) {
        return Err(format!("layer {layer} of a model with {layers} layers"));
    }
    if shape.len() > DIMENSIONS_MAX {
        return Err(format!("{} dimensions, the most is {DIMENSIONS_MAX}", shape.len()));
    }
    if shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size)).is_none() {
        return Err(format!("the element count of shape {shape:?} overflows"));
    }
    let columns = shape.last().copied().unwrap_or(1);
    if let Some(padded) = tensor.columns_padded.filter(|&padded| padded <= columns) {
        return Err(format!("rows of {columns} are padded to {padded}"));
    }
    if !offset.is_multiple_of(alignment_bytes) {
        return Err(format!("offset {offset} is not a multiple of {alignment_bytes}"));
    }
    let Some(end) = offset.checked_add(*bytes).filter(|&end| end <= file.bytes) else {
        let length = file.bytes;
        return Err(format!("{bytes} bytes at {offset} reach beyond the file's {length}"));
    };
    if *offset < free_from {
        return Err(format!(
            "bytes {offset}..{end} overlap the tensor before, which ends at {free_from}"
        ));
    }
    Ok(())
}

fn check_seal(text: &[u8]) -> Result<(), ManifestError> {
    let tail_bytes = SEAL.len() + ": \"\"\n}\n".len() + 64;
    let Some(covered) = text.len().checked_sub(tail_bytes) else {
        return Err(ManifestError::Checksum);
    };
    let (covered, tail) = text.split_at(covered);
    let expected = format!("{SEAL}: \"{}\"\n}}\n", Checksum::of(covered));
    if tail == expected.as_bytes() { Ok(()) } else { Err(ManifestError::Checksum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: &str, shape: [u64; 2], scales: Option<ScalesRecord>) -> TensorRecord {
        TensorRecord {
            name: role.to_owned(),
            role: role.to_owned(),
            layer: Some(0),
            expert: None,
            dtype: "u4".to_owned(),
            shape: shape.to_vec(),
            columns_padded: None,
            scales,
            layout: Layout::RowMajor,
            offset: 0,
            bytes: 0,
        }
    }

    fn check(tensors: Vec<TensorRecord>) -> Result<(), String> {
        let file = FileEntry {
            name: "gate_vectors.bin".to_owned(),
            bytes: 0,
            sha256: Some(Checksum::of(b"")),
            tensors,
        };
        let header = ManifestHeader { layers: 1, features: vec![3], ..ManifestHeader::default() };
        Manifest { version: VERSION, header, files: vec![file] }.check()
    }

    #[test]
    fn scales_must_be_there_and_as_many_as_their_matrix_needs() {
        let groups = |group| Some(ScalesRecord::Groups { group });
        let weight = |scales| record("gate", [3, 130], scales);
        check(vec![weight(groups(64)), record("gate.scales", [3, 3], None)]).unwrap();
        let error = check(vec![weight(groups(64))]).unwrap_err();
        assert!(error.contains("gate.scales of layer 0 is missing"), "{error}");
        let short = record("gate.scales", [3, 2], None);
        let error = check(vec![weight(groups(64)), short]).unwrap_err();
        assert!(error.contains("[3, 2], not [3, 3]"), "{error}");
        let biases = record("gate.biases", [2, 3], None);
        let scales = record("gate.scales", [3, 3], None);
        assert!(check(vec![weight(groups(64)), scales, biases]).is_err());
        assert!(check(vec![weight(groups(0)), record("gate.scales", [3, 0], None)]).is_err());
        let grid = Some(ScalesRecord::Grid { rows: 2, columns: 128 });
        check(vec![weight(grid.clone()), record("gate.grid", [2, 2], None)]).unwrap();
        assert!(check(vec![weight(grid), record("gate.scales", [2, 2], None)]).is_err());
        check(vec![weight(Some(ScalesRecord::Mx)), record("gate.scales", [3, 5], None)]).unwrap();
    }

    #[test]
    fn padding_adds_to_a_row() {
        let padded = |columns| TensorRecord {
            columns_padded: Some(columns),
            ..record("gate", [3, 130], None)
        };
        check(vec![padded(256)]).unwrap();
        for columns in [0, 129, 130] {
            assert!(check(vec![padded(columns)]).is_err(), "{columns}");
        }
    }
}
