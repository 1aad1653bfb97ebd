//! The configuration of a vindex of version 2, whose `index.json` holds a part of it.
//!
//! What is missing (the epsilon of norms, rotary scaling, soft caps …) comes from a `config.json` that
//! somebody put into the directory, or else from what the family publishes, and then a note says which
//! values were taken. Families whose missing values differ from model to model are refused by name.
//!
//! Elsewhere: finding the tensors (`storage::vindex::v2`).

use std::path::Path;

use larql_storage::vindex::V2Header;
use larql_storage::vindex::v2::V2ModelConfig;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, code};

/// The key of rotary scaling. The ancestor did not write it; where somebody did, it goes before what
/// the family publishes.
const ROPE_SCALING: &str = "rope_scaling";

/// What [`config`] made of a header.
#[derive(Debug, PartialEq)]
pub(super) struct Assumed {
    /// The text of a `config.json`.
    pub(super) config: String,
    /// Which of its values nobody wrote down.
    pub(super) notes: Vec<String>,
}

/// What a family publishes and the ancestor did not keep.
struct Published {
    model_types: &'static [&'static str],
    /// What the configuration is called that has no vision part around it.
    model_type: &'static str,
    values: fn(&V2Header, &V2ModelConfig) -> Value,
}

/// The families whose missing values are the same for all models of a kind.
const PUBLISHED: &[Published] = &[
    Published {
        model_types: &["llama"],
        model_type: "llama",
        values: |header, config| {
            json!({"rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": false,
                "mlp_bias": false, "rope_scaling": llama_scaling(header, config)})
        },
    },
    Published {
        model_types: &["mistral"],
        model_type: "mistral",
        values: |_, _| json!({"rms_norm_eps": 1e-5, "hidden_act": "silu"}),
    },
    Published {
        model_types: &["mixtral"],
        model_type: "mixtral",
        values: |_, _| json!({"rms_norm_eps": 1e-5, "hidden_act": "silu"}),
    },
    Published {
        model_types: &["qwen3"],
        model_type: "qwen3",
        values: |_, _| {
            json!({"rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": false,
                "rope_scaling": null, "use_sliding_window": false})
        },
    },
    Published {
        model_types: &["gemma2"],
        model_type: "gemma2",
        values: |_, _| {
            json!({"rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh",
                "attention_bias": false, "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0})
        },
    },
    Published {
        model_types: &["gemma3", "gemma3_text"],
        model_type: "gemma3_text",
        values: |header, _| {
            json!({"rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh",
                "attention_bias": false, "rope_scaling": gemma3_scaling(header)})
        },
    },
];

/// Llama 3.1 and later stretch their rotary frequencies; 2 and 3.0 do not.
fn llama_scaling(header: &V2Header, config: &V2ModelConfig) -> Value {
    let factor = match (config.rope_base, header.hidden_size) {
        (500_000.0, 2048 | 3072) => 32.0,
        (500_000.0, _) if ["3.1", "3.3", "3_1", "3_3"].iter().any(|v| header.model.contains(v)) => {
            8.0
        }
        _ => return Value::Null,
    };
    json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})
}

/// Of Gemma 3, the sizes with a vision part stretch their global frequencies.
fn gemma3_scaling(header: &V2Header) -> Value {
    match header.hidden_size {
        2560 | 3840 | 5376 => json!({"rope_type": "linear", "factor": 8.0}),
        _ => Value::Null,
    }
}

/// The configuration that a header amounts to, for a model whose output matrix is its own or not.
///
/// # Errors
/// `UNSUPPORTED_FORMAT` where the family's missing values cannot be known.
pub(super) fn config(
    path: &Path,
    header: &V2Header,
    tied: bool,
    generation: Option<&[u8]>,
) -> Result<Assumed, Failure> {
    let lacks = |what: String| {
        Failure::new(code::UNSUPPORTED_FORMAT, format!("{}: {what}", path.display()))
            .hint("copy config.json of the model that it was extracted from into the directory")
    };
    let Some(known) = &header.model_config else {
        return Err(lacks("index.json says nothing about the model's attention".to_owned()));
    };
    let model_type = known.model_type.as_str();
    let published = PUBLISHED
        .iter()
        .find(|published| published.model_types.contains(&model_type))
        .ok_or_else(|| {
            lacks(format!(
                "index.json does not hold all that a model of the type {model_type:?} needs, and \
                 it differs from one such model to another"
            ))
        })?;
    if let Some(key) = unusable(header, known) {
        return Err(lacks(format!(
            "index.json gives {key} to a model of the type {model_type:?}, which is not understood"
        )));
    }
    let mut config = stated(header, known, tied);
    config.insert("model_type".to_owned(), published.model_type.into());
    let mut assumed = Vec::new();
    if let Value::Object(values) = (published.values)(header, known) {
        for (key, value) in values {
            if !config.contains_key(&key) {
                assumed.push(format!("{key} = {value}"));
                config.insert(key, value);
            }
        }
    }
    tokens(&mut config, generation);
    let notes = vec![format!(
        "index.json of version 2 lacks a part of the configuration; taken as the family publishes \
         it: {}. A config.json in the directory goes before that",
        assumed.join(", ")
    )];
    Ok(Assumed { config: Value::Object(config).to_string(), notes })
}

