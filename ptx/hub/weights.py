"""The names and layouts of weights in transformers' checkpoints, both ways.

Two layouts cover the families here: GPT-2's (queries, keys and values in one matrix, all matrices
transposed) and the one that Llama, Qwen2 and Qwen3 share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ptx.config import ModelConfig

Weights = dict[str, Tensor]

GPT2_BLOCK = {
    "attn_norm": "ln_1",
    "attn.out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
LLAMA_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def llama_names(ours: list[str]) -> dict[str, str]:
    """{our name: theirs} in Llama's, Qwen2's and Qwen3's layout."""
    whole = {"tok_emb": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    return {name: _renamed(name, whole, LLAMA_BLOCK, "model.layers") for name in ours}


def _renamed(name: str, whole: dict[str, str], block: dict[str, str], blocks: str) -> str:
    module, _, kind = name.rpartition(".")  # kind: weight or bias
    if module in whole:
        return f"{whole[module]}.{kind}"
    _, layer, part = module.split(".", 2)
    return f"{blocks}.{layer}.{block[part]}.{kind}"


def to_llama(weights: Weights) -> Weights:
    """Our weights in Llama's layout."""
    return {theirs: weights[ours] for ours, theirs in llama_names(list(weights)).items()}


def to_gpt2(config: ModelConfig, weights: Weights) -> Weights:
    """Our weights in GPT-2's layout; biases that we leave out are zeros there."""
    c, made = config, {}

    def put(theirs: str, ours: str, transposed: bool = False) -> None:
        weight = weights[f"{ours}.weight"]
        bias = weights.get(f"{ours}.bias")
        made[f"{theirs}.weight"] = weight.T if transposed else weight
        made[f"{theirs}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias

    for i in range(c.n_layer):
        at, block = f"transformer.h.{i}", f"blocks.{i}"
        for ours, theirs in GPT2_BLOCK.items():
            put(f"{at}.{theirs}", f"{block}.{ours}", transposed="norm" not in ours)
        heads = [f"{block}.attn.{name}" for name in "qkv"]
        weight = torch.cat([weights[f"{name}.weight"] for name in heads])  # (3C, C)
        made[f"{at}.attn.c_attn.weight"] = weight.T  # (C, 3C): GPT-2 multiplies from the left
        made[f"{at}.attn.c_attn.bias"] = (
            torch.cat([weights[f"{name}.bias"] for name in heads])
            if c.qkv_bias
            else weight.new_zeros(len(weight))
        )
    put("transformer.ln_f", "norm")
    made["transformer.wte.weight"] = weights["tok_emb.weight"]
    made["transformer.wpe.weight"] = weights["pos_emb.weight"]
    if "head.weight" in weights:
        made["lm_head.weight"] = weights["head.weight"]
    return made


def gpt2_sources(config: ModelConfig) -> Iterator[tuple[str, str, int | None]]:
    """(our name, theirs, which third of their first dimension once transposed, if not all)."""
    for i in range(config.n_layer):
        at, block = f"transformer.h.{i}", f"blocks.{i}"
        for kind in ("weight", "bias"):
            for part, name in enumerate("qkv"):
                yield f"{block}.attn.{name}.{kind}", f"{at}.attn.c_attn.{kind}", part
            for ours, theirs in GPT2_BLOCK.items():
                yield f"{block}.{ours}.{kind}", f"{at}.{theirs}.{kind}", None
    for ours, theirs in {
        "norm.weight": "ln_f.weight",
        "norm.bias": "ln_f.bias",
        "tok_emb.weight": "wte.weight",
        "pos_emb.weight": "wpe.weight",
    }.items():
        yield ours, f"transformer.{theirs}", None
    if not config.tied_head:
        yield "head.weight", "lm_head.weight", None


def from_gpt2(config: ModelConfig, theirs: Weights) -> Weights:
    """Weights in GPT-2's layout as ours. Raises KeyError with the name of a missing one."""
    ours = {}
    for name, source, part in gpt2_sources(config):
        weight = theirs[source]
        if ".h." in source and weight.ndim == 2:
            weight = weight.T  # Conv1D: (in, out)
        if part is not None:
            weight = weight.tensor_split(3)[part]
        ours[name] = weight[: config.context] if name == "pos_emb.weight" else weight
    return ours


def from_llama(config: ModelConfig, ours: list[str], theirs: Weights) -> Weights:
    """Weights in Llama's layout as ours. Raises KeyError with the name of a missing one."""
    return {name: theirs[source] for name, source in llama_names(ours).items()}


def without_head_bias(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    """The same function of tokens by a network whose head has no bias, as GPT-2's has none; one
    dimension a head wider, and untied. Only with LayerNorm. fp64.

    LayerNorm ignores the mean of the residual stream, so every matrix that writes into it may write
    with mean zero. Then dimensions that are always zero change nothing but the variance, by the
    factor C / wide, which the gains take back. The last norm's own bias makes one of them 1, and
    the head's column for it is the bias.
    """
    c, H, D = config, config.n_head, config.head_size
    C, wide = c.d_model, c.d_model + H
    small = (C / wide) ** 0.5
    w = {name: tensor.double() for name, tensor in weights.items()}
    made: Weights = {}

    def padded(tensor: Tensor, *size: int) -> Tensor:
        full = tensor.new_zeros(size)
        full[tuple(slice(n) for n in tensor.shape)] = tensor
        return full

    for name, t in w.items():
        module, _, kind = name.rpartition(".")
        part = module.rpartition(".")[2]
        if part in ("tok_emb", "pos_emb"):
            made[name] = padded(t - t.mean(1, keepdim=True), len(t), wide)
        elif part == "head":
            if kind == "weight":
                made[name] = padded(t, len(t), wide)
        elif part in ("attn_norm", "mlp_norm", "norm"):
            made[name] = padded(t * small if kind == "weight" else t, wide)
        elif part in ("q", "k", "v"):
            scale = ((D + 1) / D) ** 0.5 if part == "q" else 1.0  # scores are divided by sqrt(D)
            heads = t.unflatten(0, (H, D)) * scale  # (H, D, C) or (H, D)
            # (H * (D + 1), wide), or without the last
            made[name] = padded(heads, H, D + 1, *[wide] * (t.ndim - 1)).flatten(0, 1)
        elif part == "out" and kind == "weight":
            centered = (t - t.mean(0)).unflatten(1, (H, D))  # (C, H, D)
            made[name] = padded(centered, wide, H, D + 1).flatten(1)  # (wide, H * (D + 1))
        elif part == "up":
            made[name] = padded(t, len(t), wide) if kind == "weight" else t
        else:  # what else writes into the stream: biases of the attention's output, the MLP's
            made[name] = padded(t - t.mean(0), wide, *t.shape[1:])
    if "norm.bias" not in made:
        made["norm.bias"] = made["norm.weight"].new_zeros(wide)
    made["norm.bias"][C] = 1.0
    if c.tied_head:
        made["head.weight"] = padded(w["tok_emb.weight"], c.vocab_size, wide)
    made["head.weight"][:, C] = w["head.bias"]
    narrower = replace(
        c,
        d_model=wide,
        head_size=D + 1,
        head_bias=False,
        tied_head=False,
        norm_eps=c.norm_eps * C / wide,
    )
    return narrower, made
