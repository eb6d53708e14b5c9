"""What a page lets its visitors do, in one place. Each limit is an environment variable.

    variable          here      Space    what
    PTX_PROMPT_BYTES  65536     20000    longest prompt, in bytes of UTF-8 or tokens; at most 65536
    PTX_NEW_TOKENS    1000      500      most new tokens of one request
    PTX_SECONDS       600       60       longest time that one text may grow
    PTX_QUEUE         64        32       texts that may wait for their turn
    PTX_STREAMS       24        16       texts that grow at the same time
    PTX_TRAINING      on        off      whether the page starts and ends training
    PTX_HUB           on        off      whether a visitor may open a model of the Hub by name
    PTX_PER_MINUTE    600       30       texts that one visitor may ask for a minute, and questions
                                         that one program may
    PTX_UPLOAD_BYTES  50000000  1000000  longest text to train on, in bytes of UTF-8

Over a limit there is a sentence that names it; nobody is left waiting. Curves of runs are shown
where training is off, too.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ptx.errors import UserError
from ptx.stream import PROMPT_LIMIT

if TYPE_CHECKING:
    import gradio as gr

PREFIX = "PTX_"
SWITCH = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


@dataclass(frozen=True)
class Limits:
    """The limits of one page; the defaults are generous, for one's own machine."""

    prompt_bytes: int = PROMPT_LIMIT
    new_tokens: int = 1000
    seconds: int = 600
    queue: int = 64
    streams: int = 24
    training: bool = True
    hub: bool = True
    per_minute: int = 600
    upload_bytes: int = 50_000_000

    @property
    def text_tokens(self) -> int:
        """Of a text that is looked at: end-of-text, the longest prompt, and what one request adds
        to it."""
        return 1 + self.prompt_bytes + self.new_tokens

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Limits:
        """The limits that an environment asks for. UserError names a variable that is wrong."""
        start = SPACE if environment.get("SYSTEM") == "spaces" else cls()
        given = {}
        for field in fields(cls):
            default = getattr(start, field.name)
            value = environment.get(PREFIX + field.name.upper(), "").strip()
            given[field.name] = _parse(field.name, value, default) if value else default
        if given["prompt_bytes"] > PROMPT_LIMIT:
            raise UserError(f"{PREFIX}PROMPT_BYTES must be at most {PROMPT_LIMIT}")
        return cls(**given)


SPACE = Limits(
    prompt_bytes=20_000,
    new_tokens=500,
    seconds=60,
    queue=32,
    streams=16,
    training=False,
    hub=False,
    per_minute=30,
    upload_bytes=1_000_000,
)
"""For strangers on two shared cores."""


def _parse(name: str, value: str, default: int | bool) -> int | bool:
    if isinstance(default, bool):
        if value.lower() in SWITCH:
            return SWITCH[value.lower()]
        raise UserError(f"{PREFIX}{name.upper()} must be on or off, not {value!r}")
    if value.isascii() and value.isdigit() and 0 < int(value) < 2**53:
        return int(value)
    raise UserError(f"{PREFIX}{name.upper()} must be a whole number above 0, not {value!r}")


LIMITS = Limits.read(os.environ)


class Rate:
    """How often each visitor may ask: at most so many times in any minute."""

    MINUTE = 60.0
    KNOWN = 10_000
    """Visitors remembered; the one that has been away longest is forgotten first."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, visitor: str, now: float | None = None) -> None:
        """Counts one request; raises UserError for one too many, which does not count."""
        now = time.monotonic() if now is None else now
        with self._lock:
            times = self._asked.setdefault(visitor, deque())
            self._asked.move_to_end(visitor)
            while times and now - times[0] >= self.MINUTE:
                times.popleft()
            if len(times) >= self.per_minute:
                wait = math.ceil(self.MINUTE - (now - times[0]))
                raise UserError(
                    f"this page takes {self.per_minute} requests a minute from each visitor "
                    f"(PTX_PER_MINUTE): try again in {wait} s"
                )
            times.append(now)
            while len(self._asked) > self.KNOWN:
                self._asked.popitem(last=False)


def visitor(sender: gr.Request) -> str:
    """Who asks, by address; on a Space, by the one that its proxy appended: what a sender wrote
    into that header itself stands before it."""
    named = sender.headers.get("x-forwarded-for") if os.environ.get("SYSTEM") == "spaces" else None
    return (named or sender.client.host).split(",")[-1].strip()
