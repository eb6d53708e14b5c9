"""Draws the validation curves of training runs, in bits per byte over training time.

    python examples/curves.py runs/reference checkpoints/mini --out examples/curves.svg

Needs matplotlib, which tests/requirements.txt brings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ptx import runlog

COLOURS = ("#4f46e5", "#d97706", "#059669", "#be185d")


def curve(run: Path) -> tuple[list[float], list[float]]:
    """Minutes of training and validation bits per byte, as the run logged them."""
    records = [r for r in runlog.tail(run / runlog.METRICS)[0] if "val_bpb" in r]
    if not records:
        raise SystemExit(f"error: {run} has no validation in its {runlog.METRICS}")
    return [r["elapsed"] / 60 for r in records], [r["val_bpb"] for r in records]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="directories with a metrics.jsonl")
    parser.add_argument("--out", type=Path, default=Path("curves.svg"))
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "p-transformer"  # the same picture from the same numbers
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for run, colour in zip(args.runs, COLOURS):
        minutes, bpb = curve(run)
        axes.plot(minutes, bpb, color=colour, linewidth=2, marker="o", markersize=3)
        axes.annotate(
            f"{run.name}  {bpb[-1]:.2f}",
            (minutes[-1], bpb[-1]),
            xytext=(4, -15),
            textcoords="offset points",
            color=colour,
            weight="bold",
            ha="right",
        )
    axes.set(xscale="log", xlabel="minutes of training", ylabel="bits per byte, held-out packages")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.out, metadata={"Date": None})
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
