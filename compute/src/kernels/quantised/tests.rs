//! Claims about every variant: the same bits as the definition, on sound and on damaged blocks.

use super::blocks::*;
use super::*;
use crate::cpu::{Cancel, Pool};
use crate::quant::{RowOrder, Scales, from_f32};

/// Numbers from a seed, by a linear congruence.
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as u32
    }

    /// A number within ±1.
    pub fn number(&mut self) -> f32 {
        self.next() as f32 / (1_u32 << 30) as f32 - 1.0
    }
}

/// Where the binary16 scales of a block are.
pub(super) fn halves(dtype: Dtype) -> &'static [usize] {
    match dtype {
        Dtype::Q2K => &[80, 82],
        Dtype::Q3K => &[108],
        Dtype::Q4K | Dtype::Q5K | Dtype::Q4_1 | Dtype::Q5_1 => &[0, 2],
        Dtype::Q6K => &[208],
        Dtype::MxFp4 | Dtype::E2M1 => &[],
        _ => &[0],
    }
}

/// Stored rows: any bytes, with scales of one kind.
pub(super) fn stored(
    dtype: Dtype,
    rows: usize,
    columns: usize,
    random: &mut Random,
    extreme: bool,
) -> Vec<u8> {
    let mut bytes = vec![0; rows * dtype.bytes_for(columns).unwrap()];
    bytes.fill_with(|| match random.next() % 8 {
        0 if extreme => 0xff,
        1 if extreme => 0x80,
        byte => (byte ^ random.next() >> 7) as u8,
    });
    let specials = [0_u16, 0x8000, 1, 0x83ff, 0x7bff, 0xfbff, 0x3c00, 0x7c00, 0xfc00, 0x7e00];
    for block in bytes.chunks_exact_mut(dtype.block().1) {
        for &at in halves(dtype) {
            let scale = match random.next() {
                n if extreme && n % 3 == 0 => specials[n as usize / 3 % specials.len()],
                n => 0x1400 + (n % 0x800) as u16,
            };
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if dtype == Dtype::MxFp4 && !extreme {
            block[0] = 110 + block[0] % 20;
        }
    }
    bytes
}

/// Exponents for rows of `E2M1`.
pub(super) fn exponents(
    rows: usize,
    columns: usize,
    random: &mut Random,
    extreme: bool,
) -> Vec<u8> {
    let any = (0..rows * columns.div_ceil(32)).map(|_| random.next() as u8);
    any.map(|byte| if extreme { byte } else { 110 + byte % 20 }).collect()
}

pub(super) fn view<'a>(
    dtype: Dtype,
    rows: usize,
    columns: usize,
    bytes: &'a [u8],
    exponents: &'a [u8],
) -> MatrixView<'a> {
    let mx = Scales::Mx { bytes: exponents };
    let scales = if dtype == Dtype::E2M1 { mx } else { Scales::None };
    MatrixView::stored(dtype, rows, columns, bytes, scales).unwrap()
}

