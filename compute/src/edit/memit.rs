//! Many facts in one update of a down projection.
//!
//! With keys `K` (activations where the facts are asked for), wanted changes `R` of the network's
//! output there, and second moments `C` of activations that should stay as they are, the update
//! `dW = R K^T (C + K K^T)^-1` answers the facts and changes the rest least. To `C` belong a corpus, the
//! facts' neighbours, and the keys of earlier updates. Facts of one update are set apart: each says nothing of
//! the others' mean keys where that costs little. Keys and corpus may first be projected onto the
//! directions that the corpus leaves free.
//!
//! # Source
//! Meng et al. 2022 (arXiv:2210.07229), equation 14; the projection and earlier keys: Fang et al. 2024
//! (arXiv:2410.02355), equation 12.

use std::sync::OnceLock;

use faer::linalg::solvers::DenseSolveCore as _;
use faer::{Mat, Side};

use super::solve::{SolveError, add_outer, positive_definite};

/// How much the corpus counts, all of it, against one key.
const CORPUS_WEIGHT: f64 = 8000.0;
/// How much each neighbour does.
const KEPT_WEIGHT: f64 = 8.0;
/// How much each fact of an earlier update does.
const EARLIER_WEIGHT: f64 = 2400.0;
/// Penalty on an update's length, in parts of the mean of the moments: what no prompt has shown is left alone, too.
const RIDGE: f64 = 5e-2;
/// Eigenvalues below this part of their mean are directions that preserved keys leave free.
const FREE: f64 = 0.3;

/// How much longer a row may be for saying nothing of the other facts that are solved for with it.
const LONGER_MAX: f64 = 2.0;
/// The least that an update may say of its own keys.
const LEVEL_MIN: f64 = 1e-6;

/// Second moments of activations that an update should leave alone.
#[derive(Debug, Clone)]
pub struct Preserved {
    second: Mat<f64>,
    count: f64,
    /// Solved for once, when first asked for.
    free: OnceLock<Vec<Vec<f64>>>,
}

impl Preserved {
    /// None yet, of that many features.
    pub fn new(features: usize) -> Preserved {
        Preserved { second: Mat::zeros(features, features), count: 0.0, free: OnceLock::new() }
    }

    /// Counts activations.
    ///
    /// # Shapes
    /// `activations`: `[features]`.
    pub fn add(&mut self, activations: &[f32]) {
        add_outer(&mut self.second, [activations], 1.0);
        self.count += 1.0;
        self.free.take();
    }

    /// The directions that they leave free, as rows: `[free, features]`.
    ///
    /// # Errors
    /// Where the moments are not finite.
    pub fn free_directions(&self) -> Result<&[Vec<f64>], SolveError> {
        if let Some(free) = self.free.get() {
            return Ok(free);
        }
        let features = self.second.nrows();
        let decomposed = self.second.self_adjoint_eigen(Side::Lower).map_err(|_| SolveError)?;
        let values = decomposed.S().column_vector();
        let vectors = decomposed.U();
        let mean = (0..features).map(|index| values[index]).sum::<f64>() / features.max(1) as f64;
        let free = (0..features).filter(|&index| values[index] < FREE * mean);
        let row = |index: usize| (0..features).map(|feature| vectors[(feature, index)]).collect();
        let free: Vec<Vec<f64>> = free.map(row).collect();
        Ok(self.free.get_or_init(|| free))
    }
}

/// An update `left^T right` of a down projection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinearUpdate {
    /// A row for each fact.
    pub rank: usize,
    /// `[rank, hidden]`
    pub left: Vec<f32>,
    /// `[rank, features]`
    pub right: Vec<f32>,
}

/// A fact: where it is asked for, and what the network should add there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyedChange {
    /// The activations: `[prompts][features]`.
    pub keys: Vec<Vec<f32>>,
    /// `[hidden]`
    pub change: Vec<f32>,
}

