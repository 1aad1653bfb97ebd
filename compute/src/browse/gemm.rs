//! The `gemm` crate's product, on the calling thread: for tables over whole vocabularies, whose sums may
//! be in any order.

/// `c = a · b`, or `c += a · b`, for shapes `(rows, columns, depth)`; each matrix is its start
/// and the distances between its rows and between its columns, in numbers.
///
/// # Safety
/// `a` and `b` must be readable, and `c` writable and unshared, within the shapes given.
pub(super) unsafe fn gemm(
    (rows, columns, depth): (usize, usize, usize),
    c: (*mut f32, usize, usize),
    add: bool,
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
) {
    // SAFETY: the caller's promise; distances are within slices, so they fit `isize`.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            c.0,
            c.2 as isize,
            c.1 as isize,
            add,
            a.0,
            a.2 as isize,
            a.1 as isize,
            b.0,
            b.2 as isize,
            b.1 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
