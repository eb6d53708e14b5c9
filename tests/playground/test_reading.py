"""What the page is told about a position equals the library's own answer, for any cursor, window
and model; what cannot be answered gets a sentence."""

from __future__ import annotations

import json
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from math import log, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptx
from ptx import GPT, ModelConfig, lens, save_model
from ptx.playground.models import Models
from ptx.playground.reading import VIEWS, Reading
from ptx.playground.recordings import Recordings
from ptx.playground.served import Served
from ptx.playground.traces import Traces
from ptx.sampling import Choice, Sampling, distribution
from ptx.stream import visible_from

CODE = "def total(items):\n    count = 0\n    for item in items:\n        count += item\n"
EVERY = ("tokens", "score", "look", "maps", "head", "rows", "price")


@pytest.fixture(scope="module")
def reading(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    place = tmp_path_factory.mktemp("place")
    return Reading(Models(served, place / "checkpoints", place / "runs"), Recordings())


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score comes in one part, however busy the machine."""
    monkeypatch.setattr("ptx.playground.reading.PART", 600.0)


@pytest.fixture(scope="module")
def short(served: Served) -> list[int]:
    """A text that the context holds."""
    return [served.tokenizer.eot, *served.tokenizer.encode(CODE)][: served.context]


@pytest.fixture(scope="module")
def long(served: Served) -> list[int]:
    """A text of which the model sees the end only."""
    ids = served.tokenizer.encode(CODE)
    return [served.tokenizer.eot, *(ids * 10)][: 3 * served.context + 5]


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(bytearray(b64decode(text)), kind)


def logits_of(answer: dict[str, Any]) -> torch.Tensor:
    """(V,), as a browser decodes them."""
    codes = numbers(answer["logits"], "<u2")
    values = (answer["low"] + answer["step"] * codes.astype(np.float64)).astype(np.float32)
    values[codes == 65535] = -np.inf
    values[numbers(answer["sharp"]["ids"], "<i4")] = numbers(answer["sharp"]["logits"], "<f4")
    return torch.from_numpy(values)


def window(served: Served, ids: list[int], at: int) -> list[int]:
    return ids[visible_from(at, served.context) : at]


def cursors(ids: list[int]) -> list[int]:
    """Some cursors, the edges among them."""
    return sorted({1, 2, len(ids) // 2, len(ids) - 1, len(ids)})


# ---- a look ------


@pytest.mark.parametrize("text", ["short", "long"])
def test_a_look_tells_the_models_distribution(
    reading: Reading, served: Served, text: str, request: pytest.FixtureRequest
) -> None:
    ids = request.getfixturevalue(text)
    for at in cursors(ids):
        answer = reading.look({"ids": ids, "at": at})
        seen = lens.trace(served.model, window(served, ids, at))
        assert answer["start"] == at - len(seen.ids)
        told, real = logits_of(answer), seen.logits[-1]
        assert float((told.softmax(-1) - real.softmax(-1)).abs().max()) <= 1e-5
        best = numbers(answer["sharp"]["ids"], "<i4")
        assert np.abs(numbers(answer["sharp"]["logits"], "<f4") - real[best].numpy()).max() <= 1e-5
        assert (np.diff(real[best].numpy()) <= 1e-5).all()
        assert len(answer["names"]) == len(best) == 256
        for token, name in zip(best.tolist(), answer["names"], strict=True):
            text = served.tokenizer.text([token])
            assert name == text or "\ufffd" in text or token == served.tokenizer.eot
        choice = Choice(real, Sampling())
        assert answer["entropy"] == pytest.approx(choice.entropy, abs=1e-4)
        assert answer["healed"] is False
        if at < len(ids):
            assert (answer["token"], answer["rank"]) == (ids[at], choice.rank(ids[at]))
            assert answer["text"] == served.tokenizer.text([ids[at]])
            assert answer["prob"] == pytest.approx(float(choice.raw[ids[at]]), abs=1e-6)
            assert answer["bits"] == pytest.approx(-log2(answer["prob"]), abs=1e-4)
        else:
            assert [answer[k] for k in ("token", "text", "prob", "bits", "rank")] == [None] * 5


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0),
        Sampling(0.7, top_k=40),
        Sampling(1.3, top_p=0.9),
        Sampling(0.9, min_p=0.05, repetition_penalty=1.3),
    ],
)
def test_the_knobs_on_what_was_told_equal_the_sampler(
    reading: Reading, served: Served, short: list[int], sampling: Sampling
) -> None:
    at = len(short) - 3
    told = logits_of(reading.look({"ids": short, "at": at}))
    real = lens.trace(served.model, short[:at]).logits[-1]
    difference = distribution(told, sampling, short[:at]) - distribution(real, sampling, short[:at])
    assert float(difference.abs().max()) <= 1e-4


@pytest.mark.parametrize("text", ["short", "long"])
def test_a_look_tells_rows_layers_and_parts(
    reading: Reading, served: Served, text: str, request: pytest.FixtureRequest
) -> None:
    ids = request.getfixturevalue(text)
    c = served.model.config
    for at in cursors(ids):
        answer = reading.look({"ids": ids, "at": at})
        seen = lens.trace(served.model, window(served, ids, at))
        row = (numbers(answer["row"], "u1").reshape(c.n_layer, c.n_head, -1) / 255.0) ** 2
        assert np.abs(row - seen.attention[:, :, -1].numpy()).max() <= 0.005
        followed = ids[at] if at < len(ids) else int(seen.logits[-1].argmax())
        layers = lens.logit_lens(served.model, seen, token=followed, k=3)
        told = answer["lens"]
        assert told["followed"]["id"] == followed
        assert told["prob"] == pytest.approx(layers.prob.tolist(), abs=1e-6)
        assert told["rank"] == layers.rank.tolist()
        assert [[t["id"] for t in layer] for layer in told["tokens"]] == layers.tokens.tolist()
        parts = answer["parts"]
        against = parts["against"]["id"]
        top = [i for i in seen.logits[-1].topk(2).indices.tolist() if i != followed]
        assert (parts["token"]["id"], against) == (followed, top[0])
        expected = lens.attribution(served.model, seen, followed, against)
        assert np.allclose(parts["heads"], expected.heads, atol=1e-5)
        assert np.allclose(parts["mlps"], expected.mlps, atol=1e-5)
        assert parts["total"] == pytest.approx(float(expected.total), abs=1e-4)
        together = np.sum(parts["heads"]) + sum(parts["mlps"])
        together += parts["embedding"] + parts["biases"]
        assert together == pytest.approx(parts["total"], abs=1e-3)


def test_another_token_to_weigh_against(reading: Reading, short: list[int]) -> None:
    parts = reading.look({"ids": short, "at": 4, "against": 77})["parts"]
    assert parts["against"]["id"] == 77
    same = reading.look({"ids": short, "at": 4, "against": short[4]})["parts"]
    assert same["total"] == 0


def test_a_look_with_muted_heads(reading: Reading, served: Served, short: list[int]) -> None:
    muted = ["1.0", "0.2"]
    mute = lens.Mute(heads=((0, 2), (1, 0)))
    answer = reading.look({"ids": short, "at": 9, "muted": muted})
    seen = lens.trace(served.model, short[:9], mute)
    assert torch.allclose(logits_of(answer).softmax(-1), seen.logits[-1].softmax(-1), atol=1e-5)
    assert answer["parts"]["heads"][0][2] == answer["parts"]["heads"][1][0] == 0
    whole = reading.look({"ids": short, "at": 9})
    assert answer["prob"] != whole["prob"]


# ---- the first new token of a text ------


def written(reading: Reading, served: Served, prompt: str, n: int = 5) -> tuple[str, Any, list]:
    """A text that the server has written: the name of its recording, its generation, its steps."""
    recording = reading.recordings.new_name()
    reading.recordings.start(recording)
    generation = ptx.generate(
        served.model, served.tokenizer, prompt, Sampling(1.0), ptx.Limits(n), 0, attention=True
    )
    steps = []
    for step in generation:
        reading.recordings.add(recording, step, len(generation.ids) - 1)
        steps.append(step)
    return recording, generation, steps


def test_the_first_token_after_an_open_end_is_told_as_it_was_drawn(
    reading: Reading, served: Served
) -> None:
    _, generation, steps = written(reading, served, "def fibona")
    ids, first = generation.ids, generation.n_prompt
    answer = reading.look({"ids": ids, "at": first, "open": "def fibona"})
    assert answer["healed"] is True
    choice = steps[0].choice
    told = logits_of(answer)
    assert torch.equal(told == -torch.inf, choice.logits == -torch.inf)
    assert float((told.softmax(-1) - choice.raw).abs().max()) <= 1e-5
    assert answer["prob"] == pytest.approx(float(choice.raw[ids[first]]), abs=1e-6)
    assert answer["rank"] == choice.rank(ids[first])
    # in the text's score too, and with heads muted by the same weighing
    score = reading.score({"ids": ids, "open": "def fibona"})["bits"]
    assert score[first] == pytest.approx(answer["bits"], abs=1e-4)
    plain = reading.score({"ids": ids})["bits"]
    assert abs(plain[first] - answer["bits"]) > 0.1
    assert [*plain[:first], *plain[first + 1 :]] == [*score[:first], *score[first + 1 :]]
    later = reading.score({"ids": ids, "open": "def fibona", "from": first + 1})["bits"]
    assert later == pytest.approx(score[first + 1 :], abs=1e-4)
    muted = reading.look({"ids": ids, "at": first, "open": "def fibona", "muted": ["0.0"]})
    assert muted["healed"] is True
    # without the prompt, after other tokens and further on it is the model's own
    for other in (
        {"ids": ids, "at": first},
        {"ids": [ids[0], 5, *ids[2:]], "at": first, "open": "def fibona"},
        {"ids": ids, "at": first + 1, "open": "def fibona"},
        {"ids": ids, "at": first, "open": "def fibonb"},
    ):
        assert reading.look(other)["healed"] is False


PROMPTS = ("def fibona", "def f(x):", 'x = """', "if a:\n    ", "# a word", "\n\n", "import nu")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_could_come_after_a_prompt_is_what_generation_draws_from(
    reading: Reading, served: Served, prompt: str
) -> None:
    ids = reading.tokens({"text": prompt})["ids"]
    answer = reading.look({"ids": ids, "at": len(ids), "open": prompt})
    _, generation, [step, *_] = written(reading, served, prompt, n=1)
    assert answer["healed"] is True
    told = logits_of(answer)
    assert torch.equal(told == -torch.inf, step.choice.logits == -torch.inf)
    assert float((told.softmax(-1) - step.choice.raw).abs().max()) <= 1e-5
    assert answer["token"] is None
    assert answer["lens"]["followed"]["id"] == int(step.choice.raw.argmax())
    c = served.model.config
    row = numbers(answer["row"], "u1").reshape(c.n_layer, c.n_head, len(ids) - answer["start"])
    assert np.allclose(((row / 255.0) ** 2).sum(-1), 1, atol=0.1)
    # and it is what the page says of the first token once it is written
    first = generation.n_prompt
    after = reading.look({"ids": generation.ids, "at": first, "open": prompt})
    assert float((logits_of(after).softmax(-1) - told.softmax(-1)).abs().max()) <= 1e-5


