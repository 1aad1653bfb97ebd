//! The metadata of a GGUF file as the `config.json` that its family has on the hub.
//!
//! Every key of the architecture is either turned into its counterpart, or says nothing that tensors do
//! not say, or is refused by name. Where a key is absent, what llama.cpp takes is written out, not what
//! the family would: the file was made for that program. One table lists the architectures.

use larql_storage::checkpoint::Checkpoint;
use serde_json::{Map, Value, json};

use super::keys::{Keys, refuse};
use super::rope;
use crate::failure::Failure;

/// More layers than any model has; arrays by layer are made of this many at most.
const LAYERS_MAX: u64 = 1024;

/// Fills a draft from the keys of one architecture.
type Describe = fn(&mut Draft<'_>) -> Result<(), Failure>;

/// Every architecture that is read, by its name in `general.architecture`.
const ARCHITECTURES: &[(&str, Describe)] = &[
    ("llama", llama),
    ("granite", granite),
    ("qwen2", qwen2),
    ("qwen3", qwen3),
    ("qwen2moe", qwen2_moe),
    ("qwen3moe", qwen3_moe),
    ("gemma2", gemma2),
    ("gemma3", gemma3),
    ("gemma4", gemma4),
    ("phi2", phi2),
    ("phi3", phi3),
    ("gpt2", gpt2),
    ("gpt-oss", gpt_oss),
    ("olmo2", olmo2),
    ("starcoder2", starcoder2),
    ("deepseek2", deepseek),
];

/// The configuration that the metadata of a GGUF checkpoint describes, and what is to be told about it.
///
/// # Errors
/// A failure that names the architecture or key that is missing, contradictory or not understood.
pub(super) fn config(
    keys: &Keys<'_>,
    checkpoint: &Checkpoint,
) -> Result<(Map<String, Value>, Vec<String>), Failure> {
    let name = keys.architecture();
    let Some((_, describe)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        return Err(refuse(format!("the GGUF architecture {name:?} is not supported"))
            .hint(format!("architectures are {}", known.join(", "))));
    };
    let layers = keys.needed("block_count")?;
    if layers == 0 || layers > LAYERS_MAX {
        return Err(refuse(format!("{name}.block_count is {layers}, not from 1 to {LAYERS_MAX}")));
    }
    let mut draft =
        Draft { keys, checkpoint, layers: layers as usize, config: Map::new(), notes: Vec::new() };
    draft.common()?;
    describe(&mut draft)?;
    keys.check_all_read()?;
    Ok((draft.config, draft.notes))
}

/// A configuration in the making.
pub(super) struct Draft<'a> {
    pub(super) keys: &'a Keys<'a>,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) layers: usize,
    pub(super) config: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// The shortest decimal that is this number in the 32 bits that GGUF keeps: 1e-5, not
/// 9.999999747378752e-6.
pub(super) fn short(number: f64) -> f64 {
    let narrow = number as f32;
    if f64::from(narrow) != number {
        return number;
    }
    narrow.to_string().parse().unwrap_or(number)
}

