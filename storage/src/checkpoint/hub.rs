//! Which files of a directory are the weights, as the hub lays them out, and which links they may be.

use super::gguf::SplitName;
use super::json::Entries;
use super::{CheckpointError, CheckpointKind, Shard, TensorEntry};
use crate::file::{FileKind, Files, Mapping, is_plain_name};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
/// Which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The weight files of a checkpoint.
pub(super) enum WeightNames {
    /// One file that holds everything.
    Single(String),
    /// Shards, and what their index says.
    Sharded {
        /// Distinct, sorted.
        shards: BTreeSet<String>,
        /// Shard by tensor.
        weight_map: HashMap<String, String>,
    },
    /// A GGUF file, or the parts of one, in order.
    Gguf(Vec<String>),
}

#[derive(Deserialize)]
struct Index {
    weight_map: Entries<String>,
}

/// Finds the weight files of a directory, or of the directory of a single file.
pub(super) fn find_weights(
    files: &Arc<dyn Files>,
    path: &Path,
) -> Result<(PathBuf, WeightNames), CheckpointError> {
    let found = files.metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::NoSuchPath { path: path.to_path_buf() },
        _ => CheckpointError::Io { action: "open", path: path.to_path_buf(), source },
    })?;
    if found.kind != FileKind::Directory {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_path_buf();
        let name = path.file_name().and_then(|name| name.to_str());
        return match name.filter(|name| is_plain_name(name)) {
            Some(name) if is_safetensors(name) => {
                Ok((directory, WeightNames::Single(name.to_owned())))
            }
            Some(name) if is_gguf(name) => Ok((directory, WeightNames::gguf(name))),
            _ => Err(CheckpointError::NoWeights { directory: path.to_path_buf() }),
        };
    }
    let directory = path.to_path_buf();
    let listed = files.list(&directory).map_err(|source| CheckpointError::Io {
        action: "list",
        path: directory.clone(),
        source,
    })?;
    let listed: Vec<&str> = listed.iter().filter_map(|name| name.to_str()).collect();
    let names = if listed.contains(&SINGLE) {
        WeightNames::Single(SINGLE.to_owned())
    } else if listed.contains(&INDEX) {
        read_index(files, &directory)?
    } else {
        let plain = || listed.iter().filter(|name| is_plain_name(name));
        match plain().filter(|name| is_safetensors(name)).collect::<Vec<_>>()[..] {
            [] => find_gguf(&directory, plain().copied().filter(|name| is_gguf(name)))?,
            [single] => WeightNames::Single((*single).to_owned()),
            ref several => {
                return Err(CheckpointError::NoIndex { directory, count: several.len() });
            }
        }
    };
    Ok((directory, names))
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn is_gguf(name: &str) -> bool {
    name.ends_with(".gguf")
}

/// The one model among the GGUF files of a directory.
fn find_gguf<'a>(
    directory: &Path,
    names: impl Iterator<Item = &'a str>,
) -> Result<WeightNames, CheckpointError> {
    let directory = directory.to_path_buf();
    let mut models: Vec<&str> = Vec::new();
    for name in names {
        let part = SplitName::parse(name);
        // Names come sorted, so the parts of one model follow one another.
        let before = models.last().and_then(|last| SplitName::parse(last));
        let another = !part.zip(before).is_some_and(|(part, before)| part.is_beside(&before));
        if another {
            models.push(name);
        }
    }
    match models[..] {
        [] => Err(CheckpointError::NoWeights { directory }),
        [single] => Ok(WeightNames::gguf(single)),
        _ => Err(CheckpointError::SeveralModels { directory, count: models.len() }),
    }
}

fn read_index(files: &Arc<dyn Files>, directory: &Path) -> Result<WeightNames, CheckpointError> {
    let path = directory.join(INDEX);
    let text = files
        .read(&resolve(files, directory, INDEX)?, INDEX_BYTES_MAX)
        .map_err(|source| CheckpointError::Io { action: "read", path: path.clone(), source })?;
    let damaged = |problem| CheckpointError::Damaged { path: path.clone(), problem };
    let Index { weight_map: Entries(entries) } =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let mut shards = BTreeSet::new();
    for (_, shard) in &entries {
        if !is_plain_name(shard) || !is_safetensors(shard) {
            return Err(CheckpointError::FileName { file: path, name: shard.clone() });
        }
        if !shards.contains(shard) {
            shards.insert(shard.clone());
        }
    }
    if shards.is_empty() {
        return Err(damaged("its weight_map is empty".to_owned()));
    }
    Ok(WeightNames::Sharded { shards, weight_map: entries.into_iter().collect() })
}

