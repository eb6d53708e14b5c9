"""The playground's controls, in the words of the tests."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

expect.set_options(timeout=30_000)  # a busy machine is not a failure

PASTE = """text => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    document.querySelector("#prompt .cm-content").dispatchEvent(
        new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""
COLORS = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""


class Playground:
    """One open page."""

    def __init__(self, page: Page, url: str, dark: bool = False) -> None:
        self.page = page
        self._streams: set[Request] = set()  # of Gradio's news about what it was asked for
        page.on("request", lambda r: self._streams.add(r) if "/queue/data" in r.url else None)
        for end in ("requestfinished", "requestfailed"):
            page.on(end, lambda r: self._streams.discard(r))  # Playwright takes no bound built-in
        page.goto(url + ("/?__theme=dark" if dark else "/"))
        self.code: Locator = page.locator("#text-panel pre.code")
        self.finish = page.locator("#text-panel .finish")
        self.error = page.locator("#text-panel .message.error")
        self.notes = page.locator("#text-panel .notes")
        self.map = page.locator("#heads-panel .maps > .card .map").first
        self.readout = page.locator("#heads-panel .readout")
        expect(self.map).to_be_visible()
        expect(page.locator("#prompt .cm-content")).to_be_visible()
        self.seen = page.locator("#text-panel .seen")
        self.syntax = page.locator("#text-panel .syntax")
        self.candidates = page.locator("#bench-panel button.candidate:visible")
        # the prompt has been read, the model asked about what could follow it, and its heads judged
        self.wait_for("state.look && state.tokens.length > 1 && ptx.attention.roles().length")

    def prompt(self, text: str) -> None:
        """In one step: an editor that is empty for a moment would be read as an empty prompt."""
        self.page.click("#prompt .cm-content")
        self.page.keyboard.press("Control+a")
        if text:
            self.page.evaluate(PASTE, text)
        else:
            self.page.keyboard.press("Delete")

    def set(self, knob: str, value: float) -> None:
        box = self.page.locator(f"#{knob} input[type=number]")
        box.fill(str(value))
        box.blur()

    def generate(self, *, wait: bool = True) -> None:
        self.page.click("#generate")
        if wait:
            self.finished("length", "end of text")

    def finished(self, *reasons: str) -> None:
        """Waits until the text has ended for one of these reasons."""
        self.page.wait_for_function(
            "reasons => reasons.includes(document.querySelector('.finish').dataset.finish)",
            arg=list(reasons),
            timeout=90_000,
        )

    def reload(self) -> None:
        """Until the page's own scripts are there again. Not while Gradio still waits for news: it
        would complain in the console that it was cut off."""
        deadline = time.monotonic() + 60
        while self._streams:
            assert time.monotonic() < deadline, f"still open: {[r.url for r in self._streams]}"
            self.page.wait_for_timeout(20)
        self.page.reload()
        self.page.wait_for_function("window.ptx?.store?.state.model")

    def state(self, path: str) -> Any:
        """What the page's panels share: `state("ids.length")`."""
        return self.page.evaluate(f"ptx.store.state.{path}")

    def wait_for(self, condition: str, arg: Any = None) -> None:
        """Waits until a JavaScript expression over `state` holds; `arg` is in it."""
        code = f"arg => {{ const state = ptx.store.state; return {condition}; }}"
        self.page.wait_for_function(code, arg=arg, timeout=30_000)

    def read(self, prompt: str) -> None:
        """Puts a prompt into the editor and waits for its tokens."""
        self.prompt(prompt)
        self.wait_for("state.tokens.map(t => t.text).join('') === arg", prompt)

    def cursor_to(self, index: int) -> None:
        """With the keyboard, to a token, and waits for what the model says there."""
        self.code.focus()
        self.page.keyboard.press("Control+Home")
        for _ in range(index - 1):
            self.page.keyboard.press("ArrowRight")
        self.looked(index)

    def drawn(self) -> None:
        """Waits until what is there is drawn, which waits for a frame; while no text streams."""
        frame = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        for _ in range(3):
            self.page.evaluate(frame)

    def looked(self, index: int) -> None:
        """Waits until all that is asked about the cursor is there."""
        self.wait_for("state.cursor === arg && state.look?.at === arg", index)

    def look(self, at: int) -> None:
        """Clicks the token at `at`, or sets the cursor past the last, until the page shows it."""
        if self.page.evaluate("at => at < ptx.store.state.ids.length", at):
            self.code.locator(f'.token[data-i="{at}"]').click()
        else:
            self.code.focus()
            self.page.keyboard.press("Control+End")
        self.page.wait_for_function("at => ptx.store.state.look?.at === at", arg=at)

    @property
    def ids(self) -> list[int]:
        """The tokens on the page, prompt and generated."""
        return self.page.evaluate("ptx.store.state.ids")

    @property
    def text(self) -> str:
        return self.code.text_content() or ""

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def colors(self, canvas: str | Locator) -> int:
        """How many different pixels a canvas has; a blank one has one."""
        found = self.page.locator(canvas) if isinstance(canvas, str) else canvas
        return found.evaluate(COLORS)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