impl Draft<'_> {
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.to_owned(), value.into());
    }

    /// Writes a number of the metadata under another name, if it is there.
    fn copy(&mut self, from: &str, to: &str) -> Result<(), Failure> {
        if let Some(number) = self.keys.number(from)? {
            self.set(to, short(number));
        }
        Ok(())
    }

    fn needed_number(&self, key: &str) -> Result<f64, Failure> {
        let name = self.keys.architecture();
        let number = self.keys.number(key)?;
        number.map(short).ok_or_else(|| refuse(format!("the metadata has no {name}.{key}")))
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.checkpoint.tensor(tensor).is_some()
    }

    fn layer_has(&self, tensor: &str) -> bool {
        (0..self.layers).any(|layer| self.has(&format!("blk.{layer}.{tensor}")))
    }

    fn model(&mut self, model_type: &str, class: &str) {
        self.set("model_type", model_type);
        self.set("architectures", json!([class]));
    }

    /// What every architecture has.
    fn common(&mut self) -> Result<(), Failure> {
        let keys = self.keys;
        let name = keys.architecture();
        let hidden = keys.needed("embedding_length")?;
        self.set("hidden_size", hidden);
        self.set("num_hidden_layers", self.layers);
        self.set("max_position_embeddings", keys.needed("context_length")?);
        let rows = self.checkpoint.tensor("token_embd.weight").and_then(|tensor| {
            // The rows are what ids are looked up in, whatever a key says.
            tensor.shape.first().copied()
        });
        keys.skip("vocab_size");
        let rows = rows.ok_or_else(|| refuse("the tensor token_embd.weight is missing"))?;
        self.set("vocab_size", rows);
        self.set("tie_word_embeddings", !self.has("output.weight"));
        for key in ["attention.causal"] {
            if keys.flag(key)? == Some(false) {
                return Err(refuse(format!("{name}.{key} is false: the model is no decoder")));
            }
        }
        keys.skip("tensor_data_layout");
        if keys.text("tensor_data_layout")?.is_some_and(|layout| layout != "Meta AI original pth") {
            return Err(refuse(format!("{name}.tensor_data_layout is not understood")));
        }
        if keys.count("nextn_predict_layers")?.is_some_and(|layers| layers > 0) {
            return Err(refuse(format!("{name}.nextn_predict_layers is not supported")));
        }
        Ok(())
    }

    /// Heads, which must be alike in every layer, and the size of a head.
    fn heads(&mut self) -> Result<u64, Failure> {
        let heads = self.alike("attention.head_count")?;
        let name = self.keys.architecture();
        let heads = heads
            .ok_or_else(|| refuse(format!("the metadata has no {name}.attention.head_count")))?;
        let kv_heads = self.alike("attention.head_count_kv")?.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 {
            return Err(refuse(format!(
                "{name}: a model without attention heads is not supported"
            )));
        }
        self.set("num_attention_heads", heads);
        self.set("num_key_value_heads", kv_heads);
        Ok(heads)
    }

    /// The size of a head; keys and values must have the same.
    fn head_dim(&mut self, heads: u64) -> Result<u64, Failure> {
        let name = self.keys.architecture();
        let hidden = self.keys.needed("embedding_length")?;
        let keys = self.keys.count("attention.key_length")?.unwrap_or(hidden / heads);
        let values = self.keys.count("attention.value_length")?.unwrap_or(hidden / heads);
        if keys != values {
            return Err(refuse(format!("{name}: keys of {keys} numbers and values of {values}")));
        }
        Ok(keys)
    }

    /// A count that may be given by layer and must be the same for all.
    fn alike(&self, key: &str) -> Result<Option<u64>, Failure> {
        let Some(counts) = self.keys.per_layer(key, self.layers)? else { return Ok(None) };
        match counts.iter().find(|&count| *count != counts[0]) {
            None => Ok(Some(counts[0])),
            Some(other) => {
                let name = self.keys.architecture();
                let first = counts[0];
                Err(refuse(format!("{name}.{key} is {first} in one layer and {other} in another")))
            }
        }
    }

    fn needed_alike(&self, key: &str) -> Result<u64, Failure> {
        let name = self.keys.architecture();
        self.alike(key)?.ok_or_else(|| refuse(format!("the metadata has no {name}.{key}")))
    }

    /// Dimensions that turn, which must be all of a head.
    fn turns_wholly(&self, head_dim: u64) -> Result<(), Failure> {
        match self.keys.count("rope.dimension_count")? {
            Some(dims) if dims != head_dim => {
                let name = self.keys.architecture();
                Err(refuse(format!("{name}: {dims} of {head_dim} numbers of a head turn")))
            }
            _ => Ok(()),
        }
    }

    fn rms(&mut self) -> Result<(), Failure> {
        let epsilon = self.needed_number("attention.layer_norm_rms_epsilon")?;
        self.set("rms_norm_eps", epsilon);
        Ok(())
    }

    fn feed_forward(&mut self) -> Result<(), Failure> {
        let features = self.needed_alike("feed_forward_length")?;
        self.set("intermediate_size", features);
        Ok(())
    }

    /// The plain Transformer of Llama and those that follow it.
    fn plain(&mut self, model_type: &str, class: &str) -> Result<(), Failure> {
        self.model(model_type, class);
        let heads = self.heads()?;
        let head_dim = self.head_dim(heads)?;
        self.set("head_dim", head_dim);
        self.turns_wholly(head_dim)?;
        self.rms()?;
        self.feed_forward()?;
        self.set("hidden_act", "silu");
        rope::plain(self, head_dim)
    }

    /// Biases of attention, by the tensors that are there.
    fn attention_bias(&mut self) -> Result<(), Failure> {
        let present = ["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"]
            .map(|tensor| self.layer_has(tensor));
        match present {
            [false, false, false, false] => self.set("attention_bias", false),
            [true, true, true, true] => self.set("attention_bias", true),
            _ => {
                return Err(refuse("some projections of attention have biases and some have none"));
            }
        }
        Ok(())
    }

    /// Whether each layer sees a window only, and through which window.
    fn windows(&mut self, every: u64) -> Result<Option<Vec<bool>>, Failure> {
        let Some(window) = self.keys.count("attention.sliding_window")?.filter(|&size| size > 0)
        else {
            return Ok(None);
        };
        self.set("sliding_window", window);
        // One number is a period whose last layer sees everything; a list says it layer by layer.
        let key = "attention.sliding_window_pattern";
        let layers = self.layers;
        Ok(Some(match self.keys.per_layer(key, layers)? {
            Some(list) if list.iter().all(|&value| value <= 1) && layers > 1 => {
                list.iter().map(|&value| value == 1).collect()
            }
            period => {
                let period = period.map_or(every, |list| list[0]);
                if period == 0 {
                    return Err(refuse("a sliding window pattern of 0 layers"));
                }
                (0..layers as u64).map(|layer| (layer + 1) % period != 0).collect()
            }
        }))
    }

    fn layer_types(&mut self, sliding: &[bool]) {
        let name = |&sliding: &bool| if sliding { "sliding_attention" } else { "full_attention" };
        let types: Vec<&str> = sliding.iter().map(name).collect();
        self.set("layer_types", types);
    }

    fn experts(&mut self) -> Result<(), Failure> {
        let used = self.needed_alike("expert_used_count")?;
        self.set("num_experts_per_tok", used);
        Ok(())
    }
}

