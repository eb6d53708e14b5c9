"""Worker processes end with the command that began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENDLESS = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from prepare.build import Plan, build
from prepare.sources import Source
from ptx.errors import report_errors

@dataclass(frozen=True)
class Endless:
    begun: Path
    size: int = 0

    def documents(self):
        self.begun.touch()
        time.sleep(3600)
        yield

with report_errors():
    target, *begun = map(Path, sys.argv[1:])
    source = Source("endless", list(map(Endless, begun)))
    build(source, target, Plan("py16k", 0.1), lambda done: None)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="Ctrl+C reaches a group of processes")
def test_ctrl_c_does_not_wait_for_the_shards_that_are_being_cleaned(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, tmp_path / "data", begun],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a suite that runs in the background ignores Ctrl+C, and so would this process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60)[1] == "stopped\n"
        assert process.returncode == 130
        with pytest.raises(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == [begun]
