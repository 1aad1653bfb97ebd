//! What the weights alone say about an entity: sources `gate` and `residual`.
//!
//! For `gate` every feed-forward network reads the mean embedding of the name's tokens by itself,
//! with nothing of attention or of other layers, and what they write is added up. For `residual` the
//! model reads the bare name, by itself or in templates that name no relation (`pipeline::label::bare`
//! chooses), and what counts is the stream as it leaves the last layer. Either, less
//! what it is for entities on average, is read through the final norm and the unembedding; the words
//! it favours become edges where the relations that the entity can have and the kind of word agree. A
//! word that only begins an object is written out: for `residual` by the model itself, from the name
//! and the word, for `gate` where only one known object begins so.
//!
//! Elsewhere: the readouts (`compute::learn`), their fit (`pipeline::label::readings`).

use std::collections::HashMap;
use std::sync::Arc;

use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::learn::{LinearReadout, Logistic};
use larql_compute::model::LayerFeatures;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::answer::object_range;
use super::prober::Prober;
use crate::failure::Failure;
use crate::text::{case_folded, is_content};

/// Signals of a reading's confidence, in the order of [`Candidate::signals`].
pub const READING_SIGNALS: usize = 8;
/// Words that are looked at, and the tokens among which they are looked for.
const WORDS: usize = 32;
const TOKENS: usize = 192;
/// The least score of a relation for an entity, and for a kind of word, at which the two are joined.
const FIT_MIN: f32 = 0.1;
/// The mean log-probability at which what follows a word is taken to belong to it.
const FOLLOWS_MIN: f64 = -0.7;
/// Edges that a source shows at most.
const EDGES_MAX: usize = 16;

/// What is read about an entity.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What each layer did.
    pub layers: Vec<LayerFeatures>,
    /// What the unembedding reads: `[hidden]`.
    pub read: Vec<f32>,
    /// What the final norm multiplies each number with: `[hidden]`.
    pub scale: Vec<f32>,
}

impl Reading {
    /// What all networks together add to the stream.
    pub fn of_networks(layers: Vec<LayerFeatures>, scale: Vec<f32>) -> Self {
        let mut read = vec![0.0; scale.len()];
        for layer in &layers {
            read.iter_mut().zip(&layer.output).for_each(|(sum, x)| *sum += x);
        }
        read.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        Self { layers, read, scale }
    }

    /// The stream as it leaves the last layer.
    pub fn of_stream(layers: Vec<LayerFeatures>, scale: Vec<f32>) -> Self {
        let stream = layers.last().map_or(&[][..], |last| &last.residual);
        let read = stream.iter().zip(&scale).map(|(x, scale)| x * scale).collect();
        Self { layers, read, scale }
    }

    /// The mean of what was added up of `count` places.
    #[must_use]
    pub fn divided_by(mut self, count: usize) -> Self {
        self.read.iter_mut().for_each(|x| *x /= count.max(1) as f32);
        self
    }
}

/// A word that a reading favours.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Its token.
    pub token: u32,
    /// Its text.
    pub text: Arc<str>,
    /// Its score, as standard deviations above the mean of all words.
    z: f64,
    /// How much it is like objects of each relation: `[relations]`.
    kinds: Vec<f32>,
    /// The object that it begins, as the model writes it after the name; `None` where nobody asked.
    object: Option<Arc<str>>,
    /// Mean log-probability of what was written after the word; 0 for nothing.
    follows: f64,
}

/// A word that may be the object of a relation, or begin it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The word's token.
    pub token: u32,
    /// The object.
    pub object: Arc<str>,
    /// The relation's index.
    pub relation: usize,
    /// Standard score among all words, its lead over the next one, place among all and among those
    /// of the relation's kind, fit of the entity, fit of the word, its lead over other relations,
    /// and how surely the object goes on from the word.
    pub signals: [f64; READING_SIGNALS],
}

/// The kind of word that objects of each relation are: a readout of unembedding rows.
pub type ObjectKinds = LinearReadout;
/// Known objects by relation and first token.
pub type Objects = HashMap<(usize, u32), Vec<Arc<str>>>;

