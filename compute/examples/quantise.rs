//! What each format that we write loses, and how fast it is written, on one thread.
//!
//! `cargo run --release -p larql-compute --example quantise -- FILE COLUMNS`: FILE holds `f32` numbers,
//! little-endian, in rows of COLUMNS. Prints, for each format, the root mean square of the errors
//! and that divided by the root mean square of the numbers, and millions of weights a second for
//! writing and for reading.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use larql_compute::quant::{Dtype, from_f32, to_f32};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(columns)) = (arguments.next(), arguments.next()) else {
        eprintln!("name a file of f32 numbers and the length of its rows");
        std::process::exit(2);
    };
    let bytes = std::fs::read(&file).expect("a readable file");
    let values: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let columns: usize = columns.parse().expect("a number of columns");
    let size = root_mean_square(values.iter().copied());
    println!(
        "{:8} {:>12} {:>10} {:>9} {:>9}",
        "format", "rms", "relative", "write M/s", "read M/s"
    );
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.can_encode()) {
        let row_bytes = dtype.bytes_for(columns).expect("a row that fits");
        let mut stored = vec![0; values.len() / columns * row_bytes];
        let rate = |began: Duration| {
            values.len() as f64 / processor_time().saturating_sub(began).as_secs_f64() / 1e6
        };
        let began = processor_time();
        for (row, out) in values.chunks_exact(columns).zip(stored.chunks_exact_mut(row_bytes)) {
            from_f32(dtype, row, out);
        }
        let written = rate(began);
        let mut found = vec![0.0; values.len()];
        let began = processor_time();
        for (row, out) in stored.chunks_exact(row_bytes).zip(found.chunks_exact_mut(columns)) {
            to_f32(dtype, row, out);
        }
        let read = rate(began);
        let loss = root_mean_square(values.iter().zip(&found).map(|(a, b)| a - b));
        println!("{:8} {loss:12.4e} {:10.6} {written:9.1} {read:9.1}", dtype.tag(), loss / size);
    }
}

/// The time for which this thread has run, where Linux says so, so that neighbours do not count;
/// elsewhere the time since the first question.
fn processor_time() -> Duration {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    nanoseconds.map_or_else(|| BEGAN.elapsed(), Duration::from_nanos)
}

fn root_mean_square(numbers: impl Iterator<Item = f32>) -> f64 {
    let (count, sum) = numbers
        .fold((0_usize, 0.0), |(count, sum), number| (count + 1, sum + f64::from(number).powi(2)));
    (sum / count.max(1) as f64).sqrt()
}
