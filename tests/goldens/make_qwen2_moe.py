#!/usr/bin/env python3
"""Make the qwen2_moe golden: the one family of experts that has a gated shared expert.

    python make_qwen2_moe.py [--out DIR]

Uses make_goldens.py beside it, in whose form the folder comes out (see README.md).
"""
import make_goldens as goldens

SPEC = dict(
    name="qwen2_moe", tok="qwen", dtype="bf16", seed=2401,
    note="7 experts top-3, softmax weights not renormalised, shared expert behind a sigmoid gate, layer 1 dense (mlp_only_layers), sizes that are no multiple of 8",
    config=goldens.dense(
        "qwen2_moe", "Qwen2MoeForCausalLM", num_hidden_layers=3, intermediate_size=44, moe_intermediate_size=20,
        shared_expert_intermediate_size=36, num_experts=7, num_experts_per_tok=3, norm_topk_prob=False,
        decoder_sparse_step=1, mlp_only_layers=[1], rope_theta=1e6, rms_norm_eps=1e-6, attention_bias=...,
        sliding_window=32, use_sliding_window=False, max_window_layers=3, output_router_logits=False,
        router_aux_loss_coef=0.001))

if __name__ == "__main__":
    goldens.main([SPEC], goldens.HERE)
