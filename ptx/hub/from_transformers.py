"""Import: a transformers checkpoint of GPT-2's, Llama's, Qwen2's or Qwen3's shape as a model
directory. Nothing of it is executed: weights are read from safetensors alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptx.atomic import atomic_directory
from ptx.checkpoint import load_tensors, named_weights, require_replaceable, write_model
from ptx.config import ModelConfig
from ptx.errors import UserError
from ptx.hub.bpe import TOKENIZER_JSON, read_tokenizer
from ptx.hub.weights import Weights, from_gpt2, from_llama, gpt2_sources, llama_names
from ptx.model import GPT

CONTEXT = 1024
"""Tokens that an imported model sees at most unless asked for more: attention maps and caches grow
with it. Shorter texts are read as before."""

INDEX = "model.safetensors.index.json"
FILES = (
    "config.json", "model.safetensors", "model-*-of-*.safetensors", INDEX, TOKENIZER_JSON,
    "README.md",
)  # fmt: skip
"""Patterns of what an import reads."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Fields that must have one value, which is also what they mean when they are left out.
FIXED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "llama": {"hidden_act": "silu", "partial_rotary_factor": 1.0},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
    "qwen3": {"hidden_act": "silu", "use_sliding_window": False},
}
# transformers leaves out what equals the class's default.
TIED = {"gpt2": True, "llama": False, "qwen2": False, "qwen3": False}
GPT2_MLP = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
}
STORED = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Imported:
    """What was made, and what a person should know about it."""

    config: ModelConfig
    notes: list[str]


def is_transformers(directory: Path) -> bool:
    """Whether config.json there is that of a transformers checkpoint."""
    try:
        return "model_type" in json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def import_model(
    source: Path, out: Path, context: int = CONTEXT, info: dict[str, Any] | None = None
) -> Imported:
    """Writes the checkpoint in `source` as a model directory, its weights as precise as they are.

    context: tokens it sees at most; less than the checkpoint's cuts nothing but longer texts.
    info: facts to keep in config.json, such as where it came from.
    Raises UserError naming the first field, tensor or file that P-Transformer has no equal for;
    nothing is written then.
    """
    require_replaceable(out, source)
    path = source / "config.json"
    raw = read_json(path)
    config = read_shape(path, raw, context)
    weights = convert(source, config, read_weights(source))
    eos = raw.get("eos_token_id")
    ends = [token for token in (eos if isinstance(eos, list) else [eos]) if type(token) is int]
    found = read_tokenizer(source, source_name(source, info), config.vocab_size, ends)
    notes = list(found.notes)
    theirs = _whole(path, raw, "n_positions" if config.position == "learned" else LENGTH)
    if theirs > config.context:
        notes.append(f"it sees {config.context:,} of its {theirs:,} tokens (--context for more)")
    facts = {**(info or {}), "architecture": _architecture(raw)}
    if notes:
        facts["notes"] = "; ".join(notes)
    with torch.device("meta"):  # a shape without memory
        model = GPT(config)
    with atomic_directory(out) as target:
        write_model(target, model, found.tokenizer, facts, weights=weights)
        if (source / "README.md").is_file():
            shutil.copyfile(source / "README.md", target / "README.md")
    return Imported(config, notes)


LENGTH = "max_position_embeddings"


def source_name(source: Path, info: dict[str, Any] | None) -> str:
    return str((info or {}).get("imported_from") or source.name)


def _architecture(raw: dict[str, Any]) -> str:
    named = raw.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else str(raw["model_type"])


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: name a directory or a Hub model that transformers can load"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not the configuration of a model")
    return found


# The shape


