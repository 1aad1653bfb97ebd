//! The sparse feed-forward operator against its definition, and hooks against hand-made arithmetic, on
//! the bundled model.

use std::collections::HashMap;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{CaptureResiduals, Compose, Hook, Precision, ZeroFfn};
use larql_planner::physical::plan::FfnPath;
use larql_storage::file::{DiskFiles, Files};
use larql_tests::atlas_checkpoint;
use larql_tests::checkpoint::{Tensor, dot, read};
use larqld::inference::{Run, ffn};
use larqld::mounts::Model;

const PROMPTS: [&str; 3] =
    ["The capital of France is", "The symbol for Helium is", "Japan borders"];
const EPSILON: f64 = 1e-6;

fn model() -> Model {
    let files: Arc<dyn Files> = DiskFiles::shared();
    Model::open(&files, &atlas_checkpoint(), &Cancel::new()).expect("the bundled model opens")
}

fn logits(
    model: &Model,
    pool: &Pool,
    path: FfnPath,
    prompt: &str,
    hook: Option<&mut dyn Hook>,
) -> Vec<f32> {
    let tokens = model.tokenizer().unwrap().encode(prompt, true).unwrap();
    let network = ffn(path);
    let mut run = Run::new(model, pool, &*network, Precision::Exact, tokens.len()).unwrap();
    run.prefill(&tokens, hook, &Cancel::new()).unwrap();
    run.logits().to_vec()
}

#[test]
fn a_walk_over_all_features_equals_the_dense_network() {
    let (model, pool) = (model(), Pool::new(2));
    for prompt in PROMPTS {
        let dense = logits(&model, &pool, FfnPath::Dense, prompt, None);
        for k in [None, Some(1024), Some(9999)] {
            let walk = logits(&model, &pool, FfnPath::Walk { k }, prompt, None);
            let largest = dense.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
            for (walk, dense) in walk.iter().zip(&dense) {
                assert!(
                    (walk - dense).abs() <= 1e-4 * largest,
                    "{prompt}, K = {k:?}: {walk} and {dense}"
                );
            }
        }
    }
}

/// What went into and came out of each feed-forward network.
#[derive(Default)]
struct Seen {
    input: HashMap<usize, Vec<f32>>,
    output: HashMap<usize, Vec<f32>>,
}

impl Hook for Seen {
    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        self.input.insert(layer, input.to_vec());
    }

    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        self.output.insert(layer, output.to_vec());
    }
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// The output of a layer's network over the `k` features of the largest |gate score|, then the norm
/// that Gemma puts behind it.
fn walk_by_definition(
    weights: &HashMap<String, Tensor>,
    layer: usize,
    k: usize,
    input: &[f64],
) -> Vec<f64> {
    let tensor = |name: &str| &weights[&format!("model.layers.{layer}.{name}.weight")];
    let (gate, up, down) =
        (tensor("mlp.gate_proj"), tensor("mlp.up_proj"), tensor("mlp.down_proj").transposed());
    let mut scores: Vec<(usize, f64)> =
        (0..gate.shape[0]).map(|feature| (feature, dot(gate.row(feature), input))).collect();
    scores.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    let mut out = vec![0.0; input.len()];
    for &(feature, score) in scores.iter().take(k) {
        let activation = gelu_tanh(score) * dot(up.row(feature), input);
        for (out, down) in out.iter_mut().zip(down.row(feature)) {
            *out += activation * down;
        }
    }
    let norm = tensor("post_feedforward_layernorm");
    let mean = out.iter().map(|value| value * value).sum::<f64>() / out.len() as f64;
    let scale = 1.0 / (mean + EPSILON).sqrt();
    out.iter().zip(&norm.values).map(|(value, weight)| value * scale * (1.0 + weight)).collect()
}

#[test]
fn a_walk_over_some_features_equals_its_definition() {
    let (model, pool) = (model(), Pool::new(2));
    let weights = read(&atlas_checkpoint());
    for (prompt, k) in PROMPTS.iter().zip([1, 16, 300]) {
        let mut seen = Seen::default();
        logits(&model, &pool, FfnPath::Walk { k: Some(k) }, prompt, Some(&mut seen));
        assert_eq!(seen.output.len(), 6);
        for (layer, output) in &seen.output {
            let inputs = seen.input[layer].chunks(256);
            for (position, (input, found)) in inputs.zip(output.chunks(256)).enumerate() {
                let input: Vec<f64> = input.iter().map(|&value| value.into()).collect();
                let expected = walk_by_definition(&weights, *layer, k as usize, &input);
                let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(
                        difference <= 1e-4 * largest.max(1.0),
                        "layer {layer}, position {position}, K = {k}: {difference:e}"
                    );
                }
            }
        }
    }
}

/// The last layer adds its network's output as the last thing before the final norm, so the logits
/// without it follow by hand from the stream that enters it.
#[test]
fn zeroing_the_last_network_gives_the_logits_recomputed_by_hand() {
    let (model, pool) = (model(), Pool::new(2));
    let weights = read(&atlas_checkpoint());
    for prompt in PROMPTS {
        let (mut residuals, mut seen) = (CaptureResiduals::new(), Seen::default());
        let mut both = Compose::new(vec![&mut residuals, &mut seen]);
        let whole = logits(&model, &pool, FfnPath::Dense, prompt, Some(&mut both));
        let mut zero = ZeroFfn::new([5]);
        let without = logits(&model, &pool, FfnPath::Dense, prompt, Some(&mut zero));
        assert_ne!(whole, without, "{prompt}");
        let added = &seen.output[&5][seen.output[&5].len() - 256..];
        let stream: Vec<f64> = residuals.layers()[5]
            .iter()
            .zip(added)
            .map(|(&after, &added)| f64::from(after) - f64::from(added))
            .collect();
        let mean = stream.iter().map(|value| value * value).sum::<f64>() / 256.0;
        let scale = 1.0 / (mean + EPSILON).sqrt();
        let norm = &weights["model.norm.weight"].values;
        let normed: Vec<f64> =
            stream.iter().zip(norm).map(|(value, weight)| value * scale * (1.0 + weight)).collect();
        let embeddings = &weights["model.embed_tokens.weight"];
        for (id, found) in without.iter().enumerate() {
            let expected = dot(embeddings.row(id), &normed);
            assert!(
                (f64::from(*found) - expected).abs() <= 3e-4,
                "{prompt}, token {id}: {found} and {expected}"
            );
        }
    }
}