/// What an update is made beside.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'b> {
    /// Activations that are to be left alone as much as the facts are to be known: `[][features]`.
    pub kept: &'b [Vec<f32>],
    /// Updates that are in force.
    pub earlier: &'b [LinearUpdate],
    /// Whether the update is confined to directions that the corpus leaves free.
    pub confined: bool,
    /// How much the corpus counts, 1 as usual.
    pub weight: f64,
}

impl Default for Beside<'_> {
    fn default() -> Self {
        Self { kept: &[], earlier: &[], confined: false, weight: 1.0 }
    }
}

/// Solves for the update that makes every fact's keys its change: a row for each fact. Where the corpus
/// leaves free no direction that the keys of a fact have a part in, as in networks of few features, the
/// update is not confined.
///
/// # Errors
/// Where the equations are not positive definite, or keys are all zero.
pub fn closed_form(
    facts: &[KeyedChange],
    preserved: &Preserved,
    beside: &Beside<'_>,
) -> Result<LinearUpdate, SolveError> {
    match solve(facts, preserved, beside) {
        Err(SolveError) if beside.confined => {
            solve(facts, preserved, &Beside { confined: false, ..*beside })
        }
        solved => solved,
    }
}

fn solve(
    facts: &[KeyedChange],
    preserved: &Preserved,
    beside: &Beside<'_>,
) -> Result<LinearUpdate, SolveError> {
    let features = preserved.second.nrows();
    let free = if beside.confined { Some(preserved.free_directions()?) } else { None };
    let projected = |row: &[f32]| match free {
        None => row.to_vec(),
        Some(free) => project(row, free),
    };
    let count = preserved.count.max(1.0);
    let mut moments = Mat::from_fn(features, features, |row, column| {
        beside.weight * CORPUS_WEIGHT * preserved.second[(row, column)] / count
    });
    let keys: Vec<Vec<Vec<f32>>> =
        facts.iter().map(|fact| fact.keys.iter().map(|key| projected(key)).collect()).collect();
    let trace: f64 = (0..features).map(|index| moments[(index, index)]).sum();
    let number = keys.iter().flatten().count().max(1) as f64;
    let own: f64 = keys.iter().flatten().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let ridge = RIDGE * (trace + 1e-3 * own).max(f64::MIN_POSITIVE) / features.max(1) as f64;
    for index in 0..features {
        moments[(index, index)] += ridge;
    }
    // What an earlier update answers to is known by what it was solved from: `A x = k`.
    let length = (own / number).sqrt();
    let mut reserved: Vec<Vec<f32>> = Vec::new();
    for row in beside.earlier.iter().flat_map(|update| update.rows(features)) {
        let answers: Vec<f64> = (0..features)
            .map(|index| {
                row.iter().enumerate().map(|(at, &x)| moments[(index, at)] * f64::from(x)).sum()
            })
            .collect();
        let norm = answers.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 0.0 {
            let scaled = answers.iter().map(|x| (x * length / norm) as f32).collect::<Vec<f32>>();
            reserved.push(projected(&scaled));
        }
    }
    add_outer(&mut moments, reserved.iter().map(Vec::as_slice), EARLIER_WEIGHT);
    let kept: Vec<Vec<f32>> = beside.kept.iter().map(|row| projected(row)).collect();
    add_outer(&mut moments, kept.iter().map(Vec::as_slice), KEPT_WEIGHT);
    add_outer(&mut moments, keys.iter().flatten().map(Vec::as_slice), 1.0);
    let right = Mat::from_fn(features, facts.len(), |row, column| {
        keys[column].iter().map(|key| f64::from(key[row])).sum::<f64>()
    });
    let solution = positive_definite(moments.as_ref(), right.as_ref())?;
    let rows: Vec<Vec<f32>> = (0..facts.len())
        .map(|column| {
            let row: Vec<f32> = (0..features).map(|row| solution[(row, column)] as f32).collect();
            projected(&row)
        })
        .collect();
    let means: Vec<Vec<f32>> = facts.iter().map(|fact| mean(&fact.keys, features)).collect();
    let mut update = LinearUpdate { rank: facts.len(), ..LinearUpdate::default() };
    for ((row, mean), fact) in apart(rows, &means)?.iter().zip(&means).zip(facts) {
        update.right.extend(row);
        // What earlier updates add here already.
        let mut change = fact.change.clone();
        for earlier in beside.earlier {
            let hidden = change.len();
            for (rank, row) in earlier.rows(features).enumerate() {
                let factor = product(row, mean) as f32;
                let left = &earlier.left[rank * hidden..(rank + 1) * hidden];
                change.iter_mut().zip(left).for_each(|(change, left)| *change -= factor * left);
            }
        }
        update.left.extend(change);
    }
    Ok(update)
}

