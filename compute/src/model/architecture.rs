//! The record that says what a model computes: filled by a family, read by the decoder.
//!
//! Everything that differs between models and is not a weight stands here, checked, so that the
//! decoder can trust it: sizes are positive and bounded, heads divide, numbers are finite. What a
//! `config.json` asks for and this version cannot do is refused by name; nothing is guessed.

use serde_json::Value;

use super::config::Config;
use super::families::{FAMILIES, Family};
use super::{
    AttentionDescription, Bands, LayerDescription, NormDescription, NormKind, PerLayerEmbedding,
};
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
    #[error(
        "rope type {rope_type:?} is not supported; supported are default, linear, llama3, yarn, longrope and proportional"
    )]
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
    /// Whether the embedding is the unembedding too, as far as the configuration says: what a
    /// checkpoint holds goes before it.
    pub tied_embeddings: bool,
    /// Learned rows for positions, where the model has them; there are so many.
    pub position_embeddings: Option<usize>,
    /// An embedding that enters at every layer, where the model has one.
    pub per_layer_embedding: Option<PerLayerEmbedding>,
    /// Its norms.
    pub norm: NormDescription,
    /// Factor on what attention and feed-forward network add to the stream.
    pub residual_scale: f32,
    /// Whether the logits have a bias.
    pub unembedding_bias: bool,
    /// Factor on the logits, before their cap.
    pub logits_scale: f32,
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
    /// A configuration with a `text_config` describes a larger model; if that is a known one, its text
    /// part is taken.
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
        let model_type = outer.text("model_type")?;
        let wrapper = WRAPPERS.iter().find(|wrapper| Some(wrapper.model_type) == model_type);
        if let (Some(model_type), None) = (model_type, wrapper) {
            return Err(unknown(model_type));
        }
        // The outer level of a nested configuration repeats a few keys of the text part, and
        // wins where the text part is silent.
        const SHARED: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];
        let mut merged = inner.clone();
        for key in SHARED.into_iter().filter(|key| outer.mentions(key)) {
            if merged.get(key).is_none_or(Value::is_null) {
                merged.insert(key.into(), top[key].clone());
            }
        }
        if let Some(wrapper) = wrapper {
            let tied = wrapper.ties(&outer, &Config::new(inner, "text_config."))?;
            merged.insert(TIED.into(), tied.into());
        } else if outer.mentions(TIED) && !inner.contains_key(TIED) {
            merged.insert(TIED.into(), top[TIED].clone());
        }
        let own_defaults = NESTED_DEFAULTS.iter().filter(|(model_type, _, _)| {
            merged.get("model_type").and_then(Value::as_str) == Some(model_type)
        });
        let left_out: Vec<_> =
            own_defaults.filter(|(_, key, _)| !merged.contains_key(*key)).collect();
        merged.extend(left_out.into_iter().map(|(_, key, size)| ((*key).into(), (*size).into())));
        // This one is about images, which are not run here.
        outer.mentions("multimodal_projector_bias");
        let inner = Config::new(&merged, "text_config.");
        let architecture = Architecture::describe(&inner, model_type)?;
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
        let family = Family::of(model_type).ok_or_else(|| unknown(model_type))?;
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
            position_embeddings: None,
            per_layer_embedding: None,
            norm: NormDescription { kind: NormKind::Rms, epsilon: 1e-6, offset: 0.0, bias: false },
            residual_scale: 1.0,
            unembedding_bias: false,
            logits_scale: 1.0,
            activation: Activation::Silu,
            final_softcap: None,
            bos_token: None,
            eos_tokens: Vec::new(),
            pad_token: None,
        }
    }

    /// The record, if what every family has in common holds.
    pub(super) fn validated(self, config: &Config) -> Result<Architecture, ArchitectureError> {
        for (index, LayerDescription { attention, .. }) in self.layers.iter().enumerate() {
            let AttentionDescription { heads, kv_heads, head_dim, .. } = *attention;
            if !heads.is_multiple_of(kv_heads) {
                let expected = format!("a divisor of the {heads} heads");
                return Err(config.invalid("num_key_value_heads", expected));
            }
            if let Some(rope) = &attention.rope
                && (rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > head_dim)
            {
                return Err(config.invalid("head_dim", "an even number, since RoPE turns pairs"));
            }
            let reads = attention.kv_from.map(|from| (from < index).then(|| &self.layers[from]));
            if let Some(from) = reads {
                let widths = |layer: &LayerDescription| {
                    let attention = &layer.attention;
                    let own = attention.kv_from.is_none();
                    (own, attention.kv_heads, attention.head_dim, attention.value_dim)
                };
                let own = (true, kv_heads, head_dim, attention.value_dim);
                if from.is_none_or(|from| widths(from) != own) {
                    let expected = "shared layers after one of their kind and shape";
                    return Err(config.invalid("num_kv_shared_layers", expected));
                }
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

    /// Which layers handle form, knowledge and output, or `None` for a model too shallow to say.
    pub fn bands(&self) -> Option<Bands> {
        Bands::of(self.family(), self.layers())
    }
}

/// A larger model whose `text_config` is a model of its own, which runs on text as it stands.
struct Wrapper {
    model_type: &'static str,
    /// Whether the embedding is the unembedding too where the outer level does not say.
    tied: bool,
    /// Whether the text part may tie them though the outer level does not.
    text_may_tie: bool,
}

/// The unembedding belongs to the larger model, so that its flag counts and not the text part's.
///
/// Source: the configuration classes of transformers 5, and what `tie_weights` reads of them.
const WRAPPERS: [Wrapper; 5] = [
    Wrapper { model_type: "gemma3", tied: true, text_may_tie: false },
    Wrapper { model_type: "gemma4", tied: true, text_may_tie: false },
    Wrapper { model_type: "llava", tied: false, text_may_tie: true },
    Wrapper { model_type: "llava_next", tied: false, text_may_tie: false },
    Wrapper { model_type: "mistral3", tied: true, text_may_tie: false },
];

/// The key that says whether the embedding is the unembedding too.
const TIED: &str = "tie_word_embeddings";

impl Wrapper {
    fn ties(&self, outer: &Config, text: &Config) -> Result<bool, ArchitectureError> {
        let tied = outer.flag(TIED)?.unwrap_or(self.tied);
        let of_text = text.flag(TIED)?.unwrap_or(false);
        Ok(tied || (self.text_may_tie && of_text))
    }
}

/// Sizes of the first model of a family, which its configurations leave out as the text part of
/// a larger model: transformers writes there what differs from the class's defaults.
///
/// Source: `LlamaConfig` and `MistralConfig` of transformers.
const NESTED_DEFAULTS: [(&str, &str, u64); 9] = [
    ("llama", "vocab_size", 32_000),
    ("llama", "hidden_size", 4096),
    ("llama", "intermediate_size", 11_008),
    ("llama", "num_hidden_layers", 32),
    ("llama", "num_attention_heads", 32),
    ("mistral", "hidden_size", 4096),
    ("mistral", "intermediate_size", 14_336),
    ("mistral", "num_hidden_layers", 32),
    ("mistral", "num_attention_heads", 32),
];

fn unknown(model_type: &str) -> ArchitectureError {
    let supported = FAMILIES.iter().flat_map(|family| family.model_types);
    ArchitectureError::UnknownFamily {
        model_type: model_type.chars().take(60).collect(),
        supported: supported.copied().collect::<Vec<_>>().join(", "),
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
