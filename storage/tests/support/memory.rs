//! How much memory a piece of work holds at a time, counted by the allocator of the test's program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts for each thread.
struct Counting;

thread_local! {
    /// Bytes that are allocated now, and the most since the measurement began.
    static LIVE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(change: impl Fn(usize) -> usize) {
    // While a thread ends there is nothing left to count in.
    let _ = LIVE.try_with(|live| {
        let now = change(live.get().0);
        live.set((now, live.get().1.max(now)));
    });
}

// SAFETY: every call is handed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the promise asked for is the one that is handed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|live| live + layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the promise asked for is the one that is handed on.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|live| live.saturating_sub(layout.size()));
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: the promise asked for is the one that is handed on.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(|live| live.saturating_sub(layout.size()) + size);
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and the most memory that it held at a time.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.with(|live| live.set((live.get().0, live.get().0)));
    let before = LIVE.with(Cell::get).0;
    let outcome = work();
    (outcome, LIVE.with(Cell::get).1 - before)
}
