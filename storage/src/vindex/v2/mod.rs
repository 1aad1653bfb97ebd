//! Vindexes of version 2, as the ancestor of this program wrote them; they are only read.
//!
//! Their `index.json` describes the model and part of the files, other manifests the rest, and some
//! files are known by their names alone. All of it is brought into the [`Manifest`] of version 3, so
//! that a reader sees tensors by role as ever. What differs: nothing in the files is aligned, few of
//! them have a checksum, and the model's configuration is incomplete. The last is not this crate's
//! business: [`V2Header`] hands on what there is.
//!
//! Formats whose element order was the ancestor's own have tags of their own (`ancestor_q6_k`, …).
//! Where a matrix is stored twice, the more precise one is taken; a remark in the manifest says what
//! was left aside, or not understood. Every offset and count is checked as in version 3, before it
//! costs memory.

mod experts;
mod header;
mod roles;
mod tensors;

pub use header::{V2Experts, V2Fp4, V2Header, V2LayerInfo, V2ModelConfig, V2Projection};

use super::layout::{self, INDEX, INDEX_BYTES_MAX, Layout, SIDE_FILE_BYTES_MAX};
use super::manifest::Rules;
use super::{
    Checksum, Checksummer, FileEntry, Manifest, ManifestHeader, Source, TensorKey, TensorRecord,
    VindexError,
};
use crate::file::{FileKind, Files, is_plain_name};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version that is read here.
pub const VERSION: u64 = 2;

/// Files that are taken over as they are, where they are there.
const SIDE_FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    layout::DOWN_META,
    layout::FEATURE_LABELS,
];

/// Those of them that decide what the model answers: its configuration, of which the settings for
/// generation are a part where `config.json` is missing, and its tokens.
const IDENTITY_FILES: [&str; 3] = ["config.json", "generation_config.json", "tokenizer.json"];

/// Tensors of one vindex; large mixtures have tens of thousands.
const TENSORS_MAX: usize = 1 << 20;

/// Remarks that are kept; an honest vindex has a handful.
const NOTES_MAX: usize = 100;

/// Files that the ancestor knew and this program leaves aside, and why.
const LEFT_ASIDE: [(&str, &str); 12] = [
    ("knn_store.bin", "facts in the ancestor's KNN store are not read"),
    ("memit_store.json", "the ancestor's MEMIT cycles are not read"),
    ("down_meta.jsonl", "output tokens in the old JSON form are not read"),
    ("relation_clusters.json", "clusters are not read"),
    ("feature_clusters.jsonl", "clusters are not read"),
    ("model_weights.bin", "weights in the old single file are not read"),
    ("attn_weights_q4.bin", "attention of an older tool is not read"),
    ("attn_weights_q8.bin", "attention of an older tool is not read"),
    ("gate_vectors_q4.bin", "gates of an older tool are not read"),
    ("interleaved.bin", "weights of an example tool are not read"),
    ("interleaved_q4.bin", "weights of an example tool are not read"),
    (".extract_checkpoint.json", "its extraction may not have been finished"),
];

/// Reads a version 2 directory whose `index.json` is `text`.
pub(super) fn read_manifest(
    files: &Arc<dyn Files>,
    directory: &Path,
    text: &[u8],
) -> Result<(Manifest, V2Header), VindexError> {
    let header = V2Header::parse(text)
        .map_err(|problem| VindexError::Damaged { path: directory.join(INDEX), problem })?;
    let mut assembly = Assembly::new(files, directory, &header, text);
    assembly.side_files()?;
    tensors::add(&mut assembly)?;
    let manifest = assembly.finish()?;
    Ok((manifest, header))
}

/// A manifest in the making.
struct Assembly<'a> {
    files: &'a Arc<dyn Files>,
    directory: &'a Path,
    header: &'a V2Header,
    /// Length and tensors by file name.
    found: BTreeMap<String, (u64, Vec<TensorRecord>)>,
    keys: HashSet<TensorKey>,
    notes: Vec<String>,
    /// Whether there were more than [`NOTES_MAX`].
    more_notes: bool,
    /// What tells this vindex from others: the texts of its manifests and [`IDENTITY_FILES`].
    identity: Checksummer,
}

