//! Prompts that cross every tile and window, and options other than the goldens': `long.json`
//! beside each golden, made by `tests/goldens/make_long.py` with the reference implementation.

use std::fs;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, KvCache, KvPages, KvType, Precision,
};
use larql_compute::sample::greedy;
use serde_json::Value;

use crate::checkpoint::{Checkpoint, goldens};
use crate::goldens::{FAMILIES, numbers, tokens};
use crate::reference::distance;

/// One family's weights, and what the reference made of them under changed configurations.
struct Long {
    config: Value,
    weights: Checkpoint,
    expected: Value,
}

impl Long {
    fn open(name: &str) -> Long {
        let folder = goldens(name);
        let json = |file| -> Value {
            serde_json::from_str(&fs::read_to_string(folder.join(file)).unwrap()).unwrap()
        };
        let (config, expected) = (json("config.json"), json("long.json"));
        let weights = Checkpoint::open(&folder, &read(&config));
        Long { config, weights, expected }
    }

    /// The configuration with the changes of all runs, and those of one option.
    fn changed(&self, option: &Value) -> Architecture {
        let mut config = self.config.clone();
        let changes =
            [&self.expected["config"], option].map(|changes| changes.as_object().unwrap());
        for (path, value) in changes.into_iter().flatten() {
            let place = path.split('.').fold(&mut config, |level, key| &mut level[key]);
            *place = value.clone();
        }
        read(&config)
    }

    fn tokens(&self, count: Option<u64>) -> Vec<u32> {
        let mut tokens = tokens(&self.expected["input_ids"]);
        tokens.truncate(count.map_or(usize::MAX, |count| count as usize));
        tokens
    }
}

fn read(config: &Value) -> Architecture {
    Architecture::from_config(&config.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

fn bound(expected: &Value) -> f64 {
    (0.1 * expected["stability"].as_f64().unwrap()).max(3e-4)
}

#[test]
fn prompts_beyond_every_tile_and_window_are_those_of_the_reference() {
    let pool = Pool::new(2);
    for name in FAMILIES {
        let long = Long::open(name);
        let architecture = long.changed(&Value::Object(Default::default()));
        let kinds =
            [(Precision::Exact, false), (Precision::Serving, false), (Precision::Serving, true)];
        for (precision, paged) in kinds {
            let options = DecoderOptions { precision, ..DecoderOptions::default() };
            let mut decoder = Decoder::new(&architecture, &long.weights, &pool, options).unwrap();
            let ids = long.tokens(None);
            let mut cache = match paged {
                true => {
                    KvPages::for_positions(&architecture, KvType::F16, ids.len()).cache(ids.len())
                }
                false => KvCache::new(&architecture, usize::MAX),
            };
            let mut best = Vec::new();
            let mut each = |_: usize, logits: &[f32]| best.push(greedy(logits).unwrap());
            decoder.prefill_all_logits(&ids, &mut cache, None, &Cancel::new(), &mut each).unwrap();
            let expected = numbers(&long.expected["last_logits"]);
            let distance = distance(decoder.logits(), &expected);
            if paged {
                // Keys and values are rounded to 11 bits.
                let size = expected.iter().fold(0.0, |size: f64, logit| size.max(logit.abs()));
                assert!(distance <= 2e-2 * size, "{name} paged: {distance:e} of {size}");
                continue;
            }
            let bound = bound(&long.expected);
            assert!(distance <= bound, "{name} {precision:?}: {distance:e} > {bound:e}");
            let expected = long.expected["argmax_all_positions"].as_array().unwrap();
            for (position, (found, expected)) in best.iter().zip(expected).enumerate() {
                if let Some(expected) = expected.as_u64() {
                    assert_eq!(u64::from(*found), expected, "{name} {precision:?} at {position}");
                }
            }
        }
    }
}

#[test]
fn every_option_is_honoured_as_the_reference_does() {
    let pool = Pool::new(2);
    for name in FAMILIES {
        let long = Long::open(name);
        for option in long.expected["options"].as_array().unwrap() {
            let about = format!("{name} with {}", option["config"]);
            let architecture = long.changed(&option["config"]);
            let mut decoder =
                Decoder::new(&architecture, &long.weights, &pool, DecoderOptions::default())
                    .unwrap();
            let mut cache = KvCache::new(&architecture, usize::MAX);
            let ids = long.tokens(option["tokens"].as_u64());
            decoder.prefill(&ids, &mut cache, None, &Cancel::new()).unwrap();
            let step = option["step"].as_u64().unwrap() as usize;
            let found: Vec<f32> = decoder.logits().iter().copied().step_by(step).collect();
            let distance = distance(&found, &numbers(&option["logits"]));
            assert!(distance <= bound(option), "{about}: {distance:e} > {:e}", bound(option));
        }
    }
}
