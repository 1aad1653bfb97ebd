//! What the weights alone write about an entity: sources `gate` and `residual`.
//!
//! Both let every feed-forward network read a vector that stands for the entity and add up what they
//! write. For `gate` each network reads the mean embedding of the name's tokens by itself, with
//! nothing of attention or of other layers; for `residual` it reads what it reads in a forward pass
//! on the bare name. The sum, less what is written about entities on average, is read through the
//! final norm and the unembedding; the words it favours become edges where the relations that the
//! entity can have and the kind of word agree.
//!
//! Elsewhere: the readouts (`compute::learn`), their fit (`pipeline::label::readings`).

use std::collections::HashMap;
use std::sync::Arc;

use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::learn::{LinearReadout, Logistic};
use larql_compute::model::LayerFeatures;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::prober::Prober;
use crate::failure::Failure;
use crate::text::{case_folded, is_content};

/// Signals of a reading's confidence, in the order of [`Candidate::signals`].
pub const READING_SIGNALS: usize = 5;
/// Words that are looked at.
const WORDS: usize = 24;
/// The least score of a relation for an entity, and for a kind of word, at which the two are joined.
const FIT_MIN: f32 = 0.1;
/// Edges that a source shows at most.
const EDGES_MAX: usize = 12;

/// What all networks write about an entity.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What each layer did.
    pub layers: Vec<LayerFeatures>,
    /// The sum of what they add to the stream, through the final norm: `[hidden]`.
    pub written: Vec<f32>,
    /// What the final norm multiplies each number with: `[hidden]`.
    pub scale: Vec<f32>,
}

impl Reading {
    /// Adds up what layers wrote.
    pub fn new(layers: Vec<LayerFeatures>, scale: Vec<f32>) -> Self {
        let mut written = vec![0.0; scale.len()];
        for layer in &layers {
            written.iter_mut().zip(&layer.output).for_each(|(sum, x)| *sum += x);
        }
        written.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        Self { layers, written, scale }
    }
}

/// A word that may be the object of a relation.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The word's token.
    pub token: u32,
    /// The word.
    pub word: Arc<str>,
    /// The relation's index.
    pub relation: usize,
    /// Standard score among all words, its lead over the next one, place, fit of the entity, fit of
    /// the word.
    pub signals: [f64; READING_SIGNALS],
}

/// The kind of word that objects of each relation are: a readout of unembedding rows.
pub type ObjectKinds = LinearReadout;

/// The words that a reading favours, each with the relations whose object it may be.
///
/// `applicability`: the entity's scores; `mean`: what is written about entities on average.
///
/// # Errors
/// When cancelled.
pub fn candidates(
    prober: &Prober<'_>,
    entity: &str,
    reading: &Reading,
    mean: &[f32],
    applicability: &[f32],
    kinds: &ObjectKinds,
) -> Result<Vec<Candidate>, Failure> {
    let own: Vec<f32> = reading.written.iter().zip(mean).map(|(x, mean)| x - mean).collect();
    let scores = prober.word_scores(&own)?;
    let count = scores.len().max(1) as f64;
    let average = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
    let square = scores.iter().map(|&score| (f64::from(score) - average).powi(2)).sum::<f64>();
    let deviation = (square / count).sqrt().max(f64::MIN_POSITIVE);
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let above: Vec<f32> = scores.iter().map(|score| score - least).collect();
    let entity = case_folded(entity);
    let tokenizer = prober.model().tokenizer()?;
    let mut words: Vec<(u32, Arc<str>, f64)> = Vec::new();
    // Half a vocabulary is pieces and repetitions of words in other cases.
    for (token, _) in top_k_by_magnitude(&above, (WORDS * 4).min(above.len())) {
        let word = tokenizer.word(token as u32);
        let folded = case_folded(&word);
        let known = words.iter().any(|(_, other, _)| case_folded(other) == folded);
        if is_content(&word) && !known && !entity.split(' ').any(|part| part == folded) {
            words.push((token as u32, word, (f64::from(scores[token]) - average) / deviation));
        }
        if words.len() == WORDS {
            break;
        }
    }
    let mut found = Vec::new();
    for (place, (token, word, z)) in words.iter().enumerate() {
        let next = words.get(place + 1).map_or(*z, |(_, _, z)| *z);
        let kind = kinds.scores(&prober.unembedding_row(*token)?);
        for (relation, (&fits, &of_kind)) in applicability.iter().zip(&kind).enumerate() {
            if fits >= FIT_MIN && of_kind >= FIT_MIN {
                found.push(Candidate {
                    token: *token,
                    word: word.clone(),
                    relation,
                    signals: [
                        z / 4.0,
                        (z - next).min(4.0),
                        -((1 + place) as f64).ln(),
                        f64::from(fits).clamp(-0.5, 1.5),
                        f64::from(of_kind).clamp(-0.5, 1.5),
                    ],
                });
            }
        }
    }
    Ok(found)
}

/// The edges of candidates that are certain enough, each word once and each at the feature with the
/// largest share in it.
///
/// `objects`: known objects by relation and first token, for words that are only the beginning of one.
///
/// # Errors
/// When cancelled, or down vectors are missing.
pub fn edges(
    prober: &Prober<'_>,
    reading: &Reading,
    candidates: &[Candidate],
    fit: &Logistic,
    objects: &HashMap<(usize, u32), Vec<Arc<str>>>,
    confidence_min: f64,
) -> Result<Vec<EdgeRecord>, Failure> {
    let mut certain: Vec<(f64, &Candidate)> = candidates
        .iter()
        .map(|candidate| (fit.probability(&candidate.signals), candidate))
        .filter(|(confidence, _)| *confidence >= confidence_min)
        .collect();
    certain.sort_by(|(a, a_of), (b, b_of)| {
        b.total_cmp(a).then(a_of.token.cmp(&b_of.token)).then(a_of.relation.cmp(&b_of.relation))
    });
    certain.truncate(EDGES_MAX);
    let mut edges = Vec::new();
    for (confidence, candidate) in certain {
        let mut direction = prober.unembedding_row(candidate.token)?;
        direction.iter_mut().zip(&reading.scale).for_each(|(x, scale)| *x *= scale);
        let mut best: Option<(f32, u32, u32)> = None;
        for (layer, features) in (0..).zip(&reading.layers) {
            let effects = prober.effects(layer, features, &direction)?;
            for (feature, &effect) in (0..).zip(&effects) {
                if best.is_none_or(|(most, ..)| effect > most) {
                    best = Some((effect, layer, feature));
                }
            }
        }
        let Some((effect, layer, feature)) = best.filter(|(effect, ..)| *effect > 0.0) else {
            continue;
        };
        let input = &reading.layers[layer as usize].input;
        edges.push(EdgeRecord {
            relation: candidate.relation as u32,
            target: object(candidate, objects).to_string(),
            confidence: confidence as f32,
            layer,
            feature,
            effect,
            gate_score: prober.gate_score(layer, feature, input)?,
        });
    }
    Ok(edges)
}

/// The object that a candidate's word is, or the only known one that it begins.
pub fn object(candidate: &Candidate, objects: &HashMap<(usize, u32), Vec<Arc<str>>>) -> Arc<str> {
    match objects.get(&(candidate.relation, candidate.token)).map(Vec::as_slice) {
        Some([only]) => only.clone(),
        _ => candidate.word.clone(),
    }
}
