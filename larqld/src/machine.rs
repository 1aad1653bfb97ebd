//! How fast this machine reads and computes, measured once and kept in the catalog, and what memory the
//! daemon takes of it and gives back. What the rates mean for a plan is the planner's own (`planner::cost`).

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::{Pool, rates, streaming};
use larql_planner::catalog::CostConstants;
use larql_storage::catalog::Catalog;

/// Blocks of memory from this size on are mapped one by one, and go back to the system when they are
/// freed: pages of keys and values, buffers of passes, tables of vocabularies. Nothing that large is asked
/// for in every token.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: libc::c_int = 256 << 10;

/// What was measured of a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    /// Bytes a second that all threads of the pool read in one pass.
    bandwidth: f64,
    /// Multiply-adds a second of a gate scan whose gates lie in the cache, on all threads.
    operations: f64,
    /// Reads a second of one thread, each at a place that the one before told.
    random_reads: f64,
    /// Steps a second of one thread's arithmetic, each waiting for the one before.
    steps: f64,
}

/// The machine on which the planner's constants were fitted: two cores of an AMD EPYC (Zen 4), quiet.
const FITTED: Measured =
    Measured { bandwidth: 0.0, operations: 1.3e10, random_reads: 1.0e7, steps: 9.2e8 };

impl Measured {
    fn take(pool: &Pool) -> Self {
        Self {
            bandwidth: streaming_bytes_per_second(pool, 64 << 20, 3),
            operations: rates::operations_per_second(pool),
            random_reads: rates::random_reads_per_second(),
            steps: rates::steps_per_second(),
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let all = [self.bandwidth, self.operations, self.random_reads, self.steps];
        all.into_iter().flat_map(f64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Vec<f64> = numbers.iter().map(|&one| f64::from_le_bytes(one)).collect();
        let &[bandwidth, operations, random_reads, steps] = &numbers[..] else { return None };
        let are_rates = numbers.iter().all(|rate| rate.is_finite() && *rate > 0.0);
        (rest.is_empty() && are_rates).then_some(Self {
            bandwidth,
            operations,
            random_reads,
            steps,
        })
    }

    /// The planner's constants here: bandwidth as it is, and what was fitted elsewhere as much faster or
    /// slower as this machine is.
    fn costs(&self) -> CostConstants {
        let fitted = CostConstants::default();
        CostConstants {
            bandwidth_bytes_per_s: self.bandwidth,
            operations_per_s: fitted.operations_per_s * self.operations / FITTED.operations,
            random_read_ms: fitted.random_read_ms * FITTED.random_reads / self.random_reads,
            row_ms: fitted.row_ms * FITTED.steps / self.steps,
            decode_tokens_ms: fitted.decode_tokens_ms * FITTED.steps / self.steps,
        }
    }
}

/// The catalog key of what was measured, by thread count; a new way to measure is a new version.
fn key(pool: &Pool) -> String {
    format!("machine/4/{} threads", pool.threads())
}

/// The planner's constants for this machine: from the catalog, or measured now and kept there.
pub fn costs(catalog: &Catalog, pool: &Pool) -> CostConstants {
    let kept = catalog.get_setting(&key(pool)).ok().flatten();
    let measured = kept.as_deref().and_then(Measured::from_bytes).unwrap_or_else(|| {
        let measured = Measured::take(pool);
        tracing::info!(?measured, "the machine was measured");
        if let Err(error) = catalog.put_setting(&key(pool), &measured.to_bytes()) {
            tracing::warn!("the measured constants are not kept: {error}");
        }
        measured
    });
    measured.costs()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_comes_back_from_the_catalog_and_nothing_else_does() {
        let measured =
            Measured { bandwidth: 2e10, operations: 3e10, random_reads: 1e7, steps: 1e9 };
        let bytes = measured.to_bytes();
        assert_eq!(Measured::from_bytes(&bytes), Some(measured));
        assert_eq!(Measured::from_bytes(&bytes[..31]), None);
        assert_eq!(Measured::from_bytes(&[bytes.clone(), vec![0]].concat()), None);
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                Measured::from_bytes(&Measured { steps: rate, ..measured }.to_bytes()),
                None
            );
        }
    }

    #[test]
    fn a_machine_twice_as_fast_has_half_the_costs() {
        let fitted = Measured { bandwidth: 1e10, ..FITTED }.costs();
        assert_eq!(
            fitted,
            CostConstants { bandwidth_bytes_per_s: 1e10, ..CostConstants::default() }
        );
        let twice = Measured {
            bandwidth: 2e10,
            operations: 2.0 * FITTED.operations,
            random_reads: 2.0 * FITTED.random_reads,
            steps: 2.0 * FITTED.steps,
        };
        let costs = twice.costs();
        assert_eq!(costs.operations_per_s, 2.0 * fitted.operations_per_s);
        assert_eq!(costs.random_read_ms, fitted.random_read_ms / 2.0);
        assert_eq!(costs.row_ms, fitted.row_ms / 2.0);
        assert_eq!(costs.decode_tokens_ms, fitted.decode_tokens_ms / 2.0);
    }

    #[test]
    fn every_rate_of_this_machine_can_be_measured() {
        let measured = Measured::take(&Pool::new(2));
        assert_eq!(Measured::from_bytes(&measured.to_bytes()), Some(measured));
        println!("{measured:?}");
    }
}