fn llama(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("llama", "LlamaForCausalLM")?;
    let window = draft.keys.count("attention.sliding_window")?.filter(|&size| size > 0);
    let experts = draft.keys.count("expert_count")?.filter(|&count| count > 0);
    let no_biases = |draft: &Draft<'_>| {
        let biased = ["attn_q.bias", "attn_output.bias", "ffn_down.bias", "ffn_gate.bias"];
        match biased.into_iter().find(|tensor| draft.layer_has(tensor)) {
            Some(tensor) => Err(refuse(format!("{tensor} is not expected in this model"))),
            None => Ok(()),
        }
    };
    match (experts, window) {
        (Some(count), _) => {
            draft.model("mixtral", "MixtralForCausalLM");
            draft.set("num_local_experts", count);
            draft.set("sliding_window", window.map_or(Value::Null, Value::from));
            let features = draft.alike("expert_feed_forward_length")?;
            if let Some(features) = features {
                draft.set("intermediate_size", features);
            }
            draft.experts()?;
            no_biases(draft)
        }
        (None, Some(window)) => {
            draft.model("mistral", "MistralForCausalLM");
            draft.set("sliding_window", window);
            no_biases(draft)
        }
        (None, None) => {
            draft.attention_bias()?;
            let mlp_bias = draft.layer_has("ffn_down.bias");
            draft.set("mlp_bias", mlp_bias);
            draft.keys.skip("expert_used_count");
            Ok(())
        }
    }
}

