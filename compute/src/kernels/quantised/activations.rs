//! Rows of activations as 8-bit codes: the right side of every integer product.
//!
//! A row is cut into the blocks of the weights' format. Of a block, `d` is the largest magnitude
//! divided by 127 and a code is the nearest whole number (ties to even) of value / d, so codes stay
//! within ±127. A block whose numbers are all below about 4e-37 counts as zeros (d is 0); a block
//! with a number that is not finite has `d` NaN, so that whatever it touches becomes NaN.
//! A row depends on nothing but itself, and every machine gives the same codes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::LazyLock;

use super::BlockSize;
use crate::cpu::{Disjoint, Isa, Pool, fastest};
use crate::quant::with_widest_lanes;

/// Codes whose sum is kept, in blocks of 256.
pub const SUM_CODES: usize = 16;
/// Rows are padded with zeros to so many blocks, so that kernels may read whole groups.
const BLOCKS_TOGETHER: usize = 8;
/// Numbers that make a task of some microseconds.
const NUMBERS_A_TASK: usize = 16 << 10;

/// Codes that begin at a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// Rows of activations as codes, scales and sums. Buffers are kept from call to call.
#[derive(Debug, Default)]
pub struct Activations {
    block: BlockSize,
    rows: usize,
    columns: usize,
    /// Blocks of a row, padding included: a multiple of [`BLOCKS_TOGETHER`].
    stride: usize,
    codes: Vec<Line>,
    crossed: Vec<Line>,
    scales: Vec<f32>,
    sums: Vec<i16>,
    sums_32: Vec<i16>,
}

/// One row of [`Activations`], padded with blocks of zeros to a multiple of eight blocks.
#[derive(Debug, Clone, Copy)]
pub struct ActivationRow<'a> {
    /// The codes, `[blocks][elements of a block]`; they begin at a cache line.
    pub codes: &'a [i8],
    /// The codes again, the second and third quarter of each 128 exchanged, as nibbles of 64 bytes
    /// of `Q4_K` have them; of blocks of 256 only. They begin at a cache line, too.
    pub crossed: &'a [i8],
    /// The `d` of each block.
    pub scales: &'a [f32],
    /// Sums of codes: of each 16 in blocks of 256, of the whole block in blocks of 32.
    pub sums: &'a [i16],
    /// Sums of each 32 codes, for either size of blocks.
    pub sums_32: &'a [i16],
}

impl Activations {
    /// Takes rows of numbers.
    ///
    /// # Shapes
    /// `x`: `[rows, columns]`; panics if it is not whole rows. A last block that is not full is
    /// padded with zeros.
    pub fn quantise(&mut self, block: BlockSize, columns: usize, x: &[f32]) {
        self.quantise_on(&Pool::new(1), block, columns, x);
    }

