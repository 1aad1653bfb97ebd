//! Every kernel over every format: `f32` arithmetic over the dequantised weights, to the bit.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::{matmul_transposed, matvec, matvec_rows, matvec_transposed};
use larql_compute::quant::{Dtype, MatrixView, RowOrder, Scales, from_f32};

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step % 103) as f32 - 51.0) / 17.0).collect()
}

/// Runs every product over a view and over a copy of its numbers.
fn assert_products_are_those_of_the_numbers(view: &MatrixView, what: &str) {
    let (rows, columns, pool, cancel) = (view.rows(), view.columns(), Pool::new(2), Cancel::new());
    let mut values = vec![0.0; rows * columns];
    for (row, values) in values.chunks_exact_mut(columns).enumerate() {
        view.row_f32(row, values);
    }
    let plain = MatrixView::from_f32(rows, columns, &values).unwrap();
    let products = |view: &MatrixView| {
        let (x, a) = (numbers(columns, 53), numbers(3 * rows, 29));
        let mut out = vec![0.0; rows];
        matvec(&pool, view, &x, &mut out);
        let mut results = vec![out];
        let chosen: Vec<usize> = (0..rows).rev().step_by(2).collect();
        let mut out = vec![0.0; chosen.len()];
        matvec_rows(&pool, view, &chosen, &x, &mut out);
        results.push(out);
        let mut out = vec![0.5; columns];
        matvec_transposed(&pool, view, &a[..rows], &mut out);
        results.push(out);
        let mut out = vec![0.0; 3 * columns];
        matmul_transposed(&pool, view, &a, &mut out, &cancel).unwrap();
        results.push(out);
        results
    };
    assert_eq!(products(view), products(&plain), "{what}");
}

#[test]
fn every_product_takes_every_format_that_we_write_at_awkward_widths() {
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.can_encode() && !dtype.is_plain()) {
        for (rows, columns) in [(1, 1), (19, 255), (67, 257), (9, 2880)] {
            let row_bytes = dtype.bytes_for(columns).unwrap();
            let mut bytes = vec![0; rows * row_bytes];
            for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                from_f32(dtype, &numbers(columns, 37 + row), bytes);
            }
            let view = MatrixView::new(dtype, rows, columns, &bytes).unwrap();
            assert_products_are_those_of_the_numbers(&view, dtype.tag());
        }
    }
}

#[test]
fn every_product_takes_scales_beside_the_elements_and_rows_in_another_order() {
    let (rows, columns) = (24, 96);
    let codes: Vec<u8> = (0..rows * columns).map(|i| (i * 37 % 120) as u8).collect();
    let scales: Vec<u8> =
        numbers(rows * columns, 41).into_iter().flat_map(f32::to_le_bytes).collect();
    let tiles = &scales[..rows.div_ceil(10) * columns.div_ceil(40) * 4];
    let grid = Scales::Grid { bytes: tiles, dtype: Dtype::F32, rows: 10, columns: 40 };
    let fp8 = MatrixView::stored(Dtype::F8E4M3, rows, columns, &codes, grid).unwrap();
    let factors = &scales[..rows * columns / 32 * 4];
    let groups =
        Scales::Groups { scales: factors, biases: Some(factors), dtype: Dtype::F32, group: 32 };
    let u8s = MatrixView::stored(Dtype::U8, rows, columns, &codes, groups).unwrap();
    let halves = &codes[..rows * columns / 2];
    let u4s = MatrixView::stored(Dtype::U4, rows, columns, halves, groups).unwrap();
    let exponents: Vec<u8> = (0..rows * columns / 32).map(|i| (110 + i % 30) as u8).collect();
    let mx = Scales::Mx { bytes: &exponents };
    let e2m1 = MatrixView::stored(Dtype::E2M1, rows, columns, halves, mx).unwrap();
    let plain = MatrixView::new(Dtype::F32, rows, columns, &scales).unwrap();
    for view in [fp8, u8s, u4s, e2m1, plain] {
        assert_products_are_those_of_the_numbers(&view, view.dtype().tag());
        let odd = view.select(view.rows() / 2, RowOrder::Linear { first: 1, step: 2 }).unwrap();
        assert_products_are_those_of_the_numbers(&odd, "every second row");
        let heads = RowOrder::InterleavedHeads { first: 4, head_dim: 4 };
        let heads = view.select(8, heads).unwrap();
        assert_products_are_those_of_the_numbers(&heads, "interleaved heads");
    }
}
