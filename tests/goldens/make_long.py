#!/usr/bin/env python3
"""Make long.json beside each golden: a prompt that crosses every tile and window, and other options.

    python make_long.py [--only name,name] [DIR]

The weights are those of the folder; what differs is the prompt (300 tokens, the decoder's blocks
are of 256) and the configuration. long.json holds

- `config`: changes to config.json for every run below (a context that holds the prompt; a key may
  be a path with dots);
- `input_ids`, `last_logits`, and `argmax_all_positions` (null where the two best are within 0.002);
- `stability`: the largest change of a last logit when every weight is disturbed by a relative
  1e-5, twice: what rounding may do to a choice of experts;
- `options`: for each changed option its `config` changes (on top of those above), the logits of the
  last position after the first `tokens` tokens, every fourth one (`logits`, `step` 4), and its
  `stability`. A change that the reference refuses or that changes nothing is an error.

Everything is computed in float32 by eager attention, as in make_goldens.py.
"""
import copy, json, os, random, sys, tempfile
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors.torch import load_file, save_file
import make_goldens as goldens

TOKENS = 300
CONTEXT = {"max_position_embeddings": 512}
ROPE_YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=2.0, original_max_position_embeddings=48)

# Per folder: the changes for all runs, and the options to try one at a time.
PLANS = {
    "gpt2": (None, [{"activation_function": "gelu"}, {"activation_function": "relu"}, {"layer_norm_epsilon": 1e-2},
                    {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]),
    "llama2": (CONTEXT, [{"rope_theta": 500.0}, {"rms_norm_eps": 1e-2}, {"hidden_act": "gelu"},
                         {"rope_scaling": {"type": "linear", "factor": 3.0}}, {"rope_scaling": ROPE_YARN},
                         {"rope_scaling": dict(ROPE_YARN, attention_factor=1.3, beta_fast=8.0, beta_slow=2.0)}]),
    "llama3": (CONTEXT, [{"rope_scaling": None}, {"rope_scaling": LLAMA3}, {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}]),
    "mistral": (CONTEXT, [{"sliding_window": 15}, {"sliding_window": None}, {"sliding_window": 257}]),
    "mixtral": (CONTEXT, [{"num_experts_per_tok": 3}, {"num_experts_per_tok": 1}, {"num_experts_per_tok": 8}, {"sliding_window": 20},
                          {"hidden_act": "gelu_pytorch_tanh"}]),
    "qwen2": (CONTEXT, [{"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 9}, {"rope_theta": 100.0}, {"rope_scaling": ROPE_YARN}]),
    "qwen3": (CONTEXT, [{"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 9}, {"rms_norm_eps": 1e-2}]),
    "qwen3_moe": (CONTEXT, [{"norm_topk_prob": False}, {"num_experts_per_tok": 5}, {"num_experts_per_tok": 8, "norm_topk_prob": False},
                            {"use_sliding_window": True, "sliding_window": 20}, {"rope_scaling": ROPE_YARN}]),
    "qwen2_moe": (CONTEXT, [{"norm_topk_prob": True}, {"num_experts_per_tok": 1}, {"num_experts_per_tok": 7},
                            {"use_sliding_window": True, "sliding_window": 20},
                            {"use_sliding_window": True, "sliding_window": 20, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}]),
    "gemma2": (CONTEXT, [{"attn_logit_softcapping": None}, {"final_logit_softcapping": None}, {"query_pre_attn_scalar": 64}, {"sliding_window": 17},
                         {"layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]}]),
    "gemma3": (CONTEXT, [{"rope_local_base_freq": 1e6}, {"sliding_window_pattern": 3}, {"sliding_window": 15}, {"rope_theta": 10000.0},
                         {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, {"query_pre_attn_scalar": 64}, {"final_logit_softcapping": 2.0}]),
    "gemma4_e2b": ({"text_config.max_position_embeddings": 512},
                   [{"text_config.sliding_window": 17}, {"text_config.final_logit_softcapping": 2.0},
                    {"text_config.rope_parameters.full_attention.partial_rotary_factor": 0.5},
                    {"text_config.rope_parameters.full_attention.rope_theta": 1000.0}]),
    "gemma4_moe": (CONTEXT, [{"sliding_window": 17}, {"final_logit_softcapping": None}, {"top_k_experts": 3}, {"top_k_experts": 8}, {"top_k_experts": 1},
                             {"hidden_activation": "silu"}]),
    "phi2": (CONTEXT, [{"partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.25}, {"hidden_act": "gelu"}, {"layer_norm_eps": 1e-2}]),
    "phi3": (CONTEXT, [{"sliding_window": 15}, {"sliding_window": None}, {"partial_rotary_factor": 0.5},
                       {"original_max_position_embeddings": 128, "rope_scaling": {
                           "type": "longrope", "short_factor": [1.0 + i / 16 for i in range(8)], "long_factor": [1.5 + i / 4 for i in range(8)]}},
                       {"original_max_position_embeddings": 400, "rope_scaling": {
                           "type": "longrope", "short_factor": [1.0 + i / 16 for i in range(8)], "long_factor": [1.5 + i / 4 for i in range(8)]}}]),
    "deepseek_v2": (CONTEXT, [{"rope_scaling": None}, {"routed_scaling_factor": 1.0}, {"topk_method": "greedy"}, {"topk_group": 1, "num_experts_per_tok": 2},
                              {"topk_group": 4}, {"n_group": 2, "topk_group": 1}, {"num_experts_per_tok": 4},
                              {"rope_scaling.mscale_all_dim": 1.2, "rope_scaling.mscale": 0.5}, {"rope_scaling.beta_fast": 4, "rope_scaling.factor": 10.0}]),
    "deepseek_v3": (CONTEXT, [{"norm_topk_prob": False}, {"topk_group": 4}, {"n_group": 1, "topk_group": 1}, {"rope_scaling": None}, {"rope_interleave": False},
                              {"routed_scaling_factor": 1.0}, {"num_experts_per_tok": 1}, {"num_experts_per_tok": 4}, {"n_group": 2, "topk_group": 1},
                              {"rope_scaling.mscale": 2.0}, {"rope_scaling.mscale": None, "rope_scaling.mscale_all_dim": None}]),
    "deepseek_v3_fp8": (CONTEXT, []),
    "gpt_oss": (CONTEXT, [{"sliding_window": 17}, {"swiglu_limit": 1e9}, {"swiglu_limit": 0.5}, {"swiglu_alpha": 1.0}, {"rope_scaling": {"rope_type": "default"}},
                          {"rope_scaling.truncate": True}, {"num_experts_per_tok": 4}, {"num_experts_per_tok": 1},
                          {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}]),
    "gpt_oss_mxfp4": (CONTEXT, [{"num_experts_per_tok": 3}]),
    "granite": (CONTEXT, [{"residual_multiplier": 1.0}, {"logits_scaling": 1.0}, {"embedding_multiplier": 1.0}, {"attention_multiplier": 0.5}]),
    "olmo2": (CONTEXT, [{"rope_theta": 100.0}, {"rms_norm_eps": 1e-2}, {"rope_scaling": ROPE_YARN}]),
    "starcoder2": (CONTEXT, [{"sliding_window": None}, {"hidden_act": "gelu"}, {"norm_epsilon": 1e-2}]),
}


def changed(config, changes):
    """A copy with changes; a path with dots leads into nested objects."""
    config = copy.deepcopy(config)
    for path, value in (changes or {}).items():
        *parents, leaf = path.split(".")
        level = config
        for parent in parents:
            level = level[parent]
        level[leaf] = value
    return config


def unpacked(tensors):
    """Quantised tensors as the numbers they stand for, under the names of the unquantised model."""
    plain = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv") or name.endswith("_scales"):
            continue
        if name.endswith("_blocks"):
            scales = tensors[name[:-len("_blocks")] + "_scales"]
            values = goldens.mxfp4_unpack(tensor.numpy(), scales.numpy())
            plain[name[:-len("_blocks")]] = torch.from_numpy(values).transpose(1, 2).contiguous()
        elif name + "_scale_inv" in tensors:
            scales = tensors[name + "_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
            plain[name] = tensor.float() * scales[:tensor.shape[0], :tensor.shape[1]]
        else:
            plain[name] = tensor
    return plain


class Folder:
    """The weights of a golden folder, loadable under a changed configuration."""

    def __init__(self, folder):
        self.config = json.load(open(os.path.join(folder, "config.json")))
        files = sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))
        tensors = {}
        for file in files:
            tensors.update(load_file(os.path.join(folder, file)))
        if self.config.pop("quantization_config", None):
            tensors = unpacked(tensors)
        self.tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}

    def model(self, changes):
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            json.dump(changed(self.config, changes), open(os.path.join(folder, "config.json"), "w"))
            save_file(self.tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
            return goldens.load_model(folder)


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


@torch.no_grad()
def stability(model, ids, last):
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    worst = 0.0
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            p.copy_(kept[name] * (1 + 1e-5 * torch.randn(p.shape, generator=generator)))
        worst = max(worst, float((logits(model, ids)[-1] - last).abs().max()))
    for name, p in model.named_parameters():
        p.copy_(kept[name])
    return worst


def make(name, root):
    folder = Folder(os.path.join(root, name))
    base, options = PLANS[name]
    model = folder.model(base)
    vocabulary = model.config.get_text_config().vocab_size
    tokens = TOKENS if base else folder.config["n_positions"]
    for seed in range(50):
        draw = random.Random(f"{name} {seed}")
        ids = [draw.randrange(vocabulary) for _ in range(tokens)]
        found = logits(model, ids)
        steady = stability(model, ids, found[-1])
        if steady < 2e-3:
            break
    best = torch.topk(found, 2, -1)
    sure = (best.values[:, 0] - best.values[:, 1] > 2e-3).tolist()
    result = {
        "versions": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
        "seed": seed, "config": base or {}, "input_ids": ids, "stability": goldens.r7(steady),
        "last_logits": [goldens.r7(x) for x in found[-1]],
        "argmax_all_positions": [i if s else None for i, s in zip(best.indices[:, 0].tolist(), sure)],
        "options": [],
    }
    for option in options:
        other = folder.model({**(base or {}), **option})
        # Where a choice of experts is a near-tie at one length, it is none at another.
        for length in range(tokens, tokens - 40, -1):
            last = logits(other, ids[:length])[-1]
            steady = stability(other, ids[:length], last)
            if steady < 2e-3:
                break
        difference = float((last - found[length - 1]).abs().max())
        print(f"  {name} {json.dumps(option)}: tokens {length}, changes {difference:.4f}, stability {steady:.1e}", flush=True)
        if difference < max(4e-4, 0.4 * steady):
            raise SystemExit(f"{name}: {option} changes next to nothing ({difference:.1e})")
        result["options"].append({"config": option, "tokens": length, "stability": goldens.r7(steady), "step": 4,
                                  "logits": [goldens.r7(x) for x in last[::4]]})
    with open(os.path.join(root, name, "long.json"), "w") as file:
        json.dump(result, file, separators=(",", ":"))
        file.write("\n")
    print(name, "seed", result["seed"], "stability", result["stability"], "sure", sum(sure), "of", tokens, flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    only = None
    if "--only" in arguments:
        at = arguments.index("--only")
        only = arguments[at + 1].split(",")
        del arguments[at:at + 2]
    root = arguments[0] if arguments else goldens.HERE
    failed = []
    for name in only or [name for name in PLANS if os.path.isdir(os.path.join(root, name))]:
        try:
            make(name, root)
        except (Exception, SystemExit) as error:
            failed.append(name)
            print(name, "FAILED:", repr(error)[:500], flush=True)
    print("failed:", failed)
