//! Many facts in one update of a down projection.
//!
//! With keys `K` (activations where the facts are asked for), wanted changes `R` of the network's
//! output there, and second moments `C` of the activations of a corpus, the update
//! `dW = R K^T (c C + K K^T)^-1` answers the facts and changes what the corpus needs least. Keys and
//! corpus may first be projected onto the directions that preserved keys leave free.
//!
//! # Source
//! Meng et al. 2022 (arXiv:2210.07229), equation 14; the projection: Fang et al. 2024
//! (arXiv:2410.02355).

use faer::{Mat, Side};

use super::solve::{SolveError, add_outer, positive_definite};

/// Eigenvalues below this part of their mean are directions that preserved keys leave free.
const FREE: f64 = 2e-2;

/// Second moments of activations that an update should leave alone.
#[derive(Debug, Clone)]
pub struct Preserved {
    second: Mat<f64>,
    count: f64,
}

impl Preserved {
    /// None yet, of that many features.
    pub fn new(features: usize) -> Preserved {
        Preserved { second: Mat::zeros(features, features), count: 0.0 }
    }

    /// Counts activations.
    ///
    /// # Shapes
    /// `activations`: `[features]`.
    pub fn add(&mut self, activations: &[f32]) {
        add_outer(&mut self.second, [activations], 1.0);
        self.count += 1.0;
    }

    /// The directions that they leave free, as rows: `[free, features]`.
    ///
    /// # Errors
    /// Where the moments are not finite.
    pub fn free_directions(&self) -> Result<Vec<Vec<f64>>, SolveError> {
        let features = self.second.nrows();
        let decomposed = self.second.self_adjoint_eigen(Side::Lower).map_err(|_| SolveError)?;
        let values = decomposed.S().column_vector();
        let vectors = decomposed.U();
        let mean = (0..features).map(|index| values[index]).sum::<f64>() / features.max(1) as f64;
        let free = (0..features).filter(|&index| values[index] < FREE * mean);
        let row = |index: usize| (0..features).map(|feature| vectors[(feature, index)]).collect();
        Ok(free.map(row).collect())
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

/// Solves for the update that maps every key to its change.
///
/// `weight` is how much the preserved activations count against the keys; `free`, where it is given,
/// are the directions that the update is confined to ([`Preserved::free_directions`]).
///
/// # Shapes
/// `keys`: `[facts][features]`; `changes`: `[facts][hidden]`; panics if their numbers differ.
/// # Errors
/// Where the equations are not positive definite.
pub fn closed_form(
    keys: &[&[f32]],
    changes: &[&[f32]],
    preserved: &Preserved,
    weight: f64,
    free: Option<&[Vec<f64>]>,
) -> Result<LinearUpdate, SolveError> {
    assert_eq!(keys.len(), changes.len(), "a change for each key");
    let features = preserved.second.nrows();
    let projected: Vec<Vec<f32>> = match free {
        None => keys.iter().map(|key| key.to_vec()).collect(),
        Some(free) => keys.iter().map(|key| project(key, free)).collect(),
    };
    let count = preserved.count.max(1.0);
    let mut moments = Mat::from_fn(features, features, |row, column| {
        weight * preserved.second[(row, column)] / count
    });
    let trace: f64 = (0..features).map(|index| moments[(index, index)]).sum();
    let own: f64 = projected.iter().flatten().map(|&x| f64::from(x).powi(2)).sum();
    let ridge = 1e-3 * (trace + 1e-3 * own).max(f64::MIN_POSITIVE) / features.max(1) as f64;
    for index in 0..features {
        moments[(index, index)] += ridge;
    }
    add_outer(&mut moments, projected.iter().map(Vec::as_slice), 1.0);
    let right = Mat::from_fn(features, keys.len(), |row, column| f64::from(projected[column][row]));
    let solution = positive_definite(moments.as_ref(), right.as_ref())?;
    let mut update = LinearUpdate { rank: keys.len(), ..LinearUpdate::default() };
    for (column, change) in changes.iter().enumerate() {
        update.left.extend_from_slice(change);
        let row: Vec<f32> = (0..features).map(|row| solution[(row, column)] as f32).collect();
        update.right.extend(match free {
            None => row,
            Some(free) => project(&row, free),
        });
    }
    Ok(update)
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
        let refs = |rows: &'_ [Vec<f32>]| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        let (owned_keys, owned_changes) = (refs(&keys), refs(&changes));
        let keys: Vec<&[f32]> = owned_keys.iter().map(Vec::as_slice).collect();
        let changes: Vec<&[f32]> = owned_changes.iter().map(Vec::as_slice).collect();
        let free = preserved.free_directions().unwrap();
        assert_eq!(free.len(), features / 2);
        for (free, leak) in [(None, 0.2), (Some(&free[..]), 1e-3)] {
            let update = closed_form(&keys, &changes, &preserved, 1.0, free).unwrap();
            assert_eq!(update.rank, 3);
            for (key, wanted) in keys.iter().zip(&changes) {
                let found = change(&update, key);
                let error: Vec<f32> = found.iter().zip(*wanted).map(|(a, b)| a - b).collect();
                assert!(length(&error) < 0.1 * length(wanted), "{found:?} {wanted:?}");
            }
            for row in &kept {
                assert!(length(&change(&update, row)) < leak * length(row), "confined: {leak}");
            }
        }
    }
}
