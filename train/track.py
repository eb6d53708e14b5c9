"""TensorBoard beside metrics.jsonl: the same figures, for those who watch their runs there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ptx.errors import UserError

POSITION = {"step", "tokens", "elapsed", "cpu_seconds"}
"""Fields that say where a record stands; the others are what was measured there."""
FLUSH_SECONDS = 10
"""Between writes to disk: what a killed run can lose of its curves."""


class TensorBoard:
    """Writes a run's records as events below RUN/tensorboard; see them with
    `tensorboard --logdir runs`.

    from_step: steps that the run has already done. What an earlier piece of it wrote about later
        steps, which are now done again, TensorBoard leaves out.
    Raises UserError where the tensorboard package is missing.
    """

    def __init__(self, run: Path, from_step: int = 0) -> None:
        self._writer = summary_writer()(
            str(run / "tensorboard"), purge_step=from_step + 1, flush_secs=FLUSH_SECONDS
        )

    def metrics(self, record: dict[str, Any]) -> None:
        """The numbers of one line of metrics.jsonl, as train/loss, val/bpb and so on."""
        for name, value in record.items():
            if name not in POSITION and isinstance(value, int | float):
                group, name = ("val", name[4:]) if name.startswith("val_") else ("train", name)
                self._writer.add_scalar(f"{group}/{name}", value, record["step"])

    def sample(self, step: int, prompt: str, text: str) -> None:
        """One generated text, below its prompt's name."""
        self._writer.add_text(f"samples/{prompt.strip()}", code_block(prompt + text), step)

    def close(self) -> None:
        """Writes what is left; nothing can be added after it."""
        self._writer.close()


def summary_writer() -> type:
    """torch's SummaryWriter. Takes two seconds to import, so only those who ask for it wait."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--track tensorboard needs the tensorboard package: pip install tensorboard"
        ) from None
    return SummaryWriter


def code_block(text: str) -> str:
    """Markdown that shows `text` as it is: TensorBoard renders Markdown, and a fence longer than
    any run of backticks in the text cannot be closed by it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
