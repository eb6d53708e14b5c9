"""What every benchmark shares: its arguments, its table, its line of JSON."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

# (figure with its unit, ours, peer, target); None where there is none, inf for never reached.
Row = tuple[str, float, float | None, float | None]


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """`--quick` and `--json`, as every benchmark takes them; add to it what one takes besides."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="end within 50 s: less of everything")
    made.add_argument("--json", action="store_true", help="end with {figure: ours} on one line")
    return made


def arguments(description: str | None = None) -> argparse.Namespace:
    """The arguments of a benchmark that takes no others."""
    return parser(description).parse_args()


def report(rows: Sequence[Row], args: argparse.Namespace, details: Sequence[Row] = ()) -> None:
    """Print the table and, when asked for, one JSON object as the last line.

    details: measurements that the figures are made of, for the table alone.
    """
    table = Table()
    table.add_column("figure")
    for heading in ("ours", "peer", "target"):
        table.add_column(heading, justify="right")
    for part in (rows, details):
        for figure, ours, peer, target in part:
            table.add_row(figure, shown(ours), shown(peer), shown(target))
        table.add_section()
    Console().print(table)
    if args.json:
        found = {figure: ours if math.isfinite(ours) else None for figure, ours, _, _ in rows}
        print(json.dumps(found))


def shown(value: float | None) -> str:
    """Four digits that matter; whole numbers in full."""
    if value is None:
        return ""
    if math.isinf(value):
        return "not reached"
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.4g}"
