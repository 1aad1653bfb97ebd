//! Products of 8-bit integers, exact in 32 bits: the inner loop of scans over whole vocabularies.
//!
//! One call multiplies a panel of [`ROWS`] rows with a panel of [`LANES`] lanes over their whole
//! depth and keeps all sums in registers. `scalar` defines it; every variant gives the same
//! integers. Rows stay within ±[`ROW_MAX`] so that two products with any byte fit 16 signed bits,
//! which is what AVX2 adds up without saturating.
//!
//! Elsewhere: what the integers stand for and how far they are off (`browse::top_tokens`).

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::sync::LazyLock;

use crate::cpu::{Isa, fastest};

/// Rows in a panel.
pub const ROWS: usize = 12;
/// Lanes in a panel.
pub const LANES: usize = 32;
/// Depth that lies together: four consecutive numbers of one row or lane.
pub const QUAD: usize = 4;
/// The largest magnitude in a row.
pub const ROW_MAX: i8 = 63;

/// All sums of one panel of rows with one panel of lanes.
pub type Tile = [[i32; LANES]; ROWS];

/// A quad of every row of a panel.
pub type Rows = [[i8; QUAD]; ROWS];
/// A quad of every lane of a panel.
pub type Lanes = [[u8; QUAD]; LANES];

/// Rows `[depth / 4][ROWS][4]`, lanes `[depth / 4][LANES][4]`, a start for each row, and the sums.
pub type Product = fn(&[Rows], &[Lanes], &[i32; ROWS], &mut Tile);

/// Every variant that this processor can run, slowest first: read by dispatch and by the test.
pub fn variants() -> Vec<(Isa, Product)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found: Vec<(Isa, Product)> = vec![(Isa::Scalar, scalar::product)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, variant)));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, variant)));
    found
}

/// Writes `tile[r][l] = start[r] + Σ rows[·][r] · lanes[·][l]`; panics if the depths differ.
///
/// Lanes that stand for signed numbers are stored 128 above them, and `start` takes 128 times the
/// row's sum away again. Sums wrap at 32 bits: up to a depth of 66,000 they cannot.
pub fn int8_product(rows: &[Rows], lanes: &[Lanes], start: &[i32; ROWS], tile: &mut Tile) {
    static FASTEST: LazyLock<Product> = LazyLock::new(|| fastest(variants()));
    assert_eq!(rows.len(), lanes.len(), "panels of different depth");
    FASTEST(rows, lanes, start, tile);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panels of numbers from a seed, the extremes among them.
    fn panels(depth: usize, mut seed: u64) -> (Vec<Rows>, Vec<Lanes>) {
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as i64
        };
        let row =
            |n: i64| if n % 5 == 0 { ROW_MAX * (n % 3 - 1) as i8 } else { (n % 127 - 63) as i8 };
        let lane = |n: i64| if n % 5 == 0 { 255 * (n % 2) as u8 } else { (n % 256) as u8 };
        let rows = (0..depth).map(|_| [(); ROWS].map(|()| [(); QUAD].map(|()| row(next()))));
        let rows = rows.collect();
        let lanes = (0..depth).map(|_| [(); LANES].map(|()| [(); QUAD].map(|()| lane(next()))));
        (rows, lanes.collect())
    }

    #[test]
    fn every_variant_gives_the_same_integers_at_any_depth() {
        for depth in [0, 1, 2, 3, 7, 64, 511, 2048] {
            let (rows, lanes) = panels(depth, depth as u64 + 1);
            let start: [i32; ROWS] = std::array::from_fn(|row| row as i32 * 1000 - 5000);
            let mut expected = [[0; LANES]; ROWS];
            for (row, sums) in expected.iter_mut().enumerate() {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let products = rows.iter().zip(&lanes).flat_map(|(rows, lanes)| {
                        (0..QUAD).map(|k| i32::from(rows[row][k]) * i32::from(lanes[lane][k]))
                    });
                    *sum = start[row] + products.sum::<i32>();
                }
            }
            for (isa, variant) in variants() {
                let mut tile = [[-1; LANES]; ROWS];
                variant(&rows, &lanes, &start, &mut tile);
                assert_eq!(tile, expected, "{isa:?} at depth {depth}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_saturate() {
        let rows = vec![[[ROW_MAX; QUAD]; ROWS]; 100];
        let lanes = vec![[[255; QUAD]; LANES]; 100];
        for (isa, variant) in variants() {
            let mut tile = [[0; LANES]; ROWS];
            variant(&rows, &lanes, &[0; ROWS], &mut tile);
            assert_eq!(tile, [[400 * 255 * i32::from(ROW_MAX); LANES]; ROWS], "{isa:?}");
        }
    }
}
