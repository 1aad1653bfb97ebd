//! How near the memory-bound kernels come to the machine's streaming bandwidth.
//!
//! Prints GB/s of weights for a plain read, matvec, gate scan and the transposed product, by dtype,
//! thread count and instruction set, on matrices far larger than the caches; then the rate of the
//! prefill product and of the token scan. Best of several rounds, since neighbours only slow down.
//!
//!     cargo run --release -p larql-compute --example bandwidth [MiB]

use std::hint::black_box;
use std::time::Instant;

use larql_compute::browse::top_tokens;
use larql_compute::cpu::{Cancel, Isa, Pool, streaming};
use larql_compute::kernels::int8_product::{LANES, QUAD, ROWS, int8_product};
use larql_compute::kernels::{gate_scan, matvec, matvec_transposed};
use larql_compute::quant::{Dtype, MatrixView};

const COLUMNS: usize = 2560;
const ROUNDS: usize = 7;

fn main() {
    let mebibytes = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(512);
    // 0x3c is in the middle of the exponents of all plain dtypes: no denormal slows a sum.
    let bytes = vec![0x3c_u8; mebibytes << 20];
    let isa = Isa::selected().expect("LARQL_ISA names a level");
    println!("{mebibytes} MiB, rows of {COLUMNS}, kernels up to {}", isa.name());
    println!("{:<26} {:>8} {:>10}", "", "threads", "GB/s");
    for threads in [1, Pool::new(0).threads()] {
        let pool = Pool::new(threads);
        let report = |name: &str, count: usize, seconds: f64| {
            println!("{name:<26} {threads:>8} {:>10.1}", count as f64 / seconds / 1e9);
        };
        report("read", bytes.len(), best(|| streaming::read(&pool, &bytes)));
        for dtype in Dtype::PLAIN.into_iter().chain([Dtype::Q4K, Dtype::Q8_0]) {
            let row_bytes = dtype.bytes_for(COLUMNS).expect("a small row");
            let rows = bytes.len() / row_bytes;
            let length = rows * row_bytes;
            let view = MatrixView::new(dtype, rows, COLUMNS, &bytes[..length]).expect("a matrix");
            let x = vec![0.5; COLUMNS];
            let mut out = vec![0.0; rows];
            let seconds = best(|| matvec(&pool, &view, &x, &mut out));
            report(&format!("matvec {dtype}"), length, seconds);
            let cancel = Cancel::new();
            let seconds = best(|| drop(black_box(gate_scan(&pool, &view, &x, &cancel))));
            report(&format!("gate scan {dtype}"), length, seconds);
            let (a, mut sums) = (vec![0.5; rows], vec![0.0; COLUMNS]);
            let seconds = best(|| matvec_transposed(&pool, &view, &a, &mut sums));
            report(&format!("matvec transposed {dtype}"), length, seconds);
        }
        integers(&pool, threads);
        scan(&pool, threads);
    }
}

/// The integer product alone, its panels in the caches as in the token scan.
fn integers(pool: &Pool, threads: usize) {
    const DEPTH: usize = 512;
    const PANELS: usize = 8;
    const LANE_PANELS: usize = 64;
    let rows = vec![[[1_i8; QUAD]; ROWS]; PANELS * DEPTH];
    let lanes = vec![[[2_u8; QUAD]; LANES]; LANE_PANELS * DEPTH];
    let tasks = 8 * threads;
    let seconds = best(|| {
        pool.run(tasks, &|_| {
            let mut tile = [[0; LANES]; ROWS];
            for lanes in lanes.chunks_exact(DEPTH) {
                for rows in rows.chunks_exact(DEPTH) {
                    int8_product(rows, &[4 * DEPTH as i32; ROWS], lanes, &mut tile);
                    black_box(&tile);
                }
            }
        });
    });
    let products = (tasks * PANELS * ROWS * LANE_PANELS * LANES * DEPTH * QUAD) as f64;
    println!(
        "{:<26} {threads:>8} {:>10.1} G multiply-adds/s",
        "int8 product",
        products / seconds / 1e9
    );
}

/// The token scan on rows that differ, as trained ones do.
fn scan(pool: &Pool, threads: usize) {
    let (vocabulary, features, width) = (32_768, 4096, 2048);
    let mut state = 1_u32;
    let mut rows = |count: usize| -> Vec<f32> {
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count * width).map(|_| number() + number() + number()).collect()
    };
    let (e, v) = (rows(vocabulary), rows(features));
    let e = MatrixView::from_f32(vocabulary, width, &e).expect("a matrix");
    let v = MatrixView::from_f32(features, width, &v).expect("a matrix");
    let cancel = Cancel::new();
    let start = Instant::now();
    black_box(top_tokens(pool, &e, &v, 10, &cancel).expect("not cancelled"));
    let rate = (vocabulary * features * width) as f64 / start.elapsed().as_secs_f64() / 1e9;
    println!("{:<26} {threads:>8} {rate:>10.1} G multiply-adds/s", "top tokens");
}

fn best(mut run: impl FnMut()) -> f64 {
    let seconds = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(seconds).fold(f64::INFINITY, f64::min)
}
