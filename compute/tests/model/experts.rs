//! Models with routed experts, and with latent attention, in shapes that no golden has.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, DenseFfn, Ffn, Hook, KvCache, Precision, Role, WalkFfn,
    WeightKey,
};
use larql_compute::quant::Dtype;
use serde_json::{Value, json};

use crate::architecture::{read, with};
use crate::checkpoint::Checkpoint;
use crate::decoder::prompt;
use crate::reference::distance;

fn mixtral(count: usize, used: usize) -> Value {
    json!({
        "model_type": "mixtral", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 7,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": count, "num_experts_per_tok": used
    })
}

fn qwen2_moe() -> Value {
    json!({
        "model_type": "qwen2_moe", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 30,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "moe_intermediate_size": 9, "shared_expert_intermediate_size": 11, "num_experts": 5,
        "num_experts_per_tok": 2, "decoder_sparse_step": 2
    })
}

fn qwen3_moe() -> Value {
    let mut config = with(qwen2_moe(), "model_type", json!("qwen3_moe"));
    config.as_object_mut().unwrap().remove("shared_expert_intermediate_size");
    with(config, "mlp_only_layers", json!([1]))
}

fn deepseek_v2() -> Value {
    json!({
        "model_type": "deepseek_v2", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 30,
        "num_hidden_layers": 3, "num_attention_heads": 3, "q_lora_rank": null, "kv_lora_rank": 9,
        "qk_nope_head_dim": 5, "qk_rope_head_dim": 6, "v_head_dim": 7, "n_routed_experts": 5,
        "n_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 9,
        "first_k_dense_replace": 1, "attention_bias": true
    })
}