    /// [`quantise`](Activations::quantise), many rows on all threads of a pool.
    pub fn quantise_on(&mut self, pool: &Pool, block: BlockSize, columns: usize, x: &[f32]) {
        assert!(columns > 0 && x.len().is_multiple_of(columns), "no whole rows of {columns}");
        let elements = block.elements();
        self.block = block;
        self.columns = columns;
        self.rows = x.len() / columns;
        self.stride = columns.div_ceil(elements).next_multiple_of(BLOCKS_TOGETHER);
        let (rows, stride) = (self.rows, self.stride);
        // What stays from the call before is overwritten below, padding included.
        self.codes.resize(rows * stride * elements / 64, Line([0; 64]));
        let crossed = if block == BlockSize::K256 { self.codes.len() } else { 0 };
        self.crossed.resize(crossed, Line([0; 64]));
        self.scales.resize(rows * stride, 0.0);
        self.sums.resize(rows * stride * block.sums(), 0);
        self.sums_32.resize(rows * stride * elements / 32, 0);
        let codes = Disjoint::new(as_codes_mut(&mut self.codes));
        let crossed = Disjoint::new(as_codes_mut(&mut self.crossed));
        let scales = Disjoint::new(&mut self.scales);
        let sums = Disjoint::new(&mut self.sums);
        let sums_32 = Disjoint::new(&mut self.sums_32);
        let quantise = dispatch(block);
        let task_rows = (NUMBERS_A_TASK / columns).max(1);
        pool.run(rows.div_ceil(task_rows), &|task| {
            for row in task * task_rows..rows.min((task + 1) * task_rows) {
                let x = &x[row * columns..(row + 1) * columns];
                let (part, blocks) = (row * stride, stride);
                // SAFETY: each row belongs to one task.
                let (codes, scales, sums, sums_32) = unsafe {
                    (
                        codes.slice(part * elements, blocks * elements),
                        scales.slice(part, blocks),
                        sums.slice(part * block.sums(), blocks * block.sums()),
                        sums_32.slice(part * elements / 32, blocks * elements / 32),
                    )
                };
                quantise(x, codes, scales);
                match block {
                    BlockSize::K32 => {
                        sum::<32>(codes, sums_32);
                        sums.copy_from_slice(sums_32);
                    }
                    BlockSize::K256 => {
                        sum::<SUM_CODES>(codes, sums);
                        for (sum, two) in sums_32.iter_mut().zip(sums.as_chunks::<2>().0) {
                            *sum = two[0] + two[1];
                        }
                        // SAFETY: as above; there are as many as codes.
                        let crossed = unsafe { crossed.slice(part * elements, blocks * elements) };
                        cross(codes, crossed);
                    }
                }
            }
        });
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row holds, without padding.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How rows are cut.
    pub fn block_size(&self) -> BlockSize {
        self.block
    }

    /// Blocks of a row that hold numbers; the last may be padded.
    pub fn blocks(&self) -> usize {
        self.columns.div_ceil(self.block.elements())
    }

    /// One row; panics if there is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> ActivationRow<'_> {
        let part = |each: usize| row * self.stride * each..(row + 1) * self.stride * each;
        let elements = self.block.elements();
        let crossed = if self.crossed.is_empty() { 0..0 } else { part(elements) };
        ActivationRow {
            codes: &as_codes(&self.codes)[part(elements)],
            crossed: &as_codes(&self.crossed)[crossed],
            scales: &self.scales[part(1)],
            sums: &self.sums[part(self.block.sums())],
            sums_32: &self.sums_32[part(elements / 32)],
        }
    }
}

fn as_codes(lines: &[Line]) -> &[i8] {
    // SAFETY: a line is 64 codes without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64) }
}

fn as_codes_mut(lines: &mut [Line]) -> &mut [i8] {
    // SAFETY: a line is 64 codes without padding, and the lines are borrowed as long as the codes.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

/// Writes the codes and scales of one row, padding included.
type Quantise = fn(&[f32], &mut [i8], &mut [f32]);

/// Every variant that this processor can run, slowest first; all give the same codes.
fn variants<const ELEMENTS: usize>() -> Vec<(Isa, Quantise)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found: Vec<(Isa, Quantise)> = vec![(Isa::Scalar, |x, codes, scales| {
        for_blocks::<ELEMENTS>(x, codes, scales, quantise_block);
    })];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect::<ELEMENTS>().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect::<ELEMENTS>().map(|variant| (Isa::Avx512, variant)));
    found
}

/// The variant of this process.
fn dispatch(block: BlockSize) -> Quantise {
    static K32: LazyLock<Quantise> = LazyLock::new(|| fastest(variants::<32>()));
    static K256: LazyLock<Quantise> = LazyLock::new(|| fastest(variants::<256>()));
    match block {
        BlockSize::K32 => *K32,
        BlockSize::K256 => *K256,
    }
}

