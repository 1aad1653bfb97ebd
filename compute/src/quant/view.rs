//! A borrowed matrix of any dtype, at any alignment, with the scales and the row order it needs.

use std::ops::Range;

use super::dtype::part_to_f32;
use super::row_order::RowMap;
use super::{Dtype, RowOrder, Scales};

/// Why bytes are not the matrix that they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The sizes alone are absurd.
    #[error("a {dtype} matrix of {rows} x {columns} does not fit the address space")]
    TooLarge {
        /// Format of the elements.
        dtype: Dtype,
        /// Rows claimed.
        rows: usize,
        /// Columns claimed.
        columns: usize,
    },
    /// The bytes are too few or too many.
    #[error("a {dtype} matrix of {rows} x {columns} takes {expected} bytes, but {found} are given")]
    Length {
        /// Format of the elements.
        dtype: Dtype,
        /// Rows claimed.
        rows: usize,
        /// Columns claimed.
        columns: usize,
        /// Bytes that such a matrix takes.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The format and the scales do not belong together.
    #[error("a {dtype} matrix cannot be read {scales}")]
    ScalesKind {
        /// Format of the elements.
        dtype: Dtype,
        /// The scales given, in words.
        scales: &'static str,
    },
    /// The scales are too few or too many.
    #[error(
        "the scales of a {dtype} matrix of {rows} x {columns} take {expected} bytes, but {found} \
         are given"
    )]
    ScalesLength {
        /// Format of the elements.
        dtype: Dtype,
        /// Rows stored.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Bytes that its scales take.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Rows were chosen that the matrix does not have, or not in whole heads.
    #[error("{rows} rows in the order {order:?} are not within the {available} there are")]
    Selection {
        /// Rows asked for.
        rows: usize,
        /// Their order.
        order: RowOrder,
        /// Rows there are.
        available: usize,
    },
}

/// A matrix read in place: rows of a stored matrix, in some order, each a whole number of blocks.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    dtype: Dtype,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    /// All stored rows, chosen or not.
    bytes: &'a [u8],
    scales: Scales<'a>,
    map: RowMap,
}

