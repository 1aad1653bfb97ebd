//! The record that says what a model computes: filled by a family, read by the decoder.
//!
//! Everything that differs between models and is not a weight stands here, checked, so that the
//! decoder can trust it: sizes are positive and bounded, heads divide, numbers are finite. What a
//! `config.json` asks for and this version cannot do is refused by name; nothing is guessed.

use serde_json::Value;

use super::config::Config;
use super::families::{FAMILIES, Family};
use super::{Bands, Role};
use crate::kernels::Activation;

/// Why a `config.json` is not a model that can be run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// Not JSON, or not an object.
    #[error("config.json is not a JSON object{}", .source.as_ref().map_or(String::new(), |e| format!(": {e}")))]
    Json {
        /// What the parser said, where it failed.
        source: Option<serde_json::Error>,
    },
    /// A family nobody described.
    #[error("model_type {model_type:?} is not supported; supported are {supported}")]
    UnknownFamily {
        /// The value of `model_type`.
        model_type: String,
        /// The values that are known.
        supported: String,
    },
    /// A key without which the model cannot be described.
    #[error("config.json lacks {key}")]
    Missing {
        /// The key, with its path.
        key: String,
    },
    /// A key with a value that makes no model.
    #[error("{key} in config.json is {found}, expected {expected}")]
    Invalid {
        /// The key, with its path.
        key: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A way to scale rotary embeddings that is not handled.
    #[error("rope type {rope_type:?} is not supported; supported are default, linear and llama3")]
    UnsupportedRope {
        /// The type asked for.
        rope_type: String,
    },
    /// A key that would change the arithmetic and is not handled.
    #[error("{key} = {found} in config.json is not supported by this family here")]
    Unsupported {
        /// The key, with its path.
        key: String,
        /// Its value, shortened.
        found: String,
    },
}

/// How rotary frequencies are changed for contexts longer than the trained ones.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided.
    Linear {
        /// By this.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `context_original` over this are low frequencies.
        low_frequency_factor: f64,
        /// Wavelengths below `context_original` over this are high frequencies.
        high_frequency_factor: f64,
        /// Positions of the first training.
        context_original: f64,
    },
}

/// Rotary position embedding of one layer, in the split-half form.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeDescription {
    /// Base of the geometric series of wavelengths.
    pub base: f64,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

/// Attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionDescription {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers in a head; even.
    pub head_dim: usize,
    /// Factor on the product of query and key.
    pub scale: f32,
    /// Cap of attention scores: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions seen, the own one included; `None` sees all earlier ones.
    pub window: Option<usize>,
    /// Rotary embedding.
    pub rope: RopeDescription,
    /// Whether query and key heads are normed before the rotation.
    pub query_key_norm: bool,
    /// Whether the four projections have biases.
    pub bias: bool,
}

/// The gated feed-forward network of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct FfnDescription {
    /// Features: rows of the gate projection (the intermediate size).
    pub features: usize,
    /// Whether gate, up and down have biases.
    pub bias: bool,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerDescription {
    /// Its attention.
    pub attention: AttentionDescription,
    /// Its feed-forward network.
    pub ffn: FfnDescription,
    /// Whether the outputs of both are normed before they are added to the stream.
    pub post_norms: bool,
}

/// A tensor that a checkpoint of the model holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// What it does.
    pub role: Role,
    /// In which layer, if in one.
    pub layer: Option<usize>,
    /// Its usual name in a checkpoint.
    pub name: String,
    /// All names under which checkpoints hold it, the usual one first.
    pub names: Vec<String>,
    /// Its shape as checkpoints store it (projections `[outputs, inputs]`).
    pub shape: Vec<usize>,
    /// Whether the model cannot run without it.
    pub required: bool,
}

/// What a model computes, apart from its weights.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    pub(super) family: &'static Family,
    pub(super) layers: Vec<LayerDescription>,
    /// `model_type` of the configuration that was read (of the text part, where it is nested).
    pub model_type: String,
    /// Numbers in a position of the residual stream (`d_model`).
    pub hidden_size: usize,
    /// Rows of the embedding; tokens are below.
    pub vocabulary_size: usize,
    /// Positions that the model was made for.
    pub context_max: usize,
    /// Factor on an embedding row as it enters the stream.
    pub embed_scale: f32,
    /// Whether the embedding is the unembedding too.
    pub tied_embeddings: bool,
    /// Epsilon of every RMS norm.
    pub norm_epsilon: f32,
    /// What is added to every stored norm weight.
    pub norm_offset: f32,
    /// Function on the gate.
    pub activation: Activation,
    /// Cap of the logits: `cap * tanh(logit / cap)`.
    pub final_softcap: Option<f32>,
    /// Token that begins a text, where the configuration names one.
    pub bos_token: Option<u32>,
    /// Tokens that end a text.
    pub eos_tokens: Vec<u32>,
    /// Token that fills a batch.
    pub pad_token: Option<u32>,
}

