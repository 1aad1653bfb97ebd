//! Memory that a thread keeps for what its tasks unpack, so that none is allocated for a token.

use std::cell::RefCell;

/// Numbers by which scratch memory grows.
const SCRATCH_STEP: usize = 4096;

thread_local! {
    static UNPACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's scratch memory, with undefined but initialised content.
pub(crate) fn with_scratch<R>(length: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = UNPACKED.take();
    if scratch.len() < length {
        // In steps, so that what grows with every token does not allocate for every token.
        scratch.resize(length.next_multiple_of(SCRATCH_STEP), 0.0);
    }
    let result = run(&mut scratch[..length]);
    UNPACKED.set(scratch);
    result
}

/// Gives back the calling thread's scratch memory; the next [`with_scratch`] allocates anew.
pub(crate) fn release_scratch() {
    drop(UNPACKED.take());
}