impl<'a> MatrixView<'a> {
    /// Takes bytes for a matrix after checking that they are as long as the shape demands.
    ///
    /// # Errors
    /// As [`MatrixView::stored`], without scales.
    pub fn new(
        dtype: Dtype,
        rows: usize,
        columns: usize,
        bytes: &'a [u8],
    ) -> Result<MatrixView<'a>, ViewError> {
        MatrixView::stored(dtype, rows, columns, bytes, Scales::None)
    }

    /// Takes bytes and scales for a whole stored matrix.
    ///
    /// # Errors
    /// `TooLarge` where a byte count overflows, `Length` and `ScalesLength` where one differs,
    /// `ScalesKind` where the format needs other scales than these.
    pub fn stored(
        dtype: Dtype,
        rows: usize,
        columns: usize,
        bytes: &'a [u8],
        scales: Scales<'a>,
    ) -> Result<MatrixView<'a>, ViewError> {
        let too_large = ViewError::TooLarge { dtype, rows, columns };
        let row_bytes = dtype.bytes_for(columns).ok_or(too_large.clone())?;
        let expected = row_bytes.checked_mul(rows).ok_or(too_large)?;
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(ViewError::Length { dtype, rows, columns, expected, found });
        }
        scales.check(dtype, rows, columns)?;
        Ok(MatrixView { dtype, rows, columns, row_bytes, bytes, scales, map: RowMap::IDENTITY })
    }

    /// A view of numbers in memory.
    ///
    /// # Errors
    /// As [`MatrixView::new`].
    pub fn from_f32(
        rows: usize,
        columns: usize,
        values: &'a [f32],
    ) -> Result<MatrixView<'a>, ViewError> {
        MatrixView::new(Dtype::F32, rows, columns, bytemuck::cast_slice(values))
    }

    /// The view of `rows` rows of this one, in some order.
    ///
    /// # Errors
    /// `Selection` where they are not within this view, or an order of heads is asked for that
    /// does not come out whole or is applied twice.
    pub fn select(&self, rows: usize, order: RowOrder) -> Result<MatrixView<'a>, ViewError> {
        match self.map.then(rows, order, self.rows) {
            Some(map) => Ok(MatrixView { rows, map, ..*self }),
            None => Err(ViewError::Selection { rows, order, available: self.rows }),
        }
    }

    /// The view of some rows alone; panics if they are not within the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> MatrixView<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "{rows:?} of {}", self.rows);
        let order = RowOrder::Linear { first: rows.start, step: 1 };
        self.select(rows.len(), order).expect("a range within the rows is a selection")
    }

    /// The format of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row holds.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The length of one stored row in bytes, without scales that lie elsewhere.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// What reading all of the view costs: the bytes of its rows and of their scales.
    pub fn bytes_touched(&self) -> u64 {
        self.rows as u64 * self.row_bytes as u64
            + self.scales.bytes_of_rows(self.rows, self.columns)
    }

    /// Whether the bytes of each row are its numbers: a plain dtype without scales.
    pub fn has_plain_rows(&self) -> bool {
        self.dtype.is_plain() && matches!(self.scales, Scales::None)
    }

    /// Whether the view is plain numbers, row after row.
    pub fn is_contiguous_plain(&self) -> bool {
        self.has_plain_rows() && self.map.contiguous_from().is_some()
    }

    /// All rows, one after another, if that is how they lie; scales that lie elsewhere are not
    /// among them.
    pub fn contiguous_bytes(&self) -> Option<&'a [u8]> {
        let start = self.map.contiguous_from()? * self.row_bytes;
        self.bytes.get(start..start + self.rows * self.row_bytes)
    }

    /// The stored bytes of one row; panics if there is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> &'a [u8] {
        let start = self.stored_row(row) * self.row_bytes;
        &self.bytes[start..start + self.row_bytes]
    }

    /// The exponents of one row, where they lie beside the elements ([`Scales::Mx`]), else none;
    /// panics if there is no such row.
    #[inline]
    pub(crate) fn exponents(&self, row: usize) -> &'a [u8] {
        self.scales.exponents(self.stored_row(row), self.columns)
    }

    /// The numbers of one row; panics if there is no such row or `out` is not `columns` long.
    pub fn row_f32(&self, row: usize, out: &mut [f32]) {
        self.part_f32(row, 0..self.columns, out);
    }

    /// One number; panics outside the matrix.
    pub fn element(&self, row: usize, column: usize) -> f32 {
        let mut value = [0.0];
        self.part_f32(row, column..column + 1, &mut value);
        value[0]
    }

    /// The numbers of some columns of one row, scales applied.
    ///
    /// # Shapes
    /// `columns` within the row, `out` as long as it; panics otherwise.
    pub fn part_f32(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns {columns:?}");
        part_to_f32(self.dtype, self.row(row), columns.clone(), out);
        self.scales.apply(self.stored_row(row), columns, self.columns, out);
    }

    /// Which row of the whole stored matrix a row is: where its scales are, for whoever moves rows
    /// with their scales. Panics if there is no such row.
    #[inline]
    pub fn stored_row(&self, row: usize) -> usize {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.map.stored(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_length_are_refused_with_both_lengths() {
        let error = MatrixView::new(Dtype::F16, 2, 3, &[0; 11]).unwrap_err();
        assert_eq!(error.to_string(), "a F16 matrix of 2 x 3 takes 12 bytes, but 11 are given");
        assert!(matches!(
            MatrixView::new(Dtype::F32, usize::MAX, 8, &[]),
            Err(ViewError::TooLarge { .. })
        ));
    }

    #[test]
    fn rows_parts_and_ranges_agree_at_odd_addresses() {
        let mut bytes = vec![0_u8];
        bytes.extend((0..6_u16).flat_map(|n| half::f16::from_f32(f32::from(n)).to_le_bytes()));
        let view = MatrixView::new(Dtype::F16, 3, 2, &bytes[1..]).unwrap();
        let mut row = [0.0; 2];
        view.row_f32(2, &mut row);
        assert_eq!(row, [4.0, 5.0]);
        assert_eq!(view.element(1, 1), 3.0);
        view.rows_range(1..3).row_f32(0, &mut row);
        assert_eq!(row, [2.0, 3.0]);
        assert_eq!(view.rows_range(3..3).rows(), 0);
    }

    #[test]
    fn rows_are_taken_by_step_and_out_of_interleaved_heads() {
        let values: Vec<f32> = (0..12).map(|n| n as f32).collect();
        let view = MatrixView::from_f32(12, 1, &values).unwrap();
        let numbers = |view: &MatrixView| -> Vec<f32> {
            (0..view.rows()).map(|row| view.element(row, 0)).collect()
        };
        let odd = view.select(6, RowOrder::Linear { first: 1, step: 2 }).unwrap();
        assert_eq!(numbers(&odd), [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
        assert_eq!(numbers(&odd.rows_range(2..4)), [5.0, 7.0]);
        assert_eq!(odd.contiguous_bytes(), None);
        assert_eq!(odd.bytes_touched(), 24);
        // The converter's order of one head of six, [0, 3, 1, 4, 2, 5], read back.
        let heads = RowOrder::InterleavedHeads { first: 6, head_dim: 6 };
        let head = view.select(6, heads).unwrap();
        assert_eq!(numbers(&head), [6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        assert_eq!(numbers(&head.rows_range(1..4)), [8.0, 10.0, 7.0]);
        let heads = RowOrder::InterleavedHeads { first: 2, head_dim: 4 };
        assert_eq!(numbers(&odd.select(4, heads).unwrap()), [5.0, 9.0, 7.0, 11.0]);
        let rest = view.rows_range(3..12).rows_range(2..5);
        assert!(rest.is_contiguous_plain());
        assert_eq!(rest.contiguous_bytes(), Some(&view.bytes[20..32]));
    }

    #[test]
    fn rows_outside_the_matrix_and_heads_that_are_not_whole_are_refused() {
        let view = MatrixView::from_f32(6, 1, &[0.0; 6]).unwrap();
        let linear = |rows, first, step| view.select(rows, RowOrder::Linear { first, step });
        assert!(linear(3, 1, 2).is_ok());
        assert!(linear(3, 2, 2).is_err());
        assert!(linear(2, 1, usize::MAX).is_err());
        assert!(linear(1, 6, 0).is_err());
        assert!(linear(0, 6, 1).is_ok());
        let heads = |rows, first, head_dim| {
            view.select(rows, RowOrder::InterleavedHeads { first, head_dim })
        };
        assert!(heads(4, 2, 4).is_ok());
        assert!(heads(4, 3, 4).is_err());
        assert!(heads(3, 0, 3).is_err(), "heads of odd length have no halves");
        assert!(heads(6, 0, 4).is_err());
        assert!(heads(0, 0, 0).is_err());
        let order = RowOrder::InterleavedHeads { first: 0, head_dim: 4 };
        let error = heads(4, 0, 4).unwrap().select(4, order).unwrap_err();
        assert!(matches!(error, ViewError::Selection { rows: 4, available: 4, .. }), "{error}");
    }

    #[test]
    fn scales_of_a_tile_of_a_group_and_of_an_exponent_reach_their_elements() {
        // 3 x 5 ones of E4M3 under tiles of 2 x 2.
        let ones = [0x38; 15];
        let factors: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let bytes = bytemuck::cast_slice(&factors);
        let grid = Scales::Grid { bytes, dtype: Dtype::F32, rows: 2, columns: 2 };
        let view = MatrixView::stored(Dtype::F8E4M3, 3, 5, &ones, grid).unwrap();
        let mut row = [0.0; 5];
        view.row_f32(1, &mut row);
        assert_eq!(row, [1.0, 1.0, 2.0, 2.0, 3.0]);
        view.rows_range(2..3).row_f32(0, &mut row);
        assert_eq!(row, [4.0, 4.0, 5.0, 5.0, 6.0]);
        assert_eq!(view.bytes_touched(), 15 + 24);

        let codes: Vec<u8> = (0..16).map(|n| (n % 16) | (15 - n % 16) << 4).collect();
        let (scales, biases): ([f32; 4], [f32; 4]) = ([1.0, 10.0, 2.0, 0.5], [0.0, 1.0, 2.0, 3.0]);
        let groups = Scales::Groups {
            scales: bytemuck::cast_slice(&scales),
            biases: Some(bytemuck::cast_slice(&biases)),
            dtype: Dtype::F32,
            group: 8,
        };
        let view = MatrixView::stored(Dtype::U4, 2, 16, &codes, groups).unwrap();
        let mut row = [0.0; 16];
        view.row_f32(0, &mut row);
        assert_eq!(row[..4], [0.0, 15.0, 1.0, 14.0]);
        assert_eq!(row[8..12], [41.0, 111.0, 51.0, 101.0]);
        assert_eq!(view.element(1, 15), 0.0 * 0.5 + 3.0);

        let nibbles = [0x72; 34];
        let mx = Scales::Mx { bytes: &[127, 128] };
        let view = MatrixView::stored(Dtype::E2M1, 2, 32, &nibbles[..32], mx).unwrap();
        assert_eq!((view.element(0, 0), view.element(1, 31)), (1.0, 12.0));
    }

    #[test]
    fn scales_that_do_not_fit_are_refused_with_the_reason() {
        let error = MatrixView::new(Dtype::U4, 1, 8, &[0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "a U4 matrix cannot be read without scales");
        let mx = |bytes| Scales::Mx { bytes };
        let error = MatrixView::stored(Dtype::E2M1, 2, 64, &[0; 64], mx(&[0; 3])).unwrap_err();
        assert!(error.to_string().contains("take 4 bytes, but 3 are given"), "{error}");
        let error = MatrixView::stored(Dtype::F16, 1, 1, &[0; 2], mx(&[0])).unwrap_err();
        assert_eq!(error.to_string(), "a F16 matrix cannot be read with MX exponents");
        let zero = Scales::Grid { bytes: &[], dtype: Dtype::F32, rows: 0, columns: 1 };
        assert!(MatrixView::stored(Dtype::F8E4M3, 1, 1, &[0], zero).is_err());
        let huge = Scales::Grid { bytes: &[], dtype: Dtype::Q4K, rows: 1, columns: 1 };
        assert!(MatrixView::stored(Dtype::F8E4M3, 1, 1, &[0], huge).is_err());
    }
}
