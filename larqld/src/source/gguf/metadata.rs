//! A model's description as GGUF metadata, as llama.cpp's converter writes it.
//!
//! The values come from the [`Architecture`], which has read and checked the configuration, so that what
//! is written is what is computed with. One table says which `general.architecture` a `model_type`
//! becomes; what a GGUF of that architecture cannot say is refused by name.

use larql_compute::kernels::Activation;
use larql_compute::model::{
    Architecture, AttentionDescription, FfnDescription, GroupRule, RopeDescription, RopePairing,
    RopeScaling, RouterScoring,
};
use larql_storage::checkpoint::GgufMetadata;
use larql_storage::checkpoint::gguf::{GgufMetadataBuilder, Value};

use super::keys::refuse;
use crate::failure::Failure;

/// The architecture of GGUF that each `model_type` becomes.
const ARCHITECTURES: &[(&[&str], &str)] = &[
    (&["llama", "mistral", "mixtral"], "llama"),
    (&["granite"], "granite"),
    (&["qwen2"], "qwen2"),
    (&["qwen3"], "qwen3"),
    (&["qwen2_moe"], "qwen2moe"),
    (&["qwen3_moe"], "qwen3moe"),
    (&["gemma2"], "gemma2"),
    (&["gemma3", "gemma3_text"], "gemma3"),
    (&["gemma4", "gemma4_text"], "gemma4"),
    (&["phi"], "phi2"),
    (&["phi3"], "phi3"),
    (&["gpt2"], "gpt2"),
    (&["gpt_oss"], "gpt-oss"),
    (&["olmo2"], "olmo2"),
    (&["starcoder2"], "starcoder2"),
    (&["deepseek_v2", "deepseek_v3"], "deepseek2"),
];

/// A tensor that only GGUF has, computed from the description: `[n]` of `f32`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExtraTensor {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its numbers.
    pub(crate) values: Vec<f32>,
}

/// The `general.architecture` of a model.
///
/// # Errors
/// `UNSUPPORTED_FORMAT` for a family that has none here.
pub(crate) fn architecture_name(architecture: &Architecture) -> Result<&'static str, Failure> {
    let model_type = architecture.model_type.as_str();
    let found = ARCHITECTURES.iter().find(|(types, _)| types.contains(&model_type));
    found.map(|(_, name)| *name).ok_or_else(|| {
        refuse(format!("models of type {model_type:?} are not written as GGUF"))
            .hint("write FORMAT SAFETENSORS")
    })
}

/// Writes what the architecture is, and returns tensors that belong to the description and what is
/// to be told about programs that read it.
///
/// # Errors
/// A failure that names what GGUF has no word for.
pub(super) fn write(
    architecture: &Architecture,
    metadata: &mut GgufMetadataBuilder,
) -> Result<(Vec<ExtraTensor>, Vec<String>), Failure> {
    let name = architecture_name(architecture)?;
    let mut writer = Writer { name, metadata, tensors: Vec::new(), notes: Vec::new() };
    writer.model(architecture)?;
    writer.attention(architecture)?;
    writer.networks(architecture)?;
    writer.windows(architecture)?;
    writer.rotary(architecture)?;
    Ok((writer.tensors, writer.notes))
}

/// Keys of a GGUF file whose latent attention expands keys and values by two tensors, with what they
/// say where it does so by one; `None` for those that only the former has. Empty for other files.
pub(super) fn joined_latent_keys(
    architecture: &Architecture,
    kept: &GgufMetadata,
) -> Vec<(String, Option<u32>)> {
    let attention = &architecture.layer(0).attention;
    let key = |key: &str| format!("deepseek2.attention.{key}");
    if attention.latent.is_none() || kept.get(&key("key_length_mla")).is_none() {
        return Vec::new();
    }
    // Descriptions bound these counts far below.
    let count = |count: usize| u32::try_from(count).ok();
    vec![
        (key("head_count_kv"), count(attention.heads)),
        (key("key_length"), count(attention.head_dim)),
        (key("value_length"), count(attention.value_dim)),
        (key("key_length_mla"), None),
        (key("value_length_mla"), None),
    ]
}

struct Writer<'a> {
    name: &'static str,
    metadata: &'a mut GgufMetadataBuilder,
    tensors: Vec<ExtraTensor>,
    notes: Vec<String>,
}

