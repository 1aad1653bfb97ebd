//! Rotary settings of a configuration, as hub checkpoints and as transformers 5 write them.

use serde_json::{Map, Value};

use super::super::config::Config;
use super::super::{ArchitectureError, RopeDescription, RopeScaling};

/// Reads one rotary object (`rope_scaling`, or a member of `rope_parameters`).
///
/// `base` counts where the object has no `rope_theta` of its own. A type that is not handled, and
/// a key that the type does not explain, are refused by name.
pub(super) fn description(
    map: &Map<String, Value>,
    path: &str,
    base: f64,
) -> Result<RopeDescription, ArchitectureError> {
    let config = Config::new(map, path);
    let base = config.positive("rope_theta")?.unwrap_or(base);
    let kind = match config.text("rope_type")? {
        Some(kind) => Some(kind),
        None => config.text("type")?,
    };
    config.mentions("type");
    let required = |key| config.positive(key)?.ok_or_else(|| config.missing(key));
    let scaling = match kind.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "llama3" => {
            let low_frequency_factor = required("low_freq_factor")?;
            let high_frequency_factor = required("high_freq_factor")?;
            if high_frequency_factor <= low_frequency_factor {
                return Err(config.invalid("high_freq_factor", "more than low_freq_factor"));
            }
            RopeScaling::Llama3 {
                factor: required("factor")?,
                low_frequency_factor,
                high_frequency_factor,
                context_original: required("original_max_position_embeddings")?,
            }
        }
        other => {
            return Err(ArchitectureError::UnsupportedRope { rope_type: other.into() });
        }
    };
    config.refuse_unread()?;
    Ok(RopeDescription { base, scaling })
}

/// The one rotary setting of a model that has no two kinds of attention.
pub(super) fn of_model(
    config: &Config,
    base_default: f64,
) -> Result<RopeDescription, ArchitectureError> {
    let base = config.positive("rope_theta")?.unwrap_or(base_default);
    let scaling = config.object("rope_scaling")?;
    match config.object("rope_parameters")? {
        Some(map) => description(map, &config.name("rope_parameters."), base),
        None => of_scaling(config, scaling, base),
    }
}

/// The setting given by an optional `rope_scaling` beside a base.
pub(super) fn of_scaling(
    config: &Config,
    scaling: Option<&Map<String, Value>>,
    base: f64,
) -> Result<RopeDescription, ArchitectureError> {
    match scaling {
        Some(map) => description(map, &config.name("rope_scaling."), base),
        None => Ok(RopeDescription { base, scaling: RopeScaling::None }),
    }
}
