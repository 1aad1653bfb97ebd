//! Qwen 3: as Qwen 2, with a norm over each query and key head, heads of their own size, and
//! biases only where the configuration has them.
//!
//! Source: `Qwen3Config` of transformers for the defaults.

use super::super::config::Config;
use super::super::{
    Architecture, ArchitectureError, AttentionBias, AttentionDescription, FfnDescription,
    LayerDescription, QueryKeyNorm,
};
use super::bounds::*;
use super::names::*;
use super::qwen2::{late_windows, model};
use super::sizes::Sizes;
use super::{Family, rope};

pub(super) static FAMILY: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    hub: HubNames::new(&[STEM, ATTENTION, PRE_NORMS, GATED_MLP]),
    gguf: GgufNames::new(&[GGUF_STEM, GGUF_GATED_MLP]),
    describe,
};

fn describe(family: &'static Family, config: &Config) -> Result<Architecture, ArchitectureError> {
    let sizes = Sizes::with_head_dim(config, Some(128))?;
    let Sizes { layers, heads, kv_heads, head_dim, .. } = sizes;
    let attention = AttentionDescription {
        rope: Some(rope::of_model(config, rope::Defaults::new(10_000.0, head_dim))?),
        query_key_norm: QueryKeyNorm::Head,
        bias: AttentionBias::all(config.flag("attention_bias")?.unwrap_or(false)),
        ..AttentionDescription::plain(heads, kv_heads, head_dim)
    };
    let features = config.required_count("intermediate_size", FEATURES_MAX)?;
    let layer = |window| {
        LayerDescription::pre_norm(
            AttentionDescription { window, ..attention.clone() },
            FfnDescription::gated(features, false),
        )
    };
    let layers = late_windows(config, layers)?.into_iter().map(layer).collect();
    model(config, Architecture::blank(family, layers), sizes)
}
