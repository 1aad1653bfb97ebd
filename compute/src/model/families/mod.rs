//! The families: one file each, and the one list that dispatch, help and tests read.
//!
//! A file says how a family's `config.json` becomes an [`Architecture`] and what its checkpoints
//! call their tensors. No file here computes anything.

mod gemma3;
mod llama;
mod rope;

use super::config::Config;
use super::{Architecture, ArchitectureError, Role};
use crate::kernels::Activation;

/// Every family, in the order in which errors list them.
pub static FAMILIES: &[&Family] = &[&gemma3::FAMILY, &llama::FAMILY];

/// A family of models as data.
pub struct Family {
    /// Its name in manifests and messages.
    pub name: &'static str,
    /// The values of `model_type` that belong to it.
    pub model_types: &'static [&'static str],
    /// What checkpoints put before the name of a tensor; the first is the usual one.
    pub prefixes: &'static [&'static str],
    /// The tensor of each role, `{layer}` for the layer's number. The name of an unembedding
    /// stands outside the prefixes' last part and is listed whole.
    pub names: &'static [(Role, &'static str)],
    /// Fills the record from a configuration whose `text_config`, if any, is unwrapped already.
    pub(super) describe: fn(&'static Family, &Config) -> Result<Architecture, ArchitectureError>,
}

impl Family {
    /// The family of a `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().copied().find(|family| family.model_types.contains(&model_type))
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Prefixes of checkpoints that hold a text model, alone or inside a larger one.
const PREFIXES: &[&str] =
    &["model.", "language_model.model.", "model.language_model.", "language_model.", ""];

/// Reads the name of an activation function.
fn activation(
    config: &Config,
    key: &'static str,
    default: Activation,
) -> Result<Activation, ArchitectureError> {
    match config.text(key)? {
        None => Ok(default),
        Some(name) => Activation::from_name(name).ok_or_else(|| ArchitectureError::Unsupported {
            key: config.name(key),
            found: format!("{name:?}"),
        }),
    }
}

/// Sizes above these are damage or malice, not models.
mod bounds {
    pub(super) const LAYERS_MAX: usize = 1 << 10;
    pub(super) const HEADS_MAX: usize = 1 << 12;
    pub(super) const HEAD_DIM_MAX: usize = 1 << 13;
    pub(super) const HIDDEN_MAX: usize = 1 << 18;
    pub(super) const FEATURES_MAX: usize = 1 << 22;
    pub(super) const VOCABULARY_MAX: usize = 1 << 24;
    pub(super) const CONTEXT_MAX: usize = 1 << 30;
}
