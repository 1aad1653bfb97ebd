//! The definition: quad by quad, row by row, lane by lane.

use super::{LANE_OFFSET, Lanes, ROWS, Rows, Tile};

pub(super) fn product(rows: &[Rows], _row_sums: &[i32; ROWS], lanes: &[Lanes], tile: &mut Tile) {
    for sums in tile.iter_mut() {
        sums.fill(0);
    }
    for (rows, lanes) in rows.iter().zip(lanes) {
        for (row, sums) in rows.iter().zip(tile.iter_mut()) {
            for (lane, sum) in lanes.iter().zip(sums) {
                let product =
                    |(&a, &b): (&i8, &u8)| i32::from(a) * (i32::from(b) - i32::from(LANE_OFFSET));
                *sum = sum.wrapping_add(row.iter().zip(lane).map(product).sum());
            }
        }
    }
}
