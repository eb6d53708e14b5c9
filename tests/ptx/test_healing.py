"""Boundary healing: against brute force on tiny vocabularies, and on the shipped tokenizer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ptx.healing import MAX_TAKEN_BACK, Candidates, Healer, OpenEnd
from ptx.sampling import Sampling
from ptx.stream import Limits, Stream
from ptx.tokenizer import Tokenizer, get_tokenizer, python_tokenizer

PY16K = get_tokenizer("py16k")
HEALER = Healer(PY16K)
ALPHABET = "ab )\n"

SNIPPET = '''\
def fibonacci(n, memo={}):
    """The n-th number, of 12345."""
    if n <= 1: return n   # don't
    \tfor key, value in (x for x in ((1, "é字🙂"), [2])):
        self.attn_weights[i] += func(key) * -value


class HTTPServer(object): pass\r
'''

pythonic = st.lists(
    st.sampled_from(["x", "ab", "return", "1", "23", " ", "  ", "\n", "\r\n", "\t", "(", "):", "é"])
    | st.text(max_size=3)
).map("".join)


@lru_cache(maxsize=8)
def tiny(seed: int) -> tuple[Tokenizer, Healer]:
    """A tokenizer with 24 random merges, under the pattern for Python; `b` merges only with `a`."""
    rng = random.Random(seed)
    ranks = {bytes([b]): b for b in range(256)}
    tokens = [char.encode() for char in ALPHABET]
    while len(tokens) < 24 + len(ALPHABET):
        left, right = rng.choice(tokens), rng.choice(tokens)
        # A `b` behind other characters stays one: there is a letter that any token may precede.
        if len(left + right) > 3 or left + right in ranks or b"b" in right:
            continue
        tokens.append(left + right)
        ranks[left + right] = len(ranks)
    tokenizer = python_tokenizer("tiny", ranks)
    return tokenizer, Healer(tokenizer)


def logits_after(ids: tuple[int, ...], n_vocab: int) -> Tensor:
    """(V,), any function of all tokens so far."""
    return 2 * torch.randn(n_vocab, generator=torch.Generator().manual_seed(hash(ids) % 2**62))


def rows(end: OpenEnd, n_vocab: int) -> Tensor:
    return torch.stack([logits_after((*end.kept, *node), n_vocab) for node in end.nodes])


def sequences(end: OpenEnd) -> list[tuple[int, ...]]:
    """Every candidate's tokens, from the start of the text."""
    pairs = zip(end.node.tolist(), end.token.tolist(), strict=True)
    return [(*end.kept, *end.nodes[node], token) for node, token in pairs]


def first_beyond(tokenizer: Tokenizer, ids: list[int], size: int) -> tuple[int, ...]:
    """`ids` up to the first token that reaches beyond `size` bytes."""
    ends = np.cumsum([len(tokenizer.token_bytes(i)) for i in ids])
    return tuple(ids[: int(np.searchsorted(ends, size, side="right")) + 1])


def by_brute_force(tokenizer: Tokenizer, prompt: str) -> dict[tuple[int, ...], float]:
    """The distribution of the tokens up to the first beyond the prompt: of all sequences with which
    the encoding of some text that begins with the prompt begins."""
    found = {(*tokenizer.encode(prompt), tokenizer.eot)}
    for length in range(1, 5):
        for more in product(ALPHABET, repeat=length):
            ids = tokenizer.encode(prompt + "".join(more))
            found.add(first_beyond(tokenizer, ids, len(prompt)))
    logprobs = {
        ids: sum(
            float(logits_after(ids[:j], tokenizer.n_vocab).log_softmax(-1)[ids[j]])
            for j in range(len(ids))
        )
        for ids in found
    }
    total = torch.tensor(list(logprobs.values()), dtype=torch.float64).logsumexp(0)
    return {ids: float(np.exp(logprob - float(total))) for ids, logprob in logprobs.items()}


def healed(tokenizer: Tokenizer, healer: Healer, prompt: str) -> dict[tuple[int, ...], float]:
    """The same from the candidates, of the texts in `ALPHABET`."""
    end = healer.open_end(prompt)
    candidates: Candidates = healer.candidates(rows(end, tokenizer.n_vocab), end)
    found = sequences(end)
    spelled = [set(tokenizer.token_bytes(ids[-1])) for ids in found]
    known = [i for i, some in enumerate(spelled) if some <= set(ALPHABET.encode())]
    assert len(set(found)) == len(found)
    probs = candidates.logprob[known].softmax(0)
    return {found[i]: float(p) for i, p in zip(known, probs, strict=True)}