pub(super) fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn every_variant_gives_the_bits_of_the_definition_on_any_blocks() {
    let mut random = Random(7);
    let cases = [1, 31, 33, 255, 256, 257, 700, 1024, 1300, 2048, 2560, 2880, 4096 + 32];
    for (case, columns) in cases.into_iter().enumerate() {
        for dtype in FORMATS {
            for (extreme, n) in [(false, case % 9 + 1), (true, (case + 4) % 9 + 1), (false, 1)] {
                let rows = 3;
                let bytes = stored(dtype, rows, columns, &mut random, extreme);
                let exponents = exponents(rows, columns, &mut random, extreme);
                let view = view(dtype, rows, columns, &bytes, &exponents);
                let mut x: Vec<f32> = (0..n * columns).map(|_| random.number()).collect();
                if extreme {
                    // A row of largest codes, one of zeros, and one number that is none.
                    x[..columns].iter_mut().for_each(|x| *x = if *x < 0.0 { -9.0 } else { 9.0 });
                    x[(n - 1) * columns..].fill(if n % 2 == 0 { 0.0 } else { -3.0 });
                    if n > 2 {
                        x[columns + random.next() as usize % columns] = f32::NAN;
                    }
                }
                let mut activations = Activations::default();
                activations.quantise(block_size(&view).unwrap(), columns, &x);
                let weights = Weights { view: &view, outputs: 0..rows };
                let mut expected = vec![0.0; rows * n];
                scalar::VARIANT.of(dtype)(&weights, &activations, 0, &mut expected);
                for (isa, variant) in variants() {
                    let mut out = vec![9.0; rows * n];
                    variant.of(dtype)(&weights, &activations, 0, &mut out);
                    for (p, (&is, &expected)) in out.iter().zip(&expected).enumerate() {
                        assert!(
                            same(is, expected),
                            "{isa:?} {dtype}, {columns} columns, result {p} of {rows} x {n}: {is:e}, not {expected:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_codes_do_not_saturate() {
    for dtype in FORMATS {
        for fill in [0x00, 0xff, 0x7f, 0x80, 0x77, 0x88] {
            let columns = 2304;
            let mut bytes = vec![fill; dtype.bytes_for(columns).unwrap()];
            for block in bytes.chunks_exact_mut(dtype.block().1) {
                for &at in halves(dtype) {
                    block[at..at + 2].copy_from_slice(&0x3c00_u16.to_le_bytes());
                }
            }
            let exponents = vec![127; columns / 32];
            let view = view(dtype, 1, columns, &bytes, &exponents);
            for x in [1.0, -1.0] {
                let mut activations = Activations::default();
                activations.quantise(block_size(&view).unwrap(), columns, &vec![x; columns]);
                let mut expected = [0.0];
                let weights = Weights { view: &view, outputs: 0..1 };
                scalar::VARIANT.of(dtype)(&weights, &activations, 0, &mut expected);
                for (isa, variant) in variants() {
                    let mut out = [9.0];
                    variant.of(dtype)(&weights, &activations, 0, &mut out);
                    assert!(same(out[0], expected[0]), "{isa:?} {dtype} {fill:#x} {x}");
                }
            }
        }
    }
}

#[test]
fn blocks_read_as_integers_are_the_numbers_of_their_format() {
    fn check_256<F: Format256>(dtype: Dtype) {
        let bytes = stored(dtype, 5, 256, &mut Random(3), false);
        assert_eq!(F::BYTES, dtype.block().1);
        for row in bytes.chunks_exact(F::BYTES) {
            let (block, mut numbers) = (F::read(row), [0.0; 256]);
            crate::quant::to_f32(dtype, row, &mut numbers);
            for (e, &number) in numbers.iter().enumerate() {
                let scaled = f64::from(block.scales[e / 16]) * f64::from(block.codes[e]);
                let min = f64::from(block.dmin) * f64::from(block.mins[e / 16]);
                let expected = f64::from(block.d) * scaled - min;
                let size = (f64::from(block.d) * scaled).abs() + min.abs();
                assert!((f64::from(number) - expected).abs() <= size * 1e-6, "{dtype} {e}");
            }
        }
    }
    fn check_32<F: Format32>(dtype: Dtype) {
        let mut random = Random(5);
        let bytes = stored(dtype, 9, 32, &mut random, false);
        let exponents = exponents(9, 32, &mut random, false);
        let view = view(dtype, 9, 32, &bytes, &exponents);
        assert_eq!(F::BYTES, dtype.block().1);
        for (row, &exponent) in exponents.iter().enumerate() {
            let mut numbers = [0.0; 32];
            view.row_f32(row, &mut numbers);
            let block = F::read(view.row(row), exponent);
            assert!(F::MINS || block.m == 0.0);
            for (e, &number) in numbers.iter().enumerate() {
                let product = f64::from(block.d) * f64::from(block.codes[e]);
                let (expected, size) =
                    (product + f64::from(block.m), product.abs() + f64::from(block.m.abs()));
                assert!((f64::from(number) - expected).abs() <= size * 1e-6, "{dtype} {e}");
            }
        }
    }
    check_256::<Q2K>(Dtype::Q2K);
    check_256::<Q3K>(Dtype::Q3K);
    check_256::<Q4K>(Dtype::Q4K);
    check_256::<Q5K>(Dtype::Q5K);
    check_256::<Q6K>(Dtype::Q6K);
    check_256::<Iq4Xs>(Dtype::Iq4Xs);
    check_32::<Q4_0>(Dtype::Q4_0);
    check_32::<Q4_1>(Dtype::Q4_1);
    check_32::<Q5_0>(Dtype::Q5_0);
    check_32::<Q5_1>(Dtype::Q5_1);
    check_32::<Q8_0>(Dtype::Q8_0);
    check_32::<Iq4Nl>(Dtype::Iq4Nl);
    check_32::<MxFp4>(Dtype::MxFp4);
    check_32::<E2M1>(Dtype::E2M1);
}

#[test]
fn products_are_near_those_of_the_numbers() {
    let (mut random, columns, pool) = (Random(11), 2880, Pool::new(2));
    for dtype in FORMATS {
        let (bytes, exponents) = (
            stored(dtype, 40, columns, &mut random, false),
            exponents(40, columns, &mut random, false),
        );
        let view = view(dtype, 40, columns, &bytes, &exponents);
        let x: Vec<f32> = (0..2 * columns).map(|_| random.number()).collect();
        let mut out = vec![0.0; 80];
        let mut list = [Product { view, out: &mut out }];
        products(&pool, &mut list, &x, &mut ServingScratch::default(), &Cancel::new()).unwrap();
        for (p, x) in x.chunks(columns).enumerate() {
            for row in 0..40 {
                let mut weights = vec![0.0; columns];
                view.row_f32(row, &mut weights);
                let pairs = || weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let size = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                // A code is off by at most 1/254 of the block's largest number, here below 1.
                let error = (f64::from(out[p * 40 + row]) - pairs().sum::<f64>()).abs();
                assert!(error <= size * 6.0 / 254.0, "{dtype}: {error} of {size}");
            }
        }
    }
}

#[test]
fn a_result_depends_neither_on_the_rows_beside_it_nor_on_threads_nor_on_the_order_of_weights() {
    let (mut random, columns, rows) = (Random(17), 700, 24);
    let formats = FORMATS.into_iter().chain([Dtype::F32, Dtype::BF16, Dtype::Fp8]);
    for dtype in formats {
        let mut bytes = stored(dtype, rows, columns, &mut random, false);
        if dtype.can_encode() {
            for row in bytes.chunks_exact_mut(dtype.bytes_for(columns).unwrap()) {
                let numbers: Vec<f32> = (0..columns).map(|_| random.number()).collect();
                from_f32(dtype, &numbers, row);
            }
        }
        let exponents = exponents(rows, columns, &mut random, false);
        let view = view(dtype, rows, columns, &bytes, &exponents);
        let heads = RowOrder::InterleavedHeads { first: 4, head_dim: 4 };
        let views = [view, view.select(8, heads).unwrap(), view.rows_range(5..6)];
        let n = 19;
        let x: Vec<f32> = (0..n * columns).map(|_| random.number()).collect();
        let run = |threads: usize, x: &[f32]| {
            let n = x.len() / columns;
            let mut outs = views.map(|view| vec![f32::NAN; n * view.rows()]);
            let mut list: Vec<Product> =
                views.iter().zip(&mut outs).map(|(&view, out)| Product { view, out }).collect();
            let (pool, mut scratch) = (Pool::new(threads), ServingScratch::default());
            products(&pool, &mut list, x, &mut scratch, &Cancel::new()).unwrap();
            outs
        };
        let together = run(3, &x);
        assert_eq!(together, run(1, &x), "{dtype}");
        for (p, x) in x.chunks(columns).enumerate() {
            let alone = run(2, x);
            for (together, alone) in together.iter().zip(&alone) {
                assert_eq!(together[p * alone.len()..][..alone.len()], alone[..], "{dtype}");
            }
        }
        assert_eq!(together[2][0], together[0][5]);
        // The converter's order of one head of four, read back: rows 4, 6, 5, 7.
        assert_eq!(together[1][..4], [4, 6, 5, 7].map(|row| together[0][row]));
    }
}

#[test]
fn a_cancelled_product_says_so_and_no_products_are_none() {
    let values = [1.0; 64];
    let view = MatrixView::from_f32(2, 32, &values).unwrap();
    let (pool, mut scratch, cancel) = (Pool::new(2), ServingScratch::default(), Cancel::new());
    let mut out = [0.0; 2];
    let mut list = [Product { view, out: &mut out }];
    products(&pool, &mut list, &values[..32], &mut scratch, &cancel).unwrap();
    products(&pool, &mut [], &values, &mut scratch, &cancel).unwrap();
    cancel.cancel();
    assert!(products(&pool, &mut list, &values[..32], &mut scratch, &cancel).is_err());
    assert_eq!(out, [32.0; 2]);
}
