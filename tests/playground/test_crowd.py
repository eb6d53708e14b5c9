"""Many visitors at once, through Gradio's own client: each gets its own text, and whoever is one
too many is told so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import ptx
from ptx.batch import Batch
from ptx.playground.limits import LIMITS
from ptx.playground.models import Models
from ptx.playground.page import build, launch_options
from ptx.playground.served import Served
from ptx.sampling import USUAL
from ptx.stream import Step, Stream

USERS = 20
CROWD = 200
"""Requests at once over the limits."""
AT_ONCE = 20.0
"""Seconds within which each of a crowd knows: 5 where the page and its clients share one core."""
LENGTH = 4
"""Tokens of a text for which there is room."""


class Answer(NamedTuple):
    """What a user got, and after how many seconds."""

    user: int
    seconds: float
    text: str = ""
    refusal: str = ""


def launched(served: Served, place: Path) -> tuple[gr.Blocks, str]:
    page = build(Models(served, place / "checkpoints", place / "runs"))
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options())
    return page, url


@pytest.fixture(scope="module")
def url(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    page, url = launched(served, tmp_path_factory.mktemp("place"))
    yield url
    page.close()


def client(url: str) -> Client:
    """Patient, and told not to verify: else it reads all certificates anew for every request, on a
    page without TLS too, which takes longer than the page takes to answer."""
    return Client(url, verbose=False, ssl_verify=False, httpx_kwargs={"timeout": 60})


def prompt(user: int) -> str:
    return f"def user_{user}(x):\n    return"


def generate(client: Client, user: int, length: int) -> tuple[float, str]:
    """Seconds until its first text, and the whole of it."""
    start, first = time.monotonic(), None
    job = client.submit(prompt=prompt(user), length=length, seed=user, api_name="/generate")
    for _ in job:
        first = first or time.monotonic() - start
    return first or 0.0, job.result()


def alone(served: Served, user: int, length: int) -> str:
    """The user's text, written with nobody else about."""
    steps = served.engine.generate(prompt(user), USUAL, ptx.Limits(length), user)
    return "".join(step.text for step in steps)


def test_twenty_visitors_get_their_own_texts(
    url: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the page loads while they wait for them."""
    written, loaded, step = threading.Event(), threading.Event(), Batch.step

    def held(batch: Batch) -> list[tuple[Stream, list[Step]]]:
        written.set()
        loaded.wait(60)
        return step(batch)

    monkeypatch.setattr(Batch, "step", held)
    with ThreadPoolExecutor(USERS) as pool:
        clients = list(pool.map(lambda _: client(url), range(USERS)))
        answers = pool.map(lambda user: generate(clients[user], user, 12), range(USERS))
        try:
            assert written.wait(60)
            assert httpx.get(url, timeout=30).status_code == 200
            assert not loaded.is_set()
        finally:
            loaded.set()
    for user, (_, text) in enumerate(answers):
        assert text == alone(served, user, 12), user


def test_whoever_is_one_too_many_is_told_at_once(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there is room for, and a crowd. No text grows until that knows: nobody in it waits
    for one to end, and no place is given away twice."""
    told, step = threading.Event(), Batch.step

    def held(batch: Batch) -> list[tuple[Stream, list[Step]]]:
        told.wait(2 * AT_ONCE)
        told.set()
        return step(batch)

    def ask(user: int) -> Answer:
        start = time.monotonic()
        try:
            # not `generate`: while it waits, it looks for more a thousand times a second
            text = clients[user % USERS].predict(
                prompt(user), length=LENGTH, seed=user, api_name="/generate"
            )
        except AppError as error:
            return Answer(user, time.monotonic() - start, refusal=str(error))
        return Answer(user, time.monotonic() - start, text)

    monkeypatch.setattr(Batch, "step", held)
    page, url = launched(Served.load(served.directory), tmp_path)  # with an engine of its own
    room = LIMITS.streams + LIMITS.queue
    try:
        with ThreadPoolExecutor(room + CROWD) as pool:
            clients = list(pool.map(lambda _: client(url), range(USERS)))
            asked = [pool.submit(ask, user) for user in range(room + CROWD)]
            refused = [done.result() for done in islice(as_completed(asked), CROWD)]
            told.set()
            written = {done.result() for done in asked} - {*refused}
    finally:
        told.set()
        page.close()
    sentence = f"{LIMITS.streams} texts are being written and {LIMITS.queue} wait already"
    assert {answer.refusal for answer in refused} == {f"{sentence}: try again in a moment"}
    assert max(answer.seconds for answer in refused) < AT_ONCE
    assert len(written) == room
    for answer in written:
        assert answer.text == alone(served, answer.user, LENGTH), answer


@pytest.mark.parametrize("function", ["follow", "act", "close", "__init__"])
@pytest.mark.parametrize("data", [None, [], "x", {"do": "start", "data": {"source": "/etc"}}])
def test_forged_calls_of_the_panel_get_an_answer(url: str, function: str, data: object) -> None:
    """As a browser would send them, for every component of the page."""
    config = httpx.get(f"{url}config").json()
    [panel] = [c for c in config["components"] if c["props"].get("elem_id") == "training-panel"]
    body = {"data": data, "fn_name": function, "component_id": panel["id"], "session_hash": "x"}
    answer = httpx.post(f"{url}gradio_api/component_server/", json=body, timeout=60)
    if function in ("follow", "act"):
        assert answer.status_code == 200
        assert ("runs" if function == "follow" else "error") in answer.json()
    else:
        assert answer.status_code >= 400
