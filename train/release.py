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
from ptx.checkpoint import find_model, load_model, require_replaceable, write_model
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from train import origin, rundir, state
from train import settings as run_settings
from train.evaluate import Evaluate
from train.heldout import held_out
from train.origin import Before
from train.samples import KNOBS, Sample, page, quoted, write_samples
from train.score import Score, score
from train.settings import RECIPES, Settings

SIDES = {"val": "packages that validate", "test": "packages kept for a last test"}
TOLD = {"preset", "seed", "precision", "attention", "compile", "grammar", "loops"}
TOLD |= set(RECIPES["mini"])
"""Settings that the card tells: what decides the result, not where its files lay."""
CARD = Path(__file__).with_name("card.md")


@dataclass
class Release:
    """Write the newest checkpoint of a run as a model directory to share: bf16 weights, tokenizer,
    the run's metrics, samples, and a model card with the bits per byte measured now, from those
    weights.

    Example: python train/run.py release runs/mini checkpoints/mini
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The model directory to write."""
    tokens: int = Evaluate.tokens
    """Scored at most per held-out project, for the card; 0 scores all."""
    samples: int = 50
    """Continuations of fixed prompts, written to samples.md; the card quotes the first three."""
    average: Path | None = None
    """Take the mean of the weights and those of this model, of the same shape and tokenizer: the
    end of an earlier cooldown, which the run began with, say."""
    share: float = 0.5
    """Of the run's own weights in that mean, between 0 and 1."""
    note: str = ""
    """What else the card should say at its head."""


def release(args: Release) -> None:
    run = rundir.given(args.run)
    require_replaceable(args.out)
    if not 0.0 < args.share < 1.0:
        raise UserError(f"--share must lie between 0 and 1, not {args.share}")
    settings = run_settings.load(run)
    before, corpus, checkpoint = origin.before(run), Corpus(settings.data), find_model(run)
    state.require_its_data(run, state.read_progress(checkpoint), corpus)
    model, tokenizer, info = load_model(checkpoint)
    # the run may have gone on since
    logged = [r for r in runlog.tail(run / runlog.METRICS)[0] if r.get("step", 0) <= info["step"]]
    if args.average:
        average(model, tokenizer, args.average, args.share)
    round_to_bf16(model)  # what is measured is what is stored
    scores = {s: score(model, tokenizer, held_out(corpus, s, args.tokens)) for s in held(corpus)}
    info = {
        "preset": settings.preset,
        "steps": before.steps + info["step"],
        "tokens": before.tokens + info["tokens"],
        "hours": round(before.hours + info["seconds"] / 3600, 2),
        "cpu_hours": round(before.cpu_hours + info.get("cpu_seconds", 0.0) / 3600, 2),
        "precision": info["precision"],
        "machine": info["machine"],
        **{f"{s}_bpb": round(found[-1].bits_per_byte, 4) for s, found in scores.items()},
        "val_tokens_per_project": args.tokens,
    }
    command = corpus.manifest.get("command", {})
    info |= {name: command[name] for name in ("dataset", "commit") if name in command}  # the Hub's
    info |= before.imported
    metrics = before.goes_on_with(logged)
    samples = write_samples(model, tokenizer, args.samples)
    card = render_card(args, model, corpus, settings, info, before, scores, samples, curve(metrics))
    with atomic_directory(args.out) as directory:
        write_model(directory, model, tokenizer, info, torch.bfloat16)
        for record in metrics:
            runlog.append(directory / runlog.METRICS, record)
        (directory / "README.md").write_text(card)
        (directory / "samples.md").write_text(page(args.out.name, samples))
    print(f"wrote {args.out}: {model.n_params():,} parameters, {info['val_bpb']} bits per byte")


def curve(metrics: list[dict[str, Any]]) -> str:
    """Rows of the validation curve: the last, and before each one that had half its tokens."""
    found = [record for record in metrics if "val_bpb" in record]
    chosen: list[dict[str, Any]] = []
    for record in reversed(found):
        if not chosen or record["tokens"] <= chosen[-1]["tokens"] / 2:
            chosen.append(record)
    rows = (f"| {r['step']:,} | {r['tokens']:,} | {r['val_bpb']:.3f} |" for r in reversed(chosen))
    return "\n".join(rows)


def average(model: GPT, tokenizer: Tokenizer, other: Path, share: float) -> None:
    """Replaces the weights by their mean with another model's, in which their own have `share`.
    Between two ends of falling rates the loss is lower than at either (stochastic weight averaging;
    Izmailov et al., 2018)."""
    theirs, their_tokenizer, _ = load_model(other)
    if theirs.config != model.config or their_tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"--average {other} has another shape or tokenizer than the run: give a model whose "
            "weights can be averaged with its"
        )
    with torch.no_grad():
        for mine, its in zip(model.parameters(), theirs.parameters(), strict=True):
            mine.lerp_(its, 1 - share)


