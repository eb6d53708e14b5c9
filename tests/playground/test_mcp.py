"""The page's endpoints as tools, through a client of the Model Context Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from ptx.playground.models import Models
from ptx.playground.page import build, launch_options
from ptx.playground.served import Served


@pytest.fixture(scope="module")
def url(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("place")
    page = build(Models(served, place / "checkpoints", place / "runs"))
    _, url, _ = page.launch(prevent_thread_lock=True, **launch_options())
    yield url
    page.close()


def asked(url: str, tool: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """{name: tool}, and the text that `tool` answers with."""

    async def session() -> tuple[dict[str, Any], str]:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as client,
        ):
            await client.initialize()
            tools = (await client.list_tools()).tools
            answer = await client.call_tool(tool, arguments)
            return {t.name: t for t in tools}, "".join(part.text for part in answer.content)

    # in a thread of its own: where a browser was driven before, this one has a loop already
    with ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, session()).result()


def test_a_language_model_can_let_ours_write(url: str) -> None:
    tools, text = asked(url, "generate", {"prompt": "def f(", "length": 3, "seed": 1})
    assert "Continues a piece of Python" in tools["generate"].description
    assert "prompt" in tools["generate"].inputSchema["properties"]
    assert text