/// A key of the header that says something and that none of [`PUBLISHED`] acts by: left out, it would
/// silently make another model.
fn unusable<'h>(header: &V2Header, known: &'h V2ModelConfig) -> Option<&'h str> {
    let differs = |value: Option<u64>, usual: u64| value.is_some_and(|value| value != usual);
    let experts = known.moe.as_ref();
    let mixture = experts.is_some() && known.model_type != "mixtral";
    let features = experts.and_then(|experts| experts.moe_intermediate_size);
    let given = [
        ("global_head_dim", differs(known.global_head_dim, known.head_dim)),
        ("num_global_kv_heads", differs(known.num_global_kv_heads, known.num_kv_heads)),
        ("attention_k_eq_v", known.attention_k_eq_v),
        ("num_kv_shared_layers", differs(known.num_kv_shared_layers, 0)),
        ("per_layer_embed_dim", differs(known.per_layer_embed_dim, 0)),
        ("moe", mixture),
        ("moe.shared_expert", experts.is_some_and(|experts| experts.shared_expert)),
        ("moe.hybrid", experts.is_some_and(|experts| experts.hybrid)),
        ("moe.moe_intermediate_size", differs(features, header.intermediate_size)),
    ];
    let given = given.into_iter().find_map(|(key, given)| given.then_some(key));
    given.or_else(|| {
        let says = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let other = known.other.iter().find(|(key, value)| *key != ROPE_SCALING && says(value));
        other.map(|(key, _)| key.as_str())
    })
}

/// What the header itself says, under the names of a `config.json`.
fn stated(header: &V2Header, known: &V2ModelConfig, tied: bool) -> Map<String, Value> {
    let experts = known.moe.as_ref();
    let optional = [
        ("sliding_window", known.sliding_window.map(Value::from)),
        ("sliding_window_pattern", known.sliding_window_pattern.map(Value::from)),
        ("layer_types", known.layer_types.clone().map(Value::from)),
        ("rope_local_base_freq", known.rope_local_base.map(Value::from)),
        ("query_pre_attn_scalar", known.query_pre_attn_scalar.map(Value::from)),
        ("final_logit_softcapping", known.final_logit_softcapping.map(Value::from)),
        ("partial_rotary_factor", known.partial_rotary_factor.map(Value::from)),
        (ROPE_SCALING, known.other.get(ROPE_SCALING).cloned()),
        ("num_local_experts", experts.map(|experts| experts.num_experts.into())),
        ("num_experts_per_tok", experts.map(|experts| experts.top_k.into())),
    ];
    let mut config = Map::new();
    for (key, value) in [
        ("vocab_size", Value::from(header.vocab_size)),
        ("hidden_size", header.hidden_size.into()),
        ("intermediate_size", header.intermediate_size.into()),
        ("num_hidden_layers", header.num_layers.into()),
        ("num_attention_heads", known.num_q_heads.into()),
        ("num_key_value_heads", known.num_kv_heads.into()),
        ("head_dim", known.head_dim.into()),
        ("rope_theta", known.rope_base.into()),
        ("tie_word_embeddings", tied.into()),
    ] {
        config.insert(key.to_owned(), value);
    }
    let optional = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    config.extend(optional);
    config
}

