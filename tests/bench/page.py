"""How quick the page is, in a real Chromium in front of `python app.py`.

    python tests/bench/page.py [--quick] [--json] [--only FIGURE ...]

ready_seconds            from the command to a page that is served
first_visible_token_ms   from the click on Generate to the first new token on the screen
cursor_ms                from an arrow key to all that the page says about the token it leads to
atlas_kib                what the pictures of all heads weigh, for 256 tokens
atlas_paint_ms           from muting a head to the pictures of all heads painted anew, for as many
stream_keepup            tokens a second on the page, after the first, as a share of the engine's
compiling_tokens_per_s   tokens a second of a machine's first texts, while it compiles the engine
memory_growth            memory of the server after 100 generations, as a ratio to after 5
plot_tick_ms             main thread of one update of the curves, a run of 10,000 points
training_slowdown        time to the first token while the page trains, as a ratio to idle
users20_first_token_s    the longest wait for a first token when 20 visitors ask together
users20_page_load_s      a page's load meanwhile
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
from playwright.sync_api import Page

import ptx
from ptx.decoder import Decoder
from ptx.sampling import USUAL
from tests.bench import page_training
from tests.bench.playground import free_port, started
from tests.bench.report import Row, parser, report

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "checkpoints" / "mini"
USERS20 = {"users20_first_token_s", "users20_page_load_s"}
TRAINING = {"plot_tick_ms", "training_slowdown", *USERS20}
PROMPT = "def fibonacci(n):"
KEEPUP = 500
"""Tokens of a text whose speed is measured: at 10 pictures a second, a short one shows little."""
LONG = (ROOT / "ptx" / "sampling.py").read_text("utf-8")[:4000]
# Tells when the pictures of the atlas were last painted, and which.
WATCH = """(() => {
    const put = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (...given) {
        put.apply(this, given);
        if (!this.canvas.closest(".atlas")) return;
        window.painted = { when: performance.now(), picture: ptx.attention.picture() };
    };
})()"""
FIRST_TOKEN = """() => new Promise((done) => {
    const { state } = ptx.store;
    const { recording } = state;
    const began = performance.now();
    const look = () => {
        const shown = document.querySelector(`#text-panel .token[data-i="${state.prompt}"]`);
        const written = state.recording !== recording && state.status.generated;
        if (written && shown) done(performance.now() - began);
        else requestAnimationFrame(look);
    };
    document.getElementById("generate").click();
    requestAnimationFrame(look);
})"""
MOVE = """(key) => new Promise((done) => {
    const { state } = ptx.store;
    const code = document.querySelector("#text-panel pre.code");
    const began = performance.now();
    code.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    const look = () => {
        if (state.look?.at !== state.cursor) requestAnimationFrame(look);
        else requestAnimationFrame(() => requestAnimationFrame(shown)); // then it is on the screen
    };
    const shown = () => done(performance.now() - began);
    look();
})"""
PAINT = """(muted) => new Promise((done) => {
    const began = performance.now();
    const before = ptx.attention.picture();
    ptx.store.set({ muted });
    const look = () => {
        const { when, picture } = window.painted;
        if (picture && picture !== before) done(when - began);
        else requestAnimationFrame(look);
    };
    look();
})"""
KIB = """async () => {
    const { ids, cursor } = ptx.store.state;
    const answer = await ptx.ask("maps", { ids, at: cursor });
    return JSON.stringify(answer).length / 1024;
}"""
PAINTED = "window.painted?.picture && painted.picture === ptx.attention.picture()"
BEGINNING = "ptx.store.state.tokens.slice(0, 256).map(({ text }) => text).join('')"
HEADS = [f"{layer}.{head}" for layer in range(3) for head in range(4)]
# Called by the page itself: a question in each picture would make it draw more of them.
STREAM = """() => new Promise((done) => {
    const { state } = ptx.store;
    const { recording } = state;
    let first;
    window.look = () => {
        const { generated, finish } = state.status;
        if (state.recording === recording || !generated) return;
        const now = [generated, performance.now()];
        first ??= now;
        if (finish) done([generated - first[0], now[1] - first[1]]);
    };
    document.getElementById("generate").click();
})"""


@contextmanager
def opened(port: int) -> Iterator[Page]:
    """The page, loaded and its first cursor answered."""
    with page_training.browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(WATCH)
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("window.ptx?.store?.state.look")
        page.evaluate("ptx.store.on(['status'], () => window.look?.())")
        yield page


def warm_up(page: Page) -> None:
    set_knobs(page, length=40)
    for seed in range(3):
        write(page, seed)
    time.sleep(5)


def set_knobs(page: Page, **knobs: float) -> None:
    page.evaluate("knobs => ptx.store.set({knobs: {...ptx.store.state.knobs, ...knobs}})", knobs)


def put(page: Page, prompt: str) -> None:
    """A prompt into the editor; waits for its tokens, if it is another one."""
    if page.evaluate("ptx.writing.written()") == prompt:
        return
    page.evaluate("text => ptx.writing.edit(text)", prompt)
    page.wait_for_function(
        "text => ptx.store.state.tokens.map(t => t.text).join('') === text", arg=prompt
    )
    page.wait_for_function("ptx.store.state.look?.at === ptx.store.state.cursor")


def write(page: Page, seed: int) -> tuple[int, float]:
    """One text from beginning to end: its tokens after the first, and their milliseconds."""
    set_knobs(page, seed=seed)
    written, milliseconds = page.evaluate(STREAM)
    page.wait_for_function("!ptx.store.state.writing")
    return written, milliseconds


def first_visible_token_ms(page: Page, rounds: int) -> float:
    put(page, PROMPT)
    set_knobs(page, length=20)
    times = []
    for seed in range(rounds):
        set_knobs(page, seed=seed)
        times.append(page.evaluate(FIRST_TOKEN))
        page.wait_for_function("!ptx.store.state.writing")
    return statistics.median(times)


def cursor_ms(page: Page, rounds: int) -> float:
    put(page, LONG[:1200])
    set_knobs(page, length=20)
    write(page, 0)
    page.locator("#text-panel pre.code").focus()
    return statistics.median(page.evaluate(MOVE, "ArrowLeft") for _ in range(rounds))


def atlas(page: Page, rounds: int) -> tuple[float, float, float]:
    """At 256 tokens: KiB, and milliseconds until painted; the latter in a full window too."""
    put(page, LONG)
    full = repainted(page, "ptx.store.state.model.context", rounds)
    put(page, page.evaluate(BEGINNING))
    paint = repainted(page, "ptx.store.state.ids.length", rounds)
    return page.evaluate(KIB), paint, full


def repainted(page: Page, cursor: str, rounds: int) -> float:
    """Milliseconds from muting a head to all of them painted anew; the page reads the window of
    the cursor to its end."""
    page.evaluate(f"ptx.store.set({{ cursor: {cursor}, following: false, muted: [] }})")
    page.wait_for_function("ptx.store.state.look?.at === ptx.store.state.cursor")
    page.wait_for_function(PAINTED)
    time.sleep(2)
    return statistics.median(page.evaluate(PAINT, [head]) for head in HEADS[:rounds])


def stream_keepup(page: Page, rounds: int) -> tuple[float, float]:
    """Tokens a second after the first, and of an engine that nobody looks at: the same texts in
    turns, because the machine is faster in one minute than in the next; medians."""
    put(page, PROMPT)
    set_knobs(page, length=KEEPUP)
    model, tokenizer, _ = ptx.load_model(MODEL)
    shown, alone = [], []
    with ptx.Engine(model, tokenizer) as engine:
        for seed in range(-1, rounds):  # the first one warms up
            time.sleep(2)  # until all is drawn that was said about the text before
            written, milliseconds = write(page, max(seed, 0))
            time.sleep(2)
            steps = engine.generate(PROMPT, USUAL, ptx.Limits(KEEPUP), max(seed, 0))
            next(steps)
            start = time.perf_counter()
            made = sum(step.token is not None for step in steps)
            if seed >= 0:
                shown.append(1000 * written / milliseconds)
                alone.append(made / (time.perf_counter() - start))
    return statistics.median(shown), statistics.median(alone)


def compiling_tokens_per_s(texts: int) -> float:
    """Median of the first texts of 60 tokens, nothing being compiled when the page is started."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty,
        started("app.py", "--port", str(port), port=port, NUMBA_CACHE_DIR=empty),
        opened(port) as page,
    ):
        set_knobs(page, length=60)
        times = [write(page, seed) for seed in range(texts)]
        if list(Path(empty).rglob("*.step-*.nbc")):
            sys.exit("compiling_tokens_per_s: it was compiled before the texts were written")
    return statistics.median(1000 * written / ms for written, ms in times)


