//! From answers to edges: how confidence is calibrated, which features are behind an edge, and which
//! features come to stand for a relation.

use std::collections::{BTreeMap, BTreeSet};

use larql_compute::learn::{Logistic, expected_calibration_error};
use larql_storage::vindex::knowledge::{CalibrationRecord, EdgeRecord, FeatureRecord};
use serde::{Deserialize, Serialize};

use super::applicability::FOLDS;
use crate::knowledge::behind::FeatureEffect;
use crate::knowledge::evidence::{Evidence, PROBE_SIGNALS};

/// The penalty of the calibration's weights.
const RIDGE: f64 = 1.0;
/// The loss, in nats, from which a feature counts as a part of an edge.
const EFFECT_MIN: f32 = 0.05;
/// Entities whose edges a feature must be a part of to be labelled.
const ENTITIES_MIN: usize = 2;
/// The part of a feature's effect that must be on one relation.
const SHARE_MIN: f32 = 0.6;

/// An edge with all features that were found behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// The edge.
    pub edge: EdgeRecord,
    /// Layer, feature and effect of each.
    pub behind: Vec<(u32, u32, f32)>,
}

/// An answer whose truth is known.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'e> {
    /// Which entity it is of, by index: folds divide entities.
    pub entity: usize,
    /// The answer.
    pub evidence: &'e Evidence,
    /// Whether it is so.
    pub hit: bool,
}

/// Fits the confidence of probes, and measures it on entities that it was not fitted on.
pub fn calibrate(judged: &[Judged<'_>]) -> CalibrationRecord {
    let fit = fit(judged.iter());
    let mut predictions = Vec::with_capacity(judged.len());
    for fold in 0..FOLDS {
        let within = |one: &&Judged<'_>| one.entity % FOLDS == fold;
        let fit = self::fit(judged.iter().filter(|one| !within(one)));
        predictions.extend(
            judged
                .iter()
                .filter(within)
                .map(|one| (fit.probability(&one.evidence.signals), one.hit)),
        );
    }
    CalibrationRecord {
        source: "probe".to_owned(),
        weights: fit.weights,
        bias: fit.bias,
        samples: judged.len() as u64,
        error: expected_calibration_error(&predictions),
    }
}

fn fit<'e>(judged: impl Iterator<Item = &'e Judged<'e>> + Clone) -> Logistic {
    let outcomes: Vec<bool> = judged.clone().map(|one| one.hit).collect();
    let samples: Vec<f64> = judged.flat_map(|one| one.evidence.signals).collect();
    Logistic::fit_or_rate(&samples, &outcomes, PROBE_SIGNALS, RIDGE)
}

/// The edge of an answer, given the features behind it; `None` where no feature has a share in it.
pub fn found(evidence: &Evidence, confidence: f64, behind: &[FeatureEffect]) -> Option<Found> {
    let edge = crate::knowledge::edge(evidence, confidence, behind)?;
    let parts = behind.iter().filter(|one| one.effect >= EFFECT_MIN);
    let parts = parts.map(|&FeatureEffect { layer, feature, effect, .. }| (layer, feature, effect));
    Some(Found { edge, behind: parts.collect() })
}

/// The features that stand for one relation, by layer and feature.
pub fn labels<'f>(found: impl Iterator<Item = (usize, &'f Found)>) -> Vec<FeatureRecord> {
    /// Effect by relation, and the entities that each came from.
    type Effects = BTreeMap<u32, (f32, BTreeSet<usize>)>;
    let mut of: BTreeMap<(u32, u32), Effects> = BTreeMap::new();
    for (entity, found) in found {
        for &(layer, feature, effect) in &found.behind {
            let effects = of.entry((layer, feature)).or_default();
            let (sum, entities) = effects.entry(found.edge.relation).or_default();
            *sum += effect;
            entities.insert(entity);
        }
    }
    let label = |(&(layer, feature), effects): (&(u32, u32), &Effects)| {
        let total: f32 = effects.values().map(|(sum, _)| sum).sum();
        let (&relation, (sum, entities)) =
            effects.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0).then(b.0.cmp(a.0)))?;
        let score = sum / total;
        (entities.len() >= ENTITIES_MIN && score >= SHARE_MIN).then_some(FeatureRecord {
            layer,
            feature,
            relation,
            score,
        })
    };
    of.iter().filter_map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(relation: u32, behind: &[(u32, u32, f32)]) -> Found {
        let edge = EdgeRecord {
            relation,
            target: "x".to_owned(),
            confidence: 0.9,
            layer: behind[0].0,
            feature: behind[0].1,
            effect: behind[0].2,
            gate_score: 1.0,
        };
        Found { edge, behind: behind.to_vec() }
    }

    #[test]
    fn a_feature_stands_for_the_relation_that_most_of_its_effect_is_on() {
        let edges = [
            (0, found(0, &[(1, 7, 3.0), (2, 5, 1.0)])),
            (1, found(0, &[(1, 7, 2.0), (2, 5, 1.0)])),
            (2, found(1, &[(1, 7, 1.0), (2, 5, 2.0)])),
            (3, found(1, &[(3, 3, 9.0)])),
        ];
        let labels = labels(edges.iter().map(|(entity, found)| (*entity, found)));
        let expected = FeatureRecord { layer: 1, feature: 7, relation: 0, score: 5.0 / 6.0 };
        assert_eq!(labels, [expected], "5 is divided, 3 was seen with one entity");
    }

    #[test]
    fn answers_that_are_all_right_still_have_a_confidence_below_one() {
        let evidence = Evidence {
            relation: 0,
            target: "x".to_owned(),
            prompt: vec![1],
            token: 2,
            signals: [1.0, -0.1, -0.1, 0.5, 2.0],
        };
        let judged: Vec<_> =
            (0..10).map(|entity| Judged { entity, evidence: &evidence, hit: true }).collect();
        let record = calibrate(&judged);
        let fit = Logistic { weights: record.weights, bias: record.bias };
        let confidence = fit.probability(&evidence.signals);
        assert!((0.8..0.95).contains(&confidence), "{confidence}");
    }
}
