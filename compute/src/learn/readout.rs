//! Linear readouts: what a direction of the residual stream says, learned from examples.

use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::dot;

/// Rows of a product of vectors with each other that make a task.
const ROWS_A_TASK: usize = 8;
/// Keeps a factorisation of rows that are all the same finite.
const PENALTY_MIN: f32 = 1e-30;

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
    /// `Cancelled`, asked before every row of the factorisation.
    /// # Source
    /// Saunders, Gammerman and Vovk 1998: ridge regression by the rows' products with each other,
    /// where there are fewer rows than dimensions; the normal equations otherwise.
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
        let penalty = (ridge * dot(&centred, &centred) / d.max(1) as f32).max(PENALTY_MIN);
        let bias: Vec<f32> = (0..outputs)
            .map(|output| {
                let sum: f32 = (0..count).map(|row| targets[row * outputs + output]).sum();
                sum / count as f32
            })
            .collect();
        let targets: Vec<Vec<f32>> = (0..outputs)
            .map(|output| {
                (0..count).map(|row| targets[row * outputs + output] - bias[output]).collect()
            })
            .collect();
        let weights = solve(pool, &centred, d, &targets, penalty, cancel)?;
        Ok(LinearReadout { mean, weights, bias })
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

/// For each target the weights `w` of least `|rows w - target|² + penalty |w|²`: `[targets, d]`.
fn solve(
    pool: &Pool,
    rows: &[f32],
    d: usize,
    targets: &[Vec<f32>],
    penalty: f32,
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    let count = rows.len() / d.max(1);
    let by_dimensions = d <= count;
    // Vectors whose products with each other are the matrix to solve with.
    let turned;
    let (vectors, length) = match by_dimensions {
        true => {
            turned = transposed(rows, d);
            (&turned[..], count)
        }
        false => (rows, d),
    };
    let factor = Cholesky::of_products(pool, vectors, length, penalty, cancel)?;
    let mut weights = vec![0.0; targets.len() * d];
    pool.run_chunks(&mut weights, d.max(1), &|first, weights| {
        let target = &targets[first / d];
        if by_dimensions {
            let columns = vectors.chunks_exact(length.max(1));
            weights.iter_mut().zip(columns).for_each(|(w, column)| *w = dot(column, target));
            factor.solve(weights);
        } else {
            let mut parts = target.clone();
            factor.solve(&mut parts);
            for (row, part) in rows.chunks_exact(d).zip(parts) {
                weights.iter_mut().zip(row).for_each(|(w, x)| *w += part * x);
            }
        }
    });
    Ok(weights)
}

fn transposed(rows: &[f32], d: usize) -> Vec<f32> {
    let count = rows.len() / d.max(1);
    (0..rows.len()).map(|index| rows[index % count * d + index / count]).collect()
}

/// The lower triangle `l` of a symmetric positive definite matrix `l lᵀ`.
struct Cholesky {
    size: usize,
    /// `[size, size]`; what lies above the diagonal is not read.
    lower: Vec<f32>,
}

impl Cholesky {
    /// Factorises the vectors' products with each other, `penalty` added to the diagonal.
    fn of_products(
        pool: &Pool,
        vectors: &[f32],
        length: usize,
        penalty: f32,
        cancel: &Cancel,
    ) -> Result<Cholesky, Cancelled> {
        let vector = |index: usize| &vectors[index * length..(index + 1) * length];
        let size = vectors.len() / length.max(1);
        let mut lower = vec![0.0; size * size];
        pool.run_chunks(&mut lower, (size * ROWS_A_TASK).max(1), &|first, rows| {
            for (index, row) in rows.chunks_exact_mut(size).enumerate() {
                let a = first / size + index;
                row[..=a].iter_mut().enumerate().for_each(|(b, x)| *x = dot(vector(a), vector(b)));
                row[a] += penalty;
            }
        });
        for row in 0..size {
            cancel.check()?;
            let (above, rest) = lower.split_at_mut(row * size);
            let row_of = &mut rest[..size];
            for column in 0..row {
                let other = &above[column * size..][..size];
                let inner = dot(&row_of[..column], &other[..column]);
                row_of[column] = (row_of[column] - inner) / other[column];
            }
            let inner = dot(&row_of[..row], &row_of[..row]);
            // Rounding takes off far less than the penalty put on.
            row_of[row] = (row_of[row] - inner).max(penalty * 1e-3).sqrt();
        }
        Ok(Cholesky { size, lower })
    }

    /// Solves in place.
    fn solve(&self, right: &mut [f32]) {
        let Cholesky { size, lower } = self;
        let row_of = |row: usize| &lower[row * size..(row + 1) * size];
        for row in 0..*size {
            right[row] = (right[row] - dot(&row_of(row)[..row], &right[..row])) / row_of(row)[row];
        }
        for row in (0..*size).rev() {
            right[row] /= row_of(row)[row];
            let known = right[row];
            right[..row].iter_mut().zip(row_of(row)).for_each(|(x, l)| *x -= known * l);
        }
    }
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
    fn both_ways_to_solve_give_the_least_penalised_error() {
        let number = |i: usize| ((i * 29 % 83) as f32 - 41.0) / 41.0;
        for (count, d) in [(12, 5), (5, 12), (6, 6)] {
            let rows: Vec<f32> = (0..count * d).map(number).collect();
            let target: Vec<f32> = (0..count).map(|i| number(7 * i + 3)).collect();
            let (pool, cancel, penalty) = (Pool::new(2), Cancel::new(), 0.3);
            let w =
                solve(&pool, &rows, d, std::slice::from_ref(&target), penalty, &cancel).unwrap();
            // At the least error its gradient is 0.
            let misses: Vec<f32> =
                rows.chunks(d).zip(&target).map(|(row, t)| dot(row, &w) - t).collect();
            for (at, w) in w.iter().enumerate() {
                let along: f32 =
                    rows.chunks(d).zip(&misses).map(|(row, miss)| row[at] * miss).sum();
                assert!((along + penalty * w).abs() < 1e-4, "{count} {d} {at}");
            }
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
