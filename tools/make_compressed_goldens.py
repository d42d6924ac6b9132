#!/usr/bin/env python3
"""Writes tests/golden/checkpoint/compressed.safetensors: weights that the package compressed-tensors quantized, and their
values as it decompresses them.

Usage: make_compressed_goldens.py tests/golden/checkpoint    (pip install compressed-tensors torch safetensors)
"""

import sys

import compressed_tensors
import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

ROWS, COLUMNS = 6, 128


def compress(name, compression, weights, weight, tensors):
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    groups = weight.reshape(ROWS, -1, weights.group_size or COLUMNS)
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), weights)
    compressor = BaseCompressor.get_value_from_registry(compression)
    compressed = compressor.compress({"weight": weight, "weight_scale": scale.to(torch.bfloat16)}, scheme)
    for part, value in compressed.items():
        tensors[f"{name}.{part}"] = value.contiguous()
    # With scales in float32, products are exact; in bfloat16 they would be rounded.
    exact = {**compressed, "weight_scale": compressed["weight_scale"].float()}
    tensors[f"{name}.weight.values"] = compressor.decompress(exact, scheme)["weight"]


def main():
    torch.manual_seed(7)
    weight = (0.1 * torch.randn(ROWS, COLUMNS)).to(torch.bfloat16)
    tensors = {}
    compress("int8", "int-quantized", QuantizationArgs(num_bits=8, strategy="channel"), weight, tensors)
    compress("int4", "pack-quantized", QuantizationArgs(num_bits=4, strategy="group", group_size=32), weight, tensors)
    compress("int4_group_64", "pack-quantized", QuantizationArgs(num_bits=4, strategy="group", group_size=64), weight,
             tensors)
    save_file(tensors, f"{sys.argv[1]}/compressed.safetensors",
              metadata={"torch": torch.__version__, "compressed-tensors": compressed_tensors.__version__})
    for name, value in sorted(tensors.items()):
        print(name, value.dtype, list(value.shape))


if __name__ == "__main__":
    main()
