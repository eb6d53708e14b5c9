"""axe-core finds nothing serious, and the keyboard reaches everything."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.driving import Playground

TABS = ("Write", "Training", "Model")
STEP = """() => {
    const at = document.activeElement;
    if (at === document.body) return "outside"; // it goes round from the last to the first
    const again = at.hasAttribute("data-reached");
    at.setAttribute("data-reached", "");
    return at.closest(".cm-editor") ? "editor" : again ? null : "other";
}"""
MISSED = """() => {
    const controls =
        "a[href], button, input, select, textarea, summary, [contenteditable=true], [tabindex]";
    // one of these is a stop, and the arrow keys go on from it
    const sets = "[role=tablist], [role=radiogroup], [role=listbox], [role=grid]";
    const here = "[data-reached]";
    const reached = (node) => node && (node.matches(here) || node.querySelector(here));
    return [...document.querySelectorAll(controls)]
        .filter((node) => node.checkVisibility({ visibilityProperty: true }))
        .filter((node) => !node.matches(":disabled, [aria-hidden=true] *"))
        .filter((node) => !reached(node) && !reached(node.closest(sets)))
        .map((node) => node.outerHTML.slice(0, 160));
}"""


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


@pytest.mark.parametrize("tab", TABS)
def test_the_tab_key_reaches_everything(page: Page, app_url: str, tab: str) -> None:
    playground = Playground(page, app_url)
    if tab == "Write":
        playground.set("length", 8)
        playground.generate()
    playground.tab(tab)
    page.wait_for_timeout(1000)  # what comes later would be new, and not reached
    for _ in range(400):
        page.keyboard.press("Tab")
        where = page.evaluate(STEP)
        if where == "editor":  # there it indents, until Escape
            page.keyboard.press("Escape")
        elif where is None:
            break
    assert where is None
    assert page.locator("[data-reached]").count() > 10
    assert page.evaluate(MISSED) == []