fn granite(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("granite", "GraniteForCausalLM")?;
    draft.attention_bias()?;
    let mlp_bias = draft.layer_has("ffn_down.bias");
    draft.set("mlp_bias", mlp_bias);
    if draft.keys.flag("rope.scaling.finetuned")? == Some(false) {
        return Err(refuse("granite without rotary positions is not supported"));
    }
    let logits = draft.needed_number("logit_scale")?;
    draft.set("logits_scaling", logits);
    draft.set("residual_multiplier", 1.0);
    draft.copy("residual_scale", "residual_multiplier")?;
    draft.set("embedding_multiplier", 1.0);
    draft.copy("embedding_scale", "embedding_multiplier")?;
    let head_dim = draft.config["head_dim"].as_f64().unwrap_or(1.0);
    draft.set("attention_multiplier", head_dim.powf(-0.5));
    draft.copy("attention.scale", "attention_multiplier")
}

fn qwen2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("qwen2", "Qwen2ForCausalLM")?;
    draft.set("use_sliding_window", false);
    Ok(())
}

fn qwen3(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("qwen3", "Qwen3ForCausalLM")?;
    draft.set("use_sliding_window", false);
    draft.attention_bias()
}

fn qwen_experts(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.set("use_sliding_window", false);
    let count = draft.keys.needed("expert_count")?;
    draft.set("num_experts", count);
    draft.experts()?;
    draft.set("decoder_sparse_step", 1);
    let dense: Vec<usize> = (0..draft.layers)
        .filter(|layer| !draft.has(&format!("blk.{layer}.ffn_gate_inp.weight")))
        .collect();
    draft.set("mlp_only_layers", dense);
    let features = match draft.alike("expert_feed_forward_length")? {
        Some(features) => features,
        None => {
            draft.needed_alike("feed_forward_length")?
                / draft.needed_alike("expert_used_count")?.max(1)
        }
    };
    draft.set("moe_intermediate_size", features);
    Ok(())
}

fn qwen2_moe(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("qwen2_moe", "Qwen2MoeForCausalLM")?;
    qwen_experts(draft)?;
    let shared = draft.keys.needed("expert_shared_feed_forward_length")?;
    draft.set("shared_expert_intermediate_size", shared);
    draft.set("norm_topk_prob", false);
    Ok(())
}

fn qwen3_moe(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("qwen3_moe", "Qwen3MoeForCausalLM")?;
    qwen_experts(draft)?;
    draft.set("norm_topk_prob", true);
    draft.attention_bias()
}

/// What the second and third Gemma share.
fn gemma(draft: &mut Draft<'_>, layers_of_27b: usize) -> Result<u64, Failure> {
    let heads = draft.heads()?;
    let head_dim = draft.head_dim(heads)?;
    draft.set("head_dim", head_dim);
    draft.turns_wholly(head_dim)?;
    draft.rms()?;
    draft.feed_forward()?;
    draft.set("hidden_activation", "gelu_pytorch_tanh");
    draft.set("attention_bias", false);
    // The file does not say it, and llama.cpp goes by the number of layers.
    let scalar = if draft.layers == layers_of_27b {
        draft.keys.needed("embedding_length")? / heads
    } else {
        head_dim
    };
    draft.set("query_pre_attn_scalar", scalar);
    Ok(head_dim)
}

fn gemma2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("gemma2", "Gemma2ForCausalLM");
    let head_dim = gemma(draft, 46)?;
    let attention = draft.keys.number("attn_logit_softcapping")?.unwrap_or(50.0);
    draft.set("attn_logit_softcapping", short(attention));
    let last = draft.keys.number("final_logit_softcapping")?.unwrap_or(30.0);
    draft.set("final_logit_softcapping", short(last));
    let sliding = match draft.windows(2)? {
        Some(sliding) => sliding,
        None => {
            draft.set("sliding_window", 4096);
            (0..draft.layers).map(|layer| layer % 2 == 0).collect()
        }
    };
    draft.layer_types(&sliding);
    rope::plain(draft, head_dim)
}

