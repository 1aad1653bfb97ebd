//! Rotary settings of a configuration, as hub checkpoints and as transformers 5 write them.
//!
//! A type that is not handled, and a key that the type does not explain, are refused by name.
//!
//! Source: `modeling_rope_utils` of transformers, for the meaning of keys and their defaults.

use serde_json::{Map, Value};

use super::super::config::Config;
use super::super::{ArchitectureError, RopeDescription, RopePairing, RopeScaling};
use super::bounds::CONTEXT_MAX;

/// What holds where the rotary object is silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// Base of the wavelengths.
    pub(super) base: f64,
    /// Numbers of a head.
    pub(super) head_dim: usize,
    /// Which numbers turn together.
    pub(super) pairing: RopePairing,
    /// The share of a head that turns; `None` in a family whose heads turn whole.
    pub(super) partial: Option<f64>,
    /// Positions of the first training, where the model names them outside the object.
    pub(super) context_original: Option<usize>,
    /// Positions that the model was made for.
    pub(super) context_max: Option<usize>,
}

impl Defaults {
    /// Every number of a head turns, in split halves.
    pub(super) fn new(base: f64, head_dim: usize) -> Defaults {
        Defaults {
            base,
            head_dim,
            pairing: RopePairing::SplitHalf,
            partial: None,
            context_original: None,
            context_max: None,
        }
    }

    /// The description of a model that says no more.
    pub(super) fn unscaled(self) -> RopeDescription {
        // A share that was written as a decimal may come out a hair below the whole number.
        let turning = (self.partial.unwrap_or(1.0) * self.head_dim as f64 + 1e-6) as usize;
        // Half a pair is left out by Gemma 4; elsewhere it is an error of the configuration.
        let rounded = self.pairing == RopePairing::Proportional;
        RopeDescription {
            base: self.base,
            dims: if rounded { turning / 2 * 2 } else { turning },
            pairing: self.pairing,
            scaling: RopeScaling::None,
        }
    }
}

/// Reads one rotary object (`rope_scaling`, or a member of `rope_parameters`).
///
/// `defaults` count where the object is silent.
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
    let kind = kind.unwrap_or("default");
    let mut defaults = Defaults { base, ..defaults };
    if kind == "proportional" {
        defaults.pairing = RopePairing::Proportional;
        defaults.partial = Some(defaults.partial.unwrap_or(1.0));
    }
    defaults.partial = partial(&config, defaults.partial)?;
    let required = |key| config.positive(key)?.ok_or_else(|| config.missing(key));
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "proportional" => match config.positive("factor")?.unwrap_or(1.0) {
            1.0 => RopeScaling::None,
            factor => RopeScaling::Linear { factor },
        },
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
        "yarn" => yarn(&config, base, &defaults)?,
        "longrope" | "su" => long_rope(&config, &defaults)?,
        // Divisors that a GGUF file keeps in a tensor.
        "frequency_factors" => RopeScaling::Factors(divisors(&config, "factors", &defaults)?),
        other => {
            return Err(ArchitectureError::UnsupportedRope { rope_type: other.into() });
        }
    };
    config.refuse_unread()?;
    Ok(RopeDescription { scaling, ..defaults.unscaled() })
}

/// The share of a head that turns, above 0 and at most 1, in a family that knows of such a share;
/// in others the key stays unread and is refused where it would matter.
fn partial(config: &Config, default: Option<f64>) -> Result<Option<f64>, ArchitectureError> {
    if default.is_none() {
        return Ok(None);
    }
    match config.positive("partial_rotary_factor")? {
        Some(partial) if partial > 1.0 => {
            Err(config.invalid("partial_rotary_factor", "a share, at most 1"))
        }
        partial => Ok(partial.or(default)),
    }
}

/// Positions of the first training: of the object, or of the model.
fn context_original(config: &Config, defaults: &Defaults) -> Result<usize, ArchitectureError> {
    const KEY: &str = "original_max_position_embeddings";
    let known = config.count(KEY, CONTEXT_MAX)?.or(defaults.context_original);
    known.or(defaults.context_max).ok_or_else(|| config.missing(KEY))
}

/// By how much the context grew: as the object says, or as the two contexts do.
fn growth(
    config: &Config,
    context_original: usize,
    defaults: &Defaults,
) -> Result<f64, ArchitectureError> {
    match (config.positive("factor")?, defaults.context_max) {
        (Some(factor), _) => Ok(factor),
        (None, Some(context_max)) => Ok(context_max as f64 / context_original as f64),
        (None, None) => Err(config.missing("factor")),
    }
}