impl<'a> Assembly<'a> {
    fn new(
        files: &'a Arc<dyn Files>,
        directory: &'a Path,
        header: &'a V2Header,
        text: &[u8],
    ) -> Self {
        let mut identity = Checksummer::new();
        identity.update(b"larql vindex 2\n");
        identity.update(Checksum::of(text).as_bytes());
        Self {
            files,
            directory,
            header,
            found: BTreeMap::new(),
            keys: HashSet::new(),
            notes: Vec::new(),
            more_notes: false,
            identity,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn damaged(&self, name: &str, problem: impl Into<String>) -> VindexError {
        VindexError::Damaged { path: self.path(name), problem: problem.into() }
    }

    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if self.notes.contains(&note) {
            return;
        }
        match self.notes.len() < NOTES_MAX {
            true => self.notes.push(note),
            false => self.more_notes = true,
        }
    }

    /// The length of a regular file; `None` when there is none of that name.
    fn length(&self, name: &str) -> Result<Option<u64>, VindexError> {
        let path = self.path(name);
        match self.files.metadata(&path) {
            Ok(found) if found.kind == FileKind::File => Ok(Some(found.length)),
            Ok(_) => Err(self.damaged(name, "it is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(VindexError::Io { action: "look at", path, source }),
        }
    }

    /// Lists a file, whose tensors may follow; says whether it is there.
    fn list(&mut self, name: &str) -> Result<bool, VindexError> {
        if self.found.contains_key(name) {
            return Ok(true);
        }
        let Some(length) = self.length(name)? else { return Ok(false) };
        self.found.insert(name.to_owned(), (length, Vec::new()));
        Ok(true)
    }

    fn side_files(&mut self) -> Result<(), VindexError> {
        for name in SIDE_FILES {
            self.list(name)?;
        }
        for name in IDENTITY_FILES {
            if self.found.contains_key(name) {
                let content = Checksum::of(&self.read(name, SIDE_FILE_BYTES_MAX)?);
                self.identity.update(name.as_bytes());
                self.identity.update(content.as_bytes());
            }
        }
        for (name, why) in LEFT_ASIDE {
            if self.length(name)?.is_some() {
                self.note(format!("{name}: {why}"));
            }
        }
        Ok(())
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, VindexError> {
        let path = self.path(name);
        let text = self.files.read(&path, bytes_max);
        text.map_err(|source| VindexError::Io { action: "read", path, source })
    }

    /// A manifest beside `index.json`: an array of entries.
    fn entries<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<Vec<T>>, VindexError> {
        if self.length(name)?.is_none() {
            return Ok(None);
        }
        let text = self.read(name, INDEX_BYTES_MAX)?;
        self.identity.update(Checksum::of(&text).as_bytes());
        match serde_json::from_slice(&text) {
            Ok(entries) => Ok(Some(entries)),
            Err(error) => Err(self.damaged(name, error.to_string())),
        }
    }

    /// Whether a tensor is there already.
    fn has(&self, key: &TensorKey) -> bool {
        self.keys.contains(key)
    }

    /// Adds a tensor of a listed file, unless a better source has it already.
    ///
    /// # Errors
    /// When there are more of them than any model has.
    fn add(&mut self, file: &str, place: Place<'_>) -> Result<(), VindexError> {
        let Place { name, key, dtype, shape, columns_padded, layout, offset, bytes } = place;
        if !self.keys.insert(key.clone()) {
            self.note(format!("{file}: tensors that another file has too are not read"));
            return Ok(());
        }
        if self.keys.len() > TENSORS_MAX {
            return Err(self.damaged(file, format!("it has tensors beyond the {TENSORS_MAX}th")));
        }
        let record = TensorRecord {
            name: name.to_owned(),
            role: key.role.into_owned(),
            layer: key.layer,
            expert: key.expert,
            dtype: dtype.to_owned(),
            shape,
            columns_padded,
            scales: None,
            layout,
            offset,
            bytes,
        };
        let (_, tensors) = self.found.get_mut(file).expect("the file was listed before");
        tensors.push(record);
        Ok(())
    }

    /// Joins everything, and checks it as a manifest of version 3 is checked.
    fn finish(mut self) -> Result<Manifest, VindexError> {
        let header = self.header;
        // The header was checked: every layer is below their number, which has a bound.
        let mut features = vec![0; header.num_layers as usize];
        for layer in &header.layers {
            features[layer.layer as usize] = layer.num_features;
        }
        let untied = self.has(&TensorKey::model("unembedding"));
        if untied && self.found.contains_key(layout::DOWN_META) {
            self.note(
                "down_meta.bin: its tokens are those of the input embedding, as the ancestor \
                 computed them, and not those of the output matrix",
            );
        }
        if self.more_notes {
            self.notes.push(format!("there are more remarks than these {NOTES_MAX}"));
        }
        let files = self.found.into_iter().map(|(name, (bytes, mut tensors))| {
            tensors.sort_by_key(|tensor| tensor.offset);
            let sha256 = header.checksums.get(&name).copied();
            FileEntry { name, bytes, sha256, tensors }
        });
        let generator = header.source.as_ref().and_then(|source| source.larql_version.as_deref());
        let manifest = Manifest {
            version: VERSION as u32,
            header: ManifestHeader {
                generator: format!("larql {}", generator.unwrap_or("of an unknown version")),
                model: header.model.clone(),
                family: header.family.clone(),
                level: header.extract_level.clone(),
                dtype: header.dtype.clone(),
                quantisation: header.quant.clone().filter(|quant| quant != "none"),
                base_hash: self.identity.finish().to_string(),
                source: Source { name: header.model.clone(), files: Vec::new() },
                layers: header.num_layers,
                hidden_size: header.hidden_size,
                vocabulary_size: header.vocab_size,
                features,
                embed_scale: header.embed_scale,
                bands: header.layer_bands,
                tied_embeddings: !untied,
                notes: self.notes,
            },
            files: files.collect(),
        };
        manifest.check_as(&RULES).map_err(|problem| VindexError::Damaged {
            path: self.directory.join(INDEX),
            problem,
        })?;
        Ok(manifest)
    }
}

/// Nothing is aligned, experts lie in a folder of their own, and not every file has a checksum.
const RULES: Rules = Rules {
    alignment_bytes: 1,
    is_file_name: |name| is_plain_name(name.strip_prefix("layers/").unwrap_or(name)),
    checksums: false,
};

/// One tensor and where it lies.
struct Place<'n> {
    name: &'n str,
    key: TensorKey,
    dtype: &'n str,
    shape: Vec<u64>,
    columns_padded: Option<u64>,
    layout: Layout,
    offset: u64,
    bytes: u64,
}

/// How the elements of a tensor lie in blocks along a row.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// Tag of version 3.
    tag: &'static str,
    elements: u64,
    bytes: u64,
}

/// The ancestor's name for a format, and what it is.
const FORMATS: [(&str, Blocks); 9] = [
    ("f32", Blocks { tag: "f32", elements: 1, bytes: 4 }),
    ("f16", Blocks { tag: "f16", elements: 1, bytes: 2 }),
    ("bf16", Blocks { tag: "bf16", elements: 1, bytes: 2 }),
    ("q4_0", Blocks { tag: "ancestor_q4_0", elements: 32, bytes: 18 }),
    ("q4_k", Blocks { tag: "q4_k", elements: 256, bytes: 144 }),
    ("q6_k", Blocks { tag: "ancestor_q6_k", elements: 256, bytes: 210 }),
    ("q8_0", Blocks { tag: "q8_0", elements: 32, bytes: 34 }),
    ("fp4", Blocks { tag: "ancestor_fp4", elements: 256, bytes: 137 }),
    ("fp8", Blocks { tag: "ancestor_fp8", elements: 256, bytes: 257 }),
];

impl Blocks {
    /// The format of that name, in either case.
    fn named(name: &str) -> Result<Self, String> {
        let found = FORMATS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|&(_, blocks)| blocks).ok_or_else(|| format!("format {name:?} is not known"))
    }

    /// Bytes of a matrix; rows are whole blocks. `None` when that overflows.
    fn bytes_of(&self, rows: u64, columns: u64) -> Option<u64> {
        rows.checked_mul(columns.div_ceil(self.elements))?.checked_mul(self.bytes)
    }

    /// What a row of `columns` takes, where that is more.
    fn padding(&self, columns: u64) -> Option<u64> {
        let padded = columns.checked_next_multiple_of(self.elements)?;
        (padded != columns).then_some(padded)
    }
}
