//! What this machine's memory gives the pool's threads, measured once and kept in the catalog. The rates of
//! arithmetic are the planner's own (`planner::cost`).

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::Pool;
use larql_compute::kernels::matvec::matvec;
use larql_compute::quant::{Dtype, MatrixView};
use larql_planner::catalog::CostConstants;
use larql_storage::catalog::Catalog;

/// The catalog key of the measured bandwidth, by thread count; a new way to measure is a new version.
fn key(pool: &Pool) -> String {
    format!("machine/2/{} threads", pool.threads())
}

/// The planner's constants for this machine: from the catalog, or measured now and kept there.
pub fn costs(catalog: &Catalog, pool: &Pool) -> CostConstants {
    let mut costs = CostConstants::default();
    let kept = catalog.get_setting(&key(pool)).ok().flatten();
    let bandwidth =
        kept.as_deref().and_then(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)));
    let bandwidth = bandwidth.filter(|bandwidth| bandwidth.is_finite() && *bandwidth > 0.0);
    costs.bandwidth_bytes_per_s = bandwidth.unwrap_or_else(|| {
        let measured = streaming_bytes_per_second(pool, 64 << 20, 3);
        if let Err(error) = catalog.put_setting(&key(pool), &measured.to_le_bytes()) {
            tracing::warn!("the measured constants are not kept: {error}");
        }
        measured
    });
    costs
}

/// Bytes of weights that all threads of the pool read per second in one pass over a buffer that is
/// larger than the caches: the best of `runs` passes of an f16 product.
pub fn streaming_bytes_per_second(pool: &Pool, bytes: usize, runs: usize) -> f64 {
    const COLUMNS: usize = 4096;
    let rows = (bytes / (2 * COLUMNS)).max(1);
    // Not zeros: pages that were never written are all the same page, which lies in the cache.
    let weights = vec![0x3c_u8; rows * 2 * COLUMNS];
    let Ok(view) = MatrixView::new(Dtype::F16, rows, COLUMNS, &weights) else { return 1e9 };
    let input = vec![1.0; COLUMNS];
    let mut output = vec![0.0; rows];
    let mut best = f64::INFINITY;
    // The first pass brings the pages in.
    for _ in 0..=runs {
        let began = Instant::now();
        matvec(pool, black_box(&view), &input, &mut output);
        best = best.min(began.elapsed().as_secs_f64());
        black_box(&mut output);
    }
    weights.len() as f64 / best
}
