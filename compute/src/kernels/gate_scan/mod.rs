//! The exact scan of a layer's gate rows: how strongly each feature answers a query.

use super::dot::dispatch;
use super::rows::Rows;
use super::rows_per_task;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::quant::MatrixView;

/// Returns `gate row f · q` for every feature.
///
/// # Shapes
/// `gates`: `[features, d]`; `q`: `[d]`; result: `[features]`; panics if they differ.
/// # Errors
/// `Cancelled`, asked before every tile.
pub fn gate_scan(
    pool: &Pool,
    gates: &MatrixView,
    q: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    let mut scores = vec![0.0; gates.rows()];
    scan_into(pool, gates, q, &mut scores, cancel)?;
    Ok(scores)
}

/// A [`matvec`](super::matvec()) that can be cancelled: `out[r] = row r · q`.
pub(crate) fn scan_into(
    pool: &Pool,
    matrix: &MatrixView,
    q: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    assert_eq!(matrix.columns(), q.len(), "rows and query differ");
    assert_eq!(matrix.rows(), out.len(), "rows and result differ");
    let rows = Rows::for_dot(matrix);
    let dot = dispatch(rows.dtype());
    pool.run_chunks(out, rows_per_task(matrix.row_bytes()), &|first, out| {
        if cancel.check().is_ok() {
            for (offset, score) in out.iter_mut().enumerate() {
                *score = rows.lend(first + offset, |row| dot(row, q));
            }
        }
    });
    cancel.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_products_of_the_rows_and_a_cancel_gives_none() {
        let values: Vec<f32> = (0..300 * 3).map(|i| (i % 11) as f32).collect();
        let gates = MatrixView::from_f32(300, 3, &values).unwrap();
        let cancel = Cancel::new();
        let scores = gate_scan(&Pool::new(2), &gates, &[1.0, -2.0, 0.5], &cancel).unwrap();
        for (row, score) in values.chunks(3).zip(&scores) {
            assert_eq!(*score, row[0] - 2.0 * row[1] + 0.5 * row[2]);
        }
        cancel.cancel();
        assert!(gate_scan(&Pool::new(2), &gates, &[1.0, -2.0, 0.5], &cancel).is_err());
    }
}
