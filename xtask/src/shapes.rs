//! Checkpoints of real sizes with random weights: shaped for measurements, with no knowledge in them.
//!
//! They are written under the target directory and kept there; the same seed gives the same bytes.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

pub mod gguf;

/// A model's size.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Numbers in the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Features a layer.
    pub features: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Tokens.
    pub vocabulary: usize,
}

/// The size of Llama 3.2 1B.
pub const LLAMA_1B: Shape = Shape {
    name: "llama-1b",
    hidden: 2048,
    layers: 16,
    features: 8192,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    vocabulary: 128_256,
};

/// Random f16 numbers that tensors are cut from.
const POOL: usize = 1 << 22;

impl Shape {
    /// The checkpoint in f16, written first where it is missing.
    pub fn checkpoint(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let path = directory.join(self.name);
        if path.join("model.safetensors").is_file() {
            return Ok(path);
        }
        std::fs::create_dir_all(&path)?;
        std::fs::write(path.join("config.json"), self.config())?;
        std::fs::write(path.join("tokenizer.json"), self.tokenizer())?;
        let partial = path.join("model.safetensors.partial");
        self.write_weights(&partial).with_context(|| partial.display().to_string())?;
        std::fs::rename(partial, path.join("model.safetensors"))?;
        Ok(path)
    }

    fn config(&self) -> String {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.features,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": true,
            "torch_dtype": "float16",
        })
        .to_string()
    }

    /// One word a token: any text that names tokens by number encodes.
    fn tokenizer(&self) -> String {
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            (0..self.vocabulary).map(|id| (format!("word{id}"), json!(id))).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": { "type": "Whitespace" },
            "post_processor": null,
            "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "word0" },
        })
        .to_string()
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut tensors =
            vec![("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, self.hidden])];
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize]| {
                tensors.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
            };
            add("input_layernorm", &[self.hidden]);
            add("self_attn.q_proj", &[queries, self.hidden]);
            add("self_attn.k_proj", &[keys, self.hidden]);
            add("self_attn.v_proj", &[keys, self.hidden]);
            add("self_attn.o_proj", &[self.hidden, queries]);
            add("post_attention_layernorm", &[self.hidden]);
            add("mlp.gate_proj", &[self.features, self.hidden]);
            add("mlp.up_proj", &[self.features, self.hidden]);
            add("mlp.down_proj", &[self.hidden, self.features]);
        }
        tensors.push(("model.norm.weight".to_owned(), vec![self.hidden]));
        tensors
    }

    fn write_weights(&self, path: &Path) -> anyhow::Result<()> {
        let tensors = self.tensors();
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in &tensors {
            let bytes = 2 * shape.iter().product::<usize>();
            header.insert(
                name.clone(),
                json!({ "dtype": "F16", "shape": shape, "data_offsets": [end, end + bytes] }),
            );
            end += bytes;
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // Magnitudes between 2^-7 and 2^-5 with either sign: about the spread of trained weights.
        let pool: Vec<u8> = (0..POOL)
            .flat_map(|_| {
                let bits = random.next();
                let exponent = 8 + bits % 2;
                let half = ((bits >> 60 & 1) << 15 | exponent << 10 | bits >> 20 & 0x3ff) as u16;
                half.to_le_bytes()
            })
            .collect();
        let one = [0x00, 0x3c].repeat(self.hidden);
        for (_, shape) in &tensors {
            if shape.len() == 1 {
                out.write_all(&one[..2 * shape[0]])?;
                continue;
            }
            let mut left = 2 * shape.iter().product::<usize>();
            while left > 0 {
                let start = 2 * (random.next() as usize % (POOL / 2));
                let count = left.min(pool.len() / 2);
                out.write_all(&pool[start..start + count])?;
                left -= count;
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Marsaglia's xorshift with 64 bits of state.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
