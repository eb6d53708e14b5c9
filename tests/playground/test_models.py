"""Choosing a model: only names from the list, a run means its newest checkpoint."""

from __future__ import annotations

import gc
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import ref

import pytest

import ptx
from ptx import save_model
from ptx.errors import UserError
from ptx.playground.card import card, describe
from ptx.playground.jobs import Jobs
from ptx.playground.limits import LIMITS, SPACE
from ptx.playground.models import FIRST, KEPT, Models
from ptx.playground.runs import Runs
from ptx.playground.served import Served


@pytest.fixture
def models(served: Served, tmp_path: Path) -> Models:
    return Models(served, tmp_path / "checkpoints", tmp_path / "runs")


def add(path: Path, served: Served) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, served.model, served.tokenizer, {"of": path.name})


def test_a_page_without_neighbours_offers_its_own_model(models: Models, served: Served) -> None:
    assert models.listing() == [{"key": "", "name": "tiny"}]
    assert models.get(FIRST) is served


def test_a_run_means_its_newest_checkpoint(models: Models, served: Served) -> None:
    add(models.runs / "a" / "checkpoints" / "step_000010", served)
    assert models.get("runs/a").info == {"of": "step_000010"}
    add(models.runs / "a" / "checkpoints" / "step_000020", served)
    assert models.get("runs/a").info == {"of": "step_000020"}
    assert models.get("runs/a") is models.get("runs/a")


def test_earlier_checkpoints_of_a_run_can_be_chosen(models: Models, served: Served) -> None:
    run = models.released / "nano"
    for step in (5, 1000, 2000):
        add(run / "checkpoints" / f"step_{step:06}", served)
    (run / "README.md").write_text("The card of the run.")
    assert models.listing()[1:] == [
        {"key": "nano", "name": "nano"},
        {"key": "nano/checkpoints/step_000005", "name": "nano, step 5", "run": "nano"},
        {"key": "nano/checkpoints/step_001000", "name": "nano, step 1,000", "run": "nano"},
    ]
    found = models.get("nano/checkpoints/step_001000")
    assert found.info == {"of": "step_001000"}
    assert found.name == "nano/step_001000"
    assert card(found) == "The card of the run."


def test_released_models_are_offered_once(models: Models, served: Served) -> None:
    add(models.released / "other", served)
    models = Models(Served.load(models.released / "other"), models.released, models.runs)
    assert models.listing() == [{"key": "", "name": "other"}]


@pytest.mark.parametrize(
    "key",
    [
        "nothing",
        "../tiny",
        "/etc",
        "runs/",
        3,
        None,
        ["tiny"],
        "\0",
        "long " * 99,
        {"a": "b" * 999},
    ],
)
def test_another_name_is_refused(models: Models, served: Served, key: object) -> None:
    add(models.released / "other", served)
    with pytest.raises(UserError, match="choose one of the list") as refused:
        models.get(key)
    assert len(str(refused.value)) < 200


def test_only_so_many_stay_in_memory(models: Models, served: Served) -> None:
    for i in range(KEPT + 1):
        add(models.released / f"m{i}", served)
    first = models.get("m0")
    for i in range(KEPT + 1):
        models.get(f"m{i}")
    assert models.get("m0") is not first


