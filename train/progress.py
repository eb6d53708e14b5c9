"""One line that says how a run is doing: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 15.0
"""Between lines when the output is a file."""


class ProgressLine:
    """Shows loss, bits per byte, tokens per second and the time left, until closed."""

    def __init__(self, total: int, done: int, shown: bool = True) -> None:
        self._console = Console(quiet=not shown)
        self._live = self._console.is_terminal
        self._total, self._started, self._first = total, time.monotonic(), done
        self._last = 0.0
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=total, completed=done, figures="")

        self._bar.start()

    def close(self) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """A line of its own: something that happened, and when."""
        self._console.print(f"{time.strftime('%F %T')} {text}")

    def update(self, metrics: dict[str, Any]) -> None:
        step = metrics["step"]
        figures = (
            f"loss {metrics['loss']:.3f}  bpb {metrics['bpb']:.3f}  "
            f"{metrics['tokens_per_s']:,.0f} tokens/s"
        )
        if "refused" in metrics:
            figures = f"{figures}  no Python: {metrics['refused']:.2%}"
        if "looping" in metrics:
            figures = f"{figures}  yet again: {metrics['looping']:.0%}"
        self._bar.update(self._task, completed=step, figures=figures)
        now = time.monotonic()
        if not self._live and (now - self._last > QUIET_SECONDS or step == self._total):
            self._last = now
            left = (now - self._started) / (step - self._first) * (self._total - step)
            self._console.print(f"step {step}/{self._total}  {figures}  {left / 60:.0f} min left")
