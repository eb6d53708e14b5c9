"""A job ends in order with the page, however that ends; what it says last is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptx.errors import UserError
from ptx.playground.jobs import LINES, ROOT, Job, Jobs

POLITE = """
import sys, time
from pathlib import Path
place = Path(sys.argv[1])
try:
    (place / "begun").write_text("")
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    print("saving", flush=True)
    time.sleep(0.2)
    print("saved", flush=True)
    (place / "saved").write_text("")
"""


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close(patience=10)


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script.py"
    path.write_text(text)
    return str(path)


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def polite(jobs: Jobs, tmp_path: Path) -> Job:
    job = jobs.start("train", "a", [script(tmp_path, POLITE), str(tmp_path)])
    until((tmp_path / "begun").exists)
    return job


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_pausing_lets_a_job_save(jobs: Jobs, tmp_path: Path) -> None:
    ended = threading.Event()
    jobs.start("train", "a", [script(tmp_path, POLITE), str(tmp_path)], lambda _: ended.set())
    until((tmp_path / "begun").exists)
    job = jobs.now
    assert job
    job.ask_to_end("pause")
    assert ended.wait(60)
    assert (job.asked, job.status) == ("pause", 0)
    assert list(job.lines)[-2:] == ["saving", "saved"]
    assert jobs.now is None


def test_closing_waits_until_a_job_has_saved(tmp_path: Path) -> None:
    jobs = Jobs()
    job = polite(jobs, tmp_path)
    jobs.close()
    assert (tmp_path / "saved").exists()
    assert not alive(job.pid)
    with pytest.raises(UserError, match="being closed"):
        jobs.start("train", "b", ["-"])


def test_closing_kills_a_job_that_does_not_end(tmp_path: Path) -> None:
    jobs = Jobs()
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('on', flush=True)\ntime.sleep(99)"
    )
    job = jobs.start("train", "a", [script(tmp_path, deaf)])
    until(lambda: job.lines)
    jobs.close(patience=0.3)
    assert not alive(job.pid)
    assert job.status == -signal.SIGKILL


def test_one_job_at_a_time(jobs: Jobs, tmp_path: Path) -> None:
    polite(jobs, tmp_path)
    with pytest.raises(UserError, match="a is being trained: pause it first"):
        jobs.start("prepare", "b", ["x"])


def test_the_last_lines_and_the_status_of_a_failure_are_kept(jobs: Jobs, tmp_path: Path) -> None:
    failing = (
        f"import sys\nfor i in range({3 * LINES}): print(i)\n"
        "print('half\\rwhole')\nsys.exit('error: no')"
    )
    ended = threading.Event()
    job = jobs.start("train", "a", [script(tmp_path, failing)], lambda _: ended.set())
    assert ended.wait(60)
    assert job.status == 1
    assert list(job.lines)[-3:] == ["half", "whole", "error: no"]
    assert len(job.lines) == LINES


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_in_order_when_its_page_is_killed(tmp_path: Path, number: int) -> None:
    page = f"""
import sys, time
sys.path[0] = {str(ROOT)!r}
from ptx.playground.jobs import Jobs
jobs = Jobs()
job = jobs.start("train", "a", [{script(tmp_path, POLITE)!r}, {str(tmp_path)!r}])
print(job.pid, flush=True)
time.sleep(99)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", page],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # a suite that runs in the background ignores Ctrl+C, and so would the page
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = int(process.stdout.readline())
    until((tmp_path / "begun").exists)
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    until((tmp_path / "saved").exists)
    until(lambda: not alive(pid))


def test_a_job_leaves_the_machine_to_the_page(jobs: Jobs, tmp_path: Path) -> None:
    job = polite(jobs, tmp_path)
    assert os.getpriority(os.PRIO_PROCESS, job.pid) > os.getpriority(os.PRIO_PROCESS, 0)
