//! `index.json` of version 2.

use crate::vindex::layout::LAYERS_MAX;
use crate::vindex::{Checksum, LayerBands};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

/// What an `index.json` of version 2 says. Fields that are not here are of no use to anybody.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct V2Header {
    #[serde(default)]
    pub model: String,
    /// Architecture family, for example `gemma3`.
    pub family: String,
    #[serde(default)]
    pub source: Option<V2Source>,
    /// SHA-256 of some of the files.
    #[serde(default, deserialize_with = "or_default")]
    pub checksums: BTreeMap<String, Checksum>,
    pub num_layers: u32,
    pub hidden_size: u64,
    pub intermediate_size: u64,
    pub vocab_size: u64,
    #[serde(default = "one")]
    pub embed_scale: f64,
    /// `browse`, `attention`, `inference` or `all`.
    #[serde(default = "browse")]
    pub extract_level: String,
    /// Of the files that are not quantised: `f32` or `f16`.
    #[serde(default = "f32_tag")]
    pub dtype: String,
    /// `none` or `q4k`.
    #[serde(default)]
    pub quant: Option<String>,
    #[serde(default)]
    pub layer_bands: Option<LayerBands>,
    /// What `gate_vectors.bin` holds.
    #[serde(default)]
    pub layers: Vec<V2LayerInfo>,
    /// What there is of the source's configuration.
    #[serde(default)]
    pub model_config: Option<V2ModelConfig>,
    #[serde(default)]
    pub fp4: Option<V2Fp4>,
    /// `per_layer` where experts have files of their own.
    #[serde(default)]
    pub ffn_layout: Option<String>,
}

/// Who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct V2Source {
    /// Version of the program.
    #[serde(default)]
    pub larql_version: Option<String>,
}

/// A layer's range of `gate_vectors.bin`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct V2LayerInfo {
    pub layer: u32,
    pub num_features: u64,
    pub offset: u64,
    pub length: u64,
    /// Experts whose gates follow one another, in a mixture.
    #[serde(default)]
    pub num_experts: Option<u32>,
    #[serde(default)]
    pub num_features_per_expert: Option<u64>,
}

/// What there is of the source's configuration; names as in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct V2ModelConfig {
    pub model_type: String,
    pub head_dim: u64,
    pub num_q_heads: u64,
    pub num_kv_heads: u64,
    pub rope_base: f64,
    #[serde(default)]
    pub sliding_window: Option<u64>,
    #[serde(default)]
    pub moe: Option<V2Experts>,
    #[serde(default)]
    pub global_head_dim: Option<u64>,
    #[serde(default)]
    pub num_global_kv_heads: Option<u64>,
    #[serde(default)]
    pub partial_rotary_factor: Option<f64>,
    #[serde(default)]
    pub sliding_window_pattern: Option<u64>,
    #[serde(default)]
    pub layer_types: Option<Vec<String>>,
    #[serde(default)]
    pub attention_k_eq_v: bool,
    #[serde(default)]
    pub num_kv_shared_layers: Option<u64>,
    #[serde(default)]
    pub per_layer_embed_dim: Option<u64>,
    #[serde(default)]
    pub rope_local_base: Option<f64>,
    #[serde(default)]
    pub query_pre_attn_scalar: Option<f64>,
    #[serde(default)]
    pub final_logit_softcapping: Option<f64>,
    /// Keys that are not among these.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(missing_docs)]
pub struct V2Experts {
    pub num_experts: u32,
    pub top_k: u32,
    #[serde(default)]
    pub shared_expert: bool,
    #[serde(default)]
    pub router_type: Option<String>,
    #[serde(default)]
    pub moe_intermediate_size: Option<u64>,
    /// A dense network beside the experts.
    #[serde(default)]
    pub hybrid: bool,
}

/// The matrices of an FP4 vindex.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct V2Fp4 {
    pub fp4_format_version: u32,
    pub block_elements: u64,
    pub sub_block_elements: u64,
    /// By `gate`, `up` and `down`.
    pub projections: BTreeMap<String, V2Projection>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct V2Projection {
    /// `fp4`, `fp8`, `f16` or `f32`.
    pub precision: String,
    /// File name.
    pub file: String,
}

fn one() -> f64 {
    1.0
}

fn browse() -> String {
    "browse".to_owned()
}

fn f32_tag() -> String {
    "f32".to_owned()
}

/// `null` stands for nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl V2Header {
    /// Parses the text of an `index.json`, whose version was looked at before.
    ///
    /// # Errors
    /// A sentence fragment saying what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let header: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let layers = header.num_layers;
        if layers > LAYERS_MAX {
            return Err(format!("it claims {layers} layers, the most is {LAYERS_MAX}"));
        }
        let mut seen = HashSet::new();
        for info in &header.layers {
            if info.layer >= layers {
                return Err(format!("layer {} of a model with {layers} layers", info.layer));
            }
            if !seen.insert(info.layer) {
                return Err(format!("it describes layer {} twice", info.layer));
            }
        }
        if let Some(quant) =
            header.quant.as_deref().filter(|quant| !["none", "q4k"].contains(quant))
        {
            return Err(format!("its quant {quant:?} is not known"));
        }
        if !["f32", "f16"].contains(&&*header.dtype) {
            return Err(format!("its dtype {:?} is not known", header.dtype));
        }
        Ok(header)
    }
}