def test_a_long_prompt_is_open_in_the_window_that_generation_sees(
    reading: Reading, served: Served
) -> None:
    prompt = CODE * 4 + "def to"
    ids = reading.tokens({"text": prompt})["ids"]
    assert len(ids) > served.context
    answer = reading.look({"ids": ids, "at": len(ids), "open": prompt})
    _, _, [step] = written(reading, served, prompt, n=1)
    assert answer["healed"] is True
    assert float((logits_of(answer).softmax(-1) - step.choice.raw).abs().max()) <= 1e-5


def test_an_end_is_open_only_at_the_end_of_its_own_tokens(reading: Reading) -> None:
    ids = reading.tokens({"text": "def fibona"})["ids"]
    for other in (
        {"ids": ids, "at": len(ids)},
        {"ids": ids, "at": len(ids) - 1, "open": "def fibona"},
        {"ids": ids, "at": len(ids), "open": "def fibonb"},
        {"ids": ids[:1], "at": 1, "open": ""},
    ):
        assert reading.look(other)["healed"] is False
    assert "NUL" in reading.look({"ids": ids, "at": len(ids), "open": "a\0"})["error"]
    muted = {"ids": ids, "at": len(ids), "open": "def fibona", "muted": ["0.0"]}
    assert reading.look(muted)["healed"] is True


