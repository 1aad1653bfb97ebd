//! NEON, which every 64-bit ARM processor has; with the dot product instruction where it is found.
//!
//! Both multiply signed bytes, so weights are unpacked to their values and no offset is taken away.
//! The arithmetic of a block is that of the definition; loops over codes are what is faster.

mod blocks_of_256;
mod blocks_of_32;

use std::arch::aarch64::*;
use std::arch::asm;

use super::Variant;
use super::blocks::*;

/// The variants of this processor, slower first.
pub(super) fn variants() -> Vec<Variant> {
    let mut found = vec![with::<false>()];
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        found.push(with::<true>());
    }
    found
}

/// The variant with (or without) the dot product instruction, which the processor must have.
fn with<const DOT: bool>() -> Variant {
    Variant {
        q2_k: blocks_of_256::product::<Q2K, DOT>,
        q3_k: blocks_of_256::product::<Q3K, DOT>,
        q4_k: blocks_of_256::product::<Q4K, DOT>,
        q5_k: blocks_of_256::product::<Q5K, DOT>,
        q6_k: blocks_of_256::product::<Q6K, DOT>,
        iq4_xs: blocks_of_256::product::<Iq4Xs, DOT>,
        q4_0: blocks_of_32::product::<Q4_0, DOT>,
        q4_1: blocks_of_32::product::<Q4_1, DOT>,
        q5_0: blocks_of_32::product::<Q5_0, DOT>,
        q5_1: blocks_of_32::product::<Q5_1, DOT>,
        q8_0: blocks_of_32::product::<Q8_0, DOT>,
        iq4_nl: blocks_of_32::product::<Iq4Nl, DOT>,
        mxfp4: blocks_of_32::product::<MxFp4, DOT>,
        e2m1: blocks_of_32::product::<E2M1, DOT>,
    }
}

/// Adds the sixteen products of codes to four sums.
///
/// # Safety
/// With `DOT`, the processor must have the dot product instruction.
#[inline(always)]
pub(super) unsafe fn add_products<const DOT: bool>(
    sums: int32x4_t,
    weights: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: the caller's promise; the instruction touches its three registers alone. It is
    // written out because its intrinsic is not stable.
    unsafe {
        if DOT {
            let mut sums = sums;
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
            sums
        } else {
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
            let high = vmull_high_s8(weights, x);
            vpadalq_s16(vpadalq_s16(sums, low), high)
        }
    }
}

/// Sixteen bytes as low nibbles and as high ones.
///
/// # Safety
/// The pointer must be good for 16 bytes.
#[inline(always)]
unsafe fn nibbles(from: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = vld1q_u8(from);
        [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)]
    }
}

/// What nibbles name.
#[inline(always)]
fn look_up(levels: &[i8; 16], nibbles: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    // SAFETY: sixteen levels; NEON is always there.
    unsafe {
        let levels = vld1q_s8(levels.as_ptr());
        nibbles.map(|nibbles| vqtbl1q_s8(levels, nibbles))
    }
}

/// Codes less what they are above their value.
#[inline(always)]
fn less(codes: [uint8x16_t; 2], offset: i8) -> [int8x16_t; 2] {
    // SAFETY: NEON is always there.
    codes.map(|codes| unsafe { vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(offset)) })
}
