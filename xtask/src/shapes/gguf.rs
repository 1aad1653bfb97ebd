//! Models of real sizes as Q4_K_M files, for both engines: random weights, no knowledge in them.
//!
//! The mixture of types is that of llama.cpp's Q4_K_M: Q4_K, and Q6_K for the embedding and for some
//! layers' values and down projections. Weights have mean 0 and a standard deviation of about 0.02.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Random;

/// A model's size.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    architecture: &'static str,
    hidden: usize,
    layers: usize,
    features: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    rope_theta: f32,
    epsilon: f32,
    /// Experts, and how many of them a token takes.
    experts: Option<(u32, u32)>,
    window: Option<u32>,
}

/// The size of Llama 3.2 1B.
pub const LLAMA_1B: Shape = Shape {
    name: "llama-1b",
    architecture: "llama",
    hidden: 2048,
    layers: 16,
    features: 8192,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    vocabulary: 128_256,
    rope_theta: 5e5,
    epsilon: 1e-5,
    experts: None,
    window: None,
};

/// The size of Gemma 3 4B.
pub const GEMMA_4B: Shape = Shape {
    name: "gemma-4b",
    architecture: "gemma3",
    hidden: 2560,
    layers: 34,
    features: 10_240,
    heads: 8,
    kv_heads: 4,
    head_dim: 256,
    vocabulary: 262_144,
    rope_theta: 1e6,
    epsilon: 1e-6,
    experts: None,
    window: Some(1024),
};

/// A small Mixtral.
pub const MOE_8X400M: Shape = Shape {
    name: "moe-8x400m",
    features: 3584,
    vocabulary: 32_000,
    rope_theta: 1e6,
    experts: Some((8, 2)),
    ..LLAMA_1B
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// f32 about 1, or about 0 where a router is meant.
    Norm,
    Router,
    Q4K,
    Q6K,
}

