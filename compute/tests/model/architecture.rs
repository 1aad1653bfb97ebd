//! Configurations: what is read, what is taken for granted, and what is refused by name.

use larql_compute::kernels::Activation;
use larql_compute::model::{
    Architecture, AttentionBias, AttentionDescription, Bands, Naming, Role, RopeDescription,
    RopeScaling, WeightKey,
};
use serde_json::{Value, json};

pub fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 600, "rms_norm_eps": 1e-5
    })
}

pub fn gemma3() -> Value {
    json!({
        "model_type": "gemma3_text", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
        "query_pre_attn_scalar": 12, "sliding_window": 5, "sliding_window_pattern": 3,
        "max_position_embeddings": 600
    })
}

pub fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

pub fn read(config: &Value) -> Architecture {
    Architecture::from_config(&config.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

fn rope(attention: &AttentionDescription) -> &RopeDescription {
    attention.rope.as_ref().expect("a rotary embedding")
}

fn refusal(config: Value) -> String {
    Architecture::from_config(&config.to_string()).expect_err("a refusal").to_string()
}

#[test]
fn what_a_llama_configuration_leaves_out_has_the_familys_defaults() {
    let mut config = llama();
    config.as_object_mut().unwrap().remove("num_key_value_heads");
    let architecture = read(&config);
    let attention = &architecture.layer(0).attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (4, 4, 6));
    assert_eq!((rope(attention).base, attention.window), (10_000.0, None));
    assert!(!architecture.tied_embeddings && attention.bias == AttentionBias::NONE);
    assert_eq!(architecture.activation, Activation::Silu);
    assert_eq!((architecture.embed_scale, architecture.norm.offset), (1.0, 0.0));
    assert_eq!(
        (architecture.family(), architecture.layers(), architecture.features(1)),
        ("llama", 2, 40)
    );
}

#[test]
fn what_a_gemma3_configuration_leaves_out_has_the_familys_defaults() {
    // The text part of a published multimodal checkpoint says no more than this.
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "boi_token_index": 255999, "eos_token_id": [1, 106], "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        },
        "torch_dtype": "bfloat16", "vision_config": {"num_attention_heads": 16}
    });
    let architecture = read(&config);
    let (local, global) = (&architecture.layer(4).attention, &architecture.layer(5).attention);
    assert_eq!((local.heads, local.kv_heads, local.head_dim), (8, 4, 256));
    assert_eq!((local.window, global.window), (Some(1024), None));
    assert_eq!((rope(local).base, &rope(local).scaling), (10_000.0, &RopeScaling::None));
    assert_eq!(rope(global).base, 1_000_000.0);
    assert_eq!(rope(global).scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!((local.scale, architecture.norm.offset), (0.0625, 1.0));
    assert_eq!(architecture.embed_scale, 2560_f32.sqrt());
    assert!(architecture.tied_embeddings);
    assert_eq!(architecture.eos_tokens, [1, 106]);
    assert_eq!((architecture.vocabulary_size, architecture.context_max), (262_208, 131_072));
    let bands = Bands { syntax: (0, 13), knowledge: (14, 27), output: (28, 33) };
    assert_eq!(architecture.bands(), Some(bands));
}

#[test]
fn layer_types_win_over_a_pattern_and_both_are_honoured() {
    let windows = |config: &Value| -> Vec<bool> {
        let architecture = read(config);
        (0..3).map(|layer| architecture.layer(layer).attention.window.is_some()).collect()
    };
    assert_eq!(windows(&gemma3()), [true, true, false]);
    assert_eq!(windows(&with(gemma3(), "sliding_window_pattern", json!(2))), [true, false, true]);
    let kinds = json!(["full_attention", "sliding_attention", "full_attention"]);
    assert_eq!(windows(&with(gemma3(), "layer_types", kinds)), [false, true, false]);
}

#[test]
fn a_key_that_changes_the_arithmetic_and_is_not_handled_is_refused_by_name() {
    for (key, value) in [
        ("attention_multiplier", json!(0.5)),
        ("partial_rotary_factor", json!(0.5)),
        ("num_local_experts", json!(8)),
        ("sliding_window", json!(16)),
        ("use_qk_norm", json!(true)),
        ("clip_qkv", json!(8.0)),
        ("attn_logit_softcapping", json!(30.0)),
        ("layer_types", json!(["sliding_attention", "full_attention"])),
        ("hidden_act", json!("mish")),
        ("rope_interleaved", json!(true)),
    ] {
        let message = refusal(with(llama(), key, value));
        assert!(message.contains(key), "{key}: {message}");
    }
    let message = refusal(with(gemma3(), "use_bidirectional_attention", json!(true)));
    assert!(message.contains("use_bidirectional_attention"), "{message}");
}

#[test]
fn a_neutral_value_of_an_unknown_key_is_no_obstacle() {
    for (key, value) in [
        ("attention_multiplier", json!(1.0)),
        ("partial_rotary_factor", json!(1.0)),
        ("num_local_experts", json!(0)),
        ("sliding_window", Value::Null),
        ("attention_dropout", json!(0.1)),
        ("initializer_range", json!(0.02)),
        ("transformers_version", json!("4.57.0")),
        ("layer_types", json!(["full_attention", "full_attention"])),
    ] {
        assert_eq!(read(&with(llama(), key, value)), read(&llama()), "{key}");
    }
}

