//! Products of quantised weights with quantised activations: the arithmetic of serving.
//!
//! Weights are read in place, block by block, as integers; activations are quantised once a row
//! ([`Activations`]). The sum of a block is an exact integer, and blocks are added in one fixed
//! order, so every variant gives the same bits, and a row's result depends on that row alone: not
//! on which rows share the pass, nor on the number of threads.
//!
//! - Blocks of 256: block `b` goes to chain `b % 4` as `fma(d_w · d_x, S, chain)`, and for formats
//!   with minima then `fma(-(dmin_w · d_x), M, chain)`, where `S = Σ_j scale_j Σ code · x` and
//!   `M = Σ_j min_j Σ x`. The four chains are added by halving: `l` and `l + 2`, then the two.
//! - Blocks of 32: `S = Σ code · x` with the offset applied; block `b` goes to chain `b % 8` as
//!   `fma(d_w · d_x, S, chain)`, and for formats with a minimum then `fma(m_w · d_x, Σ x, chain)`.
//!   The eight chains are added by halving: `l` and `l + 4`, then as four are.
//! - Rows without an integer kernel are dequantised and multiplied by [`dot`](super::dot()).
//!
//! `blocks` says what each format's bytes mean, `scalar` defines the products.
//!
//! Elsewhere: exact products over dequantised weights ([`matvec()`](super::matvec()),
//! [`gate_scan()`](super::gate_scan())), layouts and decoders ([`quant`](crate::quant)).

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
pub(in crate::kernels) mod gemm;
mod groups;
#[cfg(target_arch = "aarch64")]
mod neon;
mod products;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::LazyLock;

pub use activations::{ActivationRow, Activations, SUM_CODES};
pub use groups::{Group, GroupScratch, group_products};
pub use products::{Product, ServingScratch, products};

use scalar::{join_4, join_8};

use crate::cpu::{Isa, fastest};
use crate::quant::{Dtype, MatrixView};

/// The formats with integer kernels.
#[cfg(any(test, target_arch = "x86_64"))]
const FORMATS: [Dtype; 14] = [
    Dtype::Q2K,
    Dtype::Q3K,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
    Dtype::Iq4Xs,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q8_0,
    Dtype::Iq4Nl,
    Dtype::MxFp4,
    Dtype::E2M1,
];

/// How activations are cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockSize {
    /// Blocks of 32, for the simple formats.
    #[default]
    K32,
    /// Blocks of 256, for the k-quants.
    K256,
}

impl BlockSize {
    /// Elements of a block.
    pub fn elements(self) -> usize {
        match self {
            BlockSize::K32 => 32,
            BlockSize::K256 => 256,
        }
    }

    /// Sums of codes that are kept for a block.
    pub(crate) fn sums(self) -> usize {
        match self {
            BlockSize::K32 => 1,
            BlockSize::K256 => 256 / SUM_CODES,
        }
    }
}

/// How activations are cut for a matrix, or `None` where there is no integer kernel for its
/// format, and its rows are multiplied as `f32`.
pub fn block_size(view: &MatrixView) -> Option<BlockSize> {
    match view.dtype() {
        Dtype::Q2K | Dtype::Q3K | Dtype::Q4K | Dtype::Q5K | Dtype::Q6K | Dtype::Iq4Xs => {
            Some(BlockSize::K256)
        }
        Dtype::Q4_0
        | Dtype::Q4_1
        | Dtype::Q5_0
        | Dtype::Q5_1
        | Dtype::Q8_0
        | Dtype::Iq4Nl
        | Dtype::MxFp4
        | Dtype::E2M1 => Some(BlockSize::K32),
        _ => None,
    }
}

/// One stored row: whole blocks, and the exponents that lie elsewhere (`E2M1` alone).
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The blocks.
    pub bytes: &'a [u8],
    /// One exponent a block, or none.
    pub exponents: &'a [u8],
}

impl<'a> Row<'a> {
    /// A row of a view; panics if there is no such row.
    #[inline]
    pub fn of(view: &MatrixView<'a>, row: usize) -> Row<'a> {
        Row { bytes: view.row(row), exponents: view.exponents(row) }
    }
}

/// Some rows of a matrix.
#[derive(Debug, Clone)]
pub struct Weights<'v, 'a> {
    /// The matrix, `[outputs, columns]`.
    pub view: &'v MatrixView<'a>,
    /// Which of its rows.
    pub outputs: Range<usize>,
}

impl<'a> Weights<'_, 'a> {
    /// One of the rows.
    #[inline(always)]
    fn row(&self, index: usize) -> Row<'a> {
        Row::of(self.view, self.outputs.start + index)
    }

    /// Panics unless rows have as many blocks of a format as the activations, exponents included.
    fn check(&self, x: &Activations, size: BlockSize, bytes: usize, exponents: bool) {
        assert_eq!(x.block_size(), size);
        let row_bytes = x.blocks() * bytes;
        assert_eq!(self.view.row_bytes(), row_bytes, "rows and activations differ in blocks");
        let all = |index| self.row(index).exponents.len() == x.blocks();
        assert!(!exponents || (0..self.outputs.len()).all(all), "an exponent a block");
    }
}

/// Writes `out[r, p] = weights[r] · activations[first + p]`, `[outputs, positions]`. The activations
/// are cut as the format demands and have as many blocks as a row; variants panic otherwise.
pub type RowProduct = fn(&Weights<'_, '_>, &Activations, usize, &mut [f32]);

/// How far ahead of a row's blocks their successors are asked for, into the second-level cache.
#[cfg(target_arch = "x86_64")]
const AHEAD_BYTES: usize = 8192;