/// Cuts a row into blocks, the last one padded with zeros, and clears the padding behind them.
#[inline(always)]
fn for_blocks<const ELEMENTS: usize>(
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    quantise: impl Fn(&[f32; ELEMENTS], &mut [i8; ELEMENTS]) -> f32,
) {
    let (whole, rest) = x.as_chunks::<ELEMENTS>();
    let mut blocks = codes.as_chunks_mut::<ELEMENTS>().0.iter_mut().zip(scales);
    for (x, (codes, scale)) in whole.iter().zip(&mut blocks) {
        *scale = quantise(x, codes);
    }
    if !rest.is_empty()
        && let Some((codes, scale)) = blocks.next()
    {
        let mut padded = [0.0; ELEMENTS];
        padded[..rest.len()].copy_from_slice(rest);
        *scale = quantise(&padded, codes);
    }
    for (codes, scale) in blocks {
        (*codes, *scale) = ([0; ELEMENTS], 0.0);
    }
}

/// Adding 1.5 · 2^23 rounds to a whole number, ties to even, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// The factor that brings a block to codes and its `d`, given the bits of its largest magnitude; an
/// error where all codes are 0, with its `d`.
///
/// As integers, magnitudes are in the order of their sizes, and NaN is above infinity.
#[inline(always)]
fn inverse_of(largest: i32) -> Result<(f32, f32), f32> {
    let largest = f32::from_bits(largest.cast_unsigned());
    let inverse = 127.0 / largest;
    if !largest.is_finite() {
        Err(f32::NAN)
    } else if inverse == f32::INFINITY {
        Err(0.0)
    } else {
        Ok((inverse, largest / 127.0))
    }
}

/// The definition: writes the codes of a block and returns its `d`.
fn quantise_block<const ELEMENTS: usize>(x: &[f32; ELEMENTS], codes: &mut [i8; ELEMENTS]) -> f32 {
    let sizes = x.iter().map(|value| (value.to_bits() & 0x7fff_ffff).cast_signed());
    match inverse_of(sizes.fold(0, i32::max)) {
        Ok((inverse, d)) => {
            for (code, value) in codes.iter_mut().zip(x) {
                *code = (value * inverse + ROUND).to_bits() as i8;
            }
            d
        }
        Err(d) => {
            *codes = [0; ELEMENTS];
            d
        }
    }
}

/// Copies codes with the two middle quarters of each 128 exchanged.
fn cross(codes: &[i8], crossed: &mut [i8]) {
    let quarters = codes.as_chunks::<32>().0.as_chunks::<4>().0;
    let out = crossed.as_chunks_mut::<32>().0.as_chunks_mut::<4>().0;
    for ([a, b, c, d], out) in quarters.iter().zip(out) {
        *out = [*a, *c, *b, *d];
    }
}

