"""Bits per byte of the shipped model on held-out packages, against general-purpose compressors.

    python prepare/run.py installed
    python tests/bench/quality.py [--quick] [--json]

All read the same bytes: the start of each held-out project, joined. A compressor has seen nothing
before them, the model was trained on other projects. `python train/run.py evaluate` scores the
whole text by project.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from ptx.checkpoint import load_model
from ptx.corpus import Corpus
from tests.bench.report import arguments, report
from train.evaluate import score

ROOT = Path(__file__).resolve().parents[2]


def heads_of_projects(corpus: Corpus, per_project: int) -> bytes:
    """The text that `score` reads: the first tokens of every held-out project."""
    pieces, position = [], 0
    for project in corpus.manifest["sources"]["val"]:
        pieces.append(corpus.val[position : position + min(project["tokens"], per_project)])
        position += project["tokens"]
    return corpus.tokenizer.decode(np.concatenate(pieces))


def main() -> None:
    args = arguments(__doc__)
    corpus = Corpus(ROOT / "data" / "installed")
    model, _, _ = load_model(ROOT / "checkpoints" / "mini")
    per_project = 3_000 if args.quick else 50_000
    ours = score(model, corpus, per_project)[-1]
    text = heads_of_projects(corpus, per_project)
    assert len(text) == ours.bytes
    xz = 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    bzip2 = 8 * len(bz2.compress(text, 9)) / len(text)
    report(
        [
            ("bits per byte, against xz -9e", ours.bits_per_byte, xz, xz),
            ("bits per byte, against bzip2 -9", ours.bits_per_byte, bzip2, bzip2),
        ],
        args,
    )


if __name__ == "__main__":
    main()
