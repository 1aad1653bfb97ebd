//! The forward pass from its definition: `f64`, loops, no cache, one position after another.
//!
//! Written from the papers and from what the configuration's keys mean, not from the decoder.

use larql_compute::kernels::Activation;
use larql_compute::model::{Architecture, QueryKeyNorm, Role, RopeScaling, WeightKey};

use crate::checkpoint::Checkpoint;

/// What to change about the feed-forward networks.
#[derive(Default, Clone, Copy)]
pub struct Changes {
    /// The layer whose network adds nothing.
    pub zero_ffn: Option<usize>,
    /// Features kept at each position, by magnitude of the gate score.
    pub k: Option<usize>,
}

/// Logits of the last position.
pub fn logits(
    architecture: &Architecture,
    weights: &Checkpoint,
    tokens: &[u32],
    changes: Changes,
) -> Vec<f64> {
    let d = architecture.hidden_size;
    let w = |key| weights.numbers(key).unwrap();
    let embedding = w(WeightKey::model(Role::Embedding));
    let mut stream: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&token| {
            let row = &embedding[token as usize * d..][..d];
            row.iter().map(|number| number * f64::from(architecture.embed_scale)).collect()
        })
        .collect();
    for layer in 0..architecture.layers() {
        let description = architecture.layer(layer);
        let attention = &description.attention;
        let (l, dim) = (|role| WeightKey::layer(role, layer), attention.head_dim);
        let norm = |x: &[f64], role| norm(architecture, x, &w(l(role)));
        let bias = |role| weights.numbers(l(role));
        let (wq, wk, wv) = (w(l(Role::Query)), w(l(Role::Key)), w(l(Role::Value)));
        let project = |role: Role, weight: &[f64]| -> Vec<Vec<f64>> {
            let rows = stream.iter().map(|x| times(weight, &norm(x, Role::AttentionNorm)));
            let bias = bias(role);
            rows.map(|row| plus(row, bias.as_deref())).collect()
        };
        let mut q = project(Role::QueryBias, &wq);
        let mut k = project(Role::KeyBias, &wk);
        let v = project(Role::ValueBias, &wv);
        for (rows, role) in [(&mut q, Role::QueryNorm), (&mut k, Role::KeyNorm)] {
            for (position, row) in rows.iter_mut().enumerate() {
                for head in row.chunks_mut(dim) {
                    if attention.query_key_norm == QueryKeyNorm::Head {
                        head.copy_from_slice(&norm(head, role));
                    }
                    let rope = attention.rope.as_ref().unwrap();
                    let turned = turned(head, position, rope.base, &rope.scaling);
                    head.copy_from_slice(&turned);
                }
            }
        }
        let output = w(l(Role::Output));
        for position in 0..tokens.len() {
            let mut heads = Vec::new();
            for head in 0..attention.heads {
                let kv = head * attention.kv_heads / attention.heads * dim;
                let seen: Vec<usize> = (0..=position)
                    .filter(|j| attention.window.is_none_or(|window| position - j < window))
                    .collect();
                let scores = seen.iter().map(|&j| {
                    let query = &q[position][head * dim..][..dim];
                    let score: f64 = query.iter().zip(&k[j][kv..]).map(|(a, b)| a * b).sum();
                    let score = score * f64::from(attention.scale);
                    attention
                        .softcap
                        .map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                });
                let weights: Vec<f64> = scores.map(f64::exp).collect();
                let total: f64 = weights.iter().sum();
                heads.extend((0..dim).map(|i| {
                    seen.iter().zip(&weights).map(|(&j, weight)| weight * v[j][kv + i]).sum::<f64>()
                        / total
                }));
            }
            let mut out = plus(times(&output, &heads), bias(Role::OutputBias).as_deref());
            if description.post_norms {
                out = norm(&out, Role::PostAttentionNorm);
            }
            stream[position].iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
        if changes.zero_ffn == Some(layer) {
            continue;
        }
        let (gate, up, down) = (w(l(Role::Gate)), w(l(Role::Up)), w(l(Role::Down)));
        for x in &mut stream {
            let input = norm(x, Role::FfnNorm);
            let scores = plus(times(&gate, &input), bias(Role::GateBias).as_deref());
            let ups = plus(times(&up, &input), bias(Role::UpBias).as_deref());
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()));
            let mut activations = vec![0.0; scores.len()];
            for &f in order.iter().take(changes.k.unwrap_or(usize::MAX)) {
                activations[f] = activated(architecture.activation, scores[f]) * ups[f];
            }
            let mut out = plus(times(&down, &activations), bias(Role::DownBias).as_deref());
            if description.post_norms {
                out = norm(&out, Role::PostFfnNorm);
            }
            x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
    }
    let last = norm(architecture, stream.last().unwrap(), &w(WeightKey::model(Role::FinalNorm)));
    let unembedding = match architecture.tied_embeddings {
        true => embedding,
        false => w(WeightKey::model(Role::Unembedding)),
    };
    let cap = architecture.final_softcap.map(f64::from);
    let logits = times(&unembedding, &last).into_iter();
    logits.map(|logit| cap.map_or(logit, |cap| cap * (logit / cap).tanh())).collect()
}

fn norm(architecture: &Architecture, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let factor = 1.0 / (mean + f64::from(architecture.norm.epsilon)).sqrt();
    let offset = f64::from(architecture.norm.offset);
    x.iter().zip(weight).map(|(x, weight)| x * factor * (weight + offset)).collect()
}

fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn plus(row: Vec<f64>, bias: Option<&[f64]>) -> Vec<f64> {
    match bias {
        Some(bias) => row.iter().zip(bias).map(|(a, b)| a + b).collect(),
        None => row,
    }
}

fn turned(head: &[f64], position: usize, base: f64, scaling: &RopeScaling) -> Vec<f64> {
    let half = head.len() / 2;
    let mut out = head.to_vec();
    for i in 0..half {
        let frequency = base.powf(-2.0 * i as f64 / head.len() as f64);
        let frequency = match *scaling {
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                context_original,
            } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength > context_original / low_frequency_factor {
                    frequency / factor
                } else if wavelength < context_original / high_frequency_factor {
                    frequency
                } else {
                    let smooth = (context_original / wavelength - low_frequency_factor)
                        / (high_frequency_factor - low_frequency_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
            _ => frequency,
        };
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        out[i] = head[i] * cos - head[i + half] * sin;
        out[i + half] = head[i + half] * cos + head[i] * sin;
    }
    out
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        other => f64::from(other.apply(x as f32)),
    }
}

/// The largest distance between two rows of logits.
pub fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let distances = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    distances.fold(
        0.0,
        |worst, distance| if distance > worst || distance.is_nan() { distance } else { worst },
    )
}
