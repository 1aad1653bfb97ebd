//! The keys and values of published `config.json` files: each is accepted as it stands.
//!
//! Lists of one number for each pair that turns, and kinds of layers, are filled in by the test;
//! what describes images, and how weights are stored, is left out or shortened.

use larql_compute::model::{Architecture, Naming, RopeScaling};
use serde_json::{Value, json};

/// A checkpoint of the hub, the family that it belongs to, and its configuration.
type Published = (&'static str, &'static str, &'static str);

const LLAMAS: &[Published] = &[
    (
        "Llama 2 7B",
        "llama",
        r#"{"_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000}"#,
    ),
    (
        "a fine-tune of Llama 2 with a pad token of -1",
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 13824,
        "max_position_embeddings": 2048, "max_sequence_length": 2048, "model_type": "llama",
        "num_attention_heads": 40, "num_hidden_layers": 40, "pad_token_id": -1,
        "rms_norm_eps": 1e-06, "_flash_attn_2_enabled": true, "vocab_size": 32000}"#,
    ),
    (
        "Llama 3.1 8B Instruct",
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256}"#,
    ),
    (
        "Llama 3.2 1B",
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0,
        "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256}"#,
    ),
    (
        "SmolLM2 1.7B",
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 130000, "tie_word_embeddings": true, "transformers.js_config": {
        "kv_cache_dtype": {"q4f16": "float16"}}, "is_llama_config": true,
        "rope_interleaved": false, "vocab_size": 49152}"#,
    ),
    (
        "Granite 3B Code",
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": true,
        "attention_dropout": 0.1, "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu",
        "hidden_size": 2560, "intermediate_size": 10240, "max_position_embeddings": 2048,
        "mlp_bias": true, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 0,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000,
        "tie_word_embeddings": true, "vocab_size": 49152}"#,
    ),
    (
        "Granite 3.3 8B",
        "granite",
        r#"{"architectures": ["GraniteForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "attention_multiplier": 0.0078125, "bos_token_id": 0,
        "embedding_multiplier": 12.0, "eos_token_id": 0, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12800,
        "logits_scaling": 16.0, "max_position_embeddings": 131072, "mlp_bias": false,
        "model_type": "granite", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "pad_token_id": 0, "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000000.0,
        "tie_word_embeddings": true, "vocab_size": 49159}"#,
    ),
    (
        "OLMo 2 7B",
        "olmo2",
        r#"{"architectures": ["Olmo2ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "eos_token_id": 100257, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "model_type": "olmo2", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 100277,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
        "tie_word_embeddings": false, "use_cache": false, "vocab_size": 100352}"#,
    ),
];

const MISTRALS: &[Published] = &[
    (
        "Mistral 7B v0.1",
        "mistral",
        r#"{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32000}"#,
    ),
    (
        "Mistral 7B Instruct v0.3",
        "mistral",
        r#"{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
        "vocab_size": 32768}"#,
    ),
    (
        "Mistral Nemo",
        "mistral",
        r#"{"architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
        "tie_word_embeddings": false, "vocab_size": 131072}"#,
    ),
    (
        "Mistral Small 3.1",
        "mistral",
        r#"{"architectures": ["Mistral3ForConditionalGeneration"], "image_token_index": 10,
        "model_type": "mistral3", "multimodal_projector_bias": false,
        "projector_hidden_act": "gelu", "spatial_merge_size": 2, "text_config": {
        "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "initializer_range": 0.02, "intermediate_size": 32768, "max_position_embeddings": 131072,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000000.0,
        "sliding_window": null, "use_cache": true, "vocab_size": 131072}, "vision_config": {
        "attention_dropout": 0.0, "head_dim": 64, "hidden_size": 1024, "model_type": "pixtral",
        "rope_theta": 10000.0}, "vision_feature_layer": -1}"#,
    ),
    (
        "LLaVA 1.5 7B",
        "llama",
        r#"{"architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100,
        "image_token_index": 32000, "model_type": "llava", "multimodal_projector_bias": true,
        "pad_token_id": 32001, "projector_hidden_act": "gelu", "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
        "torch_dtype": "float16", "vocab_size": 32064}, "tie_word_embeddings": false,
        "vision_config": {"hidden_size": 1024, "model_type": "clip_vision_model"},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "vocab_size": 32064}"#,
    ),
    (
        "LLaVA 1.6 Mistral 7B",
        "mistral",
        r#"{"architectures": ["LlavaNextForConditionalGeneration"], "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672]], "image_token_index": 32000,
        "model_type": "llava_next", "projector_hidden_act": "gelu", "text_config": {
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2",
        "architectures": ["MistralForCausalLM"], "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
        "torch_dtype": "bfloat16", "vocab_size": 32064}, "tie_word_embeddings": false,
        "use_image_newline_parameter": true, "vision_feature_layer": -2}"#,
    ),
    (
        "Mixtral 8x22B",
        "mixtral",
        r#"{"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 6144, "intermediate_size": 16384,
        "max_position_embeddings": 65536, "model_type": "mixtral", "num_attention_heads": 48,
        "num_experts_per_tok": 2, "num_hidden_layers": 56, "num_key_value_heads": 8,
        "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
        "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32768}"#,
    ),
];

