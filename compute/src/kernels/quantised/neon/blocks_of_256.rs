//! Formats of 256-blocks, 32 codes at a time.

use std::arch::aarch64::*;

use super::{add_products, less, look_up, nibbles};
use crate::kernels::quantised::blocks::{Format256, IQ4_LEVELS, Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::kernels::quantised::scalar::join_4;
use crate::kernels::quantised::{ActivationRow, Row, define_product};

/// A format as registers.
pub(super) trait Registers: Format256 {
    /// The values of codes `32 part` to `32 part + 31`.
    ///
    /// # Safety
    /// The pointer is good for `BYTES` bytes; `part` is below 8.
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2];
}

define_product!(
    BlockSize::K256, exponents: false, F: Registers, const DOT: bool
);

/// One row of weights times rows of activations.
///
/// # Safety
/// With `DOT` the processor has the dot product instruction; every `x` has as many blocks as a row.
#[inline]
unsafe fn row_product<F: Registers, const DOT: bool, const N: usize>(
    row: Row,
    x: &[ActivationRow; N],
) -> [f32; N] {
    let mut chains = [[0.0_f32; 4]; N];
    for (index, block) in row.bytes.chunks_exact(F::BYTES).enumerate() {
        let ((d, dmin), (scales, mins)) = (F::read_factors(block), F::read_scales(block));
        // SAFETY: the caller's promise; the block is whole.
        let sums = unsafe { block_sums::<F, DOT, N>(block.as_ptr(), &scales, x, index) };
        for ((x, chain), s) in x.iter().zip(&mut chains).zip(sums) {
            let (d_x, chain) = (x.scales[index], &mut chain[index % 4]);
            *chain = (d * d_x).mul_add(s as f32, *chain);
            if F::MINS {
                let sums = &x.sums[16 * index..16 * index + 16];
                let products = mins.iter().zip(sums).map(|(&m, &x)| i32::from(m) * i32::from(x));
                *chain = (-(dmin * d_x)).mul_add(products.sum::<i32>() as f32, *chain);
            }
        }
    }
    chains.map(join_4)
}

/// `S` of a block for every row of activations.
///
/// # Safety
/// The pointer is good for a block, every `x` has the block `index`, and with `DOT` the processor
/// has the dot product instruction.
#[inline(always)]
unsafe fn block_sums<F: Registers, const DOT: bool, const N: usize>(
    block: *const u8,
    scales: &[i8; 16],
    x: &[ActivationRow; N],
    index: usize,
) -> [i32; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [vdupq_n_s32(0); N];
        for part in 0..8 {
            let values = F::values(block, part);
            for (x, sum) in x.iter().zip(&mut sums) {
                let x = x.codes.as_ptr().add(index * 256 + part * 32);
                for (half, &values) in values.iter().enumerate() {
                    let products =
                        add_products::<DOT>(vdupq_n_s32(0), values, vld1q_s8(x.add(16 * half)));
                    *sum = vmlaq_n_s32(*sum, products, i32::from(scales[2 * part + half]));
                }
            }
        }
        sums.map(|sum| vaddvq_s32(sum))
    }
}

/// Some bits of two times 16 bytes, `shift` of them lower.
///
/// # Safety
/// The pointer is good for 32 bytes.
#[inline(always)]
unsafe fn bits(from: *const u8, shift: usize, mask: u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (down, mask) = (vdupq_n_s8(-(shift as i8)), vdupq_n_u8(mask));
        [vld1q_u8(from), vld1q_u8(from.add(16))].map(|bytes| vandq_u8(vshlq_u8(bytes, down), mask))
    }
}

/// Lower bits and upper ones, which belong `LEFT` places higher.
#[inline(always)]
fn join<const LEFT: i32>(low: [uint8x16_t; 2], high: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    // SAFETY: NEON is always there.
    unsafe {
        [
            vorrq_u8(low[0], vshlq_n_u8::<LEFT>(high[0])),
            vorrq_u8(low[1], vshlq_n_u8::<LEFT>(high[1])),
        ]
    }
}

impl Registers for Q4K {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        less(unsafe { bits(block.add(16 + part / 2 * 32), part % 2 * 4, 15) }, 0)
    }
}

impl Registers for Q5K {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        let (low, fifth) = unsafe {
            (bits(block.add(48 + part / 2 * 32), part % 2 * 4, 15), bits(block.add(16), part, 1))
        };
        less(join::<4>(low, fifth), 0)
    }
}

impl Registers for Q6K {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        let (half, k) = (part / 4, part % 4);
        // SAFETY: the caller's promise.
        let (low, upper) = unsafe {
            (
                bits(block.add(64 * half + 32 * (k % 2)), k / 2 * 4, 15),
                bits(block.add(128 + 32 * half), 2 * k, 3),
            )
        };
        less(join::<4>(low, upper), 32)
    }
}

impl Registers for Q3K {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        let (low, third) =
            unsafe { (bits(block.add(32 + part / 4 * 32), part % 4 * 2, 3), bits(block, part, 1)) };
        less(join::<2>(low, third), 4)
    }
}

impl Registers for Q2K {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        less(unsafe { bits(block.add(16 + part / 4 * 32), part % 4 * 2, 3) }, 0)
    }
}

impl Registers for Iq4Xs {
    #[inline(always)]
    unsafe fn values(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        look_up(&IQ4_LEVELS, unsafe { nibbles(block.add(8 + 16 * part)) })
    }
}