fn gemma3(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("gemma3_text", "Gemma3ForCausalLM");
    let head_dim = gemma(draft, 62)?;
    draft.set("attn_logit_softcapping", Value::Null);
    draft.set("final_logit_softcapping", Value::Null);
    draft.copy("final_logit_softcapping", "final_logit_softcapping")?;
    let layers = draft.layers;
    let sliding = draft.windows(6)?.unwrap_or_else(|| vec![false; layers]);
    if !draft.config.contains_key("sliding_window") {
        draft.set("sliding_window", 4096);
    }
    draft.layer_types(&sliding);
    let local = draft.keys.number("rope.freq_base_swa")?.unwrap_or(10000.0);
    draft.set("rope_local_base_freq", short(local));
    rope::plain(draft, head_dim)
}

fn gemma4(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("gemma4_text", "Gemma4ForCausalLM");
    let layers = draft.layers;
    let sliding =
        draft.windows(6)?.ok_or_else(|| refuse("gemma4.attention.sliding_window is missing"))?;
    draft.layer_types(&sliding);
    let of_kind = |counts: &[u64], kind: bool| -> Result<Option<u64>, Failure> {
        let mut of = counts.iter().zip(&sliding).filter(|(_, sliding)| **sliding == kind);
        let Some((&first, _)) = of.next() else { return Ok(None) };
        match of.all(|(&count, _)| count == first) {
            true => Ok(Some(first)),
            false => Err(refuse("gemma4.attention.head_count_kv differs among layers of one kind")),
        }
    };
    let heads = draft.needed_alike("attention.head_count")?;
    draft.set("num_attention_heads", heads);
    let kv =
        draft.keys.per_layer("attention.head_count_kv", layers)?.unwrap_or(vec![heads; layers]);
    let (local, global) = (of_kind(&kv, true)?, of_kind(&kv, false)?);
    draft.set("num_key_value_heads", local.or(global).unwrap_or(heads));
    draft.set("num_global_key_value_heads", global.map_or(Value::Null, Value::from));
    let whole = draft.keys.needed("attention.key_length")?;
    let head_dim = draft.keys.count("attention.key_length_swa")?.unwrap_or(whole);
    for (key, expected) in
        [("attention.value_length", whole), ("attention.value_length_swa", head_dim)]
    {
        if draft.keys.count(key)?.is_some_and(|found| found != expected) {
            return Err(refuse(format!("gemma4.{key} differs from the length of keys")));
        }
    }
    draft.set("head_dim", head_dim);
    draft.set("global_head_dim", whole);
    draft.rms()?;
    let shared = draft.keys.count("attention.shared_kv_layers")?.unwrap_or(0);
    draft.set("num_kv_shared_layers", shared);
    let features = draft.keys.per_layer("feed_forward_length", layers)?;
    let features = features.ok_or_else(|| refuse("gemma4.feed_forward_length is missing"))?;
    let own = layers.saturating_sub(usize::try_from(shared).unwrap_or(layers));
    let wide = features
        .iter()
        .enumerate()
        .any(|(layer, &count)| layer >= own && features[0].checked_mul(2) == Some(count));
    let expected = |layer: usize| if wide && layer >= own { features[0] * 2 } else { features[0] };
    if features.iter().enumerate().any(|(layer, &count)| count != expected(layer)) {
        return Err(refuse("gemma4.feed_forward_length differs among layers in an unknown way"));
    }
    draft.set("intermediate_size", features[0]);
    draft.set("use_double_wide_mlp", wide);
    let width = draft.keys.count("embedding_length_per_layer_input")?.unwrap_or(0);
    draft.set("hidden_size_per_layer_input", width);
    let rows = draft.checkpoint.tensor("per_layer_token_embd.weight");
    let rows = rows.and_then(|tensor| tensor.shape.first().copied());
    draft.set(
        "vocab_size_per_layer_input",
        rows.map_or(draft.config["vocab_size"].clone(), Value::from),
    );
    draft.set("hidden_activation", "gelu_pytorch_tanh");
    draft.set("attention_bias", false);
    draft.set("final_logit_softcapping", Value::Null);
    draft.copy("final_logit_softcapping", "final_logit_softcapping")?;
    let key_is_value = (0..layers).any(|layer| {
        !sliding[layer] && layer < own && !draft.has(&format!("blk.{layer}.attn_v.weight"))
    });
    draft.set("attention_k_eq_v", key_is_value);
    let experts = draft.keys.count("expert_count")?.filter(|&count| count > 0);
    draft.set("enable_moe_block", experts.is_some());
    if let Some(count) = experts {
        draft.set("num_experts", count);
        let used = draft.needed_alike("expert_used_count")?;
        draft.set("top_k_experts", used);
        let features = draft.needed_alike("expert_feed_forward_length")?;
        draft.set("moe_intermediate_size", features);
    }
    rope::gemma4(draft, whole, head_dim)
}

