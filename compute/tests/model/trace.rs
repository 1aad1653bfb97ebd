//! What layers add to a logit: on every golden family the parts make up the whole.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    CaptureTrace, Decoder, DecoderOptions, DenseFfn, Hook, KvCache, KvPages, KvType, Precision,
};
use larql_compute::sample::{rank_and_probability, softmax_top_k};

use crate::goldens::{FAMILIES, golden, tokens};

/// The parts of a logit differ from it by rounding: of the stream, which is summed in `f32` layer by
/// layer, and of the product with the unembedding. Both go with the parts' sizes, not with the sum's.
const EXACT: f64 = 4e-6;
/// With activations rounded to 8 bits before the unembedding, as serving does where it is quantised.
const SERVING: f64 = 2e-2;

#[test]
fn embedding_and_layers_add_up_to_the_logit_before_its_cap_on_every_family() {
    let pool = Pool::new(2);
    for name in FAMILIES {
        let golden = golden(name);
        let architecture = &golden.architecture;
        let hidden = architecture.hidden_size;
        for (precision, bound) in [(Precision::Exact, EXACT), (Precision::Serving, SERVING)] {
            let options = DecoderOptions { precision, ffn: &DenseFfn };
            for prompt in golden.expected["prompts"].as_array().unwrap() {
                let ids = tokens(&prompt["input_ids"]);
                let mut decoder =
                    Decoder::new(architecture, &golden.weights, &pool, options).unwrap();
                let mut cache = KvCache::new(architecture, ids.len());
                let mut trace = CaptureTrace::new();
                decoder.prefill(&ids, &mut cache, Some(&mut trace), &Cancel::new()).unwrap();
                let logits = decoder.logits().to_vec();
                assert_eq!((trace.position_first(), trace.count()), (0, ids.len()));
                let last = |rows: &[f32]| rows[rows.len() - hidden..].to_vec();
                let scalars: Vec<f64> = decoder.layer_scalars().map(f64::from).collect();
                let best = softmax_top_k(&logits, 3);
                for (token, logit, _) in best.into_iter().chain([(7, logits[7], 0.0)]) {
                    let readout = decoder.token_readout(token).unwrap();
                    let factor = readout.factor(decoder.residual());
                    // What is in the stream before a layer leaves it times the layer's scalar.
                    let mut parts = vec![readout.part(&last(trace.input()), factor)];
                    for (layer, scalar) in trace.layers().iter().zip(&scalars) {
                        parts.push(readout.part(&last(&layer.attention), factor));
                        parts.push(readout.part(&last(&layer.network), factor));
                        parts.iter_mut().for_each(|part| *part *= scalar);
                    }
                    let found: f64 = parts.iter().sum::<f64>() + readout.constant();
                    let size: f64 =
                        parts.iter().map(|part| part.abs()).sum::<f64>() + f64::from(logit).abs();
                    let found = match architecture.final_softcap {
                        Some(cap) => f64::from(cap) * (found / f64::from(cap)).tanh(),
                        None => found,
                    };
                    let error = (found - f64::from(logit)).abs() / size.max(1.0);
                    assert!(
                        error <= bound,
                        "{name} {} {precision:?} token {token}: {found} and {logit}, {error:e}",
                        prompt["name"]
                    );
                }
            }
        }
    }
}

