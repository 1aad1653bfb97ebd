//! Matrix times vector, one dot product a row: the product of decode, bound by reading the matrix.

use super::dot::dispatch;
use super::rows::Rows;
use super::rows_per_task;
use crate::cpu::Pool;
use crate::quant::MatrixView;

/// Writes `out[r] = row r · x`.
///
/// # Shapes
/// `matrix`: `[m, k]`; `x`: `[k]`; `out`: `[m]`; panics if they differ. Each row is one [`dot`]
/// (and within its bound), so the result does not depend on the pool.
///
/// [`dot`]: super::dot()
pub fn matvec(pool: &Pool, matrix: &MatrixView, x: &[f32], out: &mut [f32]) {
    assert_eq!(matrix.columns(), x.len(), "columns and vector differ");
    assert_eq!(matrix.rows(), out.len(), "rows and result differ");
    let rows = Rows::for_dot(matrix);
    let dot = dispatch(rows.dtype());
    pool.run_chunks(out, rows_per_task(matrix.row_bytes()), &|first, out| {
        for (offset, value) in out.iter_mut().enumerate() {
            *value = rows.lend(first + offset, |row| dot(row, x));
        }
    });
}

/// Writes `out[i] = row rows[i] · x` for some rows alone; panics outside the matrix.
pub fn matvec_rows(pool: &Pool, matrix: &MatrixView, rows: &[usize], x: &[f32], out: &mut [f32]) {
    assert_eq!(matrix.columns(), x.len(), "columns and vector differ");
    assert_eq!(rows.len(), out.len(), "rows and result differ");
    let lender = Rows::for_dot(matrix);
    let dot = dispatch(lender.dtype());
    pool.run_chunks(out, rows_per_task(matrix.row_bytes()), &|first, out| {
        for (value, &row) in out.iter_mut().zip(&rows[first..]) {
            *value = lender.lend(row, |row| dot(row, x));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_the_same_for_any_number_of_threads_and_any_choice_of_rows() {
        for (rows, columns) in [(1, 1), (255, 257), (257, 255), (3, 2880)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i % 23) as f32 - 11.0).collect();
            let x: Vec<f32> = (0..columns).map(|i| (i % 7) as f32 - 3.0).collect();
            let matrix = MatrixView::from_f32(rows, columns, &values).unwrap();
            // Small whole numbers add without rounding, so the definition is met exactly.
            let expected: Vec<f32> = values
                .chunks(columns)
                .map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum())
                .collect();
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let mut out = vec![f32::NAN; rows];
                matvec(&pool, &matrix, &x, &mut out);
                assert_eq!(out, expected);
                let chosen: Vec<usize> = (0..rows).rev().step_by(2).collect();
                let mut out = vec![f32::NAN; chosen.len()];
                matvec_rows(&pool, &matrix, &chosen, &x, &mut out);
                assert!(out.iter().zip(&chosen).all(|(&value, &row)| value == expected[row]));
            }
        }
    }
}
