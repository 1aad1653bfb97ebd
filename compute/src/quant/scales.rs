//! Scales that lie outside the elements' bytes, as three publishers store them.

use std::ops::Range;

use super::dtype::{plain_number, round_to};
use super::float8::e8m0_to_f32;
use super::{Dtype, ViewError};

/// Scales that lie outside the elements' bytes.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// The elements need none.
    None,
    /// One factor for a tile of `rows` by `columns` elements: value = element * factor.
    ///
    /// The grid is row-major, `[ceil(stored rows / rows), ceil(columns of the matrix / columns)]`,
    /// over the whole stored matrix. For FP8 elements (DeepSeek's `weight_scale_inv`).
    Grid {
        /// The factors.
        bytes: &'a [u8],
        /// Their format, a plain one.
        dtype: Dtype,
        /// Rows of a tile.
        rows: usize,
        /// Columns of a tile.
        columns: usize,
    },
    /// One scale, and perhaps one bias, for `group` elements of a row: value = element * scale +
    /// bias, each `[stored rows, ceil(columns / group)]`. For `U4` and `U8` (MLX), whose own
    /// dequantisation rounds product and sum to the scales' format; so does this one.
    Groups {
        /// The factors.
        scales: &'a [u8],
        /// What is added, or nothing.
        biases: Option<&'a [u8]>,
        /// The format of both, a plain one.
        dtype: Dtype,
        /// Elements that share a scale.
        group: usize,
    },
    /// One E8M0 exponent for 32 elements of a row, `[stored rows, ceil(columns / 32)]`. For `E2M1`
    /// (GPT-OSS).
    Mx {
        /// The exponents.
        bytes: &'a [u8],
    },
}

/// Elements that share an exponent in the MX formats.
const MX_GROUP: usize = 32;

impl<'a> Scales<'a> {
    /// The MX exponents of a stored row in a matrix of `width` columns, or none of another kind.
    #[inline]
    pub(super) fn exponents(&self, row: usize, width: usize) -> &'a [u8] {
        let groups = width.div_ceil(MX_GROUP);
        match *self {
            Scales::Mx { bytes } => &bytes[row * groups..(row + 1) * groups],
            _ => &[],
        }
    }

    /// Checks that scales fit a matrix.
    ///
    /// # Errors
    /// `ScalesKind` where the format takes other scales, `ScalesLength` where there are too many or
    /// too few.
    pub(super) fn check(&self, dtype: Dtype, rows: usize, columns: usize) -> Result<(), ViewError> {
        let fits = match (self, dtype) {
            (Scales::None, Dtype::E2M1 | Dtype::U4 | Dtype::U8) => false,
            (Scales::None, _) => true,
            (Scales::Grid { dtype: scales, rows, columns, .. }, _) => {
                matches!(dtype, Dtype::F8E4M3 | Dtype::F8E5M2)
                    && scales.is_plain()
                    && *rows > 0
                    && *columns > 0
            }
            (Scales::Groups { dtype: scales, group, .. }, _) => {
                matches!(dtype, Dtype::U4 | Dtype::U8) && scales.is_plain() && *group > 0
            }
            (Scales::Mx { .. }, _) => dtype == Dtype::E2M1,
        };
        if !fits {
            return Err(ViewError::ScalesKind { dtype, scales: self.kind() });
        }
        let too_large = ViewError::TooLarge { dtype, rows, columns };
        let length = |rows: usize, columns: usize, scales: Dtype| {
            let count = rows.checked_mul(columns);
            count.and_then(|count| scales.bytes_for(count)).ok_or(too_large.clone())
        };
        let check = |bytes: &[u8], expected: usize| match bytes.len() {
            found if found == expected => Ok(()),
            found => Err(ViewError::ScalesLength { dtype, rows, columns, expected, found }),
        };
        match *self {
            Scales::None => Ok(()),
            Scales::Grid { bytes, dtype, rows: tile_rows, columns: tile_columns } => {
                let tiles = (rows.div_ceil(tile_rows), columns.div_ceil(tile_columns));
                check(bytes, length(tiles.0, tiles.1, dtype)?)
            }
            Scales::Groups { scales, biases, dtype, group } => {
                let expected = length(rows, columns.div_ceil(group), dtype)?;
                check(scales, expected)?;
                biases.map_or(Ok(()), |biases| check(biases, expected))
            }
            Scales::Mx { bytes } => {
                let groups = rows.checked_mul(columns.div_ceil(MX_GROUP)).ok_or(too_large)?;
                check(bytes, groups)
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Scales::None => "without scales",
            Scales::Grid { .. } => "with a grid of scales",
            Scales::Groups { .. } => "with scales for groups",
            Scales::Mx { .. } => "with MX exponents",
        }
    }

    /// Turns elements of a stored row into values, in place.
    ///
    /// # Shapes
    /// `part`: elements `columns` of the stored row `row`, in a matrix of `width` columns.
    #[inline]
    pub(super) fn apply(&self, row: usize, columns: Range<usize>, width: usize, part: &mut [f32]) {
        match *self {
            Scales::None => {}
            Scales::Grid { bytes, dtype, rows, columns: tile } => {
                let first = row / rows * width.div_ceil(tile);
                for_groups(columns, tile, part, |group, part| {
                    let scale = plain_number(dtype, bytes, first + group);
                    part.iter_mut().for_each(|value| *value *= scale);
                });
            }
            Scales::Groups { scales, biases, dtype, group: length } => {
                let first = row * width.div_ceil(length);
                for_groups(columns, length, part, |group, part| {
                    let scale = plain_number(dtype, scales, first + group);
                    let bias =
                        biases.map_or(0.0, |biases| plain_number(dtype, biases, first + group));
                    part.iter_mut().for_each(|value| {
                        *value = round_to(dtype, round_to(dtype, *value * scale) + bias);
                    });
                });
            }
            Scales::Mx { bytes } => {
                let first = row * width.div_ceil(MX_GROUP);
                for_groups(columns, MX_GROUP, part, |group, part| {
                    let scale = e8m0_to_f32(bytes[first + group]);
                    part.iter_mut().for_each(|value| *value *= scale);
                });
            }
        }
    }

    /// How many bytes of scales some rows have, counted from the start of a tile.
    pub(super) fn bytes_of_rows(&self, rows: usize, width: usize) -> u64 {
        let bytes = match *self {
            Scales::None => 0,
            Scales::Grid { dtype, rows: tile_rows, columns, .. } => {
                rows.div_ceil(tile_rows) * width.div_ceil(columns) * dtype.block().1
            }
            Scales::Groups { biases, dtype, group, .. } => {
                let arrays = 1 + usize::from(biases.is_some());
                rows * width.div_ceil(group) * dtype.block().1 * arrays
            }
            Scales::Mx { .. } => rows * width.div_ceil(MX_GROUP),
        };
        bytes as u64
    }
}

/// Calls `run` with each group that some columns touch, and the numbers of it among them.
#[inline]
fn for_groups(
    columns: Range<usize>,
    length: usize,
    part: &mut [f32],
    mut run: impl FnMut(usize, &mut [f32]),
) {
    let (mut start, mut part) = (columns.start, part);
    while !part.is_empty() {
        let group = start / length;
        let count = part.len().min(length - start % length);
        let (head, rest) = part.split_at_mut(count);
        run(group, head);
        (start, part) = (start + count, rest);
    }
}
