"""The shape of a network: independent switches, and named points in that space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from ptx.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the graph of a GPT, and nothing that decides how it is trained."""

    vocab_size: int = 16_384
    context: int = 256
    """Longest text, in tokens, that the network sees at once."""
    n_layer: int = 6
    n_head: int = 4
    n_kv_head: int = 4
    """Key/value heads, shared by groups of query heads; equal to `n_head` for plain attention."""
    head_size: int = 64
    d_model: int = 256
    d_mlp: int = 704
    norm: Literal["layer", "rms"] = "rms"
    norm_eps: float = 1e-6
    position: Literal["learned", "rotary"] = "rotary"
    rope_theta: float = 10_000.0
    mlp: Literal["relu", "gelu", "swiglu"] = "swiglu"
    qk_norm: bool = True
    """RMSNorm over each head's queries and keys, before the rotation (Qwen3)."""
    bias: bool = False
    """Biases of the norms, the MLP and the attention's output."""
    qkv_bias: bool = False
    head_bias: bool = False
    tied_head: bool = True
    """The output matrix is the token embedding."""
    dropout: float = 0.0
    init: Literal["gpt2", "zero_residual"] = "zero_residual"
    """`gpt2`: normal(0, 0.02) everywhere. `zero_residual`: fan-in scaled, with the matrices that
    write into the residual stream at zero, so that every block starts as the identity."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context", "n_layer", "n_head", "n_kv_head", "head_size")
        for name in (*sizes, "d_model", "d_mlp"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n_head % self.n_kv_head:
            raise UserError(
                f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.n_kv_head})"
            )
        if self.position == "rotary" and self.head_size % 2:
            raise UserError(f"rotary positions need an even head_size, not {self.head_size}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout must lie in [0, 1), not {self.dropout}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The config saved in a model directory; unknown or missing fields are refused by name."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"unknown model field {unknown[0]!r}: made by a newer P-Transformer?")
        if missing := sorted(known - set(values)):
            raise UserError(f"model field {missing[0]!r} is missing from the config")
        for name, hint in get_type_hints(cls).items():
            allowed = get_args(hint)
            fits = values[name] in allowed if allowed else _is(values[name], hint)
            if not fits:
                wanted = " or ".join(map(repr, allowed)) if allowed else hint.__name__
                raise UserError(f"model field {name!r} must be {wanted}, not {values[name]!r}")
        return cls(**values)


def _is(value: Any, kind: type) -> bool:
    """Whether a JSON value has this type; whole numbers are floats too, booleans are no numbers."""
    return type(value) is kind or (kind is float and type(value) is int)


PRESETS: dict[str, ModelConfig] = {
    # The original P-Transformer as coded: 164,553,555 parameters, 93 % of them vocabulary.
    "reference": ModelConfig(
        vocab_size=200_019,
        context=256,
        n_layer=6,
        n_head=6,
        n_kv_head=6,
        head_size=64,
        d_model=384,
        d_mlp=4 * 384,
        norm="layer",
        norm_eps=1e-5,
        position="learned",
        mlp="relu",
        qk_norm=False,
        bias=True,
        head_bias=True,
        tied_head=False,
        dropout=0.2,
        init="gpt2",
    ),
    "nano": ModelConfig(
        context=128, n_layer=4, n_head=4, n_kv_head=4, head_size=32, d_model=128, d_mlp=352
    ),
    "mini": ModelConfig(context=512, n_layer=9),
    # GPT-2's size, for a GPU.
    "small": ModelConfig(
        context=1024, n_layer=12, n_head=12, n_kv_head=12, head_size=64, d_model=768, d_mlp=2048
    ),
}


def preset(name: str) -> ModelConfig:
    """The named shape; an unknown name is refused with the list of known ones."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
