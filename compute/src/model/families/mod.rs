//! The families: one file each, and the one list that dispatch, help and tests read.
//!
//! A file says how a family's `config.json` becomes an [`Architecture`] and what its checkpoints
//! call their tensors. No file here computes anything.

mod gemma3;
mod llama;
mod names;
mod rope;

use super::config::Config;
use super::{Architecture, ArchitectureError, NormDescription, NormKind};
use crate::kernels::Activation;

pub use names::{GgufNames, HubNames, Name, Outputs, Scope};

/// Every family, in the order in which errors list them.
pub static FAMILIES: &[&Family] = &[&gemma3::FAMILY, &llama::FAMILY];

/// A family of models as data.
pub struct Family {
    /// Its name in manifests and messages.
    pub name: &'static str,
    /// The values of `model_type` that belong to it.
    pub model_types: &'static [&'static str],
    /// What checkpoints of the hub call its tensors.
    pub hub: HubNames,
    /// What GGUF files call them.
    pub gguf: GgufNames,
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

/// RMS norms with the epsilon of the configuration.
fn rms(config: &Config, epsilon: f64, offset: f32) -> Result<NormDescription, ArchitectureError> {
    let epsilon = config.positive("rms_norm_eps")?.unwrap_or(epsilon) as f32;
    Ok(NormDescription { kind: NormKind::Rms, epsilon, offset, bias: false })
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
