"""What the browser is told about every token."""

from __future__ import annotations

import json

import torch
from hypothesis import given
from hypothesis import strategies as st

from ptx import get_tokenizer
from ptx.playground.transcript import Transcript
from ptx.sampling import Choice, Sampling

TOKENIZER = get_tokenizer("py16k")


def parsed(transcript: Transcript) -> list[list]:
    return [json.loads(line) for line in transcript.lines.split("\n") if line]


def text_of(transcript: Transcript) -> str:
    return "".join(line[1] for line in parsed(transcript))


# what a page must not take for anything but text
HOSTILE = st.sampled_from(
    [
        "<img src=x onerror=alert(1)>",
        "</script>",
        "</pre>",
        "${alert(1)}",
        "{{constructor}}",
        "`",
        "\\n",
        "\\u0041",
        "&lt;",
        "\u202e",
        "\u2066",
        "\u200b",
        "\ufeff",
        "\u2028",
        "\u2029",
        "\r\n",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\ud800",
        "\udfff",
        "\ud83d\udc0d",
        "🐍",
        "👩\u200d💻",
        "e\u0301",
        '"',
        "'",
    ]
)
TEXTS = st.lists(HOSTILE | st.text(max_size=8)).map("".join)


def as_python_reads(text: str) -> str:
    """Lone surrogates are no characters: what stands for their bytes instead."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@given(TEXTS)
def test_the_texts_of_all_tokens_are_the_prompt(prompt: str) -> None:
    transcript = Transcript(TOKENIZER, prompt)
    transcript.extend([TOKENIZER.eot, *TOKENIZER.encode(prompt)])
    transcript.close()
    assert text_of(transcript) == as_python_reads(prompt)
    units = len(text_of(transcript).encode("utf-16-le")) // 2
    assert sum(line[3] for line in parsed(transcript)) == units


@given(TEXTS)
def test_a_token_is_one_line_of_json_whatever_it_says(prompt: str) -> None:
    ids = [TOKENIZER.eot, *TOKENIZER.encode(prompt)]
    transcript = Transcript(TOKENIZER, "")
    transcript.extend(ids, 0.5, 1.0)
    assert transcript.lines.count("\n") == len(ids)
    assert [line[0] for line in parsed(transcript)] == ids
    transcript.lines.encode()  # nothing in it that could not be sent


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
    assert parsed(transcript)[-1] == [token[0], "):\n    ", 0.25, 2, None]


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
    assert (first[5], second[5]) == ("b'\\xc3'", "b'\\xa9'")


def test_a_text_that_ends_inside_a_character_says_so() -> None:
    transcript = Transcript(TOKENIZER, "")
    transcript.extend(TOKENIZER.encode(b"\xf0"), 0.5)
    transcript.close()
    assert text_of(transcript) == "\ufffd"


def test_a_token_knows_how_surprising_it_was() -> None:
    token = TOKENIZER.encode("x")
    transcript = Transcript(TOKENIZER, "")
    transcript.extend(token, 0.25, 1.23456789)
    assert parsed(transcript) == [[token[0], "x", 0.25, 0, 1.23457]]


def test_a_token_tells_those_that_were_refused_before_it() -> None:
    came, refused = (TOKENIZER.encode(piece)[0] for piece in (")", "]"))
    transcript = Transcript(TOKENIZER, "")
    choice = Choice(torch.zeros(4), Sampling(python=True), (), (refused, TOKENIZER.eot), (7, 8))
    transcript.extend([came], 0.25, 1.0, choice)
    told = [[refused, "]"], [TOKENIZER.eot, ""]]
    assert parsed(transcript) == [[came, ")", 0.25, 0, 1.0, None, told, [7, 8]]]


def test_an_unlikely_token_that_was_drawn_has_a_probability() -> None:
    transcript = Transcript(TOKENIZER, "")
    transcript.extend([TOKENIZER.eot])
    for n, probability in enumerate((3e-5, 0.99997), start=2):
        transcript.extend([TOKENIZER.eot] + [5] * (n - 1), probability, 1.5e-5)
        assert parsed(transcript)[-1][2] == probability
        assert parsed(transcript)[-1][4] == 1.5e-5
