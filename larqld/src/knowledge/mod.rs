//! What a model is known to know: the label store at work.
//!
//! [`Knowledge`] is a vindex's `knowledge.labels`, indexed, with a cache of what was asked since. An
//! entity that was seen when the labels were learned answers from the file; any other is asked by
//! running the learned templates ([`evidence`]) through the model ([`prober`]), and what is found is
//! kept for whoever asked, for as long as this store is in use, which is as long as neither base nor
//! labels change ([`asked`]).
//!
//! Promises: every edge carries a calibrated confidence and a feature whose ablation was measured;
//! the same model, labels and entity give the same edges, whoever asks and in which order; one entity is
//! asked at a time, so that memory does not grow with callers.
//!
//! Elsewhere: how labels are learned (`pipeline::label`), the file (`storage::vindex::knowledge`),
//! rows of DESCRIBE (`exec::describe`).

pub mod answer;
pub mod asked;
pub mod behind;
pub mod beside;
pub mod evidence;
mod prefixes;
pub mod prober;
pub mod readings;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::{LinearReadout, Logistic};
use larql_compute::model::PassMeters;
use larql_storage::vindex::KnowledgeFile;
use larql_storage::vindex::knowledge::{CalibrationRecord, EdgeRecord, RelationRecord};
use parking_lot::Mutex;

use self::asked::{Asked, ENTITY_BYTES_MAX};
use self::behind::FeatureEffect;
use self::evidence::{Evidence, PROBE_SIGNALS, Question, gather};
use self::prober::Prober;
use self::readings::{Objects, READING_SIGNALS, candidates};
use crate::failure::Failure;
use crate::mounts::Model;
use crate::session::Principal;
use crate::text::case_folded;

/// The score below which a relation is not even asked for.
pub const APPLICABILITY_MIN: f32 = 0.15;
/// Relations that an entity is asked for at most, those it most likely has.
const RELATIONS_ASKED_MAX: usize = 24;
/// The confidence below which an edge that the model answered is forgotten.
pub const CONFIDENCE_KEPT_MIN: f64 = 0.2;
/// The confidence below which an edge read from the weights alone is forgotten.
pub const READING_KEPT_MIN: f64 = 0.02;
/// How long is waited for another's turn before a cancel is looked for.
const TURN: Duration = Duration::from_millis(20);

/// The edges of an entity, most certain first.
pub type Edges = Arc<[EdgeRecord]>;

/// Where an edge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// What the networks write if they read the entity's embedding.
    Gate,
    /// What the stream says at the entity's bare name.
    Residual,
    /// What the model answers to the learned sentences.
    Probe,
}

impl Source {
    /// The source's word, in rows and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Residual => "residual",
            Self::Probe => "probe",
        }
    }
}

/// Who asks, and what answers.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The caller: what was computed for one is given to no other.
    pub principal: &'a Principal,
    /// The model that runs where nothing is known.
    pub model: &'a Model,
    /// Where it runs.
    pub pool: &'a Pool,
    /// Says when to stop.
    pub cancel: &'a Cancel,
}

/// A vindex's knowledge, ready to answer.
#[derive(Debug)]
pub struct Knowledge {
    file: KnowledgeFile,
    entities: HashMap<String, usize>,
    features: HashMap<(u32, u32), usize>,
    clusters: HashMap<(u32, u32), usize>,
    readout: Option<LinearReadout>,
    kinds: Option<LinearReadout>,
    /// Made when a reading is first asked for.
    objects: OnceLock<Objects>,
    asked: Asked,
    /// Held by who runs the model.
    turn: Mutex<()>,
}

impl Knowledge {
    /// Indexes a checked file.
    pub fn new(file: KnowledgeFile) -> Self {
        // Of names that differ in case alone each is found as it is written, and the first otherwise.
        let mut entities: HashMap<String, usize> = HashMap::new();
        for (at, one) in (0..).zip(&file.entities) {
            entities.entry(case_folded(&one.name)).or_insert(at);
        }
        entities.extend((0..).zip(&file.entities).map(|(at, one)| (one.name.clone(), at)));
        let features = (0..).zip(&file.features).map(|(at, one)| ((one.layer, one.feature), at));
        let clusters = (0..).zip(&file.clusters);
        let clusters = clusters.flat_map(|(at, one)| one.features.iter().map(move |&of| (of, at)));
        let readout = |mean: &[f32], weights: &[f32], bias: &[f32]| LinearReadout {
            mean: mean.to_vec(),
            weights: weights.to_vec(),
            bias: bias.to_vec(),
        };
        let applicability = file.applicability.as_ref();
        let kinds = file.kinds.as_ref();
        Self {
            entities,
            features: features.collect(),
            clusters: clusters.collect(),
            readout: applicability.map(|of| readout(&of.mean, &of.weights, &of.bias)),
            kinds: kinds.map(|of| readout(&of.mean, &of.weights, &of.bias)),
            objects: OnceLock::new(),
            asked: Asked::default(),
            turn: Mutex::default(),
            file,
        }
    }

