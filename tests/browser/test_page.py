"""The page as a whole: on a phone, in the dark, and in the Model tab."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.driving import Playground

PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_never_scrolls_sideways(page: Page, app_url: str, dark: bool) -> None:
    page.set_viewport_size(PHONE)
    playground = Playground(page, app_url, dark)
    playground.set("length", 8)
    playground.generate()
    for tab in ("Write", "Training", "Model"):
        playground.tab(tab)
        page.wait_for_timeout(300)
        assert playground.overflow() <= 0, tab


def test_the_dark_page_is_dark_and_its_maps_too(page: Page, app_url: str) -> None:
    brightness = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return (data[0] + data[1] + data[2]) / 3;
    }"""
    playground = Playground(page, app_url, dark=True)
    legend = page.locator("#heads-panel .ramp")
    assert legend.evaluate(brightness) < 80  # no weight looks like the background
    page.locator("#theme").click()
    page.wait_for_function(
        f"() => ({brightness})(document.querySelector('#heads-panel .ramp')) > 200"
    )
    assert playground.colors(playground.map) > 8


COUNT = """(() => {
    const ask = window.requestAnimationFrame;
    window.frames_asked = 0;
    window.requestAnimationFrame = (call) => {
        window.frames_asked += 1;
        return ask.call(window, call);
    };
})()"""


def test_a_page_on_which_nothing_moves_asks_for_no_frames(page: Page, app_url: str) -> None:
    page.add_init_script(COUNT)
    playground = Playground(page, app_url)
    playground.set("length", 8)
    for _ in range(20):  # what Gradio moves when a page opens goes on for some seconds
        before = page.evaluate("window.frames_asked")
        page.wait_for_timeout(1000)
        if quiet := page.evaluate("window.frames_asked") - before <= 3:
            break
    assert quiet
    playground.generate()  # what is to move still does
    assert page.evaluate("window.frames_asked") > before
