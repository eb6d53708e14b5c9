"""A run that began with a model tells what had made it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ptx import runlog
from ptx.checkpoint import find_model, load_model, read_config
from ptx.errors import UserError
from train import origin
from train.loop import train
from train.origin import Before
from train.release import Release, release
from train.settings import Settings

MINI = Path(__file__).parents[2] / "checkpoints" / "mini"


def run(data: Path, runs: Path, name: str, steps: int, init_from: Path | None = None) -> Path:
    return train(
        Settings(
            preset="tiny", data=data, runs=runs, name=name, steps=steps, init_from=init_from,
            val_every=2, val_windows=4, sample_every=100, save_every=100, device="cpu",
            precision="fp32", attention="fused", compile="off",
        )
    )  # fmt: skip


def test_three_runs_add_up(data: Path, tmp_path: Path) -> None:
    first = run(data, tmp_path, "first", 4)
    second = run(data, tmp_path, "second", 6, first)
    third = run(data, tmp_path, "third", 8, second / "latest")
    assert origin.before(first) == Before()
    per_step = read_config(find_model(first))["info"]["tokens"] // 4
    before = origin.before(third)
    assert (before.steps, before.tokens) == (10, 10 * per_step)
    curve = before.goes_on_with(runlog.tail(third / runlog.METRICS)[0])
    assert [r["step"] for r in curve if "bpb" in r] == list(range(1, 19))
    assert [r["step"] for r in curve if "val_bpb" in r] == list(range(2, 19, 2))
    assert [r["tokens"] for r in curve if "bpb" in r] == [per_step * n for n in range(1, 19)]
    assert all(a["elapsed"] <= b["elapsed"] + 0.1 for a, b in pairwise(curve))


@pytest.fixture
def two_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The second began with the first, and both can be released."""
    monkeypatch.setattr("train.release.prepare_command", lambda _: "made by hand")
    first = run(data, tmp_path, "first", 4)
    return first, run(data, tmp_path, "second", 6, first)


def test_a_release_tells_of_all_runs_and_can_be_begun_with(
    data: Path, tmp_path: Path, two_runs: tuple[Path, Path]
) -> None:
    _, second = two_runs
    out = tmp_path / "released"
    release(Release(second, out, tokens=100, samples=3))
    assert read_config(out)["info"]["steps"] == 10
    assert "The first 4 steps" in (out / "README.md").read_text()
    third = run(data, tmp_path, "third", 8, out)
    release(Release(third, out, tokens=100, samples=3))  # in the place of what it began with
    assert read_config(out)["info"]["steps"] == 18
    release(Release(third, out, tokens=100, samples=3))
    assert read_config(out)["info"]["steps"] == 18


def test_a_release_of_a_run_that_goes_on_ends_with_its_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.release.prepare_command", lambda _: "made by hand")
    first, out = run(data, tmp_path, "first", 4), tmp_path / "released"
    runlog.append(first / runlog.METRICS, {"step": 5, "tokens": 320, "val_bpb": 0.1})
    release(Release(first, out, tokens=100, samples=3))
    assert runlog.tail(out / runlog.METRICS)[0][-1]["step"] == 4
    assert "| 0.100 |" not in (out / "README.md").read_text()


def test_a_release_is_not_scored_on_other_data(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    first = run(mine, tmp_path, "first", 4)
    manifest = json.loads((mine / "manifest.json").read_text())
    swapped = dict(zip(("train", "val"), ("val", "train"), strict=True))
    for key in ("splits", "sources"):
        manifest[key] = {side: manifest[key][swapped[side]] for side in swapped}
    (mine / "manifest.json").write_text(json.dumps(manifest))
    (mine / "train.bin").rename(mine / "first.bin")
    (mine / "val.bin").rename(mine / "train.bin")
    (mine / "first.bin").rename(mine / "val.bin")
    with pytest.raises(UserError, match=r"is not the data that .*first was trained on"):
        release(Release(first, tmp_path / "released", tokens=100, samples=3))


def test_a_release_may_be_the_mean_of_a_run_and_another_model(
    tmp_path: Path, two_runs: tuple[Path, Path]
) -> None:
    first, second = two_runs
    out = tmp_path / "released"
    release(Release(second, out, tokens=100, samples=3, average=first, share=0.25))
    weights = [load_model(path)[0].head.weight for path in (first, second, out)]
    mean = 0.75 * weights[0] + 0.25 * weights[1]
    torch.testing.assert_close(weights[2], mean, rtol=2**-8, atol=1e-6)  # kept in bf16
    assert not torch.equal(weights[0], weights[1])
    assert (
        "a mean: 0.25 of the run's last ones and 0.75 of those of first"
        in (out / "README.md").read_text()
    )
    with pytest.raises(UserError, match="--share must lie between 0 and 1"):
        release(Release(second, tmp_path / "no", average=first, share=1.0))
    with pytest.raises(UserError, match="another shape or tokenizer"):
        release(Release(second, tmp_path / "no", average=MINI, tokens=100, samples=3))
    assert not (tmp_path / "no").exists()


def test_a_model_without_facts_had_nothing_done(data: Path, tmp_path: Path) -> None:
    model = find_model(run(data, tmp_path, "first", 2))
    alone = model.rename(tmp_path / "alone")
    config = alone / "config.json"
    config.write_text(config.read_text().replace('"info"', '"other"'))
    assert origin.made(alone) == Before(model="alone")


def test_damaged_facts_are_named(data: Path, tmp_path: Path) -> None:
    second = run(data, tmp_path, "second", 2, run(data, tmp_path, "first", 2))
    (second / origin.FOLDER / origin.FACTS).write_text("{")
    with pytest.raises(UserError, match=r"facts\.json cannot be read"):
        origin.before(second)
    assert replace(Before(), steps=1).goes_on_with([{"step": 1}]) == [{"step": 2}]
