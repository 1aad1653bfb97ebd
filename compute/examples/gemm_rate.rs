//! The rate of products of many rows of activations, in giga multiply-adds a second: one line of
//! JSON for each format, and the rate of the bare integer product in the same run beside it.
//!
//!     cargo run --release -p larql-compute --example gemm_rate [ROWS COLUMNS [FORMAT …]]
//!
//! `LARQL_ISA` limits the instruction set, `LARQL_THREADS` the threads (all cores otherwise),
//! `LARQL_POSITIONS` names numbers of rows of activations, as in `8,512`.

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::{Cancel, Isa, Pool};
use larql_compute::kernels::int8_product::{LANES, QUAD, ROWS, int8_product};
use larql_compute::kernels::quantised::{Product, ServingScratch, products};
use larql_compute::quant::{Dtype, MatrixView, from_f32};

/// Numbers of rows of activations.
const POSITIONS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 512];
/// What is measured by default.
const FORMATS: [&str; 9] = ["Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "MXFP4", "F32", "F16", "BF16"];
/// Quads of a row of the bare product: 2,048 numbers.
const DEPTH: usize = 512;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, or: usize| {
        arguments.get(index).map_or(or, |text| text.parse().expect("a number of rows or columns"))
    };
    let (rows, columns) = (number(0, 2048), number(1, 2048));
    let formats: Vec<&str> = match arguments.get(2..) {
        Some(named) if !named.is_empty() => named.iter().map(String::as_str).collect(),
        _ => FORMATS.to_vec(),
    };
    let isa = Isa::selected().expect("LARQL_ISA names a level");
    let threads = std::env::var("LARQL_THREADS").map_or(0, |text| text.parse().expect("a number"));
    let pool = Pool::new(threads);
    let positions: Vec<usize> = match std::env::var("LARQL_POSITIONS") {
        Ok(list) => list.split(',').map(|text| text.parse().expect("a number")).collect(),
        Err(_) => POSITIONS.to_vec(),
    };
    for format in formats {
        let dtype = Dtype::from_tag(format).expect("a format that this crate reads");
        let rates = rates(&pool, dtype, rows, columns, &positions);
        let rates: Vec<String> = positions
            .iter()
            .zip(rates)
            .map(|(positions, rate)| format!("\"{positions}\": {rate:.1}"))
            .collect();
        println!(
            "{{\"format\": \"{format}\", \"rows\": {rows}, \"columns\": {columns}, \"isa\": \"{}\", \
             \"threads\": {}, \"int8_product\": {:.1}, {}}}",
            isa.name(),
            pool.threads(),
            int8_rate(&pool),
            rates.join(", ")
        );
    }
}

/// The rate of one format at each number of positions, over enough matrices to leave the caches.
fn rates(pool: &Pool, dtype: Dtype, rows: usize, columns: usize, positions: &[usize]) -> Vec<f64> {
    let numbers: Vec<f32> =
        (0..rows * columns).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 504.0).collect();
    let mut bytes = vec![0; rows * dtype.bytes_for(columns).expect("a row fits")];
    let row_bytes = bytes.len() / rows;
    for (row, numbers) in bytes.chunks_mut(row_bytes).zip(numbers.chunks(columns)) {
        from_f32(dtype, numbers, row);
    }
    let copies = ((64 << 20) / bytes.len()).clamp(1, 32);
    let matrices = vec![bytes; copies];
    let rate = |positions: usize| {
        let x: Vec<f32> =
            (0..positions * columns).map(|i| ((i * 31 % 997) as f32 - 498.0) / 498.0).collect();
        let mut out = vec![0.0; positions * rows];
        let mut scratch = ServingScratch::default();
        let mut next = 0;
        let seconds = best(|| {
            let bytes = &matrices[next % copies];
            next += 1;
            let view = MatrixView::new(dtype, rows, columns, bytes).expect("a whole matrix");
            let mut list = [Product { view, out: &mut out }];
            products(pool, &mut list, &x, &mut scratch, &Cancel::new()).expect("not cancelled");
        });
        (positions * rows * columns) as f64 / seconds / 1e9
    };
    positions.iter().map(|&positions| rate(positions)).collect()
}

/// The rate of the bare integer product over panels in a core's own cache.
fn int8_rate(pool: &Pool) -> f64 {
    const ROW_PANELS: usize = 8;
    const LANE_PANELS: usize = 8;
    let rows = vec![[[1_i8; QUAD]; ROWS]; ROW_PANELS * DEPTH];
    let lanes = vec![[[2_u8; QUAD]; LANES]; LANE_PANELS * DEPTH];
    let tasks = 2 * pool.threads();
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

/// The shortest of many runs within a second, since neighbours only slow down.
fn best(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    for round in 0.. {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
        if round >= 9 && begin.elapsed().as_secs_f64() > 0.5 {
            break;
        }
    }
    best
}
