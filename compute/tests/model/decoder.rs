//! What the goldens do not cover: options, shapes, errors, cancels, and agreement with itself.

use std::time::{Duration, Instant};

use larql_compute::cpu::{Cancel, Pool, Reason};
use larql_compute::model::{
    Architecture, DecodeError, Decoder, DecoderOptions, KvCache, Precision, Role, WeightKey,
};
use larql_compute::quant::Dtype;
use serde_json::{Value, json};

use crate::architecture::{gemma3, llama, read, with};
use crate::checkpoint::Checkpoint;
use crate::reference::{self, Changes, distance};

pub fn prompt(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 7 + i * 3 + 1) % vocabulary) as u32).collect()
}

fn options(precision: Precision) -> DecoderOptions<'static> {
    DecoderOptions { precision, ..DecoderOptions::default() }
}

fn run(
    architecture: &Architecture,
    weights: &Checkpoint,
    tokens: &[u32],
    precision: Precision,
    threads: usize,
) -> Vec<f32> {
    let pool = Pool::new(threads);
    let mut decoder = Decoder::new(architecture, weights, &pool, options(precision)).unwrap();
    let mut cache = KvCache::new(architecture, tokens.len());
    decoder.prefill(tokens, &mut cache, None, &Cancel::new()).unwrap();
    decoder.logits().to_vec()
}

#[test]
fn every_option_of_a_configuration_acts_as_it_is_defined() {
    let full = ["full_attention", "sliding_attention", "full_attention"];
    let gemma2 = with(gemma3(), "model_type", json!("gemma2"));
    let gemma2 = with(gemma2, "sliding_window_pattern", Value::Null);
    let variants: Vec<Value> = vec![
        llama(),
        with(with(llama(), "attention_bias", json!(true)), "mlp_bias", json!(true)),
        with(llama(), "head_dim", json!(8)),
        with(llama(), "tie_word_embeddings", json!(true)),
        with(llama(), "hidden_act", json!("gelu_pytorch_tanh")),
        with(llama(), "hidden_act", json!("gelu")),
        with(llama(), "rms_norm_eps", json!(0.1)),
        with(llama(), "rope_theta", json!(50.0)),
        with(llama(), "rope_scaling", json!({"type": "linear", "factor": 3.0})),
        with(
            llama(),
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 3.0, "original_max_position_embeddings": 16}),
        ),
        gemma3(),
        with(gemma2.clone(), "attn_logit_softcapping", json!(0.7)),
        with(gemma2, "attn_logit_softcapping", Value::Null),
        with(gemma3(), "final_logit_softcapping", json!(0.9)),
        with(gemma3(), "rope_local_base_freq", json!(20.0)),
        with(gemma3(), "sliding_window", json!(1)),
        with(gemma3(), "attention_bias", json!(true)),
        with(gemma3(), "tie_word_embeddings", json!(false)),
        with(gemma3(), "rope_scaling", json!({"rope_type": "linear", "factor": 8.0})),
        with(gemma3(), "layer_types", json!(full)),
    ];
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for (index, config) in variants.iter().enumerate() {
        let architecture = read(config);
        let weights = Checkpoint::random(&architecture, Dtype::F32, 11);
        let tokens = prompt(23, 50);
        let expected = reference::logits(&architecture, &weights, &tokens, Changes::default());
        for precision in [Precision::Exact, Precision::Serving] {
            let found = run(&architecture, &weights, &tokens, precision, 2);
            let distance = distance(&found, &expected);
            assert!(distance < 5e-5, "{index} {precision:?}: {distance:e} for {config}");
            if precision == Precision::Exact {
                assert!(!seen.contains(&found), "the option does nothing: {config}");
                seen.push(found);
            }
        }
    }
}

#[test]
fn decode_after_prefill_equals_prefill_of_all_tokens() {
    for config in [llama(), gemma3()] {
        let architecture = read(&config);
        let tokens = prompt(40, 50);
        for role in [None, Some(Role::Down)] {
            let mut weights = Checkpoint::random(&architecture, Dtype::BF16, 5);
            if let Some(role) = role {
                weights = weights.transposed(role);
            }
            for (precision, bound) in [(Precision::Exact, 0.0), (Precision::Serving, 1e-4)] {
                let whole = run(&architecture, &weights, &tokens, precision, 2);
                let pool = Pool::new(3);
                let mut decoder =
                    Decoder::new(&architecture, &weights, &pool, options(precision)).unwrap();
                let mut cache = KvCache::new(&architecture, 40);
                let cancel = Cancel::new();
                decoder.prefill(&tokens[..7], &mut cache, None, &cancel).unwrap();
                decoder.prefill(&tokens[7..20], &mut cache, None, &cancel).unwrap();
                for &token in &tokens[20..] {
                    decoder.decode(token, &mut cache, None, &cancel).unwrap();
                }
                assert_eq!(cache.len(), 40);
                let whole: Vec<f64> = whole.into_iter().map(f64::from).collect();
                let distance = distance(decoder.logits(), &whole);
                assert!(distance <= bound, "{precision:?} {role:?}: {distance:e}");
            }
        }
    }
}

