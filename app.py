"""python app.py : the playground. A Hugging Face Space runs this file as it is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ptx.errors import UserError, report_errors

if TYPE_CHECKING:
    from gradio import Blocks

ROOT = Path(__file__).resolve().parent
RELEASED = ROOT / "checkpoints"


def shipped() -> Path:
    """The model to open unless another is named: `mini`, or the only one that is here."""
    found = (
        sorted(path for path in RELEASED.iterdir() if path.is_dir()) if RELEASED.is_dir() else []
    )
    return found[0] if len(found) == 1 else RELEASED / "mini"


@dataclass
class Playground:
    """Open a page where a GPT writes Python and shows its attention and its loss curves.

    For example:

    python app.py

    python app.py --model runs/nano/latest (the newest checkpoint of a run)

    python app.py --port 8000 --host 0.0.0.0 (for other machines too)

    Ctrl+C ends the page, and with it the training that was started on it: that finishes its step
    and saves first, and can be resumed.
    """

    model: Path = field(default_factory=shipped)
    """A model directory, or a run directory for its newest checkpoint."""
    runs: Path = ROOT / "runs"
    """Directory whose training runs the page shows, live while they go on, and where it starts new
    ones."""
    data: Path = ROOT / "data"
    """Directory of prepared data to train on."""
    sources: Path | None = None
    """Directory whose folders the page offers to train on. Each is read as `prepare/run.py folder`
    reads one, its subfolders are the projects: so name the directory above the one that holds your
    projects."""
    port: int | None = None
    """Port to listen on; the first free one from 7860 if left out."""
    host: str | None = None
    """Address to listen on; this machine alone if left out."""


@report_errors()
def main() -> None:
    args = tyro.cli(Playground)
    if args.model == shipped() and not args.model.exists():
        raise UserError(
            f"there is no model at {args.model} yet: train one (python prepare/run.py installed, "
            "then python train/run.py --preset nano) and open it with --model runs/nano"
        )
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401  (it lends the graphics card, and wants to be there before torch)
    # before the first import of gradio, which would report to its makers
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from ptx.playground.library import Library
    from ptx.playground.models import Models
    from ptx.playground.page import build
    from ptx.playground.served import Served
    from ptx.playground.training import Training

    # as Ctrl+C: what goes on is ended in order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    models = Models(Served.load(args.model), RELEASED, args.runs)
    trainer = Training(models.first, args.runs, Library(args.data, args.sources))
    with closing(trainer):
        serve(build(models, trainer), args)


def serve(page: Blocks, args: Playground) -> None:
    """Until it is ended."""
    from ptx.playground.page import launch_options

    try:
        with afterwards(signal.SIGINT, signal.SIGTERM):
            _, url, _ = page.launch(
                server_name=args.host,
                server_port=args.port,
                prevent_thread_lock=True,
                **launch_options(),
            )
    except OSError as error:
        reason = str(error).split(". ")[0]  # the rest is Gradio's advice to programmers
        raise UserError(f"the page cannot listen there ({reason}): choose another --port") from None
    print(f"P-Transformer is at {url} (Ctrl+C ends it)", flush=True)
    page.block_thread()


@contextmanager
def afterwards(*numbers: int) -> Iterator[None]:
    """Signals that come meanwhile are answered afterwards, a second of the same at once. While
    Gradio launches it asks itself over HTTP: an exception in the middle of that can leave a lock
    taken, for which the same thread waits on its way out, for ever."""
    before = {number: signal.getsignal(number) for number in numbers}
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)
        signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
    for number in came:
        signal.raise_signal(number)


if __name__ == "__main__":
    sys.exit(main())