const QWENS: &[Published] = &[
    (
        "Qwen 1.5 0.5B",
        "qwen2",
        r#"{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu",
        "hidden_size": 1024, "intermediate_size": 2816, "max_position_embeddings": 32768,
        "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 16,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
        "use_sliding_window": false, "vocab_size": 151936}"#,
    ),
    (
        "Qwen 2.5 7B with YaRN as its page says",
        "qwen2",
        r#"{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
        "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 32768,
        "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768,
        "type": "yarn"}, "rope_theta": 1000000.0, "sliding_window": 131072,
        "tie_word_embeddings": false, "use_mrope": false, "use_sliding_window": false,
        "vocab_size": 152064}"#,
    ),
    (
        "Qwen 1.5 MoE A2.7B",
        "qwen2_moe",
        r#"{"architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
        "max_position_embeddings": 8192, "max_window_layers": 21, "model_type": "qwen2_moe",
        "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 16, "output_router_logits": false, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
        "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936}"#,
    ),
    (
        "Qwen 3 0.6B",
        "qwen3",
        r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
        "vocab_size": 151936}"#,
    ),
    (
        "Qwen 3 30B-A3B",
        "qwen3_moe",
        r#"{"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151643, "decoder_sparse_step": 1,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
        "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
        "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
        "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
        "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936}"#,
    ),
];

const GEMMAS: &[Published] = &[
    (
        "Gemma 2 9B",
        "gemma2",
        r#"{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3584,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "gemma2",
        "num_attention_heads": 16, "num_hidden_layers": 42, "num_key_value_heads": 8,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096,
        "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 256000}"#,
    ),
    (
        "Gemma 3 1B",
        "gemma3",
        r#"{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": [1, 106],
        "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144}"#,
    ),
    (
        "Gemma 3 270M",
        "gemma3",
        r#"{"_sliding_window_pattern": 6, "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": false, "attn_logit_softcapping": null, "bos_token_id": 2,
        "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640, "intermediate_size": 2048,
        "layer_types": 6, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1000000.0,
        "sliding_window": 512, "use_bidirectional_attention": false, "vocab_size": 262144}"#,
    ),
    (
        "Gemma 3 4B",
        "gemma3",
        r#"{"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
        "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
        "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
        "model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0,
        "rope_type": "linear"}, "sliding_window": 1024}, "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1152, "vision_use_head": false}}"#,
    ),
    (
        "Gemma 3 27B",
        "gemma3",
        r#"{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": {"head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504,
        "model_type": "gemma3_text", "num_attention_heads": 32, "num_hidden_layers": 62,
        "num_key_value_heads": 16, "query_pre_attn_scalar": 168, "rope_scaling": {"factor": 8.0,
        "rope_type": "linear"}, "sliding_window": 1024}}"#,
    ),
    (
        "Gemma 4 E2B",
        "gemma4",
        r#"{"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
        "audio_config": {"hidden_size": 1024}, "tie_word_embeddings": true, "text_config": {
        "attention_bias": false, "attention_dropout": 0.0, "attention_k_eq_v": false,
        "bos_token_id": 2, "dtype": "bfloat16", "enable_moe_block": false, "eos_token_id": 1,
        "final_logit_softcapping": 30.0, "global_head_dim": 512, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1536,
        "hidden_size_per_layer_input": 256, "intermediate_size": 6144, "layer_types": 5,
        "max_position_embeddings": 131072, "model_type": "gemma4_text",
        "moe_intermediate_size": null, "num_attention_heads": 8, "num_experts": null,
        "num_global_key_value_heads": null, "num_hidden_layers": 35, "num_key_value_heads": 1,
        "num_kv_shared_layers": 20, "pad_token_id": 0, "rms_norm_eps": 1e-06,
        "rope_parameters": {"full_attention": {"partial_rotary_factor": 0.25,
        "rope_theta": 1000000.0, "rope_type": "proportional"}, "sliding_attention": {
        "rope_theta": 10000.0, "rope_type": "default"}}, "sliding_window": 512,
        "sliding_window_pattern": 5, "tie_word_embeddings": true, "top_k_experts": null,
        "use_bidirectional_attention": null, "use_double_wide_mlp": true, "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144}}"#,
    ),
    (
        "Gemma 4 26B-A4B",
        "gemma4",
        r#"{"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4",
        "text_config": {"attention_bias": false, "attention_k_eq_v": true,
        "enable_moe_block": true, "final_logit_softcapping": 30.0, "global_head_dim": 512,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2816,
        "hidden_size_per_layer_input": 0, "intermediate_size": 2112, "layer_types": 6,
        "max_position_embeddings": 262144, "model_type": "gemma4_text",
        "moe_intermediate_size": 704, "num_attention_heads": 16, "num_experts": 128,
        "num_global_key_value_heads": 2, "num_hidden_layers": 30, "num_key_value_heads": 8,
        "num_kv_shared_layers": 0, "rms_norm_eps": 1e-06, "rope_parameters": {
        "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0,
        "rope_type": "proportional"}, "sliding_attention": {"rope_theta": 10000.0,
        "rope_type": "default"}}, "sliding_window": 1024, "top_k_experts": 8,
        "use_bidirectional_attention": "vision", "use_double_wide_mlp": false,
        "vocab_size": 262144, "vocab_size_per_layer_input": 262144}}"#,
    ),
];

