"""How well the shipped model knows Python that it has never seen, beside what knows less.

    python prepare/run.py installed --val-fraction 0.05 --test-fraction 0.05
    python tests/bench/quality.py [--quick] [--json]

All read the same bytes: the start of each package kept for a last test, or of those that validate
where the data has no test. `python train/run.py evaluate` says the same by project.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ptx.checkpoint import load_model
from ptx.corpus import Corpus
from ptx.sampling import Sampling
from tests.bench.report import arguments, report
from train.baselines import baselines
from train.continuations import measure, prompts
from train.heldout import held_out
from train.score import score

ROOT = Path(__file__).resolve().parents[2]
BITS, PARSED = 0.95, 0.85


def main() -> None:
    args = arguments(__doc__)
    corpus = Corpus(ROOT / "data" / "installed")
    model, tokenizer, _ = load_model(ROOT / "checkpoints" / "mini")
    texts = held_out(corpus, corpus.splits[-1], 3_000 if args.quick else 50_000)
    ours = score(model, tokenizer, texts)[-1]
    count = 20 if args.quick else 200
    begun = prompts(texts, count, seed=0)
    found = measure(begun, model, tokenizer, seed=0)
    hotter = measure(begun, model, tokenizer, 0, Sampling(0.8, top_p=0.95))
    others = [
        (f"bits per byte, against {name}", ours.bits_per_byte, sum(bits) / ours.bytes, None)
        for name, bits in baselines(corpus, texts).items()
    ]
    figures = [
        ("bits_per_byte", ours.bits_per_byte, None, BITS),
        ("parsed: continuations, another file's text", found.parsed, found.parsed_control, PARSED),
        (
            "parsed up to the last complete statement",
            found.statements,
            found.statements_control,
            PARSED,
        ),
        ("parsed where Python's parser may refuse tokens", found.parsed_python, None, PARSED),
        ("tokens that it refused, for each that came", found.refused, None, None),
        ("parsed at temperature 0.8", hotter.parsed, hotter.parsed_control, PARSED),
        ("lines that repeat one before", found.repeated, found.repeated_control, None),
        ("top1", ours.top1, None, None),
        ("brackets closed", found.brackets, None, None),
        ("lines at an allowed depth", found.indentation, None, None),
    ]
    report([*figures, *others], args)


if __name__ == "__main__":
    main()
