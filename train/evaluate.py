"""How good a model is on text it has not seen: bits per byte, and whether it writes Python."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
from ptx.sampling import USUAL, Sampling
from ptx.tokenizer import Tokenizer
from train import baselines as opponents
from train import continuations as written
from train.device import pick_device
from train.grammar import held_out_excerpts, refused_after
from train.heldout import Text, files, held_out
from train.kernels import Kernels, running
from train.parallel import World

BATCH = 16
PROTOCOL = (
    "Windows of one full context advance by half of it and only their newer half counts, so that "
    "(but for a project's first tokens) every token is predicted from at least half a context. "
    "End-of-text tokens are paid for and count no byte."
)


@dataclass
class Evaluate:
    """Bits per byte of a model on the held-out projects of a data directory, or on your own code.

    Of each project the first --tokens are scored, each once. Windows of one full context advance
    by half of it and only their newer half counts, so that (but for a project's first tokens)
    every token is predicted from at least half a context. End-of-text tokens are paid for and
    count no byte. Every model reads the same text, each with its own tokenizer.

    For example:

    python train/run.py evaluate checkpoints/mini

    python train/run.py evaluate checkpoints/mini --text ~/my/project

    python train/run.py evaluate checkpoints/mini --split test --baselines --continuations 200
    --against runs/reference --json mini.json
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A model directory, or a run directory for its newest checkpoint."""
    data: Path = Path("data/installed")
    """A prepared data directory: its held-out projects are scored, its training text teaches the
    baselines."""
    split: Literal["val", "test"] = "val"
    """The held-out projects: those by which choices were made, or those kept for a last test."""
    text: Path | None = None
    """A Python file, or a folder of them, to score instead of the data's held-out projects."""
    tokens: int = 50_000
    """Scored at most per project of the data; 0 scores all. Of --text all is scored."""
    against: tuple[Path, ...] = ()
    """Other models or runs, scored on the same text."""
    baselines: bool = False
    """Also what xz -9, zstd -19 with a dictionary of the training text, and an order-5 byte n-gram
    take."""
    continuations: int = 0
    """So many held-out files are continued for 256 tokens: the share that still
    parses, and that closes its brackets and keeps its indentation. 200 say something. At as many
    places of those files Python's parser also reads what would come: how much of it, after real
    text, the parser would refuse."""
    temperature: float = USUAL.temperature
    """Of the continuations: lower ones parse more often, and repeat themselves."""
    top_p: float = USUAL.top_p
    """Of the continuations: the fewest tokens that hold this probability may come; 1 means all."""
    min_p: float = USUAL.min_p
    """Of the continuations: tokens at least this share as likely as the likeliest may come."""
    seed: int = 0
    """Of the continuations."""
    json: Path | None = None
    """Write everything to this file too."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps ..."""


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


def evaluate(args: Evaluate) -> None:
    """Prints a line per project and one for all; writes --json."""
    if args.continuations < 0:
        raise UserError(f"--continuations must be 0 or more, not {args.continuations}")
    sampling = Sampling(args.temperature, top_p=args.top_p, min_p=args.min_p)
    device = pick_device(args.device)
    model, tokenizer, _ = load_model(args.model, device)
    others = [(path, *load_model(path, device)[:2]) for path in args.against]
    needs_data = args.text is None or args.baselines
    corpus = Corpus(args.data) if needs_data else None
    texts = files(args.text) if args.text else held_out(corpus, args.split, args.tokens)
    if args.continuations:  # refuses texts that are too short before all is scored
        begun = written.prompts(texts, args.continuations, args.seed)
        excerpts = held_out_excerpts(
            texts, tokenizer, model.config.context, args.continuations, args.seed
        )
    scores = score(model, tokenizer, texts)
    columns = {str(path): bits(score(m, t, texts)) for path, m, t in others}
    if args.baselines:
        found = opponents.baselines(corpus, texts)
        columns |= {name: [*paid, sum(paid)] for name, paid in found.items()}
    sizes = [s.bytes for s in scores]
    rates = {name: [b / n for b, n in zip(paid, sizes)] for name, paid in columns.items()}
    source = args.text or f"the {args.split} projects of {args.data}"
    Console().print(table(f"{args.model} on {source}", scores, rates))
    report = {
        "model": str(args.model), "text": str(source), "protocol": PROTOCOL,
        "tokens_per_project": None if args.text else args.tokens,
        "projects": [as_dict(s, {n: r[i] for n, r in rates.items()}) for i, s in enumerate(scores)],
    }  # fmt: skip
    if args.continuations:
        closure = written.measure(begun, model, tokenizer, args.seed, sampling)
        refused = refused_after(model, tokenizer, excerpts)
        told = {name: getattr(args, name) for name in ("temperature", "top_p", "min_p")}
        told["refused_after_real_text"] = round(refused, 6)
        report["continuations"] = told | written.as_dict(closure)
        Console().print(sentence(closure))
        Console().print(
            f"Python's parser would refuse {refused:.3%} of what it expects after real text (at "
            f"temperature {USUAL.temperature}, likely tokens alone)"
        )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def bits(scores: list[Score]) -> list[float]:
    return [s.nats / math.log(2) for s in scores]


def table(title: str, scores: list[Score], rates: dict[str, list[float]]) -> Table:
    """rates: further columns of bits per byte, by name."""
    shown = Table("project", title=title)
    for column in ("tokens", "bytes", "top-1", "nats/token", "bits/byte", *rates):
        shown.add_column(column, justify="right")
    for i, s in enumerate(scores):
        if s.project == "all":
            shown.add_section()
        own = f"{s.top1:.1%}", f"{s.nats / max(1, s.tokens):.4f}", f"{s.bits_per_byte:.4f}"
        theirs = (f"{rate[i]:.4f}" for rate in rates.values())
        shown.add_row(s.project, f"{s.tokens:,}", f"{s.bytes:,}", *own, *theirs)
    return shown


def as_dict(s: Score, rates: dict[str, float]) -> dict[str, Any]:
    return {
        "project": s.project, "tokens": s.tokens, "bytes": s.bytes, "top1": round(s.top1, 4),
        "bits_per_byte": round(s.bits_per_byte, 4),
        "against": {name: round(rate, 4) for name, rate in rates.items()},
    }  # fmt: skip


def sentence(found: written.Closure) -> str:
    """The continuations' figures in words."""
    return (
        f"{found.continuations} continuations of {written.NEW_TOKENS} tokens: {found.parsed:.1%} "
        f"parse up to their last complete statement (another file's text in their place: "
        f"{found.parsed_control:.1%}; where Python's parser may refuse tokens, {found.refused:.2%} "
        f"as many as it lets pass: {found.parsed_python:.1%}); "
        f"{found.brackets:.1%} of the brackets are closed, "
        f"{found.indentation:.1%} of the lines stand at a depth that is allowed; "
        f"{found.repeated:.1%} of the lines repeat one before ({found.repeated_control:.1%} of "
        "the other files')"
    )
