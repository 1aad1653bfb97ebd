//! What layers add to a logit: on every golden family the parts make up the whole.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{CaptureTrace, Decoder, DecoderOptions, DenseFfn, KvCache, Precision};
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
