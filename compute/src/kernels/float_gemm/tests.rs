//! Claims about every variant: the bits of the product of a single row, whatever the shape.

use super::*;
use crate::kernels::{accumulate, dot};
use crate::quant::{Dtype, from_f32};

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * step % 1031) as f32 - 515.3) / 171.0).collect()
}

/// Stored rows of a plain dtype.
fn stored(dtype: Dtype, rows: usize, columns: usize) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes_for(rows * columns).unwrap()];
    from_f32(dtype, &numbers(rows * columns, 37), &mut bytes);
    bytes
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn every_variant_gives_the_bits_of_a_dot_product_for_any_shape() {
    let dots = dot::variants();
    for (isa, variant) in variants() {
        let Some(variant) = variant else { continue };
        let single = dots.iter().find(|(level, _)| *level == isa).unwrap().1;
        let shapes =
            [(1, 1, 1), (2, 31, 15), (13, 33, 64), (7, 40, 300), (25, 3, 1087), (3, 65, 16)];
        let small = (1..=14).map(|n| (n, 5, 130));
        // More columns than are laid out at a time.
        for (n, rows, columns) in small.chain(shapes).chain([(5, 2, 20_011)]) {
            for dtype in Dtype::PLAIN {
                let bytes = stored(dtype, rows, columns);
                let view = MatrixView::new(dtype, rows, columns, &bytes).unwrap();
                let x = numbers(n * columns, 53);
                let (pool, mut panels) = (Pool::new(2), FloatPanels::default());
                variant.arrange(&pool, columns, &x, &mut panels);
                let mut out = vec![9.0; n * rows];
                let disjoint = Disjoint::new(&mut out);
                pool.run(rows.div_ceil(ROWS), &|tile| {
                    let outputs = tile * ROWS..rows.min((tile + 1) * ROWS);
                    // SAFETY: tiles do not share columns.
                    unsafe { variant.product(&view, outputs, &panels, &disjoint, &Cancel::new()) };
                });
                let expected: Vec<f32> = x
                    .chunks(columns)
                    .flat_map(|x| (0..rows).map(move |row| (row, x)))
                    .map(|(row, x)| single.of(dtype)(view.row(row), x))
                    .collect();
                assert!(bits(&out) == bits(&expected), "{isa:?} {dtype} {n} {rows} x {columns}");
            }
        }
    }
}

#[test]
fn every_variant_gives_the_bits_of_accumulated_rows_part_by_part() {
    let singles = accumulate::variants();
    for (isa, variant) in variants() {
        let Some(variant) = variant else { continue };
        let single = singles.iter().find(|(level, _)| *level == isa).unwrap().1;
        for (n, rows, columns) in
            [(1, 1, 1), (14, 70, 31), (25, 33, 300), (3, 16, 257), (2, 40, 64)]
        {
            for (dtype, special) in [(Dtype::F32, f32::INFINITY), (Dtype::BF16, 1.0)] {
                let mut weights = numbers(rows * columns, 37);
                let mut a = numbers(n * rows, 29);
                a.iter_mut().step_by(3).for_each(|a| *a = 0.0);
                // A row that nobody's factor reaches.
                weights[0] = special;
                a.iter_mut().step_by(rows).for_each(|a| *a = 0.0);
                let mut bytes = vec![0; dtype.bytes_for(rows * columns).unwrap()];
                from_f32(dtype, &weights, &mut bytes);
                let view = MatrixView::new(dtype, rows, columns, &bytes).unwrap();
                let mut out = vec![0.0; n * columns];
                let pool = Pool::new(2);
                variant.transposed(&pool, &view, &a, &mut out, 16, &Cancel::new()).unwrap();
                let mut expected = vec![0.0; n * columns];
                for (a, expected) in a.chunks(rows).zip(expected.chunks_mut(columns)) {
                    for part in (0..rows).step_by(16) {
                        let part = part..rows.min(part + 16);
                        let weighted: Vec<(&[u8], f32)> = part
                            .filter(|&row| a[row] != 0.0)
                            .map(|row| (view.row(row), a[row]))
                            .collect();
                        let mut sum = vec![0.0; columns];
                        single.of(dtype)(&weighted, &mut sum);
                        expected.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
                    }
                }
                assert!(bits(&out) == bits(&expected), "{isa:?} {dtype} {n} {rows} x {columns}");
            }
        }
    }
}
