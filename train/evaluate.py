"""How good a model is on text it has not seen: bits per byte, and whether it writes Python."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from ptx.checkpoint import load_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import USUAL, Sampling
from ptx.tokenizer import Tokenizer
from train import baselines as opponents
from train import continuations as written
from train.beginnings import Beginnings
from train.device import pick_device
from train.grammar import Excerpt, Grammar, judge
from train.heldout import Text, files, held_out
from train.score import PROTOCOL, Score, score

AT_ONCE = 8
"""Excerpts that are read at once where nothing is learnt."""


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


def evaluate(args: Evaluate) -> None:
    """Prints a line per project and one for all; writes --json."""
    if args.continuations < 0:
        raise UserError(f"--continuations must be 0 or more, not {args.continuations}")
    if args.json and not args.json.parent.is_dir():
        raise UserError(f"--json: there is no directory {args.json.parent}: make it first")
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
        Console().print(sentence(closure))
        Console().print(
            f"Python's parser would refuse {refused:.3%} of what it expects after real text (at "
            f"temperature {USUAL.temperature}, likely tokens alone)"
        )
        told = {name: getattr(args, name) for name in ("temperature", "top_p", "min_p")}
        told["refused_after_real_text"] = round(refused, 6)
        report["continuations"] = told | written.as_dict(closure)
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
        f"{found.continuations} continuations of {written.NEW_TOKENS} tokens: "
        f"{found.statements:.1%} parse up to their last complete statement (another file's text in "
        f"their place: {found.statements_control:.1%}), {found.parsed:.1%} up to their last whole "
        f"line (another file's: {found.parsed_control:.1%}; where Python's parser may refuse "
        f"tokens, {found.refused:.2%} as many as it lets pass: {found.parsed_python:.1%}); "
        f"{found.brackets:.1%} of the brackets are closed, "
        f"{found.indentation:.1%} of the lines stand at a depth that is allowed; "
        f"{found.repeated:.1%} of the lines repeat one before ({found.repeated_control:.1%} of "
        "the other files')"
    )


def held_out_excerpts(
    texts: list[Text], tokenizer: Tokenizer, context: int, count: int, seed: int
) -> list[Excerpt]:
    """`count` pieces of held-out files; refuses what is no Python, or too short."""
    ids = np.concatenate([text.ids(tokenizer) for text in texts])
    beginnings = Beginnings(ids, tokenizer, "--continuations")
    return Grammar(beginnings, context, seed, range(count)).excerpts(0)


@torch.no_grad()
def refused_after(model: GPT, tokenizer: Tokenizer, excerpts: list[Excerpt]) -> float:
    """The probability of a token that Python refuses, on average after each of the tokens that are
    judged, at the usual temperature; of likely tokens alone."""
    found = 0.0
    for i in range(0, len(excerpts), AT_ONCE):
        found += judge(model, tokenizer, excerpts[i : i + AT_ONCE]).refused
    return found / sum(excerpt.n_judged for excerpt in excerpts)
