"""Export: a model directory as one that transformers loads, without any code of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ptx.atomic import atomic_directory
from ptx.checkpoint import (
    WEIGHTS,
    find_model,
    load_model,
    named_weights,
    require_replaceable,
    write_tensors,
)
from ptx.config import ModelConfig
from ptx.errors import UserError
from ptx.hub.bpe import TOKENIZER_JSON, tokenizer_json
from ptx.hub.weights import Weights, to_gpt2, to_llama, without_head_bias
from ptx.model import GPT
from ptx.sampling import USUAL
from ptx.tokenizer import END_OF_TEXT, Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# What a class of transformers takes for granted.
GPT2 = {"norm": "layer", "position": "learned", "mlp": ("relu", "gelu"), "qk_norm": False}
LLAMA = {"norm": "rms", "position": "rotary", "mlp": "swiglu", "head_bias": False}
QWEN3 = {**LLAMA, "qkv_bias": False, "bias": False}


def export(directory: str | Path, out: Path, dtype: str = "float32") -> str:
    """Writes the model in `directory` (anything `load_model` understands) as a transformers
    directory; returns the name of the class that loads it.

    dtype: of the stored weights. transformers computes in what is stored: float32 gives our logits
        within 1e-4, the others are half as large and round.
    Raises UserError for a shape that no class of transformers has, naming the switch.
    """
    source = find_model(directory)
    model, tokenizer, info = load_model(source)
    config, weights = as_transformers(model)
    config |= _shared(model.config, tokenizer) | {"torch_dtype": dtype}
    contents = {
        "config.json": config,
        "generation_config.json": _generation(model.config, tokenizer),
        TOKENIZER_JSON: tokenizer_json(tokenizer),
        "tokenizer_config.json": _tokenizer_config(model.config),
        "special_tokens_map.json": {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT},
    }
    texts = {n: json.dumps(c, indent=2, ensure_ascii=False) + "\n" for n, c in contents.items()}
    texts["README.md"] = _readme(out.name, config["architectures"][0], info)
    require_replaceable(out, source, {WEIGHTS, *texts})
    with atomic_directory(out) as target:
        tensors = {name: w.to(DTYPES[dtype]).contiguous() for name, w in weights.items()}
        write_tensors(tensors, target / WEIGHTS)
        for name, text in texts.items():
            (target / name).write_text(text, "utf-8")
    return config["architectures"][0]


def as_transformers(model: GPT) -> tuple[dict[str, Any], Weights]:
    """The configuration of a transformers class, without what all of them share, and weights."""
    config, weights = model.config, {n: w.detach() for n, w in named_weights(model).items()}
    if config.norm == "layer":
        _require(config, "GPT2LMHeadModel", GPT2)
        if config.n_kv_head != config.n_head:
            raise _cannot("GPT2LMHeadModel", "n_kv_head", config.n_kv_head, config.n_head)
        if config.n_head * config.head_size != config.d_model:
            raise _cannot(
                "GPT2LMHeadModel", "head_size", config.head_size, f"{config.d_model}/n_head"
            )
        if config.head_bias:
            config, weights = without_head_bias(config, weights)
        return _gpt2_config(config), to_gpt2(config, weights)
    if config.qk_norm:
        _require(config, "Qwen3ForCausalLM", QWEN3)
        kind = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    elif config.qkv_bias and not config.bias:
        _require(config, "Qwen2ForCausalLM", LLAMA)
        kind = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    else:
        _require(config, "LlamaForCausalLM", {**LLAMA, "qkv_bias": config.bias})
        kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        kind |= {"mlp_bias": config.bias}
    if kind["model_type"] != "qwen2":
        kind |= {"attention_bias": config.bias}
    return kind | _llama_config(config), to_llama(weights)


def _require(config: ModelConfig, name: str, wanted: dict[str, Any]) -> None:
    for field, value in wanted.items():
        have = getattr(config, field)
        if have not in (value if isinstance(value, tuple) else (value,)):
            raise _cannot(name, field, have, value)


def _cannot(name: str, field: str, have: Any, want: Any) -> UserError:
    return UserError(
        f"this model cannot be exported: the nearest class of transformers, {name}, has "
        f"{field} = {want}, and the model {have}"
    )


def _gpt2_config(c: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": c.context,
        "n_embd": c.d_model,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_inner": c.d_mlp,
        "activation_function": "gelu_new" if c.mlp == "gelu" else "relu",
        "layer_norm_epsilon": c.norm_eps,
        "resid_pdrop": c.dropout,
        "attn_pdrop": c.dropout,
        "embd_pdrop": 0.0,
        "tie_word_embeddings": c.tied_head,
    }


def _llama_config(c: ModelConfig) -> dict[str, Any]:
    return {
        "max_position_embeddings": c.context,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_mlp,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.n_kv_head,
        "head_dim": c.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        # the second is how transformers 5 says it
        "rope_theta": c.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "attention_dropout": c.dropout,
        "tie_word_embeddings": c.tied_head,
    }


def _shared(c: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "use_cache": True,
    }


def _generation(c: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The knobs that `python -m ptx` begins with."""
    return {
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "do_sample": True,
        "temperature": USUAL.temperature,
        "top_k": 0,
        "top_p": USUAL.top_p,
        "min_p": USUAL.min_p,
        "max_length": c.context,
    }


def _tokenizer_config(c: ModelConfig) -> dict[str, Any]:
    return {
        # takes tokenizer.json as it is; classes by the model's name would cut text their own way
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": c.context,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # written in a source file they are text
        "add_prefix_space": False,
    }


def _readme(name: str, architecture: str, info: dict[str, Any]) -> str:
    facts = "".join(f"- {key}: {value}\n" for key, value in info.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [python, code-generation, p-transformer]
---

# {name}

A P-Transformer as transformers' `{architecture}`; no code of its own is needed:

    from transformers import pipeline

    print(pipeline("text-generation", "{name}")("def fibonacci(n):"))

Every text begins with `{END_OF_TEXT}`, which the tokenizer puts there.

{facts}"""
