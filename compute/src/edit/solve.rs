//! Symmetric systems in `f64`, on faer.

use faer::linalg::solvers::{Llt, Solve as _};
use faer::{Mat, MatRef, Side};

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
