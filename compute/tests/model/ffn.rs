//! The sparse walk against the dense network and against its definition.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, Ffn, Hook, KvCache, Precision, Role, WalkFfn,
};
use larql_compute::quant::Dtype;
use serde_json::json;

use crate::architecture::{gemma3, llama, read, with};
use crate::checkpoint::Checkpoint;
use crate::decoder::prompt;
use crate::reference::{self, Changes, distance};

#[test]
fn a_walk_of_all_features_is_dense_and_one_of_some_is_its_definition() {
    let pool = Pool::new(2);
    let biased = with(llama(), "mlp_bias", json!(true));
    for config in [llama(), gemma3(), biased] {
        let architecture = read(&config);
        for transposed in [None, Some(Role::Down), Some(Role::Up)] {
            let mut weights = Checkpoint::random(&architecture, Dtype::F32, 21);
            if let Some(role) = transposed {
                weights = weights.transposed(role);
            }
            let tokens = prompt(9, 50);
            let run = |ffn: &dyn Ffn| {
                let options = DecoderOptions { precision: Precision::Exact, ffn };
                let mut decoder = Decoder::new(&architecture, &weights, &pool, options).unwrap();
                let mut cache = KvCache::new(&architecture, 9);
                decoder.prefill(&tokens, &mut cache, None, &Cancel::new()).unwrap();
                (decoder.logits().to_vec(), decoder.bytes_touched())
            };
            let (dense, _) = run(&DenseFfn);
            let largest = dense.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
            let dense: Vec<f64> = dense.into_iter().map(f64::from).collect();
            for k in [None, Some(40), Some(1000)] {
                let distance = distance(&run(&WalkFfn { k }).0, &dense);
                assert!(distance <= 1e-4 * f64::from(largest), "{k:?}: {distance:e}");
            }
            let mut bytes = Vec::new();
            for k in [0, 1, 7, 39] {
                let changes = Changes { k: Some(k), ..Changes::default() };
                let expected = reference::logits(&architecture, &weights, &tokens, changes);
                let (found, touched) = run(&WalkFfn { k: Some(k) });
                assert!(distance(&found, &expected) < 5e-5, "{k}");
                assert!(distance(&found, &dense) > 1e-4, "{k} features make no difference");
                bytes.push(touched);
            }
            if transposed == Some(Role::Down) {
                // One feature more is one row of up and one of down, at each position and layer.
                let rows = (9 * architecture.layers() * 2 * 24 * 4) as u64;
                assert_eq!(bytes[1] - bytes[0], rows);
                assert_eq!(bytes[3] - bytes[2], 32 * rows);
            }
        }
    }
}

#[test]
fn activations_of_a_walk_are_zero_but_for_the_chosen() {
    struct Count(Vec<usize>);
    impl Hook for Count {
        fn activations(&mut self, _layer: usize, position: usize, activations: &mut [f32]) {
            assert_eq!(position, self.0.len() % 3);
            self.0.push(activations.iter().filter(|activation| **activation != 0.0).count());
        }
    }
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 2);
    let pool = Pool::new(1);
    for (ffn, expected) in [(&WalkFfn { k: Some(6) } as &dyn Ffn, 6), (&DenseFfn, 40)] {
        let options = DecoderOptions { precision: Precision::Exact, ffn };
        let mut decoder = Decoder::new(&architecture, &weights, &pool, options).unwrap();
        let mut cache = KvCache::new(&architecture, 3);
        let mut count = Count(Vec::new());
        decoder.prefill(&[1, 2, 3], &mut cache, Some(&mut count), &Cancel::new()).unwrap();
        assert_eq!(count.0, [expected; 6]);
    }
}