/// The ids of special tokens, which the ancestor kept in a file of their own.
fn tokens(config: &mut Map<String, Value>, generation: Option<&[u8]>) {
    let parsed = generation.and_then(|text| serde_json::from_slice::<Map<_, _>>(text).ok());
    let Some(generation) = parsed else { return };
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(value) = generation.get(key) {
            config.insert(key.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use larql_compute::model::Architecture;

    use super::*;

    fn header(model: &str, family: &str, hidden: u64, rope_base: f64) -> V2Header {
        let text = json!({
            "version": 2, "model": model, "family": family, "num_layers": 2,
            "hidden_size": hidden, "intermediate_size": 96, "vocab_size": 100,
            "model_config": {"model_type": family, "head_dim": 16, "num_q_heads": 4,
                "num_kv_heads": 2, "rope_base": rope_base, "attention_k_eq_v": false},
        });
        V2Header::parse(text.to_string().as_bytes()).expect("a header")
    }

    fn assume(header: &V2Header) -> Result<Assumed, Failure> {
        config(Path::new("v"), header, true, Some(br#"{"eos_token_id": [2, 3]}"#))
    }

    #[test]
    fn what_a_family_publishes_is_taken_and_told() {
        let found = assume(&header("m", "llama", 64, 10_000.0)).unwrap();
        let config: Value = serde_json::from_str(&found.config).unwrap();
        assert_eq!(config["rms_norm_eps"], 1e-5);
        assert_eq!(config["rope_scaling"], Value::Null);
        assert_eq!(config["eos_token_id"], json!([2, 3]));
        assert!(found.notes[0].contains("rms_norm_eps = 0.00001"), "{}", found.notes[0]);
        let architecture = Architecture::from_config(&found.config).unwrap();
        assert_eq!((architecture.layers(), architecture.hidden_size), (2, 64));
    }

    #[test]
    fn stretched_frequencies_follow_the_sizes_that_are_published() {
        let scaling = |header: &V2Header| {
            let config: Value = serde_json::from_str(&assume(header).unwrap().config).unwrap();
            config["rope_scaling"].clone()
        };
        assert_eq!(scaling(&header("Llama-3.2-1B", "llama", 2048, 5e5))["factor"], 32.0);
        assert_eq!(scaling(&header("Llama-3.1-8B", "llama", 4096, 5e5))["factor"], 8.0);
        assert_eq!(scaling(&header("Meta-Llama-3-8B", "llama", 4096, 5e5)), Value::Null);
        assert_eq!(scaling(&header("gemma-3-4b", "gemma3", 2560, 1e6))["factor"], 8.0);
        assert_eq!(scaling(&header("gemma-3-1b", "gemma3", 1152, 1e6)), Value::Null);
    }

    #[test]
    fn a_family_whose_missing_values_differ_is_refused_by_name() {
        for family in ["granite", "deepseek_v3", "gpt_oss"] {
            let failure = assume(&header("m", family, 64, 1e4)).unwrap_err();
            assert_eq!(failure.code, code::UNSUPPORTED_FORMAT);
            assert!(failure.message.contains(family) && failure.hint.contains("config.json"));
        }
    }

    #[test]
    fn what_the_header_says_acts_or_is_refused_by_name() {
        for (key, value) in [
            ("global_head_dim", json!(32)),
            ("num_global_kv_heads", json!(1)),
            ("attention_k_eq_v", json!(true)),
            ("num_kv_shared_layers", json!(2)),
            ("per_layer_embed_dim", json!(8)),
            ("moe", json!({"num_experts": 4, "top_k": 2})),
            ("attn_logit_softcapping", json!(50.0)),
        ] {
            let mut header = header("m", "llama", 64, 1e4);
            let mut text = json!({"model_type": "llama", "head_dim": 16,
                "num_q_heads": 4, "num_kv_heads": 2, "rope_base": 1e4});
            text[key] = value;
            header.model_config = Some(serde_json::from_value(text).unwrap());
            let failure = assume(&header).unwrap_err();
            assert_eq!(failure.code, code::UNSUPPORTED_FORMAT);
            assert!(failure.message.contains(key), "{key}: {}", failure.message);
        }
        let mut usual = header("m", "llama", 64, 1e4);
        let known = usual.model_config.as_mut().unwrap();
        known.global_head_dim = Some(16);
        known.num_kv_shared_layers = Some(0);
        known.other.insert("use_cache".to_owned(), Value::Null);
        let scaling = json!({"rope_type": "linear", "factor": 2.0});
        known.other.insert(ROPE_SCALING.to_owned(), scaling.clone());
        let config: Value = serde_json::from_str(&assume(&usual).unwrap().config).unwrap();
        assert_eq!(config["rope_scaling"], scaling);
    }
}
