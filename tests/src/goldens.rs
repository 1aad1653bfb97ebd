//! Reference outputs of other people's programs, as kept in `tests/goldens`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::repository;

/// A checkpoint with reference outputs: one way in which one family is published.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The family, in its publisher's words.
    pub family: &'static str,
    /// The folder in `tests/goldens`.
    pub folder: &'static str,
    /// The GGUF file in it; `None` for the folder as a whole, which is safetensors.
    pub file: Option<&'static str>,
    /// How its weights are written.
    pub format: &'static str,
    /// What of the family's arithmetic it exercises.
    pub covers: &'static str,
}

const fn hub(
    family: &'static str,
    folder: &'static str,
    format: &'static str,
    covers: &'static str,
) -> Case {
    Case { family, folder, file: None, format, covers }
}

const fn gguf(
    family: &'static str,
    folder: &'static str,
    file: &'static str,
    format: &'static str,
    covers: &'static str,
) -> Case {
    Case { family, folder, file: Some(file), format, covers }
}

/// Every checkpoint that is compared with the reference. `docs/families.md` is printed from it.
pub const CASES: &[Case] = &[
    hub(
        "Gemma 2",
        "gemma2",
        "safetensors, bf16",
        "soft caps of attention and logits, alternating window, norm offset 1, post norms",
    ),
    hub(
        "Gemma 3",
        "gemma3",
        "safetensors, bf16",
        "query and key norms, local and global rotary bases, window on all but every sixth layer",
    ),
    gguf(
        "Gemma 3",
        "gemma3",
        "gemma3-f16.gguf",
        "GGUF, f16",
        "as above; the norm offset taken out again",
    ),
    gguf("Gemma 3", "gemma3", "gemma3-q8_0.gguf", "GGUF, Q8_0", "as above"),
    hub(
        "Gemma 4 (E2B, E4B)",
        "gemma4_e2b",
        "safetensors, bf16, text part of a multimodal checkpoint",
        "per-layer embeddings, shared keys and values, proportional rotary embedding, layer scalars",
    ),
    gguf(
        "Gemma 4 (E2B, E4B)",
        "gemma4_e2b",
        "gemma4_e2b-bf16.gguf",
        "GGUF of llama.cpp's converter, bf16",
        "as above; rotary embedding from its factors",
    ),
    hub(
        "Gemma 4 (26B-A4B)",
        "gemma4_moe",
        "safetensors, bf16",
        "experts beside a dense network, values that are keys on global layers",
    ),
    hub("Llama 2", "llama2", "safetensors, f16", "multi-head attention, untied"),
    hub(
        "Llama 3, 3.1",
        "llama3",
        "safetensors, bf16, sharded",
        "grouped-query attention, llama3 rotary scaling",
    ),
    gguf(
        "Llama 3, 3.1",
        "llama3",
        "llama3-f16.gguf",
        "GGUF, f16",
        "as above; the converter's order of query and key rows undone, rotary scaling from its factors",
    ),
    gguf("Llama 3, 3.1", "llama3", "llama3-q8_0.gguf", "GGUF, Q8_0", "as above"),
    gguf("Llama 3, 3.1", "llama3", "llama3-q4_0.gguf", "GGUF, Q4_0", "as above"),
    hub(
        "Llama 3, 3.1",
        "llama3_mlx4",
        "MLX, 4 bits in groups of 64",
        "packed words with scales and biases",
    ),
    gguf(
        "Llama 3, 3.1",
        "llama_k_quants",
        "llama_k_quants-q4_k_m.gguf",
        "GGUF, Q4_K, Q5_K and Q6_K",
        "tied, a directory that holds one GGUF file",
    ),
    hub("Mistral", "mistral", "safetensors, bf16", "sliding window on every layer"),
    hub("Mixtral", "mixtral", "safetensors, bf16", "8 experts of which 2 run"),
    hub("Qwen 2, 2.5", "qwen2", "safetensors, f32", "biases of query, key and value, tied"),
    hub("Qwen 2, 2.5", "qwen2_mlx8", "MLX, 8 bits in groups of 32", "as above, packed"),
    hub("Qwen 2 MoE", "qwen2_moe", "safetensors", "a shared expert with a gate of its own"),
    hub(
        "Qwen 3",
        "qwen3",
        "safetensors, bf16",
        "query and key norms, heads of their own size, tied",
    ),
    hub(
        "Qwen 3 MoE",
        "qwen3_moe",
        "safetensors, bf16",
        "8 experts of which 2 run, weights made to add up to 1",
    ),
    hub(
        "Phi 2",
        "phi2",
        "safetensors, f16",
        "attention and network side by side, partial rotary embedding, biases everywhere",
    ),
    hub("Phi 3", "phi3", "safetensors, bf16", "joined projections, sliding window"),
    hub(
        "DeepSeek V2",
        "deepseek_v2",
        "safetensors, bf16",
        "latent attention, experts chosen by groups, shared experts, YaRN",
    ),
    hub(
        "DeepSeek V3",
        "deepseek_v3",
        "safetensors, bf16",
        "sigmoid scores with a correction for the choice, latent attention, YaRN",
    ),
    gguf(
        "DeepSeek V3",
        "deepseek_v3",
        "deepseek_v3-bf16.gguf",
        "GGUF of llama.cpp's converter, bf16",
        "as above; keys and values expanded by two tensors put together",
    ),
    hub(
        "DeepSeek V3",
        "deepseek_v3_fp8",
        "safetensors, FP8 with a factor for each tile of 128 x 128",
        "partial tiles at the edges",
    ),
    hub(
        "gpt-oss",
        "gpt_oss",
        "safetensors, bf16",
        "attention sinks, alternating window, clamped gates, interleaved experts with biases",
    ),
    hub("gpt-oss", "gpt_oss_mxfp4", "safetensors, MXFP4 experts", "as above, packed"),
    hub(
        "GPT-2",
        "gpt2",
        "safetensors, f32",
        "learned positions, layer norms with biases, joined and transposed projections",
    ),
    gguf("GPT-2", "gpt2", "gpt2-f16.gguf", "GGUF, f16", "as above"),
    gguf("GPT-2", "gpt2", "gpt2-q8_0.gguf", "GGUF, Q8_0", "as above"),
    hub(
        "Granite",
        "granite",
        "safetensors, bf16",
        "multipliers of embedding, attention, residual and logits",
    ),
    hub(
        "OLMo 2",
        "olmo2",
        "safetensors, bf16",
        "post norms alone, query and key norms over the whole projection",
    ),
    hub(
        "StarCoder 2",
        "starcoder2",
        "safetensors, bf16",
        "layer norms and plain networks with biases, sliding window",
    ),
];

