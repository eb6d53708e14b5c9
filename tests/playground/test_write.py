"""The text as a sequence of frames, and what is said beside it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ptx
from ptx.engine import Engine
from ptx.errors import UserError
from ptx.playground.limits import LIMITS, visitor
from ptx.playground.live import LiveText, Pace, frames, throttled
from ptx.playground.recordings import Recordings
from ptx.playground.request import Request
from ptx.playground.served import Served
from ptx.playground.write import parsed
from ptx.stream import PROMPT_LIMIT

REQUEST = Request("def f(x):", temperature=1.0, top_p=1.0, min_p=0.9, length=8, seed=3)


def written(
    served: Served, request: Request, recordings: Recordings | None = None
) -> list[dict[str, Any]]:
    return list(frames(served, request, recordings or Recordings()))


def lines_of(frame: dict[str, Any]) -> list[list]:
    return [json.loads(line) for line in frame["lines"].split("\n") if line]


def text_of(frame: dict[str, Any]) -> str:
    return "".join(line[1] for line in lines_of(frame))


def ids_of(frame: dict[str, Any]) -> list[int]:
    return [line[0] for line in lines_of(frame) if line[0] is not None]


def sampling(request: Request) -> ptx.Sampling:
    return ptx.Sampling(request.temperature, request.top_k, request.top_p, request.min_p)


def test_the_last_frame_holds_prompt_and_continuation(served: Served) -> None:
    last = written(served, REQUEST)[-1]
    steps = ptx.generate(
        served.model,
        served.tokenizer,
        REQUEST.prompt,
        sampling(REQUEST),
        ptx.Limits(REQUEST.length),
        REQUEST.seed,
    )
    assert text_of(last) == REQUEST.prompt + "".join(step.text for step in steps)
    assert last["finish"] == "length"
    assert last["generated"] == REQUEST.length
    assert last["prompt"] == len(ids_of(last)) - REQUEST.length


def test_a_text_that_is_kept_python_tells_what_was_refused(served: Served) -> None:
    knobs, limits = ptx.Sampling(1.5, python=True), ptx.Limits(6)
    all_refused = []
    for seed in range(6):
        request = Request("x = (1", temperature=1.5, top_p=1.0, length=6, seed=seed, python=True)
        last = written(served, request)[-1]
        steps = ptx.generate(served.model, served.tokenizer, "x = (1", knobs, limits, seed)
        refused = [list(step.choice.refused) for step in steps]
        told = [[id for id, _ in line[6]] if len(line) > 6 else [] for line in lines_of(last)]
        assert told[last["prompt"] :] == refused
        assert last["syntax"]["state"] != "error"
        assert not last["notes"]
        all_refused += refused
    assert any(all_refused)


def test_a_prompt_that_cannot_become_python_is_remarked_on(served: Served) -> None:
    [note] = written(served, replace(REQUEST, prompt="x = 1 2", python=True))[-1]["notes"]
    assert "cannot become Python" in note


def test_a_text_that_is_kept_python_no_longer_is_remarked_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptx.guard.LONGEST", 12)
    [note] = written(served, replace(REQUEST, prompt="x = (1", python=True))[-1]["notes"]
    assert "Only Python was given up" in note


def test_every_frame_begins_with_the_prompt_and_continues_the_one_before(served: Served) -> None:
    texts = [text_of(frame) for frame in written(served, REQUEST)]
    assert texts[0] == REQUEST.prompt
    assert all(b.startswith(a.rstrip("\ufffd")) for a, b in pairwise(texts))


def test_lines_are_only_appended_to_once_a_token_is_there(served: Served) -> None:
    some = [frame["lines"] for frame in written(served, REQUEST) if frame["generated"]]
    assert all(b.startswith(a) for a, b in pairwise(some))


def test_a_token_tells_what_it_was_drawn_with_and_how_surprising_it_was(served: Served) -> None:
    lines = lines_of(written(served, REQUEST)[-1])
    ids = [line[0] for line in lines]
    index = len(ids) - 2  # beyond the first new token, which is drawn with the prompt's end
    with torch.no_grad():
        logits = served.model(torch.tensor([ids[:index]]))[0, -1]
    raw = logits.log_softmax(-1)[ids[index]]
    _, _, probability, _, bits = lines[index][:5]
    assert bits == pytest.approx(-float(raw) / math.log(2), abs=2e-3)
    drawn = ptx.sampling.distribution(logits, sampling(REQUEST))
    assert probability == pytest.approx(float(drawn[ids[index]]), abs=1e-4)


def test_ids_go_on_as_they_are(served: Served) -> None:
    whole = ids_of(written(served, REQUEST)[-1])
    kept = whole[: len(whole) - 3]
    first, *_, last = written(served, replace(REQUEST, prompt=kept, n_prompt=4, length=5))
    assert ids_of(first) == kept
    assert ids_of(last)[: len(kept)] == kept
    assert len(ids_of(last)) == len(kept) + 5
    assert (last["continued"], last["prompt"]) == (True, 4)
    assert all(line[3] == 0 for line in lines_of(last))  # whose they are the browser knows


def test_a_chosen_token_comes_first_where_the_prompt_is_open(served: Served) -> None:
    token = served.tokenizer.encode("):\n    ")[0]  # what a colon at the end may become part of
    last = written(served, replace(REQUEST, prompt="def f(x):", first=token, length=3))[-1]
    ids = ids_of(last)
    assert ids[last["prompt"]] == token
    assert len(ids) == last["prompt"] + 1 + 3
    assert text_of(last).startswith("def f(x):\n    ")
    assert lines_of(last)[last["prompt"]][2] is None  # it was not drawn


def test_an_end_of_text_that_a_person_chose_ends_it(served: Served) -> None:
    chosen = replace(REQUEST, prompt="x = 1\n", first=served.tokenizer.eot)
    last = written(served, chosen)[-1]
    assert (last["generated"], last["finish"]) == (0, "end of text")
    assert text_of(last) == "x = 1\n"


def test_what_a_text_had_to_wait_for_does_not_take_the_room_of_its_rows(served: Served) -> None:
    recordings = Recordings(most_bytes=1)  # for the newest alone
    growing = frames(served, REQUEST, recordings)
    name = next(growing)["recording"]
    written(served, REQUEST, recordings)
    *_, last = growing
    assert len(recordings.rows(name, 0)[1]) == last["generated"] == REQUEST.length


def test_where_the_heads_look_is_kept_for_its_recording(served: Served) -> None:
    recordings = Recordings()
    last = written(served, REQUEST, recordings)[-1]
    first, rows = recordings.rows(last["recording"], 0)
    assert first == last["prompt"]
    assert len(rows) == REQUEST.length
    c = served.model.config
    assert [len(row) for row in rows] == [
        c.n_layer * c.n_head * (first + i) for i in range(len(rows))
    ]


def test_a_text_longer_than_the_context_says_what_is_still_seen(served: Served) -> None:
    first, *_, last = written(served, replace(REQUEST, length=served.context + 10))
    assert first["notes"] == []
    count = len(ids_of(last))
    seen = count - ptx.stream.visible_from(count, served.context)
    shown = count - 1  # end-of-text is no token of the text on the page
    assert f"the last {seen} of {shown}" in last["notes"][0]


def test_an_empty_prompt_begins_a_file(served: Served) -> None:
    last = written(served, replace(REQUEST, prompt=""))[-1]
    assert "begins a new file" in last["notes"][0]
    assert last["generated"] == REQUEST.length


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prompt": "a\0b"}, "NUL"),
        ({"prompt": "x" * 100_000}, "100,000 bytes"),
        ({"prompt": [1, 2, 3]}, "end-of-text"),
        ({"prompt": []}, "end-of-text"),
        ({"length": 0}, "length"),
        ({"length": LIMITS.new_tokens + 1}, "length"),
        ({"length": "9"}, "length"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top-p"),
        ({"min_p": 2}, "min-p"),
        ({"repetition_penalty": 0}, "penalty"),
        ({"python": "yes"}, "python must be on or off"),
        ({"first": -1}, "token -1"),
        ({"first": "x"}, "first token"),
        ({"n_prompt": -1}, "n_prompt"),
    ],
    ids=str,
)
def test_a_bad_request_is_named(served: Served, changed: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        next(frames(served, replace(REQUEST, **changed), Recordings()))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["prompt", "n_prompt", "first", "temperature", "top_k", "length", "seed"]),
        anything,
    )
)
def test_any_json_is_written_or_refused(served: Served, data: dict) -> None:
    try:
        request = Request.read("x", data)
        next(frames(served, request, Recordings()))
    except UserError:
        pass


@pytest.mark.parametrize("data", [None, [], "generate", {"prompt": 3}, {"prompt": {"a": 1}}])
def test_what_is_no_request_is_refused(data: Any) -> None:
    with pytest.raises(UserError):
        Request.read("x", data)


def test_the_editor_is_read_unless_the_request_brings_its_own_prompt() -> None:
    assert Request.read("x = 1", {"length": 5}).prompt == "x = 1"
    assert Request.read(None, {}).prompt == ""
    assert Request.read("x = 1", {"prompt": [1, 2]}).prompt == [1, 2]


def test_a_text_says_whether_it_parses(served: Served) -> None:
    last = written(served, replace(REQUEST, prompt="x = (1\ndef f():\n    pass\n", length=2))[-1]
    assert last["syntax"]["state"] == "error"
    assert last["syntax"]["line"] == 1


def test_a_syntax_question_may_be_any_json() -> None:
    assert parsed({"text": "x = 1\n"})["state"] == "parses"
    for request in (None, [], {}, {"text": 3}, {"text": "x" * (16 * PROMPT_LIMIT + 1)}):
        assert "error" in parsed(request)


def test_texts_that_wait_say_how_many_are_before_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "_park_one", lambda _: False)  # nobody reads the running ones
    long = replace(REQUEST, length=LIMITS.new_tokens)
    running = [frames(served, long, Recordings()) for _ in range(LIMITS.streams)]
    for text in running:
        while next(text)["place"]:
            pass
    waiting_text = frames(served, REQUEST, Recordings())
    assert next(waiting_text)["place"] == 1
    behind = frames(served, REQUEST, Recordings())
    assert next(behind)["place"] == 2
    waiting_text.close()
    deadline = time.monotonic() + 20
    while (place := next(behind)["place"]) == 2 and time.monotonic() < deadline:
        pass
    assert place < 2
    for text in running:
        text.close()
    assert list(behind)[-1]["finish"] == "length"


@pytest.mark.parametrize(
    ("per_second", "frames_per_second"), [(20, 10), (150, 10), (400, 4), (1000, 4), (5, 5)]
)
def test_a_text_that_nobody_can_follow_comes_in_larger_pieces(
    monkeypatch: pytest.MonkeyPatch, per_second: int, frames_per_second: int
) -> None:
    now = 1.0
    monkeypatch.setattr("ptx.playground.live.time.monotonic", lambda: now)

    def tokens() -> Iterator[int]:
        nonlocal now
        for n in range(2 * per_second):
            yield n
            now += 1 / per_second

    shown = list(throttled(tokens()))
    assert shown[:2] == [0, 1]  # a prompt and its first token come at once
    assert shown[-1] == 2 * per_second - 1
    assert abs(len(shown) - 2 * frames_per_second) <= 2


def test_only_what_is_shown_of_a_text_is_made(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    frame = LiveText.frame

    def counted(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made.append(frame(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(LiveText, "frame", counted)
    monkeypatch.setattr("ptx.playground.live.PAUSE", 60.0)
    monkeypatch.setattr("ptx.playground.live.LONG_PAUSE", 60.0)
    shown = list(frames(served, REQUEST, Recordings(), Pace().due))
    assert shown == made
    assert len(shown) == 3  # the prompt, its first token, the end
    assert shown[-1]["generated"] == REQUEST.length > 2


def test_a_reader_who_leaves_ends_the_text(served: Served) -> None:
    text = frames(served, replace(REQUEST, length=LIMITS.new_tokens), Recordings())
    next(text)
    text.close()
    assert served.engine.place(served.engine.generate("x", limits=ptx.Limits(1))) <= 1


@pytest.mark.parametrize(
    ("header", "who"),
    [("1.2.3.4", "1.2.3.4"), ("forged, 9.9.9.9,  1.2.3.4", "1.2.3.4"), (None, "127.0.0.1")],
)
def test_a_visitor_is_whom_the_proxy_saw_not_whom_he_says_he_is(
    monkeypatch: pytest.MonkeyPatch, header: str | None, who: str
) -> None:
    headers = {"x-forwarded-for": header} if header else {}
    sender = SimpleNamespace(headers=headers, client=SimpleNamespace(host="127.0.0.1"))
    monkeypatch.setenv("SYSTEM", "spaces")
    assert visitor(sender) == who
    monkeypatch.delenv("SYSTEM")
    assert visitor(sender) == "127.0.0.1"