def test_a_token_that_the_open_end_forbids_has_no_bits(reading: Reading, served: Served) -> None:
    _, generation, steps = written(reading, served, "def fibona")
    forbidden = int((steps[0].choice.logits == -torch.inf).nonzero()[0])
    ids = [*generation.ids[: generation.n_prompt], forbidden]
    fields = {"ids": ids, "at": len(ids) - 1, "open": "def fibona"}
    assert reading.look(fields)["healed"] is False, "no text that was continued begins so"
    at_end = {**fields, "ids": reading.tokens({"text": "def fibona"})["ids"], "target": forbidden}
    price = reading.price({**at_end, "at": len(at_end["ids"]), "muted": ["0.0"], "each": True})
    assert price["next"] is price["base_next"] is price["each"][0][0] is None
    json.dumps(price, allow_nan=False)


def test_what_a_recording_grows_by_is_where_the_heads_looked_in_its_steps(
    reading: Reading, served: Served
) -> None:
    recording, generation, steps = written(reading, served, "def f(x):\n    return", n=20)
    c, first = served.model.config, generation.n_prompt - 1
    known = [lens.row(step.attention) for step in steps]
    answer = reading.rows(
        {"recording": recording, "size": c.context, "heads": {"1.1": 0, "0.0": first + 15}}
    )
    told = {name: answer[name] for name in ("whole", "from", "end", "size")}
    assert told == {"whole": True, "from": first, "end": first + 20, "size": c.context}
    heads = [np.frombuffer(row, "u1").reshape(c.n_layer, c.n_head, -1) for row in known]
    for name, (layer, head), skip in (("1.1", (1, 1), 0), ("0.0", (0, 0), 15)):
        rows = answer["heads"][name]
        assert (rows["from"], rows["end"]) == (first + skip, first + 20)
        expected = b"".join(row[layer, head].tobytes() for row in heads[skip:])
        assert b64decode(rows["rows"]) == expected
    # the same picture in two parts
    whole = joined(c, answer)
    parts = [
        reading.rows({"recording": recording, "size": c.context, "from": i}) for i in (0, first + 7)
    ]
    assert (np.maximum(*(joined(c, part) for part in parts)) == whole).all()
    assert whole.max() > 0
    assert (
        reading.rows({"recording": recording, "from": first + 20, "size": c.context})["band"] == ""
    )
    assert "not kept" in reading.rows({"recording": "guessed"})["error"]


