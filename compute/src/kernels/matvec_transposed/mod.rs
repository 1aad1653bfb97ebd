//! Transposed matrix times vector: the product over a matrix whose rows are inputs.

use super::accumulate::accumulate;
use super::rows::Rows;
use crate::cpu::Pool;
use crate::quant::MatrixView;

/// Most parts into which the rows are cut: enough for any processor, and a bound on scratch
/// memory of this many rows of `f32`.
const PARTS_MAX: usize = 64;
/// Fewest rows that are worth a part of their own.
const ROWS_MIN: usize = 16;

/// Rows of a part of a matrix of so many rows.
pub(super) fn part_rows(rows: usize) -> usize {
    rows.div_ceil(PARTS_MAX).max(ROWS_MIN)
}

/// Adds `Σ a[r] · row r` to `out`.
///
/// Rows whose factor is exactly 0 are not read. The rows are cut into parts by the number of all
/// of them, and the parts' sums are added in order, so the result does not depend on the pool, and
/// many factors ([`matmul_transposed`](super::matmul_transposed)) give the same bits.
///
/// # Shapes
/// `matrix`: `[m, k]`; `a`: `[m]`; `out`: `[k]`; panics if they differ.
pub fn matvec_transposed(pool: &Pool, matrix: &MatrixView, a: &[f32], out: &mut [f32]) {
    assert_eq!(matrix.rows(), a.len(), "rows and factors differ");
    assert_eq!(matrix.columns(), out.len(), "columns and result differ");
    let lender = Rows::of(matrix);
    let part_rows = part_rows(a.len());
    let mut sums = vec![0.0; a.len().div_ceil(part_rows) * out.len()];
    if sums.is_empty() {
        return;
    }
    pool.run_chunks(&mut sums, out.len(), &|first, sum| {
        let first = first / sum.len() * part_rows;
        let factors = &a[first..a.len().min(first + part_rows)];
        let rows: Vec<(usize, f32)> = factors
            .iter()
            .enumerate()
            .filter(|(_, factor)| **factor != 0.0)
            .map(|(row, factor)| (first + row, *factor))
            .collect();
        lender.lend_weighted(&rows, |rows| accumulate(lender.dtype(), rows, sum));
    });
    for sum in sums.chunks(out.len()) {
        out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_the_same_for_any_number_of_threads_and_skips_zeros() {
        for (rows, columns) in [(1, 1), (255, 257), (2880, 3), (0, 4)] {
            let mut values: Vec<f32> =
                (0..rows * columns).map(|i| (i % 23) as f32 - 11.0).collect();
            let a: Vec<f32> = (0..rows).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut expected = vec![1.0; columns];
            for (row, factor) in values.chunks(columns).zip(&a) {
                expected.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
            }
            // A row that is not read cannot spoil the sum.
            for row in (0..rows).filter(|&row| a[row] == 0.0) {
                values[row * columns] = f32::NAN;
            }
            let matrix = MatrixView::from_f32(rows, columns, &values).unwrap();
            for threads in [1, 3] {
                let mut out = vec![1.0; columns];
                matvec_transposed(&Pool::new(threads), &matrix, &a, &mut out);
                assert_eq!(out, expected);
            }
        }
    }
}
