"""A Hub on this machine, a cache of its own, and models to send there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from ptx.checkpoint import save_model
from ptx.model import GPT
from ptx.tokenizer import Tokenizer
from tests.prepare.sources.hub_stand_in import serving
from tests.ptx.hub.stand_in import Repositories, RepositoryAnswers

TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repositories]:
    """The only Hub that the clients of this test know; they hold its token."""
    with serving(Repositories(), RepositoryAnswers) as hub:
        assert isinstance(hub, Repositories)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + TEMPLATE)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory, model: GPT, py16k: Tokenizer) -> Path:
    """A released model with random weights: metrics and card beside it, and what never goes."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    info = {
        "preset": "nano",
        "steps": 3,
        "test_bpb": 3.5,
        "val_bpb": 3.25,
        "dataset": "somebody/code",
    }
    save_model(directory, model, py16k, info)
    (directory / "metrics.jsonl").write_text(
        '{"step":1,"bpb":3.9,"elapsed":30}\n{"step":2,"bpb":3.6,"elapsed":60}\n'
        '{"step":2,"val_bpb":4.1,"elapsed":60}\n{"step":3,"val_bpb":3.3,"elapsed":90}\n'
    )
    (directory / "README.md").write_text(
        "---\nlicense: mit\nlanguage: code\ntags: [python]\n---\n\n# tiny\n\nWords.\n\n"
        "## How good\n\nVery.\n"
    )
    (directory / "samples.md").write_text("# samples\n")
    (directory / "optimizer.safetensors").write_bytes(b"not for the Hub")
    (directory / ".env").write_text("SECRET=1")
    return directory


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(directory, tmp_path / "tiny"))


def files(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}
