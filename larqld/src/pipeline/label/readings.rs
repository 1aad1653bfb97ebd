//! How far what the weights write about an entity can be believed: fits the sources `gate` and
//! `residual` of `knowledge::readings`.
//!
//! Everything that judges an entity was fitted without it: the readout of which relations it can
//! have, the readout of which words are objects of a relation (each fold without the objects of its
//! own entities), and, for the reported error, the confidence.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::{LinearReadout, Logistic, expected_calibration_error};
use larql_storage::vindex::knowledge::{CalibrationRecord, EdgeRecord, KindsRecord, ReadingRecord};

use super::applicability::FOLDS;
use super::bare;
use super::facts::Facts;
use crate::failure::Failure;
use crate::knowledge::READING_KEPT_MIN;
use crate::knowledge::answer::is_same;
use crate::knowledge::beside::{BESIDE_SIGNALS, beside, beside_signals, is_answered};
use crate::knowledge::prober::Prober;
use crate::knowledge::readings::{
    Candidate, Objects, READING_SIGNALS, Reading, candidates, words, write_out,
};
use crate::pipeline::Progress;

/// Entities that the sources are fitted on at most, spread over the table.
const ENTITIES_MAX: usize = 400;
/// Words of the vocabulary that are objects of nothing.
const BACKGROUND_WORDS: usize = 256;
/// The ridge of the readout of words.
const RIDGE: f32 = 0.02;
/// The penalty of the calibration's weights.
const CALIBRATION_RIDGE: f64 = 1.0;

/// The fitted sources.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Which words are objects of which relation.
    pub kinds: Option<KindsRecord>,
    /// What is written about entities on average, by source.
    pub readings: Vec<ReadingRecord>,
    /// How signals become a probability, by source.
    pub calibrations: Vec<CalibrationRecord>,
}

/// The table's entities as far as this stage needs them.
pub struct Known<'k> {
    /// The table.
    pub facts: &'k Facts,
    /// Its entities.
    pub entities: &'k [&'k str],
    /// The relations that the model knows.
    pub relations: &'k [String],
    /// Tokens that an object may have.
    pub object_tokens_max: usize,
    /// Scores of each entity when it was left out; empty for one without tokens.
    pub applicability: &'k [Vec<f32>],
    /// What the model answers of each entity when asked.
    pub answers: &'k [Vec<EdgeRecord>],
}

