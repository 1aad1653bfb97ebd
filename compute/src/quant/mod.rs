//! How stored weights become numbers and numbers stored weights: the dtypes, and a view of a
//! matrix of any of them.
//!
//! Everybody else handles a [`MatrixView`], whose rows are opaque bytes of a known length; only
//! the conversions of this folder, and the kernels that read rows in place (plain numbers, and
//! blocks as integers), look inside a row. Views borrow (usually from a mapped file), promise no
//! alignment, and know the scales that lie outside the rows ([`Scales`]) and the order in which
//! rows are taken ([`RowOrder`]).
//!
//! One file a format or a family of formats, each with its layout, decoder and, where we write it,
//! quantiser; `dtype.rs` is the table of them. Layouts for people: `docs/formats/quantisation.md`.
//!
//! Any bytes of the right length decode to some numbers: a damaged scale gives NaN or infinity,
//! never a panic. Quantising is deterministic on every machine.

mod ancestor;
mod dtype;
mod float8;
mod fp4;
mod fp8;
mod iq4;
mod k_quants;
mod lanes;
mod mxfp4;
mod packed;
mod q4;
mod q5;
mod q8;
mod row_order;
mod scales;
mod view;

pub use dtype::{Dtype, from_f32, to_f32};
pub use row_order::RowOrder;
pub use scales::Scales;
pub use view::{MatrixView, ViewError};

pub(crate) use float8::e8m0_to_f32;
pub(crate) use lanes::with_widest_lanes;
