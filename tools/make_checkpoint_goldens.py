#!/usr/bin/env python3
"""Writes tests/golden/checkpoint: what Hugging Face's and ggml's own Python packages make of stored tensors and configs.

Usage: make_checkpoint_goldens.py tests/golden/checkpoint

  blocks.safetensors  random bytes of every stored type and gguf.quants' (or PyTorch's) float32 values of them
  tiny.gguf           a Llama of one layer written by gguf.GGUFWriter: every metadata type, permuted q/k, rope_freqs
  tiny.safetensors    the same weights under Hugging Face's names, in float32, q/k in Hugging Face's order
  configs.json        config.json files in both spellings, each with what transformers resolves them to
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "gguf": "0.19.0"}
RNG = np.random.default_rng(20241003)


# Offsets of the float16 scales in a block.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def random_blocks(name, rows, blocks):
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    data = RNG.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for offset in SCALES[name]:
        data[..., offset : offset + 2] = RNG.normal(0, 0.05, (rows, blocks, 1)).astype(np.float16).view(np.uint8)
    return data.reshape(rows, blocks * size)


def blocks():
    tensors = {}
    for name in SCALES:
        data = random_blocks(name, 3, 2)
        tensors[name] = data
        tensors[name + ".values"] = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).astype(np.float32)
    f8 = torch.arange(256, dtype=torch.uint8)
    tensors["F8_E4M3"] = f8.numpy()
    tensors["F8_E4M3.values"] = f8.view(torch.float8_e4m3fn).float().numpy()
    # Subnormal and largest halves, zeros, infinity, NaN, and a random sample.
    half = np.concatenate([np.arange(0, 64), np.arange(1020, 1030), [0x7BFF, 0x7C00, 0x7E01, 0x8000, 0x8001, 0xFC00],
                           RNG.integers(0, 65536, 432)]).astype(np.uint16)
    tensors["F16"] = half.view(np.uint8)
    tensors["F16.values"] = torch.from_numpy(half.view(np.float16)).float().numpy()
    brain = RNG.integers(0, 65536, 64).astype(np.uint16)
    tensors["BF16"] = brain.view(np.uint8)
    tensors["BF16.values"] = torch.from_numpy(brain.view(np.int16)).view(torch.bfloat16).float().numpy()
    return tensors


LLAMA3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
HEADS, KV_HEADS, HEAD_DIM, HIDDEN, FF, VOCAB = 4, 2, 16, 32, 64, 6


def permute(w, heads):
    """llama.cpp's order of q/k rows, checked against transformers' own inverse of it."""
    stored = w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
    assert (LlamaTensorProcessor._reverse_permute_weights(None, stored, heads) == w).all()
    return np.ascontiguousarray(stored)


def rope_freqs(head_dim, rope_theta, **llama3):
    """The factors that a llama3 GGUF stores, from transformers' frequencies."""
    config = transformers.LlamaConfig(head_dim=head_dim, rope_theta=rope_theta, max_position_embeddings=131072,
                                      rope_scaling={"rope_type": "llama3", **llama3})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config)
    plain = 1.0 / rope_theta ** (np.arange(0, head_dim, 2) / head_dim)
    return (plain / scaled.double().numpy()).astype(np.float32)


def tiny(path):
    def weight(*shape):
        return RNG.normal(0, 0.1, shape).astype(np.float32)

    hf = {
        "model.embed_tokens.weight": weight(VOCAB, HIDDEN),
        "model.norm.weight": weight(HIDDEN),
        "model.layers.0.input_layernorm.weight": weight(HIDDEN),
        "model.layers.0.post_attention_layernorm.weight": weight(HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": weight(HEADS * HEAD_DIM, HIDDEN),
        "model.layers.0.self_attn.q_proj.bias": weight(HEADS * HEAD_DIM),
        "model.layers.0.self_attn.k_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
        "model.layers.0.self_attn.v_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
        "model.layers.0.self_attn.o_proj.weight": weight(HIDDEN, HEADS * HEAD_DIM),
        "model.layers.0.mlp.gate_proj.weight": weight(FF, HIDDEN),
        "model.layers.0.mlp.up_proj.weight": weight(FF, HIDDEN),
        "model.layers.0.mlp.down_proj.weight": weight(HIDDEN, FF),
    }
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    quantised = {"mlp.gate_proj": "Q8_0", "mlp.up_proj": "Q4_0", "mlp.down_proj": "Q5_1", "self_attn.q_proj": "Q8_0"}

    writer = gguf.GGUFWriter(path / "tiny.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(131072)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "c", "Ġ", "<s>", "</s>"])
    writer.add_token_types([1, 1, 1, 1, 3, 3])
    writer.add_token_scores([0.0, -1.5, -2.0, -3.0, 0.0, 0.0])
    writer.add_token_merges(["a b", "b c"])
    writer.add_bos_token_id(4)
    writer.add_eos_token_id(5)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }}")
    writer.add_uint8("test.uint8", 200)
    writer.add_int8("test.int8", -100)
    writer.add_uint16("test.uint16", 60000)
    writer.add_int16("test.int16", -30000)
    writer.add_int32("test.int32", -2000000000)
    writer.add_uint64("test.uint64", 2**63 + 1)
    writer.add_int64("test.int64", -(2**62))
    writer.add_float64("test.float64", 0.1)
    for name, value in hf.items():
        if name.startswith("model.layers"):
            layer_name, suffix = name.removeprefix("model.layers.0.").rsplit(".", 1)
            stored = permute(value, HEADS if "q_proj" in name else KV_HEADS) if ".q_" in name or ".k_" in name else value
            stored_name = f"blk.0.{names[layer_name]}.{suffix}"
        else:
            layer_name, stored = "", value
            stored_name = "token_embd.weight" if "embed" in name else "output_norm.weight"
        kind = quantised.get(layer_name) if value.ndim == 2 else None
        if kind is None:
            writer.add_tensor(stored_name, stored)
            continue
        raw_type = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(stored, raw_type)
        writer.add_tensor(stored_name, data, raw_dtype=raw_type)
        values = gguf.quants.dequantize(data, raw_type).astype(np.float32)
        if "q_proj" in name:
            values = LlamaTensorProcessor._reverse_permute_weights(None, values, HEADS)
        hf[name] = np.ascontiguousarray(values)
    writer.add_tensor("rope_freqs.weight", rope_freqs(HEAD_DIM, 500000.0, **{**LLAMA3, "factor": 32.0}))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(hf, path / "tiny.safetensors", metadata={"format": "pt"})


