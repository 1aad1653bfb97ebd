//! Threads and locks of the writer's way: the standard library's, or those of a scheduler that tries
//! interleavings (`--features shuttle`, tests only).

#[cfg(feature = "shuttle")]
pub(super) use shuttle::{
    sync::{Condvar, Mutex, mpsc},
    thread,
};
#[cfg(not(feature = "shuttle"))]
pub(super) use std::{
    sync::{Condvar, Mutex, mpsc},
    thread,
};
