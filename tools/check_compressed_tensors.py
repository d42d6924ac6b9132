#!/usr/bin/env python3
"""Checks a folder that `swiftkv convert --quantization` wrote against the package compressed-tensors: its quantization_config
is one for the package, and the package decompresses each weight to what swiftkv reads.

Usage: check_compressed_tensors.py QUANTIZED PLAIN    (pip install compressed-tensors torch safetensors)

QUANTIZED is the folder; PLAIN what swiftkv reads of it, written again without quantization:

  swiftkv convert smollm2-135m --format checkpoint --quantization int4 -o QUANTIZED --init reference    (or int8, fp8)
  swiftkv convert QUANTIZED -o PLAIN --init reference

so its tensors are compared but for SwiftKV's own, which the second conversion makes anew.
"""

import json
import sys
from pathlib import Path

import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file


def load(folder):
    tensors = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors.update(load_file(path))
    return tensors


def modules(tensors):
    """The state of each module that has scales, by its name."""
    names = [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]
    return {name: {part.removeprefix(name + "."): value for part, value in tensors.items()
                   if part.startswith(name + ".weight")} for name in names}


def main():
    quantized, plain = load(sys.argv[1]), load(sys.argv[2])
    config = QuantizationConfig(**json.loads((Path(sys.argv[1]) / "config.json").read_text())["quantization_config"])
    [scheme] = config.config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(config.format)
    weights = modules(quantized)
    linear = {name.removesuffix(".weight") for name, value in plain.items()
              if value.dim() == 2 and "embed_tokens" not in name and "lm_head" not in name}
    assert set(weights) == linear, set(weights) ^ linear
    compared = 0
    for name, state in weights.items():
        assert set(state) <= set(compressor.compression_param_names(scheme)), state.keys()
        values = compressor.decompress(state, scheme)["weight"]
        if "_swiftkv" in name:
            continue
        assert torch.equal(values, plain[name + ".weight"]), name
        compared += 1
    print(f"{config.format}: {len(weights)} weights, all decompressed; {compared} compared, all equal")


if __name__ == "__main__":
    main()
