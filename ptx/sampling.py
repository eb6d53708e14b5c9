"""The exact distribution of the next token, and the draw from it.

One order, transformers' own: repetition penalty, forced tokens, banned tokens, temperature, top-k,
top-p, min-p. What a knob cuts has probability zero for those after it; what stays is renormalized
over the full vocabulary. Tokens exactly as likely as the last one kept are kept too.

With `python`, a text that can become Python stays so: a token that was drawn, but with which it
could not, is banned with all that begin like it, and another one drawn by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ptx.errors import UserError

KNOBS = ("prompt", "forced", "banned", "python", "temperature", "top_k", "top_p", "min_p")
"""What can remove a token, in order: a prompt's open end does not go on with every token, and a
temperature of 0 leaves one."""
GREEDY = 1e-30
"""Temperature below which fp32 cannot tell it from 0."""
LEAST_PENALTY = 0.01
"""Logits divided by less may be too large for fp32."""
AT_ONCE = 64
"""Random numbers that are made at a time."""
CUT = float("-inf")
NO_NUMBERS = "the model's logits are no numbers: its weights are damaged, or too large"


@dataclass(frozen=True)
class Sampling:
    """How to turn logits into the next token."""

    temperature: float = 0.8
    """Below 1 sharpens, above 1 flattens, 0 always takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens that holds this much probability; 1 keeps all."""
    min_p: float = 0.0
    """Keep only tokens at least this share as likely as the most likely one; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that the text already has less likely (CTRL, Keskar et al., 2019)."""
    banned: tuple[int, ...] = ()
    """Tokens that may not come."""
    forced: tuple[int, ...] = ()
    """Only these tokens may come; empty allows all."""
    python: bool = False
    """Draw again where Python's parser would give up."""

    def __post_init__(self) -> None:
        for name in ("banned", "forced"):  # of any sequence
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 0.0 <= self.temperature <= 100.0:
            raise UserError(f"temperature must lie between 0 and 100, not {self.temperature}")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise UserError(f"top-k must be a whole number, 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top-p must lie in (0, 1], not {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise UserError(f"min-p must lie in [0, 1], not {self.min_p}")
        if not LEAST_PENALTY <= self.repetition_penalty <= 100.0:
            raise UserError(
                f"the repetition penalty must lie between {LEAST_PENALTY} and 100, not "
                f"{self.repetition_penalty}"
            )
        if not isinstance(self.python, bool):
            raise UserError(f"python must be on or off, not {self.python!r}")
        if self.forced and set(self.forced) <= set(self.banned):
            raise UserError("every forced token is banned: nothing could come next")

    def check(self, n_vocab: int) -> None:
        """Raises UserError for tokens that a vocabulary of this size does not have."""
        for name in ("banned", "forced"):
            for token in getattr(self, name):
                if not 0 <= token < n_vocab:
                    raise UserError(f"{name} token {token} is not in 0 to {n_vocab - 1}")
        if len(set(self.banned)) >= n_vocab:
            raise UserError("every token is banned: nothing could come next")

    @property
    def names_tokens(self) -> bool:
        """Whether it looks at which token one is, not only at how likely."""
        return self.repetition_penalty != 1.0 or bool(self.banned or self.forced)


USUAL = Sampling(temperature=0.6, top_p=0.95)
"""What the page, the command line and training begin with: the shipped model repeats itself
more below it, and makes more mistakes above (train/ABLATIONS.md)."""


def distribution(
    logits: Tensor, sampling: Sampling, ids: Sequence[int] = (), dead: Sequence[int] = ()
) -> Tensor:
    """Probabilities (..., V), fp32, of the next token after the knobs.

    logits: (..., V). ids: the text so far, for the repetition penalty. dead: tokens with which
    the text could not become Python.
    """
    *_, (_, processed) = _stages(logits.float(), sampling, ids, dead)
    return _probabilities(processed)


def _probabilities(logits: Tensor) -> Tensor:
    """(..., V) fp32. Summed in fp64: in fp32 200,019 are 1.5e-5 of each off on some CPUs."""
    return logits.double().softmax(-1).float()


def _stages(
    logits: Tensor, sampling: Sampling, ids: Sequence[int], dead: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """The logits (..., V) after each knob that is on; a removed token has -inf."""
    for knob, changed in _allowed(logits, sampling, ids, dead):
        yield knob, changed
        logits = changed
    yield from _shaped(logits, sampling)


def _allowed(
    logits: Tensor, sampling: Sampling, ids: Sequence[int], dead: Sequence[int]
) -> Iterator[tuple[str, Tensor]]:
    """The knobs that look at which token it is."""
    s = sampling
    if s.repetition_penalty != 1.0 and len(ids):
        seen = torch.tensor(sorted(set(ids)), device=logits.device)
        some = logits[..., seen]
        some = torch.where(some < 0, some * s.repetition_penalty, some / s.repetition_penalty)
        logits = logits.index_copy(-1, seen, some)
        yield "repetition_penalty", logits
    if s.forced:
        allowed = torch.tensor(s.forced, device=logits.device)
        logits = torch.full_like(logits, CUT).index_copy_(-1, allowed, logits[..., allowed])
        yield "forced", logits
    if s.banned:
        logits = logits.index_fill(-1, torch.tensor(s.banned, device=logits.device), CUT)
        yield "banned", logits
    if dead:
        logits = logits.index_fill(-1, torch.tensor(dead, device=logits.device), CUT)
        yield "python", logits


def _shaped(logits: Tensor, sampling: Sampling) -> Iterator[tuple[str, Tensor]]:
    """The knobs that look at how likely it is."""
    s = sampling
    if s.temperature < GREEDY:
        best = logits.argmax(-1, keepdim=True)
        yield "temperature", torch.full_like(logits, CUT).scatter_(-1, best, 0.0)
        return
    # The largest becomes 0, so that a small temperature does not overflow.
    logits = (logits - logits.amax(-1, keepdim=True)) / s.temperature
    yield "temperature", logits
    if 0 < s.top_k < logits.shape[-1]:
        kth = logits.topk(s.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, CUT)
        yield "top_k", logits
    if s.top_p < 1.0:
        logits = _within_top_p(logits, s.top_p)
        yield "top_p", logits
    if s.min_p > 0.0:
        probs = logits.softmax(-1)
        logits = logits.masked_fill(probs < s.min_p * probs.amax(-1, keepdim=True), CUT)
        yield "min_p", logits


def _within_top_p(logits: Tensor, top_p: float) -> Tensor:
    """(..., V), of which those stay that are needed to reach `top_p`.

    As transformers has it: a token goes if it and all that are less likely sum to 1 - top_p or
    less; the most likely one stays.
    """
    V = logits.shape[-1]
    rows = logits.cpu().numpy().reshape(-1, V)  # (R, V)
    left = np.full_like(rows, CUT)  # a masked_fill takes longer than all else here
    for row, changed in zip(rows, left, strict=True):
        kept = _nucleus(_softmax(row), top_p)
        changed[kept] = row[kept]
    return torch.from_numpy(left).to(logits).reshape(logits.shape)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (V,) of logits whose largest is 0."""
    weights = np.exp(logits)
    weights /= weights.sum()
    return weights


def _nucleus(probs: np.ndarray, top_p: float) -> np.ndarray:
    """The tokens of (V,) that stay. Only those are sorted that could: tokens no more likely than an
    equal share of 1 - top_p go, as together they hold no more than that."""
    equal_share = (1.0 - top_p) / len(probs)
    for least in (20 * equal_share, equal_share):  # the few of the first are nearly always enough
        tokens = np.flatnonzero(probs > least)
        ascending = np.sort(probs[tokens])
        sums = ascending.cumsum(dtype=np.float64)
        gone = 1.0 - sums[-1] if len(sums) else 1.0
        if gone <= 1.0 - top_p:
            break
    if not len(tokens):
        return np.flatnonzero(probs == probs.max())
    cut = min(np.searchsorted(gone + sums, 1.0 - top_p, side="right"), len(sums) - 1)
    return tokens[probs[tokens] >= ascending[cut]]


def drawn(
    logits: np.ndarray | Tensor,
    sampling: Sampling,
    shares: Iterable[float],
    ids: Sequence[int] = (),
    dead: Sequence[int] = (),
    compiled: bool = False,
) -> list[tuple[int, float]]:
    """A token for each row of fp32 (R, V), drawn from its distribution after the knobs, and the
    natural logarithm of its probability there.

    shares: a uniform number from [0, 1) for each row, not asked for at temperature 0; a row's draw
        depends on no other row.
    compiled: by one function (`ptx.draws`), which rounds otherwise, in a fraction of the time.
    """
    rows = _in_numpy(logits)
    if sampling.names_tokens or dead:
        given = torch.from_numpy(rows)
        *_, allowed = given, *(changed for _, changed in _allowed(given, sampling, ids, dead))
        rows = allowed.numpy()
    if sampling.temperature < GREEDY:
        best = rows.argmax(-1).tolist()  # torch's takes ten times as long
        if not all(math.isfinite(row[token]) for row, token in zip(rows, best, strict=True)):
            raise UserError(NO_NUMBERS)
        return [(token, 0.0) for token in best]
    if compiled:
        return _drawn_at_once(rows, sampling, list(shares))
    *_, (_, processed) = _shaped(torch.from_numpy(rows), sampling)
    rows = (_possible(row) for row in processed.numpy())
    return [_drawn_from(*row, share) for row, share in zip(rows, shares, strict=True)]


def _in_numpy(logits: np.ndarray | Tensor) -> np.ndarray:
    return logits if isinstance(logits, np.ndarray) else logits.float().cpu().numpy()


def _drawn_at_once(
    logits: np.ndarray, sampling: Sampling, shares: list[float]
) -> list[tuple[int, float]]:
    from ptx import draws  # numba takes half a second to import

    s = sampling
    top_k = int(min(s.top_k, logits.shape[-1]))
    tokens, chances = draws.draw_rows(logits, s.temperature, top_k, s.top_p, s.min_p, shares)
    if min(tokens) < 0:
        raise UserError(NO_NUMBERS)
    return list(zip(tokens, map(math.log, chances), strict=True))


def _possible(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of (V,) that may come, and their weights."""
    tokens = np.flatnonzero(logits > CUT)
    if not len(tokens) or not math.isfinite(logits.max()):
        raise UserError(NO_NUMBERS)
    left = logits if len(tokens) == len(logits) else logits[tokens]
    return tokens, np.exp(left - left.max())


def _drawn_from(tokens: np.ndarray, weights: np.ndarray, share: float) -> tuple[int, float]:
    cumulative = torch.from_numpy(weights).double().cumsum(0).numpy()  # thrice as fast as numpy's
    i = _where(cumulative, share)
    chance = cumulative[i] - (cumulative[i - 1] if i else 0.0)
    return int(tokens[i]), math.log(chance / cumulative[-1])


def shares(seed: int) -> Iterator[float]:
    """Uniform numbers from [0, 1), one for each draw: the same seed draws the same tokens, whatever
    else is drawn around them."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.rand(AT_ONCE, generator=generator, dtype=torch.float64).tolist()


def at(probs: Tensor, share: float) -> int:
    """The token id where the cumulative probability of (V,) passes `share` in [0, 1)."""
    return _where(probs.double().cumsum(-1).cpu().numpy(), share)


def _where(cumulative: np.ndarray, share: float) -> int:
    """The index where (V,) passes this share of its end."""
    index = np.searchsorted(cumulative, share * cumulative[-1], side="right")
    # Rounding must not lead past the last token that has any probability.
    return int(min(index, np.searchsorted(cumulative, cumulative[-1])))


@dataclass(frozen=True)
class Alternative:
    """One token that could have come."""

    token: int
    raw: float
    """Probability before the knobs."""
    final: float
    """Probability after them."""
    cut_by: str | None
    """The knob that removed it."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Everything about one choice of a token, worked out when it is asked for."""

    given: np.ndarray | Tensor
    """Logits (V,), as the model gave them; a step's are numpy's."""
    sampling: Sampling
    ids: Sequence[int] = ()
    """The text before."""
    refused: tuple[int, ...] = ()
    """Tokens drawn before the one that came, but with which the text could not become Python."""
    dead: tuple[int, ...] = ()
    """They, and those that begin with the characters that were too much: none may come."""
    compiled: bool = False
    """Whether `ptx.draws` is at hand, which takes a fraction of the time."""

    @cached_property
    def logits(self) -> Tensor:
        """The same in torch."""
        return torch.as_tensor(self.given)

    @cached_property
    def raw(self) -> Tensor:
        """Probabilities (V,) of the model alone."""
        return _probabilities(self.logits)

    @cached_property
    def final(self) -> Tensor:
        """Probabilities (V,) after the knobs: what is drawn from."""
        return distribution(self.logits, self.sampling, self.ids, self.dead)

    @cached_property
    def cut(self) -> Tensor:
        """uint8 (V,): 0 for a token that may come, otherwise 1 + the index in KNOBS of the knob
        that removed it."""
        cut = (self.logits == CUT).to(torch.uint8) * (1 + KNOBS.index("prompt"))
        for knob, logits in _stages(self.logits.float(), self.sampling, self.ids, self.dead):
            gone = (logits == CUT) & (cut == 0)
            if knob in KNOBS:
                cut[gone] = 1 + KNOBS.index(knob)
        return cut

    @property
    def entropy(self) -> float:
        """Bits, before the knobs."""
        return _entropy(self.raw)

    @property
    def final_entropy(self) -> float:
        """Bits, after the knobs."""
        return _entropy(self.final)

    @property
    def tail_mass(self) -> float:
        """The probability that the model gave to the tokens that the knobs removed."""
        return float(self.raw[self.cut > 0].double().sum())

    def logprob(self, token: int) -> float:
        """Natural logarithm of a token's probability, before the knobs."""
        if self.compiled:
            from ptx import draws  # numba takes half a second to import

            return draws.logprob(_in_numpy(self.given), token)
        return float(self.logits.double().log_softmax(-1)[token])

    def rank(self, token: int) -> int:
        """1 for the token that the model finds most likely."""
        return 1 + int((self.logits > self.logits[token]).sum())

    def cut_by(self, token: int) -> str | None:
        """The knob that removed a token."""
        code = int(self.cut[token])
        return KNOBS[code - 1] if code else None

    def top(self, n: int = 10) -> list[Alternative]:
        """The n tokens that the model finds most likely, before and after the knobs."""
        tokens = self.logits.topk(min(n, len(self.logits))).indices.tolist()
        return [self.alternative(token) for token in tokens]

    def alternative(self, token: int) -> Alternative:
        """One token, before and after the knobs."""
        return Alternative(
            token, float(self.raw[token]), float(self.final[token]), self.cut_by(token)
        )


def possible(logits: Tensor, sampling: Sampling, dead: Sequence[int] = ()) -> bool:
    """Whether forced, banned and dead tokens leave any of (V,) that is possible at all."""
    *_, allowed = logits, *(changed for _, changed in _allowed(logits, sampling, (), dead))
    return bool((allowed > CUT).any())


def _entropy(probs: Tensor) -> float:
    """Bits of a distribution (V,)."""
    p = probs.double()
    return float(-torch.special.xlogy(p, p).sum() / math.log(2))