/// Fits both sources.
///
/// # Errors
/// As [`Prober::capture`].
pub fn learn(
    prober: &mut Prober<'_>,
    pool: &Pool,
    known: &Known<'_>,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Readings, Failure> {
    let usable: Vec<usize> = (0..known.entities.len())
        .filter(|&entity| !known.applicability[entity].is_empty())
        .collect();
    let count = ENTITIES_MAX.min(usable.len());
    let chosen: Vec<usize> = (0..count).map(|at| usable[at * usable.len() / count]).collect();
    let known_words = Words::new(prober, known)?;
    let mut folds = Vec::new();
    for fold in 0..FOLDS {
        folds.push(known_words.fit(pool, |entity| entity % FOLDS != fold, cancel)?);
    }
    let Some(kinds) = known_words.fit(pool, |_| true, cancel)? else {
        return Ok(Readings::default());
    };
    let mut fitted = Readings::default();
    let bare = bare::choose(prober, known, &chosen, cancel)?;
    for (index, source) in ["gate", "residual"].into_iter().enumerate() {
        let mut written: Vec<(usize, Reading)> = Vec::new();
        for batch in chosen.chunks(prober.captured_batch()) {
            cancel.check()?;
            let done = (index * count + written.len()) as u64;
            progress("readings", done, 2 * count as u64, "entities")?;
            let names: Vec<&str> = batch.iter().map(|&entity| known.entities[entity]).collect();
            let read = match source {
                "gate" => prober.read_gate(&names)?,
                _ => prober.read_residual(&names, &bare)?,
            };
            // The layers are not needed here, and are large.
            let read = read.into_iter().map(|reading| Reading { layers: Vec::new(), ..reading });
            written.extend(batch.iter().copied().zip(read));
        }
        let Some((_, first)) = written.first() else { continue };
        let mut mean = vec![0.0; first.read.len()];
        for (_, reading) in &written {
            let part = |(mean, x): (&mut f32, &f32)| *mean += x / written.len() as f32;
            mean.iter_mut().zip(&reading.read).for_each(part);
        }
        let others: Vec<_> = (0..FOLDS).map(|fold| known_words.others(fold)).collect();
        let mut judged: Vec<(usize, Candidate, bool)> = Vec::new();
        for batch in written.chunks(prober.captured_batch()) {
            cancel.check()?;
            let (mut names, mut favoured) = (Vec::new(), Vec::new());
            for (entity, reading) in batch {
                names.push(prober.tokens(known.entities[*entity])?.unwrap_or_default());
                let scores = &known.applicability[*entity];
                favoured.push(match &folds[entity % FOLDS] {
                    Some(kinds) => words(prober, reading, &mean, scores, kinds)?,
                    None => Vec::new(),
                });
            }
            if source == "residual" {
                let names: Vec<&[u32]> = names.iter().map(Vec::as_slice).collect();
                write_out(prober, &names, &mut favoured, known.object_tokens_max)?;
            }
            for ((entity, _), favoured) in batch.iter().zip(&favoured) {
                let name = known.entities[*entity];
                let scores = &known.applicability[*entity];
                let others = &others[*entity % FOLDS];
                for candidate in candidates(name, favoured, scores, others) {
                    let objects = known.facts.objects(name, &known.relations[candidate.relation]);
                    let mut spellings = objects.into_iter().flat_map(|objects| objects.spellings());
                    let hit = spellings.any(|spelling| is_same(spelling, &candidate.object));
                    judged.push((*entity, candidate, hit));
                }
            }
        }
        if let Some((calibration, predictions)) = calibrate(source, &judged) {
            fitted.calibrations.push(calibration);
            fitted.calibrations.push(calibrate_beside(
                source,
                &judged,
                &predictions,
                known.answers,
            ));
            let templates = match source {
                "residual" => bare.clone(),
                _ => Vec::new(),
            };
            fitted.readings.push(ReadingRecord { source: source.to_owned(), mean, templates });
        }
    }
    progress("readings", 2 * count as u64, 2 * count as u64, "entities")?;
    let LinearReadout { mean, weights, bias } = kinds;
    fitted.kinds = Some(KindsRecord { mean, weights, bias });
    Ok(fitted)
}

/// The confidence of a source by itself, with what it would be of each candidate if it had been fitted
/// without the candidate's entity.
fn calibrate(
    source: &str,
    judged: &[(usize, Candidate, bool)],
) -> Option<(CalibrationRecord, Vec<f64>)> {
    let fit = |wanted: &dyn Fn(usize) -> bool| {
        let of = || judged.iter().filter(|(entity, ..)| wanted(*entity));
        let samples: Vec<f64> = of().flat_map(|(_, candidate, _)| candidate.signals).collect();
        let outcomes: Vec<bool> = of().map(|(.., hit)| *hit).collect();
        Logistic::fit(&samples, &outcomes, READING_SIGNALS, CALIBRATION_RIDGE)
    };
    let whole = fit(&|_| true)?;
    let folds: Vec<Logistic> = (0..FOLDS)
        .map(|fold| fit(&|entity| entity % FOLDS != fold).unwrap_or_else(|| whole.clone()))
        .collect();
    let predictions: Vec<f64> = judged
        .iter()
        .map(|(entity, one, _)| folds[entity % FOLDS].probability(&one.signals))
        .collect();
    let outcomes = judged.iter().map(|(.., hit)| *hit);
    let pairs: Vec<(f64, bool)> = predictions.iter().copied().zip(outcomes).collect();
    let Logistic { weights, bias } = whole;
    let record = CalibrationRecord {
        source: source.to_owned(),
        weights,
        bias,
        samples: judged.len() as u64,
        error: expected_calibration_error(&pairs),
    };
    Some((record, predictions))
}

