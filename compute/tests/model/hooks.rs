//! Hooks: what they see, what they change, and that seeing alone changes nothing.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    CaptureResiduals, Compose, Decoder, DecoderOptions, Hook, KvCache, ZeroFfn,
};
use larql_compute::quant::Dtype;

use crate::architecture::{gemma3, llama, read};
use crate::checkpoint::Checkpoint;
use crate::decoder::prompt;
use crate::reference::{self, Changes, distance};

fn logits(config: &serde_json::Value, count: usize, hook: Option<&mut dyn Hook>) -> Vec<f32> {
    let architecture = read(config);
    let weights = Checkpoint::random(&architecture, Dtype::F32, 4);
    let pool = Pool::new(2);
    let mut decoder =
        Decoder::new(&architecture, &weights, &pool, DecoderOptions::default()).unwrap();
    let mut cache = KvCache::new(&architecture, count);
    decoder.prefill(&prompt(count, 50), &mut cache, hook, &Cancel::new()).unwrap();
    decoder.logits().to_vec()
}

#[test]
fn a_layer_whose_network_is_zeroed_gives_the_logits_of_a_model_without_it() {
    for config in [llama(), gemma3()] {
        let architecture = read(&config);
        let weights = Checkpoint::random(&architecture, Dtype::F32, 4);
        let unchanged = logits(&config, 9, None);
        for layer in 0..architecture.layers() {
            let changes = Changes { zero_ffn: Some(layer), ..Changes::default() };
            let expected = reference::logits(&architecture, &weights, &prompt(9, 50), changes);
            let found = logits(&config, 9, Some(&mut ZeroFfn::new([layer])));
            assert!(distance(&found, &expected) < 5e-5, "layer {layer}");
            assert_ne!(found, unchanged);
        }
    }
}

#[test]
fn hooks_that_only_look_change_nothing_and_see_all_in_order() {
    #[derive(Default)]
    struct Log(Vec<(&'static str, usize, usize)>);
    impl Hook for Log {
        fn begin(&mut self, position_first: usize, count: usize) {
            self.0.push(("begin", position_first, count));
        }
        fn pre_layer(&mut self, layer: usize, residual: &mut [f32]) {
            self.0.push(("pre_layer", layer, residual.len()));
        }
        fn attention_out(&mut self, layer: usize, output: &mut [f32]) {
            self.0.push(("attention_out", layer, output.len()));
        }
        fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
            self.0.push(("ffn_in", layer, input.len()));
        }
        fn activations(&mut self, layer: usize, position: usize, _activations: &mut [f32]) {
            self.0.push(("activations", layer, position));
        }
        fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
            self.0.push(("ffn_out", layer, output.len()));
        }
        fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
            self.0.push(("post_layer", layer, residual.len()));
        }
    }
    let mut log = Log::default();
    assert_eq!(logits(&llama(), 2, Some(&mut log)), logits(&llama(), 2, None));
    let layer = |layer| {
        [
            ("pre_layer", layer, 48),
            ("attention_out", layer, 48),
            ("ffn_in", layer, 48),
            ("activations", layer, 0),
            ("activations", layer, 1),
            ("ffn_out", layer, 48),
            ("post_layer", layer, 48),
        ]
    };
    let expected: Vec<_> = [("begin", 0, 2)].into_iter().chain(layer(0)).chain(layer(1)).collect();
    assert_eq!(log.0, expected);
    // Positions beyond a block are announced.
    let mut log = Log::default();
    logits(&llama(), 300, Some(&mut log));
    let begins: Vec<_> = log.0.iter().filter(|event| event.0 == "begin").collect();
    assert_eq!(begins, [&("begin", 0, 256), &("begin", 256, 44)]);
}

#[test]
fn composed_hooks_see_what_those_before_them_wrote() {
    struct Shift(f32);
    impl Hook for Shift {
        fn post_layer(&mut self, _layer: usize, residual: &mut [f32]) {
            residual.iter_mut().for_each(|number| *number += self.0);
        }
    }
    let (mut shift, mut back) = (Shift(0.5), Shift(-0.5));
    let (mut plain, mut shifted) = (CaptureResiduals::new(), CaptureResiduals::new());
    logits(&llama(), 5, Some(&mut plain));
    let mut compose = Compose::new(vec![&mut shift, &mut shifted, &mut back]);
    logits(&llama(), 5, Some(&mut compose));
    for (plain, shifted) in plain.layers()[0].iter().zip(&shifted.layers()[0]) {
        assert!((plain + 0.5 - shifted).abs() < 1e-6);
    }
    assert_eq!(plain.input(), shifted.input());
    assert_eq!(plain.layers().len(), 2);
}
