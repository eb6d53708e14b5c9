"""What text costs a model: bits per byte of fixed windows, and of whole texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from train.heldout import Text
from train.kernels import Kernels, running
from train.parallel import World

BATCH = 16
PROTOCOL = (
    "Windows of one full context advance by half of it and only their newer half counts, so that "
    "(but for a project's first tokens) every token is predicted from at least half a context. "
    "End-of-text tokens are paid for and count no byte."
)


@dataclass(frozen=True)
class Score:
    """What a model paid for the text of one project."""

    project: str
    tokens: int
    bytes: int
    nats: float
    hits: int
    """Tokens that it found the most likely."""

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(1, self.bytes)

    @property
    def top1(self) -> float:
        return self.hits / max(1, self.tokens)


@torch.no_grad()
def validate(
    model: GPT,
    windows: tuple[np.ndarray, np.ndarray],
    byte_lengths: np.ndarray,
    kernels: Kernels,
    world: World | None = None,
) -> tuple[float, float]:
    """Loss (nats per token) and bits per byte of fixed windows (x, y), each (N, T) ids.

    world: the processes that share the work; each calls this.
    """
    was_training = model.training
    model.eval()
    device = model.tok_emb.weight.device
    rank, size = (world.rank, world.size) if world else (0, 1)
    x, y = (torch.from_numpy(w[rank::size]) for w in windows)  # (N / size, T)
    nats = 0.0
    for i in range(0, -(-len(windows[0]) // size), BATCH):
        ids, targets = x[i : i + BATCH].to(device), y[i : i + BATCH].to(device)
        missing = not len(ids)  # a process without work goes along: forwards gather weights
        if missing:
            ids = targets = torch.zeros(1, 1, dtype=torch.long, device=device)
        with running(kernels, device):
            loss = float(model(ids, targets))
        nats += 0.0 if missing else loss * targets.numel()
    model.train(was_training)
    if world:
        [nats] = world.sum(nats)
    return nats / windows[1].size, nats / math.log(2) / float(byte_lengths[windows[1]].sum())


def score(model: GPT, tokenizer: Tokenizer, texts: list[Text]) -> list[Score]:
    """One `Score` per text, then that of all together."""
    scores = []
    for text in texts:
        ids = text.ids(tokenizer)
        nats, hits = token_scores(model, np.concatenate(([tokenizer.eot], ids)), text.project)
        scores.append(Score(text.project, len(ids), text.bytes, float(nats.sum()), int(hits.sum())))
    sums = (sum(getattr(s, name) for s in scores) for name in ("tokens", "bytes", "nats", "hits"))
    return [*scores, Score("all", *sums)]


@torch.inference_mode()
def token_scores(
    model: GPT, tokens: np.ndarray, description: str = "scoring"
) -> tuple[np.ndarray, np.ndarray]:
    """Of tokens[1:], by the protocol of `Evaluate`: their negative log-likelihood in nats, (N - 1,)
    float64, and whether each was the most likely one, (N - 1,) bool."""
    device, context = model.tok_emb.weight.device, model.config.context
    nats, hits = np.zeros(len(tokens) - 1), np.zeros(len(tokens) - 1, dtype=bool)
    batches = list(_windows(len(nats), context))
    for batch in track(batches, description=description, console=Console(stderr=True)):
        starts = np.array([start for start, _ in batch])
        span = starts[:, None] + np.arange(min(context, len(nats)) + 1)  # (B, T + 1)
        ids = torch.from_numpy(tokens[span].astype(np.int64)).to(device)
        found = _window_scores(model, ids[:, :-1], ids[:, 1:])  # (B, T) each
        for (start, scored_from), *rows in zip(batch, *found, strict=True):
            new = slice(start + scored_from, start + len(rows[0]))
            for out, row in zip((nats, hits), rows, strict=True):
                out[new] = row[scored_from:].cpu().numpy()
    return nats, hits


def _windows(n_targets: int, context: int) -> Iterator[list[tuple[int, int]]]:
    """Batches of (start, first scored position in the window)."""
    stride = max(1, context // 2)
    starts = [(0, 0)]
    while starts[-1][0] + context < n_targets:
        done = starts[-1][0] + context
        start = min(starts[-1][0] + stride, n_targets - context)
        starts.append((start, done - start))
    for i in range(0, len(starts), BATCH):
        yield starts[i : i + BATCH]


def _window_scores(model: GPT, ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses of windows and whether the model guessed right, (B, T) each; one row of logits (T, V)
    at a time."""
    hidden = model.hidden(ids)  # (B, T, C)
    losses, hits = [], []
    for h, t in zip(hidden, targets, strict=True):
        logits = model.head(h).float()  # (T, V)
        losses.append(F.cross_entropy(logits, t, reduction="none"))
        hits.append(logits.argmax(-1) == t)
    return torch.stack(losses), torch.stack(hits)
