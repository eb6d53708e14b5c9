"""What we train against: transformers' models, as their users train them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from ptx.config import ModelConfig
from ptx.model import GPT
from tests.peers import as_qwen3


class Peer(nn.Module):
    """A model of transformers, called as ours is: ids and targets (B, T) in, mean loss out.

    Its loss holds all logits at once, as nanoGPT's does.
    """

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.theirs = theirs

    @property
    def tok_emb(self) -> nn.Module:
        return self.theirs.get_input_embeddings()

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        # Without the key/value cache, which transformers fills in training too.
        logits = self.theirs(ids, use_cache=False).logits  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def gpt2(shape: ModelConfig) -> Peer:
    """GPT-2 of the width, depth, heads and vocabulary of `shape`, without dropout."""
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.context,
        n_embd=shape.d_model,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Peer(GPT2LMHeadModel(config)).train()


def qwen3(shape: ModelConfig) -> Peer:
    """Qwen3 of the very graph of `shape`."""
    return Peer(as_qwen3(GPT(shape), "sdpa")).train()


def adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """nanoGPT's: decay for matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr, betas=(0.9, 0.95))
