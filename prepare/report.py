"""One HTML page that shows what is in a data directory: no script, no other file, no request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prepare import documents
from prepare.build import NEAR_DUPLICATES
from prepare.show import printable
from ptx.corpus import Corpus, count_tokens, sources_of
from ptx.tokenizer import Tokenizer

WEB = Path(__file__).parent / "web"
LARGEST = 20  # projects and licences shown
EXAMPLES = 8  # random documents, and near duplicates
EXAMPLE_TOKENS = 160  # shown of a document
UNUSED = 200  # tokens that never occur, shown
LINES_FROM = 2_000  # documents whose lines are measured
RARE = (0, 1, 10, 100, 1_000, 10_000, 100_000)  # bounds of how often a token occurs


@dataclass(frozen=True)
class Found:
    """What reading the list of documents once gives."""

    licences: Counter[str]  # bytes by licence
    sizes: np.ndarray  # tokens of each document, (N,)
    sampled: list[dict[str, object]]  # rows, evenly over the corpus


def write(directory: Path, page: Path) -> None:
    """Read the directory (its hashes are checked) and write the page."""
    corpus = Corpus(directory)
    found = read(corpus)
    counts = sum(count_tokens(getattr(corpus, s), corpus.tokenizer.n_vocab) for s in corpus.splits)
    parts = {
        "title": escape(directory.resolve().name),
        "style": (WEB / "report.css").read_text("utf-8"),
        "facts": facts(corpus),
        "filters": filters(corpus.manifest),
        "licences": bars(found.licences.most_common(LARGEST), megabytes),
        "projects": "".join(projects(corpus, split) for split in corpus.splits),
        "lines": histogram(line_lengths(corpus, found.sampled), (0, 20, 40, 60, 80, 100, 150, 250)),
        "sizes": histogram(found.sizes, (0, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)),
        "tokens": histogram(counts, RARE),
        "unused": unused(corpus.tokenizer, counts),
        "examples": "".join(example(corpus, row) for row in pick(found.sampled)),
        "twins": "".join(twin(corpus, row) for row in near_duplicates(corpus)) or "None.",
    }
    template = Template((WEB / "report.html").read_text("utf-8"))
    page.write_text(template.substitute(parts), "utf-8")


def read(corpus: Corpus) -> Found:
    licences: Counter[str] = Counter()
    sizes: list[int] = []
    sampled: list[dict[str, object]] = []
    with documents.open_documents(corpus.path) as file:
        step = max(1, file.metadata.num_rows // LINES_FROM)
    for i, row in enumerate(documents.rows(corpus.path)):
        licences[row["licence"] or "not stated"] += row["bytes"]
        sizes.append(row["tokens"])
        if i % step == 0:
            sampled.append(row)
    return Found(licences, np.array(sizes), sampled)


def facts(corpus: Corpus) -> str:
    manifest, rows = corpus.manifest, []
    for split in corpus.splits:
        total = manifest["splits"][split]
        told = f"{total['tokens']:,} tokens, {total['files']:,} documents, "
        listed = sources_of(corpus.path, manifest, split)
        told += f"{megabytes(total['bytes'])} of text, {len(listed):,} projects"
        rows.append((f"{split}.bin", told))
    kept = manifest["splits"]["train"]
    density = kept["bytes"] / max(1, kept["tokens"] - kept["files"])
    rows += [
        ("tokenizer", f"{corpus.tokenizer.name}, {density:.2f} bytes per token"),
        ("source", manifest.get("command", {}).get("source", "unknown")),
        ("split", manifest.get("split", {}).get("rule", "unknown")),
    ]
    return table(("", ""), rows)


def filters(manifest: dict) -> str:
    """What each step removed and replaced, as bars of bytes."""
    outcomes = manifest.get("filters", {})
    rows = [
        (f"{name} ({count['files']:,} files)", count["bytes"])
        for name, count in outcomes.items()
        if count["files"]
    ]
    replaced = ", ".join(f"{n:,} {kind}" for kind, n in manifest.get("replaced", {}).items())
    return bars(rows, megabytes) + f"<p>Replaced by placeholders: {escape(replaced) or 'none'}.</p>"


def projects(corpus: Corpus, split: str) -> str:
    found = sources_of(corpus.path, corpus.manifest, split)
    listed = sorted(found, key=lambda s: -s["bytes"])[:LARGEST]
    rows = [
        (
            s["name"],
            s["version"],
            s["licence"] or "not stated",
            f"{s['files']:,}",
            megabytes(s["bytes"]),
        )
        for s in listed
    ]
    return f"<h3>{split}</h3>" + table(("project", "version", "licence", "files", "size"), rows)


def line_lengths(corpus: Corpus, rows: Sequence[dict[str, object]]) -> np.ndarray:
    """Characters of every line of the sampled documents."""
    lengths: list[int] = []
    for row in rows:
        lengths += map(len, text_of(corpus, row).splitlines())
    return np.array(lengths or [0])


def text_of(corpus: Corpus, row: dict[str, object]) -> str:
    tokens = getattr(corpus, str(row["split"]))[row["start"] : row["start"] + row["tokens"]]
    return corpus.tokenizer.text(tokens.tolist())


def pick(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Always the same ones for the same corpus."""
    return random.Random(0).sample(rows, min(EXAMPLES, len(rows)))


