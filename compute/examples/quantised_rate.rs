//! How near the products of quantised weights come to the machine's streaming bandwidth.
//!
//! Prints GB/s of weights, by format and instruction set, for one and for all threads and for one
//! to eight rows of activations, on matrices far larger than the caches, and the share of a plain
//! read of the same bytes measured between the rounds; then the same in one core's cache. Best of
//! several rounds, since neighbours only slow down.
//!
//!     cargo run --release -p larql-compute --example quantised_rate -- [MiB] [format] [columns]

use std::hint::black_box;
use std::time::Instant;

use larql_compute::cpu::{Isa, Pool, streaming};
use larql_compute::kernels::quantised::{Activations, RowProduct, Weights, block_size, variants};
use larql_compute::quant::{Dtype, MatrixView, Scales};

const FORMATS: [Dtype; 14] = [
    Dtype::Q4K,
    Dtype::Q6K,
    Dtype::Q8_0,
    Dtype::Q5K,
    Dtype::Q4_0,
    Dtype::MxFp4,
    Dtype::E2M1,
    Dtype::Q2K,
    Dtype::Q3K,
    Dtype::Iq4Xs,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Iq4Nl,
];
const ROUNDS: usize = 7;
/// Bytes of weights that one task reads, as in `products`.
const TASK_BYTES: usize = 64 << 10;
/// Bytes of a matrix that stays in one core's cache.
const CACHED_BYTES: usize = 256 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mebibytes = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(512);
    let only = arguments.get(1).map(|tag| Dtype::from_tag(tag).expect("a format"));
    let columns = arguments.get(2).map_or(2560, |text| text.parse().expect("a number of columns"));
    // A pattern without meaning; as binary16 it is a normal number.
    let bytes: Vec<u8> = (0..mebibytes << 20).map(|i: usize| 0x20 | (i * 7 % 29) as u8).collect();
    println!("{mebibytes} MiB, rows of {columns}");
    println!(
        "{:8} {:8} {:>7} {:>5} {:>8} {:>8} {:>7}",
        "format", "level", "threads", "rows", "GB/s", "read", "share"
    );
    let limit = Isa::selected().expect("LARQL_ISA names a level");
    for dtype in FORMATS.into_iter().filter(|dtype| only.is_none_or(|only| only == *dtype)) {
        for (isa, variant) in variants().into_iter().filter(|(isa, _)| *isa <= limit) {
            let product = variant.of(dtype);
            for threads in [1, Pool::new(0).threads()] {
                let pool = Pool::new(threads);
                for rows in [1, 2, 4, 8] {
                    if isa == Isa::Scalar && rows > 1 {
                        continue;
                    }
                    let large = Matrix::new(dtype, columns, rows, &bytes);
                    let (mut seconds, mut reading) = (f64::INFINITY, f64::INFINITY);
                    let rounds = if isa == Isa::Scalar { 1 } else { ROUNDS };
                    for _ in 0..rounds {
                        seconds = seconds.min(timed(|| large.multiply(&pool, product)));
                        reading = reading.min(timed(|| streaming::read(&pool, large.view.bytes())));
                    }
                    let (rate, read) = (large.rate(seconds), large.rate(reading));
                    println!(
                        "{dtype:8} {:8} {threads:>7} {rows:>5} {rate:>8.1} {read:>8.1} {:>6.0}%",
                        isa.name(),
                        100.0 * rate / read
                    );
                }
            }
            let cached = Matrix::new(dtype, columns, 1, &bytes[..CACHED_BYTES]);
            let pool = Pool::new(1);
            let seconds = (0..100 * ROUNDS)
                .map(|_| timed(|| cached.multiply(&pool, product)))
                .fold(f64::INFINITY, f64::min);
            println!("{dtype:8} {:8}  cached     1 {:>8.1}", isa.name(), cached.rate(seconds));
        }
    }
}

struct Matrix<'a> {
    view: Stored<'a>,
    activations: Activations,
}

struct Stored<'a>(MatrixView<'a>);

impl Stored<'_> {
    fn bytes(&self) -> &[u8] {
        self.0.contiguous_bytes().expect("rows in order")
    }
}

impl<'a> Matrix<'a> {
    fn new(dtype: Dtype, columns: usize, rows: usize, bytes: &'a [u8]) -> Matrix<'a> {
        let row_bytes = dtype.bytes_for(columns).expect("a small row");
        let outputs = bytes.len() / row_bytes;
        let exponents = &bytes[..outputs * columns.div_ceil(32)];
        let scales = match dtype {
            Dtype::E2M1 => Scales::Mx { bytes: exponents },
            _ => Scales::None,
        };
        let bytes = &bytes[..outputs * row_bytes];
        let view = MatrixView::stored(dtype, outputs, columns, bytes, scales).expect("a matrix");
        let x: Vec<f32> = (0..rows * columns).map(|i| (i % 17) as f32 - 8.0).collect();
        let mut activations = Activations::default();
        activations.quantise(block_size(&view).expect("a format with a kernel"), columns, &x);
        Matrix { view: Stored(view), activations }
    }

    fn multiply(&self, pool: &Pool, product: RowProduct) {
        let view = &self.view.0;
        let task_rows = (TASK_BYTES / view.row_bytes()).max(1);
        pool.run(view.rows().div_ceil(task_rows), &|task| {
            let outputs = task * task_rows..view.rows().min((task + 1) * task_rows);
            let mut sums = vec![0.0; outputs.len() * self.activations.rows()];
            product(&Weights { view, outputs }, &self.activations, 0, &mut sums);
            black_box(&sums);
        });
    }

    fn rate(&self, seconds: f64) -> f64 {
        self.view.bytes().len() as f64 / seconds / 1e9
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}
