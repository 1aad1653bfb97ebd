//! Random bytes, in every format and at every awkward length.

use larql_compute::quant::{Dtype, MatrixView, Scales};
use proptest::prelude::*;

/// Row lengths below, at and above the blocks of 32 and 256, and the width of GPT-OSS.
const COLUMNS: [usize; 9] = [1, 7, 31, 32, 33, 255, 256, 257, 2880];

/// Scales for a matrix of a format, out of random bytes; `None` where the format needs none.
fn scales(dtype: Dtype, rows: usize, columns: usize, bytes: &[u8]) -> Scales<'_> {
    let take = |count: usize| &bytes[..count];
    match dtype {
        Dtype::F8E4M3 => {
            let tiles = rows.div_ceil(3) * columns.div_ceil(5);
            Scales::Grid { bytes: take(tiles * 4), dtype: Dtype::F32, rows: 3, columns: 5 }
        }
        Dtype::E2M1 => Scales::Mx { bytes: take(rows * columns.div_ceil(32)) },
        Dtype::U4 | Dtype::U8 => {
            let scales = take(rows * columns.div_ceil(24) * 2);
            Scales::Groups { scales, biases: Some(scales), dtype: Dtype::F16, group: 24 }
        }
        _ => Scales::None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_decode_without_a_panic_and_rows_parts_and_elements_agree(
        seed in any::<u64>(),
        columns in prop::sample::select(&COLUMNS[..]),
        cuts in prop::collection::vec(0.0..1.0_f64, 3),
    ) {
        let rows = 4;
        // A small congruential generator: the bytes, not their quality, matter.
        let mut state = seed;
        let mut random = |count: usize| -> Vec<u8> {
            (0..count)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect()
        };
        let beside = random(rows * columns * 4 + 64);
        for dtype in Dtype::ALL {
            let bytes = random(rows * dtype.bytes_for(columns).unwrap());
            let scales = scales(dtype, rows, columns, &beside);
            let view = MatrixView::stored(dtype, rows, columns, &bytes, scales).unwrap();
            let mut whole = vec![0.0; columns];
            view.row_f32(2, &mut whole);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * columns as f64) as usize).collect();
            ends.extend([0, columns]);
            ends.sort_unstable();
            let mut parts = vec![0.0; columns];
            for pair in ends.windows(2) {
                view.part_f32(2, pair[0]..pair[1], &mut parts[pair[0]..pair[1]]);
            }
            for column in 0..columns {
                let found = [parts[column], view.element(2, column)];
                for found in found {
                    let equal = found == whole[column] || found.is_nan() && whole[column].is_nan();
                    prop_assert!(equal, "{} of {}: {}", column, dtype, found);
                }
            }
        }
    }
}

#[test]
fn a_scale_that_is_no_number_gives_numbers_that_are_none() {
    for dtype in Dtype::ALL {
        let (elements, bytes) = dtype.block();
        if matches!(dtype, Dtype::E2M1 | Dtype::U4 | Dtype::U8) || elements == 1 {
            continue;
        }
        for byte in [0xff, 0x7f] {
            let block = vec![byte; bytes];
            let view = MatrixView::new(dtype, 1, elements, &block).unwrap();
            let mut row = vec![0.0; elements];
            view.row_f32(0, &mut row);
            // All ones are NaN in binary16, E4M3 and E8M0; 0x7f7f is in binary16.
            assert!(dtype == Dtype::MxFp4 || row.iter().all(|number| number.is_nan()), "{dtype}");
        }
    }
}