const OTHERS: &[Published] = &[
    (
        "GPT-2 XL",
        "gpt2",
        r#"{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
        "n_ctx": 1024, "n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024,
        "output_past": true, "resid_pdrop": 0.1, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
        "summary_type": "cls_index", "summary_use_proj": true, "task_specific_params": {
        "text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257}"#,
    ),
    (
        "GPT-2 Medium",
        "gpt2",
        r#"{"activation_function": "gelu_new", "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2", "n_ctx": 1024, "n_embd": 1024, "n_head": 16, "n_layer": 24,
        "n_positions": 1024, "n_special": 0, "predict_special_tokens": true,
        "resid_pdrop": 0.1, "vocab_size": 50257}"#,
    ),
    (
        "Phi 2",
        "phi",
        r#"{"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0,
        "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256,
        "hidden_act": "gelu_new", "hidden_size": 2560, "intermediate_size": 10240,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "partial_rotary_factor": 0.4, "qk_layernorm": false, "resid_pdrop": 0.1,
        "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false,
        "vocab_size": 51200}"#,
    ),
    (
        "Phi 1.5",
        "phi",
        r#"{"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": null,
        "embd_pdrop": 0.0, "eos_token_id": null, "hidden_act": "gelu_new", "hidden_size": 2048,
        "intermediate_size": 8192, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 24,
        "num_key_value_heads": null, "partial_rotary_factor": 0.5, "qk_layernorm": false,
        "rope_scaling": null, "rope_theta": 10000.0, "vocab_size": 51200}"#,
    ),
    (
        "Phi 3 Mini 4K",
        "phi3",
        r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu",
        "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
        "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
        "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "vocab_size": 32064}"#,
    ),
    (
        "Phi 3.5 Mini",
        "phi3",
        r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false,
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu",
        "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
        "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": {
        "long_factor": 48, "short_factor": 48, "type": "longrope"}, "rope_theta": 10000.0,
        "sliding_window": 262144, "tie_word_embeddings": false, "vocab_size": 32064}"#,
    ),
    (
        "Phi 4",
        "phi3",
        r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 100257, "embd_pdrop": 0.0,
        "eos_token_id": 100265, "hidden_act": "silu", "hidden_size": 5120,
        "intermediate_size": 17920, "max_position_embeddings": 16384, "model_type": "phi3",
        "num_attention_heads": 40, "num_hidden_layers": 40, "num_key_value_heads": 10,
        "original_max_position_embeddings": 16384, "pad_token_id": 100349, "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 250000,
        "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 100352}"#,
    ),
    (
        "Phi 4 Mini",
        "phi3",
        r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 199999, "embd_pdrop": 0.0,
        "eos_token_id": 199999, "full_attn_mod": 1, "hidden_act": "silu", "hidden_size": 3072,
        "intermediate_size": 8192, "interpolate_factor": 1, "lm_head_bias": false,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "phi3",
        "num_attention_heads": 24, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096, "pad_token_id": 199999,
        "partial_rotary_factor": 0.75, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": 48, "short_factor": 48, "type": "longrope"},
        "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": true,
        "vocab_size": 200064}"#,
    ),
    (
        "DeepSeek V2",
        "deepseek_v2",
        r#"{"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 100000,
        "eos_token_id": 100001, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu",
        "hidden_size": 5120, "intermediate_size": 12288, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "model_type": "deepseek_v2",
        "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 8,
        "n_routed_experts": 160, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60,
        "num_key_value_heads": 128, "pretraining_tp": 1, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
        "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 16.0, "scoring_func": "softmax",
        "seq_aux": true, "tie_word_embeddings": false, "topk_group": 3,
        "topk_method": "group_limited_greedy", "v_head_dim": 128, "vocab_size": 102400}"#,
    ),
    (
        "DeepSeek V2 Lite",
        "deepseek_v2",
        r#"{"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false,
        "aux_loss_alpha": 0.001, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
        "max_position_embeddings": 163840, "model_type": "deepseek_v2",
        "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1,
        "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
        "num_key_value_heads": 16, "pretraining_tp": 1, "q_lora_rank": null,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
        "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax",
        "seq_aux": true, "tie_word_embeddings": false, "topk_group": 1, "topk_method": "greedy",
        "v_head_dim": 128, "vocab_size": 102400}"#,
    ),
    (
        "DeepSeek V3 and R1",
        "deepseek_v3",
        r#"{"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1,
        "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
        "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
        "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1,
        "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
        "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "pretraining_tp": 1,
        "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3",
        "quant_method": "fp8", "weight_block_size": [128, 128]}, "rms_norm_eps": 1e-06,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
        "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
        "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
        "seq_aux": true, "tie_word_embeddings": false, "topk_group": 4,
        "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280}"#,
    ),
    (
        "gpt-oss 20B",
        "gpt_oss",
        r#"{"architectures": ["GptOssForCausalLM"], "attention_bias": true,
        "attention_dropout": 0.0, "eos_token_id": 200002, "experts_per_token": 4,
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
        "initial_context_length": 4096, "intermediate_size": 2880, "layer_types": 2,
        "max_position_embeddings": 131072, "model_type": "gpt_oss", "num_attention_heads": 64,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
        "num_local_experts": 32, "output_router_logits": false, "pad_token_id": 199999,
        "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-05,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
        "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "swiglu_limit": 7.0, "tie_word_embeddings": false, "vocab_size": 201088}"#,
    ),
    (
        "StarCoder2 7B",
        "starcoder2",
        r#"{"activation_function": "gelu", "architectures": ["Starcoder2ForCausalLM"],
        "attention_dropout": 0.1, "attention_softmax_in_fp32": true, "bos_token_id": 0,
        "embedding_dropout": 0.1, "eos_token_id": 0, "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 4608, "initializer_range": 0.018042, "intermediate_size": 18432,
        "layer_norm_epsilon": 1e-05, "max_position_embeddings": 16384, "mlp_type": "default",
        "model_type": "starcoder2", "norm_epsilon": 1e-05, "norm_type": "layer_norm",
        "num_attention_heads": 36, "num_hidden_layers": 32, "num_key_value_heads": 4,
        "residual_dropout": 0.1, "rope_theta": 1000000,
        "scale_attention_softmax_in_fp32": true, "scale_attn_weights": true,
        "sliding_window": 4096, "use_bias": true, "vocab_size": 49152}"#,
    ),
];

