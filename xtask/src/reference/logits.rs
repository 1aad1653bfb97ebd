//! Logits of many prompts, and how far one distribution of the next token is from another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Bench, top};

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Engine {
    /// Ours, f32 over dequantised weights: what the file means.
    Exact,
    /// Ours, as it serves.
    Serving,
    /// llama.cpp, as it serves.
    LlamaCpp,
}

/// A row of logits for each prompt.
pub(super) type Rows = Rc<Vec<Vec<f32>>>;

/// Prompts, and what engines made of them.
pub(super) struct Probes {
    pub(super) prompts: Vec<Vec<u32>>,
    known: HashMap<(PathBuf, Engine), Rows>,
}

impl Probes {
    pub(super) fn new(prompts: Vec<Vec<u32>>) -> Self {
        Self { prompts, known: HashMap::new() }
    }

    /// Logits of every prompt's last position.
    pub(super) fn run(&mut self, bench: &Bench, file: &Path, by: Engine) -> anyhow::Result<Rows> {
        let key = (file.to_owned(), by);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let rows = match by {
            Engine::LlamaCpp => bench.environment.llama_cpp(file, &self.prompts, true)?,
            Engine::Exact => bench.logits_of(file, &self.prompts, false)?,
            Engine::Serving => bench.logits_of(file, &self.prompts, true)?,
        };
        let rows = Rc::new(rows);
        self.known.insert(key, rows.clone());
        Ok(rows)
    }
}

/// Divergence of each row found from the one expected.
pub(super) fn divergences(expected: &Rows, found: &Rows) -> Vec<f64> {
    expected.iter().zip(&**found).map(|(expected, found)| divergence(expected, found)).collect()
}

/// In how many rows the likeliest token is the one expected.
pub(super) fn same_top(expected: &Rows, found: &Rows) -> usize {
    expected.iter().zip(&**found).filter(|(expected, found)| top(expected) == top(found)).count()
}

/// Kullback-Leibler divergence of the distribution by `found` from that by `expected`, in nats.
fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let (expected, found) = (log_softmax(expected), log_softmax(found));
    // Rounding alone may take it below 0.
    expected.iter().zip(&found).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum();
    logits.iter().map(|&logit| f64::from(logit) - most - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::divergence;

    #[test]
    fn divergence_is_zero_for_shifted_logits_and_positive_for_others() {
        assert!(divergence(&[1.0, 2.0, 3.0], &[0.0, 1.0, 2.0]).abs() < 1e-12);
        // Certain of the first of two against even odds: ln 2.
        let certain = divergence(&[60.0, 0.0], &[0.0, 0.0]);
        assert!((certain - std::f64::consts::LN_2).abs() < 1e-12, "{certain}");
    }
}