impl Writer<'_> {
    fn put(&mut self, key: &str, value: Value<'_>) {
        self.metadata.value(&format!("{}.{key}", self.name), value);
    }

    fn count(&mut self, key: &str, count: usize) -> Result<(), Failure> {
        let narrow = u32::try_from(count);
        let narrow = narrow.map_err(|_| refuse(format!("{}.{key} is {count}", self.name)))?;
        self.put(key, Value::U32(narrow));
        Ok(())
    }

    fn number(&mut self, key: &str, number: f64) {
        self.put(key, Value::F32(number as f32));
    }

    /// One number where all layers agree, else one for each.
    fn per_layer(&mut self, key: &str, counts: &[usize]) -> Result<(), Failure> {
        if counts.iter().all(|count| *count == counts[0]) {
            return self.count(key, counts[0]);
        }
        let key = format!("{}.{key}", self.name);
        self.metadata.array(&key, counts.iter().map(|&count| Value::I32(count as i32)));
        Ok(())
    }

    fn model(&mut self, architecture: &Architecture) -> Result<(), Failure> {
        self.count("vocab_size", architecture.vocabulary_size)?;
        self.count("context_length", architecture.context_max)?;
        self.count("embedding_length", architecture.hidden_size)?;
        self.count("block_count", architecture.layers())?;
        let key = match architecture.norm.kind {
            larql_compute::model::NormKind::Rms => "attention.layer_norm_rms_epsilon",
            larql_compute::model::NormKind::Layer => "attention.layer_norm_epsilon",
        };
        self.number(key, architecture.norm.epsilon.into());
        let expected = match self.name {
            "gemma2" | "gemma3" | "gemma4" | "phi2" | "gpt2" | "starcoder2" => Activation::GeluTanh,
            _ => Activation::Silu,
        };
        if architecture.activation != expected {
            let found = architecture.activation.name();
            return Err(refuse(format!("GGUF has no word for {} with {found}", self.name)));
        }
        if let Some(cap) = architecture.final_softcap {
            self.number("final_logit_softcapping", cap.into());
        }
        if self.name == "granite" {
            self.number("logit_scale", 1.0 / f64::from(architecture.logits_scale));
            self.number("residual_scale", architecture.residual_scale.into());
            self.number("embedding_scale", architecture.embed_scale.into());
        }
        if let Some(inputs) = architecture.per_layer_embedding {
            self.count("embedding_length_per_layer_input", inputs.width)?;
        } else if self.name == "gemma4" {
            self.count("embedding_length_per_layer_input", 0)?;
        }
        Ok(())
    }

    fn attention(&mut self, architecture: &Architecture) -> Result<(), Failure> {
        let of = |read: fn(&AttentionDescription) -> usize| -> Vec<usize> {
            (0..architecture.layers())
                .map(|layer| read(&architecture.layer(layer).attention))
                .collect()
        };
        let first = &architecture.layer(0).attention;
        self.per_layer("attention.head_count", &of(|attention| attention.heads))?;
        if self.name != "gpt2" {
            self.per_layer("attention.head_count_kv", &of(|attention| attention.kv_heads))?;
        }
        match (self.name, first.latent) {
            (_, Some(latent)) => {
                if let Some(rank) = latent.query_rank {
                    self.count("attention.q_lora_rank", rank)?;
                }
                self.count("attention.kv_lora_rank", latent.kv_rank)?;
                self.count("attention.key_length", first.head_dim)?;
                self.count("attention.value_length", first.value_dim)?;
            }
            ("gemma4", None) => {
                let (local, global) = self.local_and_global(architecture)?;
                self.count("attention.key_length", global.head_dim)?;
                self.count("attention.value_length", global.value_dim)?;
                self.count("attention.key_length_swa", local.head_dim)?;
                self.count("attention.value_length_swa", local.value_dim)?;
                let shared = (0..architecture.layers())
                    .filter(|&layer| architecture.layer(layer).attention.kv_from.is_some());
                self.count("attention.shared_kv_layers", shared.count())?;
            }
            ("gpt2" | "phi2", None) => {}
            _ => {
                self.count("attention.key_length", first.head_dim)?;
                self.count("attention.value_length", first.value_dim)?;
            }
        }
        match self.name {
            "granite" => self.number("attention.scale", first.scale.into()),
            "gemma2" => {
                let cap = first.softcap.ok_or_else(|| refuse("GGUF's gemma2 needs a softcap"))?;
                self.number("attn_logit_softcapping", cap.into());
            }
            _ if first.softcap.is_some() => {
                return Err(refuse(format!("GGUF's {} has no softcap of attention", self.name)));
            }
            _ => {}
        }
        Ok(())
    }

    /// The attention of a sliding and of a global layer; of one kind where there is no other.
    fn local_and_global<'m>(
        &self,
        architecture: &'m Architecture,
    ) -> Result<(&'m AttentionDescription, &'m AttentionDescription), Failure> {
        let layers =
            || (0..architecture.layers()).map(|layer| &architecture.layer(layer).attention);
        let local = layers().find(|attention| attention.window.is_some());
        let global = layers().find(|attention| attention.window.is_none());
        match (local.or(global), global.or(local)) {
            (Some(local), Some(global)) => Ok((local, global)),
            _ => Err(refuse("a model without layers")),
        }
    }

    fn networks(&mut self, architecture: &Architecture) -> Result<(), Failure> {
        let ffn = |layer: usize| -> &FfnDescription { &architecture.layer(layer).ffn };
        let layers = architecture.layers();
        let experts = (0..layers).find_map(|layer| ffn(layer).experts);
        let dense: Vec<Option<usize>> =
            (0..layers).map(|layer| ffn(layer).dense.map(|dense| dense.features)).collect();
        let Some(experts) = experts else {
            let features: Vec<usize> = dense.into_iter().flatten().collect();
            return self.per_layer("feed_forward_length", &features);
        };
        let first_with = (0..layers).find(|&layer| ffn(layer).experts.is_some()).unwrap_or(0);
        let dense_alone = (0..layers).any(|layer| ffn(layer).experts.is_none());
        if dense_alone && self.name != "deepseek2" {
            self.notes.push(format!(
                "llama.cpp reads {} models with experts in every layer only; this one has layers without",
                self.name
            ));
        }
        let before = (0..first_with).find_map(|layer| dense[layer]);
        let beside = dense[first_with];
        let features = match self.name {
            "llama" | "gpt-oss" => experts.features,
            "gemma4" => beside.unwrap_or(experts.features),
            _ => before.unwrap_or(experts.features),
        };
        self.count("feed_forward_length", features)?;
        self.count("expert_count", experts.count)?;
        self.count("expert_used_count", experts.used)?;
        if self.name != "llama" {
            self.count("expert_feed_forward_length", experts.features)?;
        }
        if self.name == "qwen2moe" {
            self.count("expert_shared_feed_forward_length", beside.unwrap_or(0))?;
        }
        if self.name == "deepseek2" {
            let shared = beside.unwrap_or(0) / experts.features.max(1);
            self.count("expert_shared_count", shared)?;
            self.count("leading_dense_block_count", first_with)?;
            self.number("expert_weights_scale", experts.router.scale.into());
            self.put("expert_weights_norm", Value::Bool(experts.router.normalise));
            let gating = match experts.router.scoring {
                RouterScoring::Softmax => 1,
                RouterScoring::Sigmoid => 2,
            };
            self.count("expert_gating_func", gating)?;
            if let Some(groups) = experts.router.groups {
                self.count("expert_group_count", groups.count)?;
                self.count("expert_group_used_count", groups.used)?;
                if groups.rule == GroupRule::Max {
                    self.notes.push(
                        "llama.cpp chooses groups of experts by the best two of each, this model by the \
                         best one: it may choose other experts"
                            .to_owned(),
                    );
                }
            }
        }
        if let Some(clamp) = experts.clamp
            && clamp.limit != 7.0
        {
            let limit = vec![Value::F32(clamp.limit); layers];
            self.metadata.array(&format!("{}.swiglu_clamp_exp", self.name), limit);
            self.notes.push(format!(
                "llama.cpp limits the experts of {} to 7, this model to {}",
                self.name, clamp.limit
            ));
        }
        Ok(())
    }

    fn windows(&mut self, architecture: &Architecture) -> Result<(), Failure> {
        let window = |layer: usize| architecture.layer(layer).attention.window;
        let layers = architecture.layers();
        let Some(size) = (0..layers).find_map(window) else {
            if self.name == "phi3" {
                self.count("attention.sliding_window", 0)?;
            }
            return Ok(());
        };
        if (0..layers).filter_map(window).any(|other| other != size) {
            return Err(refuse("GGUF has one sliding window for all layers"));
        }
        self.count("attention.sliding_window", size)?;
        match self.name {
            "gemma2" | "gpt-oss" => {
                let alternating = |layer: usize| window(layer).is_some() == layer.is_multiple_of(2);
                if !(0..layers).all(alternating) {
                    return Err(refuse(format!("GGUF's {} slides every other layer", self.name)));
                }
            }
            "gemma3" | "gemma4" => {
                let sliding = (0..layers).map(|layer| Value::Bool(window(layer).is_some()));
                self.metadata
                    .array(&format!("{}.attention.sliding_window_pattern", self.name), sliding);
            }
            _ => {
                if !(0..layers).all(|layer| window(layer).is_some()) {
                    return Err(refuse(format!("GGUF's {} has one kind of attention", self.name)));
                }
                self.notes.push(format!(
                    "llama.cpp does not apply the sliding window of {size} tokens to {} models: \
                     longer prompts give other answers there",
                    self.name
                ));
            }
        }
        Ok(())
    }

    fn rotary(&mut self, architecture: &Architecture) -> Result<(), Failure> {
        let (local, global) = self.local_and_global(architecture)?;
        let Some(rope) = &global.rope else { return Ok(()) };
        self.number("rope.freq_base", rope.base);
        let local_rope = local.rope.as_ref().filter(|_| local.window.is_some());
        let proportional = rope.pairing == RopePairing::Proportional;
        let dims = if proportional { global.head_dim } else { rope.dims };
        let dims = global.latent.map_or(dims, |latent| latent.rope_dim);
        self.count("rope.dimension_count", dims)?;
        if matches!(self.name, "gemma3" | "gemma4")
            && let Some(local_rope) = local_rope
        {
            self.number("rope.freq_base_swa", local_rope.base);
            if local_rope.scaling != RopeScaling::None {
                return Err(refuse("GGUF has no scaling for local layers"));
            }
            if self.name == "gemma4" {
                self.count("rope.dimension_count_swa", local_rope.dims)?;
            }
        }
        if proportional {
            let turning = rope.dims / 2;
            let values =
                (0..dims / 2).map(|pair| if pair < turning { 1.0 } else { 1e30 }).collect();
            self.tensors.push(ExtraTensor { name: "rope_freqs.weight", values });
        }
        self.scaling(architecture, rope)
    }

    fn scaling(
        &mut self,
        architecture: &Architecture,
        rope: &RopeDescription,
    ) -> Result<(), Failure> {
        match &rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                self.text("rope.scaling.type", "linear");
                self.number("rope.scaling.factor", *factor);
            }
            scaling @ RopeScaling::Llama3 { .. } => {
                let divisor = |pair: usize| {
                    let frequency = rope.base.powf(-2.0 * pair as f64 / rope.dims as f64);
                    Some((frequency / scaling.scaled(frequency)?) as f32)
                };
                let values = (0..rope.dims / 2).filter_map(divisor).collect();
                self.tensors.push(ExtraTensor { name: "rope_freqs.weight", values });
            }
            RopeScaling::Factors(factors) => {
                let values = factors.iter().map(|&factor| factor as f32).collect();
                self.tensors.push(ExtraTensor { name: "rope_freqs.weight", values });
            }
            RopeScaling::LongRope { short, long, context_original, attention_factor } => {
                self.count("rope.scaling.original_context_length", *context_original)?;
                self.number("rope.scaling.attn_factor", *attention_factor);
                for (name, values) in
                    [("rope_factors_long.weight", long), ("rope_factors_short.weight", short)]
                {
                    let values = values.iter().map(|&value| value as f32).collect();
                    self.tensors.push(ExtraTensor { name, values });
                }
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                context_original,
                truncate,
                attention_factor,
            } => {
                self.text("rope.scaling.type", "yarn");
                self.number("rope.scaling.factor", *factor);
                self.count("rope.scaling.original_context_length", *context_original as usize)?;
                self.number("rope.scaling.yarn_beta_fast", *beta_fast);
                self.number("rope.scaling.yarn_beta_slow", *beta_slow);
                self.yarn_attention(architecture, *factor, *attention_factor)?;
                if !truncate {
                    self.notes.push(
                        "llama.cpp rounds the ends of YaRN's blend, this model does not".to_owned(),
                    );
                }
            }
            _ => return Err(refuse("GGUF has no word for the rotary scaling of this model")),
        }
        Ok(())
    }

    /// What YaRN does to queries and keys, and (DeepSeek) to the scale of attention.
    fn yarn_attention(
        &mut self,
        architecture: &Architecture,
        factor: f64,
        attention_factor: f64,
    ) -> Result<(), Failure> {
        let usual = 0.1 * factor.ln() + 1.0;
        let attention = &architecture.layer(0).attention;
        if attention.latent.is_none() {
            if (attention_factor - usual).abs() > 1e-5 {
                self.number("rope.scaling.yarn_attn_factor", attention_factor);
            }
            return Ok(());
        }
        // The scale of attention holds the square of `0.1 * mscale_all_dim * ln(factor) + 1`.
        let plain = (attention.head_dim as f64).powf(-0.5);
        let scale = (f64::from(attention.scale) / plain).sqrt();
        let all = (scale - 1.0) / (0.1 * factor.ln());
        if all.abs() > 1e-6 {
            self.number("rope.scaling.yarn_log_multiplier", 0.1 * all);
        }
        Ok(())
    }

    fn text(&mut self, key: &str, text: &str) {
        self.metadata.text(&format!("{}.{key}", self.name), text);
    }
}
