"""Training, against what transformers' users do: speed, time to a loss, memory, start.

    python prepare/run.py installed
    python tests/bench/train.py [--only NAME ...] [--quick] [--json]
    python tests/bench/train.py --tune        (the peer's rate and batch, for time_to_peer_bpb)

All figures take about three quarters of an hour; each is measured side by side, in turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.report import Row, parser, report
from tests.bench.training import memory, speed, start, to_loss

ROOT = Path(__file__).resolve().parents[2]
KEYS = (
    "speed_vs_fp32_peer",
    "speed_vs_compiled_peer",
    "mfu",
    "time_to_peer_bpb",
    "reference_memory",
    "start_seconds",
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=KEYS, metavar="NAME", help=", ".join(KEYS))
    options.add_argument("--data", type=Path, default=ROOT / "data" / "installed")
    options.add_argument("--peer-minutes", type=float, default=20.0, help="the peer's training")
    options.add_argument("--our-minutes", type=float, default=7.0, help="ours, at most")
    options.add_argument("--tune", action="store_true", help="only tune the peer")
    options.add_argument("--tune-minutes", type=float, default=2.0, help="of each training")
    args = options.parse_args()
    plan = to_loss.Plan(args.data, args.peer_minutes, args.our_minutes)
    if args.quick:
        plan = to_loss.Plan(args.data, peer_minutes=0.08, our_minutes=0.04, windows=8, turns=2)
    if args.tune:
        to_loss.tune(plan, args.tune_minutes)
        return
    wanted = set(args.only or KEYS)
    figures: list[Row] = []
    details: list[Row] = []

    def add(measured: tuple[list[Row], list[Row]]) -> None:
        figures.extend(measured[0])
        details.extend(measured[1])

    if "start_seconds" in wanted:
        add(start.measure(args.data, args.quick))
    if wanted & speed.KEYS:
        add(speed.measure(wanted, args.quick))
    if "reference_memory" in wanted:
        add(memory.measure(args.quick))
    if "time_to_peer_bpb" in wanted:
        add(to_loss.measure(plan, args.quick))
    report(sorted(figures, key=lambda row: KEYS.index(row[0])), args, details)


if __name__ == "__main__":
    main()
