"""Errors of two quantised GGUF files against one in f32: `quantisation_error.py F32 OURS THEIRS`.

Prints one JSON object for each tensor that is quantised in either: `name`, `types` and `rms` (root
mean square of the error over that of the numbers), ours first.
"""

import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

PLAIN = ("F32", "F16", "BF16")


def tensors(path):
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def numbers(tensor):
    return dequantize(tensor.data, tensor.tensor_type).astype(np.float64).ravel()


exact, *others = (tensors(path) for path in sys.argv[1:4])
for name, tensor in exact.items():
    pair = [other[name] for other in others]
    types = [one.tensor_type.name for one in pair]
    if all(kind in PLAIN for kind in types):
        continue
    expected = numbers(tensor)
    size = np.sqrt(np.mean(expected**2))
    rms = [float(np.sqrt(np.mean((numbers(one) - expected) ** 2)) / size) for one in pair]
    print(json.dumps({"name": name, "types": types, "rms": rms}))