#[test]
fn the_last_layers_stream_reads_out_as_the_logits_of_the_run() {
    let pool = Pool::new(2);
    for name in FAMILIES {
        let golden = golden(name);
        let architecture = &golden.architecture;
        for precision in [Precision::Exact, Precision::Serving] {
            let options = DecoderOptions { precision, ffn: &DenseFfn };
            let ids = tokens(&golden.expected["prompts"][0]["input_ids"]);
            let mut decoder = Decoder::new(architecture, &golden.weights, &pool, options).unwrap();
            let mut cache = KvCache::new(architecture, ids.len());
            let mut trace = CaptureTrace::new();
            let mut expected = Vec::new();
            decoder
                .prefill_all_logits(
                    &ids,
                    &mut cache,
                    Some(&mut trace),
                    &Cancel::new(),
                    &mut |_, logits| expected.push(logits.to_vec()),
                )
                .unwrap();
            let mut found = Vec::new();
            let residual = &trace.layers().last().unwrap().residual;
            decoder
                .read_out(residual, &Cancel::new(), &mut |index, logits| {
                    assert_eq!(index, found.len());
                    found.push(logits.to_vec());
                })
                .unwrap();
            assert_eq!(found, expected, "{name} {precision:?}");
        }
    }
}

#[test]
fn rank_and_probability_of_a_token_are_those_of_the_list_of_the_best() {
    let logits = [0.5, f32::NAN, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
    for (place, (token, _, probability)) in softmax_top_k(&logits, 4).into_iter().enumerate() {
        assert_eq!(rank_and_probability(&logits, token), (place + 1, probability));
    }
}

/// Keeps every layer's attention weights of one position.
struct Weights {
    position: usize,
    layers: Vec<Vec<f32>>,
}

impl Hook for Weights {
    fn wants_attention_weights(&self, _layer: usize, position: usize) -> bool {
        position == self.position
    }

    fn attention_weights(&mut self, layer: usize, position: usize, weights: &[f32]) {
        assert_eq!((layer, position), (self.layers.len(), self.position));
        self.layers.push(weights.to_vec());
    }
}

#[test]
fn attention_weights_are_those_of_the_heads_from_rows_and_from_pages() {
    let pool = Pool::new(2);
    for name in FAMILIES {
        let golden = golden(name);
        let architecture = &golden.architecture;
        let ids = tokens(&golden.expected["prompts"][1]["input_ids"]);
        let seen = |cache: &mut KvCache| {
            let options = DecoderOptions { precision: Precision::Exact, ffn: &DenseFfn };
            let mut decoder = Decoder::new(architecture, &golden.weights, &pool, options).unwrap();
            let mut hook = Weights { position: ids.len() - 1, layers: Vec::new() };
            decoder.prefill(&ids, cache, Some(&mut hook), &Cancel::new()).unwrap();
            (hook.layers, decoder.logits().to_vec())
        };
        let pages = KvPages::for_positions(architecture, KvType::default(), ids.len());
        let (rows, logits) = seen(&mut KvCache::new(architecture, ids.len()));
        let (paged, _) = seen(&mut pages.cache(ids.len()));
        let mut plain = KvCache::new(architecture, ids.len());
        let mut decoder =
            Decoder::new(architecture, &golden.weights, &pool, DecoderOptions::default()).unwrap();
        decoder.prefill(&ids, &mut plain, None, &Cancel::new()).unwrap();
        assert_eq!(decoder.logits(), logits, "{name}: looking changes nothing");
        assert_eq!(rows.len(), architecture.layers(), "{name}");
        for (layer, (rows, paged)) in rows.iter().zip(&paged).enumerate() {
            let attention = &architecture.layer(layer).attention;
            assert_eq!(rows.len(), attention.heads * ids.len(), "{name}");
            let oldest = attention.window.map_or(0, |window| ids.len().saturating_sub(window));
            for head in rows.chunks_exact(ids.len()) {
                let sum: f32 = head.iter().sum();
                let whole = if attention.sinks { 0.0..=1.0001 } else { 0.9999..=1.0001 };
                assert!(whole.contains(&sum), "{name} layer {layer}: {sum}");
                assert!(head[..oldest].iter().all(|&weight| weight == 0.0), "{name}");
            }
            for (row, page) in rows.iter().zip(paged) {
                // Pages hold keys of 11 bits. From the second layer on the runs themselves are apart.
                let close = layer > 0 || (row - page).abs() < 5e-3;
                assert!(close, "{name} layer {layer}: {row} and {page}");
            }
        }
    }
}
