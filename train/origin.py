"""What a run began with, where that was not noise: the weights of a model trained before.

The run keeps that model's facts and curve (`began_with/`), so that a card can tell the whole story
when the model itself is gone or replaced by what was made of it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptx import runlog
from ptx.checkpoint import STEP_DIR, is_run, read_config
from ptx.config import ModelConfig
from ptx.corpus import Corpus
from ptx.errors import UserError

FOLDER, FACTS = "began_with", "facts.json"


@dataclass(frozen=True)
class Before:
    """What had been done when the run began: nothing, if it began with noise."""

    steps: int = 0
    tokens: int = 0
    hours: float = 0.0
    cpu_hours: float = 0.0
    model: str = ""
    """What it began with; empty for noise."""
    imported: dict[str, str] = field(default_factory=dict)
    """Where on the Hub the first of all came from, if it was not trained here."""
    metrics: tuple[dict[str, Any], ...] = ()

    def goes_on_with(self, metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The curve of both: the run's steps, tokens and seconds counted from the first's end."""
        offsets = {
            "step": self.steps,
            "tokens": self.tokens,
            "elapsed": self.hours * 3600,
            "cpu_seconds": self.cpu_hours * 3600,
        }
        for name in offsets:  # where the facts are rounded, the curve's own end
            ends = [record[name] for record in self.metrics if name in record]
            offsets[name] = ends[-1] if ends else offsets[name]
        later = [{k: _sum(v, offsets.get(k, 0)) for k, v in r.items()} for r in metrics]
        return [*self.metrics, *later]


def _sum(value: Any, offset: float) -> Any:
    return round(value + offset, 3) if offset else value


def shape_of(model: Path, corpus: Corpus) -> ModelConfig:
    """The shape of a model directory whose tokenizer wrote the data; refuses another's."""
    config = read_config(model)
    shape = ModelConfig.from_dict(config["model"])
    if config["tokenizer"].get("fingerprint") != corpus.tokenizer.fingerprint:
        mine, its = corpus.tokenizer.name, config["tokenizer"].get("name")
        its = f"another {its}" if its == mine else its
        raise UserError(
            f"{corpus.path} was tokenized with {mine}, and {model} reads {its}: prepare the data "
            f"with --tokenizer {model}"
        )
    if shape.vocab_size != corpus.tokenizer.n_vocab:
        raise UserError(
            f"{model}: vocab_size is {shape.vocab_size} and its tokenizer has "
            f"{corpus.tokenizer.n_vocab} tokens: one of them is another model's"
        )
    return shape


def _number(info: dict[str, Any], name: str) -> Any:
    """Of facts that anybody may have written."""
    value = info.get(name, 0)
    return value if type(value) in (int, float) and value >= 0 else 0


def copy(run: Path, other: Path) -> None:
    """Gives a copy of `run` what `run` began with."""
    if (run / FOLDER).exists():
        shutil.copytree(run / FOLDER, other / FOLDER)


def keep(model: Path, run: Path) -> None:
    """Writes into `run` what had been done to make the model that it begins with."""
    folder, done = run / FOLDER, made(model)
    folder.mkdir()
    facts = {name: value for name, value in vars(done).items() if name != "metrics"}
    (folder / FACTS).write_text(json.dumps(facts) + "\n")
    lines = (json.dumps(record) + "\n" for record in done.metrics)
    (folder / runlog.METRICS).write_text("".join(lines))


def before(run: Path) -> Before:
    """What `keep` wrote; nothing for a run that began with noise."""
    folder = run / FOLDER
    if not folder.exists():
        return Before()
    try:
        facts = json.loads((folder / FACTS).read_text())
        return Before(**facts, metrics=tuple(runlog.tail(folder / runlog.METRICS)[0]))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / FACTS} cannot be read ({error}): restore it") from None


def made(model: Path) -> Before:
    """All that made a model directory: a checkpoint's run, and what that had begun with."""
    model = model.resolve()
    info, run = read_config(model).get("info"), model.parent.parent
    info = info if isinstance(info, dict) else {}
    if not (STEP_DIR.fullmatch(model.name) and is_run(run)):
        return Before(
            **{name: _number(info, name) for name in ("steps", "tokens", "hours", "cpu_hours")},
            model=info.get("imported_from") or model.name,
            imported={n: str(info[n]) for n in ("imported_from", "revision") if n in info},
            metrics=tuple(runlog.tail(model / runlog.METRICS)[0]),
        )
    earlier, step = before(run), _number(info, "step")
    records = [r for r in runlog.tail(run / runlog.METRICS)[0] if r.get("step", 0) <= step]
    return Before(
        steps=earlier.steps + step,
        tokens=earlier.tokens + _number(info, "tokens"),
        hours=earlier.hours + _number(info, "seconds") / 3600,
        cpu_hours=earlier.cpu_hours + _number(info, "cpu_seconds") / 3600,
        model=f"{run.name} at step {step:,}",
        imported=earlier.imported,
        metrics=tuple(earlier.goes_on_with(records)),
    )
