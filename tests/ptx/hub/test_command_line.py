"""python -m ptx.hub: every command from one end to the other, and sentences for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import ptx
from ptx.hub.__main__ import main
from tests.peers import TOLERANCE
from tests.ptx.hub.conftest import files
from tests.ptx.hub.stand_in import Repositories
from tests.ptx.hub.test_from_transformers import saved, scrambled, trained


def test_push_pull_export_import_end_to_end(
    hub: Repositories, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(directory), "me/tiny", "--private"])
    main(["pull", "me/tiny", str(tmp_path / "pulled")])
    main(["export", str(tmp_path / "pulled"), str(tmp_path / "theirs")])
    main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"pushed {directory} to me/tiny: {hub.url}")
    assert said[2] == f"wrote {tmp_path}/theirs, a Qwen3ForCausalLM of transformers"
    first, second = (ptx.load_model(path) for path in (directory, tmp_path / "ours"))
    ids = torch.tensor([first[1].encode("def f(x):\n    return")])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")(ids).logits
        assert (first[0](ids) - second[0](ids)).abs().max() == 0
        assert (first[0](ids) - logits).abs().max() < TOLERANCE


def test_import_takes_a_name_and_says_what_it_left_out(
    hub: Repositories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path / "theirs", scrambled("qwen2"), trained("qwen"))
    hub.add("them/qwen", files(source))
    main(["import", "them/qwen", str(tmp_path / "ours"), "--context", "64"])
    said = capsys.readouterr()
    assert "note: the tokenizer's Unicode normalization (NFC) is left out" in said.err
    assert "note: it sees 64 of its 128 tokens" in said.err
    assert f"python app.py --model {tmp_path}/ours" in said.out
    assert ptx.load_model(tmp_path / "ours")[0].config.context == 64
    main(["import", str(source), str(tmp_path / "ours")])  # a directory, over the earlier one
    assert ptx.load_model(tmp_path / "ours")[0].config.context == 128


def test_space_lists_and_makes_it(
    hub: Repositories, directory: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    main(["space", "me/play", "--model", str(directory), "--dry-run"])
    assert "checkpoints/tiny/model.safetensors" in capsys.readouterr().out.splitlines()
    assert hub.calls == []
    monkeypatch.setenv("PASSWORD", "1234")
    main(["space", "me/play", "--model", str(directory), "--secret", "PASSWORD"])
    assert f"is at {hub.url}/spaces/me/play" in capsys.readouterr().out
    (secret,) = hub.repositories["me/play"].settings["secrets"]
    assert (secret["key"], secret["value"]) == ("PASSWORD", "1234")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["push", "nowhere", "me/x"], "there is no model at nowhere"),
        (["pull", "me/nothing", "out"], "The Hub does not show me/nothing to you (401)"),
        (["pull", "https://huggingface.co/me/x", "out"], "is no name of the Hub: write it as"),
        (["export", "me/nothing", "out"], "me/nothing is no local directory, and of the Hub:"),
        (["import", "me/nothing", "out"], "The Hub does not show me/nothing"),
        (["export", "MODEL", "MODEL"], "is what the model is made of: name another directory"),
        (["space", "me/x", "--model", "nowhere"], "there is no model at nowhere"),
        (
            ["space", "me/x", "--model", "MODEL", "--secret", "NO_SUCH"],
            "set the environment variab",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    hub: Repositories, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], words: list[str], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([str(copied) if word == "MODEL" else word for word in words])
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert sentence in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["", "push", "pull", "space", "export", "import"])
def test_help_teaches_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"] if command else ["--help"])
    assert f"python -m ptx.hub {command}".strip() in capsys.readouterr().out


def test_import_ptx_imports_no_hub_and_no_transformers() -> None:
    code = (
        "import sys, json, ptx, ptx.hub; ptx.GPT, ptx.load_model, ptx.Tokenizer\n"
        "from ptx.hub import export, import_model, hub_model, push, space\n"
        "print(json.dumps([m for m in sys.modules if m.partition('.')[0] in "
        "('huggingface_hub', 'transformers', 'tokenizers', 'gradio', 'PIL', 'yaml')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