def memory_growth(page: Page, server: psutil.Process, generations: int) -> float:
    put(page, PROMPT)
    set_knobs(page, length=20)
    for seed in range(5):
        write(page, seed)
    before = server.memory_info().rss
    for seed in range(generations):
        write(page, seed)
    return server.memory_info().rss / before


def serving(port: int) -> psutil.Process:
    """The process that listens there."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "app.py" in command and str(port) in command:
            return process
    raise RuntimeError("the server has ended")


def measured(args: Namespace) -> list[Row]:
    rounds = 3 if args.quick else 9
    wanted: Callable[[str], bool] = lambda name: not args.only or name in args.only  # noqa: E731
    if args.only and set(args.only) <= TRAINING:
        return of_training(args, wanted)
    rows: list[Row] = []
    if wanted("compiling_tokens_per_s") and not (args.quick and not args.only):
        rows.append(("compiling_tokens_per_s", compiling_tokens_per_s(3), None, None))
    Decoder(ptx.load_model(MODEL)[0], native=True)  # what follows finds it compiled
    port, ready = free_port(), []
    for _ in range(1 if args.quick or not wanted("ready_seconds") else 5):
        with started("app.py", "--port", str(port), port=port) as seconds:
            ready.append(seconds)
    if wanted("ready_seconds"):
        rows.append(("ready_seconds", statistics.median(ready), None, 8.0))
    with started("app.py", "--port", str(port), port=port), opened(port) as page:
        warm_up(page)
        if wanted("first_visible_token_ms"):
            value = first_visible_token_ms(page, rounds)
            rows.append(("first_visible_token_ms", value, None, 200.0))
        if wanted("cursor_ms"):
            rows.append(("cursor_ms", cursor_ms(page, 2 * rounds), None, 100.0))
        if wanted("atlas_kib") or wanted("atlas_paint_ms"):
            kib, paint, full = atlas(page, rounds)
            rows += [("atlas_kib", kib, None, 200.0), ("atlas_paint_ms", paint, None, 400.0)]
            rows.append(("atlas_paint_ms, a full window", full, None, None))
        if wanted("stream_keepup"):
            shown, alone = stream_keepup(page, 2 if args.quick else 9)
            rows.append(("stream_keepup", shown / alone, 1.0, 0.8))
            print(f"page {shown:.0f} tokens/s, engine alone {alone:.0f}")
        if wanted("memory_growth"):
            growth = memory_growth(page, serving(port), 10 if args.quick else 100)
            rows.append(("memory_growth", growth, None, 1.05))
    return rows + of_training(args, wanted)


def of_training(args: Namespace, wanted: Callable[[str], bool]) -> list[Row]:
    rows: list[Row] = []
    if wanted("plot_tick_ms"):
        tick = page_training.plot_tick_ms(8 if args.quick else 30)
        rows.append(("plot_tick_ms", tick, None, 50.0))
    if wanted("training_slowdown"):
        idle, busy = page_training.training_slowdown(5 if args.quick else 25)
        rows.append(("training_slowdown", busy / idle, 1.0, 2.0))
        print(f"first token {idle:.3f} s idle, {busy:.3f} s while it trains")
    if any(map(wanted, USERS20)):
        first, load = page_training.users20()
        rows.append(("users20_first_token_s", first, None, 5.0))
        rows.append(("users20_page_load_s", load, None, 2.0))
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", metavar="FIGURE", help="some of the figures")
    args = made.parse_args()
    report(measured(args), args)


if __name__ == "__main__":
    main()
