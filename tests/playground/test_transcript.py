"""What the browser is told about every token."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ptx import get_tokenizer
from ptx.playground.transcript import Transcript

TOKENIZER = get_tokenizer("py16k")


def parsed(transcript: Transcript) -> list[list]:
    return [json.loads(line) for line in transcript.lines.split("\n") if line]


def text_of(transcript: Transcript) -> str:
    return "".join(line[1] for line in parsed(transcript)) + transcript.tail


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_texts_of_all_tokens_are_the_prompt(prompt: str) -> None:
    transcript = Transcript(TOKENIZER, prompt)
    transcript.extend([TOKENIZER.eot, *TOKENIZER.encode(prompt)])
    assert text_of(transcript) == prompt
    assert transcript.tail == ""


@given(st.text(alphabet="ab \n\t('é🐍"), st.data())
def test_a_prompt_without_its_last_tokens_shows_them_as_its_tail(prompt: str, data) -> None:
    ids = TOKENIZER.encode(prompt)
    kept = ids[: data.draw(st.integers(0, len(ids)))]
    transcript = Transcript(TOKENIZER, prompt)
    transcript.extend([TOKENIZER.eot, *kept])
    whole = TOKENIZER.decode(kept)
    if whole == TOKENIZER.text(kept).encode():  # not cut inside a character
        assert text_of(transcript) == prompt


def test_lines_are_only_ever_appended_to() -> None:
    ids = [TOKENIZER.eot, *TOKENIZER.encode("def f(x):\n    return x\n")]
    transcript, seen = Transcript(TOKENIZER, ""), ""
    for n in range(1, len(ids) + 1):
        transcript.extend(ids[:n], 0.5)
        assert transcript.lines.startswith(seen)
        seen = transcript.lines
    assert len(parsed(transcript)) == len(ids)


def test_a_token_that_straddles_the_end_of_the_prompt_knows_its_share() -> None:
    token = TOKENIZER.encode("):\n    ")
    assert len(token) == 1
    transcript = Transcript(TOKENIZER, "):")
    transcript.extend([TOKENIZER.eot, *token], 0.25)
    assert parsed(transcript)[-1] == [token[0], "):\n    ", 0.25, 2]


def test_shares_are_counted_as_javascript_counts() -> None:
    ids = TOKENIZER.encode("🐍")
    transcript = Transcript(TOKENIZER, "🐍")
    transcript.extend([TOKENIZER.eot, *ids])
    assert sum(line[3] for line in parsed(transcript)) == 2


def test_a_character_split_over_tokens_arrives_whole_with_its_bytes_told_apart() -> None:
    ids = [TOKENIZER.encode(bytes([byte]))[0] for byte in "é".encode()]
    transcript = Transcript(TOKENIZER, "")
    for n in (1, 2):
        transcript.extend(ids[:n], 0.5)
    first, second = parsed(transcript)
    assert (first[1], second[1]) == ("", "é")
    assert (first[4], second[4]) == ("b'\\xc3'", "b'\\xa9'")


def test_a_text_that_ends_inside_a_character_says_so() -> None:
    transcript = Transcript(TOKENIZER, "")
    transcript.extend(TOKENIZER.encode(b"\xf0"), 0.5)
    transcript.close()
    assert text_of(transcript) == "\ufffd"
