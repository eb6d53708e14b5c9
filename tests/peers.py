"""Our weights in transformers' classes: the independent implementations we compare with."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from ptx.config import PRESETS, ModelConfig
from ptx.model import GPT

TOLERANCE = 1e-4


def as_gpt2(model: GPT, attention: str = "eager") -> GPT2LMHeadModel:
    c = model.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.context,
            n_embd=c.d_model,
            n_layer=c.n_layer,
            n_head=c.n_head,
            n_inner=c.d_mlp,
            activation_function="relu",
            layer_norm_epsilon=c.norm_eps,
            tie_word_embeddings=False,
            attn_implementation=attention,
        )
    ).eval()
    t = {
        "transformer.wte.weight": model.tok_emb.weight,
        "transformer.wpe.weight": model.pos_emb.weight,
        "transformer.ln_f.weight": model.norm.weight,
        "transformer.ln_f.bias": model.norm.bias,
        "lm_head.weight": model.head.weight,
    }
    for i, block in enumerate(model.blocks):
        at, qkv = f"transformer.h.{i}", [block.attn.q, block.attn.k, block.attn.v]
        t |= {
            f"{at}.ln_1.weight": block.attn_norm.weight,
            f"{at}.ln_1.bias": block.attn_norm.bias,
            f"{at}.attn.c_attn.weight": torch.cat([m.weight for m in qkv]).T,  # Conv1D: (in, out)
            f"{at}.attn.c_attn.bias": torch.zeros(3 * c.d_model),
            f"{at}.attn.c_proj.weight": block.attn.out.weight.T,
            f"{at}.attn.c_proj.bias": block.attn.out.bias,
            f"{at}.ln_2.weight": block.mlp_norm.weight,
            f"{at}.ln_2.bias": block.mlp_norm.bias,
            f"{at}.mlp.c_fc.weight": block.mlp.up.weight.T,
            f"{at}.mlp.c_fc.bias": block.mlp.up.bias,
            f"{at}.mlp.c_proj.weight": block.mlp.down.weight.T,
            f"{at}.mlp.c_proj.bias": block.mlp.down.bias,
        }
    theirs.load_state_dict(t, strict=True)
    return theirs


def as_qwen3(model: GPT, attention: str = "eager") -> Qwen3ForCausalLM:
    c = model.config
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=c.vocab_size,
            max_position_embeddings=c.context,
            hidden_size=c.d_model,
            intermediate_size=c.d_mlp,
            num_hidden_layers=c.n_layer,
            num_attention_heads=c.n_head,
            num_key_value_heads=c.n_kv_head,
            head_dim=c.head_size,
            rms_norm_eps=c.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
            tie_word_embeddings=c.tied_head,
            attn_implementation=attention,
        )
    ).eval()
    t = {
        "model.embed_tokens.weight": model.tok_emb.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for i, block in enumerate(model.blocks):
        at = f"model.layers.{i}"
        t |= {
            f"{at}.input_layernorm.weight": block.attn_norm.weight,
            f"{at}.self_attn.q_proj.weight": block.attn.q.weight,
            f"{at}.self_attn.k_proj.weight": block.attn.k.weight,
            f"{at}.self_attn.v_proj.weight": block.attn.v.weight,
            f"{at}.self_attn.o_proj.weight": block.attn.out.weight,
            f"{at}.self_attn.q_norm.weight": block.attn.q_norm.weight,
            f"{at}.self_attn.k_norm.weight": block.attn.k_norm.weight,
            f"{at}.post_attention_layernorm.weight": block.mlp_norm.weight,
            f"{at}.mlp.gate_proj.weight": block.mlp.gate.weight,
            f"{at}.mlp.up_proj.weight": block.mlp.up.weight,
            f"{at}.mlp.down_proj.weight": block.mlp.down.weight,
        }
    theirs.load_state_dict(t, strict=True)
    return theirs


def scrambled(config: ModelConfig) -> GPT:
    """A model in which no weight is zero, one or shared by chance."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1))
        if config.head_bias:
            model.head.bias.zero_()  # GPT2LMHeadModel has none
    return model


# The reference preset with a vocabulary that fits a test; everything else is the preset's.
REFERENCE = replace(PRESETS["reference"], vocab_size=1000)
MODERN = {
    "tied": replace(PRESETS["mini"], vocab_size=1000),
    "untied": replace(PRESETS["nano"], vocab_size=1000, tied_head=False),
    "grouped-query": replace(PRESETS["nano"], vocab_size=1000, n_kv_head=2),
}
# Shapes, and whose they are.
COMPARED = {
    "reference": (REFERENCE, as_gpt2),
    **{name: (config, as_qwen3) for name, config in MODERN.items()},
}