@pytest.mark.parametrize("seed", range(4))
def test_the_first_token_beyond_the_prompt_is_distributed_as_in_whole_texts(seed: int) -> None:
    tokenizer, healer = tiny(seed)
    rng = random.Random(seed)
    prompts = ["", *ALPHABET, *("".join(p) for p in product(ALPHABET, repeat=2))]
    prompts += ["".join(rng.choices(ALPHABET, k=rng.randint(3, 7))) for _ in range(12)]
    for prompt in prompts:
        expected = by_brute_force(tokenizer, prompt)
        got = healed(tokenizer, healer, prompt)
        assert got.keys() == expected.keys(), prompt
        assert got == pytest.approx(expected, abs=1e-6), prompt


@pytest.mark.parametrize("prompt", ["ab", "a )"])
def test_draws_behind_an_open_end_follow_the_exact_distribution(prompt: str) -> None:
    """10,000 seeds, by a chi-square test; what is expected less than five times counts as one."""
    tokenizer, healer = tiny(1)
    end = healer.open_end(prompt)
    exact = healer.candidates(rows(end, tokenizer.n_vocab), end).logprob.softmax(0)
    place = {ids: i for i, ids in enumerate(sequences(end))}

    def after(stream: Stream, more: list[int]) -> Tensor:
        """What the model says after the stream's tokens and each of those more."""
        ids = [*stream.ids[1:], *more]
        first = len(stream.ids) - 1
        return torch.stack([logits(tuple(ids[:j])) for j in range(first, len(ids) + 1)])

    logits = lru_cache(maxsize=None)(lambda ids: logits_after(ids, tokenizer.n_vocab))
    drawn = []
    for seed in range(10_000):
        stream = Stream(tokenizer, 256, prompt, Sampling(1.0), Limits(2), seed, speculate=False)
        branches = [(after(stream, branch), None) for branch in stream.branches()]
        guesses = stream.guesses(0)
        stream.take(guesses, after(stream, guesses), None, branches)
        ids = (*stream.ids[1:], *([tokenizer.eot] if stream.finish == "end of text" else []))
        drawn.append(place[ids])
    counts = torch.bincount(torch.tensor(drawn), minlength=len(exact)).double()
    expected = exact * len(drawn)
    rare = expected < 5
    counts = torch.cat((counts[~rare], counts[rare].sum()[None]))
    expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(expected) - 1, dtype=torch.float64)
    assert torch.special.gammaincc(freedom / 2, chi_square / 2) > 1e-3


def test_some_continuations_need_tokens_that_are_not_the_prompts_own() -> None:
    end = HEALER.open_end("x = foo(a, ")
    spelled = {tuple(map(PY16K.token_bytes, node)) for node in end.nodes}
    assert [PY16K.token_bytes(i) for i in end.path] == [b",", b" "]
    assert (b", ",) in spelled


@pytest.mark.parametrize("end", range(len(SNIPPET)))
def test_the_real_continuation_is_a_candidate_wherever_the_prompt_ends(end: int) -> None:
    prompt = SNIPPET[:end]
    true = first_beyond(PY16K, PY16K.encode(SNIPPET), len(prompt.encode()))
    assert true in sequences(HEALER.open_end(prompt))


@pytest.mark.parametrize("end", range(0, len(SNIPPET), 7))
def test_every_candidate_begins_the_encoding_of_some_text(end: int) -> None:
    prompt = SNIPPET[:end]
    found = sequences(HEALER.open_end(prompt))
    for ids in random.Random(end).sample(found, min(150, len(found))):
        if ids[-1] == PY16K.eot:
            assert list(ids[:-1]) == PY16K.encode(prompt)
            continue
        text = PY16K.decode(ids)
        # A letter that merges with nothing before it, and what ends a piece of each kind.
        more = ["", "\u07d0", " ", "\n", "1", "(", "s", "x"]
        tails = [tail.encode() for tail in more]
        tails += [bytes(tail) for n in (1, 2) for tail in product((0x80, 0x9F, 0xBF), repeat=n)]
        assert any(tuple(PY16K.encode(text + tail)[: len(ids)]) == ids for tail in tails), text


@settings(deadline=None, max_examples=80)
@given(prompt=pythonic, more=pythonic)
def test_what_is_kept_stays_whatever_follows(prompt: str, more: str) -> None:
    end = HEALER.open_end(prompt)
    size = len(prompt.encode("utf-8", "surrogatepass"))
    assert [*end.kept, *end.path] == PY16K.encode(prompt)
    if more:
        true = first_beyond(PY16K, PY16K.encode(prompt + more), size)
        assert true in sequences(end)


