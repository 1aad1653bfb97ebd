//! What was found, as counts and quantiles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::asker::Compared;
use super::questions::Neighbour;

/// How often something held.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    right: usize,
    of: usize,
}

impl Tally {
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.of += 1;
    }

    fn json(self) -> Value {
        json!([self.right, self.of])
    }
}

/// What edits did to answers.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    pub efficacy: Tally,
    pub paraphrases: Tally,
    /// Of those, the ones by which the base answers what was true before.
    pub paraphrases_understood: Tally,
    /// The same two of names that are in no table.
    pub invented: Tally,
    pub invented_paraphrases: Tally,
    kept: BTreeMap<&'static str, Tally>,
    /// Of all neighbours, those that nothing that makes edits has read.
    kept_unread: Tally,
    losses: BTreeMap<&'static str, Vec<f64>>,
    /// The worst loss of each edit's neighbours.
    worst: Vec<f64>,
    pub drift: Vec<f64>,
    pub seconds: Vec<f64>,
    /// Edits that were refused.
    pub refused: usize,
}

impl Scores {
    /// Counts what became of one edit's neighbours.
    pub fn add_neighbours(
        &mut self,
        neighbours: &[Neighbour],
        compared: &[Compared],
        is_read: &[bool],
    ) {
        for ((neighbour, compared), is_read) in neighbours.iter().zip(compared).zip(is_read) {
            if !is_read {
                self.kept_unread.add(compared.kept);
            }
            self.kept.entry(neighbour.kind).or_default().add(compared.kept);
            self.losses.entry(neighbour.kind).or_default().push(100.0 * compared.loss);
        }
        self.worst.push(100.0 * compared.iter().map(|one| one.loss).fold(0.0, f64::max));
    }

    pub fn json(&self) -> Value {
        let all: Vec<f64> = self.losses.values().flatten().copied().collect();
        let kept = self.kept.values().fold(Tally::default(), |sum, one| Tally {
            right: sum.right + one.right,
            of: sum.of + one.of,
        });
        let kinds: BTreeMap<&str, Value> = self
            .kept
            .iter()
            .map(|(kind, tally)| {
                (*kind, json!({"kept": tally.json(), "loss": spread(&self.losses[kind])}))
            })
            .collect();
        json!({
            "efficacy": self.efficacy.json(),
            "paraphrases": self.paraphrases.json(),
            "paraphrases_understood": self.paraphrases_understood.json(),
            "invented": self.invented.json(),
            "invented_paraphrases": self.invented_paraphrases.json(),
            "kept": kept.json(),
            "kept_unread": self.kept_unread.json(),
            "loss": spread(&all),
            "worst": spread(&self.worst),
            "kinds": kinds,
            "drift": spread(&self.drift),
            "seconds": spread(&self.seconds),
            "refused": self.refused,
        })
    }
}

/// Median, 90th and 98th percentile and most of some numbers.
fn spread(numbers: &[f64]) -> Value {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at =
        |share: f64| sorted.get((share * sorted.len().saturating_sub(1) as f64).round() as usize);
    json!({"median": at(0.5), "p90": at(0.9), "p98": at(0.98), "most": at(1.0)})
}