def averaged(args: Release) -> str:
    """The card's sentence about weights that are a mean."""
    if not args.average:
        return ""
    return (
        f"Its weights are a mean: {args.share:g} of the run's last ones and {1 - args.share:g} of "
        f"those of {args.average.name}. "
    )


def began_with(before: Before) -> str:
    """The card's sentence about a run that did not begin with noise."""
    if not before.model:
        return ""
    done = (
        f"The first {before.steps:,} steps ({before.tokens:,} tokens, {before.cpu_hours:.2f} hours "
        "of CPU time) were that model's. "
        if before.steps
        else "What that took is not counted here. "
    )
    return (
        f"It began with the weights of {before.model}. {done}The settings, the epochs and the "
        "projects below are of the steps since; what that model had seen is told by its own card. "
    )


def corrected(settings: Settings) -> str:
    """The card's sentences about a cooldown that had more than real text to learn from."""
    told = ""
    if settings.grammar:
        told += (
            f"At each step of its cooldown it also read {settings.grammar} more windows of "
            "training files, in which what it held likely and Python's parser would refuse was "
            "made less likely; their text was learnt. "
        )
    if settings.loops:
        told += (
            f"At each step of its cooldown it also read {settings.loops} more windows in which a "
            "passage stood again and again, and learnt not to write another copy. "
        )
    return told


def held(corpus: Corpus) -> tuple[str, ...]:
    """The sides that the card has figures of: the test first, where there is one."""
    return tuple(reversed(corpus.splits[1:]))


@torch.no_grad()
def round_to_bf16(model: GPT) -> None:
    """Gives the parameters, not the rotary tables, the values that a bf16 file keeps."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))


def render_card(
    args: Release,
    model: GPT,
    corpus: Corpus,
    settings: Settings,
    info: dict[str, Any],
    before: Before,
    scores: dict[str, list[Score]],
    samples: list[Sample],
    curve_rows: str,
) -> str:
    """The model card; every figure in it is an argument's."""
    trained_on = corpus.manifest["sources"]["train"]
    licences = Counter(p["licence"] or "not stated" for p in trained_on)
    rows = [
        f"| {s.project} ({split}) | {s.tokens:,} | {s.bytes:,} | {s.top1:.1%} | "
        f"{s.bits_per_byte:.3f} |"
        for split, found in scores.items()
        for s in found
    ]
    recipe = {k: v for k, v in run_settings.as_json(settings).items() if k in TOLD}
    first = next(iter(scores))
    return Template(CARD.read_text()).substitute(
        name=args.out.name,
        note=f"{args.note}\n\n" if args.note else "",
        parameters=f"{model.n_params():,}",
        layers=model.config.n_layer,
        heads=model.config.n_head,
        width=model.config.d_model,
        context=model.config.context,
        tokenizer=corpus.tokenizer.name,
        vocabulary=f"{corpus.tokenizer.n_vocab:,}",
        preset=settings.preset,
        steps=f"{info['steps']:,}",
        corrected=corrected(settings) + averaged(args),
        began=began_with(before),
        tokens=f"{info['tokens']:,}",
        epochs=f"{(info['tokens'] - before.tokens) / len(corpus.train):.2f}",
        hours=info["hours"],
        precision=info["precision"],
        machine=info["machine"],
        command=prepare_command(corpus),
        data=settings.data.name,
        projects=len(trained_on),
        megabytes=f"{corpus.manifest['splits']['train']['bytes'] / 1e6:.0f}",
        project_list=", ".join(f"{p['name']} {p['version']}" for p in trained_on),
        licence_list="; ".join(f"{k} ({n})" for k, n in licences.most_common()),
        bpb=info[f"{first}_bpb"],
        split=SIDES[first],
        cpu_hours=info["cpu_hours"],
        scored=info["val_tokens_per_project"] or "all",
        scores="\n".join(rows),
        settings=json.dumps(recipe, indent=2),
        curve=curve_rows,
        knobs=KNOBS,
        samples="\n\n".join(quoted(sample) for sample in samples[:3]),
    )


def prepare_command(corpus: Corpus) -> str:
    """What made the data; adopted files lie where they were."""
    source = corpus.manifest.get("command", {}).get("source", "adopt").split()[0]
    fractions = {k: corpus.manifest["split"].get(k) for k in ("val_fraction", "test_fraction")}
    told = (f" --{k.replace('_', '-')} {v}" for k, v in fractions.items() if v is not None)
    out = "" if source == "adopt" else f" --out data/{corpus.path.name}"
    return f"python prepare/run.py {source}{''.join(told)}{out}"