#[test]
fn prompts_longer_than_a_block_equal_the_definition_for_any_number_of_threads() {
    let architecture = read(&gemma3());
    let weights = Checkpoint::random(&architecture, Dtype::F16, 3);
    let tokens = prompt(300, 50);
    let expected = reference::logits(&architecture, &weights, &tokens, Changes::default());
    for precision in [Precision::Exact, Precision::Serving] {
        let one = run(&architecture, &weights, &tokens, precision, 1);
        assert!(distance(&one, &expected) < 1e-4, "{precision:?}");
        assert_eq!(one, run(&architecture, &weights, &tokens, precision, 3), "{precision:?}");
    }
}

#[test]
fn a_token_outside_its_window_changes_nothing_in_a_model_of_windows_alone() {
    let kinds = json!(["sliding_attention", "sliding_attention", "sliding_attention"]);
    let architecture = read(&with(gemma3(), "layer_types", kinds));
    let weights = Checkpoint::random(&architecture, Dtype::F32, 8);
    // Three layers with windows of 5 see 3 * 4 positions back.
    let tokens = prompt(20, 50);
    let logits = |changed: usize| {
        let mut tokens = tokens.clone();
        tokens[changed] = (tokens[changed] + 1) % 50;
        run(&architecture, &weights, &tokens, Precision::Exact, 1)
    };
    let unchanged = run(&architecture, &weights, &tokens, Precision::Exact, 1);
    assert_eq!(logits(19 - 13), unchanged);
    assert_ne!(logits(19 - 12), unchanged);
}

#[test]
fn a_request_that_does_not_fit_is_refused_before_anything_is_written() {
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 1);
    let pool = Pool::new(1);
    let mut decoder =
        Decoder::new(&architecture, &weights, &pool, DecoderOptions::default()).unwrap();
    let cancel = Cancel::new();
    let mut cache = KvCache::new(&architecture, 8);
    let mut refusal = |tokens: &[u32], cache: &mut KvCache| {
        let error = decoder.prefill(tokens, cache, None, &cancel).unwrap_err();
        assert!(decoder.logits().is_empty());
        error
    };
    assert_eq!(refusal(&[], &mut cache), DecodeError::EmptyPrompt);
    let error = refusal(&[1, 50], &mut cache);
    assert_eq!(error, DecodeError::TokenOutOfRange { token: 50, vocabulary: 50 });
    let error = refusal(&[1; 9], &mut cache);
    assert_eq!(error, DecodeError::ContextFull { capacity: 8, needed: 9 });
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
    let other = read(&gemma3());
    let mut foreign = KvCache::new(&other, 8);
    assert_eq!(refusal(&[1], &mut foreign), DecodeError::ForeignCache);
    decoder.prefill(&[1; 8], &mut cache, None, &cancel).unwrap();
    let error = decoder.decode(1, &mut cache, None, &cancel).unwrap_err();
    assert_eq!(error, DecodeError::ContextFull { capacity: 8, needed: 9 });
    assert_eq!(cache.len(), 8);
}

#[test]
fn a_cache_stays_within_its_bound_and_a_cut_back_one_goes_on_as_before() {
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 1);
    let pool = Pool::new(1);
    let mut decoder =
        Decoder::new(&architecture, &weights, &pool, DecoderOptions::default()).unwrap();
    let cancel = Cancel::new();
    let mut cache = KvCache::new(&architecture, 50);
    // Two layers, keys and values, 2 heads of 6 numbers of 4 bytes.
    assert_eq!(cache.bytes_max(), 50 * 2 * 2 * 2 * 6 * 4);
    for token in prompt(50, 50) {
        decoder.decode(token, &mut cache, None, &cancel).unwrap();
        assert!(cache.bytes() <= cache.bytes_max());
    }
    let expected = run(&architecture, &weights, &[1, 8, 3], Precision::Exact, 1);
    cache.truncate(0);
    decoder.prefill(&[1, 8], &mut cache, None, &cancel).unwrap();
    decoder.decode(9, &mut cache, None, &cancel).unwrap();
    cache.truncate(2);
    decoder.decode(3, &mut cache, None, &cancel).unwrap();
    assert_eq!(decoder.logits(), expected);
    assert_eq!(KvCache::new(&architecture, usize::MAX).capacity(), architecture.context_max);
}