def test_a_model_of_the_hub_by_name(
    models: Models, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def hub_model(name: str, max_bytes: int) -> Path:
        asked.append(name)
        return served.directory

    monkeypatch.setattr("ptx.playground.models.hub_model", hub_model)
    assert models.get("hub:user/name").name == "tiny"
    assert models.get("hub:user/name") is models.get("hub:user/name")
    assert asked == ["user/name"]
    assert models.listing()[-1] == {"key": "hub:user/name", "name": "user/name"}


@pytest.mark.parametrize("name", ["", "../x", "/etc/passwd", "a/b/c", "user/..", "http://x/y"])
def test_a_name_that_is_none_of_the_hubs_is_refused(models: Models, name: str) -> None:
    with pytest.raises(UserError, match="user/name"):
        models.get(f"hub:{name}")


def test_a_public_page_opens_no_models_of_the_hub(served: Served, tmp_path: Path) -> None:
    models = Models(served, tmp_path / "checkpoints", tmp_path / "runs", SPACE)
    with pytest.raises(UserError, match="PTX_HUB"):
        models.get("hub:user/name")


def test_a_pinned_key_stays_with_its_checkpoint(models: Models, served: Served) -> None:
    add(models.runs / "a" / "checkpoints" / "step_000010", served)
    key = models.pin("runs/a")
    assert key == "runs/a/checkpoints/step_000010" == models.path_to(key)
    add(models.runs / "a" / "checkpoints" / "step_000020", served)
    assert models.pin(key) == key
    assert models.get(key).info == {"of": "step_000010"}
    assert models.get("runs/a").info == {"of": "step_000020"}
    assert models.pin(FIRST) == FIRST


@pytest.mark.parametrize(
    "key",
    [
        "runs/a/checkpoints/step_000011",
        "runs/a/checkpoints/",
        "runs/a/checkpoints/../../../secret",
        "runs/a/checkpoints/step_000010/../step_000010",
        "/checkpoints/step_000010",
        "runs/b/checkpoints/step_000010",
    ],
)
def test_no_other_place_can_be_pinned(models: Models, served: Served, key: str) -> None:
    add(models.runs / "a" / "checkpoints" / "step_000010", served)
    with pytest.raises(UserError, match="choose one of the list"):
        models.get(key)


def test_a_description_tells_the_pinned_key(models: Models, served: Served) -> None:
    add(models.runs / "a" / "checkpoints" / "step_000010", served)
    runs = Runs(served, models.runs, Jobs())
    about = describe(models, runs, {"model": "runs/a"})
    assert about["model"]["key"] == about["path"] == "runs/a/checkpoints/step_000010"
    assert "runs/a" in [model["key"] for model in about["models"]]
    assert describe(models, runs, {"model": about["path"]})["model"] == about["model"]


def test_a_model_in_memory_is_found_without_a_look_at_the_disk(
    models: Models, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(models.runs / "a" / "checkpoints" / "step_000010", served)
    key = models.pin("runs/a")
    loaded = models.get(key)
    monkeypatch.setattr(Models, "paths", lambda _: pytest.fail("it looked"))
    assert models.get(key) is loaded
    assert models.pin(key) == key


def test_many_first_visitors_get_one_model_and_one_engine(models: Models, served: Served) -> None:
    add(models.released / "other", served)
    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(lambda _: models.get("other").engine, range(8)))
    assert len(set(engines)) == 1
    engines[0].close()


def test_an_evicted_model_writes_its_texts_to_the_end_and_is_freed(
    models: Models, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Served, "get_ready", lambda _: None)  # holds it until it is ready
    for i in range(KEPT + 1):
        add(models.released / f"m{i}", served)
    old = models.get("m0")
    engine, gone = old.engine, ref(old.model)
    text = engine.generate("x", limits=ptx.Limits(40))
    for i in range(1, KEPT + 1):
        models.get(f"m{i}")
    assert len(list(text)) == 40
    assert len(list(old.engine.generate("x", limits=ptx.Limits(3)))) == 3  # asked for just then
    del old, engine, text
    deadline = time.monotonic() + 30
    while gone() and time.monotonic() < deadline:
        time.sleep(0.05)
        gc.collect()
    assert gone() is None


def test_a_model_with_a_long_context_writes_fewer_texts_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served._slots() == LIMITS.streams
    c = served.model.config
    one = 2 * c.n_layer * c.n_kv_head * c.context * c.head_size * 4
    monkeypatch.setattr("ptx.playground.served.MOST_BYTES", 3 * one + 1)
    assert served._slots() == 3
    monkeypatch.setattr("ptx.playground.served.MOST_BYTES", one - 1)
    assert served._slots() == 1


def test_a_checkpoint_that_its_run_did_not_keep_is_still_described(
    models: Models, served: Served
) -> None:
    gone = models.runs / "a" / "checkpoints" / "step_000010"
    add(gone, served)
    key = models.pin("runs/a")
    models.get(key)
    shutil.rmtree(gone)
    about = describe(models, Runs(served, models.runs, Jobs()), {"model": key})
    assert about["model"]["key"] == key
    assert "weights on disk" not in dict(about["memory"])


def test_what_is_half_written_or_cannot_be_read_or_named_is_not_offered(
    models: Models, served: Served
) -> None:
    add(models.released / "other", served)
    for name in (".other.partial-1", os.fsdecode(b"caf\xe9")):
        shutil.copytree(models.released / "other", models.released / name)
    os.symlink("a" * 300, models.released / "odd")
    assert list(models.paths()) == [FIRST, "other"]
