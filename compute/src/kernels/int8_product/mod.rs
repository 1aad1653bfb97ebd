//! Products of 8-bit integers, exact in 32 bits: the inner loop of scans over whole vocabularies.
//!
//! One call multiplies a panel of [`ROWS`] rows with a panel of [`LANES`] lanes over their whole
//! depth and keeps all sums in registers. `scalar` defines it; every variant gives the same
//! integers. All numbers stay within ±[`CODE_MAX`], so that two products fit 16 signed bits, which is
//! what AVX2 adds up without saturating. Lanes are stored [`LANE_OFFSET`] above their value, because
//! VNNI multiplies signed by unsigned bytes.
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
/// The largest magnitude in a row or lane.
pub const CODE_MAX: i8 = 127;
/// What is added to a number of a lane to store it.
pub const LANE_OFFSET: u8 = 128;

/// All sums of one panel of rows with one panel of lanes.
pub type Tile = [[i32; LANES]; ROWS];

/// A quad of every row of a panel.
pub type Rows = [[i8; QUAD]; ROWS];
/// A quad of every lane of a panel.
pub type Lanes = [[u8; QUAD]; LANES];

/// Rows `[depth / 4][ROWS][4]`, the sum of each row's numbers, lanes `[depth / 4][LANES][4]`, and
/// all sums of products.
pub type Product = fn(&[Rows], &[i32; ROWS], &[Lanes], &mut Tile);

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

/// Writes `tile[r][l] = Σ rows[·][r] · (lanes[·][l] - 128)`; panics if the depths differ.
///
/// `row_sums` are the sums of each row's numbers, which some variants need to take the offset of the
/// lanes away again. Sums wrap at 32 bits: up to a depth of 65,536 numbers they cannot.
pub fn int8_product(rows: &[Rows], row_sums: &[i32; ROWS], lanes: &[Lanes], tile: &mut Tile) {
    static FASTEST: LazyLock<Product> = LazyLock::new(|| fastest(variants()));
    assert_eq!(rows.len(), lanes.len(), "panels of different depth");
    FASTEST(rows, row_sums, lanes, tile);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panels of numbers from a seed, the extremes among them.
    fn panels(depth: usize, mut seed: u64) -> (Vec<Rows>, Vec<Lanes>) {
        let mut code = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let n = (seed >> 33) as i64;
            if n % 5 == 0 { CODE_MAX * (n % 3 - 1) as i8 } else { (n % 255 - 127) as i8 }
        };
        let rows = (0..depth).map(|_| [(); ROWS].map(|()| [(); QUAD].map(|()| code()))).collect();
        let mut lane = || code().cast_unsigned().wrapping_add(LANE_OFFSET);
        let lanes = (0..depth).map(|_| [(); LANES].map(|()| [(); QUAD].map(|()| lane())));
        (rows, lanes.collect())
    }

    fn row_sums(rows: &[Rows]) -> [i32; ROWS] {
        std::array::from_fn(|row| rows.iter().flat_map(|rows| rows[row]).map(i32::from).sum())
    }

    #[test]
    fn every_variant_gives_the_same_integers_at_any_depth() {
        for depth in [0, 1, 2, 3, 7, 64, 511, 2048] {
            let (rows, lanes) = panels(depth, depth as u64 + 1);
            let mut expected = [[0; LANES]; ROWS];
            for (row, sums) in expected.iter_mut().enumerate() {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let products = rows.iter().zip(&lanes).flat_map(|(rows, lanes)| {
                        (0..QUAD)
                            .map(|k| i32::from(rows[row][k]) * (i32::from(lanes[lane][k]) - 128))
                    });
                    *sum = products.sum::<i32>();
                }
            }
            for (isa, variant) in variants() {
                let mut tile = [[-1; LANES]; ROWS];
                variant(&rows, &row_sums(&rows), &lanes, &mut tile);
                assert_eq!(tile, expected, "{isa:?} at depth {depth}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_saturate() {
        for (row, lane, product) in [(127, 255, 16_129), (-127, 255, -16_129), (-127, 1, 16_129)] {
            let rows = vec![[[row; QUAD]; ROWS]; 100];
            let lanes = vec![[[lane; QUAD]; LANES]; 100];
            for (isa, variant) in variants() {
                let mut tile = [[0; LANES]; ROWS];
                variant(&rows, &row_sums(&rows), &lanes, &mut tile);
                assert_eq!(tile, [[400 * product; LANES]; ROWS], "{isa:?}");
            }
        }
    }
}
