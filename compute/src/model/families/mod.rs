//! The families: one file each, and the one list that dispatch, help and tests read.
//!
//! A file says how a family's `config.json` becomes an [`Architecture`] and what its checkpoints
//! call their tensors. No file here computes anything.

mod deepseek;
mod experts;
mod gemma3;
mod gpt_oss;
mod llama;
mod mixtral;
mod names;
mod qwen_moe;
mod rope;

use super::config::Config;
use super::{Architecture, ArchitectureError, NormDescription, NormKind};
use crate::kernels::Activation;

pub use names::{GgufNames, HubNames, Name, Outputs, Scope};

/// Every family, in the order in which errors list them.
pub static FAMILIES: &[&Family] = &[
    &deepseek::DEEPSEEK_V2,
    &deepseek::DEEPSEEK_V3,
    &gemma3::FAMILY,
    &gpt_oss::FAMILY,
    &llama::FAMILY,
    &mixtral::FAMILY,
    &qwen_moe::QWEN2_MOE,
    &qwen_moe::QWEN3_MOE,
];

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

/// Numbers of a head, which hub configurations give where they are not `hidden / heads`.
fn head_dim(config: &Config, hidden_size: usize, heads: usize) -> Result<usize, ArchitectureError> {
    match config.count("head_dim", bounds::HEAD_DIM_MAX)? {
        Some(head_dim) => Ok(head_dim),
        None if hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => Err(config.missing("head_dim")),
    }
}

/// For each layer whether it has a window, by `layer_types`, if the configuration has them.
fn layer_types(config: &Config, layers: usize) -> Result<Option<Vec<bool>>, ArchitectureError> {
    let Some(kinds) = config.value("layer_types") else { return Ok(None) };
    let slides = |kind: &serde_json::Value| match kind.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let kinds = kinds.as_array().filter(|kinds| kinds.len() == layers);
    let slides: Option<Vec<bool>> = kinds.and_then(|kinds| kinds.iter().map(slides).collect());
    slides.map(Some).ok_or_else(|| {
        let expected = format!("{layers} of \"sliding_attention\" and \"full_attention\"");
        config.invalid("layer_types", expected)
    })
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
