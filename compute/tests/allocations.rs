//! Decode asks the system for no memory: what a token needs is kept from the tokens before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, DenseFfn, KvPages, KvType, LogitsWanted, PAGE_POSITIONS,
    Precision, Segment,
};
use larql_compute::quant::Dtype;
use serde_json::{Value, json};

#[allow(dead_code, missing_docs)]
#[path = "model/checkpoint.rs"]
mod checkpoint;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator, as its rules demand of the caller.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: handed on as it comes.
    // SAFETY: handed on as it comes.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: handed on as it comes.
    // SAFETY: handed on as it comes.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: handed on as it comes.
    // SAFETY: handed on as it comes.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn dense() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 600
    })
}

fn experts() -> Value {
    json!({
        "model_type": "mixtral", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 8, "num_experts_per_tok": 2
    })
}

fn shared_expert() -> Value {
    json!({
        "model_type": "qwen2_moe", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 5,
        "num_experts_per_tok": 2, "decoder_sparse_step": 2
    })
}

// One test, because the count is the process's.
#[test]
fn decode_within_a_page_allocates_nothing_in_dense_models_and_in_those_of_experts() {
    for config in [dense(), experts(), shared_expert()] {
        let architecture = Architecture::from_config(&config.to_string()).unwrap();
        for dtype in [Dtype::Q8_0, Dtype::Q4_0, Dtype::BF16] {
            let weights = checkpoint::Checkpoint::random(&architecture, dtype, 7);
            let pool = Pool::new(2);
            let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
            let mut decoder = Decoder::new(&architecture, &weights, &pool, options).unwrap();
            for kv_type in [KvType::F16, KvType::Q8] {
                let pages = KvPages::new(&architecture, kv_type, 64 << 20);
                let mut caches = [pages.cache(500), pages.cache(500)];
                let cancel = Cancel::new();
                let prompt: Vec<u32> = (0..2 * PAGE_POSITIONS as u32).map(|i| i % 96).collect();
                for cache in &mut caches {
                    decoder.prefill(&prompt, cache, None, &cancel).unwrap();
                }
                let mut step = |token: &[u32]| {
                    let [a, b] = &mut caches;
                    // Back to the first position of a page, which it therefore keeps.
                    if a.len() >= 3 * PAGE_POSITIONS - 2 {
                        a.truncate(2 * PAGE_POSITIONS + 1);
                        b.truncate(2 * PAGE_POSITIONS + 1);
                    }
                    decoder.decode(token[0], a, None, &cancel).unwrap();
                    let segment = |cache| {
                        let logits = LogitsWanted::Last;
                        Segment { tokens: token, cache, logits }
                    };
                    let mut segments = [segment(a), segment(b)];
                    decoder.forward(&mut segments, None, &cancel).unwrap();
                };
                let tokens: Vec<u32> = (0..14).map(|token| token * 31 % 96).collect();
                // A thread asks for its memory with its first task, whenever that is.
                let quiet = (0..50).any(|_| {
                    let before = ALLOCATIONS.load(Ordering::Relaxed);
                    tokens.iter().for_each(|token| step(std::slice::from_ref(token)));
                    ALLOCATIONS.load(Ordering::Relaxed) == before
                });
                assert!(quiet, "{} {dtype} {kv_type:?}", config["model_type"]);
            }
        }
    }
}