/// How far a source is to be believed in what the model does not say when it is asked: a candidate that
/// answers repeat adds nothing, and one that they leave out is less likely than it looks by itself.
fn calibrate_beside(
    source: &str,
    judged: &[(usize, Candidate, bool)],
    predictions: &[f64],
    answers: &[Vec<EdgeRecord>],
) -> CalibrationRecord {
    let mut of: Vec<(usize, [f64; BESIDE_SIGNALS], bool)> = Vec::new();
    for ((entity, candidate, hit), &confidence) in judged.iter().zip(predictions) {
        let answers = answers.get(*entity).map_or(&[][..], Vec::as_slice);
        let relation = candidate.relation as u32;
        if confidence >= READING_KEPT_MIN && !is_answered(answers, relation, &candidate.object) {
            of.push((*entity, beside_signals(answers, relation, confidence), *hit));
        }
    }
    let fit = |wanted: &dyn Fn(usize) -> bool| {
        let of = || of.iter().filter(|(entity, ..)| wanted(*entity));
        let samples: Vec<f64> = of().flat_map(|(_, signals, _)| *signals).collect();
        let outcomes: Vec<bool> = of().map(|(.., hit)| *hit).collect();
        Logistic::fit_or_rate(&samples, &outcomes, BESIDE_SIGNALS, CALIBRATION_RIDGE)
    };
    let folds: Vec<Logistic> =
        (0..FOLDS).map(|fold| fit(&|entity| entity % FOLDS != fold)).collect();
    let predictions: Vec<(f64, bool)> = of
        .iter()
        .map(|(entity, signals, hit)| (folds[entity % FOLDS].probability(signals), *hit))
        .collect();
    let Logistic { weights, bias } = fit(&|_| true);
    CalibrationRecord {
        source: beside(source),
        weights,
        bias,
        samples: of.len() as u64,
        error: expected_calibration_error(&predictions),
    }
}

/// First tokens of objects, with the relations and entities that they are objects of.
struct Words {
    /// Relations and entities by token; background words have none.
    of: BTreeMap<u32, Vec<(usize, usize)>>,
    rows: BTreeMap<u32, Vec<f32>>,
    /// Objects by relation and first token, with the entities that have them.
    objects: HashMap<(usize, u32), BTreeMap<Arc<str>, Vec<usize>>>,
    relations: usize,
}

impl Words {
    fn new(prober: &Prober<'_>, known: &Known<'_>) -> Result<Self, Failure> {
        let mut words = Self {
            of: BTreeMap::new(),
            rows: BTreeMap::new(),
            objects: HashMap::new(),
            relations: known.relations.len(),
        };
        for (entity, name) in known.entities.iter().enumerate() {
            for (relation, relation_name) in known.relations.iter().enumerate() {
                let objects = known.facts.objects(name, relation_name);
                for object in objects.into_iter().flat_map(|objects| &objects.names) {
                    let Some(token) = prober.first_token(object)? else { continue };
                    words.of.entry(token).or_default().push((relation, entity));
                    let known = words.objects.entry((relation, token)).or_default();
                    known.entry(object.as_str().into()).or_default().push(entity);
                }
            }
        }
        let vocabulary = prober.model().architecture().vocabulary_size;
        for index in 0..BACKGROUND_WORDS.min(vocabulary) {
            words
                .of
                .entry((index * vocabulary / BACKGROUND_WORDS.min(vocabulary)) as u32)
                .or_default();
        }
        for &token in words.of.keys() {
            words.rows.insert(token, prober.unembedding_row(token)?);
        }
        Ok(words)
    }

    /// Fits the readout on the words of some entities and the background.
    fn fit(
        &self,
        pool: &Pool,
        wanted: impl Fn(usize) -> bool,
        cancel: &Cancel,
    ) -> Result<Option<LinearReadout>, Failure> {
        let mut rows: Vec<&[f32]> = Vec::new();
        let mut targets = Vec::new();
        for (token, of) in &self.of {
            let of_wanted: Vec<usize> = of
                .iter()
                .filter(|(_, entity)| wanted(*entity))
                .map(|(relation, _)| *relation)
                .collect();
            if of_wanted.is_empty() && !of.is_empty() {
                continue;
            }
            rows.push(&self.rows[token]);
            targets.extend(
                (0..self.relations)
                    .map(|relation| f32::from(u8::from(of_wanted.contains(&relation)))),
            );
        }
        match rows.is_empty() || targets.is_empty() {
            true => Ok(None),
            false => Ok(Some(LinearReadout::fit(pool, &rows, &targets, RIDGE, cancel)?)),
        }
    }

    /// The objects that entities of other folds have, by relation and first token.
    fn others(&self, fold: usize) -> Objects {
        let mut of_others = HashMap::new();
        for (&key, objects) in &self.objects {
            let others = objects
                .iter()
                .filter(|(_, entities)| entities.iter().any(|other| other % FOLDS != fold));
            of_others.insert(key, others.map(|(object, _)| object.clone()).collect());
        }
        of_others
    }
}
