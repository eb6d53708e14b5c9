"""python tethered.py NICE SCRIPT ARGUMENTS : runs a script that ends with the page that started it.

The page holds the other end of standard input. When it closes that, or is ended, or is killed, the
script gets what Ctrl+C would send: training finishes its step and saves, preparing keeps its
finished parts. So no process is left behind, whatever happened to the page.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

# As a script, the first entry is this folder: make it the repository.
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from ptx.unbreakable import Unbreakable


def step_back(nice: int) -> None:
    """The page goes first."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(nice)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
        file.write(str(nice))  # where sessions share the machine, niceness counts inside of one


def follow() -> None:
    """Waits until the page has gone."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # also ends a wait
    else:
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a page in the background ignores it
    step_back(int(sys.argv[1]))
    sys.stdout, sys.stderr = Unbreakable(sys.stdout), Unbreakable(sys.stderr)  # type: ignore
    threading.Thread(target=follow, daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
