"""What the page asks about a position of a text, answered by the released model.

    python tests/bench/reading.py [--quick] [--json]

The text is the first 256 tokens of ptx/stream.py; every answer is timed with its encoding to JSON,
on one thread. `look_ms`: everything about one position of a text that was looked at before;
`cold_look_ms`: of a new text, which takes a forward. `maps_ms`: all heads and their roles, of a new
text. `score_ms`: the surprise of every token, of a new text. `look_kib`: one answer.
`probability_error`: of the distribution that the browser works out from it, at most. Medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from ptx import lens
from ptx.playground.models import Models
from ptx.playground.reading import Reading
from ptx.playground.recordings import Recordings
from ptx.playground.served import Served
from tests.bench.report import arguments, report

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 256


def milliseconds(reading: Reading, request: dict[str, Any]) -> float:
    started = time.perf_counter()
    answer = json.dumps(reading.ask(request))
    taken = 1000 * (time.perf_counter() - started)
    if answer.startswith('{"error"'):
        sys.exit(answer)
    return taken


def probability_error(answer: dict[str, Any], real: torch.Tensor) -> float:
    """Against the model's own logits (V,)."""
    codes = np.frombuffer(b64decode(answer["logits"]), "<u2")
    told = (answer["low"] + answer["step"] * codes).astype(np.float32)
    likeliest = np.frombuffer(b64decode(answer["sharp"]["ids"]), "<i4")
    told[likeliest] = np.frombuffer(b64decode(answer["sharp"]["logits"]), "<f4")
    return float((torch.from_numpy(told).softmax(-1) - real.softmax(-1)).abs().max())


def main() -> None:
    args = arguments(__doc__)
    turns = 8 if args.quick else 40
    torch.set_num_threads(1)
    served = Served.load(ROOT / "checkpoints" / "mini")
    reading = Reading(Models(served, ROOT / "checkpoints", ROOT / "runs"), Recordings())
    source = (ROOT / "ptx" / "stream.py").read_bytes()
    ids = [served.tokenizer.eot, *served.tokenizer.encode(source)][:TOKENS]
    reading.maps({"ids": ids, "at": TOKENS})  # the roles of the reference text

    taken: dict[str, list[float]] = {"look": [], "cold": [], "maps": [], "score": []}
    errors = []
    for turn in range(1, turns + 1):
        at = turn * (TOKENS // turns)
        seen = {"ask": "look", "ids": ids, "at": at}
        taken["look"].append(milliseconds(reading, seen))
        real = lens.trace(served.model, ids[:at]).logits_after(-1)
        errors.append(probability_error(reading.ask(seen), real))
        for i, (name, ask) in enumerate((("cold", "look"), ("maps", "maps"), ("score", "score"))):
            new = [ids[0], 4 * turn + i, *ids[2:]]
            taken[name].append(milliseconds(reading, {"ask": ask, "ids": new, "at": TOKENS}))
        reading.look({"ids": ids, "at": 1})  # the first text is the newest again
    look = len(json.dumps(reading.ask({"ask": "look", "ids": ids, "at": TOKENS}))) / 1024
    report(
        [
            ("look_ms", statistics.median(taken["look"]), None, 40.0),
            ("cold_look_ms", statistics.median(taken["cold"]), None, 100.0),
            ("maps_ms", statistics.median(taken["maps"]), None, 100.0),
            ("score_ms", statistics.median(taken["score"]), None, None),
            ("look_kib", look, None, None),
            ("probability_error", max(errors), None, 1e-5),
        ],
        args,
    )


if __name__ == "__main__":
    main()
