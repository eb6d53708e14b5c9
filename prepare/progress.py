"""What a person sees in the terminal: the bar while it works, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

QUIET_SECONDS = 5.0
"""Between lines when the output is no terminal."""


@contextmanager
def bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A bar to `total` bytes, which may be an estimate; the function sets how far it is. Where
    there is no terminal, a line now and then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Drawn when it is set: a thread that draws would keep the workers from being forked.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("Cleaning", total=total)
        said = time.monotonic()

        def advance(done: int) -> None:
            nonlocal said
            whole = max(total, done, 1)
            progress.update(task, completed=done, total=whole, refresh=True)
            if not console.is_terminal and time.monotonic() - said > QUIET_SECONDS:
                said = time.monotonic()
                share = f"{100 * done // whole} %"
                console.print(f"cleaned {megabytes(done)} of {megabytes(whole)} MB, {share}")

        yield advance


def summary(manifest: dict, seconds: float) -> Table:
    """The closing table: what came in, what each step removed, what was written."""
    table = Table(title=f"Prepared in {seconds:.1f} s")
    table.add_column("", no_wrap=True)
    for heading in ("files", "MB", "tokens", "bytes/token"):
        table.add_column(heading, justify="right")
    for outcome, count in manifest["filters"].items():
        if count["files"] or outcome in ("in", "kept"):
            label = outcome if outcome in ("in", "kept") else f"  - {outcome}"
            table.add_row(label, f"{count['files']:,}", megabytes(count["bytes"]))
    table.add_section()
    for kind, count in manifest["replaced"].items():
        table.add_row(f"{kind} replaced", f"{count:,}")
    table.add_section()
    for split, total in manifest["splits"].items():
        ratio = total["bytes"] / max(total["tokens"] - total["files"], 1)
        label = f"{split} ({len(manifest['sources'][split]):,} projects)"
        row = (f"{total['files']:,}", megabytes(total["bytes"]), f"{total['tokens']:,}")
        table.add_row(label, *row, f"{ratio:.3f}")
    return table


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f}"
