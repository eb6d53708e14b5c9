"""What a person sees: the progress bar while it works, and the table at the end."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,} of {task.total:,} files"),
        TimeRemainingColumn(),
        console=console,
    )


def summary(manifest: dict, seconds: float) -> Table:
    """The closing table: what came in, what each filter removed, what was written."""
    table = Table(title=f"Prepared in {seconds:.1f} s")
    table.add_column("", no_wrap=True)
    for heading in ("files", "MB", "tokens", "bytes/token"):
        table.add_column(heading, justify="right")
    for outcome, count in manifest["filters"].items():
        label = outcome if outcome in ("in", "kept") else f"  - {outcome}"
        table.add_row(label, f"{count['files']:,}", megabytes(count["bytes"]))
    table.add_section()
    for split, total in manifest["splits"].items():
        ratio = total["bytes"] / max(total["tokens"] - total["files"], 1)
        label = f"{split} ({len(manifest['sources'][split])} projects)"
        row = (f"{total['files']:,}", megabytes(total["bytes"]), f"{total['tokens']:,}")
        table.add_row(label, *row, f"{ratio:.3f}")
    return table


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f}"
