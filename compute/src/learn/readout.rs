//! Linear readouts: what a direction of the residual stream says, learned from examples.

use std::sync::Mutex;

use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::dot;

/// Steps of the solver at most; what it has not found by then is below the noise of the examples.
const STEPS_MAX: usize = 96;
/// The part of the first residual at which a solution is good enough.
const TOLERANCE: f32 = 1e-4;

/// Scores of several outputs, linear in the direction of a vector (its length does not count).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LinearReadout {
    /// What is taken from every direction: `[d]`.
    pub mean: Vec<f32>,
    /// `[outputs, d]` row-major.
    pub weights: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

impl LinearReadout {
    /// Fits by ridge regression; `ridge` is the penalty in parts of the mean squared length of the
    /// centred rows times their number.
    ///
    /// # Shapes
    /// `rows`: vectors of one length `d`, at least one; `targets`: `[rows, outputs]`; panics if they
    /// differ.
    /// # Errors
    /// `Cancelled`, asked before every step.
    /// # Source
    /// Hestenes and Stiefel 1952 (conjugate gradients on the normal equations).
    pub fn fit(
        pool: &Pool,
        rows: &[&[f32]],
        targets: &[f32],
        ridge: f32,
        cancel: &Cancel,
    ) -> Result<LinearReadout, Cancelled> {
        let (count, d) = (rows.len(), rows[0].len());
        let outputs = targets.len() / count;
        assert_eq!(targets.len(), outputs * count, "rows and targets differ");
        let mut centred = vec![0.0; count * d];
        for (row, out) in rows.iter().zip(centred.chunks_exact_mut(d.max(1))) {
            direction(row, out);
        }
        let mut mean = vec![0.0; d];
        for row in centred.chunks_exact(d.max(1)) {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / count as f32);
        }
        for row in centred.chunks_exact_mut(d.max(1)) {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
        }
        let penalty = ridge * dot(&centred, &centred).max(f32::MIN_POSITIVE) / d.max(1) as f32;
        let bias: Vec<f32> = (0..outputs)
            .map(|output| {
                let sum: f32 = (0..count).map(|row| targets[row * outputs + output]).sum();
                sum / count as f32
            })
            .collect();
        let solved: Vec<Mutex<Vec<f32>>> = (0..outputs).map(|_| Mutex::default()).collect();
        pool.run(outputs, &|output| {
            let target: Vec<f32> =
                (0..count).map(|row| targets[row * outputs + output] - bias[output]).collect();
            let weights = solve(&centred, &target, d, penalty, cancel);
            // Nobody panics while holding this lock.
            *solved[output].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = weights;
        });
        cancel.check()?;
        let weights = solved
            .into_iter()
            .flat_map(|one| one.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(LinearReadout { mean, weights: weights.collect(), bias })
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// The scores of one vector: `[outputs]`; panics if its length is not that of the examples.
    pub fn scores(&self, vector: &[f32]) -> Vec<f32> {
        let mut centred = vec![0.0; self.mean.len()];
        assert_eq!(vector.len(), centred.len(), "a vector of another length");
        direction(vector, &mut centred);
        centred.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
        let rows = self.weights.chunks_exact(centred.len().max(1));
        rows.zip(&self.bias).map(|(weights, bias)| dot(weights, &centred) + bias).collect()
    }
}

/// Writes the vector scaled to length 1, or 0 where it has none.
fn direction(vector: &[f32], out: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    let scale = if length > 0.0 && length.is_finite() { 1.0 / length } else { 0.0 };
    out.iter_mut().zip(vector).for_each(|(out, x)| *out = x * scale);
}

/// Weights `w` of least `|rows w - target|² + penalty |w|²`.
fn solve(rows: &[f32], target: &[f32], d: usize, penalty: f32, cancel: &Cancel) -> Vec<f32> {
    let rows = || rows.chunks_exact(d.max(1));
    let add_transposed = |values: &[f32], out: &mut [f32]| {
        for (row, &value) in rows().zip(values) {
            out.iter_mut().zip(row).for_each(|(out, x)| *out += value * x);
        }
    };
    let mut weights = vec![0.0; d];
    let mut residual = vec![0.0; d];
    add_transposed(target, &mut residual);
    let mut search = residual.clone();
    let mut length = dot(&residual, &residual);
    let good_enough = length * TOLERANCE * TOLERANCE;
    for _ in 0..STEPS_MAX {
        if length <= good_enough || cancel.check().is_err() {
            break;
        }
        let products: Vec<f32> = rows().map(|row| dot(row, &search)).collect();
        let mut image: Vec<f32> = search.iter().map(|x| penalty * x).collect();
        add_transposed(&products, &mut image);
        let step = length / dot(&search, &image).max(f32::MIN_POSITIVE);
        weights.iter_mut().zip(&search).for_each(|(w, s)| *w += step * s);
        residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step * i);
        let next = dot(&residual, &residual);
        let ratio = next / length;
        search.iter_mut().zip(&residual).for_each(|(s, r)| *s = r + ratio * *s);
        length = next;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readout_tells_directions_apart_that_it_never_saw_whatever_their_length() {
        let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
        // Three classes, each a direction with noise in all others.
        let made = |i: usize| -> (Vec<f32>, usize) {
            let class = i % 3;
            let mut row: Vec<f32> = (0..16).map(|j| 0.3 * number(i * 16 + j)).collect();
            row[class * 5] += 2.0;
            row.iter_mut().for_each(|x| *x *= 1.0 + (i % 7) as f32);
            (row, class)
        };
        let known: Vec<_> = (0..90).map(made).collect();
        let rows: Vec<&[f32]> = known.iter().map(|(row, _)| &row[..]).collect();
        let targets: Vec<f32> = known
            .iter()
            .flat_map(|&(_, class)| (0..3).map(move |c| if c == class { 1.0 } else { 0.0 }))
            .collect();
        let fit = |threads| {
            LinearReadout::fit(&Pool::new(threads), &rows, &targets, 0.01, &Cancel::new()).unwrap()
        };
        let readout = fit(1);
        assert_eq!(readout, fit(3), "the pool must not matter");
        for (row, class) in (90..150).map(made) {
            let scores = readout.scores(&row);
            let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            assert_eq!(best, class, "{scores:?}");
        }
    }

    #[test]
    fn rows_without_any_difference_give_the_rate_of_each_output() {
        let row = [1.0, 2.0];
        let targets = [1.0, 0.0, 0.0, 0.0];
        let readout =
            LinearReadout::fit(&Pool::new(1), &[&row[..]; 4], &targets, 0.1, &Cancel::new())
                .unwrap();
        assert_eq!(readout.scores(&row), [0.25]);
        assert!(readout.scores(&[0.0, 0.0])[0].is_finite());
    }
}
