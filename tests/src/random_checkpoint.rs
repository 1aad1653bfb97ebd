//! Checkpoints of random weights, of any size: for statements that take long, and for layers with
//! few features. They belong to the Llama family, tie their embeddings, and know the words `Word3`,
//! `Word4` … and, from number 203 on, words of other scripts among them.

use std::collections::HashMap;
use std::path::Path;

use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// How large a random model is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Number of layers.
    pub layers: usize,
    /// Numbers of the residual stream, a multiple of 64.
    pub hidden: usize,
    /// Features of each layer.
    pub features: usize,
    /// Tokens; all but three are words.
    pub vocabulary: usize,
    /// Tokens that a prompt may have.
    pub context: usize,
}

impl Size {
    /// A model at which EXTRACT and a long prompt take seconds.
    pub const SLOW: Self =
        Self { layers: 4, hidden: 512, features: 8192, vocabulary: 8000, context: 8192 };
    /// A model with fewer features a layer than DESCRIBE takes hits.
    pub const FEW_FEATURES: Self =
        Self { layers: 3, hidden: 64, features: 16, vocabulary: 300, context: 128 };
}

/// Writes the checkpoint of that size and seed.
pub fn write(directory: &Path, size: Size, seed: u64) {
    std::fs::create_dir_all(directory).expect("a directory");
    let Size { layers, hidden, features, vocabulary, context } = size;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": features,
        "num_hidden_layers": layers, "num_attention_heads": hidden / 64, "num_key_value_heads": hidden / 64,
        "head_dim": 64, "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).expect("config.json");
    std::fs::write(directory.join("tokenizer.json"), tokenizer(vocabulary))
        .expect("tokenizer.json");

    let mut random = Random(seed | 1);
    let mut tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    let mut add = |name: String, shape: Vec<usize>, ones: bool| {
        let count: usize = shape.iter().product();
        let scale = (3.0 / hidden as f32).sqrt();
        let value = |_| if ones { 1.0 } else { scale * random.next_signed() };
        let bytes = (0..count)
            .map(value)
            .flat_map(|value: f32| bf16::from_f32(value).to_le_bytes())
            .collect();
        tensors.insert(name, (shape, bytes));
    };
    add("model.embed_tokens.weight".into(), vec![vocabulary, hidden], false);
    add("model.norm.weight".into(), vec![hidden], true);
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        add(name("input_layernorm"), vec![hidden], true);
        add(name("post_attention_layernorm"), vec![hidden], true);
        for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(name(&format!("self_attn.{projection}")), vec![hidden, hidden], false);
        }
        add(name("mlp.gate_proj"), vec![features, hidden], false);
        add(name("mlp.up_proj"), vec![features, hidden], false);
        add(name("mlp.down_proj"), vec![hidden, features], false);
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).expect("a view"))
    });
    safetensors::serialize_to_file(views, None, &directory.join("model.safetensors"))
        .expect("a file");
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
