//! Claims about every variant: the bits of the product of few rows, whatever the shape.

use super::super::FORMATS;
use super::super::tests::{Random, exponents, same, stored, view};
use super::super::{Weights, block_size, scalar};
use super::*;

/// The product by a variant, and by the definition.
fn both(
    variant: &Variant,
    view: &MatrixView<'_>,
    x: &[f32],
    threads: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (n, rows) = (x.len() / view.columns(), view.rows());
    let mut activations = Activations::default();
    activations.quantise(block_size(view).unwrap(), view.columns(), x);
    let (pool, mut panels) = (Pool::new(threads), Panels::default());
    variant.arrange(&pool, &activations, &mut panels);
    let mut out = vec![9.0; n * rows];
    let disjoint = Disjoint::new(&mut out);
    pool.run(rows.div_ceil(ROWS), &|tile| {
        let outputs = tile * ROWS..rows.min((tile + 1) * ROWS);
        // SAFETY: tiles do not share columns.
        unsafe { variant.product(view, outputs, &panels, &disjoint, ROWS, &Cancel::new()) };
    });
    let mut expected = vec![0.0; n * rows];
    let mut sums = vec![0.0; rows * n];
    let weights = Weights { view, outputs: 0..rows };
    scalar::VARIANT.of(view.dtype())(&weights, &activations, 0, &mut sums);
    for (row, sums) in sums.chunks_exact(n).enumerate() {
        for (p, &sum) in sums.iter().enumerate() {
            expected[p * rows + row] = sum;
        }
    }
    (out, expected)
}

#[test]
fn every_variant_gives_the_bits_of_the_definition_for_any_shape() {
    let mut random = Random(23);
    for (isa, variant) in variants() {
        let Some(variant) = variant else { continue };
        for dtype in FORMATS {
            for extreme in [false, true] {
                // All numbers of positions that a panel can have, and some of several panels.
                let n = random.next() as usize % 26 + 1;
                let columns = random.next() as usize % 1500 + 1;
                let rows = random.next() as usize % 70 + 1;
                let bytes = stored(dtype, rows, columns, &mut random, extreme);
                let exponents = exponents(rows, columns, &mut random, extreme);
                let view = view(dtype, rows, columns, &bytes, &exponents);
                let mut x: Vec<f32> = (0..n * columns).map(|_| random.number()).collect();
                if extreme {
                    x[..columns].fill(-1.0);
                    let place = random.next() as usize % x.len();
                    x[place] = f32::NAN;
                }
                let (out, expected) = both(&variant, &view, &x, 2);
                for (index, (&is, &expected)) in out.iter().zip(&expected).enumerate() {
                    assert!(
                        same(is, expected),
                        "{isa:?} {dtype} {rows} x {columns}, {n} positions, number {index}: \
                         {is:e}, not {expected:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_number_of_positions_and_more_columns_than_a_tile_holds_give_the_same_bits() {
    let mut random = Random(29);
    for (isa, variant) in variants() {
        let Some(variant) = variant else { continue };
        for dtype in [Dtype::Q4K, Dtype::Q6K, Dtype::Q8_0, Dtype::Q5_1, Dtype::Q2K] {
            let cases = (1..=9).map(|n| (n, 2, 512)).chain([
                (70, 33, 300),
                (3, 2, TILE_COLUMNS + 2048 + 40),
                (SUM_LINES / 8 + 30, 1, 2048 + 1),
            ]);
            for (n, rows, columns) in cases {
                let bytes = stored(dtype, rows, columns, &mut random, false);
                let view = view(dtype, rows, columns, &bytes, &[]);
                let x: Vec<f32> = (0..n * columns).map(|_| random.number()).collect();
                let (out, expected) = both(&variant, &view, &x, 1);
                assert!(out == expected, "{isa:?} {dtype} {rows} x {columns}, {n} positions");
            }
        }
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    for (isa, variant) in variants() {
        let Some(variant) = variant else { continue };
        for dtype in FORMATS {
            for fill in [0x00, 0xff, 0x7f, 0x80, 0x77, 0x88] {
                let columns = 512;
                let mut bytes = vec![fill; dtype.bytes_for(columns).unwrap()];
                for block in bytes.chunks_exact_mut(dtype.block().1) {
                    for &at in super::super::tests::halves(dtype) {
                        block[at..at + 2].copy_from_slice(&0x3c00_u16.to_le_bytes());
                    }
                }
                let exponents = vec![127; columns / 32];
                let view = view(dtype, 1, columns, &bytes, &exponents);
                for x in [1.0, -1.0] {
                    let (out, expected) = both(&variant, &view, &vec![x; 3 * columns], 1);
                    let equal = out.iter().zip(&expected).all(|(&is, &other)| same(is, other));
                    assert!(equal, "{isa:?} {dtype} {fill:#x} {x}: {out:?}, not {expected:?}");
                }
            }
        }
    }
}
