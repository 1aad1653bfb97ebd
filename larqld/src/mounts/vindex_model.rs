//! A vindex as the model that it was extracted from: its tensors by weight key.
//!
//! Storage has checked that every tensor lies within its file; here each is compared with what the
//! model's family and configuration make it: its role, its shape in the layout it has, the length that
//! its dtype gives it, and the scales beside it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use larql_compute::model::{Architecture, Matrix, Orientation, Role, WeightKey, Weights};
use larql_compute::quant::Dtype;
use larql_storage::vindex::{Layout, ScalesRecord, TensorKey, TensorRecord, TensorSlice, Vindex};

use super::ancestor;
use crate::failure::{Failure, code};
use crate::source::{ScalesLayout, Stored, StoredBytes, architecture};

/// An open vindex with its tensors by weight key.
#[derive(Debug)]
pub struct VindexModel {
    vindex: Vindex,
    architecture: Architecture,
    placed: HashMap<WeightKey, Placed>,
    /// What the manifest remarks, and what had to be assumed.
    notes: Vec<String>,
    assumed: usize,
}

/// Where one tensor lies and how it is to be read.
#[derive(Debug, Clone)]
struct Placed {
    stored: Stored,
    orientation: Orientation,
    elements: TensorKey,
    scales: Option<TensorKey>,
    biases: Option<TensorKey>,
}

impl VindexModel {
    /// Finds the weights of an open vindex.
    ///
    /// # Errors
    /// A failure that names the directory and the number, tensor or layout that does not fit its
    /// `config.json`.
    pub fn new(vindex: Vindex) -> Result<Self, Failure> {
        let path = vindex.directory();
        let manifest = vindex.manifest();
        let (config, assumed) = match (vindex.side_file("config.json")?, vindex.ancestor()) {
            (Some(config), _) => (config, Vec::new()),
            (None, Some(header)) => {
                let generation = vindex.side_file("generation_config.json")?;
                let tied = manifest.tied_embeddings;
                let found = ancestor::config(path, header, tied, generation.as_deref())?;
                (found.config.into_bytes(), found.notes)
            }
            (None, None) => {
                let message = format!("{} has no config.json", path.display());
                return Err(Failure::new(code::UNSUPPORTED_FORMAT, message)
                    .hint("copy it from the model, or extract the vindex again"));
            }
        };
        let mut architecture = architecture(path, &config)?;
        // What the checkpoint held goes before what its configuration says.
        architecture.tied_embeddings &= manifest.tied_embeddings;
        check_manifest(path, &vindex, &architecture)?;
        let mut placed = HashMap::new();
        for tensor in vindex.tensors() {
            if let Some(key) = weight_key(&tensor) {
                let place = Place { path, architecture: &architecture, vindex: &vindex, key };
                placed.insert(key, place.of(&tensor)?);
            }
        }
        let notes = [&assumed[..], &manifest.notes[..]].concat();
        Ok(Self { architecture, placed, notes, assumed: assumed.len(), vindex })
    }

    /// What a user should know about how it was extracted, and what had to be assumed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What had to be assumed because the files do not say it.
    pub fn assumptions(&self) -> &[String] {
        &self.notes[..self.assumed]
    }

    /// The vindex underneath.
    pub fn vindex(&self) -> &Vindex {
        &self.vindex
    }

    /// The model's description.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Every weight that is here, with the bytes that reading it takes.
    pub(super) fn held(&self) -> HashMap<WeightKey, u64> {
        let bytes = |placed: &Placed| {
            let view = placed.stored.view(self.bytes(placed)?).ok()?;
            Some(view.bytes_touched())
        };
        self.placed.iter().filter_map(|(&key, placed)| Some((key, bytes(placed)?))).collect()
    }

    fn bytes(&self, placed: &Placed) -> Option<StoredBytes<'_>> {
        bytes(&self.vindex, placed)
    }
}

fn bytes<'a>(vindex: &'a Vindex, placed: &Placed) -> Option<StoredBytes<'a>> {
    let of = |key: &TensorKey| vindex.tensor(key).map(|tensor| tensor.bytes);
    let scales = match &placed.scales {
        Some(key) => of(key)?,
        None => &[],
    };
    let biases = placed.biases.as_ref().and_then(of);
    Some(StoredBytes { elements: of(&placed.elements)?, scales, biases })
}

impl Weights for VindexModel {
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>> {
        let placed = self.placed.get(&key)?;
        let view = placed.stored.view(self.bytes(placed)?).ok()?;
        Some(Matrix { view, orientation: placed.orientation })
    }

    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>> {
        let placed = self.placed.get(&key)?;
        let view = placed.stored.view(self.bytes(placed)?).ok()?;
        let mut values = vec![0.0; view.rows() * view.columns()];
        for (row, values) in values.chunks_exact_mut(view.columns().max(1)).enumerate() {
            view.row_f32(row, values);
        }
        Some(Cow::Owned(values))
    }
}