@pytest.mark.parametrize(
    "text", ["", "# " + "=" * 500, ")" + "\n" * 5000, " " * 3000, "x\ud800", "\udcff"]
)
def test_what_is_taken_back_is_bounded_and_something_always_follows(text: str) -> None:
    end = HEALER.open_end(text)
    assert [*end.kept, *end.path] == PY16K.encode(text)
    assert len(PY16K.decode(end.path)) <= MAX_TAKEN_BACK
    assert PY16K.eot in end.token[end.node == len(end.path)]
    assert len(end.token) > 1000


@pytest.mark.parametrize("text", ["fibona", "def f(n):", "for i in ra", "x = foo(a, ", ""])
def test_the_leaves_pass_through_every_node_with_the_path_first(text: str) -> None:
    end = HEALER.open_end(text)
    leaves = end.leaves()
    assert leaves[0] == (tuple(end.path), list(range(len(end.path) + 1)))
    for leaf, numbers in leaves:
        assert [end.nodes[j] for j in numbers] == [leaf[:j] for j in range(len(leaf) + 1)]
    assert {j for _, numbers in leaves for j in numbers} == set(range(len(end.nodes)))


@settings(deadline=None, max_examples=60)
@given(token=st.integers(0, 16_382), seed=st.integers(0, 2**32))
def test_neighbours_are_the_tokens_that_merging_their_joined_bytes_gives_back(
    token: int, seed: int
) -> None:
    mask = HEALER._neighbours(token)
    for other in np.random.default_rng(seed).integers(0, 16_383, 200).tolist():
        joined = PY16K.token_bytes(token) + PY16K.token_bytes(other)
        assert mask[other] == (PY16K.merge(joined) == [token, other])


def test_a_colon_can_be_merged_with_the_newline_and_indentation_after_it() -> None:
    end = HEALER.open_end("def f(n):")
    assert b"):\n    " in {PY16K.token_bytes(i) for i in end.token[end.node == 0].tolist()}


def test_rows_that_do_not_fit_the_nodes_are_refused() -> None:
    end = HEALER.open_end("fibona")
    with pytest.raises(ValueError, match="rows of logits"):
        HEALER.candidates(torch.zeros(len(end.nodes) + 1, PY16K.n_vocab), end)


# --- o200k_base, whose pattern knows contractions

CONTRACTIONS = (
    "# don't we'LL they've o'clock 'Tis I'd x'y d'accord \"it's\" ''s\nname = 'dest' + s\n"
)


@pytest.fixture(scope="module")
def original(o200k: Tokenizer) -> Healer:
    return Healer(o200k)


@pytest.mark.parametrize("end", range(0, len(CONTRACTIONS), 3))
def test_the_originals_tokenizer_is_healed_too(original: Healer, end: int) -> None:
    tokenizer, prompt = original.tokenizer, CONTRACTIONS[:end]
    opened = original.open_end(prompt)
    assert [*opened.kept, *opened.path] == tokenizer.encode(prompt)
    true = first_beyond(tokenizer, tokenizer.encode(CONTRACTIONS), len(prompt.encode()))
    assert true in sequences(opened)


def test_every_candidate_of_the_originals_tokenizer_is_canonical(original: Healer) -> None:
    tokenizer = original.tokenizer
    for prompt in ("# don'", "self.attn_we", "if x:\n    retu", "x = 'it"):
        found = sequences(original.open_end(prompt))
        for ids in random.Random(0).sample(found, min(100, len(found))):
            text = tokenizer.decode([i for i in ids if i != tokenizer.eot])
            tails = [tail.encode() for tail in ("", "\u07d0", " ", "\n", "1", "(", "s", "x", "X")]
            tails += [bytes(tail) for n in (1, 2) for tail in product((0x80, 0x9F, 0xBF), repeat=n)]
            whole = [tokenizer.encode(text + tail) for tail in tails]
            kept = tuple(i for i in ids if i != tokenizer.eot)
            assert any(tuple(one[: len(kept)]) == kept for one in whole), text


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux lists them")
def test_no_thread_is_woken_that_would_spin_while_the_prompt_is_read() -> None:
    counts = """
import os
from ptx.stream import Stream
from ptx.tokenizer import get_tokenizer
tokenizer = get_tokenizer("py16k")
before = len(os.listdir("/proc/self/task"))
Stream(tokenizer, 256, "def fibona")
print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", counts], env=environment, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == 0
