//! Formats of 32-blocks, block by block; block `b` goes to chain `b % 8`.

use std::arch::aarch64::*;

use super::{add_products, less, look_up, nibbles};
use crate::kernels::quantised::blocks::{
    E2M1, E2M1_DOUBLED, Format32, IQ4_LEVELS, Iq4Nl, MxFp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0,
};
use crate::kernels::quantised::scalar::join_8;
use crate::kernels::quantised::{ActivationRow, Row, define_product};

/// A format as registers.
pub(super) trait Registers: Format32 {
    /// The values of a block's codes.
    ///
    /// # Safety
    /// The pointer is good for `BYTES` bytes.
    unsafe fn values(block: *const u8) -> [int8x16_t; 2];
}

define_product!(
    BlockSize::K32, exponents: F::EXPONENTS, F: Registers, const DOT: bool
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
    let mut chains = [[0.0_f32; 8]; N];
    for (index, block) in row.bytes.chunks_exact(F::BYTES).enumerate() {
        let exponent = if F::EXPONENTS { row.exponents[index] } else { 0 };
        let (d, m) = F::read_factors(block, exponent);
        // SAFETY: the block is whole.
        let values = unsafe { F::values(block.as_ptr()) };
        for (x, chains) in x.iter().zip(&mut chains) {
            // SAFETY: the caller's promise.
            let s = unsafe {
                let x = x.codes.as_ptr().add(index * 32);
                let low = add_products::<DOT>(vdupq_n_s32(0), values[0], vld1q_s8(x));
                vaddvq_s32(add_products::<DOT>(low, values[1], vld1q_s8(x.add(16))))
            };
            let (d_x, chain) = (x.scales[index], &mut chains[index % 8]);
            *chain = (d * d_x).mul_add(s as f32, *chain);
            if F::MINS {
                *chain = (m * d_x).mul_add(f32::from(x.sums[index]), *chain);
            }
        }
    }
    chains.map(join_8)
}

/// Nibbles and their fifth bits.
///
/// # Safety
/// The pointers are good for 16 and for 4 bytes.
#[inline(always)]
unsafe fn with_fifths(codes: *const u8, fifths: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let codes = nibbles(codes);
        let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let with = |codes: uint8x16_t, fifths: *const u8| {
            let bytes = vcombine_u8(vld1_dup_u8(fifths), vld1_dup_u8(fifths.add(1)));
            vorrq_u8(codes, vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(16)))
        };
        [with(codes[0], fifths), with(codes[1], fifths.add(2))]
    }
}

/// A format whose values are an expression.
macro_rules! registers {
    ($format:ident, |$block:ident| $values:expr) => {
        impl Registers for $format {
            /// # Safety
            /// The processor must have this variant's instructions; pointers, what is read through them.
            #[inline(always)]
            unsafe fn values($block: *const u8) -> [int8x16_t; 2] {
                // SAFETY: the caller's promise.
                unsafe { $values }
            }
        }
    };
}

registers!(Q4_0, |block| less(nibbles(block.add(2)), 8));
registers!(Q4_1, |block| less(nibbles(block.add(4)), 0));
registers!(Q5_0, |block| less(with_fifths(block.add(6), block.add(2)), 16));
registers!(Q5_1, |block| less(with_fifths(block.add(8), block.add(4)), 0));
registers!(Q8_0, |block| [vld1q_s8(block.add(2).cast()), vld1q_s8(block.add(18).cast())]);
registers!(Iq4Nl, |block| look_up(&IQ4_LEVELS, nibbles(block.add(2))));
registers!(MxFp4, |block| look_up(&E2M1_DOUBLED, nibbles(block.add(1))));
registers!(E2M1, |block| {
    // Byte `j` holds elements `2 j` and `2 j + 1`.
    let [low, high] = nibbles(block);
    look_up(&E2M1_DOUBLED, [vzip1q_u8(low, high), vzip2q_u8(low, high)])
});