/// Which weight a record is; `None` for what is kept without a part in the model.
fn weight_key(tensor: &TensorSlice<'_>) -> Option<WeightKey> {
    let role: Role = tensor.record.role.parse().ok()?;
    Some(WeightKey { role, layer: tensor.record.layer, expert: tensor.record.expert })
}

/// Comparing one tensor with what the model makes it.
struct Place<'a> {
    path: &'a Path,
    architecture: &'a Architecture,
    vindex: &'a Vindex,
    key: WeightKey,
}

impl Place<'_> {
    /// Checks that a tensor is what the family expects, and how it is to be read.
    fn of(&self, tensor: &TensorSlice<'_>) -> Result<Placed, Failure> {
        let record = tensor.record;
        let mut expected = self.architecture.shape(self.key).ok_or_else(|| {
            self.wrong("is none that config.json makes the model have".to_owned())
        })?;
        let orientation = match record.layout {
            Layout::RowMajor => Orientation::OutIn,
            Layout::FeatureMajor => {
                expected.reverse();
                Orientation::InOut
            }
            other => {
                let reason = format!("has the layout {other:?}, which is of a newer version");
                return Err(self.wrong(reason));
            }
        };
        if !record.shape.iter().copied().eq(expected.iter().map(|&size| size as u64)) {
            let reason =
                format!("has the shape {:?}; config.json makes it {expected:?}", record.shape);
            return Err(self.wrong(reason));
        }
        let (rows, columns) = match expected[..] {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => return Err(self.wrong("is neither a vector nor a matrix".to_owned())),
        };
        let dtype = self.dtype(record)?;
        if let Some(padded) = record.columns_padded
            && usize::try_from(padded).ok().and_then(|padded| dtype.bytes_for(padded))
                != dtype.bytes_for(columns)
        {
            let reason = format!("has rows of {columns} in {padded}, not in whole {dtype} blocks");
            return Err(self.wrong(reason));
        }
        let companion = |suffix: &str| {
            let key = record.companion(suffix);
            let tensor = self.vindex.tensor(&key)?;
            Some((key, tensor.record))
        };
        let required = |suffix: &str| {
            companion(suffix).ok_or_else(|| self.wrong(format!("has no scales ({suffix})")))
        };
        let narrow = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let (layout, scales, biases) = match record.scales {
            None => (ScalesLayout::None, None, None),
            Some(ScalesRecord::Grid { rows, columns }) => {
                let (key, grid) = required(".grid")?;
                let (dtype, rows, columns) = (self.dtype(grid)?, narrow(rows), narrow(columns));
                (ScalesLayout::Grid { dtype, rows, columns }, Some(key), None)
            }
            Some(ScalesRecord::Groups { group }) => {
                let (key, scales) = required(".scales")?;
                let dtype = self.dtype(scales)?;
                let biases = match companion(".biases") {
                    Some((_, biases)) if biases.dtype != scales.dtype => {
                        let reason = format!(
                            "has scales in {} and biases in {}",
                            scales.dtype, biases.dtype
                        );
                        return Err(self.wrong(reason));
                    }
                    biases => biases.map(|(key, _)| key),
                };
                (ScalesLayout::Groups { dtype, group: narrow(group) }, Some(key), biases)
            }
            Some(ScalesRecord::Mx) => (ScalesLayout::Mx, Some(required(".scales")?.0), None),
        };
        let stored = Stored { dtype, rows, columns, scales: layout };
        let placed = Placed { stored, orientation, elements: record.key(), scales, biases };
        let view = stored.view(bytes(self.vindex, &placed).unwrap_or_default());
        view.map_err(|error| self.wrong(error.to_string()))?;
        Ok(placed)
    }

    fn dtype(&self, record: &TensorRecord) -> Result<Dtype, Failure> {
        Dtype::from_tag(&record.dtype).ok_or_else(|| {
            self.wrong(format!("has the type {}, which this build cannot read", record.dtype))
        })
    }

    fn wrong(&self, reason: String) -> Failure {
        let message = format!("{}: the tensor {} {reason}", self.path.display(), self.key);
        Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("extract the vindex again, or copy its config.json again")
    }
}

/// Fails where a manifest's own numbers differ from what its config.json says.
fn check_manifest(
    path: &Path,
    vindex: &Vindex,
    architecture: &Architecture,
) -> Result<(), Failure> {
    let manifest = vindex.manifest();
    let claims = [
        ("layers", manifest.layers as u64, architecture.layers() as u64),
        ("hidden_size", manifest.hidden_size, architecture.hidden_size as u64),
        ("vocabulary_size", manifest.vocabulary_size, architecture.vocabulary_size as u64),
    ];
    for (what, claimed, expected) in claims {
        if claimed != expected {
            let message = format!(
                "{}: index.json says {what} = {claimed}, config.json makes it {expected}",
                path.display()
            );
            return Err(Failure::new(code::DAMAGED, message).hint("extract the vindex again"));
        }
    }
    Ok(())
}
