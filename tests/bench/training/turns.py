"""Sides of a comparison, each a process of its own that works only when it is told to.

So settings of the whole process (how memory is kept, what the compiler holds) do not leak from one
side to the other, and turns can be as short as a step: both see the same machine.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


class Side:
    """A process that makes `kind(*args)` and calls its methods when asked.

    kind: a class at the top of a module.
    """

    def __init__(self, kind: type, *args: object) -> None:
        # Forked from a clean process that holds the imports and has not started a thread.
        context = multiprocessing.get_context("forkserver")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, kind, args), daemon=True)
        self._process.start()
        end.close()
        self.waited = self.cpu_waiting = 0.0
        """Seconds between calls, and the CPU time that was used in them: none, if all is well."""

    def __call__(self, method: str, *args: object, timeout: float | None = None) -> Any:
        """What the method returns. TimeoutError if that takes more than `timeout` seconds, and
        RuntimeError if the process failed: the side is of no use after either."""
        self._pipe.send((method, args))
        if not self._pipe.poll(timeout):
            self._process.kill()
            raise TimeoutError(f"{method} took more than {timeout:g} s")
        try:
            answer, waited, cpu_waiting = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process that was to {method} failed: see above") from None
        self.waited += waited
        self.cpu_waiting += cpu_waiting
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, kind: type, args: tuple[object, ...]) -> None:
    worker = kind(*args)
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            since, cpu_since = time.perf_counter(), time.process_time()
            method, given = pipe.recv()
            waited, cpu_waiting = time.perf_counter() - since, time.process_time() - cpu_since
            pipe.send((getattr(worker, method)(*given), waited, cpu_waiting))
