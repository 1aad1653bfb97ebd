//! An oracle for browse statements on the bundled model, from the definitions of the language: it
//! reads the checkpoint by other crates, computes in f64, and shares no code with the daemon.
//!
//! Definitions (docs/lql/semantics.md): the entity vector is the mean of the scaled embeddings of the
//! entity's tokens, tokenised without special tokens; a gate score is its dot product with a gate
//! row; the best K of a layer are those of the largest magnitude; z is measured against all gates of
//! the layer over 1,000 evenly spaced tokens; a feature's output tokens are the ten largest products
//! of its down vector with the unembedding, those without text left out.

use std::collections::HashMap;

use tokenizers::Tokenizer;

use crate::atlas_checkpoint;
use crate::checkpoint::{Tensor, dot, read};

/// Hits that DESCRIBE takes of each layer before its threshold.
pub const HITS_PER_LAYER: usize = 20;
/// The default threshold in standard deviations.
pub const Z_MIN: f64 = 4.0;

/// The bundled model as the oracle sees it.
pub struct Oracle {
    tokenizer: Tokenizer,
    embeddings: Tensor,
    gates: Vec<Tensor>,
    /// Mean and deviation of gate scores, by layer.
    statistics: Vec<(f64, f64)>,
    /// Output tokens with text, best first, by layer and feature.
    tokens: Vec<Vec<Vec<(u32, f64)>>>,
    words: Vec<String>,
}

/// A gate hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The layer.
    pub layer: usize,
    /// The feature.
    pub feature: usize,
    /// The signed score.
    pub score: f64,
    /// The score in standard deviations.
    pub z: f64,
}

/// A row of DESCRIBE.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The target.
    pub target: String,
    /// The strongest hit.
    pub best: Hit,
    /// The first layer that shows it.
    pub layer_min: usize,
    /// The last layer that shows it.
    pub layer_max: usize,
    /// Hits.
    pub count: usize,
    /// Further words of the strongest hit.
    pub also: Vec<String>,
}

const LAYERS: usize = 6;
const EMBED_SCALE: f64 = 16.0;

