"""Models from elsewhere on the page: it writes with them and reads them as it does ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptx.hub.from_transformers import import_model
from ptx.playground.live import frames
from ptx.playground.models import Models
from ptx.playground.reading import Reading
from ptx.playground.recordings import Recordings
from ptx.playground.request import Request
from ptx.playground.served import Served
from tests.ptx.hub.test_from_transformers import saved, scrambled, trained

CODE = "def total(items):\n    return sum(items)\n"


@pytest.fixture(scope="module", params=[("gpt2", "gpt2"), ("qwen2, tied, grouped", "qwen"),
                                        ("llama", "smollm")])  # fmt: skip
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    shape, tokenizer = request.param
    home = tmp_path_factory.mktemp("imported")
    import_model(saved(home / "theirs", scrambled(shape), trained(tokenizer)), home / "ours")
    return Served.load(home / "ours")


def test_it_writes(imported: Served) -> None:
    *_, last = frames(imported, Request(CODE + "x = tot", length=9, seed=1), Recordings())
    assert last["finish"] == "length"
    assert last["generated"] == 9


@pytest.mark.parametrize("kind", ["tokens", "score", "look", "maps", "head", "price"])
def test_everything_about_a_token_is_answered(imported: Served, kind: str, tmp_path: Path) -> None:
    reading = Reading(Models(imported, tmp_path / "checkpoints", tmp_path / "runs"), Recordings())
    ids = [imported.tokenizer.eot, *imported.tokenizer.encode(CODE)]
    answer = reading.ask(
        {
            "ask": kind, "name": kind, "model": "", "text": CODE, "ids": ids, "at": 9,
            "view": "raw", "layer": 1, "head": 0, "muted": ["0.1"], "each": True,
        }
    )  # fmt: skip
    assert "error" not in answer, answer
    assert answer