#[test]
fn rope_types_that_are_not_handled_are_refused_by_name() {
    for kind in ["dynamic", "mrope", "longest"] {
        let scaling = json!({"rope_type": kind, "factor": 2.0});
        let message = refusal(with(llama(), "rope_scaling", scaling));
        assert!(message.contains(kind), "{message}");
    }
    let listed = json!({"rope_type": "frequency_factors", "factors": [1.0, 2.0, 8.0]});
    let listed = read(&with(llama(), "rope_scaling", listed));
    let scaling = &rope(&listed.layer(0).attention).scaling;
    assert_eq!(*scaling, RopeScaling::Factors(vec![1.0, 2.0, 8.0]));
    let short = json!({"rope_type": "frequency_factors", "factors": [1.0, 2.0]});
    assert!(refusal(with(llama(), "rope_scaling", short)).contains("factors"));
    let unknown_key = json!({"rope_type": "linear", "factor": 2.0, "attention_factor": 1.5});
    let message = refusal(with(llama(), "rope_scaling", unknown_key));
    assert!(message.contains("rope_scaling.attention_factor"), "{message}");
    let old_form = with(llama(), "rope_scaling", json!({"type": "linear", "factor": 2.0}));
    let scaling = rope(&read(&old_form).layer(0).attention).scaling.clone();
    assert_eq!(scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn sizes_that_make_no_model_are_refused_by_key() {
    for (key, value) in [
        ("num_attention_heads", json!(0)),
        ("num_hidden_layers", json!(-1)),
        ("num_hidden_layers", json!(1_000_000)),
        ("hidden_size", json!("24")),
        ("hidden_size", json!(1e300)),
        ("vocab_size", json!(u64::MAX)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(7)),
        ("rms_norm_eps", json!(-1e-5)),
        ("rms_norm_eps", json!(1e-300)),
        ("rope_theta", json!(0)),
        ("rope_scaling", json!({"rope_type": "linear", "factor": -2.0})),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 2.0})),
        ("tie_word_embeddings", json!("yes")),
        ("eos_token_id", json!([1, 50])),
    ] {
        let message = refusal(with(llama(), key, value.clone()));
        assert!(message.contains(key), "{key} = {value}: {message}");
    }
    for key in ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"] {
        let mut config = llama();
        config.as_object_mut().unwrap().remove(key);
        let message = refusal(config);
        assert!(message.contains(key) && message.contains("lacks"), "{message}");
    }
}

#[test]
fn what_is_no_configuration_of_a_known_family_is_refused() {
    let message = refusal(with(llama(), "model_type", json!("mamba")));
    assert!(message.contains("mamba") && message.contains("gemma3_text"), "{message}");
    let inside = json!({"model_type": "mllama", "text_config": llama()});
    assert!(refusal(inside).contains("mllama"));
    let known = json!({"model_type": "llava", "text_config": llama()});
    assert_eq!(read(&known), read(&llama()));
    for text in ["", "[]", "{", "null", &"[".repeat(100_000)] {
        let message = Architecture::from_config(text).unwrap_err().to_string();
        assert!(message.contains("config.json"), "{message}");
    }
    assert!(refusal(json!({})).contains("model_type"));
}

#[test]
fn every_tensor_has_a_name_a_shape_and_the_variants_of_its_prefix() {
    let config = with(with(llama(), "attention_bias", json!(true)), "mlp_bias", json!(true));
    let architecture = read(&config);
    let tensors = architecture.tensors(Naming::Hub);
    let find = |key| tensors.iter().find(|spec| spec.key == key);
    let gate = find(WeightKey::layer(Role::Gate, 1)).unwrap();
    assert_eq!(gate.name(), "model.layers.1.mlp.gate_proj.weight");
    assert!(gate.whole().any(|name| name == "language_model.model.layers.1.mlp.gate_proj.weight"));
    assert_eq!((&gate.shape[..], gate.required), (&[40, 24][..], true));
    assert_eq!(find(WeightKey::layer(Role::Down, 0)).unwrap().shape, [24, 40]);
    assert_eq!(find(WeightKey::layer(Role::KeyBias, 0)).unwrap().shape, [12]);
    assert_eq!(find(WeightKey::layer(Role::DownBias, 0)).unwrap().shape, [24]);
    assert!(find(WeightKey::layer(Role::QueryNorm, 0)).is_none());
    let head = find(WeightKey::model(Role::Unembedding)).unwrap();
    assert_eq!((head.name(), head.required), ("lm_head.weight", true));
    let tied = read(&with(llama(), "tie_word_embeddings", json!(true)));
    assert!(
        tied.tensors(Naming::Hub)
            .iter()
            .all(|spec| spec.key.role != Role::Unembedding || !spec.required)
    );
}

/// What transformers 5.23 makes of the flags: those of the larger model, and of its text part.
#[test]
fn the_larger_models_flag_decides_whether_its_embedding_is_tied() {
    let flags = [None, Some(true), Some(false)];
    let wrapped = |model_type: &str, outer: Option<bool>, text: Option<bool>| {
        let mut inner = if model_type.starts_with("gemma") { gemma3() } else { llama() };
        if let Some(tied) = text {
            inner["tie_word_embeddings"] = json!(tied);
        }
        let mut config = json!({"model_type": model_type, "text_config": inner});
        if let Some(tied) = outer {
            config["tie_word_embeddings"] = json!(tied);
        }
        read(&config).tied_embeddings
    };
    for outer in flags {
        for text in flags {
            for wrapper in ["mistral3", "gemma3", "gemma4"] {
                let found = wrapped(wrapper, outer, text);
                assert_eq!(found, outer.unwrap_or(true), "{wrapper} {outer:?} {text:?}");
            }
            let found = wrapped("llava_next", outer, text);
            assert_eq!(found, outer.unwrap_or(false), "llava_next {outer:?} {text:?}");
            let found = wrapped("llava", outer, text);
            let either = outer.unwrap_or(false) || text.unwrap_or(false);
            assert_eq!(found, either, "llava {outer:?} {text:?}");
        }
    }
}