    /// The file.
    pub fn file(&self) -> &KnowledgeFile {
        &self.file
    }

    /// Whether an entity has just this name.
    pub fn has_entity(&self, name: &str) -> bool {
        self.entities.get(name).is_some_and(|&at| self.file.entities[at].name == name)
    }

    /// The relation that a feature speaks for.
    pub fn label(&self, layer: u32, feature: u32) -> Option<&str> {
        let label = &self.file.features[*self.features.get(&(layer, feature))?];
        self.relation(label.relation)
    }

    /// The cluster that a feature is of.
    pub fn cluster(&self, layer: u32, feature: u32) -> Option<&str> {
        Some(&self.file.clusters[*self.clusters.get(&(layer, feature))?].name)
    }

    /// A relation's name.
    pub fn relation(&self, index: u32) -> Option<&str> {
        self.file.relations.get(index as usize).map(|relation| &*relation.name)
    }

    /// Whether an entity has one object of a relation.
    pub fn is_single(&self, relation: u32) -> bool {
        self.file.relations.get(relation as usize).is_some_and(|relation| relation.single)
    }

    /// The index of a relation by its name.
    pub fn relation_index(&self, name: &str) -> Option<usize> {
        self.file.relations.iter().position(|relation| answer::is_same(&relation.name, name))
    }

    /// The edges that a source has of an entity, as it is written: from the file, from what the caller
    /// asked before, or by running the model, where it can run; with what the passes took, if any ran.
    ///
    /// # Errors
    /// When cancelled, or a pass fails.
    pub fn edges(
        &self,
        source: Source,
        entity: &str,
        asker: &Asker<'_>,
    ) -> Result<(Edges, Option<PassMeters>), Failure> {
        let entity = entity.trim();
        if source == Source::Probe {
            let known = self.entities.get(entity);
            if let Some(&at) = known.or_else(|| self.entities.get(&case_folded(entity))) {
                return Ok((self.file.entities[at].edges.as_slice().into(), None));
            }
        }
        // Nothing could be kept of what is no name.
        let kept = || self.asked.get(asker.principal, entity, source);
        if let Some(edges) = kept() {
            return Ok((edges, None));
        }
        if entity.len() > ENTITY_BYTES_MAX || asker.model.require_inference().is_err() {
            return Ok((Edges::from([]), None));
        }
        let _turn = loop {
            asker.cancel.check()?;
            if let Some(turn) = self.turn.try_lock_for(TURN) {
                break turn;
            }
        };
        // Somebody may have asked the same before.
        if let Some(edges) = kept() {
            return Ok((edges, None));
        }
        let mut prober = Prober::new(asker.model, asker.pool, asker.cancel)?;
        let mut edges = match source {
            Source::Probe => self.ask(&mut prober, entity)?,
            Source::Gate | Source::Residual => self.read(source, &mut prober, entity)?,
        };
        sort(&mut edges);
        let edges: Edges = edges.into();
        self.asked.keep(asker.principal, entity, source, &edges);
        Ok((edges, Some(prober.meters().clone())))
    }

    /// The scores of the relations that an entity can have; `None` for a name without tokens.
    fn applicability(
        &self,
        prober: &mut Prober<'_>,
        entity: &str,
    ) -> Result<Option<Vec<f32>>, Failure> {
        let (Some(readout), Some(record)) = (&self.readout, &self.file.applicability) else {
            return Ok(None);
        };
        let Some(tokens) = prober.tokens(entity)? else { return Ok(None) };
        let captured = prober.capture(&[&tokens])?;
        let layer = captured.first().and_then(|one| one.layers.get(record.layer as usize));
        Ok(layer.map(|layer| readout.scores(&layer.residual)))
    }

    fn ask(&self, prober: &mut Prober<'_>, entity: &str) -> Result<Vec<EdgeRecord>, Failure> {
        let Some(probe) = calibration(&self.file, Source::Probe.as_str(), PROBE_SIGNALS) else {
            return Ok(Vec::new());
        };
        let Some(scores) = self.applicability(prober, entity)? else { return Ok(Vec::new()) };
        let found = gather(prober, &self.file.relations, &questions(entity, &scores))?;
        let kept: Vec<(Evidence, f64)> = found
            .into_iter()
            .flatten()
            .map(|evidence| (probe.probability(&evidence.signals), evidence))
            .filter(|(confidence, _)| *confidence >= CONFIDENCE_KEPT_MIN)
            .map(|(confidence, evidence)| (evidence, confidence))
            .collect();
        let behind = prober.features_behind(&predictions(&kept))?;
        let edges = kept.iter().zip(&behind);
        Ok(edges.filter_map(|((of, confidence), behind)| edge(of, *confidence, behind)).collect())
    }

