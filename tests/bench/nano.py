"""What `nano` learns in the two minutes after Start, everything counted.

    python prepare/run.py installed
    python tests/bench/nano.py [--data DIR] [--json] [further options of train/run.py]

The clock starts with the command, as the page's Start gives it, and stops after 120 seconds: what
is scored is the newest checkpoint that was there by then, by the protocol of `train/run.py
evaluate` on the packages that validate. On an idle machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ptx.checkpoint import checkpoints, load_model
from ptx.corpus import Corpus
from tests.bench.report import parser, report
from train.heldout import held_out
from train.score import score
from train.state import read_progress

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120.0
TARGET = 1.8


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=ROOT / "data" / "installed")
    args, further = arguments.parse_known_args()
    with tempfile.TemporaryDirectory() as runs:
        took = train(args.data, Path(runs), further)
        newest = checkpoints(Path(runs) / "nano")[-1]
        model, tokenizer, _ = load_model(newest)
        progress = read_progress(newest)
    corpus = Corpus(args.data)
    texts = held_out(corpus, "val", 3_000 if args.quick else 20_000)
    figures = [
        (
            "bits_per_byte after 120 s",
            score(model, tokenizer, texts)[-1].bits_per_byte,
            None,
            TARGET,
        ),
        ("seconds to the end of the recipe", took, None, SECONDS),
        ("steps", progress.step, None, None),
        ("tokens", progress.tokens, None, None),
        ("seconds in steps", progress.elapsed, None, None),
    ]
    report(figures, args)


def train(data: Path, runs: Path, further: list[str]) -> float:
    """Runs the recipe, two minutes of it at most; the seconds that it took."""
    command = [
        sys.executable, str(ROOT / "train" / "run.py"), "--preset", "nano", "--name", "nano",
        "--data", str(data), "--runs", str(runs), *further,
    ]  # fmt: skip
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # what it would save from now on would be too late
        process.wait()
        return time.monotonic() - started
    if code:
        raise SystemExit(f"error: training ended with {code}")
    return time.monotonic() - started


if __name__ == "__main__":
    main()
