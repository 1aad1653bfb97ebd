//! Every family of the list against the outputs of the reference implementation.

use std::collections::BTreeSet;
use std::fs;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, CaptureResiduals, Decoder, DecoderOptions, KvCache, Naming, Precision, Role,
    TensorSpec,
};
use larql_compute::sample::greedy;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, architecture, goldens};

/// The folders of tests/goldens whose families run.
pub const FAMILIES: [&str; 23] = [
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v3_fp8",
    "gemma2",
    "gemma3",
    "gemma4_e2b",
    "gemma4_moe",
    "gpt2",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "granite",
    "llama2",
    "llama3",
    "mistral",
    "mixtral",
    "olmo2",
    "phi2",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "starcoder2",
];

pub struct Golden {
    name: &'static str,
    pub architecture: Architecture,
    pub weights: Checkpoint,
    pub expected: Value,
    bound: f64,
}

pub fn golden(name: &'static str) -> Golden {
    let folder = goldens(name);
    let architecture = architecture(&folder);
    let weights = Checkpoint::open(&folder, &architecture);
    let expected = fs::read_to_string(folder.join("golden.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let stability = expected["stability_max_logit_change_rel_1e-5"].as_f64().unwrap();
    Golden { name, architecture, weights, expected, bound: (0.1 * stability).max(3e-4) }
}

fn all() -> impl Iterator<Item = Golden> {
    FAMILIES.into_iter().map(golden)
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub fn tokens(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|token| token as u32).collect()
}

fn length(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn options(precision: Precision) -> DecoderOptions<'static> {
    DecoderOptions { precision, ..DecoderOptions::default() }
}

#[test]
fn logits_and_residuals_of_every_family_are_those_of_the_reference() {
    let pool = Pool::new(2);
    for golden in all() {
        for precision in [Precision::Exact, Precision::Serving] {
            for prompt in golden.expected["prompts"].as_array().unwrap() {
                let about = format!("{} {} {precision:?}", golden.name, prompt["name"]);
                let ids = tokens(&prompt["input_ids"]);
                let mut decoder =
                    Decoder::new(&golden.architecture, &golden.weights, &pool, options(precision))
                        .unwrap();
                let mut cache = KvCache::new(&golden.architecture, ids.len());
                let mut capture = CaptureResiduals::new();
                let mut best = Vec::new();
                let mut each = |_: usize, logits: &[f32]| best.push(greedy(logits).unwrap());
                decoder
                    .prefill_all_logits(
                        &ids,
                        &mut cache,
                        Some(&mut capture),
                        &Cancel::new(),
                        &mut each,
                    )
                    .unwrap();
                assert_eq!(best, tokens(&prompt["argmax_all_positions"]), "{about}");
                let expected = numbers(&prompt["last_logits"]);
                let distance = crate::reference::distance(decoder.logits(), &expected);
                assert!(distance <= golden.bound, "{about}: {distance:e} > {:e}", golden.bound);
                for row in prompt["hidden"].as_array().unwrap() {
                    let after = row["after"].as_str().unwrap();
                    let found = match after {
                        "input" => capture.input(),
                        "final_norm" => decoder.final_norm(),
                        layer => {
                            &capture.layers()[layer["layer_".len()..].parse::<usize>().unwrap()]
                        }
                    };
                    let l2 = row["l2"].as_f64().unwrap();
                    assert!((length(found) / l2 - 1.0).abs() < 2e-4, "{about} {after}: {l2}");
                    for (found, expected) in found.iter().zip(numbers(&row["first8"])) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error <= golden.bound.max(1e-4 * l2), "{about} {after}: {error:e}");
                    }
                }
                let last = golden.architecture.layers() - 1;
                assert_eq!(decoder.residual(), capture.layers()[last]);
            }
        }
    }
}

#[test]
fn greedy_continuations_of_every_family_are_those_of_the_reference() {
    let pool = Pool::new(2);
    for golden in all() {
        for precision in [Precision::Exact, Precision::Serving] {
            for prompt in golden.expected["prompts"].as_array().unwrap() {
                let mut decoder =
                    Decoder::new(&golden.architecture, &golden.weights, &pool, options(precision))
                        .unwrap();
                let mut cache = KvCache::new(&golden.architecture, usize::MAX);
                decoder
                    .prefill(&tokens(&prompt["input_ids"]), &mut cache, None, &Cancel::new())
                    .unwrap();
                let mut found = vec![greedy(decoder.logits()).unwrap()];
                while found.len() < 16 {
                    let token = *found.last().unwrap();
                    decoder.decode(token, &mut cache, None, &Cancel::new()).unwrap();
                    found.push(greedy(decoder.logits()).unwrap());
                }
                let about = format!("{} {} {precision:?}", golden.name, prompt["name"]);
                assert_eq!(found, tokens(&prompt["greedy16"]), "{about}");
            }
        }
    }
}

#[test]
fn both_forms_of_a_configuration_give_one_architecture() {
    for golden in all() {
        // Nested and quantised folders have only one form.
        let other = fs::read_to_string(goldens(golden.name).join("config.transformers5.json"));
        let Ok(other) = other else { continue };
        let other = Architecture::from_config(&other).unwrap();
        assert_eq!(other, golden.architecture, "{}", golden.name);
    }
}

#[test]
fn the_list_of_tensors_names_all_that_a_checkpoint_holds() {
    for golden in all() {
        let specs = golden.architecture.tensors(Naming::Hub);
        let candidates = |spec: &TensorSpec| -> Vec<String> {
            spec.candidates.iter().map(|candidate| candidate.name.clone()).collect()
        };
        let held: BTreeSet<String> = golden.weights.names.iter().cloned().collect();
        for spec in specs.iter().filter(|spec| spec.required) {
            let there = candidates(spec).iter().any(|name| held.contains(name));
            assert!(there, "{} lacks {}", golden.name, spec.key);
        }
        let named: BTreeSet<String> = specs.iter().flat_map(candidates).collect();
        for name in held {
            // Scales lie beside what they belong to; masks are no weights, and images no text.
            let belongs = name.replace("_scale_inv", "").replace("_scales", "_blocks");
            let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            let image = name.starts_with("model.embed_vision.");
            assert!(mask || image || named.contains(&belongs), "{}: {name}", golden.name);
        }
    }
}

#[test]
fn a_feature_major_down_projection_gives_the_same_logits() {
    let pool = Pool::new(2);
    for golden in all() {
        let weights = Checkpoint::open(&goldens(golden.name), &golden.architecture);
        let weights = weights.transposed(Role::Down);
        for precision in [Precision::Exact, Precision::Serving] {
            let prompt = &golden.expected["prompts"][1];
            let mut decoder =
                Decoder::new(&golden.architecture, &weights, &pool, options(precision)).unwrap();
            let mut cache = KvCache::new(&golden.architecture, usize::MAX);
            decoder
                .prefill(&tokens(&prompt["input_ids"]), &mut cache, None, &Cancel::new())
                .unwrap();
            let distance =
                crate::reference::distance(decoder.logits(), &numbers(&prompt["last_logits"]));
            assert!(distance <= golden.bound, "{} {precision:?}: {distance:e}", golden.name);
        }
    }
}
