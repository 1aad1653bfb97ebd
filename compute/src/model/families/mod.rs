//! The families: one file each, and the one list that dispatch, help and tests read.
//!
//! A file says how a family's `config.json` becomes an [`Architecture`] and what its checkpoints
//! call their tensors. No file here computes anything.

mod deepseek;
mod experts;
mod gemma2;
mod gemma3;
mod gemma4;
mod gpt2;
mod gpt_oss;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod names;
mod olmo2;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen_moe;
mod rope;
mod sizes;
mod starcoder2;

use super::config::Config;
use super::{Architecture, ArchitectureError};

pub use names::{GgufNames, HubNames, Name, Outputs, Scope};

/// Every family, in the order in which errors list them.
pub static FAMILIES: &[&Family] = &[
    &deepseek::DEEPSEEK_V2,
    &deepseek::DEEPSEEK_V3,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &gemma4::FAMILY,
    &gpt2::FAMILY,
    &gpt_oss::FAMILY,
    &granite::FAMILY,
    &llama::FAMILY,
    &mistral::FAMILY,
    &mixtral::FAMILY,
    &olmo2::FAMILY,
    &phi3::FAMILY,
    &phi::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen_moe::QWEN2_MOE,
    &qwen_moe::QWEN3_MOE,
    &starcoder2::FAMILY,
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

/// Sizes above these are damage or malice, not models.
mod bounds {
    pub(super) const LAYERS_MAX: usize = 1 << 10;
    pub(super) const HEADS_MAX: usize = 1 << 12;
    pub(super) const HEAD_DIM_MAX: usize = 1 << 13;
    pub(super) const HIDDEN_MAX: usize = 1 << 18;
    pub(super) const FEATURES_MAX: usize = 1 << 22;
    pub(super) const VOCABULARY_MAX: usize = 1 << 24;
    pub(super) const CONTEXT_MAX: usize = 1 << 30;
    /// Of learned positions, which are rows of a table.
    pub(super) const POSITIONS_MAX: usize = 1 << 24;
}
