//! Opening a vindex: the manifest is read, every file it names is mapped, nothing is copied.
//!
//! Opening checks what is cheap (lengths, ranges, headers), so that a mount takes milliseconds; the
//! checksums are read by [`super::verify()`]. Bytes are used from the mapping; when somebody truncates
//! a file meanwhile, [`Vindex::check`] says so.

use super::layout::{self, INDEX, INDEX_BYTES_MAX, SIDE_FILE_BYTES_MAX};
use super::{
    DownMeta, FeatureTableError, GateMeta, Labels, Manifest, ManifestError, Statistics, TensorKey,
    TensorRecord, V2Header, staging, v2,
};
use crate::file::{Files, Mapping};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open vindex.
#[derive(Debug)]
pub struct Vindex {
    directory: PathBuf,
    manifest: Manifest,
    /// In the order of `manifest.files`.
    mappings: Vec<Arc<dyn Mapping>>,
    /// Positions in `manifest.files` and its `tensors`.
    tensors: HashMap<TensorKey, (usize, usize)>,
    down_meta: Option<DownMeta>,
    gate_meta: Option<GateMeta>,
    statistics: Option<Statistics>,
    labels: Option<Labels>,
    ancestor: Option<V2Header>,
}

/// One tensor, read in place.
#[derive(Debug, Clone, Copy)]
pub struct TensorSlice<'a> {
    /// What the manifest says about it.
    pub record: &'a TensorRecord,
    /// Its bytes, exactly `record.bytes` of them, aligned to 64 (in a vindex of version 2 to nothing).
    pub bytes: &'a [u8],
}

/// Why a vindex was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VindexError {
    /// There is nothing at this path.
    #[error("{} does not exist", .directory.display())]
    NoSuchDirectory {
        /// The path that was asked for.
        directory: PathBuf,
    },
    /// The directory holds no manifest.
    #[error("{} is not a vindex: it has no {INDEX}", .directory.display())]
    NotAVindex {
        /// The path that was asked for.
        directory: PathBuf,
    },
    /// The directory is where an EXTRACT works, or worked when it was interrupted.
    #[error("{} is not a vindex: an EXTRACT works in it, or was interrupted", .directory.display())]
    Unfinished {
        /// The path that was asked for.
        directory: PathBuf,
    },
    /// The manifest is of another version.
    #[error("{} is a vindex of version {found}, this program reads version {supported}", .directory.display())]
    UnsupportedVersion {
        /// The vindex.
        directory: PathBuf,
        /// Version in its manifest.
        found: u64,
        /// Version that is read here.
        supported: u32,
    },
    /// The manifest cannot be used.
    #[error("{} cannot be used: {source}", .path.display())]
    Manifest {
        /// The `index.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A file that the manifest names is not there.
    #[error("{} is missing", .path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file has another length than the manifest says.
    #[error("{} has {found} bytes, the manifest says {expected}", .path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length in the manifest.
        expected: u64,
    },
    /// A per-feature table is damaged.
    #[error("{} cannot be used: {source}", .path.display())]
    FeatureTable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FeatureTableError,
    },
    /// A file contradicts itself or the manifest.
    #[error("{} cannot be used: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file changed under the mapping.
    #[error("the vindex changed under its mount: {0}")]
    Changed(#[source] io::Error),
    /// The system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl VindexError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoSuchDirectory { .. } => "check the path, or EXTRACT a model into it",
            Self::NotAVindex { .. } => "EXTRACT a model into another directory, or name a vindex",
            Self::Unfinished { .. } => "give the same EXTRACT again, with RESUME",
            Self::UnsupportedVersion { .. } => {
                "EXTRACT the model again with this program, or use the one that wrote it"
            }
            Self::Manifest { .. } | Self::FeatureTable { .. } | Self::Damaged { .. } => {
                "copy the file again from where it came, or EXTRACT the model again"
            }
            Self::MissingFile { .. } | Self::WrongSize { .. } => {
                "the copy is incomplete: copy it again, or EXTRACT the model again"
            }
            Self::Changed(_) => "UNMOUNT it, restore the file, and mount it again",
            Self::Io { .. } => "check the permissions and the disk",
        }
    }
}

