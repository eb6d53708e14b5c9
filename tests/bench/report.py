"""What every benchmark shares: its arguments, its table, its line of JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

# (figure with its unit, ours, peer, target); None where there is none.
Row = tuple[str, float, float | None, float | None]


def arguments(description: str | None = None) -> argparse.Namespace:
    """`--quick` and `--json`, as every benchmark takes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="end within 50 s: less of everything")
    parser.add_argument("--json", action="store_true", help="end with {figure: ours} on one line")
    return parser.parse_args()


def report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Print the table and, when asked for, one JSON object as the last line."""
    table = Table()
    table.add_column("figure")
    for heading in ("ours", "peer", "target"):
        table.add_column(heading, justify="right")
    for figure, ours, peer, target in rows:
        table.add_row(figure, shown(ours), shown(peer), shown(target))
    Console().print(table)
    if args.json:
        print(json.dumps({figure: ours for figure, ours, _, _ in rows}))


def shown(value: float | None) -> str:
    """Four digits that matter; whole numbers in full."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.4g}"
