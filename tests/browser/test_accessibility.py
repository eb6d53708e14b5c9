"""axe-core finds nothing serious, and the keyboard reaches everything."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.driving import Playground

TABS = ("Write", "Training", "Model")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_nothing_serious(page: Page, app_url: str, tab: str, dark: bool) -> None:
    playground = Playground(page, app_url, dark)
    if tab == "Write":
        playground.set("length", 8)
        playground.generate()
    playground.tab(tab)
    page.wait_for_timeout(500)
    found = Axe().run(page).response["violations"]
    serious = [
        f"{violation['id']}: {node['html'][:160]} ({violation['help']})"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert not serious, "\n".join(serious)
