"""What comes between two steps of a text that is alone: the draw, and a look for guesses.

Both need so little that they are compiled into the step (`ptx.native`), which then goes on by
itself. So Python is asked once for about ten tokens: its lock, which a page's other threads want
as well, is taken and given up once, and so is the wait for the thread that helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ptx import lookup
from ptx.compiled import compiled
from ptx.draws import draw, likeliest
from ptx.sampling import GREEDY, Sampling

_inner = partial(compiled, inner=True, allocates=False)
_found, _pays, _note = map(_inner, (lookup.found, lookup.pays, lookup.note))


ALL_TOKENS = 1 << 40
"""A top-k that no vocabulary reaches; a larger one might not fit a compiled number."""


class Onward(NamedTuple):
    """How a text goes on after the token it ends with, until it is over or `room` is used up."""

    steps: int
    """At most; 0 stands for rows that are read once, and of which nothing is drawn here."""
    text: np.ndarray
    """int64 (n + room,): the end of the text; what is drawn follows."""
    n: int
    position: int
    """In the cache, of the token it ends with."""
    guesses: int
    """At once, at most."""
    past: np.ndarray
    """Of the guesses, see `ptx.lookup`."""
    temperature: float
    """fp32."""
    top_k: int
    top_p: float
    min_p: float
    """fp32."""
    banned: np.ndarray
    """int64, tokens that may not come."""
    aside: np.ndarray
    """fp32, room for the logits of these."""
    eot: int
    """After it nothing comes."""
    shares: np.ndarray
    """fp64 (room,), a random number for each draw, from 0 up to 1."""
    chances: np.ndarray
    """fp64 (room,), which receives the probability that each token was drawn with."""
    plan: np.ndarray
    """int64 (2, steps + 1), which receives for each step how many tokens were drawn before it, and
    how many rows it reads: none once the text is done with. Written once, as threads that come
    late read it too."""


def onward(
    steps: int,
    ids: Sequence[int],
    position: int,
    guesses: int,
    past: np.ndarray,
    sampling: Sampling,
    eot: int,
    shares: Sequence[float],
) -> Onward:
    """See `Onward`. ids: what of the text is looked through; room is for as many tokens as there
    are `shares`."""
    s, n, room = sampling, len(ids), len(shares)
    text, shares_, chances = np.array([*ids, *[0] * room]), np.array(shares), np.ones(room)
    top_k = int(min(s.top_k, ALL_TOKENS))  # of one type, or all would be compiled once more
    knobs = np.float32(s.temperature), top_k, float(s.top_p), np.float32(s.min_p)
    banned, plan = np.array(s.banned, np.int64), np.zeros((2, steps + 1), np.int64)
    where, aside = (text, n, position, guesses, past), np.empty(len(banned), np.float32)
    return Onward(steps, *where, *knobs, banned, aside, eot, shares_, chances, plan)


NOWHERE = onward(0, [0], 0, 0, np.zeros(2), Sampling(), 0, [0.0])
"""For rows that are read once."""


@_inner
def choose(k: int, onward: Onward, rows: Any, logits: np.ndarray, context: int):
    """Draws what follows from step k - 1, and says what step k reads."""
    o, drawn, over, most = onward, 0, False, len(rows.tokens) // onward.steps
    if k:
        tokens = rows.tokens[(k - 1) * most : k * most]
        drawn, over = _drawn(o, tokens, logits, o.plan[0, k - 1], o.plan[1, k - 1])
    o.plan[0, k], o.plan[1, k] = drawn, 0
    n, position = o.n + drawn, o.position + drawn
    if over or k == o.steps or position == context:
        return
    guesses, at = min(o.guesses, len(o.shares) - drawn - 1, context - 1 - position), n
    if guesses > 0 and _pays(o.past):
        at = _found(o.text, n)
    R = 1 + min(guesses, n - at)
    for r in range(R):
        rows.tokens[k * most + r] = o.text[at + r - 1] if r else o.text[n - 1]
        rows.positions[k * most + r] = position + r
    o.plan[1, k] = R


@_inner
def _drawn(o: Onward, tokens: np.ndarray, logits: np.ndarray, drawn: int, R: int):
    """How many tokens are drawn once the logits of R rows, after so many tokens, are drawn from, up
    to the first guess that is wrong; and whether nothing more is to be read.

    tokens: of these rows, (R, or more)."""
    r, over = 0, False
    while True:
        token = _draw(o, logits[drawn : drawn + 1], drawn)
        if token < 0:  # who draws first from these logits finds that again
            return drawn, True
        drawn += 1
        over = token == o.eot or drawn == len(o.shares)
        if over or r == R - 1 or token != tokens[r + 1]:
            break
        r += 1
    if R > 1:
        _note(o.past, r)
    return drawn, over


@_inner
def _draw(o: Onward, logits: np.ndarray, i: int) -> int:
    """Token i, which is written down, by logits (1, V), which are as they were afterwards; -1 if
    they are no numbers."""
    token, chance = o.text[o.n + i : o.n + i + 1], o.chances[i : i + 1]
    for b in range(len(o.banned)):
        o.aside[b] = logits[0, o.banned[b]]
        logits[0, o.banned[b]] = -np.inf
    if o.temperature < GREEDY:
        token[0] = likeliest(logits[0])
    else:
        knobs = o.temperature, o.top_k, o.top_p, o.min_p
        draw(logits, *knobs, o.shares[i : i + 1], token, chance)
    for b in range(len(o.banned) - 1, -1, -1):  # one may be there twice
        logits[0, o.banned[b]] = o.aside[b]
    return token[0]
