"""Model directories: exact, whole or not at all, and damage is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptx import checkpoint
from ptx.checkpoint import find_model, load_model, log_folder, save_model
from ptx.errors import UserError
from ptx.int8 import as_int8
from ptx.model import GPT
from ptx.tokenizer import Tokenizer


@pytest.fixture
def saved(model: GPT, py16k: Tokenizer, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", model, py16k, {"step": 7})
    return tmp_path / "model"


def test_a_model_comes_back_exactly(saved: Path, model: GPT, py16k: Tokenizer) -> None:
    loaded, tokenizer, info = load_model(saved)
    ids = torch.tensor([py16k.encode("def f(x): return x + 1")])
    assert torch.equal(loaded(ids), model(ids))
    assert tokenizer.fingerprint == py16k.fingerprint
    assert info == {"step": 7}
    assert not loaded.training


def test_only_inert_formats_are_written(saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.tiktoken",
    }


def test_bf16_weights_halve_the_file(saved: Path, model: GPT, py16k: Tokenizer) -> None:
    save_model(saved.with_name("half"), model, py16k, dtype=torch.bfloat16)
    sizes = [(d / "model.safetensors").stat().st_size for d in (saved, saved.with_name("half"))]
    assert sizes[1] < 0.51 * sizes[0]
    assert load_model(saved.with_name("half"))[0].tok_emb.weight.dtype == torch.float32


def damage(path: Path, name: str) -> None:
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.tiktoken"])
@pytest.mark.parametrize("harm", [damage, lambda path, name: (path / name).unlink()])
def test_a_damaged_or_missing_file_is_refused_by_name(saved: Path, name: str, harm) -> None:
    harm(saved, name)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        load_model(saved)


def test_weights_of_another_shape_are_refused_by_tensor(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["d_mlp"] += 1
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.gate\.weight.*has shape"):
        load_model(saved)
    config["model"]["depth"] = 3
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="unknown model field 'depth'"):
        load_model(saved)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_layer", "6"),
        ("norm", "foo"),
        ("bias", 1),
        ("vocab_size", 99),
        ("d_model", 0),
        ("d_mlp", -1),
    ],
)
def test_a_config_field_of_the_wrong_kind_is_refused_by_name(saved: Path, field, value) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"][field] = value
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=field):
        load_model(saved)


def test_a_shape_that_no_memory_holds_is_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["d_model"] = 10**9
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json: memory holds no model of such a shape"):
        load_model(saved)
    (saved / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json cannot be read as JSON"):
        load_model(saved)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_fractions_are_refused_by_tensor(
    saved: Path, kind: torch.dtype
) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["norm.weight"] = tensors["norm.weight"].to(kind)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=r"tensor 'norm\.weight' is torch\."):
        load_model(saved)


def test_a_directory_of_something_else_is_not_replaced(
    model: GPT, py16k: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and not a model directory"):
        save_model(tmp_path, model, py16k)
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize("name", ["notes.txt", "optimizer.safetensors", ".git/HEAD"])
def test_what_is_no_file_of_a_model_is_not_replaced(
    saved: Path, model: GPT, py16k: Tokenizer, name: str
) -> None:
    (saved / name).parent.mkdir(exist_ok=True)
    (saved / name).write_text("precious")
    with pytest.raises(UserError, match=f"holds '{name.partition('/')[0]}'.*or move that else"):
        save_model(saved, model, py16k)
    assert (saved / name).read_text() == "precious"


def test_an_earlier_model_is_replaced_with_all_its_files(
    saved: Path, model: GPT, py16k: Tokenizer
) -> None:
    for name in ("README.md", "metrics.jsonl", "samples.md", "curve.png"):
        (saved / name).touch()
    save_model(saved, model, py16k)
    assert not (saved / "metrics.jsonl").exists()


def test_a_shape_deeper_than_its_weights_is_refused_before_it_is_built(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"]["n_layer"] = 8_000
    (saved / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(checkpoint, "GPT", None)
    with pytest.raises(UserError, match=r"config\.json: n_layer is 8000, and model\.safetensors"):
        load_model(saved)


@pytest.mark.parametrize("info", ["x", ["x"], None, 7])
def test_facts_of_another_form_are_none(saved: Path, info: object) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"info": info}))
    assert load_model(saved)[2] == {}


def test_the_log_of_a_model_is_its_own_or_that_of_its_run(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log_folder(saved) is None
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    saved.rename(run / "checkpoints" / "step_000200")
    monkeypatch.chdir(run / "checkpoints")
    for model in (Path("step_000200"), run / "checkpoints" / "step_000200"):
        assert log_folder(model) == run
    (run / "checkpoints" / "step_000200").rename(run / "checkpoints" / "other")
    assert log_folder(Path("other")) is None
    (run / "checkpoints" / "other" / "metrics.jsonl").touch()
    assert log_folder(Path("other")) == Path("other")


def test_int8_takes_half_of_bf16_and_loads_as_what_as_int8_gives(
    model: GPT, py16k: Tokenizer, tmp_path: Path
) -> None:
    for name, dtype in (("small", torch.int8), ("plain", torch.bfloat16)):
        save_model(tmp_path / name, model, py16k, dtype=dtype)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("small", "plain")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded, _, _ = load_model(tmp_path / "small")
    for (name, ours), theirs in zip(loaded.named_parameters(), as_int8(model).parameters()):
        if ours.ndim == 2:
            assert torch.equal(ours, theirs), name
        assert torch.equal(ours, dict(model.named_parameters())[name]) == (ours.ndim == 1), name


def test_int8_without_its_scales_is_refused_by_name(
    model: GPT, py16k: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path, model, py16k, dtype=torch.int8)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["tok_emb.weight.scale"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"'tok_emb.weight' is int8 and lacks a scale"):
        load_model(tmp_path)


def test_latest_means_the_newest_complete_checkpoint(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "nano"
    for step in ("step_000900", "step_001000", ".step_001100.partial-7"):
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / step).symlink_to(saved)
    for path in (run, run / "latest"):
        assert find_model(path).name == "step_001000"
    with pytest.raises(UserError, match="there is no model at"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no model"):
        find_model(tmp_path)


SAVE_FOR_EVER = """
import sys
import ptx
model, tokenizer, _ = ptx.load_model(sys.argv[1])
print("ready", flush=True)
for step in range(10_000):
    ptx.save_model(sys.argv[1], model, tokenizer, {"step": step})
"""


@pytest.mark.parametrize("delay", [0.05, 0.11, 0.17, 0.23])
def test_a_save_killed_at_any_moment_leaves_a_loadable_model(
    saved: Path, model: GPT, delay: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(saved)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    loaded, _, _ = load_model(saved)
    assert torch.equal(loaded.tok_emb.weight, model.tok_emb.weight)
