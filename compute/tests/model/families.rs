//! What holds for every family: hooks and walks on its golden, and damaged configurations.

use std::fs;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Candidate, Decoder, DecoderOptions, DenseFfn, Ffn, Hook, KvCache, Naming,
    Precision, WalkFfn,
};
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, architecture, goldens};
use crate::decoder::prompt;
use crate::goldens::FAMILIES;
use crate::reference::distance;

/// Runs nine tokens of a golden.
fn logits(name: &str, ffn: &dyn Ffn, hook: Option<&mut dyn Hook>) -> Vec<f32> {
    let folder = goldens(name);
    let architecture = architecture(&folder);
    let weights = Checkpoint::open(&folder, &architecture);
    let pool = Pool::new(2);
    let options = DecoderOptions { precision: Precision::Exact, ffn };
    let mut decoder = Decoder::new(&architecture, &weights, &pool, options).unwrap();
    let mut cache = KvCache::new(&architecture, 9);
    decoder.prefill(&prompt(9, 500), &mut cache, hook, &Cancel::new()).unwrap();
    decoder.logits().to_vec()
}

#[test]
fn a_walk_of_all_features_is_dense_in_every_family() {
    for name in FAMILIES {
        let dense = logits(name, &DenseFfn, None);
        let dense: Vec<f64> = dense.into_iter().map(f64::from).collect();
        let distance = distance(&logits(name, &WalkFfn { k: None }, None), &dense);
        let largest = dense.iter().fold(0.0_f64, |largest, logit| largest.max(logit.abs()));
        assert!(distance <= 1e-4 * largest, "{name}: {distance:e}");
    }
}

#[test]
fn hooks_see_a_number_for_every_feature_and_change_what_they_write() {
    #[derive(Default)]
    struct Silence {
        widths: Vec<usize>,
        outputs: f32,
    }
    impl Hook for Silence {
        fn activations(&mut self, layer: usize, _position: usize, activations: &mut [f32]) {
            if self.widths.len() == layer {
                self.widths.push(activations.len());
            }
            activations.fill(0.0);
        }
        fn ffn_out(&mut self, _layer: usize, output: &mut [f32]) {
            self.outputs = output.iter().fold(self.outputs, |largest, x| largest.max(x.abs()));
        }
    }
    for name in FAMILIES {
        let architecture = architecture(&goldens(name));
        let mut silence = Silence::default();
        let silent = logits(name, &DenseFfn, Some(&mut silence));
        let features: Vec<usize> =
            (0..architecture.layers()).map(|layer| architecture.features(layer)).collect();
        assert_eq!(silence.widths, features, "{name}");
        assert_ne!(silent, logits(name, &DenseFfn, None), "{name}");
        // Without biases nothing comes out of a network whose features are silent.
        let mut biases = architecture.tensors(Naming::Hub).into_iter();
        if !biases.any(|spec| spec.key.role.as_str() == "down_bias") {
            assert_eq!(silence.outputs, 0.0, "{name}");
        }
    }
}

/// Every place in a configuration whose value is a number, a flag, a string or a list.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        places(value, &path, found);
        found.push(path);
    }
}

#[test]
fn a_damaged_configuration_is_refused_or_read_without_a_panic_and_its_tensors_stay_countable() {
    let odd = [
        json!(0),
        json!(1),
        json!(-1),
        json!(257),
        json!(2880),
        json!(u64::MAX),
        json!(1e300),
        json!(1e-300),
        json!(0.3),
        json!("NaN"),
        json!(""),
        json!(true),
        json!([]),
        json!(["sliding_attention"]),
        json!({}),
        Value::Null,
    ];
    for name in FAMILIES {
        for file in ["config.json", "config.transformers5.json"] {
            let Ok(text) = fs::read_to_string(goldens(name).join(file)) else { continue };
            let config: Value = serde_json::from_str(&text).unwrap();
            let mut found = Vec::new();
            places(&config, "", &mut found);
            for path in found {
                for value in &odd {
                    let mut damaged = config.clone();
                    *damaged.pointer_mut(&path).unwrap() = value.clone();
                    let Ok(read) = Architecture::from_config(&damaged.to_string()) else {
                        continue;
                    };
                    // A description that was accepted can be asked for anything.
                    for spec in read.tensors(Naming::Hub) {
                        assert!(spec.shape.iter().all(|&size| size > 0), "{name} {path} {value}");
                        for Candidate { part, .. } in &spec.candidates {
                            let last = part.first + (spec.shape[0] - 1) * part.step;
                            assert!(last < part.total, "{name} {path} = {value}: {}", spec.key);
                        }
                    }
                    assert!(KvCache::new(&read, 1000).bytes_max() > 0);
                }
            }
        }
    }
}

#[test]
fn every_required_tensor_has_a_name_in_both_namings() {
    for name in FAMILIES {
        let architecture = architecture(&goldens(name));
        for naming in [Naming::Hub, Naming::Gguf] {
            for spec in architecture.tensors(naming) {
                assert!(!spec.candidates.is_empty(), "{name}: {} in {naming:?}", spec.key);
            }
        }
    }
}
