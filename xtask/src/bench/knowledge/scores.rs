//! How answers are judged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::TOP;
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

/// Counts of one entity, so that entities can be drawn again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub pairs: f64,
    pub found: f64,
    pub reciprocal: f64,
    pub chance: f64,
    pub common: f64,
    pub strings: f64,
    pub typed: f64,
    pub right: f64,
    pub untyped: f64,
}

impl Counts {
    /// Both together.
    pub fn plus(mut self, other: &Self) -> Self {
        self.pairs += other.pairs;
        self.found += other.found;
        self.reciprocal += other.reciprocal;
        self.chance += other.chance;
        self.common += other.common;
        self.strings += other.strings;
        self.typed += other.typed;
        self.right += other.right;
        self.untyped += other.untyped;
        self
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Scores {
    /// By choice of sources and entity.
    pub entities: BTreeMap<String, Vec<Counts>>,
    /// By choice of sources and relation.
    pub relations: BTreeMap<String, BTreeMap<String, Counts>>,
    /// Confidences with whether they were right, by choice of sources.
    pub predictions: BTreeMap<String, Vec<(f64, bool)>>,
    /// Source of each verified edge, and whether it needs its feature.
    pub verified: Vec<(String, bool)>,
    /// Mean overlap of the first rows of two extractions.
    pub jaccard: Option<f64>,
    /// Of relations that labels never saw: pairs, those whose object is shown, and the control.
    pub discovered: (usize, usize, usize),
}

impl Scores {
    /// Judges answers; `train` says which entities labels saw.
    pub fn add(
        &mut self,
        sources: &str,
        facts: &Facts,
        train: &dyn Fn(&str) -> bool,
        answers: &[Answer],
    ) {
        let common = facts.most_common(train);
        for (at, Answer { entity, rows }) in answers.iter().enumerate() {
            let mut of_entity = Counts::default();
            let rows = &rows[..rows.len().min(TOP)];
            let strings = facts.by_string(entity, train);
            let relations = self.relations.entry(sources.to_owned()).or_default();
            // Another entity that has the relation, whose objects the same rows are judged by.
            let other = |relation: &str| {
                let others = answers[at + 1..].iter().chain(&answers[..at]);
                others
                    .map(|other| &other.entity)
                    .find(|other| facts.of(other).contains_key(relation))
            };
            for (relation, objects) in facts.of(entity) {
                let is_of = |row: &&Row| row.relation.as_deref() == Some(relation);
                let place = rows
                    .iter()
                    .position(|row| is_of(&row) && objects.contains(&folded(&row.target)));
                let by_chance = other(relation).is_some_and(|other| {
                    rows.iter().filter(is_of).any(|row| facts.holds(other, relation, &row.target))
                });
                let says = |table: &BTreeMap<String, String>| {
                    table.get(relation).is_some_and(|object| objects.contains(&folded(object)))
                };
                let one = |is: bool| f64::from(u8::from(is));
                let counts = Counts {
                    pairs: 1.0,
                    found: one(place.is_some()),
                    reciprocal: place.map_or(0.0, |place| 1.0 / (place + 1) as f64),
                    chance: one(by_chance),
                    common: one(says(&common)),
                    strings: one(says(&strings)),
                    ..Counts::default()
                };
                of_entity = of_entity.plus(&counts);
                let sum = relations.entry(relation.clone()).or_default();
                *sum = sum.plus(&counts);
            }
            for row in rows {
                let Some(relation) = &row.relation else {
                    of_entity.untyped += 1.0;
                    continue;
                };
                let right = facts.holds(entity, relation, &row.target);
                of_entity.typed += 1.0;
                of_entity.right += f64::from(u8::from(right));
                let sum = relations.entry(relation.clone()).or_default();
                sum.typed += 1.0;
                sum.right += f64::from(u8::from(right));
                if let Some(confidence) = row.confidence {
                    let predictions = self.predictions.entry(sources.to_owned()).or_default();
                    predictions.push((confidence, right));
                }
            }
            self.entities.entry(sources.to_owned()).or_default().push(of_entity);
        }
    }
}

/// The expected calibration error over ten bins of equal width.
pub fn calibration_error(predictions: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0); 10];
    for &(confidence, right) in predictions {
        let bin = &mut bins[((confidence * 10.0) as usize).min(9)];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(right));
    }
    bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum::<f64>()
        / predictions.len().max(1) as f64
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

/// For relations that no label knows: pairs of entity and relation, those whose object some row
/// shows under whatever name, and the same with another entity's object.
pub fn discovered(facts: &Facts, answers: &[Answer], relations: &[&str]) -> (usize, usize, usize) {
    let (mut pairs, mut found, mut chance) = (0, 0, 0);
    for (at, answer) in answers.iter().enumerate() {
        for relation in relations.iter().filter(|&&one| facts.of(&answer.entity).contains_key(one))
        {
            let others = answers[at + 1..].iter().chain(&answers[..at]);
            let other = others.map(|other| &other.entity);
            let other = other.clone().find(|other| facts.of(other).contains_key(*relation));
            let rows = || answer.rows.iter().take(TOP);
            pairs += 1;
            found +=
                usize::from(rows().any(|row| facts.holds(&answer.entity, relation, &row.target)));
            chance +=
                usize::from(other.is_some_and(|other| {
                    rows().any(|row| facts.holds(other, relation, &row.target))
                }));
        }
    }
    (pairs, found, chance)
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