#[test]
fn a_tensor_that_is_missing_or_misshapen_is_named() {
    let architecture = read(&llama());
    let pool = Pool::new(1);
    let new = |architecture: &Architecture, weights: &Checkpoint| {
        Decoder::new(architecture, weights, &pool, DecoderOptions::default()).err()
    };
    for key in [
        WeightKey::model(Role::Embedding),
        WeightKey::model(Role::Unembedding),
        WeightKey::model(Role::FinalNorm),
        WeightKey::layer(Role::Key, 1),
        WeightKey::layer(Role::FfnNorm, 0),
        WeightKey::layer(Role::Down, 1),
    ] {
        let weights = Checkpoint::random(&architecture, Dtype::F32, 1).without(key);
        let error = new(&architecture, &weights).unwrap();
        assert_eq!(error, DecodeError::MissingTensor { key });
        assert!(error.to_string().contains(key.role.as_str()));
    }
    let weights = Checkpoint::random(&architecture, Dtype::F32, 1);
    let wider = read(&with(llama(), "intermediate_size", json!(41)));
    let error = new(&wider, &weights).unwrap();
    let (expected, found) = (vec![41, 24], vec![40, 24]);
    assert_eq!(error, DecodeError::Shape { key: WeightKey::layer(Role::Gate, 0), expected, found });
}

#[test]
fn a_cancel_or_a_deadline_ends_a_prefill_soon_and_leaves_the_cache_as_it_was() {
    let config = with(with(llama(), "hidden_size", json!(256)), "intermediate_size", json!(1024));
    let config = with(
        with(config, "num_hidden_layers", json!(8)),
        "max_position_embeddings",
        json!(100_000),
    );
    let architecture = read(&config);
    let weights = Checkpoint::random(&architecture, Dtype::F16, 1);
    let pool = Pool::new(2);
    for precision in [Precision::Exact, Precision::Serving] {
        let mut decoder = Decoder::new(&architecture, &weights, &pool, options(precision)).unwrap();
        let mut cache = KvCache::new(&architecture, 100_000);
        decoder.prefill(&[1, 2, 3], &mut cache, None, &Cancel::new()).unwrap();
        let cancel = Cancel::new();
        // Far longer than the wait below on any machine.
        let tokens = prompt(90_000, 50);
        std::thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(60));
                cancel.cancel();
                Instant::now()
            });
            let error = decoder.prefill(&tokens, &mut cache, None, &cancel).unwrap_err();
            let late = canceller.join().unwrap().elapsed();
            let DecodeError::Cancelled(cancelled) = error else { panic!("{error}") };
            assert_eq!(cancelled.reason, Reason::Cancel);
            // 100 ms on a quiet machine; a busy one may take a thread away for longer.
            assert!(late < Duration::from_secs(2), "{late:?} after the cancel");
        });
        assert_eq!(cache.len(), 3);
        let soon = Cancel::new().with_deadline(Instant::now() + Duration::from_millis(20));
        let error = decoder.prefill(&tokens, &mut cache, None, &soon).unwrap_err();
        assert!(matches!(error, DecodeError::Cancelled(c) if c.reason == Reason::Deadline));
        decoder.decode(4, &mut cache, None, &Cancel::new()).unwrap();
        let expected = run(&architecture, &weights, &[1, 2, 3, 4], Precision::Exact, 1);
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        assert!(distance(decoder.logits(), &expected) < 1e-4);
    }
}

#[test]
fn bytes_touched_are_those_of_the_weights_read() {
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F16, 1);
    let pool = Pool::new(1);
    let mut decoder =
        Decoder::new(&architecture, &weights, &pool, DecoderOptions::default()).unwrap();
    let mut cache = KvCache::new(&architecture, 8);
    decoder.decode(1, &mut cache, None, &Cancel::new()).unwrap();
    // Numbers of 2 bytes: an embedding row, q k v o, gate up down of two layers, unembedding.
    let layer = 24 * (24 + 12 + 12 + 24) + 3 * 40 * 24;
    assert_eq!(decoder.bytes_touched(), 2 * (24 + 2 * layer + 50 * 24));
}