impl WeightNames {
    /// A GGUF file with the parts beside it that its name speaks of.
    fn gguf(name: &str) -> Self {
        match SplitName::parse(name) {
            Some(part) => Self::Gguf(part.all().collect()),
            None => Self::Gguf(vec![name.to_owned()]),
        }
    }

    /// The format of the files.
    pub(super) fn kind(&self) -> CheckpointKind {
        match self {
            Self::Single(_) | Self::Sharded { .. } => CheckpointKind::Safetensors,
            Self::Gguf(_) => CheckpointKind::Gguf,
        }
    }

    /// The weight files, sorted.
    pub(super) fn shards(&self) -> Vec<&str> {
        match self {
            Self::Single(name) => vec![name],
            Self::Gguf(names) => names.iter().map(String::as_str).collect(),
            Self::Sharded { shards, .. } => shards.iter().map(String::as_str).collect(),
        }
    }

    /// Sorts the tensors found in the shards by name; where shards share a name, the index decides.
    pub(super) fn select(
        self,
        directory: &Path,
        shards: &[Shard],
        mut tensors: Vec<TensorEntry>,
    ) -> Result<Vec<TensorEntry>, CheckpointError> {
        let file = directory.join(if let Self::Gguf(parts) = &self { &parts[0] } else { INDEX });
        let damaged = |problem| CheckpointError::Damaged { path: file.clone(), problem };
        if let Self::Sharded { mut weight_map, .. } = self {
            let mut listed = 0;
            tensors.retain(|tensor| match weight_map.get(&tensor.name) {
                Some(shard) => *shard == shards[tensor.shard].name,
                None => true,
            });
            for tensor in &tensors {
                listed += usize::from(weight_map.remove(&tensor.name).is_some());
            }
            if let Some((name, shard)) = weight_map.into_iter().min() {
                let problem = format!("it places {name:?} in {shard}, which has no such tensor");
                return Err(damaged(format!("{problem} ({listed} others are in their places)")));
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twins) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let [a, b] = [&twins[0], &twins[1]].map(|tensor| &shards[tensor.shard].name);
            return Err(damaged(format!("{:?} is in {a} and in {b}", twins[0].name)));
        }
        Ok(tensors)
    }
}

/// Maps a weight file.
pub(super) fn map(
    files: &Arc<dyn Files>,
    directory: &Path,
    name: &str,
) -> Result<Arc<dyn Mapping>, CheckpointError> {
    let path = resolve(files, directory, name)?;
    files.map(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::MissingFile { path },
        _ => CheckpointError::Io { action: "map", path, source },
    })
}

/// Follows the links of a file in the checkpoint, which may lead to another file of the directory,
/// or from `snapshots/<revision>` to `blobs` beside `snapshots`, as in the hub's cache. The answer
/// holds no link; opening it fails if somebody puts one there meanwhile.
pub(super) fn resolve(
    files: &Arc<dyn Files>,
    directory: &Path,
    name: &str,
) -> Result<PathBuf, CheckpointError> {
    let path = directory.join(name);
    let real = |path: &Path| {
        files.canonicalize(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CheckpointError::MissingFile { path: path.to_path_buf() },
            _ => CheckpointError::Io { action: "find", path: path.to_path_buf(), source },
        })
    };
    let (home, target) = (real(directory)?, real(&path)?);
    let inside = |directory: &Path| target.parent() == Some(directory);
    let snapshots =
        home.parent().filter(|parent| parent.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = snapshots.map(|snapshots| snapshots.with_file_name("blobs"));
    if inside(&home) || blobs.is_some_and(|blobs| inside(&blobs)) {
        Ok(target)
    } else {
        Err(CheckpointError::LinkOutside { path })
    }
}
