#!/usr/bin/env python3
"""Writes the seeds of the checkpoint fuzzers: small valid inputs that reach every branch of the parsers.

Usage: make_fuzz_corpus.py tests/fuzz/corpus
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from make_checkpoint_goldens import CONFIGS, LLAMA3, SIZES, rope_freqs


def safetensors(path):
    weights = {"w": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float16), "n": np.ones((), np.int64)}
    save_file(weights, path / "plain", metadata={"format": "pt"})
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]},
                         "w_scale": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [4, 8]}}).encode()
    (path / "f8").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(8)))
    header = json.dumps({"a.weight_packed": {"dtype": "I32", "shape": [1, 4], "data_offsets": [0, 16]},
                         "a.weight_scale": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [16, 18]},
                         "a.weight_shape": {"dtype": "I64", "shape": [2], "data_offsets": [18, 34]},
                         "b.weight": {"dtype": "I8", "shape": [1, 32], "data_offsets": [34, 66]},
                         "b.weight_scale": {"dtype": "F32", "shape": [1], "data_offsets": [66, 70]}}).encode()
    (path / "int").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(18)) +
                               np.array([1, 32], np.int64).tobytes() + bytes(range(36)))


def write_gguf(path, arch, types):
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(1)
    writer.add_context_length(131072)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a", "<|im_end|>"])
    writer.add_token_types([1, 3])
    writer.add_token_scores([0.0, 1.0])
    writer.add_eos_token_id(0)
    if arch == "llama":
        writer.add_tensor("rope_freqs.weight", rope_freqs(16, 500000.0, **LLAMA3))
    else:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32768)
        writer.add_rope_scaling_yarn_beta_fast(16.0)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((32, 1), np.float16))
    for name in types:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor(f"blk.0.{name}.weight", np.full((1, size), 17, np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    path = Path(sys.argv[1])
    for name in ("safetensors", "gguf", "config_json"):
        (path / name).mkdir(parents=True, exist_ok=True)
    safetensors(path / "safetensors")
    write_gguf(path / "gguf" / "llama", "llama", ["Q8_0", "Q4_0", "Q4_1", "Q5_0"])
    write_gguf(path / "gguf" / "qwen3", "qwen3", ["Q5_1", "Q4_K", "Q5_K", "Q6_K", "BF16"])
    for name, config in CONFIGS.items():
        seed = path / "config_json" / name.replace(", ", "-").replace(" ", "_")
        seed.write_text(json.dumps({**SIZES, **config}))
    swiftkv = {**SIZES, "model_type": "llama_swiftkv", "architectures": ["LlamaSwiftKVForCausalLM"],
               "num_key_value_layers": 2, "key_value_group_size": 2, "eos_token_id": [1, 2],
               "quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}
    (path / "config_json" / "swiftkv").write_text(json.dumps(swiftkv))
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "c"}}
    (path / "config_json" / "index").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