def read_shape(path: Path, raw: dict[str, Any], context: int) -> ModelConfig:
    """The shape in a transformers config.json; the first field that differs from what
    P-Transformer has is refused by name."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FIXED:
        raise _differs(path, "model_type", kind, " or ".join(FIXED))
    if raw.get("quantization_config"):
        raise _differs(path, "quantization_config", "set", "unquantized weights")
    for field, wanted in FIXED[kind].items():
        if raw.get(field, wanted) != wanted:
            raise _differs(path, field, raw[field], repr(wanted))
    if context < 1:
        raise UserError(f"context must be at least 1, not {context}")
    return _gpt2_shape(path, raw, context) if kind == "gpt2" else _llama_shape(path, raw, context)


def _gpt2_shape(path: Path, raw: dict[str, Any], context: int) -> ModelConfig:
    activation = raw.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in GPT2_MLP:
        raise _differs(path, "activation_function", activation, " or ".join(GPT2_MLP))
    width, heads = _whole(path, raw, "n_embd"), _whole(path, raw, "n_head")
    if width % heads:
        raise _differs(path, "n_embd", width, f"a multiple of n_head ({heads})")
    return ModelConfig(
        vocab_size=_whole(path, raw, "vocab_size"),
        context=min(context, _whole(path, raw, "n_positions")),
        n_layer=_whole(path, raw, "n_layer"),
        n_head=heads,
        n_kv_head=heads,
        head_size=width // heads,
        d_model=width,
        d_mlp=_whole(path, raw, "n_inner", 4 * width),
        norm="layer",
        norm_eps=_number(path, raw, "layer_norm_epsilon", 1e-5),
        position="learned",
        mlp=GPT2_MLP[activation],
        qk_norm=False,
        bias=True,
        qkv_bias=True,
        tied_head=bool(raw.get("tie_word_embeddings", TIED["gpt2"])),
        init="gpt2",
    )


def _llama_shape(path: Path, raw: dict[str, Any], context: int) -> ModelConfig:
    kind = raw["model_type"]
    theta = _rope_theta(path, raw)
    layers = raw.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise _differs(path, "layer_types", layers, "full_attention in all layers")
    attention_bias, mlp_bias = bool(raw.get("attention_bias")), bool(raw.get("mlp_bias"))
    if kind == "llama" and attention_bias != mlp_bias:
        raise _differs(path, "mlp_bias", mlp_bias, "what attention_bias has")
    if kind == "qwen3" and attention_bias:
        raise _differs(path, "attention_bias", True, "False for qwen3")
    width, heads = _whole(path, raw, "hidden_size"), _whole(path, raw, "num_attention_heads")
    return ModelConfig(
        vocab_size=_whole(path, raw, "vocab_size"),
        context=min(context, _whole(path, raw, LENGTH)),
        n_layer=_whole(path, raw, "num_hidden_layers"),
        n_head=heads,
        n_kv_head=_whole(path, raw, "num_key_value_heads", heads),
        head_size=_whole(path, raw, "head_dim", width // heads),
        d_model=width,
        d_mlp=_whole(path, raw, "intermediate_size"),
        norm="rms",
        norm_eps=_number(path, raw, "rms_norm_eps", 1e-6),
        position="rotary",
        rope_theta=theta,
        mlp="swiglu",
        qk_norm=kind == "qwen3",
        bias=attention_bias and kind == "llama",
        qkv_bias=attention_bias or kind == "qwen2",
        tied_head=bool(raw.get("tie_word_embeddings", TIED[kind])),
    )


def _rope_theta(path: Path, raw: dict[str, Any]) -> float:
    """The base of plain rotary positions, as transformers 4 and 5 write it."""
    for field in ("rope_scaling", "rope_parameters"):
        rope = raw.get(field) or {}
        if not isinstance(rope, dict):
            raise _differs(path, field, rope, "plain rotary positions")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or any(isinstance(value, dict) for value in rope.values()):
            raise _differs(path, field, kind, "plain rotary positions")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise _differs(path, f"{field}.partial_rotary_factor", rope["partial_rotary_factor"],
                           "1.0")  # fmt: skip
    rope = raw.get("rope_parameters") or {}
    return _number(path, rope if "rope_theta" in rope else raw, "rope_theta", 10_000.0)


def _whole(path: Path, raw: dict[str, Any], field: str, default: int | None = None) -> int:
    value = raw.get(field)
    value = default if value is None else value
    if type(value) is not int or not 0 < value < 2**31:
        raise _differs(path, field, value, "a whole number above 0")
    return value


def _number(path: Path, raw: dict[str, Any], field: str, default: float) -> float:
    value = raw.get(field, default)
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise _differs(path, field, value, "a number above 0")
    return float(value)


def _differs(path: Path, field: str, have: Any, want: str) -> UserError:
    return UserError(f"{path}: {field} is {have!r}, and P-Transformer takes {want}")


# The weights


def read_weights(source: Path) -> Weights:
    """All tensors of a checkpoint, in one file or several."""
    single, index = source / "model.safetensors", source / INDEX
    if single.is_file():
        return load_tensors(single)
    if not index.is_file():
        raise no_safetensors(str(source), [p.name for p in source.iterdir() if p.is_file()])
    parts = read_json(index).get("weight_map")
    names = list(parts.values()) if isinstance(parts, dict) else []
    if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise UserError(f"{index}: weight_map does not name files beside it")
    tensors: Weights = {}
    for name in sorted(set(names)):
        tensors |= load_tensors(source / name)
    return tensors


def no_safetensors(source: str, files: list[str]) -> UserError:
    """Why a checkpoint without safetensors cannot be read."""
    if pickles := sorted(name for name in files if name.endswith(PICKLES)):
        return UserError(
            f"{source} has its weights as pickle ({pickles[0]}): opening such a file can run any "
            "program hidden in it, so P-Transformer reads safetensors only. Look for a revision "
            "that has model.safetensors (on the Hub often refs/pr/1: --revision), or convert it "
            "where you trust it: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    return UserError(f"{source} has no model.safetensors: it is not a transformers checkpoint")


def convert(source: Path, config: ModelConfig, theirs: Weights) -> Weights:
    """The tensors of a checkpoint under our names; one that is missing, unexpected or of another
    shape is refused by its name."""
    if config.n_layer > len(theirs):
        raise UserError(f"{source}: config.json says {config.n_layer} layers, and the weights have "
                        "fewer")  # fmt: skip
    theirs = {_plain(name): tensor for name, tensor in theirs.items() if not _is_buffer(name)}
    try:
        expected = _expected(config)
    except RuntimeError:  # sizes whose product is no number of bytes
        raise UserError(f"{source}: config.json says sizes that no memory holds") from None
    gpt2 = config.position == "learned"
    names = {theirs_ for _, theirs_, _ in gpt2_sources(config)} if gpt2 else set(
        llama_names(list(expected)).values()
    )  # fmt: skip
    theirs = _without_tied_head(source, config, theirs)
    if missing := sorted(names - set(theirs)):
        raise UserError(f"{source}: tensor {missing[0]!r} is missing")
    if more := sorted(set(theirs) - names):
        raise UserError(f"{source}: tensor {more[0]!r} has no place in {_family(config)}")
    if single := sorted(name for name in names if theirs[name].ndim == 0):
        raise UserError(f"{source}: tensor {single[0]!r} is a single number")
    ours = from_gpt2(config, theirs) if gpt2 else from_llama(config, list(expected), theirs)
    for name, shape in expected.items():
        if ours[name].shape != shape:
            have = tuple(ours[name].shape)
            raise UserError(f"{source}: {name} has shape {have}, config.json says {tuple(shape)}")
        if ours[name].dtype not in STORED:
            raise UserError(f"{source}: {name} is stored as {ours[name].dtype}, not as numbers of "
                            "16 or 32 bits")  # fmt: skip
    return ours


def _expected(config: ModelConfig) -> dict[str, torch.Size]:
    """{our name: shape}, from one layer's: a hostile configuration may name any number of them."""
    with torch.device("meta"):
        one = named_weights(GPT(replace(config, n_layer=1)))
    shapes = {name: tensor.shape for name, tensor in one.items()}
    block = {n: s for n, s in shapes.items() if n.startswith("blocks.0.")}
    rest = {n: s for n, s in shapes.items() if n not in block}
    return rest | {
        f"blocks.{i}.{n.removeprefix('blocks.0.')}": s
        for i in range(config.n_layer)
        for n, s in block.items()
    }


def _family(config: ModelConfig) -> str:
    return "GPT-2" if config.position == "learned" else "this family"


def _plain(name: str) -> str:
    """GPT-2's own checkpoint has names without the leading `transformer.`."""
    if name.startswith(("wte.", "wpe.", "ln_f.", "h.")):
        return f"transformer.{name}"
    return name


def _is_buffer(name: str) -> bool:
    """Masks and tables that old versions of transformers saved; they are computed."""
    return name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))


def _without_tied_head(source: Path, config: ModelConfig, theirs: Weights) -> Weights:
    """Without the copy of the embedding that some checkpoints keep as their tied head."""
    head = theirs.get("lm_head.weight")
    if not config.tied_head or head is None:
        return theirs
    name = "transformer.wte.weight" if config.position == "learned" else "model.embed_tokens.weight"
    if not _equal(head, theirs.get(name)):
        raise UserError(
            f"{source}: config.json ties the head to the embedding, and 'lm_head.weight' differs "
            "from it: set tie_word_embeddings to false if it was trained so"
        )
    return {key: tensor for key, tensor in theirs.items() if key != "lm_head.weight"}


def _equal(a: Tensor, b: Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and bool(torch.equal(a, b))
