//! What this machine's memory gives the pool's threads, measured once and kept in the catalog, and what the
//! daemon takes of it and gives back. The rates of arithmetic are the planner's own (`planner::cost`).

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::{Pool, streaming};
use larql_planner::catalog::CostConstants;
use larql_storage::catalog::Catalog;

/// Blocks of memory from this size on are mapped one by one, and go back to the system when they are
/// freed: pages of keys and values, buffers of passes, tables of vocabularies. Nothing that large is asked
/// for in every token.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: libc::c_int = 256 << 10;

/// The catalog key of the measured bandwidth, by thread count; a new way to measure is a new version.
fn key(pool: &Pool) -> String {
    format!("machine/3/{} threads", pool.threads())
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

/// Bytes that all threads of the pool read per second in one pass over a buffer that is larger than the
/// caches, doing nothing with them but a sum: the best of `runs` passes.
pub fn streaming_bytes_per_second(pool: &Pool, bytes: usize, runs: usize) -> f64 {
    // Not zeros: pages that were never written are all the same page, which lies in the cache.
    let buffer = vec![0x3c_u8; bytes.max(1)];
    let mut best = f64::INFINITY;
    // The first pass brings the pages in.
    for _ in 0..=runs {
        let began = Instant::now();
        streaming::read(pool, black_box(&buffer));
        best = best.min(began.elapsed().as_secs_f64());
    }
    buffer.len() as f64 / best
}

/// The daemon's resident anonymous memory: what it holds besides mapped files. None where the system
/// does not tell.
pub fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Sees to it that large blocks go back to the system as soon as they are freed. Without it glibc learns
/// from the first large block that is freed to keep all smaller ones, up to 32 MiB each, in an arena of the
/// thread that asked: what a generation took would stay with the thread that served it, for every thread.
///
/// To be called before anything large is asked for; other allocators are left as they are.
pub fn prepare_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes two numbers, and locks what it changes. That it refuses is no harm.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// Gives memory back to the system that was freed in small pieces, such as a parsed vocabulary's: the
/// allocator would keep it. Takes milliseconds, so it is for what happens once for a model.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a number, and locks each arena while it looks at it.
    unsafe {
        libc::malloc_trim(0);
    }
}