impl Case {
    /// What names it in a message: folder and file.
    pub fn name(&self) -> String {
        match self.file {
            Some(file) => format!("{}/{file}", self.folder),
            None => self.folder.to_owned(),
        }
    }

    /// The folder.
    pub fn directory(&self) -> PathBuf {
        repository().join("tests/goldens").join(self.folder)
    }

    /// What to hand to a program as the model: the folder, or the GGUF file in it. A GGUF file that
    /// is the only weights of its folder goes by the folder, so that both ways are walked.
    pub fn path(&self) -> PathBuf {
        let directory = self.directory();
        match self.file {
            Some(file)
                if directory.join("model.safetensors").is_file()
                    || directory.join("model.safetensors.index.json").is_file() =>
            {
                directory.join(file)
            }
            _ => directory,
        }
    }

    /// The file with the reference's outputs: `golden.json`, or `golden.VARIANT.gguf.json`.
    fn reference(&self) -> PathBuf {
        let variant = self.file.and_then(|file| file.strip_suffix(".gguf")?.rsplit_once('-'));
        let name = match variant {
            Some((_, variant)) => format!("golden.{variant}.gguf.json"),
            None => "golden.json".to_owned(),
        };
        self.directory().join(name)
    }

    /// Whether the reference rendered chats.
    pub fn has_chats(&self) -> bool {
        Golden::of(self).tokenizer()["chat"].as_array().is_some_and(|chats| !chats.is_empty())
    }

    /// Whether the reference read a prompt of several hundred tokens.
    pub fn has_long_prompt(&self) -> bool {
        self.file.is_none() && self.directory().join("long.json").is_file()
    }

    /// Whether the folder has its configuration as transformers 5 writes it, too.
    pub fn has_transformers5_config(&self) -> bool {
        self.file.is_none() && self.directory().join("config.transformers5.json").is_file()
    }
}

/// One family's checkpoint with its reference.
pub struct Golden {
    /// The folder's name.
    pub name: String,
    /// The checkpoint directory.
    pub path: PathBuf,
    /// The whole of `golden.json`.
    pub json: Value,
}

/// One prompt with what the reference made of it.
pub struct Prompt<'a> {
    /// Its name.
    pub name: &'a str,
    /// The token ids.
    pub input_ids: Vec<u32>,
    /// The last position's logits.
    pub logits: Vec<f64>,
    /// L2 norm and first numbers of the residual stream after each layer.
    pub layers: Vec<(f64, Vec<f64>)>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

impl Golden {
    /// Reads the reference of a case.
    pub fn of(case: &Case) -> Self {
        Self { name: case.name(), path: case.path(), json: json(&case.reference()) }
    }

    /// Reads a folder whose checkpoint is safetensors.
    pub fn load(name: &str) -> Self {
        let path = repository().join("tests/goldens").join(name);
        Self { name: name.to_owned(), json: json(&path.join("golden.json")), path }
    }

    /// Texts with the ids and chats that the reference's tokenizer makes of them. The variants of a
    /// folder share those of its `golden.json`.
    pub fn tokenizer(&self) -> Value {
        match &self.json["tokenizer"] {
            Value::Null => {
                let directory = self.path.parent().expect("a file lies in a folder");
                json(&directory.join("golden.json"))["tokenizer"].clone()
            }
            own => own.clone(),
        }
    }

    /// The largest difference of a logit that exact arithmetic may show: `max(3e-4, 0.1 × stability)`.
    pub fn tolerance(&self) -> f64 {
        let stability = self.json["stability_max_logit_change_rel_1e-5"].as_f64().unwrap_or(0.0);
        (0.1 * stability).max(3e-4)
    }

    /// The prompts.
    pub fn prompts(&self) -> Vec<Prompt<'_>> {
        let prompts = self.json["prompts"].as_array().expect("prompts");
        prompts.iter().map(prompt).collect()
    }
}

fn json(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn prompt(json: &Value) -> Prompt<'_> {
    let hidden = json["hidden"].as_array().expect("hidden");
    let layers = hidden
        .iter()
        .filter(|entry| entry["after"].as_str().is_some_and(|name| name.starts_with("layer_")));
    Prompt {
        name: json["name"].as_str().expect("name"),
        input_ids: ids(&json["input_ids"]),
        logits: reals(&json["last_logits"]),
        layers: layers
            .map(|entry| (entry["l2"].as_f64().expect("l2"), reals(&entry["first8"])))
            .collect(),
        greedy: ids(&json["greedy16"]),
    }
}

/// A JSON array of token ids.
pub fn ids(json: &Value) -> Vec<u32> {
    json.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// A JSON array of numbers.
pub fn reals(json: &Value) -> Vec<f64> {
    json.as_array()
        .expect("numbers")
        .iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}
