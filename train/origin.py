"""What a run began with, where that was not noise: the weights of a model trained before.

The run keeps that model's facts and curve (`began_with/`), so that a card can tell the whole story
when the model itself is gone or replaced by what was made of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
    metrics: tuple[dict[str, Any], ...] = ()

    def goes_on_with(self, metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The curve of both: the run's steps, tokens and seconds counted from the first's end."""
        offsets = {
            "step": self.steps,
            "tokens": self.tokens,
            "elapsed": self.hours * 3600,
            "cpu_seconds": self.cpu_hours * 3600,
        }
        later = [{k: _sum(v, offsets.get(k, 0)) for k, v in r.items()} for r in metrics]
        return [*self.metrics, *later]


def _sum(value: Any, offset: float) -> Any:
    return round(value + offset, 3) if offset else value


def shape_of(model: Path, corpus: Corpus) -> ModelConfig:
    """The shape of a model directory whose tokenizer wrote the data; refuses another's."""
    config = read_config(model)
    if config["tokenizer"].get("fingerprint") != corpus.tokenizer.fingerprint:
        raise UserError(
            f"{corpus.path} was tokenized with {corpus.tokenizer.name}, and {model} reads "
            f"{config['tokenizer'].get('name')}: prepare the data with --tokenizer {model}"
        )
    return ModelConfig.from_dict(config["model"])


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
    info, run = read_config(model).get("info", {}), model.parent.parent
    if not (STEP_DIR.fullmatch(model.name) and is_run(run)):
        kept = {name: info.get(name, 0) for name in ("steps", "tokens", "hours", "cpu_hours")}
        return Before(**kept, metrics=tuple(runlog.tail(model / runlog.METRICS)[0]))
    earlier, step = before(run), info.get("step", 0)
    records = [r for r in runlog.tail(run / runlog.METRICS)[0] if r.get("step", 0) <= step]
    return Before(
        steps=earlier.steps + step,
        tokens=earlier.tokens + info.get("tokens", 0),
        hours=earlier.hours + info.get("seconds", 0.0) / 3600,
        cpu_hours=earlier.cpu_hours + info.get("cpu_seconds", 0.0) / 3600,
        metrics=tuple(earlier.goes_on_with(records)),
    )