def example(corpus: Corpus, row: dict[str, object]) -> str:
    """The beginning of a document, each token in a box of its own."""
    stop = row["start"] + min(row["tokens"], EXAMPLE_TOKENS)
    ids = getattr(corpus, str(row["split"]))[row["start"] : stop].tolist()
    boxes = "".join(f"<i>{visible(corpus.tokenizer.token_bytes(i))}</i>" for i in ids)
    cut = " …" if row["tokens"] > EXAMPLE_TOKENS else ""
    return f"{heading(row)}<pre tabindex='0'>{boxes}{cut}</pre>"


def heading(row: dict[str, object]) -> str:
    place = f"{row['project']} {row['version']} / {row['path']}"
    told = f"{row['licence'] or 'licence not stated'} · {row['split']} from token {row['start']:,}"
    return f"<h3>{escape(place)}</h3><p>{escape(told)}, {row['tokens']:,} tokens</p>"


def visible(token: bytes) -> str:
    """A token as text in which nothing is hidden: line ends and tabs drawn, controls as escapes."""
    shown = printable(token.decode("utf-8", "backslashreplace"))
    return escape(shown).replace("\t", "→\t").replace("\n", "↵\n").replace(" ", "\u00b7")


def near_duplicates(corpus: Corpus) -> list[dict[str, object]]:
    """Some of those that were removed, spread over the corpus."""
    file = corpus.path / NEAR_DUPLICATES
    if not file.is_file():
        return []
    table = pq.read_table(file)
    step = max(1, table.num_rows // EXAMPLES)
    chosen = pa.array(range(0, table.num_rows, step)[:EXAMPLES], pa.int64())  # of none, too
    return table.take(chosen).to_pylist()


def twin(corpus: Corpus, row: dict[str, object]) -> str:
    kept = documents.around(corpus.path, str(row["kept_split"]), int(row["kept_start"]))
    removed = f"{row['project']} / {row['path']}"
    stayed = f"{kept['project']} / {kept['path']}"
    return (
        f"<p><del>{escape(removed)}</del> is {row['similarity']:.0%} the same as "
        f"<b>{escape(stayed)}</b> ({row['kept_split']})</p>"
    )


def unused(tokenizer: Tokenizer, counts: np.ndarray) -> str:
    """Tokens that never occur; ids without a token are not meant."""
    never = [i for i in np.flatnonzero(counts == 0).tolist() if tokenizer.token_bytes(i)]
    shown = " ".join(f"<i>{visible(tokenizer.token_bytes(i))}</i>" for i in never[:UNUSED])
    more = f" and {len(never) - UNUSED:,} more" if len(never) > UNUSED else ""
    said = f"<p>{len(never):,} of {tokenizer.n_vocab:,} never occur:</p>"
    return f"{said}<pre tabindex='0'>{shown}{more}</pre>"


def histogram(values: np.ndarray, bounds: Sequence[int]) -> str:
    """How many values lie from each bound up to the next; the last has no end."""
    edges = np.array([*bounds, np.iinfo(np.int64).max])
    counts = np.histogram(values, edges)[0].tolist()
    names = [
        str(low) if high == low + 1 else f"{low:,} to {high - 1:,}"
        for low, high in pairwise(bounds)
    ]
    names.append(f"{bounds[-1]:,} and more")
    return bars(list(zip(names, counts, strict=True)), "{:,}".format)


def bars(rows: Sequence[tuple[str, int]], show: Callable[[int], str]) -> str:
    """A bar a row, all on one scale, with its number beside it."""
    largest = max((n for _, n in rows), default=0) or 1
    lines = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td class=number>{show(n)}</td>"
        f'<td class=bar><span style="width:{100 * n / largest:.1f}%"></span></td></tr>'
        for name, n in rows
    )
    return f"<table>{lines}</table>" if rows else "<p>None.</p>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in headings)
    body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if any(headings) else f"<table>{body}</table>"


def cell(value: str) -> str:
    number = value[:1].isdigit() and value.removesuffix(" MB").replace(",", "").isdecimal()
    size = value.endswith(" MB")
    return f"<td{' class=number' if number or size else ''}>{escape(value)}</td>"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