impl Kind {
    /// GGUF's number for the type.
    fn number(self) -> u32 {
        match self {
            Self::Norm | Self::Router => 0,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Numbers in a block and bytes of one.
    fn block(self) -> (usize, usize) {
        match self {
            Self::Norm | Self::Router => (1, 4),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }
}

struct Tensor {
    name: String,
    /// Fastest first, as GGUF has it.
    shape: Vec<usize>,
    kind: Kind,
}

impl Tensor {
    fn numbers(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        let (numbers, bytes) = self.kind.block();
        self.numbers() / numbers * bytes
    }
}

const ALIGNMENT: usize = 32;

impl Shape {
    /// The file, written first where it is missing.
    pub fn file(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let path = directory.join(format!("{}-Q4_K_M.gguf", self.name));
        if !path.is_file() {
            println!("writing {}", path.display());
            let partial = path.with_extension("partial");
            self.write(&partial).with_context(|| partial.display().to_string())?;
            std::fs::rename(partial, &path)?;
        }
        Ok(path)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize], kind| {
            tensors.push(Tensor { name, shape: shape.to_vec(), kind });
        };
        // Tied: it is the output matrix too.
        add("token_embd.weight".to_owned(), &[self.hidden, self.vocabulary], Kind::Q6K);
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize], kind| {
                add(format!("blk.{layer}.{name}.weight"), shape, kind);
            };
            let eighth = self.layers / 8;
            let more = layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 == 2;
            let finer = if more { Kind::Q6K } else { Kind::Q4K };
            let mut norms = vec![("attn_norm", self.hidden), ("ffn_norm", self.hidden)];
            if self.architecture == "gemma3" {
                norms.extend([("attn_q_norm", self.head_dim), ("attn_k_norm", self.head_dim)]);
                norms
                    .extend([("post_attention_norm", self.hidden), ("post_ffw_norm", self.hidden)]);
            }
            for (name, width) in norms {
                add(name, &[width], Kind::Norm);
            }
            add("attn_q", &[self.hidden, queries], Kind::Q4K);
            add("attn_k", &[self.hidden, keys], Kind::Q4K);
            add("attn_v", &[self.hidden, keys], finer);
            add("attn_output", &[queries, self.hidden], Kind::Q4K);
            let (hidden, features) = (self.hidden, self.features);
            if let Some((experts, _)) = self.experts {
                let experts = experts as usize;
                add("ffn_gate_inp", &[hidden, experts], Kind::Router);
                add("ffn_gate_exps", &[hidden, features, experts], Kind::Q4K);
                add("ffn_up_exps", &[hidden, features, experts], Kind::Q4K);
                add("ffn_down_exps", &[features, hidden, experts], finer);
            } else {
                add("ffn_gate", &[hidden, features], Kind::Q4K);
                add("ffn_up", &[hidden, features], Kind::Q4K);
                add("ffn_down", &[features, hidden], finer);
            }
        }
        add("output_norm.weight".to_owned(), &[self.hidden], Kind::Norm);
        tensors
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let tensors = self.tensors();
        let metadata = self.metadata();
        let mut head = Vec::new();
        head.extend_from_slice(b"GGUF");
        head.extend_from_slice(&3_u32.to_le_bytes());
        head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        head.extend_from_slice(&metadata.count.to_le_bytes());
        head.extend_from_slice(&metadata.bytes);
        let mut at = 0;
        for tensor in &tensors {
            string(&mut head, &tensor.name);
            head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &size in &tensor.shape {
                head.extend_from_slice(&(size as u64).to_le_bytes());
            }
            head.extend_from_slice(&tensor.kind.number().to_le_bytes());
            head.extend_from_slice(&(at as u64).to_le_bytes());
            at += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&head)?;
        let mut weights = Weights::new();
        for tensor in &tensors {
            weights.write(tensor, &mut out)?;
            let bytes = tensor.bytes();
            out.write_all(&[0; ALIGNMENT][..bytes.next_multiple_of(ALIGNMENT) - bytes])?;
        }
        out.flush()?;
        Ok(())
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.text("general.architecture", self.architecture);
        metadata.text("general.name", self.name);
        // Mostly Q4_K, with more for what matters more.
        metadata.number("general.file_type", 15);
        let last = self.vocabulary as u32;
        let numbers = [
            ("block_count", self.layers as u32),
            ("context_length", 8192),
            ("embedding_length", self.hidden as u32),
            ("feed_forward_length", self.features as u32),
            ("attention.head_count", self.heads as u32),
            ("attention.head_count_kv", self.kv_heads as u32),
            ("attention.key_length", self.head_dim as u32),
            ("attention.value_length", self.head_dim as u32),
            ("rope.dimension_count", self.head_dim as u32),
            ("vocab_size", last),
        ];
        for (name, value) in numbers {
            metadata.number(&format!("{}.{name}", self.architecture), value);
        }
        if let Some((count, used)) = self.experts {
            metadata.number(&format!("{}.expert_count", self.architecture), count);
            metadata.number(&format!("{}.expert_used_count", self.architecture), used);
        }
        if let Some(window) = self.window {
            metadata.number(&format!("{}.attention.sliding_window", self.architecture), window);
        }
        let floats = [
            ("attention.layer_norm_rms_epsilon", self.epsilon),
            ("rope.freq_base", self.rope_theta),
        ];
        for (name, value) in floats {
            metadata.float(&format!("{}.{name}", self.architecture), value);
        }
        metadata.text("tokenizer.ggml.model", "gpt2");
        metadata.text("tokenizer.ggml.pre", "llama-bpe");
        let (tokens, merges) = self.tokens();
        metadata.texts("tokenizer.ggml.tokens", &tokens);
        metadata.texts("tokenizer.ggml.merges", &merges);
        // Normal ones, and two that control.
        let mut types = vec![1; self.vocabulary - 2];
        types.extend([3, 3]);
        metadata.integers("tokenizer.ggml.token_type", &types);
        metadata.number("tokenizer.ggml.bos_token_id", last - 2);
        metadata.number("tokenizer.ggml.eos_token_id", last - 1);
        metadata.boolean("tokenizer.ggml.add_bos_token", true);
        metadata
    }