/// The configuration with its long lists: a number stands for the layers between two without a
/// window, or for the length of a list of divisors.
fn config((name, _, text): &Published) -> Value {
    let mut config: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = match config.get("text_config") {
        Some(_) => &mut config["text_config"],
        None => &mut config,
    };
    if let Some(pattern) = text.get("layer_types").and_then(Value::as_u64) {
        let layers = text["num_hidden_layers"].as_u64().expect("a number of layers");
        let kind = |layer: u64| match (layer + 1).is_multiple_of(pattern) {
            true => "full_attention",
            false => "sliding_attention",
        };
        text["layer_types"] = (0..layers).map(kind).collect();
    }
    for key in ["short_factor", "long_factor"] {
        let path = format!("/rope_scaling/{key}");
        if let Some(list) = text.pointer_mut(&path) {
            let length = list.as_u64().expect("a length");
            *list = (0..length).map(|pair| 1.0 + pair as f64 / 8.0).collect();
        }
    }
    config
}

fn read(name: &str, config: &Value) -> Architecture {
    Architecture::from_config(&config.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn all() -> impl Iterator<Item = &'static Published> {
    [LLAMAS, MISTRALS, QWENS, GEMMAS, OTHERS].into_iter().flatten()
}

#[test]
fn every_published_configuration_is_read_as_its_family() {
    for published @ (name, family, _) in all() {
        let config = config(published);
        let architecture = read(name, &config);
        assert_eq!(architecture.family(), *family, "{name}");
        let text = config.get("text_config").unwrap_or(&config);
        let layers = text.get("num_hidden_layers").or(text.get("n_layer"));
        let layers = layers.map_or(32, |layers| layers.as_u64().expect("a number") as usize);
        assert_eq!(architecture.layers(), layers, "{name}");
        assert!(!architecture.tensors(Naming::Hub).is_empty(), "{name}");
    }
}

#[test]
fn sizes_that_the_text_part_of_llava_leaves_out_are_those_of_its_class() {
    let llava = all().find(|(name, _, _)| *name == "LLaVA 1.5 7B").expect("the checkpoint");
    let architecture = read("LLaVA", &config(llava));
    let attention = &architecture.layer(0).attention;
    assert_eq!((architecture.hidden_size, architecture.features(0)), (4096, 11_008));
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (32, 32, 128));
    assert_eq!(architecture.vocabulary_size, 32_064);
    // Where it stands alone, nothing is taken for granted.
    let alone = config(llava)["text_config"].to_string();
    assert!(Architecture::from_config(&alone).unwrap_err().to_string().contains("lacks"));
}

