//! Checkpoints of random weights, of any size: for statements that take long, and for layers with
//! few features. They belong to the Llama family, or with experts to Mixtral's, tie their embeddings,
//! and know the words `Word3`, `Word4` … and, from number 203 on, words of other scripts among them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use half::bf16;
use serde_json::json;

/// Random numbers that a checkpoint is made of. Larger ones repeat them, and since this is a prime,
/// never in the same rows.
const PATTERN: usize = 1_048_583;

/// How large a random model is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Number of layers.
    pub layers: usize,
    /// Numbers of the residual stream, a multiple of 64.
    pub hidden: usize,
    /// Features of each layer, or of each of its experts.
    pub features: usize,
    /// Experts of each layer, two of which are used; 0 for a dense network.
    pub experts: usize,
    /// Tokens; all but three are words.
    pub vocabulary: usize,
    /// Tokens that a prompt may have.
    pub context: usize,
}

impl Size {
    /// A model at which EXTRACT and a long prompt take seconds.
    pub const SLOW: Self = Self {
        layers: 4,
        hidden: 512,
        features: 8192,
        experts: 0,
        vocabulary: 8000,
        context: 8192,
    };
    /// A model with fewer features a layer than DESCRIBE takes hits.
    pub const FEW_FEATURES: Self =
        Self { layers: 3, hidden: 64, features: 16, experts: 0, vocabulary: 300, context: 128 };
}

/// Writes the checkpoint of that size and seed.
pub fn write(directory: &Path, size: Size, seed: u64) {
    std::fs::create_dir_all(directory).expect("a directory");
    let Size { hidden, features, experts, vocabulary, .. } = size;
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": features,
        "num_hidden_layers": size.layers, "num_attention_heads": hidden / 64,
        "num_key_value_heads": hidden / 64, "head_dim": 64, "max_position_embeddings": size.context,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
    });
    if experts > 0 {
        config["architectures"] = json!(["MixtralForCausalLM"]);
        config["model_type"] = "mixtral".into();
        config["num_local_experts"] = experts.into();
        config["num_experts_per_tok"] = 2.into();
    }
    std::fs::write(directory.join("config.json"), config.to_string()).expect("config.json");
    std::fs::write(directory.join("tokenizer.json"), tokenizer(vocabulary))
        .expect("tokenizer.json");
    write_weights(&directory.join("model.safetensors"), &tensors(size), hidden, seed);
}

/// The names and shapes of a checkpoint's tensors; norms are its vectors.
fn tensors(size: Size) -> Vec<(String, Vec<usize>)> {
    let Size { layers, hidden, features, experts, vocabulary, .. } = size;
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let mut add = |part: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{part}.weight"), shape.to_vec()));
        };
        add("input_layernorm", &[hidden]);
        add("post_attention_layernorm", &[hidden]);
        for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{projection}"), &[hidden, hidden]);
        }
        let mut network = |gate: &str, up: &str, down: &str| {
            add(gate, &[features, hidden]);
            add(up, &[features, hidden]);
            add(down, &[hidden, features]);
        };
        if experts == 0 {
            network("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj");
            continue;
        }
        for expert in 0..experts {
            let name = |matrix: &str| format!("block_sparse_moe.experts.{expert}.{matrix}");
            network(&name("w1"), &name("w3"), &name("w2"));
        }
        add("block_sparse_moe.gate", &[experts, hidden]);
    }
    tensors
}

/// Writes a safetensors file of bf16, tensor after tensor, so that a model need not fit in memory.
fn write_weights(path: &Path, tensors: &[(String, Vec<usize>)], hidden: usize, seed: u64) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let first = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [first, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

    let mut random = Random(seed | 1);
    let scale = (3.0 / hidden as f32).sqrt();
    let numbers = PATTERN.min(end / 2);
    let pattern: Vec<u8> = (0..numbers)
        .flat_map(|_| bf16::from_f32(scale * random.next_signed()).to_le_bytes())
        .collect();
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("a header");
    file.write_all(header.as_bytes()).expect("a header");
    let mut at = 0;
    for (_, shape) in tensors {
        let mut left = 2 * shape.iter().product::<usize>();
        if shape.len() == 1 {
            file.write_all(&bf16::ONE.to_le_bytes().repeat(shape[0])).expect("a norm");
            continue;
        }
        while left > 0 {
            let part = left.min(pattern.len() - at);
            file.write_all(&pattern[at..at + part]).expect("numbers");
            left -= part;
            at = (at + part) % pattern.len();
        }
    }
    file.flush().expect("a file");
}

/// A prompt of that many words, each of them one token.
pub fn prompt(words: usize) -> String {
    (0..words).map(|word| format!("Word{} ", word % 200 + 3)).collect()
}

/// The word of a token.
fn word(id: usize) -> String {
    match (id, id % 3) {
        (203.., 0) => format!("Größe{id}"),
        (203.., 1) => format!("東京{id}"),
        _ => format!("Word{id}"),
    }
}

fn tokenizer(vocabulary: usize) -> String {
    let mut words: serde_json::Map<String, serde_json::Value> =
        (3..vocabulary).map(|id| (word(id), id.into())).collect();
    for (id, name) in ["<unk>", "<s>", "</s>"].into_iter().enumerate() {
        words.insert(name.to_owned(), id.into());
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    })
    .to_string()
}

/// Numbers that a seed decides (xorshift64*).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_bits() >> 11) as usize % bound
    }

    /// A number from -1 to 1.
    fn next_signed(&mut self) -> f32 {
        (self.next_bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
