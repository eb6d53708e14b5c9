"""Long work in child processes: prepare/run.py and train/run.py, one at a time.

The rule: a job ends with the page, as if Ctrl+C had been pressed (see tethered.py). Pausing is the
same: a run lives in its directory, and continues from there bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread
from typing import Literal

from ptx.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TETHER = Path(__file__).with_name("tethered.py")
NICE = 10
"""A tenth of the page's share of a core that both want."""
LINES = 200
"""Last lines of a job's output that are kept."""
LONGEST = 20_000
"""Characters of one of them."""

Kind = Literal["train", "prepare", "estimate"]
WORDS = {"train": "is being trained", "prepare": "is being prepared", "estimate": "is being timed"}


def threads() -> int:
    """Of a job: one core is left to the page, where there are several. Always the same on one
    machine, because a sum over threads depends on their number."""
    return max(1, (os.cpu_count() or 1) - 1)


class Job:
    """One child process.

    started: by the clock of `time.monotonic`.
    asked: why it was asked to end, or None. killed: whether it was not left to.
    status: its exit status once it has ended, None before.
    """

    def __init__(self, kind: Kind, name: str, words: list[str]) -> None:
        self.kind, self.name, self.words = kind, name, words
        self.started = time.monotonic()
        self.asked: str | None = None
        self.killed = False
        self.status: int | None = None
        self.lines: deque[str] = deque(maxlen=LINES)
        self._process = subprocess.Popen(
            [sys.executable, str(TETHER), str(NICE), *words],
            cwd=ROOT,
            env=os.environ | {
                "OMP_NUM_THREADS": str(threads()), "PYTHONUNBUFFERED": "1", "COLUMNS": "100",
                "PYTHONIOENCODING": "utf-8:replace",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl+C in the terminal is for the page, which passes it on
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask_to_end(self, why: str) -> None:
        """Lets it finish its step and save."""
        self.asked = self.asked or why
        self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """Ends it now, with its workers."""
        self.asked, self.killed = self.asked or "stop", True
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (AttributeError, OSError):
            self._process.kill()

    def read_to_the_end(self) -> None:
        """Keeps the last lines of its output; returns when it has ended."""
        for line in self._process.stdout:
            for part in line.decode("utf-8", "replace").split("\r"):
                if part.strip():
                    self.lines.append(part.rstrip()[:LONGEST])
        self.status = self._process.wait()
        self._let_go()
        self._process.stdout.close()


class Jobs:
    """The job at hand. For any number of threads."""

    def __init__(self) -> None:
        self.now: Job | None = None
        self._lock = Lock()
        self._closed = False
        self._thread: Thread | None = None

    def start(
        self, kind: Kind, name: str, words: list[str], then: Callable[[Job], None] | None = None
    ) -> Job:
        """Starts a script of this repository with its arguments, `words`.

        then: called when it has ended, in a thread of its own.
        Raises UserError while another one works.
        """
        with self._lock:
            if self._closed:
                raise UserError("the page is being closed")
            if self.now:
                end = "pause" if self.now.kind == "train" else "cancel"
                raise UserError(
                    f"{self.now.name} {WORDS[self.now.kind]}: {end} it first, or wait until it ends"
                )
            try:
                job = self.now = Job(kind, name, words)
            except OSError as error:
                raise UserError(f"no process can be started ({error.strerror})") from None
            self._thread = Thread(target=self._follow, args=(job, then), name="job", daemon=True)
            self._thread.start()
            return job

    def _follow(self, job: Job, then: Callable[[Job], None] | None) -> None:
        job.read_to_the_end()
        with self._lock:
            self.now = None
        if then:
            then(job)

    def close(self, patience: float = 120.0) -> None:
        """Ends the job at hand: it finishes its step and saves. Killed after `patience` seconds."""
        with self._lock:
            self._closed = True
            job, thread = self.now, self._thread
        if not (job and thread):
            return
        job.ask_to_end("close")
        thread.join(patience)
        if thread.is_alive():
            job.kill()
            thread.join()


def word(path: Path) -> str:
    """A path for a command line that is run in the repository."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
