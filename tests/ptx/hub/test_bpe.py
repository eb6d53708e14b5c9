"""Tokenizers between the dialects: the same ids for every text, or a refusal that names why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Theirs

from ptx.errors import UserError
from ptx.healing import Healer
from ptx.hub.bpe import read_tokenizer, tokenizer_json
from ptx.tokenizer import Tokenizer
from tests.ptx.hub.test_from_transformers import END, PRE_TOKENIZERS, VOCAB, trained

# What patterns tell apart, and some that they do not.
CHARACTERS = st.sampled_from(
    "aA é中'’sStT01٣ \t\n\r\f\x0b\x1c\x85\u00a0\u2028\u3000_-(){}.,:\"#🐍\u0301½²"
)
TEXTS = st.text(CHARACTERS, max_size=24) | st.text(max_size=12)


def read(directory: Path, theirs: Theirs) -> Tokenizer:
    directory.mkdir(exist_ok=True)
    theirs.save(str(directory / "tokenizer.json"))
    return read_tokenizer(directory, "theirs", VOCAB, [0]).tokenizer


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Theirs, Tokenizer]:
    theirs = trained(request.param)
    ours = read(tmp_path_factory.mktemp("bpe") / "theirs", theirs)
    theirs.normalizer = None
    theirs.encode_special_tokens = True
    return theirs, ours


@given(text=TEXTS)
def test_every_text_has_the_same_ids(pair: tuple[Theirs, Tokenizer], text: str) -> None:
    theirs, ours = pair
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) == text.encode()


def test_every_character_has_the_same_ids(pair: tuple[Theirs, Tokenizer]) -> None:
    """Engines of regular expressions know different versions of Unicode: not of those in use."""
    theirs, ours = pair
    for start in range(0, 0x3000, 64):
        text = " ".join(chr(c) + "a" for c in range(start, start + 64))
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, hex(start)


@given(text=TEXTS)
def test_ours_too(py16k: Tokenizer, theirs16k: Theirs, text: str) -> None:
    assert theirs16k.encode(text, add_special_tokens=False).ids == py16k.encode(text)


@pytest.fixture(scope="module")
def theirs16k(py16k: Tokenizer) -> Theirs:
    made = Theirs.from_str(json.dumps(tokenizer_json(py16k)))
    made.encode_special_tokens = True
    return made


def test_a_prompt_of_it_may_end_anywhere(pair: tuple[Theirs, Tokenizer]) -> None:
    """Healing finds the text's own tokens among what may follow each of its beginnings."""
    _, ours = pair
    healer = Healer(ours)
    text = "def test_it(x):\n    assert x == 12, 'it''s'\n\n    return  7"
    ids = ours.encode(text)
    ends = [len(ours.decode(ids[:i])) for i in range(len(ids) + 1)]
    for cut in range(1, len(text)):
        end = healer.open_end(text[:cut])
        n = next(i for i in range(len(ids) + 1) if ends[i] > cut)  # the first token beyond
        kept = len(end.kept)
        assert list(end.kept) == ids[:kept], cut
        node = tuple(ids[kept : n - 1])
        assert node in end.nodes, (cut, node)
        number = end.nodes.index(node)
        follows = {int(t) for m, t in zip(end.node, end.token, strict=True) if m == number}
        assert ids[n - 1] in follows, cut


def changed(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *path, last = field.split(".")
        for name in path:
            found = found[name]
        found[last] = value

    return change


def swapped(found: dict[str, Any]) -> None:
    merges = found["model"]["merges"]
    merges[10], merges[90] = merges[90], merges[10]


def id_of(token: str, number: int) -> Callable[[dict[str, Any]], None]:
    """A token that is met only as a whole piece gets an id."""

    def change(found: dict[str, Any]) -> None:
        found["model"]["ignore_merges"] = True
        found["model"]["vocab"][token] = number

    return change


def without_a_byte(found: dict[str, Any]) -> None:
    del found["model"]["vocab"]["q"]
    found["model"]["merges"] = []


BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (changed("normalizer", {"type": "Lowercase"}), "normalizer is"),
        (changed("pre_tokenizer", {"type": "Whitespace"}), "pre_tokenizer is"),
        (
            changed("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}),
            "pre_tokenizer is .* without a prefix space",
        ),
        (changed("model.type", "Unigram"), "model.type is Unigram"),
        (changed("model.byte_fallback", True), "model.byte_fallback is True"),
        (changed("model.dropout", 0.1), "model.dropout is 0.1"),
        (changed("post_processor", BOS), "post_processor is puts <s>"),
        (
            changed("added_tokens", [{"id": 0, "content": "    ", "special": False}]),
            "added_tokens is",
        ),
        (changed("added_tokens", []), "added_tokens is no end-of-text"),
        (swapped, "model.merges is .* out of order"),
        (without_a_byte, "no token for byte 113"),
        (id_of("qqqqq", 97), "two of its tokens have one id"),
        (id_of("qqqqq", -1), "its ids are not all between 0 and 599"),
        (id_of("", 599), "token 599 has no bytes"),
        (changed("model.vocab", {"é中": 3}), "model.merges|model.vocab"),
        (changed("model", None), "is not a byte-level BPE tokenizer"),
        (changed("pre_tokenizer", [1]), "is not a byte-level BPE tokenizer"),
        (changed("post_processor", {"type": "Sequence"}), "is not a byte-level BPE tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_ours_is_refused_by_name(
    change: Callable[[dict[str, Any]], None], sentence: str, tmp_path: Path
) -> None:
    found = json.loads(trained().to_str())
    change(found)
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=sentence):
        read_tokenizer(tmp_path, "theirs", VOCAB, [0])


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+|\W",
        r"\bx|[\s\S]",
        r"\p{L}+|\s+",
        r"[[:alpha:]]+|.",
        r"(",
        r"a&&b|[^\s]",
        r"(?P<x>a)(?&x)|[\s\S]",
        r"(?V1)[\s\S]",
        r"(?r)[\s\S]",
    ],
)
def test_a_pattern_that_engines_read_differently_is_refused(pattern: str, tmp_path: Path) -> None:
    found = json.loads(trained("qwen").to_str())
    found["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"pre_tokenizer is|makes no tokenizer, its pattern"):
        read_tokenizer(tmp_path, "theirs", VOCAB, [0])


def test_end_of_text_is_the_separator_of_documents(tmp_path: Path) -> None:
    theirs = trained()
    assert read(tmp_path / "one", theirs).eot == theirs.token_to_id(END)
    found = json.loads(theirs.to_str().replace(END, "</s>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    assert read_tokenizer(tmp_path, "theirs", VOCAB, [0]).tokenizer.eot == 0


def test_the_notes_say_what_is_left_out(tmp_path: Path) -> None:
    trained("qwen").save(str(tmp_path / "tokenizer.json"))
    notes = read_tokenizer(tmp_path, "theirs", VOCAB, [0]).notes
    assert "NFC" in notes[0]
