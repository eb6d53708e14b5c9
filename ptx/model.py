"""GPT: the whole network, one forward.

Two families are points in the same space of switches and each equals an implementation that
nobody here wrote: `reference` is transformers' GPT2LMHeadModel, `modern` its Qwen3ForCausalLM.
Letters in shapes: B batch, T new positions, S all positions (cached and new), C width, H heads,
K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptx import memory
from ptx.config import ModelConfig
from ptx.loss import cross_entropy, exponentials

if TYPE_CHECKING:
    from ptx.tokenizer import Tokenizer


class KVCache:
    """Keys and values of the positions already read, for every layer; all texts equally long."""

    def __init__(self, model: GPT, batch: int = 1) -> None:
        c, weight = model.config, model.tok_emb.weight
        shape = (c.n_layer, c.n_kv_head, batch, c.context, c.head_size)
        self.k, self.v = _zeros(shape, weight), _zeros(shape, weight)
        self.length = 0

    def row(self, i: int, length: int) -> KVCache:
        """The cache of text i alone, in the same memory."""
        row = object.__new__(KVCache)
        row.k, row.v, row.length = self.k[:, :, i : i + 1], self.v[:, :, i : i + 1], length
        return row

    def positions(self, t: int) -> slice | Tensor:
        """Where in their text the next T tokens stand."""
        return slice(self.length, self.length + t)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (B, K, T, D) after what is there; returns all of it, (B, K, S, D)."""
        end = self.length + k.shape[2]
        # (B, K, context, D) each
        keys, values = self.k[layer].transpose(0, 1), self.v[layer].transpose(0, 1)
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def mask(self, t: int) -> Tensor | None:
        """(T, S), true where each of T new positions may look; None if the usual triangle says it,
        or if there is but one, which sees everything."""
        return causal_mask(t, self.length + t, self.k.device) if t > 1 and self.length else None


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Of the type and on the device of `like`."""
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    size = math.prod(shape) * like.element_size()
    return torch.from_numpy(memory.zeros(size)).view(like.dtype).view(*shape)


def make_norm(config: ModelConfig, size: int) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.bias)


def rotary_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's angles, each (context, D), in the half-split layout."""
    exponent = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    frequency = 1.0 / config.rope_theta**exponent  # (D/2,)
    angle = torch.outer(torch.arange(config.context, dtype=torch.float32), frequency)
    angle = torch.cat((angle, angle), dim=-1)  # (context, D)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., 2021) of x (B, H, T, D) by cos, sin (T, D)."""
    a, b = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-b, a), dim=-1) * sin.to(x.dtype)


def causal_mask(t: int, s: int, device: torch.device) -> Tensor:
    """(T, S), true where the last T of S positions may look."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """The probabilities that scaled_dot_product_attention applies but does not show, (B, H, T, S).

    q: (B, H, T, D), k: (B, H, S, D), mask: (T, S), the last T of S positions if left out.
    """
    scores = (q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5  # (B, H, T, S)
    if mask is None:
        mask = causal_mask(q.shape[2], k.shape[2], q.device)
    return scores.masked_fill(~mask, float("-inf")).softmax(-1)


class Attention(nn.Module):
    """Causal self-attention; grouped-query when there are fewer key/value heads than heads.

    Attributes:
        future: None for torch's fused attention; or (context, context), -inf above the diagonal
            and 0 elsewhere, for plain products and a softmax, which `torch.compile` can fuse.
    """

    future: Tensor | None = None

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, c = config, layer, config
        q_size, kv_size = c.n_head * c.head_size, c.n_kv_head * c.head_size
        self.q = nn.Linear(c.d_model, q_size, bias=c.qkv_bias)
        self.k = nn.Linear(c.d_model, kv_size, bias=c.qkv_bias)
        self.v = nn.Linear(c.d_model, kv_size, bias=c.qkv_bias)
        self.out = nn.Linear(q_size, c.d_model, bias=c.bias)
        if c.qk_norm:
            self.q_norm = nn.RMSNorm(c.head_size, eps=c.norm_eps)
            self.k_norm = nn.RMSNorm(c.head_size, eps=c.norm_eps)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        record: list[Tensor] | None,
    ) -> Tensor:
        c, (B, T, _) = self.config, x.shape
        q = self.q(x).view(B, T, c.n_head, c.head_size)  # (B, T, H, D)
        k = self.k(x).view(B, T, c.n_kv_head, c.head_size)  # (B, T, K, D)
        v = self.v(x).view(B, T, c.n_kv_head, c.head_size)  # (B, T, K, D)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H or K, T, D)
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        mask = None
        if cache is not None:
            mask = cache.mask(T)
            k, v = cache.extend(self.layer, k, v)
        if c.n_kv_head < c.n_head:
            group = c.n_head // c.n_kv_head
            # (B, H, S, D) each
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        if record is not None:
            record.append(attention_weights(q, k, mask))
        y = self._attend(q, k, v, mask)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, c.n_head * c.head_size)  # (B, T, H * D)
        return F.dropout(self.out(y), c.dropout, self.training)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        T, S = q.shape[2], k.shape[2]
        dropout = self.config.dropout if self.training else 0.0
        causal = mask is None and T == S and T > 1
        if self.future is not None and causal:
            return self._attend_in_halves(q, k, v, dropout)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )

    def _attend_in_halves(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Plain attention over (B, H, T, D). The earlier half of the queries sees none of the later
        keys: taken apart, a quarter of the scores is never made, and the others fit a cache."""
        T, parts = q.shape[2], []
        half = (T + 1) // 2
        for start, end in ((0, half), (half, T)):
            seen = slice(end)
            scores = q[:, :, start:end] @ k[:, :, seen].mT * q.shape[-1] ** -0.5  # (B, H, T/2, S)
            weights = (scores + self.future[start:end, seen]).softmax(-1).to(v.dtype)
            parts.append(F.dropout(weights, dropout) @ v[:, :, seen])
        return torch.cat(parts, dim=2)