impl Architecture {
    /// Reads a `config.json`, in the form of hub checkpoints or as transformers 5 writes it.
    ///
    /// A configuration with a `text_config` describes a larger model; its text part is taken.
    ///
    /// # Errors
    /// What is missing, out of bounds or not supported, by the name of its key.
    pub fn from_config(json: &str) -> Result<Architecture, ArchitectureError> {
        let value: Value = serde_json::from_str(json)
            .map_err(|source| ArchitectureError::Json { source: Some(source) })?;
        let Value::Object(top) = &value else {
            return Err(ArchitectureError::Json { source: None });
        };
        let outer = Config::new(top, "");
        let Some(inner) = outer.object("text_config")? else {
            let architecture = Architecture::describe(&outer, None)?;
            outer.refuse_unread()?;
            return Ok(architecture);
        };
        // The outer level of a nested configuration repeats a few keys of the text part, and
        // wins where the text part is silent.
        const SHARED: [&str; 4] =
            ["bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"];
        let mut merged = inner.clone();
        for key in SHARED.into_iter().filter(|key| outer.mentions(key)) {
            if merged.get(key).is_none_or(Value::is_null) {
                merged.insert(key.into(), top[key].clone());
            }
        }
        let inner = Config::new(&merged, "text_config.");
        let architecture = Architecture::describe(&inner, outer.text("model_type")?)?;
        inner.refuse_unread()?;
        outer.refuse_unread()?;
        Ok(architecture)
    }

    /// `model_type_outer` counts where the text part does not name its own.
    fn describe(
        config: &Config,
        model_type_outer: Option<&str>,
    ) -> Result<Architecture, ArchitectureError> {
        let model_type = config.text("model_type")?.or(model_type_outer);
        let model_type = model_type.ok_or_else(|| config.missing("model_type"))?;
        let family = Family::of(model_type).ok_or_else(|| {
            let supported = FAMILIES.iter().flat_map(|family| family.model_types);
            ArchitectureError::UnknownFamily {
                model_type: model_type.chars().take(60).collect(),
                supported: supported.copied().collect::<Vec<_>>().join(", "),
            }
        })?;
        let mut architecture = (family.describe)(family, config)?;
        architecture.model_type = model_type.into();
        let vocabulary = architecture.vocabulary_size;
        let first = |tokens: Vec<u32>| tokens.first().copied();
        architecture.bos_token = config.tokens("bos_token_id", vocabulary)?.and_then(first);
        architecture.pad_token = pad_token(config, vocabulary)?;
        architecture.eos_tokens = config.tokens("eos_token_id", vocabulary)?.unwrap_or_default();
        Ok(architecture)
    }

    /// The record with neutral values: for a family to fill in.
    pub(super) fn blank(family: &'static Family, layers: Vec<LayerDescription>) -> Architecture {
        Architecture {
            family,
            layers,
            model_type: String::new(),
            hidden_size: 0,
            vocabulary_size: 0,
            context_max: 0,
            embed_scale: 1.0,
            tied_embeddings: false,
            norm_epsilon: 1e-6,
            norm_offset: 0.0,
            activation: Activation::Silu,
            final_softcap: None,
            bos_token: None,
            eos_tokens: Vec::new(),
            pad_token: None,
        }
    }

    /// The record, if what every family has in common holds.
    pub(super) fn validated(self, config: &Config) -> Result<Architecture, ArchitectureError> {
        for LayerDescription { attention, .. } in &self.layers {
            if !attention.heads.is_multiple_of(attention.kv_heads) {
                let expected = format!("a divisor of the {} heads", attention.heads);
                return Err(config.invalid("num_key_value_heads", expected));
            }
            if !attention.head_dim.is_multiple_of(2) {
                return Err(config.invalid("head_dim", "an even number, since RoPE turns pairs"));
            }
        }
        Ok(self)
    }

