"""Reading tokens of many texts at once: a cache with a slot for each, a step for all."""

from __future__ import annotations

import importlib.util
import math
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptx.errors import UserError
from ptx.fastest import Fastest
from ptx.model import GPT, KVCache
from ptx.sampling import Sampling

MOST_THREADS = 8
"""That share a step: its pieces are few, and more threads would wait for each other."""
WORTH_COPYING = 16
"""Positions from which on to copy them is better than to read their tokens again."""
MANY = 8
"""Rows from which on a step has a choice of threads of its own: prompts, and crowds of texts."""
AT_ONCE = 64
"""Rows of a prompt in a step, about: more are no faster, and how many threads are best is known
after fewer prompts."""
EVERY_STEP = 4
"""So many rows take about as long as what a step takes with however few: 4 rows 1.6 times a row."""
STEPS = 8
"""That a text which is alone goes on for at a time, at most: it is cancelled between two times, and
another text joins it."""
SOON = 0.008
"""Seconds that they may take."""


@dataclass(frozen=True)
class Row:
    """One token to read."""

    token: int
    slot: int
    """Of its text."""
    position: int
    """In the part of its text that the model sees."""


@dataclass(frozen=True)
class Going:
    """How a text that is alone goes on after its last token."""

    ids: Sequence[int]
    """The end of it, which is looked through for guesses."""
    guesses: int
    """At once, at most."""
    past: np.ndarray
    """Of the guesses, see `ptx.lookup`; changed."""
    sampling: Sampling
    """Without a repetition penalty, forced tokens and `python`."""
    eot: int
    """After it nothing comes."""
    shares: Sequence[float]
    """A random number for each token that may come, at most."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """The tokens that came, and what is told of each."""

    tokens: list[int]
    logprobs: list[float]
    """Natural logarithms of the probabilities they were drawn with."""
    logits: np.ndarray
    """fp32 (tokens, V), what each was drawn from."""
    attention: list[np.ndarray] | None
    """(L, H, S) each, of the token before it."""


class Decoder:
    """A model with the keys and values of up to `slots` texts.

    On a CPU a step is one compiled function (`ptx.native`) where numba is installed, and torch's
    operations otherwise, as on a GPU; both compute the same within rounding. The weights must stay
    as they are. Not for use by several threads at once.
    """

    def __init__(self, model: GPT, slots: int = 1, native: bool | None = None) -> None:
        """native: whether to take the compiled step; left out, if that needs no waiting now."""
        if slots < 1:
            raise UserError(f"slots must be at least 1, not {slots}")
        self.model, self.slots = model, slots
        self.free: dict[int, list[int]] = {slot: [] for slot in range(slots)}
        """Slots that no batch uses, the longest unused first, and the text that each still holds:
        the tokens at its positions from 0 on."""
        self.cache = KVCache(model, slots)
        self._sources, self._same = np.arange(slots), np.zeros(slots, np.int64)
        """Of each slot: another, and how many of its first positions were copied from there, and
        are still the same."""
        self.device = model.tok_emb.weight.device
        self._native: _Native | None = None
        self._read_by: list[_Native | None] = [None] * slots
        """What read the beginning of the text in each slot: torch's operations round otherwise."""
        if native is not False:
            self.compile(if_found=native is None)
        options = [usual_threads(), 1]
        self._threads = defaultdict[Any, Fastest](lambda: Fastest(options))
        """torch's, for few rows and for many, with or without logits and attention."""

    def take(self, ids: Sequence[int]) -> tuple[int, int]:
        """A free slot for a text, and how many tokens of its beginning are there: the slot with
        most, if that is half of the text or more, so that no other text is lost for little;
        otherwise the longest unused. ValueError if none is free."""
        if not self.free:
            raise ValueError("no slot is free")
        found = self._found(self.free, ids)
        slot = max(found, key=lambda slot: found[slot] if 2 * found[slot] >= len(ids) else 0)
        del self.free[slot]
        self.forget(slot, found[slot])
        return slot, found[slot]

    def forget(self, slot: int, kept: int) -> None:
        """From position `kept` on a slot is to hold another text."""
        self._same[slot] = min(self._same[slot], kept)
        followers = self._sources == slot
        self._same[followers] = np.minimum(self._same[followers], kept)

    def _found(self, held: dict[int, list[int]], ids: Sequence[int]) -> dict[int, int]:
        """How much of a text's beginning each slot holds, as it would be read now."""
        return {
            slot: shared(text, ids) if self._read_by[slot] is self._native else 0
            for slot, text in held.items()
        }

    @torch.inference_mode()
    def copy(self, slot: int, ids: Sequence[int], read: int, held: dict[int, list[int]]) -> int:
        """How many positions a slot holds of a text, of which `read` were read: more than these if
        another slot has a longer beginning of it, which is copied then.

        held: the tokens at the positions of other slots, from 0 on.
        """
        found = self._found({other: held[other] for other in held if other != slot}, ids)
        source = max(found, key=found.__getitem__, default=slot)
        n = found.get(source, 0)
        if n < read + WORTH_COPYING:
            return read
        for memory in (self.cache.k, self.cache.v):
            memory[:, :, slot, :n] = memory[:, :, source, :n]
        self._read_by[slot] = self._read_by[source]
        first = self._sources[source] if self._same[source] >= n else source
        self._sources[slot], self._same[slot] = first, n
        return n

    def give_back(self, slot: int, ids: Sequence[int]) -> None:
        """Frees a slot, whose positions hold these tokens."""
        self.free[slot] = list(ids)

    @property
    def compiled(self) -> bool:
        """Whether steps are the compiled function's by now, and `ptx.draws` is at hand."""
        return self._native is not None

    def can_compile(self) -> bool:
        """Whether there is a compiled step for this model's device and precision, and numba."""
        return (
            self.device.type == "cpu"
            and self.cache.k.dtype == torch.float32
            and importlib.util.find_spec("numba") is not None
        )

    def compile(self, if_found: bool = False, apart: bool = False) -> None:
        """Makes the steps to come compiled ones, where that can be; the very first time takes
        half a minute, or longer beside other work, and later ones a fraction of a second. From any
        thread.

        if_found: only if that was done before on such a machine, and kept.
        apart: by another process, where there can be one, as this one has other things to do
            meanwhile.
        """
        if self._native or not self.can_compile():
            return
        try:
            made = _Native(self.model, self.cache, self._sources, self._same)
            ready = made.ready()
            if if_found and not ready:
                return
            if apart and not ready:
                made.compile_apart()
            made.try_out()
        except Exception as error:  # whatever numba or LLVM raise, torch's operations work
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            warnings.warn(
                f"the decoder is not compiled here and slower ({reason}): if numba kept something "
                "damaged, delete the folder __pycache__ of ptx",
                stacklevel=2,
            )
            return
        self._native = made

    def read(self, slot: int, ids: Sequence[int], start: int) -> None:
        """Reads `ids` at positions from `start` on, for what comes after them."""
        native = self._native
        if start == 0:
            self._read_by[slot] = native
        if native:
            native.read(slot, ids, start)
            return
        self._read_by_torch(slot, ids, start)

    @torch.inference_mode()
    def _read_by_torch(self, slot: int, ids: Sequence[int], start: int) -> None:
        tokens = torch.tensor([ids], device=self.device)  # (1, T)
        with self._fastest_threads(len(ids), logits=False):
            self.model.hidden(tokens, self.cache.row(slot, start))

    def step(
        self, rows: Sequence[Row], attention: bool = False, unasked: int = 0
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """Reads a token a row; rows of one text stand together, in the order of their positions.

        Returns the logits (N, V) of what follows each, fp32 on the CPU, and on request each row's
        attention weights (L, H, position + 1): of all but the first `unasked` rows, which are read
        only for those after them.
        """
        native = self._native
        for r in rows:
            if r.position == 0:
                self._read_by[r.slot] = native
        if native:
            return native.step(rows, attention, unasked)
        return self._step_by_torch(rows, attention, unasked)

    @property
    def steps_onward(self) -> int:
        """For how many steps `go_on` goes on; 0 if it cannot."""
        return self._native.steps_onward() if self._native else 0

    def go_on(self, slot: int, position: int, going: Going, attention: bool = False) -> Drawn:
        """Reads the last token of a text, whose position this is, and goes on by itself with what
        is drawn: at most `steps_onward` steps, as many tokens as `going` has shares, and the
        context. None came if the model's logits are no numbers."""
        native = self._native
        assert native
        if position == 0:
            self._read_by[slot] = native
        return native.go_on(slot, position, going, attention)

    @torch.inference_mode()
    def _step_by_torch(
        self, rows: Sequence[Row], attention: bool, unasked: int
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        cache = _Rows(self.cache, rows)
        record: list[Tensor] | None = [] if attention else None
        ids = torch.tensor([[r.token for r in rows]], device=self.device)  # (1, R)
        mostly_asked = 2 * unasked < len(rows)
        with self._fastest_threads(len(rows), mostly_asked, attention):
            hidden = self.model.hidden(ids, cache, record)  # (1, R, C)
            logits = self.model.head(hidden[:, unasked:])[0].float().cpu().numpy()  # (N, V)
        if record is None:
            return logits, None
        weights = torch.cat(record).transpose(1, 2)[:, unasked:]  # (L, N, H, slots * S)
        weights = weights.unflatten(-1, (-1, cache.seen)).float().cpu()  # (L, N, H, slots, S)
        return logits, [
            weights[:, i, :, r.slot - cache.first, : r.position + 1].clone().numpy()
            for i, r in enumerate(rows[unasked:])
        ]

    @contextmanager
    def _fastest_threads(
        self, rows: int, logits: bool = True, attention: bool = False
    ) -> Iterator[None]:
        """torch's operations on as many threads of a CPU as are fastest now for such a step."""
        if self.device.type != "cpu":
            yield
            return
        fastest = self._threads[rows >= MANY, logits, attention]
        threads, began = fastest.pick(), time.perf_counter()
        with torch_threads(threads):
            yield
        fastest.note(threads, (time.perf_counter() - began) / (rows + EVERY_STEP))


class _Rows(KVCache):
    """Rows of several texts as one sequence: the slots from the first to the last of them are one
    memory, and a mask says whose positions each row may see."""

    def __init__(self, cache: KVCache, rows: Sequence[Row]) -> None:
        self.first, last = min(r.slot for r in rows), max(r.slot for r in rows)
        self.k, self.v = (m[:, :, self.first : last + 1] for m in (cache.k, cache.v))
        device = self.k.device
        self._slots = torch.tensor([r.slot - self.first for r in rows], device=device)  # (R,)
        self._positions = torch.tensor([r.position for r in rows], device=device)  # (R,)
        reached, context = max(r.position for r in rows) + 1, self.k.shape[3]
        # Of several slots a part is a copy, which costs more than it saves if it is large.
        self.seen = context if last > self.first and 2 * reached > context else reached
        """S, the positions of each slot that are read."""
        self.length = reached - len(rows)  # so that R more end there
        mine = self._slots[:, None, None] == torch.arange(self.k.shape[2], device=device)[:, None]
        past = self._positions[:, None, None] >= torch.arange(self.seen, device=device)
        self._mask = (mine & past).flatten(1)  # (R, slots * S)

    def positions(self, t: int) -> Tensor:
        return self._positions

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (1, K, R, D); returns what all slots hold, (1, K, slots * S, D)."""
        seen = []
        for memory, new in ((self.k[layer], k), (self.v[layer], v)):
            memory[:, self._slots, self._positions] = new[0]
            seen.append(memory[:, :, : self.seen].flatten(1, 2)[None])
        return seen[0], seen[1]

    def mask(self, t: int) -> Tensor:
        return self._mask


class _Native:
    """Steps by the compiled function, which threads share where that is faster."""

    def __init__(self, model: GPT, cache: KVCache, sources: np.ndarray, same: np.ndarray) -> None:
        from ptx import compiling, native, onward, team  # numba takes half a second to import

        self._native, self._onward, self._compiling = native, onward, compiling
        self._weights = native.pack(model)
        self._cache = native.Cache(cache.k.numpy(), cache.v.numpy())
        self._sources, self._same = sources, same
        self._config = c = model.config
        self._no_weights = np.empty((0, c.n_layer, c.n_head, c.context), np.float32)
        most = min(usual_threads(), MOST_THREADS)
        self._helpers = team.Helpers(most - 1)
        options = [most >> i for i in range(most.bit_length())]  # most, half of it, ... 1
        self._threads = defaultdict[Any, Fastest](lambda: Fastest(options))
        """For steps of few rows and of many, with or without logits and attention of most."""
        self._step_seconds = 0.0
        """What the last one of a text that is alone took."""

    def ready(self) -> bool:
        """Whether nothing needs compiling any more."""
        return self._compiling.ready(self._weights)

    def compile_apart(self) -> None:
        """Waits until another process has compiled."""
        self._compiling.compile_apart(self._weights)

    def try_out(self) -> None:
        """Compiles, or finds what was compiled before."""
        self._compiling.try_out(self._weights)

    def read(self, slot: int, ids: Sequence[int], start: int) -> None:
        tokens = np.array(ids)  # (T,)
        positions = np.arange(start, start + len(ids))
        nothing = np.empty((0, self._config.vocab_size), np.float32)
        # no row is left over that a tile, or a group that looks together, could take
        whole = math.lcm(self._native.MOST_ROWS, self._native.TOGETHER)
        parts = max(1, round(len(ids) / AT_ONCE))
        size = whole * max(1, math.ceil(len(ids) / parts / whole))
        for i in range(0, len(ids), size):
            some, where = tokens[i : i + size], positions[i : i + size]
            self._run(some, np.full_like(some, slot), where, self._no_weights, nothing)

    def step(
        self, rows: Sequence[Row], attention: bool, unasked: int
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        c, asked = self._config, rows[unasked:]
        tokens, slots, positions = np.array(
            [[r.token for r in rows], [r.slot for r in rows], [r.position for r in rows]]
        )  # each (R,)
        logits = np.empty((len(asked), c.vocab_size), np.float32)
        weights = self._no_weights
        if attention:
            S = max(r.position for r in rows) + 1
            weights = np.empty((len(asked), c.n_layer, c.n_head, S), np.float32)
        self._run(tokens, slots, positions, weights, logits)
        if not attention:
            return logits, None
        seen = [weights[i, :, :, : r.position + 1] for i, r in enumerate(asked)]
        if any(r.slot != rows[0].slot for r in rows):  # what is kept of one keeps none of others
            seen = [some.copy() for some in seen]
        return logits, seen

    def steps_onward(self) -> int:
        return min(STEPS, max(1, int(SOON / (self._step_seconds or SOON))))

    def go_on(self, slot: int, position: int, going: Going, attention: bool) -> Drawn:
        c, g, room = self._config, going, len(going.shares)
        if max(g.sampling.banned, default=0) >= c.vocab_size:
            raise IndexError(f"a banned token is not in 0 to {c.vocab_size - 1}")
        where = g.ids, position, g.guesses, g.past
        drawing = g.sampling, g.eot, g.shares
        steps = self.steps_onward()
        onward = self._onward.onward(steps, *where, *drawing)
        logits = np.empty((room, c.vocab_size), np.float32)
        weights = self._no_weights
        if attention:
            S = min(position + room, c.context)
            weights = np.empty((room, c.n_layer, c.n_head, S), np.float32)
        tokens, slots, positions = np.array([[g.ids[-1]], [slot], [position]]).repeat(
            steps * (1 + g.guesses), axis=1
        )  # each (steps * R,): no step writes where one before it might still be read
        began = time.perf_counter()
        self._run(tokens, slots, positions, weights, logits, onward)
        drawn, rows = onward.plan
        n, n_steps = int(drawn.max()), int(np.count_nonzero(rows))
        self._step_seconds = (time.perf_counter() - began) / n_steps
        return Drawn(
            onward.text[onward.n : onward.n + n].tolist(),
            list(map(math.log, onward.chances[:n])),  # numpy's differ in the last bit
            logits[:n],
            [weights[i, :, :, : position + i + 1] for i in range(n)] if attention else None,
        )

    def _run(
        self,
        tokens: Any,
        slots: Any,
        positions: Any,
        weights: Any,
        logits: Any,
        onward: Any = None,
    ) -> None:
        """onward: how a text goes on, if it does; the other rows are room then."""
        alone, onward = onward is not None, onward or self._onward.NOWHERE
        R = len(tokens) // max(1, onward.steps)
        rows = self._native.Rows(tokens, slots, positions, self._sources[slots], self._same[slots])
        mostly_asked = alone or 2 * len(logits) > R
        fastest = self._threads[R >= MANY, mostly_asked, mostly_asked and len(weights) > 0]
        threads, began = fastest.pick(), time.perf_counter()
        self._helpers.run(
            self._native.step,
            self._native.team_of(threads, self._weights, onward),
            *(self._weights, rows, self._cache, weights, logits),
            *self._native.scratch(self._weights, R, threads, self._config.context),
            onward,
        )
        steps, read = (np.count_nonzero(onward.plan[1]), onward.plan[1].sum()) if alone else (1, R)
        fastest.note(threads, (time.perf_counter() - began) / (read + EVERY_STEP * steps))


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """With how many of the same tokens two texts begin."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


_asking = threading.Lock()
_usual = 0


def usual_threads() -> int:
    """torch's number of threads when this, or `torch_threads`, was first called. Later it may be
    another thread's setting: a new thread begins with what one in `torch_threads` left for now."""
    global _usual
    with _asking:
        _usual = _usual or torch.get_num_threads()
        return _usual


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """torch's operations on so many threads of a CPU; not within itself."""
    usual = usual_threads()
    if n != torch.get_num_threads():
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if usual != torch.get_num_threads():
            torch.set_num_threads(usual)
