//! Edits found on a model: gradients along the stream, pushes, and the features made of them.

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::{Editor, Enough, Examples, Moments, Selector, compose};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, DenseFfn, FeatureRows, KvCache, OverlayBuilder,
    Precision, Role, WeightKey,
};

use crate::goldens::{golden, tokens};

const FAMILIES: [&str; 6] = ["gemma3", "gemma2", "llama3", "gpt2", "mixtral", "deepseek_v3"];
/// Those whose networks' outputs are not normed: in a small model of random weights the others bound
/// what two layers can add.
const UNBOUNDED: [&str; 4] = ["llama3", "gpt2", "mixtral", "deepseek_v3"];

fn unembedding(architecture: &Architecture) -> WeightKey {
    WeightKey::model(match architecture.tied_embeddings {
        true => Role::Embedding,
        false => Role::Unembedding,
    })
}

#[test]
fn the_gradient_of_a_token_is_what_a_small_step_shows() {
    for name in FAMILIES {
        let golden = golden(name);
        let pool = Pool::new(2);
        let cancel = Cancel::new();
        let options = DecoderOptions { precision: Precision::Exact, ffn: &DenseFfn };
        let mut decoder =
            Decoder::new(&golden.architecture, &golden.weights, &pool, options).unwrap();
        let ids = tokens(&golden.expected["prompts"][1]["input_ids"]);
        let mut cache = KvCache::new(&golden.architecture, ids.len());
        decoder.prefill(&ids, &mut cache, None, &cancel).unwrap();
        let (stream, logits) = (decoder.residual().to_vec(), decoder.logits().to_vec());
        let gradient = &decoder.token_gradients(&stream, &logits, &[7], &cancel).unwrap()[0];
        // A step of the stream itself, through the final norm and the unembedding.
        let length = gradient.by_stream.iter().map(|x| x * x).sum::<f32>().sqrt();
        let size = stream.iter().map(|x| x * x).sum::<f32>().sqrt();
        let step = 1e-2 * size;
        let moved: Vec<f32> =
            stream.iter().zip(&gradient.by_stream).map(|(x, by)| x + step * by / length).collect();
        let readout = decoder.final_norm_of(&moved);
        let log_probability = |normed: &[f32]| {
            let rows = golden.weights.numbers(unembedding(&golden.architecture)).unwrap();
            let scores: Vec<f64> = rows
                .chunks_exact(normed.len())
                .map(|row| row.iter().zip(normed).map(|(a, &b)| a * f64::from(b)).sum::<f64>())
                .map(|score| score * f64::from(golden.architecture.logits_scale))
                .map(|score| match golden.architecture.final_softcap.map(f64::from) {
                    Some(cap) => cap * (score / cap).tanh(),
                    None => score,
                })
                .collect();
            let sum: f64 = scores.iter().map(|score| score.exp()).sum();
            scores[7] - sum.ln()
        };
        let before = log_probability(decoder.final_norm());
        assert!((before - gradient.log_probability).abs() < 1e-3, "{name}");
        let gained = log_probability(&readout) - before;
        let expected = f64::from(step * length);
        assert!((gained / expected - 1.0).abs() < 0.2, "{name}: {gained} {expected}");
    }
}

#[test]
fn a_composed_fact_follows_its_prompts_and_leaves_most_others_whatever_the_network() {
    for name in UNBOUNDED {
        let golden = golden(name);
        let (architecture, weights) = (&golden.architecture, &golden.weights);
        let (pool, cancel) = (Pool::new(2), Cancel::new());
        let vocabulary = architecture.vocabulary_size as u32;
        let token = |seed: u32| (seed * 97 + 11) % vocabulary;
        let prompt = |seed: u32| -> Vec<u32> { (0..6).map(|at| token(seed * 13 + at)).collect() };
        let all: Vec<Vec<u32>> = (0..40).map(prompt).collect();
        let prompts: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
        let (asked, others) = prompts.split_at(2);
        let layers = [architecture.layers() - 2, architecture.layers() - 1];
        let mut editor = Editor::new(architecture, weights, &pool, None, &cancel).unwrap();
        let before = editor.next_tokens(&prompts).unwrap();
        let target = (before[0] + 1) % vocabulary;
        let values = editor.values(asked, target, &layers, Enough::OF_FEATURES).unwrap();
        assert!(values.probability > 0.5, "{name}: {}", values.probability);
        let captured = editor.capture(&prompts, &layers, false, false).unwrap();
        let mut builder = OverlayBuilder::new(architecture, weights);
        for (place, &layer) in layers.iter().enumerate() {
            let inputs: Vec<&[f32]> =
                captured.iter().map(|rows| rows[0].inputs[place].as_slice()).collect();
            let mut moments = Moments::new(architecture.hidden_size);
            inputs[2..].iter().for_each(|input| moments.add(input, 1.0));
            let pushed: Vec<&[f32]> = values.inputs[place].iter().map(Vec::as_slice).collect();
            let fact = inputs.iter().zip(pushed).map(|(&input, pushed)| vec![input, pushed]);
            let relations = inputs[2..].iter().map(|&input| vec![input]).collect();
            let examples = Examples { fact: fact.collect(), relations, ..Examples::default() };
            let selector = Selector::solve(layer, &moments, &examples).unwrap();
            let made = compose(layer, &selector, &values.pushes[place], 0.2);
            for (at, made) in made.iter().enumerate() {
                let rows = FeatureRows {
                    gate: Some(&made.gate),
                    up: Some(&made.up),
                    down: Some(&made.down),
                };
                builder.set_feature(layer, architecture.features(layer) + at, rows).unwrap();
            }
        }
        editor.set_overlay(Some(Arc::new(builder.build().unwrap())));
        let after = editor.next_tokens(&prompts).unwrap();
        assert_eq!(after[..2], [target, target], "{name}");
        let kept = after[2..].iter().zip(&before[2..]).filter(|(a, b)| a == b).count();
        // A model of random weights tells its prompts apart less clearly than one that was trained.
        assert!(kept * 2 >= others.len(), "{name}: {kept} of {} are kept", others.len());
    }
}
