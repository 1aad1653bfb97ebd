//! The definition: exact integers a block, and four chains of fused multiply-adds an output (eight
//! for blocks of 32).

use super::blocks::*;
use super::{ActivationRow, Activations, BlockSize, Row, Variant, Weights};

pub(super) const VARIANT: Variant = Variant {
    q2_k: blocks_of_256::<Q2K>,
    q3_k: blocks_of_256::<Q3K>,
    q4_k: blocks_of_256::<Q4K>,
    q5_k: blocks_of_256::<Q5K>,
    q6_k: blocks_of_256::<Q6K>,
    iq4_xs: blocks_of_256::<Iq4Xs>,
    q4_0: blocks_of_32::<Q4_0>,
    q4_1: blocks_of_32::<Q4_1>,
    q5_0: blocks_of_32::<Q5_0>,
    q5_1: blocks_of_32::<Q5_1>,
    q8_0: blocks_of_32::<Q8_0>,
    iq4_nl: blocks_of_32::<Iq4Nl>,
    mxfp4: blocks_of_32::<MxFp4>,
    e2m1: blocks_of_32::<E2M1>,
};

fn blocks_of_256<F: Format256>(
    weights: &Weights<'_, '_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    weights.check(x, BlockSize::K256, F::BYTES, false);
    for_each(weights, x, first, out, |row, x| {
        let mut chains = [0.0_f32; 4];
        for (index, block) in row.bytes.chunks_exact(F::BYTES).enumerate() {
            let block = F::read(block);
            let (codes, sums) = (&x.codes[index * 256..], &x.sums[index * 16..]);
            let (mut s, mut m) = (0, 0);
            for j in 0..16 {
                let weights = &block.codes[16 * j..16 * j + 16];
                s += i32::from(block.scales[j]) * product(weights, &codes[16 * j..]);
                m += i32::from(block.mins[j]) * i32::from(sums[j]);
            }
            let (d, chain) = (x.scales[index], &mut chains[index % 4]);
            *chain = (block.d * d).mul_add(s as f32, *chain);
            if F::MINS {
                *chain = (-(block.dmin * d)).mul_add(m as f32, *chain);
            }
        }
        join_4(chains)
    });
}

fn blocks_of_32<F: Format32>(
    weights: &Weights<'_, '_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    weights.check(x, BlockSize::K32, F::BYTES, F::EXPONENTS);
    for_each(weights, x, first, out, |row, x| {
        let mut chains = [0.0_f32; 8];
        for (index, block) in row.bytes.chunks_exact(F::BYTES).enumerate() {
            let block = F::read(block, row.exponents.get(index).copied().unwrap_or_default());
            let (d, chain) = (x.scales[index], &mut chains[index % 8]);
            let s = product(&block.codes, &x.codes[index * 32..]);
            *chain = (block.d * d).mul_add(s as f32, *chain);
            if F::MINS {
                *chain = (block.m * d).mul_add(f32::from(x.sums[index]), *chain);
            }
        }
        join_8(chains)
    });
}

/// Writes what `product` gives for each row of weights and each row of activations.
fn for_each(
    weights: &Weights<'_, '_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
    product: impl Fn(Row, ActivationRow) -> f32,
) {
    let positions = out.len() / weights.outputs.len().max(1);
    for (index, out) in out.chunks_mut(positions.max(1)).enumerate() {
        for (p, out) in out.iter_mut().enumerate() {
            *out = product(weights.row(index), x.row(first + p));
        }
    }
}

/// The sum of four chains, by halving.
pub(in crate::kernels::quantised) fn join_4([a, b, c, d]: [f32; 4]) -> f32 {
    (a + c) + (b + d)
}

/// The sum of eight chains, by halving.
pub(in crate::kernels::quantised) fn join_8([a, b, c, d, e, f, g, h]: [f32; 8]) -> f32 {
    join_4([a + e, b + f, c + g, d + h])
}

/// `Σ weights · codes`, over as many as there are weights.
fn product(weights: &[i8], codes: &[i8]) -> i32 {
    weights.iter().zip(codes).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
}
