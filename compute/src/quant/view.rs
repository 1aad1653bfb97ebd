//! A borrowed matrix of any dtype, row-major, at any alignment.

use std::ops::Range;

use super::{Dtype, to_f32};

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
}

/// A matrix read in place: `rows` rows of `columns` numbers, each row [`row_bytes`] long.
///
/// [`row_bytes`]: MatrixView::row_bytes
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    dtype: Dtype,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> MatrixView<'a> {
    /// Takes bytes for a matrix after checking that they are as long as the shape demands.
    ///
    /// # Errors
    /// `TooLarge` where the byte count overflows, `Length` where it differs.
    pub fn new(
        dtype: Dtype,
        rows: usize,
        columns: usize,
        bytes: &'a [u8],
    ) -> Result<MatrixView<'a>, ViewError> {
        let too_large = ViewError::TooLarge { dtype, rows, columns };
        let row_bytes = dtype.bytes_for(columns).ok_or(too_large.clone())?;
        let expected = row_bytes.checked_mul(rows).ok_or(too_large)?;
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(ViewError::Length { dtype, rows, columns, expected, found });
        }
        Ok(MatrixView { dtype, rows, columns, row_bytes, bytes })
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

    /// The length of one row in bytes.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All rows, one after another.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of one row; panics if there is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    /// The numbers of one row; panics if there is no such row or `out` is not `columns` long.
    pub fn row_f32(&self, row: usize, out: &mut [f32]) {
        to_f32(self.dtype, self.row(row), out);
    }

    /// One number; panics outside the matrix.
    pub fn element(&self, row: usize, column: usize) -> f32 {
        let mut value = [0.0];
        self.part_f32(row, column..column + 1, &mut value);
        value[0]
    }

    /// The numbers of some columns of one row.
    ///
    /// # Shapes
    /// `columns` within the row, `out` as long as it; panics otherwise.
    pub fn part_f32(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns {columns:?}");
        let width = self.row_bytes / self.columns.max(1);
        to_f32(self.dtype, &self.row(row)[columns.start * width..columns.end * width], out);
    }

    /// The view of some rows alone; panics if they are not within the matrix.
    pub fn rows_range(&self, rows: Range<usize>) -> MatrixView<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "{rows:?} of {}", self.rows);
        let bytes = &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes];
        MatrixView { rows: rows.len(), bytes, ..*self }
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
}