    /// Bytes, letters with a space before them, and words that no text has: any text encodes.
    fn tokens(&self) -> (Vec<String>, Vec<String>) {
        // GPT-2's stand-ins: bytes that print are themselves, the others come after all bytes.
        let prints = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let mut next = 256..;
        let mut stand_in = |byte: u32| {
            let code = if prints(byte) { Some(byte) } else { next.next() };
            code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        let alphabet: Vec<char> = (0..256).map(&mut stand_in).collect();
        let space = alphabet[usize::from(b' ')];
        let mut tokens: Vec<String> = alphabet.iter().map(char::to_string).collect();
        tokens.extend(('a'..='z').map(|letter| format!("{space}{letter}")));
        let merges = ('a'..='z').map(|letter| format!("{space} {letter}")).collect();
        tokens.extend((tokens.len()..self.vocabulary - 2).map(|id| format!("<|reserved_{id}|>")));
        tokens.extend(["<|begin_of_text|>".to_owned(), "<|end_of_text|>".to_owned()]);
        (tokens, merges)
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Keys with values, as GGUF encodes them.
#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn key(&mut self, name: &str, kind: u32) {
        self.count += 1;
        string(&mut self.bytes, name);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
    }

    fn number(&mut self, name: &str, value: u32) {
        self.key(name, 4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn float(&mut self, name: &str, value: f32) {
        self.key(name, 6);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.key(name, 7);
        self.bytes.push(value.into());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name, 8);
        string(&mut self.bytes, value);
    }

    fn list(&mut self, name: &str, kind: u32, count: usize) {
        self.key(name, 9);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&(count as u64).to_le_bytes());
    }

    fn texts(&mut self, name: &str, values: &[String]) {
        self.list(name, 8, values.len());
        for value in values {
            string(&mut self.bytes, value);
        }
    }

    fn integers(&mut self, name: &str, values: &[i32]) {
        self.list(name, 5, values.len());
        for value in values {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Where blocks' codes come from.
struct Weights {
    random: Random,
    pool: Vec<u8>,
}

impl Weights {
    fn new() -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let pool = (0..1 << 19).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { random, pool }
    }

    fn write(&mut self, tensor: &Tensor, out: &mut impl Write) -> anyhow::Result<()> {
        let (numbers, bytes) = tensor.kind.block();
        let mut block = vec![0; bytes];
        for _ in 0..tensor.numbers() / numbers {
            match tensor.kind {
                Kind::Norm | Kind::Router => {
                    // About the mean, within ±0.035: a standard deviation of 0.02.
                    let spread =
                        0.07 * (self.random.next() >> 40) as f32 / (1 << 24) as f32 - 0.035;
                    let mean = if tensor.kind == Kind::Norm { 1.0 } else { 0.0 };
                    block.copy_from_slice(&f32::to_le_bytes(mean + spread));
                }
                // Scales of 32; 4-bit codes have a standard deviation of 4.61 about 7.5.
                Kind::Q4K => {
                    block[..4].copy_from_slice(&[0x71, 0x08, 0x2a, 0x14]);
                    block[4..12].fill(32 | 2 << 6);
                    block[12..16].fill(0);
                    self.codes(&mut block[16..]);
                }
                // Scales of 32; 6-bit codes have one of 18.5 about 32.
                Kind::Q6K => {
                    self.codes(&mut block[..192]);
                    block[192..208].fill(32);
                    block[208..].copy_from_slice(&[0x37, 0x02]);
                }
            }
            out.write_all(&block)?;
        }
        Ok(())
    }

    fn codes(&mut self, codes: &mut [u8]) {
        let start = self.random.next() as usize % (self.pool.len() - codes.len());
        codes.copy_from_slice(&self.pool[start..][..codes.len()]);
    }
}
