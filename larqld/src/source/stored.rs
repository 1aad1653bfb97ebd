//! One stored tensor with meaning: its dtype, its sizes, and the scales that lie beside it.
//!
//! Checkpoints and vindexes hold the same kinds of bytes under other names; both describe a tensor
//! as a [`Stored`] and get their views from it.

use larql_compute::quant::{Dtype, MatrixView, Scales, ViewError};

/// Which scales lie beside the elements, and how they are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScalesLayout {
    /// None: the elements are the numbers, or carry their scales inside.
    #[default]
    None,
    /// A factor for each tile of `rows` x `columns`.
    Grid {
        /// The factors' dtype.
        dtype: Dtype,
        /// Rows of a tile.
        rows: usize,
        /// Columns of a tile.
        columns: usize,
    },
    /// A scale, and perhaps a bias, for each `group` elements of a row.
    Groups {
        /// The scales' and biases' dtype.
        dtype: Dtype,
        /// Elements that share them.
        group: usize,
    },
    /// An exponent for each 32 elements of a row.
    Mx,
}

/// The bytes of a stored matrix.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredBytes<'a> {
    /// The elements.
    pub elements: &'a [u8],
    /// The scales, where the layout has some.
    pub scales: &'a [u8],
    /// The biases, where the layout has groups that have them.
    pub biases: Option<&'a [u8]>,
}

/// A matrix (or a vector: one row) as it is stored, apart from where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// How an element is written.
    pub dtype: Dtype,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// What lies beside the elements.
    pub scales: ScalesLayout,
}

impl Stored {
    /// The matrix that `bytes` are.
    ///
    /// # Errors
    /// When some of the bytes are not as long as dtype, sizes and scales demand.
    pub fn view<'a>(&self, bytes: StoredBytes<'a>) -> Result<MatrixView<'a>, ViewError> {
        let scales = match self.scales {
            ScalesLayout::None => Scales::None,
            ScalesLayout::Grid { dtype, rows, columns } => {
                Scales::Grid { bytes: bytes.scales, dtype, rows, columns }
            }
            ScalesLayout::Groups { dtype, group } => {
                Scales::Groups { scales: bytes.scales, biases: bytes.biases, dtype, group }
            }
            ScalesLayout::Mx => Scales::Mx { bytes: bytes.scales },
        };
        MatrixView::stored(self.dtype, self.rows, self.columns, bytes.elements, scales)
    }
}
