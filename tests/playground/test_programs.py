"""The endpoints as a program meets them: gradio_client against a launched page."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from math import log
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

import ptx
from ptx import lens
from ptx.playground.limits import Limits
from ptx.playground.models import Models
from ptx.playground.page import build, launch_options
from ptx.playground.served import Served
from ptx.sampling import Choice, Sampling

ROOT = Path(__file__).parents[2]
TEXT = "def total(items):\n    count = 0\n    for item in items:\n"
ENDPOINTS = ("tokens", "look", "attention", "roles", "lens", "ablation")


@pytest.fixture(scope="module")
def client(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place = tmp_path_factory.mktemp("place")
    page = build(Models(served, place / "checkpoints", place / "runs"))
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options())
    client = Client(url, verbose=False)
    yield client
    client.close()
    page.close()


@pytest.fixture(scope="module")
def ids(served: Served) -> list[int]:
    return [served.tokenizer.eot, *served.tokenizer.encode(TEXT)]


def test_runs_and_their_metrics(client: Client, served: Served) -> None:
    [run] = client.predict(api_name="/runs")
    assert (run["key"], run["state"], run["step"]) == ("model", "done", 9)
    answer = client.predict(run["key"], api_name="/metrics")
    assert answer["run"] == "model"
    assert answer["train"]["step"] == list(range(10))
    assert answer["train"]["bpb"] == [3 - step / 10 for step in range(10)]
    assert answer == client.predict(api_name="/metrics")
    for wrong in ("runs/nothing", "../model", 7):
        with pytest.raises(AppError, match="there is no run"):
            client.predict(wrong, api_name="/metrics")


def test_tokens(client: Client, served: Served, ids: list[int]) -> None:
    answer = client.predict(TEXT, api_name="/tokens")
    assert answer["ids"] == ids
    assert answer["texts"][0] == "⟨end⟩"
    assert "".join(answer["texts"][1:]) == TEXT


@pytest.mark.parametrize("at", [1, 5, -1])
def test_a_look_is_the_samplers_choice(
    client: Client, served: Served, ids: list[int], at: int
) -> None:
    knobs: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2}
    answer = client.predict(TEXT, at=at, n=20, **knobs, api_name="/look")
    cursor = len(ids) if at == -1 else at
    if at == -1:  # as it is drawn: the text may end inside a token
        logits = next(ptx.generate(served.model, served.tokenizer, TEXT)).choice.logits
    else:
        logits = lens.trace(served.model, ids[:cursor]).logits[-1]
    choice = Choice(logits, Sampling(**knobs), ids[:cursor])
    assert answer["healed"] is (at == -1)
    assert answer["at"] == cursor
    assert len(answer["alternatives"]) == 20
    for told, real in zip(answer["alternatives"], choice.top(20), strict=True):
        assert told["raw"] == pytest.approx(real.raw, abs=1e-6)
        mine = choice.alternative(told["token"])
        assert told["final"] == pytest.approx(mine.final, abs=1e-5)
        assert told["cut_by"] == mine.cut_by
    assert answer["entropy"] == pytest.approx(choice.entropy, abs=1e-4)
    assert answer["final_entropy"] == pytest.approx(choice.final_entropy, abs=1e-3)
    assert answer["tail_mass"] == pytest.approx(choice.tail_mass, abs=1e-4)
    if at == -1:
        assert answer["token"] is None
    else:
        assert answer["token"] == ids[at]
        assert answer["prob"] == pytest.approx(float(choice.raw[ids[at]]), abs=1e-6)


@pytest.mark.parametrize("view", ["raw", "no sink", "weighted"])
def test_attention_is_the_lenss_in_either_encoding(
    client: Client, served: Served, ids: list[int], view: str
) -> None:
    seen = lens.trace(served.model, ids)
    weights = {
        "raw": seen.attention,
        "no sink": lens.without_sink(seen.attention),
        "weighted": lens.value_weighted(served.model, seen),
    }[view][1, 2].numpy()
    plain = client.predict(TEXT, 1, 2, view=view, api_name="/attention")
    assert np.allclose(plain["weights"], weights, atol=1e-5)
    assert len(plain["texts"]) == len(ids)
    packed = client.predict(TEXT, 1, 2, view=view, encoding="base64", api_name="/attention")
    decoded = np.frombuffer(b64decode(packed["weights"]), "<f4").reshape(weights.shape)
    assert np.allclose(decoded, weights, atol=1e-5)
    part = client.predict(TEXT, 1, 2, at=4, view="raw", api_name="/attention")
    assert np.allclose(part["weights"], seen.attention[1, 2, :4, :4], atol=1e-5)


def test_roles_of_a_text_and_of_the_reference(
    client: Client, served: Served, ids: list[int]
) -> None:
    for text, real in (
        (TEXT, lens.roles(served.tokenizer, ids, lens.attention(served.model, ids))),
        ("", lens.reference_roles(served.model, served.tokenizer)),
    ):
        answer = client.predict(text, api_name="/roles")
        assert list(answer["scores"]) == list(lens.ROLES)
        for told, score in zip(answer["scores"].values(), real.scores, strict=True):
            assert np.allclose(np.array(told, float), score, equal_nan=True, atol=1e-5)
        assert list(answer["queries"].values()) == real.queries.tolist()
        assert answer["labels"][1][0] == real.label(1, 0)
        assert np.allclose(answer["sink"], real.sink, atol=1e-5)


def test_lens(client: Client, served: Served, ids: list[int]) -> None:
    answer = client.predict(TEXT, at=6, api_name="/lens")
    seen = lens.trace(served.model, ids[:6])
    layers = lens.logit_lens(served.model, seen, token=ids[6])
    assert answer["lens"]["prob"] == pytest.approx(layers.prob.tolist(), abs=1e-6)
    against = answer["parts"]["against"]["id"]
    parts = lens.attribution(served.model, seen, ids[6], against)
    assert np.allclose(answer["parts"]["heads"], parts.heads, atol=1e-5)
    other = client.predict(TEXT, at=6, against=9, api_name="/lens")
    assert other["parts"]["against"]["id"] == 9


def test_ablation(client: Client, served: Served, ids: list[int]) -> None:
    answer = client.predict(TEXT, ["0.1"], at=6, each=True, api_name="/ablation")
    mutes = [lens.Mute(heads=((0, 1),)), *lens.single_heads(served.model.config)]
    found = lens.ablate(served.model, ids[:6], mutes, ids[6])
    bits = -found.next_logprob / log(2)
    assert answer["next"] == pytest.approx(float(bits[0]), abs=1e-5)
    assert np.allclose(answer["each"], bits[1:].view(2, 3), atol=1e-5)
    assert answer["loss"] == pytest.approx(float(found.loss[0]) / log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("api_name", "arguments", "named"),
    [
        ("/tokens", {"text": "a\0"}, "NUL"),
        ("/tokens", {"text": "x", "model": "../mini"}, "model"),
        ("/look", {"text": "x", "at": 99}, "at must"),
        ("/look", {"text": "x", "n": 0}, "n must"),
        ("/look", {"text": "x", "temperature": -1}, "temperature"),
        ("/look", {"text": "x", "top_p": "a lot"}, "top_p"),
        ("/look", {"text": "x", "muted": ["9.9"]}, "muted"),
        ("/attention", {"text": "x", "layer": 7, "head": 0}, "layer"),
        ("/attention", {"text": "x", "layer": 0, "head": 0, "view": "cooked"}, "view"),
        ("/attention", {"text": "x", "layer": 0, "head": 0, "encoding": "xml"}, "encoding"),
        ("/roles", {"text": 3}, "text"),
        ("/lens", {"text": "x", "against": 10**9}, "against"),
        ("/ablation", {"text": "x", "muted": "0.0"}, "muted"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    client: Client, api_name: str, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(AppError, match=named):
        client.predict(**arguments, api_name=api_name)


def test_one_bound_and_one_rate_hold_for_every_question(served: Served, tmp_path: Path) -> None:
    limits = Limits(prompt_bytes=20, new_tokens=5, per_minute=4)
    page = build(Models(served, tmp_path / "checkpoints", tmp_path / "runs", limits))
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options())
    client = Client(url, verbose=False)
    try:
        assert len(client.predict("x" * 20, api_name="/tokens")["ids"]) > 1
        for name in ("/tokens", "/look", "/lens"):
            with pytest.raises(AppError, match="text has 21 bytes and at most 20 are read"):
                client.predict("x" * 21, api_name=name)
        with pytest.raises(AppError, match="4 requests a minute"):
            client.predict(api_name="/runs")
    finally:
        client.close()
        page.close()


def test_every_endpoint_explains_itself(client: Client) -> None:
    found = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name in ENDPOINTS:
        about = found[f"/{name}"]
        assert len(about["description"]) > 60
        assert all(parameter["type"] != {} for parameter in about["parameters"])
        assert about["returns"][0]["python_type"]["type"].startswith("dict")


def test_the_readmes_example_runs(client: Client) -> None:
    section = (ROOT / "README.md").read_text().split("## For programs\n")[1].split("\n## ")[0]
    code = "\n".join(line for line in section.splitlines() if line[:4] in ("", "    "))
    code = dedent(code).replace("http://127.0.0.1:7860", client.src)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 6
    assert all(f"`{name}`" in section for name in [f"/{name}" for name in ENDPOINTS])


def test_many_programs_at_once(client: Client) -> None:
    jobs = [client.submit(TEXT, at=at, api_name="/look") for at in (2, 3, 4) * 4]
    probs = [job.result(timeout=60)["prob"] for job in jobs]
    assert torch.allclose(torch.tensor(probs[:3] * 4), torch.tensor(probs), atol=1e-6)
