"""Seconds from the command to a page that answers, and for one token through its queue.

    python tests/bench/playground.py [--quick] [--json]

The peer for start-up is Gradio itself: an app with one text box.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gradio_client import Client

from tests.bench.report import arguments, report

ROOT = Path(__file__).resolve().parents[2]
EMPTY_APP = """
import sys, gradio
with gradio.Blocks() as page:
    gradio.Textbox()
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""


def free_port() -> int:
    with socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def started(*command: str, port: int, **environment: str) -> Iterator[float]:
    """Runs a server; gives the seconds until it served its configuration."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment | {"GRADIO_ANALYTICS_ENABLED": "False"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None or time.perf_counter() - start > 120:
                    sys.exit("the server did not start")
                time.sleep(0.02)
        yield time.perf_counter() - start
    finally:
        process.terminate()
        process.wait()


def one_token_seconds(port: int) -> float:
    """A request for one token, through Gradio's own client and queue."""
    client = Client(f"http://127.0.0.1:{port}", verbose=False)
    ask = {"prompt": "def fibonacci(n):", "length": 1, "api_name": "/generate"}
    client.predict(**ask)  # the first one warms up
    start = time.perf_counter()
    client.predict(**ask)
    return time.perf_counter() - start


def main() -> None:
    args = arguments(__doc__)
    ours, peer, first = [], [], []
    for _ in range(2 if args.quick else 5):
        port = free_port()
        with started("app.py", "--port", str(port), port=port) as seconds:
            ours.append(seconds)
            first.append(one_token_seconds(port))
        port = free_port()
        with started("-c", EMPTY_APP, str(port), port=port) as seconds:
            peer.append(seconds)
    median = statistics.median
    report(
        [
            ("seconds until the page is ready", median(ours), median(peer), 10.0),
            ("seconds for one token through the queue", median(first), None, 0.5),
        ],
        args,
    )


if __name__ == "__main__":
    main()