impl Vindex {
    /// Opens a vindex directory; cheap, see the module.
    pub fn open(files: &Arc<dyn Files>, directory: &Path) -> Result<Self, VindexError> {
        let (manifest, ancestor) = read_manifest(files, directory)?;
        let mut mappings = Vec::with_capacity(manifest.files.len());
        for entry in &manifest.files {
            let path = directory.join(&entry.name);
            let mapping = files.map(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => VindexError::MissingFile { path: path.clone() },
                _ => VindexError::Io { action: "map", path: path.clone(), source },
            })?;
            let found = mapping.bytes().len() as u64;
            if found != entry.bytes {
                return Err(VindexError::WrongSize { path, found, expected: entry.bytes });
            }
            mappings.push(mapping);
        }
        Self::assemble(directory, manifest, ancestor, mappings)
    }

    /// Joins a checked manifest with the mappings of its files.
    fn assemble(
        directory: &Path,
        manifest: Manifest,
        ancestor: Option<V2Header>,
        mappings: Vec<Arc<dyn Mapping>>,
    ) -> Result<Self, VindexError> {
        let mut tensors = HashMap::new();
        for (file, entry) in manifest.files.iter().enumerate() {
            for (tensor, record) in entry.tensors.iter().enumerate() {
                tensors.insert(record.key(), (file, tensor));
            }
        }
        let mut vindex = Self {
            directory: directory.to_path_buf(),
            manifest,
            mappings,
            tensors,
            down_meta: None,
            gate_meta: None,
            statistics: None,
            labels: None,
            ancestor,
        };
        vindex.read_meta_files()?;
        Ok(vindex)
    }

    fn read_meta_files(&mut self) -> Result<(), VindexError> {
        if let Some(mapping) = self.mapping(layout::DOWN_META) {
            let refuse = |source| VindexError::FeatureTable { path: mapping.path().into(), source };
            let table = DownMeta::parse(mapping.clone()).map_err(refuse)?;
            self.check_counts(mapping.path(), table.layers(), |layer| table.features(layer))?;
            self.down_meta = Some(table);
        }
        if let Some(mapping) = self.mapping(layout::GATE_META) {
            let refuse = |source| VindexError::FeatureTable { path: mapping.path().into(), source };
            let table = GateMeta::parse(mapping.clone()).map_err(refuse)?;
            self.check_counts(mapping.path(), table.layers(), |layer| table.features(layer))?;
            self.gate_meta = Some(table);
        }
        if let Some(mapping) = self.mapping(layout::STATISTICS) {
            let refuse = |problem| VindexError::Damaged { path: mapping.path().into(), problem };
            let statistics = Statistics::parse(mapping.bytes(), self.manifest.layers);
            self.statistics = Some(statistics.map_err(refuse)?);
        }
        if let Some(mapping) = self.mapping(layout::FEATURE_LABELS) {
            let refuse = |problem| VindexError::Damaged { path: mapping.path().into(), problem };
            let labels = side_file_bytes(mapping).map_err(refuse)?;
            let labels = Labels::parse(labels).map_err(refuse)?;
            let counts = &self.manifest.features;
            let known = |layer: u32, feature: u32| {
                counts.get(layer as usize).is_some_and(|&count| u64::from(feature) < count)
            };
            if let Some((layer, feature, _)) = labels.iter().find(|&(l, f, _)| !known(l, f)) {
                return Err(refuse(format!("L{layer}_F{feature} is no feature of this model")));
            }
            self.labels = Some(labels);
        }
        Ok(())
    }

    /// Checks a table's counts against the manifest's: every layer whole or absent.
    fn check_counts(
        &self,
        path: &Path,
        layers: u32,
        features: impl Fn(u32) -> u32,
    ) -> Result<(), VindexError> {
        let refuse = |problem| Err(VindexError::Damaged { path: path.into(), problem });
        if layers != self.manifest.layers {
            return refuse(format!(
                "it has {layers} layers, the manifest {}",
                self.manifest.layers
            ));
        }
        for (layer, &expected) in (0..).zip(&self.manifest.features) {
            let found = u64::from(features(layer));
            if found != 0 && found != expected {
                return refuse(format!(
                    "layer {layer} has {found} features, the manifest {expected}"
                ));
            }
        }
        Ok(())
    }

    fn mapping(&self, name: &str) -> Option<&Arc<dyn Mapping>> {
        let position = self.manifest.files.iter().position(|file| file.name == name)?;
        self.mappings.get(position)
    }

    /// The directory that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The manifest, checked.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What a vindex of version 2 says of its model, which is not the whole configuration; `None` for
    /// the version that is written, which has a `config.json`.
    pub fn ancestor(&self) -> Option<&V2Header> {
        self.ancestor.as_ref()
    }

    /// A tensor by what it does.
    pub fn tensor(&self, key: &TensorKey) -> Option<TensorSlice<'_>> {
        let &(file, tensor) = self.tensors.get(key)?;
        Some(self.slice(file, tensor))
    }

    /// Every tensor, file by file in order of offset.
    pub fn tensors(&self) -> impl Iterator<Item = TensorSlice<'_>> {
        let counts = self.manifest.files.iter().map(|file| file.tensors.len()).enumerate();
        counts.flat_map(move |(file, count)| (0..count).map(move |tensor| self.slice(file, tensor)))
    }

    fn slice(&self, file: usize, tensor: usize) -> TensorSlice<'_> {
        let record = &self.manifest.files[file].tensors[tensor];
        // The manifest was checked: the range lies in a file of at most `usize::MAX` mapped bytes.
        let (start, length) = (record.offset as usize, record.bytes as usize);
        TensorSlice { record, bytes: &self.mappings[file].bytes()[start..start + length] }
    }

    /// Hints that a tensor is about to be read.
    pub fn will_need(&self, key: &TensorKey) {
        if let Some(&(file, tensor)) = self.tensors.get(key) {
            let record = &self.manifest.files[file].tensors[tensor];
            let start = record.offset as usize;
            self.mappings[file].will_need(start..start + record.bytes as usize);
        }
    }

    /// The bytes of a whole file of the manifest, as they are mapped.
    pub fn file_bytes(&self, name: &str) -> Option<&[u8]> {
        self.mapping(name).map(|mapping| mapping.bytes())
    }

    /// A side file's bytes, for example `config.json`; `None` when the manifest has no such file.
    pub fn side_file(&self, name: &str) -> Result<Option<Vec<u8>>, VindexError> {
        let Some(mapping) = self.mapping(name) else { return Ok(None) };
        let path = || mapping.path().to_path_buf();
        let bytes = side_file_bytes(mapping)
            .map_err(|problem| VindexError::Damaged { path: path(), problem })?
            .to_vec();
        mapping.check().map_err(VindexError::Changed)?;
        Ok(Some(bytes))
    }

    /// Output tokens per feature, when the level has them.
    pub fn down_meta(&self) -> Option<&DownMeta> {
        self.down_meta.as_ref()
    }

    /// Input tokens per feature, when extraction kept them.
    pub fn gate_meta(&self) -> Option<&GateMeta> {
        self.gate_meta.as_ref()
    }

    /// Score statistics, when extraction kept them.
    pub fn statistics(&self) -> Option<&Statistics> {
        self.statistics.as_ref()
    }

    /// Relation labels, when there are any.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// Says whether every file is still as long as when it was mapped.
    ///
    /// # Errors
    /// `Changed`, naming the file; whatever was read in the meantime may have been zeros.
    pub fn check(&self) -> Result<(), VindexError> {
        self.mappings.iter().try_for_each(|mapping| mapping.check()).map_err(VindexError::Changed)
    }

    /// Whether the directory holds another vindex by now, or none: this one goes on from its mappings,
    /// whoever opens the directory anew gets what is there.
    pub fn is_replaced(&self, files: &Arc<dyn Files>) -> bool {
        read_manifest(files, &self.directory).map_or(true, |(found, _)| found != self.manifest)
    }

    /// Bytes of all files, the manifest apart.
    pub fn bytes(&self) -> u64 {
        self.mappings.iter().map(|mapping| mapping.bytes().len() as u64).sum()
    }
}

