//! What sources that read weights alone are worth beside what the model answers.
//!
//! A reading is judged by itself when it stands alone, or when an answer says the same. Otherwise it is
//! judged again beside answers: it is then what the model does not say when it is asked, which is
//! fitted as a source of its own (`gate beside probe`, `residual beside probe`).

use larql_compute::learn::Logistic;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::answer::is_same;
use super::{Knowledge, Source, calibration};

/// Signals of a reading's confidence beside answers, in the order of [`beside_signals`].
pub const BESIDE_SIGNALS: usize = 2;

/// The name of a source beside answers, in the file.
pub fn beside(source: &str) -> String {
    format!("{source} beside probe")
}

/// Whether an answer says the same as a reading.
pub fn is_answered(answers: &[EdgeRecord], relation: u32, target: &str) -> bool {
    answers.iter().any(|answer| answer.relation == relation && is_same(&answer.target, target))
}

/// The log-odds of a reading's confidence by itself, and whether answers have its relation.
pub fn beside_signals(
    answers: &[EdgeRecord],
    relation: u32,
    confidence: f64,
) -> [f64; BESIDE_SIGNALS] {
    let within = confidence.clamp(1e-6, 1.0 - 1e-6);
    let answered = answers.iter().any(|answer| answer.relation == relation);
    [(within / (1.0 - within)).ln(), f64::from(u8::from(answered))]
}

impl Knowledge {
    /// A source's readings of an entity beside the model's answers about it: those that say something
    /// else with the confidence that they deserve then, those that agree as they are.
    pub fn beside_answers(
        &self,
        source: Source,
        readings: &[EdgeRecord],
        answers: &[EdgeRecord],
    ) -> Vec<EdgeRecord> {
        let fit = calibration(&self.file, &beside(source.as_str()), BESIDE_SIGNALS);
        let judged =
            |reading: &EdgeRecord| match is_answered(answers, reading.relation, &reading.target) {
                true => reading.clone(),
                false => judged_again(reading, answers, fit.as_ref()),
            };
        readings.iter().map(judged).collect()
    }
}

/// A reading with the confidence that it has beside answers; as it is where that was not fitted.
fn judged_again(
    reading: &EdgeRecord,
    answers: &[EdgeRecord],
    fit: Option<&Logistic>,
) -> EdgeRecord {
    let mut reading = reading.clone();
    if let Some(fit) = fit {
        let signals = beside_signals(answers, reading.relation, reading.confidence.into());
        reading.confidence = fit.probability(&signals) as f32;
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(relation: u32, target: &str, confidence: f32) -> EdgeRecord {
        EdgeRecord {
            relation,
            target: target.to_owned(),
            confidence,
            layer: 0,
            feature: 0,
            effect: 0.0,
            gate_score: 0.0,
        }
    }

    #[test]
    fn an_answer_says_the_same_whatever_its_case() {
        let answers = [edge(0, "Paris", 0.9)];
        assert!(is_answered(&answers, 0, "paris"));
        assert!(!is_answered(&answers, 1, "Paris"));
        assert!(!is_answered(&answers, 0, "Lyon"));
    }

    #[test]
    fn a_reading_against_an_answer_is_believed_less_where_that_was_fitted() {
        let answers = [edge(0, "Paris", 0.9)];
        let fit = Logistic { weights: vec![1.0, -3.0], bias: 0.0 };
        let against = judged_again(&edge(0, "Lyon", 0.6), &answers, Some(&fit));
        let apart = judged_again(&edge(1, "Lyon", 0.6), &answers, Some(&fit));
        assert!(against.confidence < 0.1, "{against:?}");
        assert!((apart.confidence - 0.6).abs() < 1e-6, "{apart:?}");
        assert_eq!(judged_again(&edge(0, "Lyon", 0.6), &answers, None).confidence, 0.6);
    }
}
