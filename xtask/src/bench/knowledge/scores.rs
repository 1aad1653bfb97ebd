//! How answers are judged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::TOP;
use super::baselines::Baselines;
use super::table::{Facts, folded};

/// A row of DESCRIBE.
#[derive(Debug, Clone)]
pub struct Row {
    pub relation: Option<String>,
    pub target: String,
    pub source: String,
    pub confidence: Option<f64>,
    pub layer: u64,
    pub feature: u64,
}

impl Row {
    /// From a row of NDJSON.
    pub fn parse(row: &Value) -> Self {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Self {
            relation: text("relation"),
            target: text("target").unwrap_or_default(),
            source: text("source").unwrap_or_default(),
            confidence: row["confidence"].as_f64(),
            layer: row["layer"].as_u64().unwrap_or_default(),
            feature: row["feature"].as_u64().unwrap_or_default(),
        }
    }
}

/// What DESCRIBE says of an entity.
#[derive(Debug, Clone)]
pub struct Answer {
    pub entity: String,
    pub rows: Vec<Row>,
}

/// What an answer has of one relation of its entity.
#[derive(Debug, Clone)]
pub struct Pair {
    pub entity: String,
    pub relation: String,
    /// Place of the first right row among the first ten, from 1.
    pub place: Option<usize>,
    /// Its place among those of the relation.
    pub place_of_relation: Option<usize>,
    /// Whether the same rows are right of another entity that has the relation.
    pub chance: bool,
}

/// A row among the first ten whose relation is claimed.
#[derive(Debug, Clone)]
pub struct Judged {
    pub entity: String,
    pub relation: String,
    pub source: String,
    pub confidence: Option<f64>,
    pub right: bool,
}

/// What was found with one choice of sources.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    pub pairs: Vec<Pair>,
    pub rows: Vec<Judged>,
    pub untyped: usize,
}

/// A pair whose relation labels never saw.
#[derive(Debug, Clone)]
pub struct Unseen {
    pub entity: String,
    /// Whether a row among the first ten has a right object, under whatever name.
    pub found: bool,
    /// Whether one has another entity's.
    pub chance: bool,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Scores {
    pub baselines: Baselines,
    /// By choice of sources.
    pub choices: BTreeMap<String, Choice>,
    /// Source of each verified edge, and whether it needs its feature.
    pub verified: Vec<(String, bool)>,
    /// Mean overlap of the first rows of two extractions.
    pub jaccard: Option<f64>,
    pub unseen: Vec<Unseen>,
}

impl Scores {
    /// Judges answers.
    pub fn add(&mut self, sources: &str, facts: &Facts, answers: &[Answer]) {
        let choice = self.choices.entry(sources.to_owned()).or_default();
        for (at, Answer { entity, rows }) in answers.iter().enumerate() {
            let rows = &rows[..rows.len().min(TOP)];
            for (relation, objects) in facts.of(entity) {
                let is_right = |row: &Row| objects.contains(&folded(&row.target));
                let is_of = |row: &&Row| row.relation.as_deref() == Some(relation);
                let place = rows.iter().position(|row| is_of(&row) && is_right(row));
                let chance = other(facts, answers, at, relation).is_some_and(|other| {
                    rows.iter().filter(is_of).any(|row| facts.holds(other, relation, &row.target))
                });
                choice.pairs.push(Pair {
                    entity: entity.clone(),
                    relation: relation.clone(),
                    place: place.map(|place| place + 1),
                    place_of_relation: rows
                        .iter()
                        .filter(is_of)
                        .position(is_right)
                        .map(|place| place + 1),
                    chance,
                });
            }
            for row in rows {
                let Some(relation) = &row.relation else {
                    choice.untyped += 1;
                    continue;
                };
                choice.rows.push(Judged {
                    entity: entity.clone(),
                    relation: relation.clone(),
                    source: row.source.clone(),
                    confidence: row.confidence,
                    right: facts.holds(entity, relation, &row.target),
                });
            }
        }
    }

    /// Judges answers by relations that labels never saw.
    pub fn add_unseen(&mut self, facts: &Facts, answers: &[Answer], relations: &[&str]) {
        for (at, Answer { entity, rows }) in answers.iter().enumerate() {
            let rows = &rows[..rows.len().min(TOP)];
            let has = |relation: &&&str| facts.of(entity).contains_key(**relation);
            for relation in relations.iter().filter(has) {
                let shown =
                    |of: &str| rows.iter().any(|row| facts.holds(of, relation, &row.target));
                self.unseen.push(Unseen {
                    entity: entity.clone(),
                    found: shown(entity),
                    chance: other(facts, answers, at, relation).is_some_and(shown),
                });
            }
        }
    }
}

/// The next entity that has the relation, whose objects the same rows are judged by.
fn other<'a>(facts: &Facts, answers: &'a [Answer], at: usize, relation: &str) -> Option<&'a str> {
    let others = answers[at + 1..].iter().chain(&answers[..at]);
    others.map(|other| &*other.entity).find(|other| facts.of(other).contains_key(relation))
}

/// The expected calibration error over ten bins of equal width.
pub fn calibration_error<'r>(rows: impl Iterator<Item = &'r Judged>) -> f64 {
    let mut bins = [(0.0, 0.0); 10];
    let mut count = 0;
    for row in rows {
        let Some(confidence) = row.confidence else { continue };
        let bin = &mut bins[((confidence * 10.0) as usize).min(9)];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(row.right));
        count += 1;
    }
    let distances = bins.iter().map(|(confidence, right)| (confidence - right).abs());
    distances.sum::<f64>() / f64::from(count.max(1))
}

/// The mean overlap of the first rows about each entity: shared by all.
pub fn jaccard(a: &[Answer], b: &[Answer]) -> f64 {
    let first = |answer: &Answer| -> BTreeSet<(Option<String>, String)> {
        let rows = answer.rows.iter().take(TOP);
        rows.map(|row| (row.relation.clone(), folded(&row.target))).collect()
    };
    let overlap = |(a, b): (&Answer, &Answer)| {
        let (a, b) = (first(a), first(b));
        match a.union(&b).count() {
            0 => 1.0,
            all => a.intersection(&b).count() as f64 / all as f64,
        }
    };
    a.iter().zip(b).map(overlap).sum::<f64>() / a.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_share_half_of_their_rows_overlap_by_a_third() {
        let row = |target: &str| Row {
            relation: None,
            target: target.to_owned(),
            source: "gate".to_owned(),
            confidence: None,
            layer: 0,
            feature: 0,
        };
        let answer = |targets: [&str; 2]| Answer {
            entity: "x".to_owned(),
            rows: targets.iter().map(|target| row(target)).collect(),
        };
        let found = jaccard(&[answer(["a", "b"])], &[answer(["b", "c"])]);
        assert!((found - 1.0 / 3.0).abs() < 1e-12, "{found}");
    }
}
