//! How fast attention over pages runs, and what a decode step over a long context costs.
//!
//!     cargo run --release -p larql-compute --example attention_rate -- 1
//!
//! The argument is the number of threads. The model is nearly all attention; what is not grows with
//! the positions, attention with their square, so that prompts of 512 and 2,048 tell them apart:
//! `attention(2048) = (t(2048) - 4 t(512)) · 4 / 3`. Minima over several runs; with one thread of
//! the time that it had a processor, so that other work on the machine counts less.

use std::time::Instant;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, DenseFfn, KvPages, KvType, Precision,
};
use larql_compute::quant::Dtype;

#[allow(dead_code, missing_docs)]
#[path = "../tests/model/checkpoint.rs"]
mod checkpoint;

const RUNS: usize = 5;

/// Seconds that a run takes, the least of several.
fn best(threads: usize, runs: usize, mut run: impl FnMut(bool)) -> f64 {
    // Nanoseconds on a processor are the first number; where there is no such file, it is the clock.
    let path = (threads == 1).then_some("/proc/thread-self/schedstat");
    let on_processor = || -> Option<f64> {
        let text = std::fs::read_to_string(path?).ok()?;
        text.split(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
    };
    let mut least = f64::INFINITY;
    for _ in 0..runs {
        run(false);
        let (clock, before) = (Instant::now(), on_processor());
        run(true);
        let passed = match (before, on_processor()) {
            (Some(before), Some(after)) => after - before,
            _ => clock.elapsed().as_secs_f64(),
        };
        least = least.min(passed);
    }
    least
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    for (heads, kv_heads, head_dim) in [(32, 8, 64), (16, 4, 128), (8, 8, 64)] {
        let config = format!(
            r#"{{ "model_type": "llama", "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": {heads},
            "num_key_value_heads": {kv_heads}, "head_dim": {head_dim}, "vocab_size": 64,
            "max_position_embeddings": 9000, "rms_norm_eps": 1e-5 }}"#
        );
        let architecture = Architecture::from_config(&config).expect("a configuration");
        let weights = checkpoint::Checkpoint::random(&architecture, Dtype::Q8_0, 1);
        let pool = Pool::new(threads);
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        let mut decoder = Decoder::new(&architecture, &weights, &pool, options).expect("a decoder");
        let cancel = Cancel::new();
        for kv_type in [KvType::F16, KvType::Q8] {
            let pages = KvPages::for_positions(&architecture, kv_type, 8200);
            let mut cache = pages.cache(8200);
            let tokens: Vec<u32> = (0..8192).map(|i| i % 61).collect();
            let mut prefill = |count: usize| {
                best(threads, RUNS, |timed| match timed {
                    false => cache.truncate(0),
                    true => decoder
                        .prefill(&tokens[..count], &mut cache, None, &cancel)
                        .expect("logits"),
                })
            };
            let (short, long) = (prefill(512), prefill(2048));
            let seconds = (long - 4.0 * short) * 4.0 / 3.0;
            let pairs = 2048.0 * 2048.0 / 2.0;
            let products = pairs * (2 * heads * head_dim * 2) as f64;
            let rate = products / seconds / 1e9 / threads as f64;
            let rest = (long - seconds) / 2048.0;
            decoder.prefill(&tokens[2048..8190], &mut cache, None, &cancel).expect("logits");
            let mut decode = |positions: usize| {
                best(threads, 40, |timed| match timed {
                    false => cache.truncate(positions),
                    true => decoder.decode(5, &mut cache, None, &cancel).expect("logits"),
                }) * 1e6
            };
            let (many, few) = (decode(8190), decode(8));
            let cached = 8190.0 * 2.0 * (2 * kv_heads * head_dim) as f64;
            println!(
                "{heads} heads of {head_dim}, {kv_heads} of keys, {kv_type:?}: {rate:.1} GMAC/s a \
                 thread in prefill ({:.1} ms of {:.1} ms at 2,048; the rest {:.1} us a token); \
                 decode {few:.1} us at 8 and {many:.1} us at 8,190 positions, {:.1} G numbers/s",
                seconds * 1e3,
                long * 1e3,
                rest * 1e6,
                cached / (many - few) / 1e3,
            );
        }
    }
}