class MLP(nn.Module):
    """Position-wise: up, a non-linearity (gated for SwiGLU, Shazeer 2020), down."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.mlp == "swiglu":
            self.gate = nn.Linear(config.d_model, config.d_mlp, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_mlp, bias=config.bias)
        self.down = nn.Linear(config.d_mlp, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)  # (B, T, d_mlp)
        if self.config.mlp == "swiglu":
            h = F.silu(self.gate(x)) * h
        elif self.config.mlp == "gelu":
            h = F.gelu(h, approximate="tanh")  # GPT-2's "gelu_new"
        else:
            h = F.relu(h)
        return F.dropout(self.down(h), self.config.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP; each reads a normalized copy of the residual stream and adds to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn_norm = make_norm(config, config.d_model)
        self.attn = Attention(config, layer)
        self.mlp_norm = make_norm(config, config.d_model)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        record: list[Tensor] | None,
    ) -> Tensor:
        x = x + self.attn(self.attn_norm(x), rotary, cache, record)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Token ids in, logits of the next token out."""

    cos: Tensor
    sin: Tensor
    source: Path | None = None  # the model directory that the weights were loaded from
    exponentials = staticmethod(exponentials)  # of the loss; torch.compile may replace it

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.d_model)
        if config.position == "learned":
            self.pos_emb = nn.Embedding(config.context, config.d_model)
        else:
            cos, sin = rotary_table(config)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config, config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=config.head_bias)
        if config.tied_head:
            self.head.weight = self.tok_emb.weight
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Fresh weights from torch's global generator, as `config.init` says."""
        zero_residual = self.config.init == "zero_residual"
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                fan_in = zero_residual and module is not self.head
                nn.init.normal_(module.weight, std=module.in_features**-0.5 if fan_in else 0.02)
                if zero_residual and name.endswith(("attn.out", "mlp.down")):
                    nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def n_params(self) -> int:
        """Parameters, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        cache: KVCache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the token after each of `ids` (B, T).

        targets: (B, T) next tokens; given them, returns the mean loss in nats per token instead,
            without ever holding all logits.
        cache: positions already read; `ids` continue them and are added to it.
        record: receives the attention weights (B, H, T, S) of every layer, in order; recording
            changes no logit.
        Raises ValueError when the positions do not fit the context.
        """
        x = self.hidden(ids, cache, record)  # (B, T, C)
        if targets is None:
            return self.head(x)
        return self.loss(x, targets)

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """The mean loss, in nats, of the tokens `targets` (B, T) after positions of which `hidden`
        is `x` (B, T, C); `IGNORED` ones do not count."""
        head, exponentials = self.head, self.exponentials
        x, targets = x.flatten(0, 1), targets.flatten()  # (B * T, C), (B * T,)
        return cross_entropy(x, head.weight, head.bias, targets, exponentials)

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, record: list[Tensor] | None = None
    ) -> Tensor:
        """The residual stream after the final norm, (B, T, C): what the head reads."""
        T = ids.shape[1]
        end = T + (0 if cache is None else cache.length)
        if end > self.config.context:
            raise ValueError(f"{end} positions do not fit a context of {self.config.context}")
        positions = slice(0, T) if cache is None else cache.positions(T)
        x = self.tok_emb(ids)  # (B, T, C)
        rotary = None
        if self.config.position == "learned":
            x = x + self.pos_emb.weight[positions]
        else:
            rotary = self.cos[positions], self.sin[positions]
        for block in self.blocks:
            x = block(x, rotary, cache, record)
        if cache is not None:
            cache.length = end
        return self.norm(x)

    # The Hugging Face Hub, as its users know it. `ptx.hub` is above this module and imports
    # huggingface_hub, so it is looked up when it is called.

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> GPT:
        """The model of a local directory or of the Hub (`user/name`), in eval mode.

        Also checkpoints of transformers with GPT-2's, Llama's, Qwen2's or Qwen3's shape.
        `ptx.Tokenizer.from_pretrained` gives its tokenizer. Raises UserError for what cannot be
        found, read or opened.
        """
        return import_module("ptx.hub.pretrained").load_pretrained(
            name,
            device,
            dtype,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        tokenizer: Tokenizer | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        """Writes a model directory with a card. A model that was loaded brings its tokenizer, and
        if it was not changed since, all that was beside it."""
        import_module("ptx.hub.pretrained").save(self, directory, tokenizer, info)

    def push_to_hub(
        self,
        name: str,
        *,
        tokenizer: Tokenizer | None = None,
        info: dict[str, Any] | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes to `user/name` on the Hub, in one commit; returns
        the commit's address. The repository is created if it is not there."""
        return import_module("ptx.hub.pretrained").push(
            self,
            name,
            tokenizer,
            info,
            message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )
