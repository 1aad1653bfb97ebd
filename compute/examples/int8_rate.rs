//! The rate of the integer product that finds the tokens of features, as one line of JSON: giga
//! multiply-adds a second on one thread and on all, and the clock it was measured at.
//!
//!     cargo run --release -p larql-compute --example int8_rate

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::{Isa, Pool};
use larql_compute::kernels::int8_product::{LANES, QUAD, ROWS, int8_product};

/// Quads of a row of 2,048 numbers.
const DEPTH: usize = 512;
/// Panels of rows, which stay in a core's own cache, and of lanes, which pass through it.
const ROW_PANELS: usize = 8;
const LANE_PANELS: usize = 64;
const ROUNDS: usize = 9;

fn main() {
    let isa = Isa::selected().expect("LARQL_ISA names a level");
    let threads = Pool::new(0).threads();
    println!(
        "{{\"isa\": \"{}\", \"threads\": {threads}, \"one\": {:.1}, \"all\": {:.1}, \"gigahertz\": {:.2}}}",
        isa.name(),
        rate(1),
        rate(threads),
        gigahertz()
    );
}

/// Giga multiply-adds a second on so many threads.
fn rate(threads: usize) -> f64 {
    let pool = Pool::new(threads);
    let rows = vec![[[1_i8; QUAD]; ROWS]; ROW_PANELS * DEPTH];
    let lanes = vec![[[2_u8; QUAD]; LANES]; LANE_PANELS * DEPTH];
    let tasks = 8 * threads;
    let seconds = best(|| {
        pool.run(tasks, &|_| {
            let mut tile = [[0; LANES]; ROWS];
            for lanes in lanes.chunks_exact(DEPTH) {
                for rows in rows.chunks_exact(DEPTH) {
                    int8_product(rows, &[(QUAD * DEPTH) as i32; ROWS], lanes, &mut tile);
                    black_box(&tile);
                }
            }
        });
    });
    (tasks * ROW_PANELS * ROWS * LANE_PANELS * LANES * DEPTH * QUAD) as f64 / seconds / 1e9
}

/// Cycles a nanosecond, from a chain of steps of four cycles each: a multiplication (three) and an exclusive or.
fn gigahertz() -> f64 {
    const STEPS: u64 = 4_000_000;
    let seconds = best(|| {
        let mut product = black_box(3_u64);
        let factor = black_box(5_u64);
        for _ in 0..STEPS {
            product = product.wrapping_mul(factor) ^ factor;
        }
        black_box(product);
    });
    4.0 * STEPS as f64 / seconds / 1e9
}

/// The shortest of several runs, since neighbours only slow down.
fn best(mut run: impl FnMut()) -> f64 {
    let seconds = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(seconds).fold(f64::INFINITY, f64::min)
}