/// The words that a reading favours and that could be objects of a relation that the entity can have.
///
/// `applicability`: the entity's scores; `mean`: what is read of entities on average.
///
/// # Errors
/// When cancelled.
pub fn words(
    prober: &Prober<'_>,
    reading: &Reading,
    mean: &[f32],
    applicability: &[f32],
    kinds: &ObjectKinds,
) -> Result<Vec<Word>, Failure> {
    let own: Vec<f32> = reading.read.iter().zip(mean).map(|(x, mean)| x - mean).collect();
    let scores = prober.word_scores(&own)?;
    let count = scores.len().max(1) as f64;
    let average = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
    let square = scores.iter().map(|&score| (f64::from(score) - average).powi(2)).sum::<f64>();
    let deviation = (square / count).sqrt().max(f64::MIN_POSITIVE);
    let least = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let above: Vec<f32> = scores.iter().map(|score| score - least).collect();
    let tokenizer = prober.model().tokenizer()?;
    let mut words: Vec<Word> = Vec::new();
    for (token, _) in top_k_by_magnitude(&above, TOKENS.min(above.len())) {
        let text = tokenizer.word(token as u32);
        let is_word = is_content(&text) || text.chars().any(char::is_alphanumeric);
        let folded = case_folded(&text);
        // Repetitions of a word in other cases are no words of their own.
        if !is_word || words.iter().any(|other| case_folded(&other.text) == folded) {
            continue;
        }
        let of_kinds = kinds.scores(&prober.unembedding_row(token as u32)?);
        if applicability.iter().zip(&of_kinds).any(|(&fits, &kind)| is_fit(fits, kind)) {
            let z = (f64::from(scores[token]) - average) / deviation;
            let token = token as u32;
            words.push(Word { token, text, z, kinds: of_kinds, object: None, follows: 0.0 });
        }
        if words.len() == WORDS {
            break;
        }
    }
    Ok(words)
}

fn is_fit(applicability: f32, kind: f32) -> bool {
    applicability >= FIT_MIN && kind >= FIT_MIN
}

/// Lets the model write out what the words of several entities begin, after the bare names.
///
/// # Errors
/// As [`Prober::complete`].
pub fn write_out(
    prober: &mut Prober<'_>,
    names: &[&[u32]],
    words: &mut [Vec<Word>],
    tokens_max: usize,
) -> Result<(), Failure> {
    let mut prompts = Vec::new();
    for (name, words) in names.iter().zip(&*words) {
        prompts.extend(words.iter().map(|word| [name, &[word.token][..]].concat()));
    }
    let mut written = prober.complete(&prompts, tokens_max)?.into_iter();
    for (name, words) in names.iter().zip(words) {
        for (word, completion) in words.iter_mut().zip(&mut written) {
            let more = completion.log_probabilities;
            let follows = more.iter().sum::<f64>() / more.len().max(1) as f64;
            word.object = Some(word.text.clone());
            if more.is_empty() || follows < FOLLOWS_MIN {
                continue;
            }
            let tokens = [&[word.token], &completion.tokens[..]].concat();
            let text = prober.continuation(name, &tokens)?;
            if let Some(range) = object_range(&text, &[], &[], true) {
                (word.object, word.follows) = (Some(text[range].into()), follows);
            }
        }
    }
    Ok(())
}

/// The relations whose object each word may be, or begin; `objects` are those known of relations,
/// for words that nobody wrote out.
pub fn candidates(
    entity: &str,
    words: &[Word],
    applicability: &[f32],
    objects: &Objects,
) -> Vec<Candidate> {
    let entity = case_folded(entity);
    let mut places = vec![0_usize; applicability.len()];
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let next = words.get(place + 1).map_or(word.z, |next| next.z);
        for (relation, (&fits, &kind)) in applicability.iter().zip(&word.kinds).enumerate() {
            if !is_fit(fits, kind) {
                continue;
            }
            let object =
                match (&word.object, objects.get(&(relation, word.token)).map(|of| &of[..])) {
                    (Some(object), _) => object.clone(),
                    (None, Some([only])) => only.clone(),
                    (None, _) => word.text.clone(),
                };
            let folded = case_folded(&object);
            if folded == entity || entity.split(' ').any(|part| part == folded) {
                continue;
            }
            let others = applicability.iter().zip(&word.kinds).enumerate();
            let others = others.filter(|&(other, (&fits, _))| other != relation && fits >= FIT_MIN);
            let other = others.map(|(_, (_, &kind))| kind).fold(0.0, f32::max);
            let of_relation = places[relation];
            places[relation] += 1;
            found.push(Candidate {
                token: word.token,
                object,
                relation,
                signals: [
                    word.z / 4.0,
                    (word.z - next).min(4.0),
                    -((1 + place) as f64).ln(),
                    -((1 + of_relation) as f64).ln(),
                    f64::from(fits).clamp(-0.5, 1.5),
                    f64::from(kind).clamp(-0.5, 1.5),
                    f64::from(kind - other).clamp(-1.0, 1.0),
                    word.follows.max(FOLLOWS_MIN),
                ],
            });
        }
    }
    found
}

