"""Draws by the rules of `ptx.sampling`, as one compiled function.

numpy and torch need a dozen passes over the vocabulary, and Python's lock again after each; other
threads want that too. Here it is some five, and what is done with the few tokens that are likely
enough to stay; top-k takes more, over ever fewer. Tokens are as likely as each other here whose
weights are the same fp32 numbers.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ptx.compiled import at_hand, compiled, exp, float_of

_inner = partial(compiled, inner=True, allocates=False)
LEAST = np.float32(-87)
"""Logarithm below which a weight is nothing: fp32 has little beneath."""
SMALLEST = np.float32(1e-38)
"""Of the other weights."""
BLOCK = 128
"""Weights that are looked through at once."""
FEW = 32
"""Tokens in which what top-p removes is looked for first; then in so many times as many."""


@_inner
def _ordered(bits: int) -> int:
    """The 32 bits of a fp32 number as a whole number, ordered as those are; and the way back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_inner
def _largest(logits: np.ndarray) -> float:
    """Of (V,) numbers: whole ones are compared in a fifth of the time."""
    bits, largest = logits.view(np.int32), np.int32(-(2**31))
    for i in range(len(bits)):
        largest = np.int32(max(largest, _ordered(bits[i])))
    return float_of(_ordered(largest))


@_inner
def likeliest(logits: np.ndarray) -> int:
    """The first of the largest of (V,); -1 if they are no numbers."""
    largest, wrong = _largest(logits), np.float32(0)
    for x in logits:
        wrong += np.float32(x != x)
    if wrong or not np.isfinite(largest):
        return -1
    i = 0
    while logits[i] != largest:
        i += 1
    return i


@_inner
def _heavier(weights: np.ndarray, least: float, tokens: np.ndarray) -> int:
    """Writes which of (V,) weigh so much at least; returns how many do. Most blocks have none."""
    n, V = 0, len(weights)
    for start in range(0, V, BLOCK):
        end, some = min(V, start + BLOCK), np.float32(0)
        for i in range(start, end):
            some += np.float32(1) if weights[i] >= least else np.float32(0)
        if some > 0:
            for i in range(start, end):
                tokens[n] = i
                n += weights[i] >= least
    return n


@_inner
def _least_kept(some: np.ndarray, left: float, goes: float, counted: bool) -> float:
    """The smallest weight that stays where a token goes if it and all that weigh no more hold
    `goes` or less: of the weight, or of the tokens if they are counted.

    some: (n,), at most 1, which is changed. left: what those hold that are missing, and weigh less.
    """
    n = len(some)
    low, high = np.int32(0), np.int32(0x3F800000)  # 0 and 1 as bits, which are ordered as they are
    while low < high:
        middle = (low + high) // np.int32(2)
        most, held = float_of(middle), left
        for weight in some[:n]:
            one = np.float32(1) if counted else weight
            held += one if weight <= most else np.float32(0)
        too_much, asked, n = held > goes, some[:n], 0
        for weight in asked:  # on which side of it the smallest lies
            some[n] = weight
            n += (weight <= most) == too_much
        if too_much:
            high = middle
        else:
            low, left = middle + np.int32(1), held
    return float_of(low)


@_inner
def _sum(weights: np.ndarray, least: float) -> float:
    """Of those of (V,) that weigh so much at least, in fp64: many small ones get lost in fp32."""
    total = 0.0
    for i in range(len(weights)):
        total += weights[i] if weights[i] >= least else np.float32(0)
    return total


@partial(compiled, allocates=False)
def _weigh(logits: np.ndarray, temperature: float, weights: np.ndarray) -> float:
    """Writes the weights of (V,), of which the largest is 1; returns their sum, or NaN if the
    logits are no numbers."""
    largest = _largest(logits)
    wrong = np.float32(0)
    for i in range(len(logits)):
        x = (logits[i] - largest) / temperature
        weights[i] = exp(x) if x > LEAST else np.float32(0)
        wrong += np.float32(x != x)  # NaN; or infinity less infinity
    return np.nan if wrong else _sum(weights, np.float32(0))


@partial(compiled, allocates=False)
def _cut(
    weights: np.ndarray,
    total: float,
    top_k: int,
    top_p: float,
    min_p: float,
    some: np.ndarray,
    kept: np.ndarray,
) -> tuple[int, float]:
    """The smallest weight that stays; before it, how many tokens were written to kept (V,), all
    that weigh so much among them. some: (V,), to be written on."""
    V, least = len(weights), SMALLEST
    if 0 < top_k < V:
        for i in range(V):
            some[i] = weights[i]
        least = max(least, _least_kept(some, 0.0, V - top_k, True))
        total = _sum(weights, least)
    goes = (1.0 - top_p) * total
    little, few = np.float32(1), FEW  # all that weigh less hold no more than goes
    while few < V:
        little = min(np.float32(goes / few), np.float32(1))
        if total - _sum(weights, little) <= goes:
            break
        few *= FEW
    else:
        little = min(np.float32(goes / V), np.float32(1))
    n = _heavier(weights, max(least, min_p, little), kept)
    if top_p < 1.0:
        left = 0.0 + total
        for k in range(n):
            some[k] = weights[kept[k]]
            left -= some[k]
        least = max(least, _least_kept(some[:n], left, goes, False))
    return n, max(least, min_p)


@compiled
def draw(
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    shares: np.ndarray,
    tokens: np.ndarray,
    chances: np.ndarray,
):
    """A token for each row of logits (R, V) by its number in shares (R,), from 0 up to 1; writes
    tokens (R,), -1 where the logits are no numbers, and their probabilities after the knobs,
    chances (R,).

    temperature, min_p: fp32, the former more than 0.
    """
    R, V = logits.shape
    weights, some, kept = np.empty(V, np.float32), np.empty(V, np.float32), np.empty(V, np.int32)
    for r in range(R):
        tokens[r], chances[r] = -1, 1.0
        total = _weigh(logits[r], temperature, weights)
        if not np.isfinite(total):
            continue
        n, least = _cut(weights, total, top_k, top_p, min_p, some, kept)
        all_kept, passed = 0.0, 0.0
        for i in kept[:n]:
            all_kept += weights[i] if weights[i] >= least else np.float32(0)
        for i in kept[:n]:
            if weights[i] >= least:
                passed += weights[i]
                tokens[r], chances[r] = i, weights[i] / all_kept
                if passed > shares[r] * all_kept:
                    break


@compiled
def _logprob(logits: np.ndarray, token: int) -> float:
    total = _weigh(logits, np.float32(1), np.empty(len(logits), np.float32))
    return logits[token] - _largest(logits) - np.log(total)


def logprob(logits: np.ndarray, token: int) -> float:
    """Natural logarithm of a token's probability by logits fp32 (V,); IndexError for a token that
    is none of them."""
    if not 0 <= token < len(logits):
        raise IndexError(f"token {token} is not in 0 to {len(logits) - 1}")
    return _logprob(np.ascontiguousarray(logits), token)


def draw_rows(
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    shares: list[float],
) -> tuple[list[int], list[float]]:
    """`draw` of logits fp32 (R, V): the tokens and their probabilities."""
    R, knobs = len(logits), (np.float32(temperature), top_k, float(top_p), np.float32(min_p))
    tokens, chances = np.empty(R, np.int64), np.empty(R)
    draw(np.ascontiguousarray(logits), *knobs, np.array(shares), tokens, chances)
    return tokens.tolist(), chances.tolist()


def ready() -> bool:
    """Whether these functions need no compiling any more."""
    return at_hand(draw) and at_hand(_logprob)