/// Writes the sum of each `COUNT` codes.
fn sum<const COUNT: usize>(codes: &[i8], sums: &mut [i16]) {
    with_widest_lanes(
        #[inline(always)]
        || {
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<COUNT>().0) {
                *sum = codes.iter().map(|&code| i16::from(code)).sum();
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 % 1013) as f32 - 506.0) * 0.37).collect()
    }

    #[test]
    fn codes_are_the_nearest_multiples_of_the_scale_and_sums_are_theirs() {
        for block in [BlockSize::K32, BlockSize::K256] {
            for columns in [1, 31, 33, 255, 257, 2880] {
                let x = numbers(3 * columns);
                let mut activations = Activations::default();
                activations.quantise(block, columns, &x);
                assert_eq!((activations.rows(), activations.columns()), (3, columns));
                for (row, x) in x.chunks(columns).enumerate() {
                    let found = activations.row(row);
                    for (index, x) in x.chunks(block.elements()).enumerate() {
                        let largest = x.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
                        assert_eq!(found.scales[index], largest / 127.0);
                        for (x, code) in x.iter().zip(&found.codes[index * block.elements()..]) {
                            let off =
                                f64::from(*x) - f64::from(*code) * f64::from(found.scales[index]);
                            assert!(off.abs() <= f64::from(found.scales[index]) * 0.500_1);
                        }
                    }
                    assert!(found.codes[columns..].iter().all(|&code| code == 0));
                    let sum = |codes: &[i8]| codes.iter().map(|&code| i16::from(code)).sum::<i16>();
                    let sums = |count| found.codes.chunks(count).map(sum).collect::<Vec<_>>();
                    assert_eq!(found.sums, sums(block.elements() / block.sums()));
                    assert_eq!(found.sums_32, sums(32));
                    let crossed = |place: usize| place & !96 | place << 1 & 64 | place >> 1 & 32;
                    for (place, &code) in found.crossed.iter().enumerate() {
                        assert_eq!(code, found.codes[crossed(place)]);
                    }
                    let size = if block == BlockSize::K256 { found.codes.len() } else { 0 };
                    assert_eq!(found.crossed.len(), size);
                }
            }
        }
    }

    #[test]
    fn every_variant_gives_the_codes_of_the_definition() {
        fn check<const ELEMENTS: usize>() {
            for length in [1, 17, 31, 32, 255, 256, 700] {
                for special in [0.25, f32::NAN, f32::INFINITY, f32::MAX, 1e-40, -0.0] {
                    let mut x = numbers(length);
                    x[length / 2] = special;
                    let blocks = length.div_ceil(ELEMENTS) + 1;
                    let run = |quantise: Quantise| {
                        let (mut codes, mut scales) =
                            (vec![9; blocks * ELEMENTS], vec![9.0; blocks]);
                        quantise(&x, &mut codes, &mut scales);
                        (codes, scales.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                    };
                    let variants = variants::<ELEMENTS>();
                    let expected = run(variants[0].1);
                    for (isa, variant) in variants {
                        assert_eq!(run(variant), expected, "{isa:?}, {length}, {special}");
                    }
                }
            }
        }
        check::<32>();
        check::<256>();
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours_nor_on_what_was_there_before() {
        let (x, mut together, mut alone) =
            (numbers(5 * 300), Activations::default(), Activations::default());
        alone.quantise(BlockSize::K256, 4000, &numbers(8000));
        for block in [BlockSize::K256, BlockSize::K32] {
            together.quantise_on(&Pool::new(3), block, 300, &x);
            for (row, x) in x.chunks(300).enumerate() {
                alone.quantise_on(&Pool::new(2), block, 300, x);
                let (a, b) = (together.row(row), alone.row(0));
                assert_eq!((a.codes, a.scales), (b.codes, b.scales));
                assert_eq!((a.sums, a.sums_32), (b.sums, b.sums_32));
            }
        }
    }

    #[test]
    fn zeros_have_no_scale_and_what_is_not_finite_has_none_that_is() {
        let mut activations = Activations::default();
        for (value, scale) in [(0.0, 0.0), (1e-40, 0.0), (1e-30, 1e-30 / 127.0)] {
            activations.quantise(BlockSize::K32, 32, &[value; 32]);
            assert_eq!(activations.row(0).scales[0], scale);
        }
        activations.quantise(BlockSize::K32, 1, &[f32::MAX]);
        assert_eq!(
            (activations.row(0).scales[0], activations.row(0).codes[0]),
            (f32::MAX / 127.0, 127)
        );
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            activations.quantise(BlockSize::K32, 64, &[[1.0; 63].as_slice(), &[value]].concat());
            assert_eq!(activations.row(0).scales[0], 1.0 / 127.0);
            assert!(activations.row(0).scales[1].is_nan());
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let mut activations = Activations::default();
        activations.quantise(BlockSize::K32, 5, &[127.0, 0.5, 1.5, -2.5, -3.5]);
        assert_eq!(activations.row(0).codes[..5], [127, 0, 2, -2, -4]);
    }
}