fn layer_norm(draft: &mut Draft<'_>, key: &str) -> Result<(), Failure> {
    let epsilon = draft.needed_number("attention.layer_norm_epsilon")?;
    draft.set(key, epsilon);
    Ok(())
}

fn phi2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("phi", "PhiForCausalLM");
    let heads = draft.heads()?;
    let head_dim = draft.head_dim(heads)?;
    layer_norm(draft, "layer_norm_eps")?;
    draft.feed_forward()?;
    draft.set("hidden_act", "gelu_new");
    draft.set("qk_layernorm", false);
    rope::partial(draft, head_dim)?;
    rope::plain(draft, head_dim)
}

fn phi3(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("phi3", "Phi3ForCausalLM");
    let heads = draft.heads()?;
    let head_dim = draft.head_dim(heads)?;
    draft.rms()?;
    draft.feed_forward()?;
    draft.set("hidden_act", "silu");
    draft.set("attention_bias", false);
    let window = draft.keys.count("attention.sliding_window")?.filter(|&size| size > 0);
    draft.set("sliding_window", window.map_or(Value::Null, Value::from));
    rope::partial(draft, head_dim)?;
    rope::phi3(draft, head_dim)
}

fn gpt2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("gpt2", "GPT2LMHeadModel");
    let heads = draft.heads()?;
    draft.head_dim(heads)?;
    // The family's own names.
    for (from, to) in [
        ("hidden_size", "n_embd"),
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
        ("max_position_embeddings", "n_positions"),
    ] {
        if let Some(value) = draft.config.remove(from) {
            draft.set(to, value);
        }
    }
    if draft.config.remove("num_key_value_heads") != draft.config.get("n_head").cloned() {
        return Err(refuse("gpt2.attention.head_count_kv differs from the number of heads"));
    }
    layer_norm(draft, "layer_norm_epsilon")?;
    let features = draft.needed_alike("feed_forward_length")?;
    draft.set("n_inner", features);
    draft.set("activation_function", "gelu_new");
    Ok(())
}

fn gpt_oss(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("gpt_oss", "GptOssForCausalLM");
    let heads = draft.heads()?;
    let head_dim = draft.head_dim(heads)?;
    draft.set("head_dim", head_dim);
    draft.turns_wholly(head_dim)?;
    draft.rms()?;
    let features = draft.needed_alike("expert_feed_forward_length")?;
    draft.keys.skip("feed_forward_length");
    draft.set("intermediate_size", features);
    draft.set("hidden_act", "silu");
    draft.set("attention_bias", true);
    let count = draft.keys.needed("expert_count")?;
    draft.set("num_local_experts", count);
    draft.experts()?;
    // llama.cpp has this limit in its code.
    draft.set("swiglu_limit", 7.0);
    if let Some(limit) = draft.keys.uniform("swiglu_clamp_exp")? {
        draft.set("swiglu_limit", short(limit));
    }
    let sliding =
        draft.windows(2)?.ok_or_else(|| refuse("gpt-oss.attention.sliding_window is missing"))?;
    draft.layer_types(&sliding);
    rope::gpt_oss(draft, head_dim)
}

fn olmo2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.plain("olmo2", "Olmo2ForCausalLM")?;
    draft.set("attention_bias", false);
    if draft.keys.count("attention.sliding_window")?.is_some_and(|size| size > 0) {
        return Err(refuse("olmo2 with a sliding window (OLMo 3) is not supported"));
    }
    draft.keys.skip("attention.sliding_window_pattern");
    draft.config.remove("head_dim");
    Ok(())
}