#[test]
fn three_quarters_of_a_head_of_phi_4_mini_turn_by_long_rope() {
    let phi = all().find(|(name, _, _)| *name == "Phi 4 Mini").expect("the checkpoint");
    let architecture = read("Phi 4 Mini", &config(phi));
    let rope = architecture.layer(0).attention.rope.as_ref().expect("a rotary embedding");
    assert_eq!(rope.dims, 96);
    assert!(matches!(&rope.scaling, RopeScaling::LongRope { long, .. } if long.len() == 48));
}

#[test]
fn keys_that_repeat_what_a_family_does_are_refused_where_they_contradict_it() {
    for (checkpoint, key, value) in [
        ("StarCoder2 7B", "norm_type", json!("rms_norm")),
        ("StarCoder2 7B", "mlp_type", json!("gated")),
        ("StarCoder2 7B", "scale_attn_weights", json!(false)),
        ("Gemma 2 9B", "sliding_window_size", json!(1024)),
        ("Gemma 3 1B", "attn_logit_softcapping", json!(50.0)),
        ("Phi 4 Mini", "full_attn_mod", json!(2)),
        ("Phi 4 Mini", "interpolate_factor", json!(4)),
    ] {
        let published = all().find(|(name, _, _)| *name == checkpoint).expect("the checkpoint");
        let mut changed = config(published);
        changed[key] = value;
        let error = Architecture::from_config(&changed.to_string()).expect_err(key).to_string();
        assert!(error.contains(key), "{checkpoint}: {error}");
    }
    let gemma = all().find(|(name, _, _)| *name == "Gemma 4 E2B").expect("the checkpoint");
    let mut changed = config(gemma);
    changed["text_config"]["layer_types"] = Value::Null;
    let error = Architecture::from_config(&changed.to_string()).unwrap_err().to_string();
    assert!(error.contains("sliding_window_pattern"), "{error}");
}
