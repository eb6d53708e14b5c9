"""Bits per byte: how many bits the model needs for each byte of text it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from ptx.checkpoint import load_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from train.device import pick_device
from train.kernels import Kernels, running
from train.parallel import World

BATCH = 16


@dataclass
class Evaluate:
    """Bits per byte of a model on the held-out projects of a data directory.

    Of each project the first --tokens are scored, each once. Windows of one full context advance
    by half of it and only their newer half counts, so that (but for a project's first tokens)
    every token is predicted from at least half a context. End-of-text tokens are paid for and
    count no byte.

    Example: python train/run.py evaluate checkpoints/mini --data data/installed
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A model directory, or a run directory for its newest checkpoint."""
    data: Path = Path("data/installed")
    """A data directory prepared with the model's tokenizer."""
    tokens: int = 50_000
    """Scored at most per project; 0 scores all."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps ..."""


@dataclass(frozen=True)
class Score:
    """What a model paid for the text of one project."""

    project: str
    tokens: int
    bytes: int
    nats: float

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(1, self.bytes)


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


def score(model: GPT, corpus: Corpus, per_project: int = 0) -> list[Score]:
    """One `Score` per held-out project, then that of all together.

    per_project: tokens scored at most of each project; 0 scores all.
    """
    if per_project < 0:
        raise UserError(f"--tokens must be 0 (all) or more, not {per_project}")
    lengths, eot, position = corpus.tokenizer.byte_lengths, corpus.tokenizer.eot, 0
    scores = []
    for project in corpus.manifest["sources"]["val"]:
        n = min(per_project or project["tokens"], project["tokens"])
        tokens = np.asarray(corpus.val[position : position + n])
        nats = token_nats(model, np.concatenate(([eot], tokens)), project["name"])
        total_bytes = int(lengths[tokens].sum())
        scores.append(Score(project["name"], n, total_bytes, float(nats.sum())))
        position += project["tokens"]
    sums = (sum(getattr(s, name) for s in scores) for name in ("tokens", "bytes", "nats"))
    return [*scores, Score("all", *sums)]


@torch.inference_mode()
def token_nats(model: GPT, tokens: np.ndarray, description: str = "scoring") -> np.ndarray:
    """Negative log-likelihood, in nats, of tokens[1:] (N - 1,), by the protocol of `Evaluate`."""
    device, context = model.tok_emb.weight.device, model.config.context
    out = np.zeros(len(tokens) - 1)
    batches = list(_windows(len(tokens) - 1, context))
    for batch in track(batches, description=description, console=Console(stderr=True)):
        starts = np.array([start for start, _ in batch])
        span = starts[:, None] + np.arange(min(context, len(out)) + 1)  # (B, T + 1)
        ids = torch.from_numpy(tokens[span].astype(np.int64)).to(device)
        nats = _window_nats(model, ids[:, :-1], ids[:, 1:])  # (B, T)
        for (start, scored_from), row in zip(batch, nats.cpu().numpy(), strict=True):
            out[start + scored_from : start + len(row)] = row[scored_from:]
    return out


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


def _window_nats(model: GPT, ids: Tensor, targets: Tensor) -> Tensor:
    """(B, T) losses of windows; one row of logits (T, V) at a time."""
    hidden = model.hidden(ids)  # (B, T, C)
    rows = [
        F.cross_entropy(model.head(h).float(), t, reduction="none")  # (T, V) -> (T,)
        for h, t in zip(hidden, targets, strict=True)
    ]
    return torch.stack(rows)


def evaluate(args: Evaluate) -> None:
    """Prints bits per byte by project and in all."""
    model, tokenizer, _ = load_model(args.model, pick_device(args.device))
    corpus = Corpus(args.data)
    if corpus.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{args.data} was tokenized with {corpus.tokenizer.name}, the model reads "
            f"{tokenizer.name}: prepare the data again with --tokenizer {tokenizer.name}"
        )
    table = Table("project", title=f"{args.model} on the held-out projects of {args.data}")
    for column in ("tokens", "bytes", "nats/token", "bits/byte"):
        table.add_column(column, justify="right")
    for s in score(model, corpus, args.tokens):
        if s.project == "all":
            table.add_section()
        loss, bpb = f"{s.nats / s.tokens:.4f}", f"{s.bits_per_byte:.4f}"
        table.add_row(s.project, f"{s.tokens:,}", f"{s.bytes:,}", loss, bpb)
    Console().print(table)