fn yarn(config: &Config, base: f64, defaults: &Defaults) -> Result<RopeScaling, ArchitectureError> {
    if base <= 1.0 {
        return Err(config.invalid("rope_theta", "more than 1 for yarn"));
    }
    let context_original = context_original(config, defaults)?;
    let factor = growth(config, context_original, defaults)?;
    // A factor of 0 means none, as in the reference.
    let optional = |key| match config.value(key).and_then(Value::as_f64) {
        Some(0.0) => Ok(None),
        _ => config.positive(key),
    };
    let (mscale, mscale_all) = (optional("mscale")?, optional("mscale_all_dim")?);
    let attention_factor = match (config.positive("attention_factor")?, mscale, mscale_all) {
        (Some(attention_factor), _, _) => attention_factor,
        (None, Some(mscale), Some(all)) => yarn_mscale(factor, mscale) / yarn_mscale(factor, all),
        (None, _, _) => yarn_mscale(factor, 1.0),
    };
    let scaling = RopeScaling::Yarn {
        factor,
        beta_fast: config.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: config.positive("beta_slow")?.unwrap_or(1.0),
        context_original: context_original as f64,
        truncate: config.flag("truncate")?.unwrap_or(true),
        attention_factor,
    };
    Ok(scaling)
}

/// How much YaRN sharpens attention for a context that grew by `factor`.
///
/// # Source
/// Peng et al. 2023 (arXiv:2309.00071), equation 22.
pub(super) fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn long_rope(config: &Config, defaults: &Defaults) -> Result<RopeScaling, ArchitectureError> {
    let context_original = context_original(config, defaults)?;
    let factor = growth(config, context_original, defaults)?;
    let attention_factor = match config.positive("attention_factor")? {
        Some(attention_factor) => attention_factor,
        None if factor <= 1.0 => 1.0,
        None if context_original < 2 => {
            return Err(config.invalid("original_max_position_embeddings", "more than 1"));
        }
        None => (1.0 + factor.ln() / (context_original as f64).ln()).sqrt(),
    };
    Ok(RopeScaling::LongRope {
        short: divisors(config, "short_factor", defaults)?,
        long: divisors(config, "long_factor", defaults)?,
        context_original,
        attention_factor,
    })
}

/// A list of divisors, one for each pair that turns.
fn divisors(
    config: &Config,
    key: &'static str,
    defaults: &Defaults,
) -> Result<Vec<f64>, ArchitectureError> {
    let pairs = defaults.unscaled().dims / 2;
    let list = config.value(key).ok_or_else(|| config.missing(key))?;
    let list = list.as_array().filter(|list| list.len() == pairs);
    let number = |value: &Value| value.as_f64().filter(|number| *number as f32 > 0.0);
    let list = list.and_then(|list| list.iter().map(number).collect::<Option<Vec<f64>>>());
    list.filter(|list| list.iter().all(|number| (*number as f32).is_finite()))
        .ok_or_else(|| config.invalid(key, format!("{pairs} finite numbers above 0")))
}

/// The one rotary setting of a model that has no two kinds of attention.
pub(super) fn of_model(
    config: &Config,
    mut defaults: Defaults,
) -> Result<RopeDescription, ArchitectureError> {
    defaults.base = config.positive("rope_theta")?.unwrap_or(defaults.base);
    defaults.partial = partial(config, defaults.partial)?;
    defaults.context_max = config.count("max_position_embeddings", CONTEXT_MAX)?;
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

/// The settings of full and of sliding layers, where they differ (Gemma 3 and 4): a member of
/// `rope_parameters` for each.
///
/// # Errors
/// Also a member that is missing.
pub(super) fn of_kinds(
    config: &Config,
    map: &Map<String, Value>,
    full: Defaults,
    sliding: Defaults,
) -> Result<(RopeDescription, RopeDescription), ArchitectureError> {
    let path = config.name("rope_parameters.");
    let kinds = Config::new(map, &path);
    let one = |kind: &'static str, defaults: Defaults| match kinds.object(kind)? {
        Some(map) => description(map, &format!("{path}{kind}."), defaults),
        None => Err(kinds.missing(kind)),
    };
    let ropes = (one("full_attention", full)?, one("sliding_attention", sliding)?);
    kinds.refuse_unread()?;
    Ok(ropes)
}
