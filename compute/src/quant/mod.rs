//! How stored weights become numbers: the dtypes, and a view of a matrix of any of them.
//!
//! One file a format. Everybody else handles a [`MatrixView`], whose rows are opaque bytes of a
//! known length; only the kernels and the conversions of this folder look inside a row. Views
//! borrow (usually from a mapped file) and promise no alignment.

mod dtype;
mod view;

pub use dtype::{Dtype, from_f32, to_f32};
pub use view::{MatrixView, ViewError};