def joined(c: ModelConfig, answer: dict[str, Any]) -> np.ndarray:
    """The band of an answer in a whole picture, (L, H, side, side)."""
    side = lens.thumbnail_side(c.n_layer * c.n_head, answer["size"])
    picture = np.zeros((c.n_layer, c.n_head, side, side), np.uint8)
    band = numbers(answer["band"], "u1").reshape(c.n_layer, c.n_head, -1, side)
    picture[:, :, answer["top"] : answer["top"] + band.shape[2]] = band
    return picture


@pytest.mark.parametrize("view", ["raw", "no sink"])
def test_a_picture_that_grew_is_the_one_of_the_whole_text(
    reading: Reading, served: Served, view: str
) -> None:
    c = served.model.config
    recording, generation, _ = written(reading, served, "x", n=c.context - 8)
    first, n = generation.n_prompt - 1, len(generation.ids)
    answer = reading.rows({"recording": recording, "view": view, "size": c.context})
    attention = lens.attention(served.model, generation.ids)  # (L, H, n, n)
    if view == "no sink":
        attention = lens.without_sink(attention)
    rows = [lens.row(attention[:, :, q, : q + 1]) for q in range(first, n - 1)]
    _, expected = lens.band(rows, c.n_layer * c.n_head, first, c.context)
    shown = numbers(answer["band"], "u1").reshape(expected.shape)
    # the engine reads in another order than the lens, and small weights are told apart by roots
    assert np.abs(shown.astype(int) - expected).max() <= 4


def test_a_picture_that_gets_more_room_is_told_as_a_whole(reading: Reading, served: Served) -> None:
    recording, generation, _ = written(reading, served, "def f(x):", n=9)
    n = len(generation.ids) - 1
    answer = reading.rows({"recording": recording, "from": n - 1})
    assert answer["size"] == min(served.context, 2 ** int(np.ceil(np.log2(n))))
    assert (answer["from"], answer["end"]) == (generation.n_prompt - 1, n)
    same = reading.rows({"recording": recording, "from": n - 1, "size": answer["size"]})
    assert (same["from"], same["end"]) == (n - 1, n)


