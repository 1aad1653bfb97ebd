//! The plainest pass over memory: the bound for whatever reads weights.

use std::hint::black_box;

use super::Pool;

/// Bytes that one task reads: few enough for the threads to end together.
const PART: usize = 1 << 20;
/// Sums side by side, so that memory alone sets the speed.
const LANES: usize = 32;

/// Reads every byte once with all threads of the pool and does nothing with them but sums.
pub fn read(pool: &Pool, bytes: &[u8]) {
    pool.run(bytes.len().div_ceil(PART), &|part| {
        let bytes = &bytes[part * PART..bytes.len().min((part + 1) * PART)];
        let (words, rest) = bytes.as_chunks::<8>();
        let (chunks, more) = words.as_chunks::<LANES>();
        let mut lanes = [0_u64; LANES];
        for chunk in chunks {
            for (lane, word) in lanes.iter_mut().zip(chunk) {
                *lane = lane.wrapping_add(u64::from_le_bytes(*word));
            }
        }
        let more = more.iter().map(|word| u64::from_le_bytes(*word));
        black_box((lanes, more.fold(0, u64::wrapping_add), rest.iter().max()));
    });
}