/// The edges of candidates that are certain enough, the most certain first, each at the feature with
/// the largest share in its word.
///
/// # Errors
/// When cancelled, or down vectors are missing.
pub fn edges(
    prober: &Prober<'_>,
    reading: &Reading,
    candidates: &[Candidate],
    fit: &Logistic,
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
    let mut behind: HashMap<u32, Option<(f32, u32, u32)>> = HashMap::new();
    for (confidence, candidate) in certain {
        let most = match behind.get(&candidate.token) {
            Some(most) => *most,
            None => {
                let most = most_shared(prober, reading, candidate.token)?;
                behind.insert(candidate.token, most);
                most
            }
        };
        let Some((effect, layer, feature)) = most else { continue };
        let input = &reading.layers[layer as usize].input;
        edges.push(EdgeRecord {
            relation: candidate.relation as u32,
            target: candidate.object.to_string(),
            confidence: confidence as f32,
            layer,
            feature,
            effect,
            gate_score: prober.gate_score(layer, feature, input)?,
        });
    }
    Ok(edges)
}

/// The feature that adds most to a word's score, and how much, layer and index.
fn most_shared(
    prober: &Prober<'_>,
    reading: &Reading,
    token: u32,
) -> Result<Option<(f32, u32, u32)>, Failure> {
    let mut direction = prober.unembedding_row(token)?;
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
    Ok(best.filter(|(effect, ..)| *effect > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(token: u32, text: &str, z: f64, kinds: [f32; 2]) -> Word {
        Word { token, text: text.into(), z, kinds: kinds.to_vec(), object: None, follows: 0.0 }
    }

    #[test]
    fn a_word_is_an_object_where_the_entity_and_the_kind_of_word_agree() {
        let words = [word(1, "Paris", 9.0, [0.9, 0.0]), word(2, "France", 8.0, [0.9, 0.9])];
        let found = candidates("France", &words, &[0.8, 0.05], &Objects::new());
        assert_eq!(
            found.len(),
            1,
            "no name is its own object, and no relation is unlikely: {found:?}"
        );
        assert_eq!((&*found[0].object, found[0].relation), ("Paris", 0));
    }

    #[test]
    fn a_word_that_begins_one_known_object_is_that_object_unless_it_was_written_out() {
        let mut words = [word(7, "New", 5.0, [0.5, 0.5])];
        let known = Objects::from([
            ((0, 7), vec!["New Delhi".into()]),
            ((1, 7), vec!["New York".into(), "New Zealand".into()]),
        ]);
        let objects = |words: &[Word]| -> Vec<Arc<str>> {
            let found = candidates("India", words, &[0.9, 0.9], &known);
            found.into_iter().map(|one| one.object).collect()
        };
        assert_eq!(objects(&words), ["New Delhi".into(), "New".into()]);
        words[0].object = Some("New Delhi".into());
        assert_eq!(objects(&words), ["New Delhi".into(), "New Delhi".into()]);
    }

    #[test]
    fn a_word_of_several_kinds_says_less_of_each() {
        let found = candidates("x", &[word(1, "A", 3.0, [0.9, 0.6])], &[0.9, 0.9], &Objects::new());
        assert!(found[0].signals[6] > 0.0 && found[1].signals[6] < 0.0, "{found:?}");
    }
}
