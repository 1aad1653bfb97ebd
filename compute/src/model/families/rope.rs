//! Rotary settings of a configuration, as hub checkpoints and as transformers 5 write them.

use serde_json::{Map, Value};

use super::super::config::Config;
use super::super::{ArchitectureError, RopeDescription, RopePairing, RopeScaling};

/// What holds where the rotary object is silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// Base of the wavelengths.
    pub(super) base: f64,
    /// Numbers of a head.
    pub(super) head_dim: usize,
    /// Which numbers turn together.
    pub(super) pairing: RopePairing,
}

impl Defaults {
    /// Every number of a head turns, in split halves.
    pub(super) fn new(base: f64, head_dim: usize) -> Defaults {
        Defaults { base, head_dim, pairing: RopePairing::SplitHalf }
    }

    /// The description of a model that says no more.
    pub(super) fn unscaled(self) -> RopeDescription {
        let Defaults { base, head_dim, pairing } = self;
        RopeDescription { base, dims: head_dim, pairing, scaling: RopeScaling::None }
    }
}

/// Reads one rotary object (`rope_scaling`, or a member of `rope_parameters`).
///
/// `defaults` count where the object is silent. A type that is not handled, and
/// a key that the type does not explain, are refused by name.
pub(super) fn description(
    map: &Map<String, Value>,
    path: &str,
    defaults: Defaults,
) -> Result<RopeDescription, ArchitectureError> {
    let config = Config::new(map, path);
    let base = config.positive("rope_theta")?.unwrap_or(defaults.base);
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
    Ok(RopeDescription { base, scaling, ..defaults.unscaled() })
}

/// The one rotary setting of a model that has no two kinds of attention.
pub(super) fn of_model(
    config: &Config,
    defaults: Defaults,
) -> Result<RopeDescription, ArchitectureError> {
    let base = config.positive("rope_theta")?.unwrap_or(defaults.base);
    let defaults = Defaults { base, ..defaults };
    let scaling = config.object("rope_scaling")?;
    match config.object("rope_parameters")? {
        Some(map) => description(map, &config.name("rope_parameters."), defaults),
        None => of_scaling(config, scaling, defaults),
    }
}

/// The setting given by an optional `rope_scaling` beside defaults.
pub(super) fn of_scaling(
    config: &Config,
    scaling: Option<&Map<String, Value>>,
    defaults: Defaults,
) -> Result<RopeDescription, ArchitectureError> {
    match scaling {
        Some(map) => description(map, &config.name("rope_scaling."), defaults),
        None => Ok(defaults.unscaled()),
    }
}
