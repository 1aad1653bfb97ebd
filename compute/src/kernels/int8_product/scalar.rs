//! The definition: quad by quad, row by row, lane by lane.

use super::{Lanes, ROWS, Rows, Tile};

pub(super) fn product(rows: &[Rows], lanes: &[Lanes], start: &[i32; ROWS], tile: &mut Tile) {
    for (sums, &start) in tile.iter_mut().zip(start) {
        sums.fill(start);
    }
    for (rows, lanes) in rows.iter().zip(lanes) {
        for (row, sums) in rows.iter().zip(tile.iter_mut()) {
            for (lane, sum) in lanes.iter().zip(sums) {
                let products = row.iter().zip(lane).map(|(&a, &b)| i32::from(a) * i32::from(b));
                *sum = sum.wrapping_add(products.sum());
            }
        }
    }
}
