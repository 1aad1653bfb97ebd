//! Keys that most families read in the same way.

use super::super::config::Config;
use super::super::{ArchitectureError, NormDescription, NormKind};
use super::bounds::*;
use crate::kernels::Activation;

/// The sizes of a model's layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Layers.
    pub(super) layers: usize,
    /// Numbers of a position.
    pub(super) hidden: usize,
    /// Query heads.
    pub(super) heads: usize,
    /// Key and value heads.
    pub(super) kv_heads: usize,
    /// Numbers of a head.
    pub(super) head_dim: usize,
}

impl Sizes {
    /// The keys of most families; a head is its share of the hidden size unless `head_dim` says
    /// otherwise.
    ///
    /// # Errors
    /// What is missing or out of bounds, by the name of its key.
    pub(super) fn read(config: &Config) -> Result<Sizes, ArchitectureError> {
        Sizes::with_head_dim(config, None)
    }

    /// As [`read`](Sizes::read), for a family whose heads have a size of their own by default.
    ///
    /// # Errors
    /// As [`read`](Sizes::read).
    pub(super) fn with_head_dim(
        config: &Config,
        default: Option<usize>,
    ) -> Result<Sizes, ArchitectureError> {
        let hidden = config.required_count("hidden_size", HIDDEN_MAX)?;
        let heads = config.required_count("num_attention_heads", HEADS_MAX)?;
        let head_dim = match default {
            Some(default) => config.count("head_dim", HEAD_DIM_MAX)?.unwrap_or(default),
            None => head_dim(config, hidden, heads)?,
        };
        Ok(Sizes {
            layers: config.required_count("num_hidden_layers", LAYERS_MAX)?,
            hidden,
            heads,
            kv_heads: config.count("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads),
            head_dim,
        })
    }
}

/// Numbers of a head, which hub configurations give where they are not `hidden / heads`.
///
/// # Errors
/// Where they are neither given nor a whole share.
pub(super) fn head_dim(
    config: &Config,
    hidden: usize,
    heads: usize,
) -> Result<usize, ArchitectureError> {
    match config.count("head_dim", HEAD_DIM_MAX)? {
        Some(head_dim) => Ok(head_dim),
        None if hidden.is_multiple_of(heads) => Ok(hidden / heads),
        None => Err(config.missing("head_dim")),
    }
}

/// The attention window of every layer, `None` where there is none.
///
/// `layer_types` counts before `slides`, which says for a layer's index whether it has the window.
///
/// # Errors
/// A list of another length or with other names, and a window that is asked for and not given.
pub(super) fn windows(
    config: &Config,
    layers: usize,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ArchitectureError> {
    let Some(slides_by_list) = layer_types(config, layers)? else {
        return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
    };
    if window.is_none() && slides_by_list.contains(&true) {
        return Err(config.invalid("layer_types", "\"full_attention\" alone, having no window"));
    }
    Ok(slides_by_list.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// For each layer whether it has a window, by `layer_types`, if the configuration has them.
///
/// # Errors
/// A list of another length or with other names.
pub(super) fn layer_types(
    config: &Config,
    layers: usize,
) -> Result<Option<Vec<bool>>, ArchitectureError> {
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
pub(super) fn activation(
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

/// The activation function of a Gemma, which older configurations name twice.
pub(super) fn gemma_activation(config: &Config) -> Result<Activation, ArchitectureError> {
    let activation = activation(config, "hidden_activation", Activation::GeluTanh)?;
    match config.text("hidden_act")? {
        Some(other) if Activation::from_name(other) != Some(activation) => {
            Err(config.invalid("hidden_act", "the same function as hidden_activation"))
        }
        _ => Ok(activation),
    }
}

/// Whether a switch of text models that see both ways is off, as it must be here.
pub(super) fn refuse_bidirectional(config: &Config) -> Result<(), ArchitectureError> {
    let Some(value) = config.value("use_bidirectional_attention") else { return Ok(()) };
    // "vision" is about images alone.
    match value.as_bool() == Some(false) || value.as_str() == Some("vision") {
        true => Ok(()),
        false => Err(config.unsupported("use_bidirectional_attention")),
    }
}

/// RMS norms with the epsilon of the configuration.
pub(super) fn rms(
    config: &Config,
    epsilon: f64,
    offset: f32,
) -> Result<NormDescription, ArchitectureError> {
    let epsilon = config.positive("rms_norm_eps")?.unwrap_or(epsilon) as f32;
    Ok(NormDescription { kind: NormKind::Rms, epsilon, offset, bias: false })
}

/// Layer norms with biases, with the epsilon under the family's own key.
pub(super) fn layer_norm(
    config: &Config,
    key: &'static str,
) -> Result<NormDescription, ArchitectureError> {
    let epsilon = config.positive(key)?.unwrap_or(1e-5) as f32;
    Ok(NormDescription { kind: NormKind::Layer, epsilon, offset: 0.0, bias: true })
}
