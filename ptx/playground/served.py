"""The model that a page shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from ptx import lens
from ptx.checkpoint import find_model, load_model, run_of
from ptx.engine import Engine
from ptx.healing import healer
from ptx.model import GPT
from ptx.playground import zero_gpu
from ptx.playground.limits import LIMITS
from ptx.playground.traces import Traces
from ptx.tokenizer import Tokenizer

MOST_BYTES = 4 << 30
"""Of all texts' keys and values. A CPU takes memory for what they hold, not for what they may."""


@dataclass(eq=False)
class Served:
    """A model with its tokenizer, the directory it came from and the facts saved beside it."""

    directory: Path
    model: GPT
    tokenizer: Tokenizer
    info: dict[str, Any]
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _engine: Engine | zero_gpu.GpuEngine | None = field(default=None, init=False, repr=False)
    _retired: bool = field(default=False, init=False, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Served:
        """Anything `ptx.load_model` understands; raises UserError as it does."""
        directory = find_model(path)
        model, tokenizer, info = load_model(directory)
        return cls(directory, model, tokenizer, info)

    @property
    def name(self) -> str:
        """`mini` for checkpoints/mini, `nano/step_000400` for a checkpoint of a run."""
        name = self.directory.resolve().name
        run = run_of(self.directory)
        return f"{run.name}/{name}" if run else name

    @property
    def engine(self) -> Engine | zero_gpu.GpuEngine:
        """Writes the texts of all visitors, side by side; made for the first of them."""
        with self._lock:
            if self._engine is None:
                self._engine = self._new_engine()
                if self._retired:
                    self._engine.retire()
            return self._engine

    def _new_engine(self) -> Engine | zero_gpu.GpuEngine:
        if zero_gpu.PRESENT and self.model.n_params() >= zero_gpu.LARGE:
            return zero_gpu.GpuEngine(self.directory, self.model, self.tokenizer)
        return Engine(self.model, self.tokenizer, slots=self._slots(), waiting=LIMITS.queue)

    def _slots(self) -> int:
        """As many as the limits want, but that keys and values have to fit."""
        c, size = self.model.config, self.model.tok_emb.weight.element_size()
        one = 2 * c.n_layer * c.n_kv_head * c.context * c.head_size * size
        return max(1, min(LIMITS.streams, MOST_BYTES // one))

    def start_engine(self) -> None:
        """Lets it compile what it needs before the first visitor comes."""
        _ = self.engine

    def retire(self) -> None:
        """Nobody finds it any more: it is freed once the texts that it writes have ended."""
        with self._lock:
            self._retired = True
            if self._engine:
                self._engine.retire()

    @cached_property
    def traces(self) -> Traces:
        """Of the texts that visitors look at."""
        return Traces(self.model)

    @cached_property
    def reference_roles(self) -> lens.Roles:
        """What the heads do on the reference text, which takes a few forwards to see."""
        return lens.reference_roles(self.model, self.tokenizer)

    def get_ready(self) -> None:
        """Works out what the first visitor would wait for, in a thread of its own."""

        def work() -> None:
            healer(self.tokenizer)
            _ = self.reference_roles

        Thread(target=work, name="ready").start()

    @property
    def context(self) -> int:
        return self.model.config.context
