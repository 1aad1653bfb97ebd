//! The inner loops: one folder an operation, one definition and its faster variants in each; `load`
//! and `rows` are what they read weights with.
//!
//! A kernel takes slices and returns numbers; it does not know who calls it or why. Where an
//! operation has variants, `scalar` defines it, `variants()` lists all that this processor can
//! run (read by dispatch and by the tests), and `LARQL_ISA` limits the choice. The large products
//! ([`matvec()`], [`matvec_transposed()`], [`matmul_transposed()`], [`gate_scan()`]) cut themselves into tiles for a
//! pool; their results do not depend on the number of its threads. They take views of any dtype:
//! `rows` hands the inner loops what these can read. Serving multiplies quantised weights as integers
//! ([`quantised`]).

pub mod accumulate;
pub mod activation;
pub mod attention;
pub mod convert;
pub mod dot;
mod float_gemm;
pub mod gate_scan;
pub mod int8_product;
pub mod layer_norm;
mod load;
pub mod matmul_transposed;
pub mod matvec;
pub mod matvec_transposed;
pub mod quantised;
pub mod rms_norm;
pub mod rotary;
pub(crate) mod rows;
pub mod softmax;
pub mod top_k;

pub use activation::Activation;
pub use dot::dot;
pub use gate_scan::gate_scan;
pub use layer_norm::layer_norm;
pub use matmul_transposed::matmul_transposed;
pub use matvec::{matvec, matvec_rows};
pub use matvec_transposed::matvec_transposed;
pub use rms_norm::rms_norm;
pub use softmax::softmax;
pub use top_k::{top_k, top_k_by_magnitude};

/// Bytes of weights that one task of a product reads: large against the cost of handing it out,
/// small against the time in which a cancel must be noticed.
pub(crate) const TASK_BYTES: usize = 64 << 10;

/// Rows of a matrix that make a task of about [`TASK_BYTES`].
pub(crate) fn rows_per_task(row_bytes: usize) -> usize {
    (TASK_BYTES / row_bytes.max(1)).max(1)
}