/// Rows that say 1 of their own fact's mean key and, where that takes none much longer, 0 of the others'.
fn apart(rows: Vec<Vec<f32>>, means: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, SolveError> {
    let count = rows.len();
    let says = Mat::from_fn(count, count, |row, mean| product(&rows[row], &means[mean]));
    if (0..count).any(|row| says[(row, row)] <= LEVEL_MIN) {
        return Err(SolveError);
    }
    let unit = |row: usize| -> Vec<f32> {
        rows[row].iter().map(|x| (f64::from(*x) / says[(row, row)]) as f32).collect()
    };
    let alone: Vec<Vec<f32>> = (0..count).map(unit).collect();
    let inverse = says.partial_piv_lu().inverse();
    let width = rows.first().map_or(0, Vec::len);
    let together = (0..count).map(|row| {
        let mut sum = vec![0.0; width];
        for (other, numbers) in rows.iter().enumerate() {
            let factor = inverse[(row, other)];
            sum.iter_mut().zip(numbers).for_each(|(sum, &x)| *sum += factor * f64::from(x));
        }
        sum.into_iter().map(|x| x as f32).collect::<Vec<f32>>()
    });
    let length = |row: &[f32]| product(row, row).sqrt();
    let chosen = together.zip(alone).map(|(together, alone)| {
        let fits = length(&together) <= LONGER_MAX * length(&alone);
        if fits { together } else { alone }
    });
    Ok(chosen.collect())
}

impl LinearUpdate {
    /// Its right side's rows, over the base's features.
    fn rows(&self, features: usize) -> impl Iterator<Item = &[f32]> {
        let width = self.right.len() / self.rank.max(1);
        self.right.chunks_exact(width.max(1)).map(move |row| &row[..features.min(width)])
    }
}

fn mean(rows: &[Vec<f32>], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    rows.iter().for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
    sum.iter().map(|sum| sum / rows.len().max(1) as f32).collect()
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn project(row: &[f32], free: &[Vec<f64>]) -> Vec<f32> {
    let mut sum = vec![0.0; row.len()];
    for direction in free {
        let along: f64 = direction.iter().zip(row).map(|(a, &b)| a * f64::from(b)).sum();
        sum.iter_mut().zip(direction).for_each(|(sum, a)| *sum += along * a);
    }
    sum.into_iter().map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look drawn, so that no direction of many rows is rare.
    fn row(seed: usize, length: usize) -> Vec<f32> {
        let mut state = seed as u64 + 1;
        let mut number = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        // The first ones are alike for seeds that are.
        number();
        number();
        (0..length).map(|_| number()).collect()
    }

    fn change(update: &LinearUpdate, key: &[f32]) -> Vec<f32> {
        let (hidden, features) = (update.left.len() / update.rank, key.len());
        let mut sum = vec![0.0; hidden];
        for rank in 0..update.rank {
            let right = &update.right[rank * features..(rank + 1) * features];
            let factor: f32 = right.iter().zip(key).map(|(a, b)| a * b).sum();
            let left = &update.left[rank * hidden..(rank + 1) * hidden];
            sum.iter_mut().zip(left).for_each(|(sum, left)| *sum += factor * left);
        }
        sum
    }

    fn length(row: &[f32]) -> f32 {
        row.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    #[test]
    fn where_no_direction_is_free_an_update_answers_all_the_same() {
        let features = 3;
        let mut preserved = Preserved::new(features);
        (0..12).for_each(|seed| preserved.add(&row(seed, features)));
        assert!(preserved.free_directions().unwrap().is_empty());
        let fact = KeyedChange { keys: vec![row(99, features)], change: vec![1.0, -2.0] };
        let beside = Beside { confined: true, ..Beside::default() };
        let update = closed_form(std::slice::from_ref(&fact), &preserved, &beside).unwrap();
        let found = change(&update, &fact.keys[0]);
        assert!((found[0] - 1.0).abs() < 1e-3 && (found[1] + 2.0).abs() < 1e-3, "{found:?}");
        let zero = KeyedChange { keys: vec![vec![0.0; features]], ..fact };
        assert_eq!(closed_form(&[zero], &preserved, &beside), Err(SolveError));
    }

    #[test]
    fn an_update_answers_its_keys_and_leaves_what_is_preserved() {
        let (features, hidden) = (24, 6);
        let mut preserved = Preserved::new(features);
        // What is preserved lives in the first half of the features.
        let kept: Vec<Vec<f32>> = (0..40)
            .map(|seed| {
                let mut row = row(seed, features);
                row[features / 2..].fill(0.0);
                row
            })
            .collect();
        kept.iter().for_each(|row| preserved.add(row));
        let keys: Vec<Vec<f32>> = (0..3).map(|seed| row(100 + seed, features)).collect();
        let changes: Vec<Vec<f32>> = (0..3).map(|seed| row(200 + seed, hidden)).collect();
        let facts: Vec<KeyedChange> = keys
            .iter()
            .zip(&changes)
            .map(|(key, change)| KeyedChange { keys: vec![key.clone()], change: change.clone() })
            .collect();
        assert_eq!(preserved.free_directions().unwrap().len(), features / 2);
        for (confined, leak) in [(false, 0.2), (true, 1e-3)] {
            let beside = Beside { confined, ..Beside::default() };
            let update = closed_form(&facts, &preserved, &beside).unwrap();
            assert_eq!(update.rank, 3);
            for (key, wanted) in keys.iter().zip(&changes) {
                let found = change(&update, key);
                let error: Vec<f32> = found.iter().zip(wanted).map(|(a, b)| a - b).collect();
                assert!(length(&error) < 0.1 * length(wanted), "{found:?} {wanted:?}");
            }
            for row in &kept {
                assert!(length(&change(&update, row)) < leak * length(row), "confined: {confined}");
            }
        }
    }

    #[test]
    fn a_later_update_leaves_an_earlier_one_and_the_neighbours_that_are_named() {
        let (features, hidden) = (48, 6);
        let mut preserved = Preserved::new(features);
        (0..30).for_each(|seed| preserved.add(&row(seed, features)));
        // Alike in half of what they are.
        let like = |a: &[f32], b: &[f32]| -> Vec<f32> {
            a.iter().zip(b).map(|(a, b)| 0.7 * a + 0.7 * b).collect()
        };
        let first = row(100, features);
        let second = like(&first, &row(101, features));
        let neighbour = like(&second, &row(102, features));
        let fact = |key: &[f32], seed: usize| KeyedChange {
            keys: vec![key.to_vec()],
            change: row(seed, hidden),
        };
        let facts = [fact(&first, 200), fact(&second, 201)];
        // A corpus of as many directions as these would hide what the others do.
        let lightly = Beside { weight: 0.1, ..Beside::default() };
        let earlier = closed_form(&facts[..1], &preserved, &lightly).unwrap();
        let kept = [neighbour.clone()];
        let beside = Beside { kept: &kept, earlier: std::slice::from_ref(&earlier), ..lightly };
        let later = closed_form(&facts[1..], &preserved, &beside).unwrap();
        let both = |key: &[f32]| -> Vec<f32> {
            change(&earlier, key).iter().zip(change(&later, key)).map(|(a, b)| a + b).collect()
        };
        for (key, fact) in [&first, &second].into_iter().zip(&facts) {
            let error: Vec<f32> = both(key).iter().zip(&fact.change).map(|(a, b)| a - b).collect();
            assert!(length(&error) < 0.2 * length(&fact.change), "{error:?}");
        }
        assert!(length(&change(&later, &neighbour)) < 0.2 * length(&facts[1].change));
    }
}
