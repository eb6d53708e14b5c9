"""The training loop: from settings to a run directory."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from ptx import runlog
from ptx.checkpoint import WEIGHTS, find_model, load_weights, read_config
from ptx.config import ModelConfig, preset
from ptx.corpus import Corpus
from ptx.decoder import Decoder
from ptx.engine import generate
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import USUAL
from ptx.stream import Limits
from ptx.unbreakable import unbreakable_stdout
from train import kernels, origin, rundir, state
from train import settings as run_settings
from train.batches import Batch, batches
from train.corrections import corrections_of
from train.device import describe_machine, keep_freed_memory, peak_memory, pick_device
from train.optim import cooling, make_optimizers, rate, set_rate
from train.parallel import World, accumulating, launched, whole, world
from train.progress import ProgressLine
from train.score import validate
from train.settings import Settings
from train.signals import stop_signals
from train.state import Progress
from train.track import TensorBoard, summary_writer

SAMPLE_PROMPTS = ("def ", "class ", "import ", "for i in range(")
SAMPLE_LIMITS = Limits(max_tokens=64)
EXPLODED = 1.5
"""Times the loss of guessing every token alike: nothing that still learns gets there."""


def train(settings: Settings) -> Path:
    """Runs, or resumes, a training run to its last step; returns its directory."""
    keep_freed_memory()
    if settings.resume:
        settings = run_settings.resumed(rundir.given(settings.resume), settings, launched())
    with unbreakable_stdout(), world(settings.device, settings.shard) as processes:
        if settings.resume:
            run = Run.resume(settings.resume, processes, settings)
        else:
            run = Run.start(settings, processes)
        with closing(run):
            run.to_the_end()
    return run.directory


@dataclass
class Run:
    """A training run in memory: everything one step needs. Close it when done."""

    settings: Settings
    directory: Path
    world: World
    corpus: Corpus
    model: GPT
    progress: Progress
    lock: FileLock | None

    def __post_init__(self) -> None:
        s, shape = self.settings, self.model.config
        self.kernels = kernels.kernels_of(s)
        self.peak_flops = kernels.matmul_peak(self.kernels.precision, self.world.device)
        kernels.prepare(self.model, self.kernels)
        self.forward = self.world.wrap(self.model)
        self.optimizers = make_optimizers(self.model, s)
        self.batches = batches(
            self.corpus, self.world, s.batch_size, shape.context, s.seed, self.progress.step
        )
        self.corrections = corrections_of(s, self.world, self.corpus, shape)
        tracked = s.track == "tensorboard" and self.world.first
        self.tracker = TensorBoard(self.directory, self.progress.step) if tracked else None
        self.saved_at = -1

    @classmethod
    def start(cls, settings: Settings, world: World | None = None) -> Run:
        """A new run in a directory of its own."""
        world = world or World(pick_device(settings.device))
        settings = run_settings.complete(settings)
        corpus = Corpus(settings.data)
        given = find_model(settings.init_from) if settings.init_from else None
        shape = shape_for(settings.preset, corpus, given)
        # These refuse what cannot work before anything is written.
        corpus.batch(0, settings.batch_size, shape.context, settings.seed)
        corpus.val_windows(shape.context, settings.val_windows)
        world.rows(settings.batch_size)
        corrections_of(settings, world, corpus, shape)
        if settings.track == "tensorboard":
            summary_writer()
        # The first process's checkpoint, for all: a run that still trains has others by and by.
        settings = settled(replace(settings, init_from=given), shape, world)
        model = first_model(settings, shape, world, settings.init_from)
        directory = rundir.create(settings) if world.first else None
        directory = Path(world.from_first(str(directory)))
        lock = rundir.hold(directory) if world.first else None
        progress = Progress(data=state.train_sha256(corpus))
        return cls(settings, directory, world, corpus, model, progress, lock)

    @classmethod
    def resume(
        cls, directory: Path, world: World | None = None, settings: Settings | None = None
    ) -> Run:
        """The run in `directory` as its newest checkpoint left it, or at its start without one.

        settings: the run's own, but for what belongs to the machine.
        """
        settings = settings or run_settings.load(directory)
        world = world or World(pick_device(settings.device))
        with ExitStack() as undo:
            lock = rundir.hold(directory) if world.first else None
            if lock:
                undo.callback(lock.release)
            run = cls._restored(directory, world, settings, lock)
            undo.pop_all()
        return run

    @classmethod
    def _restored(
        cls, directory: Path, world: World, settings: Settings, lock: FileLock | None
    ) -> Run:
        world.rows(settings.batch_size)  # refuses a number of processes that cannot share it
        corpus = Corpus(settings.data)
        # The first process's, for all: other machines may see an older list of a shared directory.
        newest = world.from_first(str(rundir.newest_checkpoint(directory) or ""))
        checkpoint = Path(newest) if newest else None
        given = checkpoint or (find_model(settings.init_from) if settings.init_from else None)
        if checkpoint:
            with state.readable(checkpoint):
                read_config(checkpoint)
        shape = shape_for(settings.preset, corpus, given)
        settings = settled(settings, shape, world)  # this machine may lack a compiler
        progress = Progress(data=state.train_sha256(corpus))
        with state.readable(checkpoint):
            model = first_model(settings, shape, world, given)
            if checkpoint:
                progress = state.read_progress(checkpoint)
        state.require_its_data(directory, progress, corpus)
        world.wait()  # until all have read: the first is about to write
        run = cls(settings, directory, world, corpus, model, progress, lock)
        if checkpoint:
            with state.readable(checkpoint):
                state.restore_optimizers(checkpoint, model, run.optimizers)
            run.saved_at = progress.step
        if world.first:
            state.clean(directory)
            for log in (runlog.METRICS, runlog.SAMPLES):
                runlog.truncate(directory / log, progress.step)
        return run

    def close(self) -> None:
        """Lets go of the run's directory; another process may go on with it."""
        self.batches.close()
        if self.tracker:
            self.tracker.close()
        if self.lock:
            self.lock.release()

    def describe(self) -> str:
        s, tokens = self.settings, self.settings.batch_size * self.model.config.context
        together = f" of {self.world.size} processes" if self.world.size > 1 else ""
        return (
            f"{self.directory}: {s.preset}, {self.model.n_params():,} parameters, {s.optimizer}, "
            f"{self.kernels}, on {self.world.device}{together}; {s.steps:,} steps of {tokens:,} "
            f"tokens = {s.steps * tokens / len(self.corpus.train):.2f} epochs"
        )

    def to_the_end(self) -> None:
        """Every step that is left, or those until a signal asks to stop; then a checkpoint."""
        s, first = self.settings, self.world.first
        if first:
            print(self.describe(), flush=True)
        line = ProgressLine(s.steps, self.progress.step, first)
        with stop_signals(self.world) as stop:
            with closing(line):
                while self.progress.step < s.steps and not self.world.any(stop.requested):
                    line.update(self.step())
                    if stop.paused and not stop.requested:  # a terminal that closes tells both
                        stop.paused = False
                        line.note("paused by SIGSTOP during this step")
            self.save()
        if first:
            done = self.progress.step >= s.steps
            print(f"{'finished' if done else 'stopped'} at step {self.progress.step:,}")
            if not done:
                print(f"continue with: python train/run.py --resume {self.directory}")
            print(f'try it: python -m ptx --model {self.directory}/latest "class Stack:"')

    def step(self) -> dict[str, Any]:
        """One optimizer step with all that is due after it; returns its metrics."""
        started, p = time.perf_counter(), self.progress
        cpu_before = time.process_time()
        # What is random in a step depends on nothing but its number, so that resuming, validating
        # and sampling cannot change it.
        seed_all(self.settings.seed, p.step, self.world.rank)
        set_rate(self.optimizers, rate(p.step, self.settings))
        batch = next(self.batches)
        corrected = self._correct()
        loss, n_bytes = self._accumulate(batch)
        grad_norm = self._clip()
        self._refuse_divergence(loss, grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        [cpu] = self.world.sum(time.process_time() - cpu_before)
        p.cpu_seconds += cpu
        metrics = self._account(loss, n_bytes, grad_norm, time.perf_counter() - started, corrected)
        self._after_step()
        return metrics

    def _accumulate(self, batch: Batch) -> tuple[float, float]:
        """Adds up the gradients of the whole batch, over all processes; its mean loss and bytes."""
        rows = self._micro_batch
        parts = len(batch.ids) // rows
        total = torch.zeros((), device=self.world.device)
        for i, (ids, targets) in enumerate(zip(batch.ids.split(rows), batch.targets.split(rows))):
            with accumulating(self.forward, last=i == parts - 1):
                with kernels.running(self.kernels, self.world.device):
                    loss = self.forward(self._to_device(ids), self._to_device(targets)) / parts
                loss.backward()
            total += loss.detach()
        loss, n_bytes = self.world.sum(float(total), batch.n_bytes)
        return loss / self.world.size, n_bytes

    def _correct(self) -> dict[str, float]:
        """Adds the gradients of all corrections, during a cooldown; for each the probability of
        what is wrong at one of its places, on average."""
        step, found = self.progress.step, {}
        if not cooling(step, self.settings):
            return found
        for correction in self.corrections.at(step, self.model):
            [places] = self.world.sum(correction.n_places)
            wrong = 0.0
            for first in range(0, len(correction.windows), self._micro_batch):
                windows = correction.windows[first : first + self._micro_batch]
                with accumulating(self.forward, last=False):
                    with (
                        torch.compiler.set_stance("force_eager"),
                        kernels.running(self.kernels, self.world.device),
                    ):
                        loss, likely = correction.teach(windows)
                    (loss * self.world.size / places).backward()
                wrong += likely
            [wrong] = self.world.sum(wrong)
            found[correction.figure] = round(wrong / places, 6)
        return found

    @property
    def _micro_batch(self) -> int:
        """Sequences that this process reads at once."""
        mine = self.world.rows(self.settings.batch_size)
        return run_settings.largest_part(mine.stop - mine.start, self.settings.micro_batch)

    def _to_device(self, ids: Tensor) -> Tensor:
        # Apple's GPU may read the source after it was freed.
        return ids.to(self.world.device, non_blocking=self.world.device.type == "cuda")

    def _clip(self) -> float:
        parameters = list(self.model.parameters())
        if self.settings.clip:
            return float(whole(clip_grad_norm_(parameters, self.settings.clip)))
        return float(whole(get_total_norm([p.grad for p in parameters if p.grad is not None])))

    def _refuse_divergence(self, loss: float, grad_norm: float) -> None:
        limit = EXPLODED * math.log(self.model.config.vocab_size)
        if math.isfinite(loss) and math.isfinite(grad_norm) and loss < limit:
            return
        found = f"the loss is {loss:.4g}, the gradient norm {grad_norm:.4g}"
        raise self._diverged(self.progress.step + 1, found)

    def _diverged(self, step: int, found: str) -> UserError:
        rates = ", ".join(f"--{k.replace('_', '-')} {v:.3g}" for k, v in self._rates().items())
        return UserError(
            f"training diverged at step {step}: {found}, at {rates}; {self._last_good()}, and a "
            "new run should take smaller rates"
        )

    def _last_good(self) -> str:
        good = rundir.newest_checkpoint(self.directory)
        return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"

    def _rates(self) -> dict[str, float]:
        """The learning rates at hand, by the settings' names."""
        names = ("muon_lr", "lr") if len(self.optimizers) > 1 else ("lr",)
        return {n: o.param_groups[0]["lr"] for n, o in zip(names, self.optimizers, strict=True)}

    def _account(
        self,
        loss: float,
        n_bytes: float,
        grad_norm: float,
        seconds: float,
        corrected: dict[str, float],
    ) -> dict[str, Any]:
        s, p, context = self.settings, self.progress, self.model.config.context
        tokens = s.batch_size * context
        beside = (s.grammar + s.loops) * context if cooling(p.step, s) else 0  # that teach, too
        p.step += 1
        p.tokens += tokens
        p.elapsed += seconds
        each = kernels.flops_per_token(self.model.config)
        flops = each * (tokens + beside) / seconds / self.world.size
        memory = peak_memory(self.world.device)
        metrics = {
            "step": p.step,
            "tokens": p.tokens,
            "loss": round(loss, 6),
            "bpb": round(loss * tokens / math.log(2) / n_bytes, 6),
            **corrected,
            **self._rates(),
            "grad_norm": round(grad_norm, 6),
            "tokens_per_s": round(tokens / seconds, 1),
            "mfu": round(flops / self.peak_flops, 4),
            "memory_gib": None if memory is None else round(memory, 3),
            "elapsed": round(p.elapsed, 3),
            "cpu_seconds": round(p.cpu_seconds, 2),
        }
        self._log(metrics)
        return metrics

    def _log(self, record: dict[str, Any]) -> None:
        if self.world.first:
            runlog.append(self.directory / runlog.METRICS, record)
        if self.tracker:
            self.tracker.metrics(record)

    def _after_step(self) -> None:
        s, step = self.settings, self.progress.step
        last = step == s.steps
        with torch.compiler.set_stance("force_eager"):  # other shapes would be compiled anew
            if last or step % s.val_every == 0:
                self.validate()
            if last or step % s.sample_every == 0:
                self.sample()
        if last or step % s.save_every == 0:
            self.save()

    def validate(self) -> None:
        """Logs loss and bits per byte of the validation windows."""
        windows = self.corpus.val_windows(self.model.config.context, self.settings.val_windows)
        lengths = self.corpus.tokenizer.byte_lengths
        loss, bpb = validate(self.model, windows, lengths, self.kernels, self.world)
        p = self.progress
        record = {"step": p.step, "tokens": p.tokens, "val_loss": round(loss, 6)}
        self._log(record | {"val_bpb": round(bpb, 6), "elapsed": round(p.elapsed, 3)})

    def sample(self) -> None:
        """Logs a continuation of each prompt."""
        if not (self.world.first or self.world.shard):  # spread weights need all processes
            return
        self.model.eval()
        decoder = Decoder(self.model, native=False)  # the weights change, and may be on a GPU
        for prompt in SAMPLE_PROMPTS:
            seed, tokenizer = self.settings.seed, self.corpus.tokenizer
            steps = generate(self.model, tokenizer, prompt, USUAL, SAMPLE_LIMITS, seed, decoder)
            text = "".join(step.text for step in steps)
            record = {"step": self.progress.step, "prompt": prompt, "text": text}
            if self.world.first:
                runlog.append(self.directory / runlog.SAMPLES, record)
            if self.tracker:
                self.tracker.sample(**record)
        self.model.train()

    def save(self) -> None:
        """Writes a checkpoint, unless this step has one."""
        step, s = self.progress.step, self.settings
        if self.saved_at == step:
            return
        tensors = state.gather(self.model, self.optimizers, keep=self.world.first)
        if not all(bool(t.isfinite().all()) for t in tensors.weights.values()):
            raise self._diverged(step, "some weights are no finite numbers")
        if self.world.first:
            try:
                state.save(
                    self.directory,
                    self.model,
                    self.corpus.tokenizer,
                    tensors,
                    self.progress,
                    self.info(),
                    s.keep,
                )
            except OSError as error:
                raise UserError(
                    f"the checkpoint of step {step} cannot be written ({error}): "
                    f"{self._last_good()}; make room, then continue with --resume {self.directory}"
                ) from None
        self.saved_at = step

    def info(self) -> dict[str, Any]:
        """What a checkpoint says about itself."""
        p = self.progress
        return {
            "preset": self.settings.preset,
            "step": p.step,
            "tokens": p.tokens,
            "seconds": round(p.elapsed, 1),
            "cpu_seconds": round(p.cpu_seconds, 1),
            "precision": self.settings.precision,
            "machine": describe_machine(self.world.device, self.world.size),
        }


def settled(settings: Settings, shape: ModelConfig, world: World) -> Settings:
    """`settings` with the kernels decided, by the first process for all."""
    chosen = None
    if world.first:
        chosen = json.dumps(run_settings.as_json(kernels.settle(settings, shape, world.device)))
    return run_settings.from_json(json.loads(world.from_first(chosen)))


def first_model(settings: Settings, shape: ModelConfig, world: World, given: Path | None) -> GPT:
    """The model that training goes on with, the same in every process: the weights of the model
    directory `given`, or noise."""
    torch.manual_seed(settings.seed)
    model = GPT(shape).to(world.device).train()
    if given:
        load_weights(model, given / WEIGHTS)
    return model


def seed_all(seed: int, step: int, rank: int) -> None:
    """Seeds torch's generators, of every device, for one step of one process."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def shape_for(name: str, corpus: Corpus, given: Path | None) -> ModelConfig:
    """The shape of the model directory `given`; or else the preset's with the data's vocabulary,
    but that `reference` is fixed to its own."""
    if given:
        return origin.shape_of(given, corpus)
    shape = preset(name)
    if name != "reference":
        return replace(shape, vocab_size=corpus.tokenizer.n_vocab)
    if shape.vocab_size != corpus.tokenizer.n_vocab:
        raise UserError(
            f"the reference preset reads o200k_base and {corpus.path} was tokenized with "
            f"{corpus.tokenizer.name}: prepare data with --tokenizer o200k_base"
        )
    return shape