fn starcoder2(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.model("starcoder2", "Starcoder2ForCausalLM");
    let heads = draft.heads()?;
    let head_dim = draft.head_dim(heads)?;
    draft.turns_wholly(head_dim)?;
    layer_norm(draft, "norm_epsilon")?;
    draft.feed_forward()?;
    draft.set("hidden_act", "gelu_pytorch_tanh");
    let biased = draft.layer_has("attn_q.bias");
    draft.set("use_bias", biased);
    let window = draft.keys.count("attention.sliding_window")?.filter(|&size| size > 0);
    draft.set("sliding_window", window.map_or(Value::Null, Value::from));
    rope::plain(draft, head_dim)
}

fn deepseek(draft: &mut Draft<'_>) -> Result<(), Failure> {
    let keys = draft.keys;
    let heads = draft.heads()?;
    draft.set("num_key_value_heads", heads);
    draft.rms()?;
    draft.feed_forward()?;
    draft.set("hidden_act", "silu");
    draft.set("attention_bias", false);
    let rank = keys.needed("attention.kv_lora_rank")?;
    let turning = keys.needed("rope.dimension_count")?;
    // Files of before the split of kv_b name the whole lengths where newer ones name the shared.
    let key_length = match keys.count("attention.key_length_mla")? {
        Some(length) => {
            keys.skip("attention.key_length");
            length
        }
        None => keys.needed("attention.key_length")?,
    };
    let value_length = match keys.count("attention.value_length_mla")? {
        Some(length) => {
            keys.skip("attention.value_length");
            length
        }
        None => keys.needed("attention.value_length")?,
    };
    let Some(still) = key_length.checked_sub(turning) else {
        return Err(refuse("deepseek2: more numbers of a head turn than it has"));
    };
    draft.set("kv_lora_rank", rank);
    draft.set("q_lora_rank", keys.count("attention.q_lora_rank")?.map_or(Value::Null, Value::from));
    draft.set("qk_rope_head_dim", turning);
    draft.set("qk_nope_head_dim", still);
    draft.set("v_head_dim", value_length);
    let experts = keys.needed("expert_count")?;
    draft.set("n_routed_experts", experts);
    draft.experts()?;
    let features = draft.needed_alike("expert_feed_forward_length")?;
    draft.set("moe_intermediate_size", features);
    draft.set("n_shared_experts", keys.count("expert_shared_count")?.unwrap_or(0));
    draft.set("first_k_dense_replace", keys.count("leading_dense_block_count")?.unwrap_or(0));
    draft.set("moe_layer_freq", 1);
    draft.set("routed_scaling_factor", 1.0);
    draft.copy("expert_weights_scale", "routed_scaling_factor")?;
    draft.set("norm_topk_prob", keys.flag("expert_weights_norm")?.unwrap_or(false));
    let sigmoid = match keys.count("expert_gating_func")? {
        None | Some(0 | 1) => false,
        Some(2) => true,
        Some(other) => {
            return Err(refuse(format!("deepseek2.expert_gating_func {other} is not supported")));
        }
    };
    let groups = keys.count("expert_group_count")?.filter(|&count| count > 1);
    let groups_used = keys.count("expert_group_used_count")?;
    if let Some(count) = groups {
        draft.set("n_group", count);
        draft.set("topk_group", groups_used.unwrap_or(count));
    }
    if sigmoid || draft.layer_has("exp_probs_b.bias") {
        draft.model("deepseek_v3", "DeepseekV3ForCausalLM");
        draft.set("topk_method", "noaux_tc");
        if groups.is_none() {
            draft.set("n_group", 1);
            draft.set("topk_group", 1);
        }
    } else {
        draft.model("deepseek_v2", "DeepseekV2ForCausalLM");
        draft.set("topk_method", if groups.is_some() { "group_limited_greedy" } else { "greedy" });
    }
    draft.set("scoring_func", if sigmoid { "sigmoid" } else { "softmax" });
    rope::deepseek(draft, turning)
}
