"""How long preparing takes and how much memory, against the usual loop in one process.

    python tests/bench/prepare.py [--quick] [--json]

The peer is what nanoGPT's prepare.py and the original do: read each file, encode it with tiktoken's
o200k_base, write the ids. It neither cleans nor removes copies nor records where text came from.
`--quick` prepares 25 MB of the installed packages instead of all of them.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prepare import sources
from ptx.errors import report_errors
from ptx.tokenizer import get_tokenizer
from tests.bench.report import arguments, report

ROOT = Path(__file__).resolve().parents[2]
QUICK_BYTES = 25_000_000
PEER = """
import sys
import numpy as np
import tiktoken
encoding = tiktoken.get_encoding("o200k_base")
with open(sys.argv[2], "wb") as out:
    for path in open(sys.argv[1]).read().splitlines():
        try:
            text = open(path, encoding="utf-8", newline="").read()
        except UnicodeDecodeError:
            continue
        ids = encoding.encode_ordinary(text)
        ids.append(encoding.eot_token)
        np.array(ids, dtype=np.uint32).tofile(out)
"""


def measured(command: list[str | Path]) -> tuple[float, float]:
    """(seconds, peak GiB of the process and its children) of one run."""
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peaks = [0]
    watcher = threading.Thread(target=watch, args=(process.pid, peaks))
    watcher.start()
    errors = process.communicate()[1].decode()
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command} failed: {errors[-1_000:]}")
    return seconds, peaks[0] / 2**30


def watch(pid: int, peaks: list[int]) -> None:
    """Follow a process tree's memory until it ends; pages that several share count once."""
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            peaks[0] = max(peaks[0], tree_memory(process))
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        return


def tree_memory(process: psutil.Process) -> int:
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            memory = member.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += getattr(memory, "pss", memory.rss)
    return total


@report_errors()
def main() -> None:
    args = arguments(__doc__)
    get_tokenizer("o200k_base")  # the peer's: fetched once, before anything is timed
    paths = [d.path for project in sources.installed() for d in project.documents]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        command: list[str | Path] = ["installed"]
        if args.quick:
            paths = copied(paths, work / "projects")
            command = ["folder", work / "projects"]
        size = sum(path.stat().st_size for path in paths) / 1e6
        (work / "list").write_text("\n".join(map(str, paths)))
        ours, peer = [], []
        for _ in range(1 if args.quick else 3):  # in turns: both see the same machine
            run = [sys.executable, "prepare/run.py", *command, "--out", work / "data"]
            ours.append(measured(run))
            peer.append(measured([sys.executable, "-c", PEER, work / "list", work / "peer.bin"]))
    seconds, peer_seconds = (statistics.median(s for s, _ in runs) for runs in (ours, peer))
    memory, peer_memory = (statistics.median(m for _, m in runs) for runs in (ours, peer))
    label = "25 MB" if args.quick else "installed"
    report(
        [
            (f"{label}: MB of Python read", size, size, None),
            (f"{label}: seconds", seconds, peer_seconds, None if args.quick else 60.0),
            (f"{label}: MB/s", size / seconds, size / peer_seconds, None),
            (f"{label}: peak memory, GiB", memory, peer_memory, 1.5),
        ],
        args,
    )


def copied(paths: list[Path], target: Path) -> list[Path]:
    """About 25 MB of the files, taken evenly, as two projects."""
    total = sum(path.stat().st_size for path in paths)
    step = max(1, total // QUICK_BYTES)
    copies = []
    for i, path in enumerate(paths[::step]):
        copy = target / f"part{i % 2}" / f"{i}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copyfile(path, copy)))
    return copies


if __name__ == "__main__":
    main()
