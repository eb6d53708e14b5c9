"""The lens on the released model: maps and roles, what recording costs, ablation, sizes.

    python tests/bench/lens.py [--quick] [--json]

The text is the first 256 tokens of ptx/stream.py. `maps_and_roles_ms`: one forward with attention,
its three views, thumbnails of each, every role of every head. `recording_cost`: a whole trace over
a plain forward, in turns. `ablation_seconds`: each head muted on its own, on 64 tokens.
`thumbnails_kib`: all thumbnails of the released model in base64, as they are sent; below the
figures, those of 36 heads. Medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from ptx import lens
from ptx.checkpoint import load_model
from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from tests.bench.report import arguments, report

ROOT = Path(__file__).resolve().parents[2]


def in_turns(turns: int, *sides: Callable[[], object]) -> list[list[float]]:
    """Seconds of each side in each turn; a first turn warms up."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(1 + turns):
        for side, seconds in zip(sides, taken, strict=True):
            started = time.perf_counter()
            side()
            if turn:
                seconds.append(time.perf_counter() - started)
    return taken


def maps_and_roles(model: GPT, tokenizer: Tokenizer, ids: list[int]) -> None:
    """All that the page shows of the heads of one text."""
    seen = lens.trace(model, ids)
    weighted = lens.to_unit(lens.value_weighted(model, seen))
    for view in (seen.attention, lens.without_sink(seen.attention), weighted):
        lens.thumbnails(view)
    lens.roles(tokenizer, ids, seen.attention)


def kib(heads: tuple[int, int], tokens: int) -> float:
    """All thumbnails of so many layers and heads, in base64."""
    return len(b64encode(lens.thumbnails(torch.rand(*heads, tokens, tokens)))) / 1024


def main() -> None:
    args = arguments(__doc__)
    turns = 5 if args.quick else 25
    model, tokenizer, _ = load_model(ROOT / "checkpoints" / "mini")
    source = (ROOT / "ptx" / "stream.py").read_bytes()
    ids = [tokenizer.eot, *tokenizer.encode(source)][:256]
    batch = torch.tensor([ids])

    @torch.inference_mode()
    def plain() -> None:
        model(batch)

    [all_at_once] = in_turns(turns, lambda: maps_and_roles(model, tokenizer, ids))
    forward, recorded = in_turns(turns, plain, lambda: lens.trace(model, ids).logits)
    heads = lens.single_heads(model.config)
    [ablation] = in_turns(1 if args.quick else 5, lambda: lens.ablate(model, ids[:64], heads))
    cost = statistics.median(b / a for a, b in zip(forward, recorded, strict=True))
    c = model.config
    report(
        [
            ("maps_and_roles_ms", 1000 * statistics.median(all_at_once), None, 150.0),
            ("recording_cost", cost, 1.0, 1.5),
            ("ablation_seconds", statistics.median(ablation), None, 10.0),
            ("thumbnails_kib", kib((c.n_layer, c.n_head), 256), None, 200.0),
        ],
        args,
        [
            ("a trace against a forward, ms", *(1000 * statistics.median(t) for t in
             (recorded, forward)), None),
            ("thumbnails of 36 heads, KiB", kib((6, 6), 256), None, 200.0),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
