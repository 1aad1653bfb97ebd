//! Decodes tokens and does nothing else, for counting instructions with and without a hook.
//!
//!     cargo build --release -p larql-compute --example decode_steps
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/decode_steps none 64
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/decode_steps hook 64
//!
//! `none` registers no hook, `hook` one whose methods do nothing. Counting 0 steps gives what start-up
//! costs. `docs/benchmarks/hooks.md` has the figures.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Architecture, Decoder, DecoderOptions, Hook, KvCache};
use larql_compute::quant::Dtype;

#[allow(dead_code, missing_docs)]
#[path = "../tests/model/checkpoint.rs"]
mod checkpoint;

struct Silent;

impl Hook for Silent {}

const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
}"#;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let hooked = arguments.next().as_deref() == Some("hook");
    let steps: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let architecture = Architecture::from_config(CONFIG).expect("a configuration");
    let weights = checkpoint::Checkpoint::random(&architecture, Dtype::F16, 1);
    let pool = Pool::new(1);
    let mut decoder =
        Decoder::new(&architecture, &weights, &pool, DecoderOptions::default()).expect("a decoder");
    let mut cache = KvCache::new(&architecture, steps + 1);
    let mut silent = Silent;
    for token in 0..steps as u32 {
        let hook = hooked.then_some(&mut silent as &mut dyn Hook);
        decoder.decode(token, &mut cache, hook, &Cancel::new()).expect("a token");
    }
    println!("{steps} steps, {} logits", decoder.logits().len());
}
