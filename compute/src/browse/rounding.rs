//! How much the strongest features owe to how their rows were rounded, told from the stored numbers
//! alone.
//!
//! A stored number stands for all numbers that would have been rounded to it. Within a run of a
//! block format those lie about half a step to either side, and the step shows as the least distance
//! between the numbers that occur near it. So a row's score for a query has a known uncertainty, and adding
//! to it an error of that size gives the score that another source of the same stored row may have
//! had.

use crate::kernels::dot;

/// Numbers that share a scale in every format: with those of two scales together, distances say
/// nothing of a step.
const RUN: usize = 16;
/// Of the distances between neighbours, how many on either side of a number are looked at: not every
/// step occurs in a run, and steps of some formats grow with the numbers.
const NEAR: usize = 3;

/// Returns the mean squared rounding error of each run of 16 numbers of a dequantised row: a number
/// is taken to be off, evenly, by up to half the least distance between numbers of its run near it.
///
/// # Shapes
/// `row`: `[n]`; result: `[ceil(n / 16)]`.
pub fn rounding_errors(row: &[f32]) -> Vec<f32> {
    let error = |run: &[f32]| {
        let mut sorted = run.to_vec();
        sorted.sort_by(f32::total_cmp);
        sorted.dedup();
        if sorted.len() < 2 {
            return 0.0;
        }
        let gaps: Vec<f32> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let gap = |at: usize| {
            let near = at.saturating_sub(NEAR)..gaps.len().min(at + NEAR);
            gaps[near].iter().copied().fold(f32::INFINITY, f32::min)
        };
        let sum: f32 = run
            .iter()
            .map(|x| {
                let at = sorted.partition_point(|y| y < x);
                let gap = gap(at.min(sorted.len() - 1));
                // An even distribution over a width has a twelfth of its square as variance.
                gap * gap / 12.0
            })
            .sum();
        sum / run.len() as f32
    };
    row.chunks(RUN).map(error).collect()
}

/// Returns the mean share of the `top` highest scoring rows that stay among the highest when every
/// score gets another rounding error of the size that its row has; the same rows and queries give
/// the same share, 1 without any.
///
/// # Shapes
/// `rows`: dequantised, each as long as each of `queries`; panics if they differ.
pub fn strongest_kept(rows: &[Vec<f32>], queries: &[Vec<f32>], top: usize) -> f64 {
    let errors: Vec<Vec<f32>> = rows.iter().map(|row| rounding_errors(row)).collect();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut kept, mut all) = (0, 0);
    for query in queries {
        let squares: Vec<f32> = query.chunks(RUN).map(|run| dot(run, run)).collect();
        let scores: Vec<f32> = rows.iter().map(|row| dot(row, query)).collect();
        let others: Vec<f32> = scores
            .iter()
            .zip(&errors)
            .map(|(score, errors)| score + dot(errors, &squares).sqrt() * noise.draw())
            .collect();
        let (first, other) = (highest(&scores, top), highest(&others, top));
        kept += first.iter().filter(|row| other.contains(row)).count();
        all += first.len();
    }
    if all == 0 { 1.0 } else { kept as f64 / all as f64 }
}

fn highest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// Numbers of a normal distribution, always the same ones.
struct Noise(u64);

impl Noise {
    /// Steele, Lea and Flood 2014 (SplitMix64).
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The sum of twelve even numbers, less its mean: near enough to normal here.
    fn draw(&mut self) -> f32 {
        let even = |bits: u64| (bits >> 40) as f32 / (1 << 24) as f32;
        (0..12).map(|_| even(self.bits())).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Dtype, from_f32, to_f32};

    fn made(count: usize, seed: u64) -> Vec<f32> {
        let mut noise = Noise(seed);
        (0..count).map(|_| noise.draw()).collect()
    }

    fn rounded(dtype: Dtype, values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap()];
        from_f32(dtype, values, &mut bytes);
        let mut out = vec![0.0; values.len()];
        to_f32(dtype, &bytes, &mut out);
        out
    }

    #[test]
    fn the_error_told_from_stored_numbers_is_about_the_one_that_was_made() {
        let values = made(256 * 64, 7);
        for dtype in [Dtype::Q4_0, Dtype::Q4K, Dtype::Q5K, Dtype::Fp4] {
            let stored = rounded(dtype, &values);
            let made: f32 = values.iter().zip(&stored).map(|(a, b)| (a - b).powi(2)).sum();
            let told: f32 = rounding_errors(&stored).iter().map(|error| error * RUN as f32).sum();
            let ratio = (told / made).sqrt();
            assert!((0.6..1.6).contains(&ratio), "{dtype}: {ratio}");
        }
    }

    #[test]
    fn the_coarser_the_rows_the_fewer_of_the_strongest_stay_as_against_the_source() {
        let rows: Vec<Vec<f32>> = (0..400).map(|row| made(256, 1 + row)).collect();
        let queries: Vec<Vec<f32>> = (0..24).map(|query| made(256, 10_000 + query)).collect();
        let mut before = 1.1;
        for dtype in [Dtype::F16, Dtype::Q5K, Dtype::Q4K, Dtype::Q2K] {
            let stored: Vec<Vec<f32>> = rows.iter().map(|row| rounded(dtype, row)).collect();
            let kept = strongest_kept(&stored, &queries, 10);
            // What it stands for: how many the source has in common with the stored rows.
            let mut common = 0;
            for query in &queries {
                let of = |rows: &[Vec<f32>]| {
                    let scores: Vec<f32> = rows.iter().map(|row| dot(row, query)).collect();
                    highest(&scores, 10)
                };
                let (source, stored) = (of(&rows), of(&stored));
                common += source.iter().filter(|row| stored.contains(row)).count();
            }
            let common = common as f64 / 240.0;
            assert!(kept < before, "{dtype}: {kept} after {before}");
            assert!((kept - common).abs() < 0.12, "{dtype}: told {kept}, found {common}");
            before = kept;
        }
        assert_eq!(strongest_kept(&[], &queries, 10), 1.0);
    }
}
