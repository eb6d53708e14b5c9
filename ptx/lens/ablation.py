"""What would change without a head or an MLP: the next token, the loss of a text, of a batch.

Zero ablation asks what the part adds; it also takes away its average, which the rest of the
network counts on. Mean ablation leaves the average: give it `means` of other texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptx.config import ModelConfig
from ptx.errors import UserError
from ptx.lens.trace import Means, Mute, check_token, checked, muted
from ptx.model import GPT

LOGITS = 1 << 25
"""Numbers held at once: 128 MiB in fp32."""


@dataclass(frozen=True)
class Ablation:
    """Changes, in nats, against the whole model; one row for each of N muted sets."""

    token: int
    """The next token that is watched."""
    next_logprob: Tensor
    """(N,): log-probability of `token` after the text; negative where muting hides it."""
    token_losses: Tensor
    """(N, T - 1): loss of each token of the text but the first; positive where muting hurts."""
    base_logprob: float
    """Log-probability of `token` in the whole model."""
    base_loss: float
    """Loss per token of the text in the whole model."""

    @property
    def loss(self) -> Tensor:
        """(N,): loss per token over the text."""
        return self.token_losses.mean(-1)


def single_heads(config: ModelConfig) -> list[Mute]:
    """Every head on its own, layer by layer: results view as (L, H)."""
    layers, heads = range(config.n_layer), range(config.n_head)
    return [Mute(heads=((layer, head),)) for layer in layers for head in heads]


@torch.no_grad()
def ablate(
    model: GPT,
    ids: Sequence[int],
    mutes: Sequence[Mute],
    token: int | None = None,
    means: Means | None = None,
) -> Ablation:
    """What muting each of N sets does to one text, many sets in one forward.

    token: the next one to watch; the most likely one if left out.
    means: what muted parts write instead of nothing.
    Raises UserError for an impossible text, token, head or MLP.
    """
    batch = checked(model, ids)
    for mute in mutes:
        mute.check(model.config)
    [base] = _log_probs(model, batch, [Mute()], None)
    token = int(base[0, -1].argmax()) if token is None else token
    check_token(model.config, token)
    base_losses, base_next = _losses(base, batch), base[:, -1, token].cpu()
    losses, following = [], []
    for part in _log_probs(model, batch, mutes, means):
        losses.append(_losses(part, batch))
        following.append(part[:, -1, token].cpu())
    return Ablation(
        token=token,
        next_logprob=torch.cat([*following, base_next[:0]]) - base_next,
        token_losses=torch.cat([*losses, base_losses[:0]]) - base_losses,
        base_logprob=float(base_next),
        base_loss=float(base_losses.mean()),
    )


def _log_probs(
    model: GPT, batch: Tensor, mutes: Sequence[Mute], means: Means | None
) -> Iterator[Tensor]:
    """(n, T, V) for as many muted sets at a time as memory allows; batch: (1, T)."""
    at_once = max(1, LOGITS // (batch.shape[1] * model.config.vocab_size))
    for i in range(0, len(mutes), at_once):
        part = mutes[i : i + at_once]
        logits = muted(model, part, means)(batch.expand(len(part), -1))  # (n, T, V)
        yield logits.float().log_softmax(-1)


def _losses(log_probs: Tensor, batch: Tensor) -> Tensor:
    """(n, T - 1): nats of each token but the first."""
    targets = batch[:, 1:].expand(len(log_probs), -1)  # (n, T - 1)
    return -log_probs[:, :-1].gather(-1, targets[..., None])[..., 0].cpu()


@torch.no_grad()
def ablate_batch(
    model: GPT, ids: Tensor, mutes: Sequence[Mute], means: Means | None = None
) -> Tensor:
    """Change of the mean loss per token, nats, on a batch of texts (B, T) of equal length, one for
    each of N muted sets: (N,).

    Raises UserError for texts that are empty or too long and for impossible ids, heads and MLPs.
    """
    for text in ids.tolist():
        checked(model, text)
    if not len(ids) or ids.shape[1] < 2:
        raise UserError("the batch predicts nothing: give it a text of two tokens at least")
    batch = ids.to(model.tok_emb.weight.device)

    def loss(mute: Mute) -> Tensor:
        # One twin reads one text: the muted set is the same for all, so its row stretches over B.
        return muted(model, [mute], means)(batch[:, :-1], targets=batch[:, 1:])

    base = loss(Mute())
    return torch.tensor([float(loss(mute) - base) for mute in mutes])