    /// The family's name.
    pub fn family(&self) -> &str {
        self.family.name
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// One layer's description; panics if there is no such layer.
    pub fn layer(&self, layer: usize) -> &LayerDescription {
        &self.layers[layer]
    }

    /// Features of one layer's feed-forward network; panics if there is no such layer.
    pub fn features(&self, layer: usize) -> usize {
        self.layers[layer].ffn.features
    }

    /// Which layers handle form, knowledge and output, or `None` for a model too shallow to say.
    pub fn bands(&self) -> Option<Bands> {
        Bands::of(self.family(), self.layers())
    }

    /// The shape of a tensor as checkpoints store it, or `None` where the model has no such one.
    ///
    /// A tied model has no unembedding of its own.
    pub fn shape(&self, role: Role, layer: Option<usize>) -> Option<Vec<usize>> {
        let hidden = self.hidden_size;
        let Some(layer) = layer else {
            return match role {
                Role::Embedding => Some(vec![self.vocabulary_size, hidden]),
                Role::Unembedding if !self.tied_embeddings => {
                    Some(vec![self.vocabulary_size, hidden])
                }
                Role::FinalNorm => Some(vec![hidden]),
                _ => None,
            };
        };
        let LayerDescription { attention, ffn, post_norms } = self.layers.get(layer)?;
        let queries = attention.heads * attention.head_dim;
        let keys = attention.kv_heads * attention.head_dim;
        let features = ffn.features;
        Some(match role {
            Role::AttentionNorm | Role::FfnNorm => vec![hidden],
            Role::PostAttentionNorm | Role::PostFfnNorm if *post_norms => vec![hidden],
            Role::Query => vec![queries, hidden],
            Role::Key | Role::Value => vec![keys, hidden],
            Role::Output => vec![hidden, queries],
            Role::QueryNorm | Role::KeyNorm if attention.query_key_norm => {
                vec![attention.head_dim]
            }
            Role::QueryBias if attention.bias => vec![queries],
            Role::KeyBias | Role::ValueBias if attention.bias => vec![keys],
            Role::OutputBias if attention.bias => vec![hidden],
            Role::Gate | Role::Up => vec![features, hidden],
            Role::Down => vec![hidden, features],
            Role::GateBias | Role::UpBias if ffn.bias => vec![features],
            Role::DownBias if ffn.bias => vec![hidden],
            _ => return None,
        })
    }

    /// Every tensor of a checkpoint of this model, in the order in which they are used.
    ///
    /// A tied model's checkpoint may repeat the embedding as an unembedding; that one is listed
    /// as not required, and is not read.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let once = |roles: &[Role]| -> Vec<TensorSpec> {
            roles.iter().filter_map(|&role| self.tensor(role, None)).collect()
        };
        let mut tensors = once(&[Role::Embedding]);
        for layer in 0..self.layers() {
            tensors.extend(Role::ALL.iter().filter_map(|&role| self.tensor(role, Some(layer))));
        }
        tensors.extend(once(&[Role::FinalNorm, Role::Unembedding]));
        tensors
    }

    fn tensor(&self, role: Role, layer: Option<usize>) -> Option<TensorSpec> {
        let copy = role == Role::Unembedding && self.tied_embeddings && layer.is_none();
        let shape = match self.shape(role, layer) {
            Some(shape) => shape,
            None if copy => vec![self.vocabulary_size, self.hidden_size],
            None => return None,
        };
        let template = self.family.names.iter().find(|(named, _)| *named == role)?.1;
        let name = match layer {
            Some(layer) => template.replace("{layer}", &layer.to_string()),
            None => template.into(),
        };
        let names: Vec<String> = match role {
            // The head stands beside the stack of layers, not inside it.
            Role::Unembedding => {
                ["", "language_model.", "model."].map(|prefix| format!("{prefix}{name}")).into()
            }
            _ => self.family.prefixes.iter().map(|prefix| format!("{prefix}{name}")).collect(),
        };
        Some(TensorSpec { role, layer, name: names[0].clone(), names, shape, required: !copy })
    }
}

/// Some configurations fill batches with a token outside the vocabulary, or with -1: no token.
fn pad_token(config: &Config, vocabulary: usize) -> Result<Option<u32>, ArchitectureError> {
    let Some(value) = config.value("pad_token_id") else { return Ok(None) };
    match value.as_i64() {
        Some(token) if token >= 0 && (token as u64) < vocabulary as u64 => Ok(Some(token as u32)),
        Some(_) => Ok(None),
        None => Err(config.invalid("pad_token_id", "a token")),
    }
}
