"""Tokenizers: byte-exact on anything, honest about what they are, fast on hostile text."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from ptx import tokenizer as module
from ptx.errors import UserError
from ptx.tokenizer import Tokenizer, get_tokenizer

PY16K = get_tokenizer("py16k")
THIS_FILE = Path(__file__).read_bytes()

needs_toktok = pytest.mark.skipif(
    sys.version_info < (3, 11) and find_spec("toktok") is None,
    reason="only preparing data needs toktok: it is not among what a Space has",
)

# Arbitrary bytes, and valid text with invalid bytes, specials and white space in between.
pieces = st.sampled_from(
    [
        b"def f(x):\n    return x\n",
        b"\r\n\t",
        b"<|endoftext|>",
        b"\xff",
        b"\xed\xa0\x80",
        "é字🙂".encode(),
    ]
)
hostile = st.one_of(st.binary(), st.lists(st.one_of(pieces, st.binary(max_size=3))).map(b"".join))


def assert_exact(tokenizer: Tokenizer, data: bytes) -> None:
    ids = tokenizer.encode(data)
    assert tokenizer.decode(ids) == data
    assert tokenizer.byte_lengths[np.array(ids, dtype=int)].sum() == len(data)
    assert tokenizer.eot not in ids


@given(hostile)
def test_py16k_gives_back_any_bytes(data: bytes) -> None:
    assert_exact(PY16K, data)


@given(data=hostile)
def test_o200k_gives_back_any_bytes(o200k: Tokenizer, data: bytes) -> None:
    assert_exact(o200k, data)


@given(st.text(st.characters()))  # lone surrogates included
def test_a_str_is_the_bytes_it_would_take(text: str) -> None:
    assert PY16K.decode(PY16K.encode(text)) == text.encode("utf-8", "surrogatepass")


@given(text=st.text())
def test_o200k_encodes_as_tiktoken_does(o200k: Tokenizer, text: str) -> None:
    oracle = tiktoken.get_encoding("o200k_base")
    assert o200k.encode(text) == oracle.encode_ordinary(text)


@needs_toktok
@given(data=hostile)
@example(
    "a\u3000\u2028 \n\n 'LL 'S ʼn\u0345ẞ１２x\u0300\U0001f468\u200d\U0001f469 \x1c\x85\xa0".encode()
)
def test_a_corpus_gets_the_same_ids(o200k: Tokenizer, data: bytes) -> None:
    for tokenizer in (PY16K, o200k):
        assert tokenizer.encode_array(data).tolist() == tokenizer.encode(data)


@needs_toktok
@given(text=st.text())
def test_a_corpus_gets_the_ids_of_tiktoken(o200k: Tokenizer, text: str) -> None:
    oracle = tiktoken.get_encoding("o200k_base")
    assert o200k.encode_array(text.encode()).tolist() == oracle.encode_ordinary(text)


@needs_toktok
def test_every_character_gets_the_ids_of_tiktoken(o200k: Tokenizer) -> None:
    oracle = tiktoken.get_encoding("o200k_base")
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    for start in range(0, len(characters), 1_000):  # those that tiktoken is asked for lie together
        for joint in ("", "a", "1"):
            text = joint.join(characters[start : start + 1_000])
            assert o200k.encode_array(text.encode()).tolist() == oracle.encode_ordinary(text)


def test_o200k_has_the_ids_of_the_original(o200k: Tokenizer) -> None:
    oracle = tiktoken.get_encoding("o200k_base")
    assert o200k.n_vocab == oracle.n_vocab == 200_019
    assert o200k.eot == oracle.eot_token == 199_999
    assert o200k.encode(THIS_FILE) == oracle.encode_ordinary(THIS_FILE.decode())


def test_py16k_fills_its_vocabulary_exactly() -> None:
    assert (PY16K.n_vocab, PY16K.eot) == (16_384, 16_383)
    assert all(PY16K.token_bytes(token) for token in range(16_383))
    assert {PY16K.token_bytes(token) for token in range(256)} == {bytes([b]) for b in range(256)}


def test_py4k_is_the_beginning_of_py16k() -> None:
    small = get_tokenizer("py4k")
    assert (small.n_vocab, small.eot) == (4_096, 4_095)
    for token in range(small.eot):
        assert small.token_bytes(token) == PY16K.token_bytes(token)
    text = Path(module.__file__).read_text()

    def ends(tokenizer: Tokenizer) -> set[int]:
        return set(accumulate(len(tokenizer.token_bytes(t)) for t in tokenizer.encode(text)))

    assert ends(PY16K) < ends(small), "a large token is made of small ones"


def test_py16k_is_what_its_manifest_says() -> None:
    manifest = json.loads(Path(module.__file__).with_name("py16k.json").read_text())
    assert PY16K.record() == manifest["tokenizer"]


def test_end_of_text_stands_for_no_bytes() -> None:
    assert PY16K.decode([PY16K.eot]) == b""
    assert PY16K.text([*PY16K.encode("a"), PY16K.eot, *PY16K.encode("b")]) == "ab"
    assert PY16K.byte_lengths[PY16K.eot] == 0


def test_a_new_block_and_its_indentation_are_one_token() -> None:
    ids = PY16K.encode("def f(self):\n        return")
    assert [PY16K.token_bytes(i) for i in ids][-2:] == [b"):\n        ", b"return"]


def test_half_a_character_shows_as_a_replacement() -> None:
    assert PY16K.text(PY16K.encode("é".encode()[:1])) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 16_384])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(UserError, match="outside the 16,384"):
        PY16K.decode([token])


@pytest.mark.parametrize("unit", ["a", " ", "\n", "A1", "=", "\t ", "é", "\x80", b"\xff"])
@pytest.mark.parametrize("name", ["py16k", "o200k"])
def test_a_megabyte_of_one_thing_does_not_hang(
    name: str, unit: str | bytes, request: pytest.FixtureRequest
) -> None:
    tokenizer = PY16K if name == "py16k" else request.getfixturevalue("o200k")
    data = unit * (1_000_000 // len(unit))
    start = time.process_time()
    ids = tokenizer.encode(data)
    assert time.process_time() - start < 5  # a second or less; without bounds, minutes or a panic
    assert tokenizer.decode(ids) == (data if isinstance(data, bytes) else data.encode())


def test_a_saved_tokenizer_loads_as_the_same(tmp_path: Path) -> None:
    PY16K.save(tmp_path)
    loaded = Tokenizer.load(tmp_path, PY16K.record())
    assert loaded.record() == PY16K.record()
    assert loaded.encode(THIS_FILE) == PY16K.encode(THIS_FILE)


def test_a_record_survives_json() -> None:
    assert json.loads(json.dumps(PY16K.record())) == PY16K.record()


@pytest.mark.parametrize(
    ("field", "value"),
    [("pattern", r"\S+|\s+"), ("eot", 16_390), ("n_vocab", 16_385), ("fingerprint", "0" * 64)],
)
def test_a_record_that_differs_is_refused(tmp_path: Path, field: str, value: object) -> None:
    PY16K.save(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken"):
        Tokenizer.load(tmp_path, PY16K.record() | {field: value})


@pytest.mark.parametrize(
    "record",
    [
        {},
        None,
        PY16K.record() | {"n_vocab": "many"},
        PY16K.record() | {"n_vocab": 5},
        PY16K.record() | {"n_vocab": 10**15},
        PY16K.record() | {"pattern": "("},
        PY16K.record() | {"pattern": None},
        PY16K.record() | {"eot": -1},
        PY16K.record() | {"name": 7},
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, record: dict | None) -> None:
    PY16K.save(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken"):
        Tokenizer.load(tmp_path, record)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"YQ== 0\n", b"YQ== x\n", b"!!!! 0\n", b"\xff\x00 1\n"]
)
def test_a_broken_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.tiktoken").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken"):
        Tokenizer.load(tmp_path, PY16K.record())


BYTES = {bytes([byte]): byte for byte in range(256)}


@pytest.mark.parametrize(
    ("ranks", "fault"),
    [
        ({**BYTES, b"ab": 5}, "two of its tokens have one id"),
        ({**BYTES, b"ab": -1}, "its ids are not all between 0 and 299"),
        ({**BYTES, b"ab": 300}, "its ids are not all between 0 and 299"),
        ({**BYTES, b"ab": 299}, "its id 299 is end-of-text's"),
        ({k: v for k, v in BYTES.items() if v != 113}, "byte 113 has no token"),
        ({}, "byte 0 has no token"),
    ],
)
def test_a_vocabulary_that_cannot_write_every_text_is_refused(
    ranks: dict[bytes, int], fault: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.tiktoken").write_bytes(module.rank_lines(ranks))
    record = {"name": "x", "pattern": r"[\s\S]", "eot": 299, "n_vocab": 300, "fingerprint": ""}
    with pytest.raises(UserError, match=rf"tokenizer\.tiktoken makes no tokenizer, {fault}: "):
        Tokenizer.load(tmp_path, record)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (r"\S+", r"leaves out '\\t'"),
        (r"[^é]", "leaves out 'é'"),
        (r"\p{L}+|\s+|[!-~\x00-\x1f\x7f]", "leaves out '٣'"),
        (r"(", "cuts no text"),
        (r"(?r)[\s\S]", "cuts no text"),  # regex reads it, tiktoken does not
        (r"(?-u:a)|[\s\S]", "cuts no text"),  # and the other way round
        ("", "cuts no text"),  # a panic of tiktoken's
    ],
)
def test_a_pattern_under_which_text_is_lost_is_refused(
    pattern: str, fault: str, tmp_path: Path
) -> None:
    tokenizer = Tokenizer("x", pattern, BYTES, eot=256, n_vocab=257)
    tokenizer.save(tmp_path)
    with pytest.raises(UserError, match=rf"tokenizer\.tiktoken makes no tok.*its pattern {fault}"):
        Tokenizer.load(tmp_path, tokenizer.record())


def test_a_missing_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken is missing"):
        Tokenizer.load(tmp_path, PY16K.record())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"py16k, py4k, o200k_base, a directory .*, or a model"):
        get_tokenizer("gpt5")


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        get_tokenizer(str(tmp_path))


def test_offline_without_a_copy_says_both_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(module.openai_public, "o200k_base", offline)
    with pytest.raises(UserError, match=r"online once.*TIKTOKEN_CACHE_DIR"):
        module.o200k_base()