SIZES = {"vocab_size": 1000, "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6,
         "num_attention_heads": 32}
CONFIGS = {
    "llama, defaults": {"model_type": "llama"},
    "llama, transformers 4": {"model_type": "llama", "num_key_value_heads": 8, "rope_theta": 500000.0,
                              "rope_scaling": {"rope_type": "llama3", **LLAMA3}, "max_position_embeddings": 131072,
                              "attention_bias": True, "mlp_bias": True, "eos_token_id": [1, 2], "bos_token_id": None,
                              "torch_dtype": "float16", "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
    "llama, transformers 5": {"model_type": "llama", "num_key_value_heads": None, "head_dim": 64, "dtype": "bfloat16",
                              "rope_parameters": {"rope_type": "llama3", "rope_theta": 300000.0, **LLAMA3}},
    "llama, linear, old spelling": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, llama3 without original length": {
        "model_type": "llama", "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
    "mistral, defaults": {"model_type": "mistral"},
    "mistral, no window": {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4, "head_dim": 32},
    "mistral, window": {"model_type": "mistral", "sliding_window": 128, "rope_theta": 1000000.0},
    "qwen2, defaults": {"model_type": "qwen2"},
    "qwen2, window from layer 4": {"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": True,
                                   "sliding_window": 64, "max_window_layers": 4, "rope_theta": 1000000.0,
                                   "tie_word_embeddings": True},
    "qwen2, window not used": {"model_type": "qwen2", "sliding_window": 64, "max_window_layers": 4},
    "qwen2, yarn": {"model_type": "qwen2",
                    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}},
    "qwen3, defaults": {"model_type": "qwen3"},
    "qwen3, layer_types": {"model_type": "qwen3", "num_key_value_heads": 4, "attention_bias": True,
                           "use_sliding_window": True, "sliding_window": 32,
                           "layer_types": ["full_attention", "sliding_attention"] * 3},
    "qwen3, yarn": {"model_type": "qwen3", "max_position_embeddings": 40960, "head_dim": 64,
                    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "yarn", "factor": 4.0, "beta_fast": 16,
                                        "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.1, "truncate": False,
                                        "attention_factor": 1.25}},
}


# (head_dim, rope_theta, parameters): Llama 3.1, Llama 3.2, a small head, other parameters.
ROPE_FREQS = [
    (128, 500000.0, LLAMA3),
    (64, 500000.0, {**LLAMA3, "factor": 32.0}),
    (16, 500000.0, LLAMA3),
    (64, 10000.0, {"factor": 4.0, "high_freq_factor": 3.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 1000}),
]


def resolved(raw):
    config = CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw))
    heads = config.num_attention_heads
    if hasattr(config, "layer_types") and config.layer_types is not None:
        windows = [config.sliding_window if t == "sliding_attention" else 0 for t in config.layer_types]
    else:
        windows = [getattr(config, "sliding_window", None) or 0] * config.num_hidden_layers
    eos = config.eos_token_id
    return {
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "sliding_window": windows,
        "rope_parameters": config.rope_parameters,
        "dtype": str(config.dtype or torch.float32).removeprefix("torch."),
        "bos_token_id": config.bos_token_id,
        "eos_token_id": [] if eos is None else eos if isinstance(eos, list) else [eos],
    }


def configs():
    cases = [{"name": name, "config": {**SIZES, **raw}, "resolved": resolved({**SIZES, **raw})}
             for name, raw in CONFIGS.items()]
    rope = [{"rope_theta": theta, **llama3, "factors": rope_freqs(head_dim, theta, **llama3).tolist()}
            for head_dim, theta, llama3 in ROPE_FREQS]
    return json.dumps({"made_with": VERSIONS, "cases": cases, "rope_freqs": rope}, indent=1) + "\n"


def main():
    path = Path(sys.argv[1])
    save_file(blocks(), path / "blocks.safetensors", metadata=VERSIONS)
    tiny(path)
    (path / "configs.json").write_text(configs())


if __name__ == "__main__":
    main()
