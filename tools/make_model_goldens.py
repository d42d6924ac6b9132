#!/usr/bin/env python3
"""Makes tests/golden/model: tiny random models of every family and option, and transformers' FP32 logits for them.

    python tools/make_model_goldens.py --swiftkv-torch PATH/swiftkv_torch.py [--out tests/golden/model]

SwiftKV cases come from swiftkv_torch.py, an independent PyTorch reference of the method. Written with torch 2.15.0,
transformers 5.23.0, safetensors 0.8.0.

  cases.json               name, weights, adapter and config.json of each case
  <weights>.safetensors    base weights, and the student's tensors (an adapter) as <case>.safetensors; BF16
  logits.safetensors       token_ids; <case>.logits, and for SwiftKV <case>.teacher and <case>.student; F32
"""
import argparse
import copy
import importlib.util
import json
import os

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB, HIDDEN, INTERMEDIATE, TOKENS = 97, 32, 40, 32

SHAPES = {  # weights file: config fields that fix the tensors
    "llama": dict(model_type="llama", num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2),
    "llama_bias": dict(model_type="llama", num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=24,
                       attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "llama_mha": dict(model_type="llama", num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
                      tie_word_embeddings=True),
    "qwen2": dict(model_type="qwen2", num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2),
    "qwen3": dict(model_type="qwen3", num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                  tie_word_embeddings=True),
}


def rope(kind, **fields):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=fields.pop("rope_theta", 1000.0), **fields))


CASES = [  # name, weights, further config fields
    ("llama", "llama", {}),
    ("llama_bias", "llama_bias", {}),
    ("llama_mha", "llama_mha", {}),
    ("linear", "llama", rope("linear", factor=4.0)),
    ("llama3", "llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=64)),
    ("yarn", "llama", rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    ("yarn_attention_factor", "llama", rope("yarn", factor=4.0, original_max_position_embeddings=64, attention_factor=0.8)),
    ("yarn_mscale", "llama_bias", rope("yarn", factor=8.0, original_max_position_embeddings=32, mscale=0.7,
                                       mscale_all_dim=1.3, beta_fast=16.0, beta_slow=2.0, truncate=False)),
    ("mistral", "llama", dict(model_type="mistral", sliding_window=None)),
    ("mistral_window", "llama", dict(model_type="mistral", sliding_window=7)),
    ("qwen2", "qwen2", {}),
    ("qwen2_window", "qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    ("qwen3", "qwen3", rope("default", rope_theta=1000000.0)),
]
SWIFTKV_CASES = [  # base case, n, g
    ("llama", 2, 1),
    ("llama", 2, 2),
    ("llama", 3, 3),
    ("llama_bias", 2, 2),
    ("qwen2", 1, 2),
    ("qwen3", 2, 3),
]


def config_of(weights, fields):
    d = dict(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, max_position_embeddings=256,
             rms_norm_eps=1e-5, tie_word_embeddings=False) | SHAPES[weights] | rope("default") | copy.deepcopy(fields)
    return AutoConfig.for_model(**d)


def json_of(config, swiftkv, legacy):
    """config.json as transformers 5 writes it, or in the spelling of transformers 4."""
    d = {k: v for k, v in json.loads(config.to_json_string(use_diff=False)).items() if v is not None or k == "sliding_window"}
    d["architectures"] = [{"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[config.model_type] +
                          ("SwiftKV" if swiftkv else "") + "ForCausalLM"]
    d["dtype"] = "bfloat16"
    if swiftkv:
        d |= swiftkv | {"model_type": config.model_type + "_swiftkv", "swiftkv": True}
    if legacy:
        d["torch_dtype"] = d.pop("dtype")
        scaling = d.pop("rope_parameters")
        d["rope_theta"] = scaling.pop("rope_theta")
        d["rope_scaling"] = scaling if scaling["rope_type"] != "default" else None
    keep = ("architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
            "num_key_value_heads head_dim max_position_embeddings rms_norm_eps tie_word_embeddings attention_bias mlp_bias "
            "hidden_act rope_parameters rope_theta rope_scaling dtype torch_dtype sliding_window use_sliding_window "
            "max_window_layers layer_types swiftkv num_key_value_layers key_value_group_size").split()
    return {k: d[k] for k in keep if k in d}


def random_like(name, t, generator):
    """Values with which every tensor matters to the logits."""
    r = torch.randn(t.shape, generator=generator)
    if "norm" in name:
        r = 1 + 0.3 * r
    elif name.endswith("bias"):
        r = 0.3 * r
    elif "embed" not in name:
        r = 1.3 * r / t.shape[-1] ** 0.5
    return r.to(torch.bfloat16)


def model_of(config, tensors):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    assert not unexpected and all(m == "lm_head.weight" for m in missing), (missing, unexpected)
    model.tie_weights()
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swiftkv-torch", required=True)
    parser.add_argument("--out", default="tests/golden/model")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("swiftkv_torch", args.swiftkv_torch)
    swiftkv_torch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(swiftkv_torch)
    os.makedirs(args.out, exist_ok=True)
    generator = torch.Generator().manual_seed(1)

    bases = {}
    for weights in SHAPES:
        state = AutoModelForCausalLM.from_config(config_of(weights, {})).state_dict()
        tied = SHAPES[weights].get("tie_word_embeddings", False)
        bases[weights] = {k: random_like(k, v, generator) for k, v in state.items() if not (tied and k == "lm_head.weight")}
        save_file(bases[weights], f"{args.out}/{weights}.safetensors", metadata={"format": "pt"})

    ids = torch.randint(0, VOCAB, (1, TOKENS), generator=generator)
    outputs, cases, fields_of = {"token_ids": ids[0].to(torch.int32)}, [], {}
    with torch.no_grad():
        for index, (name, weights, fields) in enumerate(CASES):
            config = config_of(weights, fields)
            outputs[name + ".logits"] = model_of(config, bases[weights])(ids).logits[0].float()
            cases.append(dict(name=name, weights=weights, adapter="", config=json_of(config, None, legacy=index % 2 == 1)))
            fields_of[name] = (weights, fields)
        for base, n, g in SWIFTKV_CASES:
            name, (weights, fields) = f"swiftkv_{base}_n{n}_g{g}", fields_of[base]
            config = config_of(weights, fields)
            student = swiftkv_torch.SwiftKV(model_of(config, bases[weights]), n, g)
            tensors = {}
            for key, value in student.tensors().items():
                noise = random_like(key, value, generator).float() - (1.0 if "norm" in key else 0.0)
                tensors[key] = (value + 0.5 * noise).to(torch.bfloat16)
                value.copy_(tensors[key].float())
            save_file(tensors, f"{args.out}/{name}.safetensors", metadata={"format": "pt"})
            for mode in ("teacher", "student"):
                outputs[f"{name}.{mode}"] = student.logits(ids, mode == "student")[0]
            assert torch.allclose(outputs[f"{name}.teacher"], outputs[f"{base}.logits"], atol=1e-4)
            fields = dict(num_key_value_layers=n, key_value_group_size=g)
            cases.append(dict(name=name, weights=weights, adapter=name, config=json_of(config, fields, legacy=n % 2 == 1)))
    save_file({k: v.contiguous() for k, v in outputs.items()}, f"{args.out}/logits.safetensors")
    with open(f"{args.out}/cases.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
