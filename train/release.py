"""From a run's newest checkpoint to a model directory to share, with a card of real figures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any

import torch
import tyro

from ptx import runlog
from ptx.atomic import atomic_directory
from ptx.checkpoint import find_model, is_run, load_model, require_replaceable, write_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from train import settings as run_settings
from train.evaluate import Evaluate, Score, score
from train.heldout import held_out
from train.settings import Settings

CARD = Path(__file__).with_name("card.md")


@dataclass
class Release:
    """Write the newest checkpoint of a run as a model directory to share: bf16 weights, tokenizer,
    the run's metrics, and a model card with the bits per byte measured now, from those weights.

    Example: python train/run.py release runs/mini checkpoints/mini
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run directory."""
    out: Annotated[Path, tyro.conf.Positional]
    """The model directory to write."""
    tokens: int = Evaluate.tokens
    """Scored at most per held-out project, for the card; 0 scores all."""


def release(args: Release) -> None:
    run = args.run.parent if args.run.name == "latest" else args.run
    if not is_run(run):
        raise UserError(f"{args.run} is no run directory: give one that train/run.py made")
    require_replaceable(args.out)
    settings = run_settings.load(run)
    corpus = Corpus(settings.data)
    model, tokenizer, info = load_model(find_model(run))
    round_to_bf16(model)  # what is measured is what is stored
    scores = score(model, tokenizer, held_out(corpus, per_project=args.tokens))
    info = {
        "preset": settings.preset,
        "steps": info["step"],
        "tokens": info["tokens"],
        "hours": round(info["seconds"] / 3600, 2),
        "precision": info["precision"],
        "machine": info["machine"],
        "val_bpb": round(scores[-1].bits_per_byte, 4),
        "val_tokens_per_project": args.tokens,
    }
    command = corpus.manifest.get("command", {})
    info |= {name: command[name] for name in ("dataset", "commit") if name in command}  # the Hub's
    metrics, _ = runlog.tail(run / runlog.METRICS)
    samples, _ = runlog.tail(run / runlog.SAMPLES)
    card = render_card(args.out.name, model, corpus, settings, info, scores, samples)
    with atomic_directory(args.out) as directory:
        write_model(directory, model, tokenizer, info, torch.bfloat16)
        for record in metrics:
            runlog.append(directory / runlog.METRICS, record)
        (directory / "README.md").write_text(card)
    print(f"wrote {args.out}: {model.n_params():,} parameters, {info['val_bpb']} bits per byte")


@torch.no_grad()
def round_to_bf16(model: GPT) -> None:
    """Gives the parameters, not the rotary tables, the values that a bf16 file keeps."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))


def render_card(
    name: str,
    model: GPT,
    corpus: Corpus,
    settings: Settings,
    info: dict[str, Any],
    scores: list[Score],
    samples: list[dict[str, Any]],
) -> str:
    """The model card; every figure in it is an argument's."""
    trained_on = corpus.manifest["sources"]["train"]
    licences = Counter(p["licence"] or "not stated" for p in trained_on)
    rows = [f"| {s.project} | {s.tokens:,} | {s.bytes:,} | {s.bits_per_byte:.3f} |" for s in scores]
    settings_text = json.dumps(run_settings.as_json(settings), indent=2)
    last = samples[-1] if samples else {"prompt": "", "text": ""}
    return Template(CARD.read_text()).substitute(
        name=name,
        parameters=f"{model.n_params():,}",
        layers=model.config.n_layer,
        heads=model.config.n_head,
        width=model.config.d_model,
        context=model.config.context,
        tokenizer=corpus.tokenizer.name,
        vocabulary=f"{corpus.tokenizer.n_vocab:,}",
        preset=settings.preset,
        steps=f"{info['steps']:,}",
        tokens=f"{info['tokens']:,}",
        epochs=f"{info['tokens'] / len(corpus.train):.2f}",
        hours=info["hours"],
        precision=info["precision"],
        machine=info["machine"],
        source=corpus.manifest.get("command", {}).get("source", "adopt"),
        data=settings.data,
        projects=len(trained_on),
        megabytes=f"{corpus.manifest['splits']['train']['bytes'] / 1e6:.0f}",
        project_list=", ".join(f"{p['name']} {p['version']}" for p in trained_on),
        licence_list="; ".join(f"{k} ({n})" for k, n in licences.most_common()),
        bpb=info["val_bpb"],
        scored=info["val_tokens_per_project"] or "all",
        scores="\n".join(rows),
        settings=settings_text,
        sample=(last["prompt"] + last["text"]).replace("```", "` ` `"),
    )
