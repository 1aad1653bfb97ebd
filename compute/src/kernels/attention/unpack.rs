//! How keys and values are packed into a page, and back to `f32`.
//!
//! Binary16 keeps a number to 11 bits; a finite number beyond its range becomes the largest. In
//! `Q8` a position's head is codes of 8 bits with one scale, `largest magnitude / 127`; a head
//! with a number that is not finite has no finite scale, so that damage is seen.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{LANES, PAGE_POSITIONS};
use crate::kernels::convert;
use crate::quant::{Dtype, with_widest_lanes};

/// Packed numbers of one head of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packed<'p> {
    /// Bits of binary16.
    F16(&'p [u16]),
    /// Codes, and a scale for each position: `[PAGE_POSITIONS]`.
    Q8(&'p [i8], &'p [f32]),
}

/// One key and value head of a page: keys as `[dim][position]`, values as `[position][dim]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageHead<'p> {
    pub(crate) keys: Packed<'p>,
    pub(crate) values: Packed<'p>,
}

impl PageHead<'_> {
    /// Unpacks the keys.
    pub(crate) fn unpack_keys(&self, out: &mut [[f32; PAGE_POSITIONS]]) {
        match self.keys {
            Packed::F16(bits) => {
                convert::to_f32(Dtype::F16, bytemuck::cast_slice(bits), out.as_flattened_mut());
            }
            Packed::Q8(codes, scales) => with_widest_lanes(
                #[inline(always)]
                || {
                    let scales: &[f32; PAGE_POSITIONS] =
                        scales.try_into().expect("a scale for each position");
                    for (codes, out) in codes.as_chunks::<PAGE_POSITIONS>().0.iter().zip(out) {
                        for ((out, code), scale) in out.iter_mut().zip(codes).zip(scales) {
                            *out = f32::from(*code) * scale;
                        }
                    }
                },
            ),
        }
    }

    /// Unpacks the values of `dim` numbers to rows that are padded with zeros to whole lanes.
    pub(super) fn unpack_values(&self, dim: usize, out: &mut [f32]) {
        let width = padded(dim);
        match self.values {
            Packed::F16(bits) if width == dim => {
                convert::to_f32(Dtype::F16, bytemuck::cast_slice(bits), out);
            }
            Packed::F16(bits) => {
                for (bits, out) in bits.chunks_exact(dim).zip(out.chunks_exact_mut(width)) {
                    let (out, padding) = out.split_at_mut(dim);
                    convert::to_f32(Dtype::F16, bytemuck::cast_slice(bits), out);
                    padding.fill(0.0);
                }
            }
            Packed::Q8(codes, scales) => with_widest_lanes(
                #[inline(always)]
                || {
                    let rows = codes.chunks_exact(dim).zip(scales);
                    for ((codes, scale), out) in rows.zip(out.chunks_exact_mut(width)) {
                        let (out, padding) = out.split_at_mut(dim);
                        for (out, code) in out.iter_mut().zip(codes) {
                            *out = f32::from(*code) * scale;
                        }
                        padding.fill(0.0);
                    }
                },
            ),
        }
    }
}

/// Numbers of a row of values in `f32`.
pub(super) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(LANES)
}

/// Hands the numbers of one head to `put` as bits of binary16, with their indices.
pub(crate) fn pack_f16(numbers: &[f32], mut put: impl FnMut(usize, u16)) {
    const CHUNK: usize = 64;
    let most = f16::MAX.to_f32();
    for (chunk, numbers) in numbers.chunks(CHUNK).enumerate() {
        let (mut bounded, mut halves) = ([0.0; CHUNK], [f16::ZERO; CHUNK]);
        for (bounded, &number) in bounded.iter_mut().zip(numbers) {
            *bounded = if number.is_finite() { number.clamp(-most, most) } else { number };
        }
        halves.convert_from_f32_slice(&bounded);
        for (index, half) in halves[..numbers.len()].iter().enumerate() {
            put(chunk * CHUNK + index, half.to_bits());
        }
    }
}

/// Hands the numbers of one head to `put` as codes, with their indices; returns the scale.
pub(crate) fn pack_q8(numbers: &[f32], mut put: impl FnMut(usize, i8)) -> f32 {
    let finite = numbers.iter().all(|number| number.is_finite());
    let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
    let inverse = 127.0 / largest;
    if !finite || !inverse.is_finite() {
        (0..numbers.len()).for_each(|index| put(index, 0));
        return if finite { 0.0 } else { f32::NAN };
    }
    for (index, number) in numbers.iter().enumerate() {
        put(index, (number * inverse).round_ties_even() as i8);
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_numbers_come_back_within_half_a_step() {
        let numbers: Vec<f32> = (0..130).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let mut bits = vec![0; 130];
        pack_f16(&numbers, |index, half| bits[index] = half);
        for (number, bits) in numbers.iter().zip(bits) {
            assert!((f16::from_bits(bits).to_f32() - number).abs() <= number.abs() / 2048.0);
        }
        let mut codes = vec![0; 130];
        let scale = pack_q8(&numbers, |index, code| codes[index] = code);
        for (number, code) in numbers.iter().zip(codes) {
            assert!((f32::from(code) * scale - number).abs() <= scale * 0.5001);
        }
    }

    #[test]
    fn numbers_too_large_become_the_largest_and_damage_stays() {
        let mut bits = [0; 4];
        let numbers = [1e9, -1e9, f32::INFINITY, f32::NAN];
        pack_f16(&numbers, |index, half| bits[index] = half);
        let back = bits.map(|bits| f16::from_bits(bits).to_f32());
        assert_eq!(back[..3], [65504.0, -65504.0, f32::INFINITY]);
        assert!(back[3].is_nan());
        assert!(pack_q8(&numbers, |_, code| assert_eq!(code, 0)).is_nan());
        assert_eq!(pack_q8(&[0.0; 3], |_, code| assert_eq!(code, 0)), 0.0);
    }
}