    fn read(
        &self,
        source: Source,
        prober: &mut Prober<'_>,
        entity: &str,
    ) -> Result<Vec<EdgeRecord>, Failure> {
        let record = self.file.readings.iter().find(|one| one.source == source.as_str());
        let fit = calibration(&self.file, source.as_str(), READING_SIGNALS);
        let (Some(record), Some(fit), Some(kinds)) = (record, fit, &self.kinds) else {
            return Ok(Vec::new());
        };
        let Some(tokens) = prober.tokens(entity)? else { return Ok(Vec::new()) };
        let Some(scores) = self.applicability(prober, entity)? else { return Ok(Vec::new()) };
        let reading = match source {
            Source::Gate => prober.read_gate(&[entity])?,
            _ => prober.read_residual(&[entity], &record.templates)?,
        };
        let Some(reading) = reading.first() else { return Ok(Vec::new()) };
        let mut words = [readings::words(prober, reading, &record.mean, &scores, kinds)?];
        if source == Source::Residual {
            let tokens_max = object_tokens_max(&self.file.relations);
            readings::write_out(prober, &[&tokens], &mut words, tokens_max)?;
        }
        let found = candidates(entity, &words[0], &scores, self.objects(prober)?);
        readings::edges(prober, reading, &found, &fit, READING_KEPT_MIN)
    }

    /// The objects of the edges in the file.
    fn objects(&self, prober: &Prober<'_>) -> Result<&Objects, Failure> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let mut objects = Objects::new();
        for edge in self.file.entities.iter().flat_map(|entity| &entity.edges) {
            let Some(token) = prober.first_token(&edge.target)? else { continue };
            let known = objects.entry((edge.relation as usize, token)).or_default();
            if !known.iter().any(|object| **object == *edge.target) {
                known.push(edge.target.as_str().into());
            }
        }
        Ok(self.objects.get_or_init(|| objects))
    }
}

/// Tokens that an object of any of the relations may have.
pub fn object_tokens_max(relations: &[RelationRecord]) -> usize {
    relations.iter().map(|relation| relation.object_tokens_max as usize).max().unwrap_or(1)
}

/// The relations worth asking for, given a readout's scores.
pub fn questions<'q>(entity: &'q str, scores: &[f32]) -> Vec<Question<'q>> {
    let mut questions: Vec<Question<'q>> = scores
        .iter()
        .enumerate()
        .filter(|&(_, &score)| score >= APPLICABILITY_MIN)
        .map(|(relation, &applicability)| Question { entity, relation, applicability })
        .collect();
    questions.sort_by(|a, b| {
        b.applicability.total_cmp(&a.applicability).then(a.relation.cmp(&b.relation))
    });
    questions.truncate(RELATIONS_ASKED_MAX);
    questions
}

/// What each answer predicts, and after what.
pub fn predictions(answers: &[(Evidence, f64)]) -> Vec<(&[u32], u32)> {
    answers.iter().map(|(evidence, _)| (&evidence.prompt[..], evidence.token)).collect()
}

/// The edge of a piece of evidence, at the first of the features behind it; `None` where there is
/// none.
pub fn edge(evidence: &Evidence, confidence: f64, behind: &[FeatureEffect]) -> Option<EdgeRecord> {
    behind.first().map(|feature| EdgeRecord {
        relation: evidence.relation as u32,
        target: evidence.target.clone(),
        confidence: confidence as f32,
        layer: feature.layer,
        feature: feature.feature,
        effect: feature.effect,
        gate_score: feature.gate_score,
    })
}

/// A confidence as rows show it: more digits than these were never measured.
pub fn shown_confidence(confidence: f32) -> f64 {
    (f64::from(confidence) * 1e6).round() / 1e6
}

/// Puts the most certain edges first.
pub fn sort(edges: &mut [EdgeRecord]) {
    edges.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.relation.cmp(&b.relation)));
}

fn calibration(file: &KnowledgeFile, source: &str, signals: usize) -> Option<Logistic> {
    let of_source = |record: &&CalibrationRecord| record.source == source;
    let record = file.calibrations.iter().find(of_source)?;
    let fit = Logistic { weights: record.weights.clone(), bias: record.bias };
    (fit.weights.len() == signals).then_some(fit)
}
