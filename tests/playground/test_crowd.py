"""Many visitors at once, through Gradio's own client: each gets its own text, and whoever is one
too many is told so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client

import ptx
from ptx.playground import served as module
from ptx.playground.limits import Limits
from ptx.playground.models import Models
from ptx.playground.page import build, launch_options
from ptx.playground.served import Served

USERS = 20
TOO_MANY = 40


def launched(served: Served, place: Path) -> tuple[gr.Blocks, str]:
    page = build(Models(served, place / "checkpoints", place / "runs"))
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options())
    return page, url


@pytest.fixture(scope="module")
def url(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    page, url = launched(served, tmp_path_factory.mktemp("place"))
    yield url
    page.close()


def prompt(user: int) -> str:
    return f"def user_{user}(x):\n    return"


def generate(client: Client, user: int, length: int) -> tuple[float, str]:
    """Seconds until its first text, and the whole of it."""
    start, first = time.monotonic(), None
    job = client.submit(prompt=prompt(user), length=length, seed=user, api_name="/generate")
    for _ in job:
        first = first or time.monotonic() - start
    return first or 0.0, job.result()


def test_twenty_visitors_get_their_own_texts(url: str, served: Served) -> None:
    with ThreadPoolExecutor(USERS) as pool:
        clients = list(pool.map(lambda _: Client(url, verbose=False), range(USERS)))
        answers = pool.map(lambda user: generate(clients[user], user, 12), range(USERS))
        start = time.monotonic()
        assert httpx.get(url).status_code == 200
        assert time.monotonic() - start < 2, "others' texts hold the page's load up"
    for user, (_, text) in enumerate(answers):
        alone = served.engine.generate(
            prompt(user), ptx.Sampling(0.8, top_p=0.95), ptx.Limits(12), user
        )
        assert text == "".join(step.text for step in alone), user


def test_whoever_is_one_too_many_is_told_at_once(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMITS", Limits(streams=1, queue=2))
    own = Served.load(served.directory)  # with an engine of its own
    page, url = launched(own, tmp_path)
    try:
        with ThreadPoolExecutor(TOO_MANY) as pool:
            clients = list(pool.map(lambda _: Client(url, verbose=False), range(8)))

            def ask(user: int) -> tuple[float, str]:
                start = time.monotonic()
                try:
                    generate(clients[user % 8], user, 200)
                except Exception as error:
                    return time.monotonic() - start, str(error)
                return time.monotonic() - start, ""

            answers = list(pool.map(ask, range(TOO_MANY)))
    finally:
        page.close()
    refused = [seconds for seconds, error in answers if "try again" in error]
    written = [seconds for seconds, error in answers if not error]
    assert len(refused) + len(written) == TOO_MANY, {error for _, error in answers}
    assert written
    assert refused
    assert min(refused) < max(written), "they did not wait for the others to end"


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