fn side_file_bytes(mapping: &Arc<dyn Mapping>) -> Result<&[u8], String> {
    let bytes = mapping.bytes();
    if bytes.len() as u64 > SIDE_FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, the most is {SIDE_FILE_BYTES_MAX}", bytes.len()));
    }
    Ok(bytes)
}

/// Reads and checks the manifest of `directory`; of a vindex of version 2 also its own header.
pub(super) fn read_manifest(
    files: &Arc<dyn Files>,
    directory: &Path,
) -> Result<(Manifest, Option<V2Header>), VindexError> {
    let path = directory.join(INDEX);
    let text = match files.read(&path, INDEX_BYTES_MAX) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            let directory = directory.to_path_buf();
            return Err(match files.metadata(&directory) {
                Ok(_) => VindexError::NotAVindex { directory },
                Err(_) => VindexError::NoSuchDirectory { directory },
            });
        }
        Err(source) => return Err(VindexError::Io { action: "read", path, source }),
    };
    // Its manifest is complete for a moment before the directory moves to its destination.
    if staging::is_staging(files, directory) {
        return Err(VindexError::Unfinished { directory: directory.to_path_buf() });
    }
    match Manifest::parse(&text) {
        Ok(manifest) => Ok((manifest, None)),
        Err(ManifestError::UnsupportedVersion { found: v2::VERSION, .. }) => {
            let (manifest, header) = v2::read_manifest(files, directory, &text)?;
            Ok((manifest, Some(header)))
        }
        Err(ManifestError::UnsupportedVersion { found, supported }) => {
            let directory = directory.to_path_buf();
            Err(VindexError::UnsupportedVersion { directory, found, supported })
        }
        Err(source) => Err(VindexError::Manifest { path, source }),
    }
}
