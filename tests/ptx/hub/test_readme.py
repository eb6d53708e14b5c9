"""The README's commands about the Hub and transformers, run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

import ptx
from ptx.hub.__main__ import main
from tests.ptx.hub.conftest import files
from tests.ptx.hub.stand_in import Repositories
from tests.ptx.hub.test_from_transformers import saved, scrambled, trained

ROOT = Path(__file__).resolve().parents[3]


def section(title: str) -> str:
    return (ROOT / "README.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def commands(title: str) -> list[list[str]]:
    found = re.findall(r"^    python -m ptx\.hub (.*)$", section(title), re.MULTILINE)
    return [shlex.split(words) for words in found]


def code(title: str, start: str) -> str:
    """The indented block that begins with `start`."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", section(title), re.MULTILINE)
    return dedent(next(block for block in blocks if block.strip().startswith(start)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory like the repository's, with its model."""
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / "mini").symlink_to(ROOT / "checkpoints" / "mini")
    monkeypatch.chdir(home)
    return home


def test_put_it_on_a_space(hub: Repositories, home: Path) -> None:
    (command,) = commands("Put it on a Space")
    main(command)
    assert "checkpoints/mini/model.safetensors" in hub.repositories["user/name"].files()


def test_use_your_model_elsewhere(
    hub: Repositories, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    title = "Use your model elsewhere"
    ran = commands(title)
    assert [command[0] for command in ran] == ["push", "push", "pull", "export"]
    released = home / "released" / "mine"  # as train/run.py release would have written it
    shutil.copytree(home / "checkpoints" / "mini", released)
    for command in ran:
        main(command)
    assert ptx.load_model(home / "checkpoints" / "copy")[2]["preset"] == "mini"
    exec(code(title, "import ptx"), {})  # noqa: S102 (our own README)
    assert "user/other" in hub.repositories
    capsys.readouterr()
    exec(code(title, "from transformers"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("def fibonacci(n):")


def test_open_someone_elses_model(
    hub: Repositories, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = saved(tmp_path / "theirs", scrambled("llama"), trained("smollm"))
    hub.add("HuggingFaceTB/SmolLM-135M", files(theirs))
    (command,) = commands("Open someone else's model")
    main(command)
    assert "python app.py --model checkpoints/smollm" in capsys.readouterr().out
    assert "python app.py --model checkpoints/smollm" in section("Open someone else's model")
    model, tokenizer, _ = ptx.load_model("checkpoints/smollm")
    assert list(ptx.generate(model, tokenizer, "def f(", limits=ptx.Limits(3)))