fn deepseek_v3() -> Value {
    let changes = json!({
        "model_type": "deepseek_v3", "q_lora_rank": 8, "n_routed_experts": 6, "n_group": 3,
        "topk_group": 2, "n_shared_experts": null
    });
    let mut config = deepseek_v2();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn gpt_oss() -> Value {
    json!({
        "model_type": "gpt_oss", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 9,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 5,
        "rope_scaling": {"rope_type": "default"}
    })
}

fn every_kind() -> Vec<Value> {
    let routed = [(3, 2), (1, 1), (4, 4), (7, 3)].map(|(count, used)| mixtral(count, used));
    let others = [qwen2_moe(), qwen3_moe(), deepseek_v2(), deepseek_v3(), gpt_oss()];
    routed.into_iter().chain(others).collect()
}

struct Run {
    logits: Vec<f32>,
    bytes: u64,
}

fn run(
    architecture: &Architecture,
    weights: &Checkpoint,
    ffn: &dyn Ffn,
    precision: Precision,
    blocks: &[&[u32]],
    mut hook: Option<&mut dyn Hook>,
) -> Run {
    let pool = Pool::new(2);
    let options = DecoderOptions { precision, ffn };
    let mut decoder = Decoder::new(architecture, weights, &pool, options).unwrap();
    let mut cache = KvCache::new(architecture, usize::MAX);
    for block in blocks {
        let hook = hook.as_mut().map(|hook| &mut **hook as &mut dyn Hook);
        decoder.prefill(block, &mut cache, hook, &Cancel::new()).unwrap();
    }
    Run { logits: decoder.logits().to_vec(), bytes: decoder.bytes_touched() }
}

#[test]
fn a_prompt_gives_the_same_bits_at_once_and_token_by_token() {
    for config in every_kind() {
        let architecture = read(&config);
        let weights = Checkpoint::random(&architecture, Dtype::F32, 5);
        let tokens = prompt(23, 50);
        let blocks: Vec<&[u32]> = tokens.chunks(1).collect();
        let run = |precision, blocks: &[&[u32]]| {
            run(&architecture, &weights, &DenseFfn, precision, blocks, None).logits
        };
        let whole = run(Precision::Exact, &[&tokens]);
        assert!(whole.iter().all(|logit| logit.is_finite()));
        assert_eq!(run(Precision::Exact, &blocks), whole, "{config}");
        let expected: Vec<f64> = whole.into_iter().map(f64::from).collect();
        let serving = distance(&run(Precision::Serving, &[&tokens]), &expected);
        assert!(serving < 1e-4, "{config}: {serving:e}");
    }
}

#[test]
fn a_walk_of_all_features_of_the_experts_that_run_is_dense() {
    for config in every_kind() {
        let architecture = read(&config);
        for transposed in [None, Some(Role::Down), Some(Role::Up)] {
            let mut weights = Checkpoint::random(&architecture, Dtype::F32, 6);
            if let Some(role) = transposed {
                weights = weights.transposed(role);
            }
            let tokens = prompt(9, 50);
            let run = |ffn: &dyn Ffn| {
                run(&architecture, &weights, ffn, Precision::Exact, &[&tokens], None).logits
            };
            let dense: Vec<f64> = run(&DenseFfn).into_iter().map(f64::from).collect();
            for k in [None, Some(1000)] {
                let distance = distance(&run(&WalkFfn { k }), &dense);
                assert!(distance < 1e-4, "{config} {k:?}: {distance:e}");
            }
            let few = distance(&run(&WalkFfn { k: Some(2) }), &dense);
            assert!(few > 1e-3, "{config}: two features are as good as all");
        }
    }
}

#[test]
fn activations_are_numbered_through_all_networks_and_those_that_do_not_run_show_zero() {
    struct Look {
        features: Vec<usize>,
        most: Vec<usize>,
        shown: usize,
        silence: bool,
    }
    impl Hook for Look {
        fn activations(&mut self, layer: usize, _position: usize, activations: &mut [f32]) {
            assert_eq!(activations.len(), self.features[layer]);
            let running = activations.iter().filter(|activation| **activation != 0.0).count();
            assert!(running <= self.most[layer], "{running} of layer {layer}");
            self.shown += 1;
            if self.silence {
                activations.fill(0.0);
            }
        }
    }
    for config in every_kind() {
        let architecture = read(&config);
        let weights = Checkpoint::random(&architecture, Dtype::F32, 7);
        let layers = 0..architecture.layers();
        let most = layers.clone().map(|layer| {
            let ffn = architecture.layer(layer).ffn;
            ffn.dense.map_or(0, |dense| dense.features)
                + ffn.experts.map_or(0, |experts| experts.used * experts.features)
        });
        let features = layers.map(|layer| architecture.features(layer));
        let mut look =
            Look { features: features.collect(), most: most.collect(), shown: 0, silence: false };
        let tokens = prompt(6, 50);
        let ffns: [&dyn Ffn; 2] = [&DenseFfn, &WalkFfn { k: None }];
        for ffn in ffns {
            let (blocks, exact): (&[&[u32]], _) = (&[&tokens], Precision::Exact);
            let plain = run(&architecture, &weights, ffn, exact, blocks, None).logits;
            (look.silence, look.shown) = (false, 0);
            let seen = run(&architecture, &weights, ffn, exact, blocks, Some(&mut look)).logits;
            assert_eq!(seen, plain, "looking changes nothing");
            assert_eq!(look.shown, 6 * architecture.layers());
            look.silence = true;
            let silent = run(&architecture, &weights, ffn, exact, blocks, Some(&mut look)).logits;
            assert_ne!(silent, plain, "{config}: what is written counts");
        }
    }
}

#[test]
fn one_more_expert_reads_its_bytes_and_no_more() {
    let bytes = |used: usize| {
        let architecture = read(&mixtral(7, used));
        let weights = Checkpoint::random(&architecture, Dtype::F32, 8);
        run(&architecture, &weights, &DenseFfn, Precision::Exact, &[&[3]], None).bytes
    };
    let expert = 2 * 3 * 7 * 24 * 4;
    for used in 1..7 {
        assert_eq!(bytes(used + 1) - bytes(used), expert, "{used}");
    }
}

#[test]
fn a_tensor_of_an_expert_that_is_missing_is_told_by_its_place() {
    let architecture = read(&gpt_oss());
    for (key, expected) in [
        (WeightKey::expert(Role::Up, 1, 3), "up of expert 3 of layer 1"),
        (WeightKey::expert(Role::DownBias, 0, 4), "down_bias of expert 4 of layer 0"),
        (WeightKey::layer(Role::Router, 1), "router of layer 1"),
        (WeightKey::layer(Role::Sinks, 0), "attention_sinks of layer 0"),
    ] {
        let weights = Checkpoint::random(&architecture, Dtype::F32, 9).without(key);
        let pool = Pool::new(1);
        let decoder = Decoder::new(&architecture, &weights, &pool, DecoderOptions::default());
        let message = decoder.err().expect("a refusal").to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_experts_cannot_be_is_refused_by_the_name_of_its_key() {
    let v2 = |key: &str, value: Value| with(deepseek_v2(), key, value);
    let v3 = |key: &str, value: Value| with(deepseek_v3(), key, value);
    let grouped = with(v2("topk_method", json!("group_limited_greedy")), "n_group", json!(5));
    for (key, config) in [
        ("num_local_experts", mixtral(0, 1)),
        ("num_local_experts", mixtral(1 << 40, 1)),
        ("num_experts_per_tok", mixtral(4, 5)),
        ("num_experts_per_tok", mixtral(4, 0)),
        ("num_local_experts", with(mixtral(4000, 1), "num_hidden_layers", json!(1000))),
        ("topk_method", v2("topk_method", json!("noaux_tc"))),
        ("scoring_func", v2("scoring_func", json!("sigmoid"))),
        ("norm_topk_prob", v2("norm_topk_prob", json!(true))),
        ("num_key_value_heads", v2("num_key_value_heads", json!(1))),
        ("qk_head_dim", v2("qk_head_dim", json!(12))),
        ("topk_group", grouped.clone()),
        ("topk_group", with(grouped.clone(), "topk_group", json!(6))),
        ("num_experts_per_tok", with(grouped.clone(), "topk_group", json!(1))),
        ("n_group", with(with(grouped, "topk_group", json!(2)), "n_group", json!(3))),
        ("scoring_func", v3("scoring_func", json!("softmax"))),
        ("topk_method", v3("topk_method", json!("greedy"))),
        ("n_group", v3("n_group", json!(6))),
        ("n_group", v3("n_group", Value::Null)),
        ("qk_rope_head_dim", v3("qk_rope_head_dim", json!(0))),
        ("rope_type", v3("rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0}))),
        ("swiglu_limit", with(gpt_oss(), "swiglu_limit", json!(0.0))),
        ("hidden_act", with(gpt_oss(), "hidden_act", json!("gelu"))),
        ("layer_types", with(gpt_oss(), "layer_types", json!(["full_attention"]))),
        ("mlp_only_layers", with(qwen3_moe(), "mlp_only_layers", json!([-1]))),
        ("layer_types", with(qwen2_moe(), "layer_types", json!(vec!["sliding_attention"; 3]))),
        ("sliding_window", with(qwen3_moe(), "use_sliding_window", json!(true))),
    ] {
        let refused = Architecture::from_config(&config.to_string());
        let message = refused.err().unwrap_or_else(|| panic!("{config} is read")).to_string();
        let told = message.contains(key) || (key == "rope_type" && message.contains("rope type"));
        assert!(told, "{key}: {message}");
    }
}

#[test]
fn layers_are_dense_or_routed_as_their_keys_say() {
    let routed = |config: Value| -> Vec<bool> {
        let architecture = read(&config);
        let layers = 0..architecture.layers();
        layers.map(|layer| architecture.layer(layer).ffn.experts.is_some()).collect()
    };
    assert_eq!(routed(qwen2_moe()), [false, true, false]);
    assert_eq!(routed(with(qwen3_moe(), "decoder_sparse_step", json!(1))), [true, false, true]);
    assert_eq!(routed(deepseek_v2()), [false, true, true]);
    assert_eq!(routed(with(deepseek_v2(), "moe_layer_freq", json!(2))), [false, false, true]);
    assert_eq!(routed(with(deepseek_v2(), "n_routed_experts", Value::Null)), [false; 3]);
    let mut v3 = deepseek_v3();
    v3.as_object_mut().unwrap().remove("first_k_dense_replace");
    assert_eq!(routed(v3), [false; 3], "three dense layers are the family's default");
    // Shared experts are the dense network of a routed layer.
    let architecture = read(&deepseek_v2());
    assert_eq!((architecture.features(0), architecture.features(1)), (30, 18 + 5 * 9));
    let networks = architecture.networks(1);
    let places: Vec<_> = networks.iter().map(|network| (network.expert, network.first)).collect();
    assert_eq!(places[..3], [(None, 0), (Some(0), 18), (Some(1), 27)]);
    assert!(networks[5].first + networks[5].features == architecture.features(1));
}
