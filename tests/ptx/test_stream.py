"""One text: what it reads, where it ends, and draws that follow the stated distribution."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch

from ptx.errors import UserError
from ptx.sampling import Sampling, distribution
from ptx.stream import (
    PARSED,
    PROMPT_LIMIT,
    Limits,
    Stream,
    check_prompt,
    prompt_notes,
    python_notes,
    visible_from,
    window_notes,
)
from ptx.tokenizer import Tokenizer

WARM = Sampling(temperature=1.3, top_k=12)


def logits_for(seed: int, n: int = 1) -> torch.Tensor:
    """(n, V), far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16_384, generator=generator) * 3


def p_value(tokens: list[int], probs: torch.Tensor) -> float:
    """Of a chi-square test that `tokens` were drawn from `probs` (V,)."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(probs))
    assert counts[probs == 0].sum() == 0
    expected = probs[probs > 0].double() * len(tokens)
    chi_square = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(expected) - 1, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, chi_square / 2))


def test_the_penalty_counts_each_token_once_however_long_the_text_is(py16k: Tokenizer) -> None:
    sampling, ids = Sampling(repetition_penalty=1.3), [py16k.eot, *[5, 6, 7] * 2000]
    stream = Stream(py16k, 256, ids, sampling, Limits(9))
    for seed in range(3):
        before, logits = list(stream.ids), logits_for(seed)
        [step] = stream.take([], logits)
        assert len(step.choice.ids) == len(set(before))
        assert torch.equal(step.choice.final, distribution(logits[0], sampling, before))


def test_a_long_statement_is_not_parsed_for_long(
    py16k: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x = [" + "1, " * 4000
    stream = Stream(py16k, 256, [py16k.eot, *py16k.encode(text)], Sampling(python=True))
    parsed: list[int] = []
    monkeypatch.setattr("ptx.guard.can_go_on", lambda text: parsed.append(len(text)))  # refuses all
    [step] = stream.take([], logits_for(0))
    assert not step.choice.refused, "the first of them is taken"
    assert 2 < len(parsed) < 20
    assert sum(parsed) < PARSED + 5 * len(text)


def test_a_text_cancelled_while_tokens_are_refused_ends_there(
    py16k: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(py16k, 256, [py16k.eot, *py16k.encode("x = 1\n")], Sampling(python=True))
    monkeypatch.setattr("ptx.guard.can_go_on", lambda _: stream.cancel())
    assert stream.take([], logits_for(0)) == []
    assert stream.finish == "cancelled"


def test_draws_follow_the_distribution_with_guesses_and_without(py16k: Tokenizer) -> None:
    """Guessed tokens are kept only if they are drawn: the joint distribution is untouched."""
    rows = logits_for(1, 3)
    probs = [distribution(row, WARM) for row in rows]
    likely = [int(p.argmax()) for p in probs]
    first: list[int] = []
    second: list[int] = []
    for seed in range(10_000):
        stream = Stream(py16k, 256, [py16k.eot], WARM, Limits(9), seed, speculate=False)
        steps = stream.take(likely[:2], rows)
        assert len(steps) == 1 or steps[0].token == likely[0]
        first.append(steps[0].token)
        if len(steps) > 1:
            second.append(steps[1].token)
    assert p_value(first, probs[0]) > 1e-3
    assert len(second) > 1_000
    assert p_value(second, probs[1]) > 1e-3


def test_guesses_take_the_very_draws_that_would_be_made_anyway(py16k: Tokenizer) -> None:
    rows = logits_for(2, 3)
    for seed in range(50):
        plain, guessing = (Stream(py16k, 256, "", WARM, Limits(9), seed) for _ in range(2))
        expected = [plain.take([], rows[i : i + 1])[0].token for i in range(3)]
        guessed = guessing.take(expected[:2], rows)
        assert [step.token for step in guessed] == expected


def test_each_step_tells_its_distribution(py16k: Tokenizer) -> None:
    rows = logits_for(3)
    stream = Stream(py16k, 256, "", WARM, seed=4)
    [step] = stream.take([], rows)
    final = distribution(rows[0], WARM)
    assert step.logprob == pytest.approx(float(final[step.token].log()), abs=1e-6)
    assert torch.equal(step.choice.final, final)
    torch.testing.assert_close(step.choice.raw, rows[0].softmax(-1))
    assert step.rank == 1 + int((rows[0] > rows[0][step.token]).sum())
    assert step.choice.top(3)[0].token == int(rows[0].argmax())


def spell(stream: Stream, py16k: Tokenizer, text: str) -> list[str]:
    """Makes the stream write `text`, as far as it goes; the texts of its steps."""
    out = []
    for token in py16k.encode(text):
        logits = torch.full((1, 16_384), -1e9)
        logits[0, token] = 0.0
        out += [step.text for step in stream.take([], logits)]
        if stream.finish:
            break
    return out


def test_a_stop_string_ends_the_text_with_the_token_that_completes_it(py16k: Tokenizer) -> None:
    text = "import os\n\n\ndef f(x):\n    return x\n\n\nclass A:\n    pass\n"
    stream = Stream(py16k, 256, "", limits=Limits(500, stop=("never", "\nclass ")))
    written = "".join(spell(stream, py16k, text))
    assert stream.finish == "stop string"
    assert text.startswith(written)
    assert "\nclass " in written
    assert "\nclass " not in written[: -len("class A")]


def test_a_stop_string_in_the_prompt_ends_nothing(py16k: Tokenizer) -> None:
    stream = Stream(py16k, 256, "class A:\n", limits=Limits(500, stop=("class",)))
    stream._end = None
    spell(stream, py16k, "x = 1\ny = 2\n")
    assert stream.finish is None


def test_limits_end_the_text(py16k: Tokenizer) -> None:
    stream = Stream(py16k, 256, "", limits=Limits(3))
    assert len(spell(stream, py16k, "a = [1, 2, 3, 4]")) == 3
    assert stream.finish == "length"
    stream = Stream(py16k, 256, "", limits=Limits(3, max_seconds=1e-6))
    stream._started = time.monotonic() - 1
    assert len(spell(stream, py16k, "a = [1, 2, 3, 4]")) == 1
    assert stream.finish == "time"
    stream = Stream(py16k, 256, "")
    logits = torch.zeros(1, 16_384)
    logits[0, py16k.eot] = 1e9
    assert stream.take([], logits) == []
    assert stream.finish == "end of text"


def test_half_a_character_waits_for_its_other_half(py16k: Tokenizer) -> None:
    snake = "🐍".encode()
    halves = [py16k.encode(snake)]
    assert len(halves[0]) > 1, "the test needs a character of several tokens"
    stream = Stream(py16k, 256, "", limits=Limits(len(halves[0])))
    assert "".join(texts := spell(stream, py16k, "🐍")) == "🐍"
    assert texts[0] == ""
    stream = Stream(py16k, 256, "", limits=Limits(1))
    assert spell(stream, py16k, "🐍") == ["", "\ufffd"]


def test_the_penalty_counts_what_the_text_has_so_far(py16k: Tokenizer) -> None:
    stream = Stream(py16k, 256, "", Sampling(1.0, repetition_penalty=2.0))
    rows = logits_for(5)
    for _ in range(3):
        before = list(stream.ids)
        [step] = stream.take([], rows)
        expected = distribution(rows[0], stream.sampling, before)
        assert torch.equal(step.choice.final, expected)


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ([], "begins with end-of-text, 16383"),
        ([5, 6], "begins with end-of-text, 16383"),
        ([16_383, 7, 16_384], r"id 2 of the prompt .* from 0 to 16383, not 16384"),
        ([16_383, -1], "id 1 of the prompt .* not -1"),
        ([16_383, 2.0], "id 1 of the prompt must be a whole number"),
        ([16_383, True], "id 1 of the prompt must be a whole number"),
        ([16_383, "a"], "id 1 of the prompt must be a whole number"),
        ([16_383, 4, 16_383], "id 2 of the prompt is end-of-text"),
        ([16_383] + [9] * PROMPT_LIMIT, "65,537 tokens and at most 65,536"),
    ],
)
def test_ids_that_are_no_text_are_refused_in_one_sentence(
    py16k: Tokenizer, ids: list[int], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        Stream(py16k, 256, ids)


def test_ids_may_end_inside_a_character(py16k: Tokenizer) -> None:
    tokens = py16k.encode("x = '🐍'")
    cut = max(i for i in range(len(tokens)) if "\ufffd" in py16k.text(tokens[:i]))
    stream = Stream(py16k, 256, [py16k.eot, *tokens[:cut]])
    steps = []
    for token in tokens[cut:]:
        logits = torch.full((1, 16_384), -1e9)
        logits[0, token] = 0.0
        steps += stream.take([], logits)
    assert steps[0].text.startswith("🐍")


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


def test_impossible_limits_are_refused(py16k: Tokenizer) -> None:
    with pytest.raises(UserError, match="in tokens must be a whole number, at least 1, not 0"):
        Limits(0)
    with pytest.raises(UserError, match="in seconds must be more than 0"):
        Limits(1, max_seconds=float("nan"))
    with pytest.raises(UserError, match="none of them empty"):
        Limits(1, stop=("",))
    with pytest.raises(UserError, match="banned token 99999"):
        Stream(py16k, 256, "", Sampling(banned=(99_999,)))
    with pytest.raises(UserError, match="the seed must be a whole number"):
        Stream(py16k, 256, "", seed=-1)


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
    assert "sees the last 129 of 256" in window_notes(257, 256)[0]


# --- the first token, weighed with the ways of tokenizing the prompt's end


def healed(py16k: Tokenizer, prompt: str, sampling: Sampling, seed: int = 0) -> tuple:
    """A stream over random logits, and the step that settles its prompt."""
    stream = Stream(py16k, 256, prompt, sampling, seed=seed)
    branches = stream.branches()
    read = [logits_for(9, 1 + len(tokens)) for tokens in [stream.guesses(0), *branches]]
    others = [(logits, None) for logits in read[1:]]
    return stream, stream.take(stream.guesses(0), read[0], None, others)


def test_a_penalty_falls_on_the_likeliest_token_too(py16k: Tokenizer) -> None:
    _, [plain] = healed(py16k, "import os\n", Sampling(1.0))
    likely = int(plain.choice.logits.argmax())
    assert plain.choice.logits[likely] > 0
    stream = Stream(py16k, 256, "import os\n", Sampling(1.0, repetition_penalty=3.0))
    stream.ids.insert(1, likely)
    read = [logits_for(9, 1 + len(t)) for t in [stream.guesses(0), *stream.branches()]]
    [step] = stream.take(stream.guesses(0), read[0], None, [(x, None) for x in read[1:]])
    assert step.choice.final[likely] < 0.5 * plain.choice.final[likely]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_forced_token_that_cannot_finish_the_word_comes_after_it(
    py16k: Tokenizer, temperature: float
) -> None:
    [other] = py16k.encode("import")
    stream, [step] = healed(py16k, "x = fibona", Sampling(temperature, forced=(other,)))
    assert step.token == other
    assert py16k.text(stream.ids) == "x = fibonaimport"


def test_what_the_prompt_makes_impossible_is_said_to_be_its_doing(py16k: Tokenizer) -> None:
    _, [step] = healed(py16k, "x = fibona", Sampling(1.0))
    impossible = (step.choice.logits == float("-inf")).nonzero()[:, 0].tolist()
    assert impossible
    assert {step.choice.cut_by(token) for token in impossible[:50]} == {"prompt"}


def one(tokenizer: Tokenizer, text: str) -> int:
    [token] = tokenizer.encode(text)
    return token


def test_draws_that_python_refuses_leave_the_others_as_likely_among_themselves(
    py16k: Tokenizer,
) -> None:
    pieces = {")": 0.4, "]": 0.3, ",": 0.2, "'": 0.1}
    tokens = [one(py16k, piece) for piece in pieces]
    logits = torch.full((1, 16_384), -40.0)
    logits[0, tokens] = torch.tensor(list(pieces.values())).log()
    sampling = Sampling(1.0, python=True)
    drawn, refused = [], set()
    for seed in range(1_000):
        stream = Stream(py16k, 256, [py16k.eot, *py16k.encode("x = (1")], sampling, Limits(9), seed)
        [step] = stream.take([], logits)
        drawn.append(step.token)
        refused |= {*step.choice.refused}
        assert step.logprob == pytest.approx(float(step.choice.final[step.token].log()), abs=1e-6)
        assert set(step.choice.refused) <= set(step.choice.dead)
        assert {step.choice.cut_by(token) for token in step.choice.dead} <= {"python"}
    assert refused == {one(py16k, "]"), one(py16k, "'")}
    allowed = distribution(logits[0], Sampling(1.0, banned=tuple(refused)))
    allowed = torch.where(allowed < 1e-6, 0.0, allowed)
    assert p_value(drawn, allowed / allowed.sum()) > 1e-3


def test_python_refuses_the_likeliest_token_too(py16k: Tokenizer) -> None:
    logits = torch.zeros(1, 16_384)
    logits[0, one(py16k, "]")], logits[0, one(py16k, ")")] = 9.0, 8.0
    text = [py16k.eot, *py16k.encode("x = (1")]
    logits[0, one(py16k, "])")] = 8.5  # as dead as its beginning
    for python, came in ((True, ")"), (False, "]")):
        stream = Stream(py16k, 256, text, Sampling(0.0, python=python))
        [step] = stream.take([], logits)
        assert step.text == came
        assert step.choice.refused == ((one(py16k, "]"),) if python else ())


def test_a_text_that_is_no_python_is_not_kept_so(py16k: Tokenizer) -> None:
    for seed in range(20):
        with_it, without = (
            Stream(py16k, 256, "x = 1 2", Sampling(1.5, python=python), Limits(9), seed).take(
                [], logits_for(seed)
            )
            for python in (True, False)
        )
        assert [step.token for step in with_it] == [step.token for step in without]
    assert python_notes(py16k, "x = 1 2")
    assert not python_notes(py16k, "x = 1 +")


def test_where_nothing_is_python_the_draw_stands_and_no_more_are_refused(py16k: Tokenizer) -> None:
    dead = (one(py16k, "]"), one(py16k, "'"))
    sampling = Sampling(1.0, forced=dead, python=True)
    stream = Stream(py16k, 256, [py16k.eot, *py16k.encode("x = (1")], sampling, Limits(9), 1)
    [step] = stream.take([], torch.zeros(1, 16_384))
    assert step.token in dead
    assert not step.choice.refused
    assert step.unchecked
    [step] = stream.take([], torch.zeros(1, 16_384))
    assert step.token in dead
    assert not step.choice.refused