/// Asks for the `count` bytes [`AHEAD_BYTES`] behind an address, which may be any.
///
/// The processor's own prefetchers follow a stream of weights less well when much else is read
/// beside it, as the activations are in the products of 256-blocks: see
/// `docs/benchmarks/streaming.md`, also for blocks of 32, where asking gains nothing.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ask_ahead(start: *const u8, count: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in 0..count.div_ceil(64) {
        let address = start.wrapping_add(AHEAD_BYTES + 64 * line);
        // SAFETY: asking for an address does not access it, and SSE is always there.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
}

/// Rows of activations for which a block of weights is unpacked once.
const POSITIONS: usize = 4;

/// Defines a [`RowProduct`] named `product`, for formats that are `$registers` and cut as `$block_size`.
///
/// It calls `row_product::<F, .., N>(row, x)` of the same module for every row of weights and up to
/// [`POSITIONS`] rows of activations at a time. That function may ask for the processor's
/// `$features`, and that every `x` has as many blocks as the row, rounded up to what padding gives.
macro_rules! define_product {
    (
        $(#[$features:meta])?
        BlockSize::$block_size:ident, exponents: $exponents:expr,
        F: $registers:ident $(, const $flag:ident: bool)?
    ) => {
        /// Rows of weights times rows of activations.
        pub(super) fn product<F: $registers $(, const $flag: bool)?>(
            weights: &$crate::kernels::quantised::Weights<'_, '_>,
            x: &$crate::kernels::quantised::Activations,
            first: usize,
            out: &mut [f32],
        ) {
            use $crate::kernels::quantised::{BlockSize, POSITIONS};
            weights.check(x, BlockSize::$block_size, F::BYTES, $exponents);
            let stride = out.len() / weights.outputs.len().max(1);
            assert_eq!(out.len(), stride * weights.outputs.len(), "outputs and results differ");
            for begin in (0..stride).step_by(POSITIONS) {
                let (row, out) = (|p: usize| x.row(first + begin + p), &mut out[begin..]);
                // SAFETY: a variant is listed only where the processor has its instructions, and the
                // check saw that weights and activations, which are padded, have as many blocks.
                unsafe {
                    match stride - begin {
                        1 => rows::<F $(, $flag)?, 1>(weights, &[row(0)], out, stride),
                        2 => rows::<F $(, $flag)?, 2>(weights, &[0, 1].map(row), out, stride),
                        3 => rows::<F $(, $flag)?, 3>(weights, &[0, 1, 2].map(row), out, stride),
                        _ => rows::<F $(, $flag)?, 4>(weights, &[0, 1, 2, 3].map(row), out, stride),
                    }
                }
            }
        }

        /// Writes the products of every row of weights; those of one begin `stride` after the last's.
        $(#[$features])?
        /// # Safety
        /// As for [`row_product`], for every row.
        unsafe fn rows<F: $registers $(, const $flag: bool)?, const N: usize>(
            weights: &$crate::kernels::quantised::Weights<'_, '_>,
            x: &[ActivationRow; N],
            out: &mut [f32],
            stride: usize,
        ) {
            for index in 0..weights.outputs.len() {
                let (row, out) = (weights.row(index), &mut out[index * stride..]);
                // SAFETY: the caller's promise.
                let sums = unsafe { row_product::<F $(, $flag)?, N>(row, x) };
                out[..N].copy_from_slice(&sums);
            }
        }
    };
}
use define_product;

/// One variant: a function a format.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each is named after its format")]
pub struct Variant {
    pub q2_k: RowProduct,
    pub q3_k: RowProduct,
    pub q4_k: RowProduct,
    pub q5_k: RowProduct,
    pub q6_k: RowProduct,
    pub iq4_xs: RowProduct,
    pub q4_0: RowProduct,
    pub q4_1: RowProduct,
    pub q5_0: RowProduct,
    pub q5_1: RowProduct,
    pub q8_0: RowProduct,
    pub iq4_nl: RowProduct,
    pub mxfp4: RowProduct,
    pub e2m1: RowProduct,
}

impl Variant {
    /// The function for rows of a format; panics for one that has no block size here.
    pub fn of(&self, dtype: Dtype) -> RowProduct {
        match dtype {
            Dtype::Q2K => self.q2_k,
            Dtype::Q3K => self.q3_k,
            Dtype::Q4K => self.q4_k,
            Dtype::Q5K => self.q5_k,
            Dtype::Q6K => self.q6_k,
            Dtype::Iq4Xs => self.iq4_xs,
            Dtype::Q4_0 => self.q4_0,
            Dtype::Q4_1 => self.q4_1,
            Dtype::Q5_0 => self.q5_0,
            Dtype::Q5_1 => self.q5_1,
            Dtype::Q8_0 => self.q8_0,
            Dtype::Iq4Nl => self.iq4_nl,
            Dtype::MxFp4 => self.mxfp4,
            Dtype::E2M1 => self.e2m1,
            other => panic!("{other} has no integer kernel"),
        }
    }
}

/// Every variant that this processor can run, slowest first: read by dispatch and by the test.
pub fn variants() -> Vec<(Isa, Variant)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found = vec![(Isa::Scalar, scalar::VARIANT)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, variant)));
    #[cfg(target_arch = "aarch64")]
    found.extend(neon::variants().into_iter().map(|variant| (Isa::Neon, variant)));
    found
}

/// The function for rows of a format, which has a block size.
pub(crate) fn dispatch(dtype: Dtype) -> RowProduct {
    static FASTEST: LazyLock<Variant> = LazyLock::new(|| fastest(variants()));
    FASTEST.of(dtype)
}
