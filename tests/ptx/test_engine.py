"""Generation: exact, reproducible, bounded, whole characters only."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ptx.engine import (
    PROMPT_LIMIT,
    Generation,
    check_prompt,
    generate,
    prompt_notes,
    visible_from,
    window_notes,
)
from ptx.errors import UserError
from ptx.model import GPT
from ptx.sampling import Sampling
from ptx.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0.0)


@torch.no_grad()
def greedy_without_cache(model: GPT, ids: list[int], n: int) -> list[int]:
    """The slow definition: the whole visible window is read again for every token."""
    ids = list(ids)
    for _ in range(n):
        window = ids[visible_from(len(ids), model.config.context) :]
        ids.append(int(model(torch.tensor([window]))[0, -1].argmax()))
    return ids


def test_cached_generation_equals_reading_everything_again_also_beyond_the_context(
    model: GPT, py16k: Tokenizer
) -> None:
    generation = Generation(model, py16k, "def f(x):\n    return x", GREEDY, max_tokens=100)
    steps = list(generation)
    start = generation.ids[: generation.n_prompt + 1]  # the first new token heals the boundary
    assert len(generation.ids) > model.config.context
    assert generation.ids == greedy_without_cache(model, start, len(generation.ids) - len(start))
    assert len(steps) == 100


def test_the_same_seed_gives_the_same_text_and_another_seed_another(
    model: GPT, py16k: Tokenizer
) -> None:
    def text(seed: int) -> str:
        return "".join(s.text for s in generate(model, py16k, "import os", seed=seed))

    assert text(3) == text(3)
    assert text(3) != text(4)


@pytest.mark.parametrize("prompt", ["", "def f(n):", "x = fo", "    ret", "s = 'é", "# ====", "\n"])
def test_the_text_continues_the_prompt_exactly_wherever_it_ends(
    model: GPT, py16k: Tokenizer, prompt: str
) -> None:
    generation = Generation(model, py16k, prompt, max_tokens=30, seed=1)
    new = b"".join(step.bytes for step in generation)
    assert py16k.decode(generation.ids) == prompt.encode() + new


def test_streamed_text_is_the_decoded_bytes_though_characters_span_tokens(
    model: GPT, py16k: Tokenizer
) -> None:
    steps = list(generate(model, py16k, "x", Sampling(temperature=3.0), max_tokens=200, seed=5))
    assert "".join(s.text for s in steps) == b"".join(s.bytes for s in steps).decode(
        "utf-8", "replace"
    )


def test_a_stop_request_ends_before_the_next_token(model: GPT, py16k: Tokenizer) -> None:
    answers = iter([False, False, False, True])
    steps = generate(model, py16k, "x = 1", max_tokens=50, should_stop=lambda: next(answers))
    assert len(list(steps)) <= 3


@pytest.mark.parametrize("context", [1, 2, 7, 256])
def test_the_window_never_exceeds_the_context_and_moves_by_half_of_it(context: int) -> None:
    starts = [visible_from(n, context) for n in range(1, 5 * context)]
    assert all(1 <= n - start <= context for n, start in enumerate(starts, 1))
    assert {b - a for a, b in pairwise(starts)} <= {0, context - context // 2}


def test_prompts_no_file_could_begin_with_are_refused_in_one_sentence() -> None:
    check_prompt("x" * PROMPT_LIMIT)
    with pytest.raises(UserError, match=r"102,400 bytes and at most 65,536"):
        check_prompt("x" * 102_400)
    with pytest.raises(UserError, match="NUL character at position 3"):
        check_prompt("abc\0")


@pytest.mark.parametrize("prompt", ["🐍 = 1", "Il était une fois", "\ud800", "x" * 20_000])
def test_unusual_prompts_are_continued(model: GPT, py16k: Tokenizer, prompt: str) -> None:
    assert list(generate(model, py16k, prompt, max_tokens=2))


@pytest.mark.parametrize(
    ("prompt", "familiar"),
    [
        ("def mean(values):\n    return sum(values) / len(values)\n", True),
        ("кириллица и ещё немного текста, чтобы хватило", False),
        ("日本語のテキストがここにあります。", False),
        ("это", True),  # too short to judge
    ],
)
def test_a_prompt_unlike_python_is_remarked_on(
    py16k: Tokenizer, prompt: str, familiar: bool
) -> None:
    assert (prompt_notes(py16k, prompt) == []) is familiar


def test_a_text_longer_than_the_context_is_remarked_on() -> None:
    assert window_notes(256, 256) == []
    assert "sees the last 129 of 257" in window_notes(257, 256)[0]
