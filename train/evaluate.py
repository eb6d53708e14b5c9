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
from train.device import autocast, pick_device

BATCH = 16


@dataclass
class Evaluate:
    """Bits per byte of a model on the held-out projects of a data directory.

    Every validation token is scored once. Windows of one full context advance by half of it and
    only their newer half counts, so that (but for a file's first tokens) each token is predicted
    from at least half a context. End-of-text tokens are paid for and count no byte.

    Example: python train/run.py evaluate checkpoints/mini --data data/installed
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A model directory, or a run directory for its newest checkpoint."""
    data: Path = Path("data/installed")
    """A data directory prepared with the model's tokenizer."""
    device: str = "auto"


@torch.inference_mode()
def validate(
    model: GPT, windows: tuple[np.ndarray, np.ndarray], byte_lengths: np.ndarray, precision: str
) -> tuple[float, float]:
    """Loss (nats per token) and bits per byte of fixed windows (x, y), each (N, T) ids."""
    model.eval()
    device = model.tok_emb.weight.device
    x, y = (torch.from_numpy(w) for w in windows)  # (N, T)
    nats = 0.0
    for i in range(0, len(x), BATCH):
        ids, targets = x[i : i + BATCH].to(device), y[i : i + BATCH].to(device)
        with autocast(precision, device):
            nats += float(model(ids, targets)) * targets.numel()
    model.train()
    return nats / y.numel(), nats / math.log(2) / float(byte_lengths[y.numpy()].sum())


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
    nats = np.concatenate(([0.0], token_nats(model, corpus.val)))
    lengths = tokenizer.byte_lengths[np.asarray(corpus.val)]
    table = Table(title=f"{args.model} on {args.data}: held-out projects")
    for column in ("project", "tokens", "bytes", "nats/token", "bits/byte"):
        table.add_column(column, justify="left" if column == "project" else "right")
    held_out = [(p["name"], p["tokens"]) for p in corpus.manifest["sources"]["val"]]
    position = 0
    for name, n in [*held_out, ("all", len(lengths))]:
        start = 0 if name == "all" else position
        if name == "all":
            table.add_section()
        span = slice(start, start + n)
        position = start + n
        bits = nats[span].sum() / math.log(2)
        table.add_row(
            name,
            f"{n:,}",
            f"{lengths[span].sum():,}",
            f"{nats[span].mean():.4f}",
            f"{bits / lengths[span].sum():.4f}",
        )
    Console().print(table)
