"""Prints the versions of the packages that are compared with, and of Python, on one line."""

import importlib.metadata
import platform

PACKAGES = ("transformers", "torch", "tokenizers", "safetensors", "gguf", "numpy")
versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
print(", ".join([*versions, f"Python {platform.python_version()}"]))