def test_an_answer_has_not_all_rows_of_all_heads(
    reading: Reading, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptx.playground.reading.HEAD_ROWS", 8)
    recording, generation, _ = written(reading, served, "def f(x):", n=9)
    first = generation.n_prompt - 1
    told = reading.rows({"recording": recording, "heads": {"0.0": 0, "1.1": first + 2}})["heads"]
    assert {name: (rows["from"], rows["end"]) for name, rows in told.items()} == {
        "0.0": (first, first + 4),
        "1.1": (first + 2, first + 6),
    }
    assert len(b64decode(told["0.0"]["rows"])) == sum(range(first + 1, first + 5))


def test_rows_are_of_one_window(reading: Reading, served: Served) -> None:
    c = served.model.config
    recording, generation, _ = written(reading, served, "def f(x):", n=c.context + 4)
    answer = reading.rows({"recording": recording})
    assert (answer["whole"], answer["end"]) == (True, c.context)
    later = visible_from(len(generation.ids) - 1, c.context)
    answer = reading.rows({"recording": recording, "start": later})
    assert answer["end"] == len(generation.ids) - 1 - later
    assert reading.rows({"recording": recording, "start": 1})["band"] == ""


def test_a_model_with_one_head_gets_sentences_too(served: Served, tmp_path: Path) -> None:
    c = replace(served.model.config, n_layer=1, n_head=1, n_kv_head=1)
    save_model(tmp_path / "one", GPT(c), served.tokenizer)
    models = Models(Served.load(tmp_path / "one"), tmp_path / "a", tmp_path / "b")
    answer = Reading(models, Recordings()).maps({"ids": [5, 6], "at": 1, "muted": ["0.1"]})
    assert 'from "0.0" to "0.0"' in answer["error"]


def test_rows_that_were_not_recorded_are_missing(reading: Reading, served: Served) -> None:
    recording = reading.recordings.new_name()
    reading.recordings.start(recording)
    generation = ptx.generate(served.model, served.tokenizer, "def f(x):", limits=ptx.Limits(3))
    for step in generation:
        reading.recordings.add(recording, step, len(generation.ids) - 1)
    assert reading.rows({"recording": recording})["whole"] is False


def test_rows_are_there_however_often_they_are_asked_for(served: Served) -> None:
    recordings, steps = Recordings(), []
    for name in ("often", "once"):
        recordings.start(name)
    generation = ptx.generate(
        served.model, served.tokenizer, "x =", limits=ptx.Limits(40), attention=True
    )
    for step in generation:
        steps.append(step)
        for name in ("often", "once"):
            recordings.add(name, step, len(generation.ids) - 1)
        _, rows = recordings.rows("often", 0)
        assert rows[-1] == lens.row(step.attention)
    _, often = recordings.rows("often", 0)
    assert often == recordings.rows("once", 0)[1] == [lens.row(step.attention) for step in steps]
    assert recordings.nbytes == 2 * sum(map(len, often))


def test_of_a_text_that_ended_rows_alone_are_kept(served: Served) -> None:
    """One byte a weight, as they are counted."""
    recordings = Recordings()
    for name in ("before", "after"):
        recordings.start(name)
        generation = ptx.generate(
            served.model, served.tokenizer, "x =", limits=ptx.Limits(5), attention=True
        )
        for step in generation:
            recordings.add(name, step, len(generation.ids) - 1)
    before, after = recordings._kept.values()
    assert (len(before.rows), before.new) == (5, [])
    assert before.nbytes == sum(map(len, before.rows))
    assert len(after.new) == 5


def test_recordings_are_bounded_in_bytes_and_the_newest_stays(served: Served) -> None:
    recordings = Recordings(most_bytes=200)
    names = [recordings.new_name() for _ in range(5)]
    assert len(set(names)) == 5
    for name in names:
        recordings.start(name)
        generation = ptx.generate(
            served.model, served.tokenizer, "x =", limits=ptx.Limits(4), attention=True
        )
        for step in generation:
            recordings.add(name, step, len(generation.ids) - 1)
    assert 0 < recordings.nbytes <= 200
    assert recordings.nbytes == sum(one.nbytes for one in recordings._kept.values())
    assert len(recordings.rows(names[-1], 0)[1]) == 4
    with pytest.raises(ptx.UserError):
        recordings.rows(names[0], 0)


# ---- maps ------


def expected_view(served: Served, ids: list[int], view: str) -> tuple[torch.Tensor, float]:
    seen = lens.trace(served.model, ids)
    if view == "no sink":
        return lens.without_sink(seen.attention), 1.0
    if view == "weighted":
        weighted = lens.value_weighted(served.model, seen)
        return weighted / weighted.max(), float(weighted.max())
    return seen.attention, 1.0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("text", ["short", "long"])
def test_maps_and_heads_equal_the_lens(
    reading: Reading, served: Served, view: str, text: str, request: pytest.FixtureRequest
) -> None:
    ids = request.getfixturevalue(text)
    c = served.model.config
    for at in (1, 7, len(ids)):
        weights, scale = expected_view(served, window(served, ids, at), view)
        T = weights.shape[-1]
        asked = {"ids": ids, "at": at, "view": view}
        answer = reading.maps(asked)
        assert answer["side"] == T
        assert [len(row) for row in answer["roles"]] == [c.n_head] * c.n_layer
        assert answer["scale"] == pytest.approx(scale, rel=1e-5)
        small = numbers(answer["thumbnails"], "u1").astype(int)
        wanted = lens.quantize(weights).numpy().astype(int)
        assert np.abs(small - wanted.reshape(-1)).max() <= 1
        one = reading.head(asked | {"layer": 1, "head": 2})
        assert (one["start"], one["scale"]) == (at - T, answer["scale"])
        triangle = numbers(one["triangle"], "u1").astype(int)
        assert np.abs(triangle - wanted[1, 2][np.tril_indices(T)]).max() <= 1
        json.dumps(answer, allow_nan=False)


def test_maps_with_muted_heads(reading: Reading, served: Served, short: list[int]) -> None:
    answer = reading.head({"ids": short, "at": 9, "layer": 1, "head": 0, "muted": ["0.0"]})
    weights = lens.trace(served.model, short[:9], lens.Mute(heads=((0, 0),))).attention[1, 0]
    told = numbers(answer["triangle"], "u1").astype(int)
    assert np.abs(told - np.frombuffer(lens.triangle(weights), "u1").astype(int)).max() <= 1


def test_roles_are_those_of_the_text_where_it_has_enough_of_them(
    reading: Reading, served: Served, long: list[int]
) -> None:
    answer = reading.maps({"ids": long, "at": len(long)})
    ids = window(served, long, len(long))
    here = lens.roles(served.tokenizer, ids, lens.attention(served.model, ids))
    there = lens.reference_roles(served.model, served.tokenizer)
    for layer, row in enumerate(answer["roles"]):
        for head, told in enumerate(row):
            if told["label"] in lens.ROLES:
                i = lens.ROLES.index(told["label"])
                of = here if told["here"] else there
                assert (here.queries[i] >= 16) == told["here"]
                assert told["score"] == pytest.approx(float(of.lift()[i, layer, head]), abs=1e-5)
            else:
                assert told["label"] in ("", "first-token sink")


def test_a_short_text_has_the_roles_of_the_reference(
    reading: Reading, served: Served, short: list[int]
) -> None:
    answer = reading.maps({"ids": short, "at": 3})
    there = lens.reference_roles(served.model, served.tokenizer)
    for layer, row in enumerate(answer["roles"]):
        assert [told["label"] for told in row] == [
            there.label(layer, head) for head in range(served.model.config.n_head)
        ]
        assert not any(told["here"] for told in row)


# ---- tokens, scores, prices ------


@pytest.mark.parametrize(
    "text",
    [CODE, "", "x = '\u00e9\U0001f40d'", "a\ud800b", "<|endoftext|>", "\u202e<img onerror=1>"],
)
def test_tokens_are_the_text_as_the_model_reads_it(
    reading: Reading, served: Served, text: str
) -> None:
    answer = reading.tokens({"text": text})
    assert answer["ids"] == [served.tokenizer.eot, *served.tokenizer.encode(text)]
    lines = [json.loads(line) for line in answer["lines"].splitlines()]
    shown = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert "".join(line[1] for line in lines) == shown
    json.dumps(answer).encode()


@pytest.mark.parametrize("text", ["short", "long"])
def test_scores_are_those_of_the_windows_that_generation_saw(
    reading: Reading, served: Served, text: str, request: pytest.FixtureRequest
) -> None:
    ids = request.getfixturevalue(text)
    answer = reading.score({"ids": ids})
    assert (answer["start"], answer["next"]) == (0, None)
    assert answer["bits"][0] is None
    assert len(answer["bits"]) == len(ids)
    for at in range(1, len(ids), 7):
        logits = lens.trace(served.model, window(served, ids, at)).logits[-1]
        bits = -float(logits.log_softmax(-1)[ids[at]]) / log(2)
        assert answer["bits"][at] == pytest.approx(bits, abs=1e-4)
        assert reading.look({"ids": ids, "at": at})["bits"] == pytest.approx(bits, abs=1e-4)


def test_a_long_score_comes_in_parts(
    reading: Reading, long: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reading.score({"ids": long})["bits"]
    monkeypatch.setattr("ptx.playground.reading.PART", 0.0)
    parts, start = [], 0
    while start is not None:
        answer = reading.score({"ids": long, "from": start})
        assert answer["start"] == len(parts)
        assert answer["bits"]
        parts += answer["bits"]
        start = answer["next"]
    assert parts[1:] == pytest.approx(whole[1:], abs=1e-4)
    assert parts[0] is whole[0] is None


@pytest.mark.parametrize("at", [1, 2, 20, 60])
def test_the_price_of_muting_is_the_lenss(
    reading: Reading, served: Served, long: list[int], at: int
) -> None:
    c = served.model.config
    answer = reading.price({"ids": long, "at": at, "muted": ["0.1", "1.1"], "each": True})
    mutes = [lens.Mute(heads=((0, 1), (1, 1))), *lens.single_heads(c)]
    found = lens.ablate(served.model, window(served, long, at), mutes, long[at])
    assert answer["token"]["id"] == long[at]
    assert answer["next"] == pytest.approx(-float(found.next_logprob[0]) / log(2), abs=1e-5)
    each = -found.next_logprob[1:].view(c.n_layer, c.n_head) / log(2)
    assert np.allclose(answer["each"], each, atol=1e-5)
    if at > 1:
        assert answer["loss"] == pytest.approx(float(found.loss[0]) / log(2), abs=1e-5)
        losses = found.loss[1:].view(c.n_layer, c.n_head) / log(2)
        assert np.allclose(answer["each_loss"], losses, atol=1e-5)
        assert answer["base_loss"] == pytest.approx(found.base_loss / log(2), abs=1e-4)
    else:
        assert answer["loss"] is answer["base_loss"] is None
    look = reading.look({"ids": long, "at": at})
    muted = reading.look({"ids": long, "at": at, "muted": ["0.1", "1.1"]})
    assert answer["base_next"] == pytest.approx(look["bits"], abs=1e-4)
    assert answer["next"] == pytest.approx(muted["bits"] - look["bits"], abs=1e-4)
    assert reading.price({"ids": long, "at": at})["next"] == pytest.approx(0, abs=1e-6)
    other = reading.price({"ids": long, "at": at, "target": 9, "muted": ["0.1"]})
    assert (other["token"]["id"], other["each"]) == (9, None)


@pytest.mark.parametrize("prompt", ["def fibona", CODE * 4 + "def to"])
def test_the_price_at_an_open_end_is_that_of_what_is_drawn_there(
    reading: Reading, served: Served, prompt: str
) -> None:
    """Of the token that is likeliest there, and of the one that came."""
    _, generation, _ = written(reading, served, prompt)
    ids = reading.tokens({"text": prompt})["ids"]
    whole = {"ids": ids, "at": len(ids), "open": prompt}
    after = {"ids": generation.ids, "at": generation.n_prompt, "open": prompt}
    for fields in (whole, after):
        price = reading.price({**fields, "muted": ["0.1", "1.1"], "each": True})
        base = reading.look(fields)
        muted = reading.look({**fields, "muted": ["0.1", "1.1"]})
        alone = reading.look({**fields, "muted": ["1.0"]})
        assert [answer["healed"] for answer in (base, muted, alone)] == [True, True, True]
        token = price["token"]["id"]
        assert token == (base["lens"]["followed"]["id"] if base["token"] is None else base["token"])

        def bits(answer: dict[str, Any], token: int = token) -> float:
            return -float(logits_of(answer).log_softmax(-1)[token]) / log(2)

        assert price["base_next"] == pytest.approx(bits(base), abs=1e-3)
        assert price["next"] == pytest.approx(bits(muted) - bits(base), abs=1e-3)
        assert price["each"][1][0] == pytest.approx(bits(alone) - bits(base), abs=1e-3)
        plain = reading.price({**fields, "open": None, "muted": ["0.1", "1.1"], "each": True})
        assert price["loss"] == plain["loss"]
        assert price["each_loss"] == plain["each_loss"]


# ---- other models ------


def test_a_question_is_answered_by_the_model_that_it_names(
    served: Served, tmp_path: Path, short: list[int], long: list[int]
) -> None:
    torch.manual_seed(1)
    shape = ModelConfig(
        vocab_size=served.tokenizer.n_vocab, context=16, n_layer=1, n_head=2, n_kv_head=1,
        head_size=8, d_model=16, d_mlp=32, init="gpt2", bias=True, norm="layer", mlp="gelu",
        position="learned",
    )  # fmt: skip
    other = GPT(shape)
    save_model(tmp_path / "released" / "other", other, served.tokenizer, {})
    reading = Reading(Models(served, tmp_path / "released", tmp_path / "runs"), Recordings())
    answer = reading.look({"ids": short, "at": 9, "model": "other"})
    seen = lens.trace(other.eval(), short[:9])
    assert torch.allclose(logits_of(answer).softmax(-1), seen.logits[-1].softmax(-1), atol=1e-5)
    assert len(answer["parts"]["heads"]) == 1
    cropped = reading.look({"ids": long, "at": 20, "model": "other"})
    assert cropped["start"] == visible_from(20, 16) > 0
    own = reading.look({"ids": short, "at": 9, "model": ""})
    assert len(own["parts"]["heads"]) == 2
    assert "no model" in reading.look({"ids": short, "at": 9, "model": "../other"})["error"]
    assert (
        "muted"
        in reading.look({"ids": short, "at": 9, "model": "other", "muted": ["1.0"]})["error"]
    )


# ---- what is kept ------


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens were read for each text that was traced."""
    lengths: list[int] = []
    real = lens.trace

    def counted(
        model: GPT,
        ids: list[int],
        mute: lens.Mute | None = None,
        before: lens.Trace | None = None,
    ) -> lens.Trace:
        lengths.append(len(ids) - (len(before.ids) if before else 0))
        return real(model, ids, mute, before=before)

    monkeypatch.setattr(lens, "trace", counted)
    return lengths


def test_moving_through_a_text_costs_one_forward(
    served: Served, tmp_path: Path, short: list[int], forwards: list[int]
) -> None:
    fresh = Served.load(served.directory)
    reading = Reading(Models(fresh, tmp_path, tmp_path), Recordings())
    for at in (9, 2, len(short), 5):
        reading.look({"ids": short, "at": at})
        reading.maps({"ids": short, "at": at})
        reading.head({"ids": short, "at": at, "layer": 0, "head": 0})
    reading.score({"ids": short})
    # a text that went another way after the cursor
    reading.look({"ids": [*short[:9], 7, 7], "at": 8})
    assert forwards == [len(short)]


def test_a_text_that_grows_is_read_once_and_takes_the_place_of_its_beginnings(
    served: Served, short: list[int], forwards: list[int]
) -> None:
    traces = Traces(served.model)
    for n in range(3, 12):
        traces.at(short[:n], n, lens.Mute())
    assert forwards == [3] + [1] * 8
    assert traces.nbytes == lens.trace(served.model, short[:11]).nbytes
    before = len(forwards)
    traces.at(short[:5], 5, lens.Mute())
    assert len(forwards) == before
    traces.at([*short[:7], 7, 7], 9, lens.Mute())  # a branch
    traces.at(short[:5], 5, lens.Mute(heads=((0, 0),)))
    assert forwards[before:] == [2, 5]


def test_traces_are_bounded_in_bytes(served: Served, short: list[int]) -> None:
    one = lens.trace(served.model, short).nbytes
    traces = Traces(served.model, most_bytes=3 * one)
    for token in range(10):
        traces.at([token, *short[1:]], 5, lens.Mute())
        assert 0 < traces.nbytes <= 3 * one
    small = Traces(served.model, most_bytes=1)
    assert small.at(short, 5, lens.Mute()).size == 5
    assert small.nbytes == one


def test_many_threads_get_the_answers_of_one(
    reading: Reading, served: Served, short: list[int], long: list[int], tmp_path: Path
) -> None:
    fresh = Reading(Models(Served.load(served.directory), tmp_path, tmp_path), Recordings())
    asked = [
        {"ask": ask, "ids": ids, "at": at, "layer": 0, "head": 1, "muted": muted}
        for ask in ("look", "maps", "head", "score", "price")
        for ids in (short, long)
        for at in (5, len(ids))
        for muted in ([], ["1.1"])
    ]
    alone = [reading.ask(one) for one in asked]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(fresh.ask, asked * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert one.keys() == other.keys()
        for name in ("prob", "next", "bits", "scale"):
            if name in one and one[name] is not None:
                assert np.allclose(
                    np.array(one[name], dtype=float), np.array(other[name], dtype=float),
                    atol=1e-4, equal_nan=True,
                )  # fmt: skip


def test_a_crowd_is_told_to_come_back(
    reading: Reading, served: Served, short: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptx.playground.traces.PATIENCE", 0.01)
    monkeypatch.setattr("ptx.playground.reading.PATIENCE", 0.01)
    with served.traces._lock, reading._long:
        assert "busy" in reading.look({"ids": short, "at": 2})["error"]
        assert "moment" in reading.price({"ids": short, "at": 2})["error"]
    assert reading.look({"ids": short, "at": 2})["at"] == 2


# ---- anything else ------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("model", "ids", "at", "against", "muted", "recording", "open", "text", "from", "layer",
          "head", "view", "target", "each")  # fmt: skip


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ask=st.sampled_from((*EVERY, "ask", "door", "_choice", "__init__")) | JSON, request=JSON)
def test_any_json_gets_an_answer_or_a_sentence(reading: Reading, ask: Any, request: Any) -> None:
    asked = request | {"ask": ask} if isinstance(request, dict) else request
    answer = reading.ask(asked)
    assert list(answer) == ["error"] or ask == "tokens"
    assert isinstance(answer.get("error", ""), str)
    json.dumps(answer, allow_nan=False).encode()


@settings(deadline=None, max_examples=300)
@given(ask=st.sampled_from(EVERY), field=st.sampled_from(FIELDS), value=JSON)
def test_a_good_question_with_one_forged_field(
    reading: Reading, ask: str, field: str, value: Any
) -> None:
    good = {"ids": [16383, 5, 6, 7], "at": 2, "layer": 0, "head": 0, "text": "x", "recording": "r"}
    answer = reading.ask(good | {"ask": ask, field: value})
    json.dumps(answer, allow_nan=False).encode()
    if "error" in answer:
        assert list(answer) == ["error"]
        assert len(answer["error"]) < 300


@pytest.mark.parametrize(
    ("ask", "changed", "named"),
    [
        ("look", {"ids": None}, "ids"),
        ("look", {"ids": []}, "ids"),
        ("look", {"ids": [1] * 100_001}, "ids"),
        ("look", {"ids": [1, -1]}, "ids"),
        ("look", {"ids": [1, True]}, "ids"),
        ("look", {"ids": [1, 16384]}, "ids"),
        ("look", {"at": 0}, "at"),
        ("look", {"at": 5}, "at"),
        ("look", {"at": 1.0}, "at"),
        ("look", {"against": "x"}, "against"),
        ("look", {"muted": "0.0"}, "muted"),
        ("look", {"muted": ["2.0"]}, "muted"),
        ("look", {"muted": [[0, 0]]}, "muted"),
        ("look", {"model": "nothing"}, "model"),
        ("look", {"open": 3}, "open"),
        ("maps", {"view": "cooked"}, "view"),
        ("head", {"layer": 2}, "layer"),
        ("head", {"head": -1}, "head"),
        ("rows", {"recording": None}, "recording"),
        ("rows", {"from": -1}, "from"),
        ("rows", {"view": "weighted"}, "view"),
        ("rows", {"heads": ["0.0"]}, "heads"),
        ("rows", {"heads": {"0.99": 0}}, "heads"),
        ("rows", {"heads": {"0.0": -1}}, "heads"),
        ("price", {"target": 16384}, "target"),
        ("price", {"each": 1}, "each"),
        ("score", {"from": 4}, "from"),
        ("tokens", {"text": 5}, "text"),
        ("tokens", {"text": "a\0b"}, "NUL"),
        ("tokens", {"text": "x" * 70_000}, "70,000 bytes"),
        ("nothing", {}, "ask"),
    ],
)
def test_what_is_wrong_is_named(reading: Reading, ask: str, changed: dict, named: str) -> None:
    good = {"ids": [16383, 5, 6, 7], "at": 2, "layer": 0, "head": 0, "text": "x", "recording": "r"}
    answer = reading.ask(good | {"ask": ask} | changed)
    assert list(answer) == ["error"]
    assert named in answer["error"]


def test_bytes_that_are_no_characters_have_a_name(reading: Reading, served: Served) -> None:
    byte = served.tokenizer.encode(b"\xf0")
    answer = reading.look({"ids": [served.tokenizer.eot, *byte], "at": 1})
    assert answer["text"] == "b'\\xf0'"
    end = reading.look({"ids": [served.tokenizer.eot, served.tokenizer.eot], "at": 1})
    assert end["text"] == "⟨end⟩"


def test_windows_of_neighbouring_cursors_agree(reading: Reading, long: list[int]) -> None:
    starts = [reading.look({"ids": long, "at": at})["start"] for at in range(1, len(long) + 1, 3)]
    assert all(a <= b for a, b in pairwise(starts))
