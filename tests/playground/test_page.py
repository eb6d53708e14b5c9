"""The page as a whole, without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ptx.playground.models import Models
from ptx.playground.page import build
from ptx.playground.served import Served
from ptx.playground.web import SCRIPTS, WEB, css, head


@pytest.fixture(scope="module")
def page(served: Served, tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("place")
    return build(Models(served, place / "checkpoints", place / "runs"))


def test_these_and_no_others_are_public_endpoints(page) -> None:
    found = page.get_api_info()
    reading = ["/tokens", "/look", "/attention", "/roles", "/lens", "/ablation"]
    assert list(found["named_endpoints"]) == ["/generate", *reading, "/runs", "/metrics"]
    assert not found["unnamed_endpoints"]


def test_no_script_or_style_names_another_host() -> None:
    for source in (head(), css()):
        # names of kinds of markup, which nobody fetches
        text = re.sub(r"http://www\.w3\.org/(2000/svg|1999/xhtml)", "", source)
        assert "http:" not in text
        assert "https:" not in text


def test_every_script_is_loaded() -> None:
    assert {path.name for path in WEB.glob("*.js")} == set(SCRIPTS)


def test_importing_the_page_writes_no_stub_files() -> None:
    assert not list(Path(WEB).parent.rglob("*.pyi"))
