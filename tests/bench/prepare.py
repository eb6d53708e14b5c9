"""How fast the data pipeline is and how much memory it takes, against the usual ways.

    python tests/bench/prepare.py [--quick] [--json]

`original` is the original's way: one string of all text, one `encode` of o200k_base, one array.
Ours reads the same files with that tokenizer and all cleaning on. `--quick` takes 25 MB of the
installed packages, and a synthetic corpus of 4 and 40 MB.
"""

from __future__ import annotations

import gc
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prepare import near
from prepare.cleaning import parser, secrets, syntax, text
from prepare.cleaning.rules import Rules
from prepare.sources import local
from ptx.errors import report_errors
from ptx.tokenizer import get_tokenizer
from tests.bench.report import Row, arguments, report

ROOT = Path(__file__).resolve().parents[2]
QUICK_BYTES = 25_000_000
NEAR_FILES = 10_000
ORIGINAL = """
import sys
import numpy as np
import tiktoken
text = open(sys.argv[1], encoding="utf-8", newline="").read()
ids = tiktoken.get_encoding("o200k_base").encode(text, disallowed_special=())
np.array(ids, dtype=np.uint32).tofile(sys.argv[2])
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
    get_tokenizer("o200k_base")  # fetched once, before anything is timed
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        paths = [path for s in local.installed().shards for p in s.projects for path in p.paths]
        command: list[str | Path] = ["installed"]
        if args.quick:
            paths = copied(paths, work / "projects")
            command = ["folder", work / "projects", "--comments"]
        rows = [
            *installed_speed(command, paths, work, 1 if args.quick else 3),
            *against_the_original(command, paths, work, 1 if args.quick else 3),
            *stages(paths[:: 12 if args.quick else 4]),
            near_dedup(paths[: 1_000 if args.quick else NEAR_FILES]),
            *memory_growth(work, 4 if args.quick else 200),
        ]
    report(rows, args)


def prepared(command: list[str | Path], work: Path, *options: str | Path) -> tuple[float, float]:
    run = [sys.executable, "prepare/run.py", *command, "--out", work / "data", *options]
    return measured(run)


def installed_speed(
    command: list[str | Path], paths: list[Path], work: Path, rounds: int
) -> list[Row]:
    size = sum(path.stat().st_size for path in paths) / 1e6
    exact = statistics.median(prepared(command, work, "--no-near")[0] for _ in range(rounds))
    both = statistics.median(prepared(command, work)[0] for _ in range(rounds))
    return [
        ("installed_mb_per_s", size / exact, None, 12.0),
        (f"MB/s of {size:.0f} MB, near duplicates too", size / both, None, None),
    ]


def against_the_original(
    command: list[str | Path], paths: list[Path], work: Path, rounds: int
) -> list[Row]:
    whole = work / "text"
    with whole.open("wb") as file:
        for path in paths:
            data = path.read_bytes()
            try:
                data.decode("utf-8")
            except UnicodeDecodeError:
                continue
            file.write(data)
    ours, theirs = [], []
    for _ in range(rounds):  # in turns: both see the same machine
        ours.append(prepared(command, work, "--tokenizer", "o200k_base"))
        theirs.append(measured([sys.executable, "-c", ORIGINAL, whole, work / "ids"]))
    seconds = [statistics.median(s for s, _ in side) for side in (ours, theirs)]
    memory = [statistics.median(m for _, m in side) for side in (ours, theirs)]
    return [
        ("speed_vs_original", seconds[1] / seconds[0], 1.0, 1.5),
        ("memory_vs_original", memory[0] / memory[1], 1.0, 0.1),
        ("seconds", seconds[0], seconds[1], None),
        ("peak memory of all processes, GiB", memory[0], memory[1], None),
    ]


def stages(paths: list[Path]) -> list[Row]:
    """Where the time goes, in one process: milliseconds of a CPU for a megabyte of text."""
    steps, py16k, o200k = Rules(), get_tokenizer("py16k"), get_tokenizer("o200k_base")
    texts = [data for path in paths if not text.fault(data := path.read_bytes(), steps)]
    spans = [syntax.quoted(data) for data in texts]
    tokens = [py16k.encode_array(data) for data in texts]
    o200k.encode_array(b"x")  # reads its tables
    quoted = list(zip(texts, spans, strict=True))
    parts = {
        "text rules": lambda: [text.fault(data, steps) for data in texts],
        "comments and strings": lambda: [
            syntax.comment_fault(data, syntax.quoted(data)) for data in texts
        ],
        "parser": lambda: [parser.accepts(data, s) for data, s in quoted],
        "the same, Python's alone": lambda: [parser.python_accepts(data) for data in texts],
        "secrets": lambda: [secrets.cleaned(data, s) for data, s in quoted],
        "py16k, tiktoken": lambda: [py16k.encode_array(data) for data in texts],
        "o200k_base, toktok": lambda: [o200k.encode_array(data) for data in texts],
        "the same, tiktoken": lambda: [o200k.encode(data) for data in texts],
        "MinHash": lambda: [near.signatures(tokens[i : i + 64]) for i in range(0, len(tokens), 64)],
    }
    gc.freeze()
    size = sum(map(len, texts)) / 1e6
    rows: list[Row] = []
    for name, part in parts.items():
        started = time.process_time()
        part()
        milliseconds = (time.process_time() - started) * 1e3
        rows.append((f"milliseconds a MB: {name}", milliseconds / size, None, None))
    return rows


def near_dedup(paths: list[Path]) -> Row:
    """Signing and comparing, in one process; the tokens are there already."""
    encode = get_tokenizer("py16k").encode_array
    members = [tokens for path in paths if len(tokens := encode(path.read_bytes()))]
    started = time.perf_counter()
    signed = np.concatenate(
        [near.signatures(members[i : i + 256]) for i in range(0, len(members), 256)]
    )
    bands = near.bands(signed)
    near.twins(len(members), bands.__getitem__, signed.__getitem__)
    return "near_dedup_seconds", time.perf_counter() - started, None, 30.0


def memory_growth(work: Path, megabytes: int) -> list[Row]:
    """Peak memory for ten times the text, of documents that are all different."""
    peaks = []
    for size in (megabytes, 10 * megabytes):
        synthetic(work / "synthetic.jsonl", size * 1_000_000)
        peaks.append(prepared(["jsonl", work / "synthetic.jsonl"], work)[1])
    return [
        ("memory_growth", peaks[1] / peaks[0], None, 1.2),
        (f"peak memory of {10 * megabytes:,} MB, GiB", peaks[1], None, 2.0),
    ]


def synthetic(path: Path, size: int) -> None:
    """JSON lines of made-up modules of 1 to 9 KB in projects of about a hundred."""
    draw = random.Random(0)
    words = [f"{verb}_{i}" for verb in ("get", "set", "run", "load") for i in range(2_000)]
    functions = [
        f"\n\ndef {draw.choice(words)}(x):\n"
        f'    """Return {draw.choice(words)} of {draw.choice(words)}."""\n'
        f"    {draw.choice(words)} = x * {draw.randrange(10**6)}\n"
        f"    return {draw.choice(words)}(x, {draw.choice(words)})\n"
        for _ in range(200_000)
    ]
    written = i = 0
    with path.open("w") as file:
        while written < size:
            content = f'"""Module {i}."""\n' + "".join(draw.choices(functions, k=6 + i % 54))
            row = {"repo_name": f"repo/{i // 100}", "path": f"{i}.py", "license": "mit"}
            file.write(json.dumps(row | {"content": content}) + "\n")
            written += len(content)
            i += 1


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
