"""What a run began with, where that was not noise: the weights of a model trained before.

The run keeps that model's facts and curve (`began_with/`), so that a card can tell the whole story
when the model itself is gone or replaced by what was made of it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptx import runlog
from ptx.checkpoint import read_config
from ptx.config import ModelConfig
from ptx.corpus import Corpus
from ptx.errors import UserError
from ptx.tokenizer import CONFIG

FOLDER = "began_with"


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
    """Copies the facts and the curve of the model that `run` begins with into it."""
    folder = run / FOLDER
    folder.mkdir()
    shutil.copy(model / CONFIG, folder / CONFIG)
    released, of_its_run = model / runlog.METRICS, model.parent.parent / runlog.METRICS
    if source := next((path for path in (released, of_its_run) if path.exists()), None):
        shutil.copy(source, folder / runlog.METRICS)
        runlog.truncate(folder / runlog.METRICS, before(run).steps)


def before(run: Path) -> Before:
    """What `keep` kept, summed up."""
    folder = run / FOLDER
    if not folder.exists():
        return Before()
    info = read_config(folder).get("info", {})
    return Before(
        steps=info.get("steps", info.get("step", 0)),
        tokens=info.get("tokens", 0),
        hours=info.get("hours", info.get("seconds", 0.0) / 3600),
        cpu_hours=info.get("cpu_hours", info.get("cpu_seconds", 0.0) / 3600),
        metrics=tuple(runlog.tail(folder / runlog.METRICS)[0]),
    )
