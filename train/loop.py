"""The training loop: from settings to a run directory.

runs/<name>/config.json  metrics.jsonl  samples.jsonl  checkpoints/step_NNNNNN/
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from ptx import runlog
from ptx.config import ModelConfig, preset
from ptx.corpus import Corpus
from ptx.engine import generate
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import Sampling
from train import settings as run_settings
from train import state
from train.device import autocast, describe_machine, pick_device, pick_precision
from train.evaluate import validate
from train.optim import make_optimizers, rate, set_rate
from train.progress import ProgressLine
from train.settings import Settings
from train.state import Progress

SAMPLE_PROMPTS = ("def ", "class ", "import ", "for i in range(")
SAMPLE_TOKENS = 64
SAMPLING = Sampling(temperature=0.8, top_p=0.95)


def train(settings: Settings) -> Path:
    """Runs, or resumes, a training run to its last step; returns its directory."""
    if settings.resume and replace(settings, resume=None) != Settings():
        raise UserError("--resume takes the run's own settings: leave the other options out")
    run = Run.resume(settings.resume) if settings.resume else Run.start(settings)
    print(run.describe(), flush=True)
    with stop_signals() as stop, ProgressLine(run.settings.steps, run.progress.step) as line:
        while run.progress.step < run.settings.steps and not stop.requested:
            line.update(run.step())
    run.save()
    done = run.progress.step >= run.settings.steps
    again = "" if done else f"; continue with: python train/run.py --resume {run.directory}"
    print(f"{'finished' if done else 'stopped'} at step {run.progress.step:,}{again}")
    print(f'try it: python -m ptx --model {run.directory}/latest "class Stack:"')
    return run.directory


@dataclass
class Run:
    """A training run in memory: everything one step needs."""

    settings: Settings
    directory: Path
    corpus: Corpus
    model: GPT
    optimizers: list[torch.optim.Optimizer]
    progress: Progress
    saved_at: int = -1

    @classmethod
    def start(cls, settings: Settings) -> Run:
        """A new run in a directory of its own."""
        settings = run_settings.complete(settings)
        device = pick_device(settings.device)
        settings = replace(settings, precision=pick_precision(settings.precision, device))
        corpus = Corpus(settings.data)
        shape = shape_for(settings.preset, corpus)
        # Both refuse data that is too short, before anything is written.
        corpus.batch(0, settings.batch_size, shape.context, settings.seed)
        corpus.val_windows(shape.context, settings.val_windows)
        directory = new_directory(settings)
        torch.manual_seed(settings.seed)
        model = GPT(shape).to(device).train()
        run_settings.save(settings, directory)
        progress = Progress(data=train_sha256(corpus))
        return cls(settings, directory, corpus, model, make_optimizers(model, settings), progress)

    @classmethod
    def resume(cls, directory: Path) -> Run:
        """The run in `directory` as its newest checkpoint left it."""
        settings = run_settings.load(directory)
        corpus = Corpus(settings.data)
        progress = state.read_progress(directory)
        if progress.data != train_sha256(corpus):
            raise UserError(
                f"{settings.data} is not the data that {directory} was trained on: restore it, or "
                "start a new run"
            )
        model = GPT(shape_for(settings.preset, corpus)).to(pick_device(settings.device)).train()
        run = cls(settings, directory, corpus, model, make_optimizers(model, settings), progress)
        state.restore(directory, model, run.optimizers)
        run.saved_at = progress.step
        for log in (runlog.METRICS, runlog.SAMPLES):
            runlog.truncate(directory / log, run.progress.step)
        return run

    @property
    def device(self) -> torch.device:
        return self.model.tok_emb.weight.device

    def describe(self) -> str:
        s, tokens = self.settings, self.settings.batch_size * self.model.config.context
        return (
            f"{self.directory}: {s.preset}, {self.model.n_params():,} parameters, {s.optimizer}, "
            f"{s.precision} on {self.device}; {s.steps:,} steps of {tokens:,} tokens = "
            f"{s.steps * tokens / len(self.corpus.train):.2f} epochs"
        )

    def step(self) -> dict[str, Any]:
        """One optimizer step with all that is due after it; returns its metrics."""
        started, s = time.perf_counter(), self.settings
        x, y = self.corpus.batch(
            self.progress.step, s.batch_size, self.model.config.context, s.seed
        )  # (B, T) each
        set_rate(self.optimizers, rate(self.progress.step, s))
        loss, grad_norm = float(self._accumulate(x, y)), float(self._clip())
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise UserError(
                f"the loss became {loss} and the gradient norm {grad_norm} at step "
                f"{self.progress.step + 1}: start again with a smaller --lr and --muon-lr"
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        metrics = self._account(y, loss, grad_norm, started)
        self._after_step()
        return metrics

    def _accumulate(self, x: np.ndarray, y: np.ndarray) -> Tensor:
        """Adds up the gradients of the whole batch; returns its mean loss."""
        parts = self.settings.batch_size // self.settings.micro_batch
        total = torch.zeros((), device=self.device)
        for ids, targets in zip(np.split(x, parts), np.split(y, parts), strict=True):
            with autocast(self.settings.precision, self.device):
                loss = self.model(self._to_device(ids), self._to_device(targets)) / parts
            loss.backward()
            total += loss.detach()
        return total

    def _to_device(self, ids: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(ids)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _clip(self) -> Tensor:
        if self.settings.clip:
            return clip_grad_norm_(self.model.parameters(), self.settings.clip)
        return get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def _account(
        self, y: np.ndarray, loss: float, grad_norm: float, started: float
    ) -> dict[str, Any]:
        p = self.progress
        seconds = time.perf_counter() - started
        p.step += 1
        p.tokens += y.size
        p.elapsed += seconds
        bits = loss * y.size / math.log(2)
        metrics = {
            "step": p.step,
            "tokens": p.tokens,
            "loss": round(loss, 6),
            "bpb": round(bits / float(self.corpus.tokenizer.byte_lengths[y].sum()), 6),
            "lr": self.optimizers[-1].param_groups[0]["lr"],
            "grad_norm": round(grad_norm, 6),
            "tokens_per_s": round(y.size / seconds, 1),
            "elapsed": round(p.elapsed, 3),
        }
        runlog.append(self.directory / runlog.METRICS, metrics)
        return metrics

    def _after_step(self) -> None:
        s, step = self.settings, self.progress.step
        last = step == s.steps
        if last or step % s.val_every == 0:
            self.validate()
        if last or step % s.sample_every == 0:
            self.sample()
        if last or step % s.save_every == 0:
            self.save()

    def validate(self) -> None:
        windows = self.corpus.val_windows(self.model.config.context, self.settings.val_windows)
        lengths = self.corpus.tokenizer.byte_lengths
        loss, bpb = validate(self.model, windows, lengths, self.settings.precision)
        p = self.progress
        runlog.append(
            self.directory / runlog.METRICS,
            {
                "step": p.step,
                "tokens": p.tokens,
                "val_loss": round(loss, 6),
                "val_bpb": round(bpb, 6),
                "elapsed": round(p.elapsed, 3),
            },
        )

    def sample(self) -> None:
        self.model.eval()
        for prompt in SAMPLE_PROMPTS:
            steps = generate(
                self.model,
                self.corpus.tokenizer,
                prompt,
                SAMPLING,
                SAMPLE_TOKENS,
                self.settings.seed,
            )
            text = "".join(step.text for step in steps)
            record = {"step": self.progress.step, "prompt": prompt, "text": text}
            runlog.append(self.directory / runlog.SAMPLES, record)
        self.model.train()

    def save(self) -> None:
        """Writes a checkpoint, unless this step has one."""
        if self.saved_at == self.progress.step:
            return
        state.save(
            self.directory,
            self.model,
            self.corpus.tokenizer,
            self.optimizers,
            self.progress,
            self.info(),
            self.settings.keep,
        )
        self.saved_at = self.progress.step

    def info(self) -> dict[str, Any]:
        """What a checkpoint says about itself."""
        p = self.progress
        return {
            "preset": self.settings.preset,
            "step": p.step,
            "tokens": p.tokens,
            "seconds": round(p.elapsed, 1),
            "precision": self.settings.precision,
            "machine": describe_machine(self.device),
        }


def train_sha256(corpus: Corpus) -> str:
    return corpus.manifest["splits"]["train"]["sha256"]


def shape_for(name: str, corpus: Corpus) -> ModelConfig:
    """The preset with the data's vocabulary; `reference` is fixed to its own."""
    shape = preset(name)
    if name != "reference":
        return replace(shape, vocab_size=corpus.tokenizer.n_vocab)
    if shape.vocab_size != corpus.tokenizer.n_vocab:
        raise UserError(
            f"the reference preset reads o200k_base and {corpus.path} was tokenized with "
            f"{corpus.tokenizer.name}: prepare data with --tokenizer o200k_base"
        )
    return shape


def new_directory(settings: Settings) -> Path:
    """Makes runs/<name>; without a name the preset's, numbered from the second run on."""
    if settings.name is not None:
        directory = settings.runs / settings.name
        if directory.exists():
            raise UserError(
                f"{directory} exists: continue it with --resume {directory}, or choose another "
                "--name"
            )
    else:
        number = 1
        while (directory := settings.runs / _numbered(settings.preset, number)).exists():
            number += 1
    (directory / "checkpoints").mkdir(parents=True)
    return directory


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


class Stop:
    requested = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask the loop to end after the step at hand; a second one ends at once."""
    stop = Stop()
    before: dict[int, Any] = {}

    def request(number: int, _frame: object) -> None:
        stop.requested = True
        signal.signal(number, before[number])
        print("\nfinishing this step and saving; once more to quit at once", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
