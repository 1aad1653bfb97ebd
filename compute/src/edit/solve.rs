//! Symmetric systems in `f64`, on faer.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Llt, Solve as _};
use faer::{Accum, Mat, MatRef, Par, Side};

/// Why a system was not solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system of equations is not positive definite; its inputs are not finite or all zero")]
pub struct SolveError;

/// Solves `a x = b` for a symmetric positive definite `a`.
///
/// # Shapes
/// `a`: `[n, n]`; `b` and the result: `[n, k]`.
/// # Errors
/// Where `a` is not positive definite.
/// # Source
/// Cholesky factorisation; Golub and Van Loan, *Matrix Computations*, section 4.2.
pub(super) fn positive_definite(
    a: MatRef<'_, f64>,
    b: MatRef<'_, f64>,
) -> Result<Mat<f64>, SolveError> {
    Factors::of(a)?.solve(b)
}

/// A symmetric positive definite matrix, factorised once for many right sides.
pub(super) struct Factors(Llt<f64>);

impl Factors {
    /// Factorises.
    ///
    /// # Errors
    /// Where the matrix is not positive definite.
    pub(super) fn of(a: MatRef<'_, f64>) -> Result<Self, SolveError> {
        a.llt(Side::Lower).map(Self).map_err(|_| SolveError)
    }

    /// Solves for right sides `[n, k]`.
    ///
    /// # Errors
    /// Where the solution is not finite.
    pub(super) fn solve(&self, b: MatRef<'_, f64>) -> Result<Mat<f64>, SolveError> {
        let solution = self.0.solve(b);
        let finite = (0..solution.ncols())
            .all(|column| (0..solution.nrows()).all(|row| solution[(row, column)].is_finite()));
        if finite { Ok(solution) } else { Err(SolveError) }
    }
}

/// Adds `weight * row row^T` for every row.
pub(super) fn add_outer<'r>(
    a: &mut Mat<f64>,
    rows: impl IntoIterator<Item = &'r [f32]>,
    weight: f64,
) {
    for row in rows {
        for (column, &right) in row.iter().enumerate() {
            let right = weight * f64::from(right);
            if right != 0.0 {
                for (index, &left) in row.iter().enumerate() {
                    a[(index, column)] += f64::from(left) * right;
                }
            }
        }
    }
}

/// Rows that are added together.
const BLOCK: usize = 256;

/// Adds `weight * row row^T` for many rows, each with its weight.
pub(super) fn add_many(a: &mut Mat<f64>, rows: &[(&[f32], f64)]) {
    for rows in rows.chunks(BLOCK) {
        let width = a.nrows();
        let plain = Mat::from_fn(rows.len(), width, |row, at| f64::from(rows[row].0[at]));
        let weighed = Mat::from_fn(width, rows.len(), |at, row| rows[row].1 * plain[(row, at)]);
        // On one thread: the order of sums is always the same.
        matmul(a.as_mut(), Accum::Add, weighed.as_ref(), plain.as_ref(), 1.0, Par::Seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_add_what_each_adds() {
        let rows: Vec<Vec<f32>> = (0..300)
            .map(|row| (0..5).map(|at| ((row * 7 + at * 3) % 11) as f32 - 5.0).collect())
            .collect();
        let weighed: Vec<(&[f32], f64)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (&**row, if at % 2 == 0 { 0.5 } else { -0.25 }))
            .collect();
        let (mut one, mut many) = (Mat::zeros(5, 5), Mat::zeros(5, 5));
        weighed.iter().for_each(|(row, weight)| add_outer(&mut one, [*row], *weight));
        add_many(&mut many, &weighed);
        for at in 0..25 {
            let difference: f64 = one[(at / 5, at % 5)] - many[(at / 5, at % 5)];
            assert!(difference.abs() < 1e-9, "{difference}");
        }
    }
}
