"""Compares exported safetensors with their source, and runs them with transformers.

One JSON object a line comes in: `export` and `source` (directories), `prompts` (lists of token
ids), `packed` (whether the weights are MXFP4, which transformers has to be told to unpack), `load`
(whether transformers reads the format at all). One goes out: `tensors` (how many), `different`
(what is not the same, in words) and `logits` (of the last position of each prompt), or `failed`.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from transformers import AutoModelForCausalLM

transformers.utils.logging.disable_progress_bar()


def tensors(directory):
    """Name -> (type, shape, bytes) of all safetensors files, read without any library."""
    found = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8:start]).items():
            if name != "__metadata__":
                first, end = tensor["data_offsets"]
                content = data[start + first : start + end]
                found[name] = (tensor["dtype"], tensor["shape"], content)
    return found


def differences(export, source):
    """Which tensors are missing, too many, or differ, in words."""
    words = [f"{name} is missing" for name in source.keys() - export.keys()]
    words += [f"{name} is new" for name in export.keys() - source.keys()]
    for name in source.keys() & export.keys():
        if export[name] != source[name]:
            (kind, shape, _), (old_kind, old_shape, _) = export[name], source[name]
            words.append(f"{name}: {kind} {shape} for {old_kind} {old_shape}, or other bytes")
    return sorted(words)


def logits(directory, prompts, packed):
    """Logits of each prompt's last position, in f32 and with the plainest attention."""
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    if packed:
        options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(directory, **options).eval()
    with torch.no_grad():
        runs = [model(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in prompts]
    return [run.float().tolist() for run in runs]


for line in sys.stdin:
    request = json.loads(line)
    export, source = tensors(request["export"]), tensors(request["source"])
    answer = {"tensors": len(source), "different": differences(export, source)}
    if request["load"]:
        try:
            answer["logits"] = logits(request["export"], request["prompts"], request["packed"])
        except Exception as error:  # whatever it is, it is what the page has to say
            answer["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps(answer), flush=True)