impl Oracle {
    /// Reads the bundled checkpoint as an f16 vindex holds it.
    pub fn load() -> Self {
        let directory = atlas_checkpoint();
        let mut tensors = read(&directory);
        let mut take = |name: String| tensors.remove(&name).unwrap_or_else(|| panic!("{name}"));
        let embeddings = take("model.embed_tokens.weight".to_owned());
        let layer =
            |layer: usize, what: &str| format!("model.layers.{layer}.mlp.{what}_proj.weight");
        let gates: Vec<Tensor> = (0..LAYERS).map(|index| take(layer(index, "gate"))).collect();
        let downs: Vec<Tensor> =
            (0..LAYERS).map(|index| take(layer(index, "down")).transposed()).collect();
        let tokenizer =
            Tokenizer::from_file(directory.join("tokenizer.json")).expect("tokenizer.json");
        let words: Vec<String> = (0..embeddings.shape[0] as u32)
            .map(|id| tokenizer.decode(&[id], false).expect("a token").trim().to_owned())
            .collect();
        let statistics = gates.iter().map(|gates| statistics(gates, &embeddings)).collect();
        let tokens = downs.iter().map(|downs| output_tokens(downs, &embeddings, &words)).collect();
        let gates = gates.into_iter().map(Tensor::rounded_to_f16).collect();
        Self {
            tokenizer,
            embeddings: embeddings.rounded_to_f16(),
            gates,
            statistics,
            tokens,
            words,
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        LAYERS
    }

    /// Features of a layer.
    pub fn features(&self, layer: usize) -> usize {
        self.gates[layer].shape[0]
    }

    /// The vector of an entity.
    pub fn entity_vector(&self, entity: &str) -> Vec<f64> {
        let ids = self.tokenizer.encode(entity, false).expect("tokens").get_ids().to_vec();
        self.mean(&ids)
    }

    /// The vector of a prompt's last token.
    pub fn prompt_vector(&self, prompt: &str) -> Vec<f64> {
        let ids = self.tokenizer.encode(prompt, true).expect("tokens").get_ids().to_vec();
        self.mean(&ids[ids.len() - 1..])
    }

    fn mean(&self, ids: &[u32]) -> Vec<f64> {
        let mut sum = vec![0.0; self.embeddings.shape[1]];
        for &id in ids {
            for (sum, value) in sum.iter_mut().zip(self.embeddings.row(id as usize)) {
                *sum += EMBED_SCALE * value / ids.len() as f64;
            }
        }
        sum
    }

    /// The `k` hits of the largest magnitude in a layer, best first.
    pub fn hits(&self, layer: usize, vector: &[f64], k: usize) -> Vec<Hit> {
        let (mean, deviation) = self.statistics[layer];
        let mut hits: Vec<Hit> = (0..self.features(layer))
            .map(|feature| {
                let score = dot(self.gates[layer].row(feature), vector);
                Hit { layer, feature, score, z: (score - mean) / deviation }
            })
            .collect();
        hits.sort_by(|a, b| {
            b.score.abs().total_cmp(&a.score.abs()).then(a.feature.cmp(&b.feature))
        });
        hits.truncate(k);
        hits
    }

    /// The output words of a feature, best first.
    pub fn words(&self, layer: usize, feature: usize) -> Vec<&str> {
        self.tokens[layer][feature]
            .iter()
            .map(|(id, _)| self.words[*id as usize].as_str())
            .collect()
    }

    /// The logit of a feature's first output word.
    pub fn logit(&self, layer: usize, feature: usize) -> Option<f64> {
        self.tokens[layer][feature].first().map(|(_, logit)| *logit)
    }

    /// The rows of `DESCRIBE "entity"` at a threshold, strongest first.
    pub fn describe(&self, entity: &str, z_min: f64) -> Vec<Edge> {
        let vector = self.entity_vector(entity);
        let mut edges: HashMap<String, Edge> = HashMap::new();
        for layer in 0..LAYERS {
            for hit in self.hits(layer, &vector, HITS_PER_LAYER) {
                if hit.score <= 0.0 || hit.z < z_min {
                    continue;
                }
                let words = self.words(layer, hit.feature);
                let Some(&target) = words.first() else { continue };
                let folded = target.to_lowercase();
                if !content(target) || folded == entity.to_lowercase() {
                    continue;
                }
                let also = further_words(&words[1..], entity, target);
                let new = Edge {
                    target: target.to_owned(),
                    best: hit.clone(),
                    layer_min: layer,
                    layer_max: layer,
                    count: 1,
                    also,
                };
                match edges.get_mut(&folded) {
                    None => {
                        edges.insert(folded, new);
                    }
                    Some(edge) => {
                        edge.layer_max = layer;
                        edge.count += 1;
                        if hit.score > edge.best.score {
                            (edge.best, edge.target, edge.also) = (new.best, new.target, new.also);
                        }
                    }
                }
            }
        }
        let mut edges: Vec<Edge> = edges.into_values().collect();
        edges.sort_by(|a, b| b.best.score.total_cmp(&a.best.score));
        edges.truncate(30);
        edges
    }
}

fn further_words(words: &[&str], entity: &str, target: &str) -> Vec<String> {
    let mut further: Vec<String> = Vec::new();
    for word in words.iter().filter(|word| content(word)) {
        let folded = word.to_lowercase();
        let named = further.iter().any(|other| other.to_lowercase() == folded);
        if !named && folded != entity.to_lowercase() && folded != target.to_lowercase() {
            further.push((*word).to_owned());
        }
    }
    further.truncate(3);
    further
}

/// Printable, with a letter: what the bundled vocabulary needs of the definition.
fn content(word: &str) -> bool {
    word.chars().any(char::is_alphabetic)
        && !word.contains('\u{fffd}')
        && !word.chars().any(char::is_control)
}

fn statistics(gates: &Tensor, embeddings: &Tensor) -> (f64, f64) {
    let vocabulary = embeddings.shape[0];
    let samples = vocabulary.min(1000);
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for sample in 0..samples {
        let row = embeddings.row(sample * vocabulary / samples);
        for feature in 0..gates.shape[0] {
            let score = EMBED_SCALE * dot(row, gates.row(feature));
            sum += score;
            squares += score * score;
            count += 1.0;
        }
    }
    let mean: f64 = sum / count;
    (mean, (squares / count - mean * mean).sqrt())
}

fn output_tokens(downs: &Tensor, embeddings: &Tensor, words: &[String]) -> Vec<Vec<(u32, f64)>> {
    let best = |feature| {
        let mut logits: Vec<(u32, f64)> = (0..embeddings.shape[0])
            .map(|id| (id as u32, dot(embeddings.row(id), downs.row(feature))))
            .collect();
        logits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        logits.truncate(10);
        logits.retain(|(id, _)| !words[*id as usize].is_empty());
        logits
    };
    (0..downs.shape[0]).map(best).collect()
}
