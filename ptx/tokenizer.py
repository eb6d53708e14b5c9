"""Byte-exact tokenizers on tiktoken, and how many bytes each of their tokens stands for.

Whatever goes in comes out: `decode(encode(data)) == data` for any bytes. `<|endoftext|>` written
in a text is plain text; only code that wants the special token appends `eot`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import regex
import tiktoken
from tiktoken_ext import openai_public

from ptx.errors import UserError

END_OF_TEXT = "<|endoftext|>"
RANKS_FILE = "tokenizer.tiktoken"
MANIFEST_FILE = "manifest.json"
CONFIG = "config.json"
"""Of a model directory."""
SHIPPED = {"py16k": 16_384, "py4k": 4_096}
"""Our tokenizers for Python, and how many ids they have: the small one is the large one's first
merges, as byte pairs are learned one after the other."""
MOST_TOKENS = 1 << 20  # four times the largest vocabulary in use

# How Python is cut into pieces before the byte pairs of each piece are merged.
#  - a word takes up to two characters before it along (` x`, `.append`, `__init`, `("name`,
#    `, key`), a number one space; against a single character that is 4 % fewer tokens;
#  - a newline and the indentation after it are one piece, also after punctuation (`):\n        `),
#    so one token says where a block begins and how deep it is;
#  - every repetition is bounded: merging is quadratic in the length of a piece, and a megabyte of
#    one letter must not hang.
PYTHON_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]{0,2}\p{L}{1,32}",
        r" ?\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]{1,64}(?:(?:[ \t]{0,8}\r?\n){1,8}[ \t]{0,64})?",
        r"(?:[ \t]{0,64}\r?\n){1,8}[ \t]{0,64}",
        r"\s{1,64}(?!\S)",
        r"\s{1,64}",
    ]
)

# tiktoken panics on about a million characters of white space under o200k_base's pattern, so a run
# that fills a stretch of this many characters is cut. No code has one.
LONGEST_SPACE = 100_000

# Characters of the kinds that patterns tell apart: each has to be in a piece.
OF_EVERY_KIND = "".join(map(chr, range(128))) + "é٣²中\u0301\x85\xa0\u2028\u3000\u200b\ue000🐍"

# What `surrogateescape` turns bytes that are not UTF-8 into.
INVALID_BYTES = re.compile("([\udc80-\udcff]+)")


class Tokenizer:
    """A byte-level BPE vocabulary: text to ids and back.

    Args:
        name: what a person calls it.
        pattern: the regular expression that cuts text into pieces before merging.
        ranks: {bytes of a token: its id}; lower ids merge first. Holds every single byte.
        eot: the id of `<|endoftext|>`, which stands for no bytes.
        n_vocab: one more than the largest id; ids without a token (o200k_base has some) included.
        bulk: a faster way to the same ids, an array (n,) uint32; None where it does not know them.
    """

    def __init__(
        self,
        name: str,
        pattern: str,
        ranks: dict[bytes, int],
        eot: int,
        n_vocab: int,
        bulk: Callable[[str], np.ndarray | None] | None = None,
    ) -> None:
        self.name = name
        self.pattern = pattern
        self.eot = eot
        self.n_vocab = n_vocab
        self._ranks = ranks
        self._bulk = bulk
        self._bytes = [b""] * n_vocab
        for token, rank in ranks.items():
            self._bytes[rank] = token

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """Made when it is asked: its tables are a hundred bytes for each token."""
        special = {END_OF_TEXT: self.eot}
        return tiktoken.Encoding(
            self.name, pat_str=self.pattern, mergeable_ranks=self._ranks, special_tokens=special
        )

    def encode(self, data: str | bytes) -> list[int]:
        """Token ids of `data`. A lone surrogate in a str becomes the three bytes it would take."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        try:
            return self._encode_text(data.decode("utf-8"))
        except UnicodeDecodeError:
            return self._encode_invalid(data)

    def encode_array(self, data: bytes) -> np.ndarray:
        """`encode` as an array, (n,) uint32, without a Python object for each id."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return np.array(self.encode(data), dtype=np.uint32)
        stretches = list(self._stretches(text))
        if len(stretches) == 1:
            return self._stretch_array(text)
        return np.concatenate(list(map(self._stretch_array, stretches)))

    def _stretch_array(self, text: str) -> np.ndarray:
        ids = self._bulk(text) if self._bulk else None
        if ids is None:
            ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        return ids

    def merge(self, piece: bytes) -> list[int]:
        """Token ids of one piece, as the pattern cuts them: the byte pairs alone, no pattern."""
        return self._encoding._encode_single_piece(piece)

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = []
        for stretch in self._stretches(text):
            ids += self._encoding.encode_ordinary(stretch)
        return ids

    def _stretches(self, text: str) -> Iterator[str]:
        """The text, cut where white space goes on for too long."""
        start = 0
        for cut in range(LONGEST_SPACE, len(text) - LONGEST_SPACE + 1, LONGEST_SPACE):
            if text[cut : cut + LONGEST_SPACE].isspace():
                yield text[start:cut]
                start = cut
        yield text[start:]

    def _encode_invalid(self, data: bytes) -> list[int]:
        ids: list[int] = []
        # Odd stretches are invalid bytes, each its own token; the others are text.
        for i, stretch in enumerate(INVALID_BYTES.split(data.decode("utf-8", "surrogateescape"))):
            if i % 2:
                invalid = stretch.encode("utf-8", "surrogateescape")
                ids += [self._ranks[invalid[j : j + 1]] for j in range(len(invalid))]
            else:
                ids += self._encode_text(stretch)
        return ids

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for; `eot` stands for none."""
        return b"".join(map(self.token_bytes, ids))

    def text(self, ids: Iterable[int]) -> str:
        """`decode(ids)` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode(ids).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token: b"" for `eot`. Raises UserError outside the vocabulary."""
        if not 0 <= token < self.n_vocab:
            raise UserError(f"Token {token} is outside the {self.n_vocab:,} of {self.name}.")
        return self._bytes[token]

    def beginning_with(self, start: bytes) -> np.ndarray:
        """The tokens (n,) whose bytes begin so, in the order of their bytes: `start` itself first,
        if it is one."""
        pieces, tokens = self._in_order
        past = start + b"\xff" * int(self.byte_lengths.max())
        return tokens[bisect_left(pieces, start) : bisect_right(pieces, past)]

    @cached_property
    def _in_order(self) -> tuple[list[bytes], np.ndarray]:
        """The bytes of all tokens that have some, sorted, and whose they are."""
        pieces = sorted(self._ranks)
        return pieces, np.array([self._ranks[piece] for piece in pieces])

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """Bytes per token, int64 (n_vocab,): sums over a file's tokens to the file's size."""
        return np.array([len(token) for token in self._bytes], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides an encoding: ranks, pattern, special token."""
        special = json.dumps([self.pattern, self.eot, self.n_vocab])
        return hashlib.sha256(rank_lines(self._ranks) + special.encode()).hexdigest()

    def record(self) -> dict[str, str | int]:
        """What a manifest or model configuration keeps beside the file that `save` writes."""
        return {
            "name": self.name,
            "pattern": self.pattern,
            "eot": self.eot,
            "n_vocab": self.n_vocab,
            "fingerprint": self.fingerprint,
        }

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.tiktoken`: one line per token, its bytes in base64 and its id."""
        Path(directory, RANKS_FILE).write_bytes(rank_lines(self._ranks))

    @classmethod
    def load(cls, directory: str | Path, record: dict) -> Tokenizer:
        """The tokenizer saved in `directory`, described by its `record()`.

        Raises UserError if the file is missing, unreadable, or not the one that was recorded.
        """
        path = Path(directory, RANKS_FILE)
        if not is_record(record):
            raise UserError(f"The record of {path} is incomplete: prepare it again.")
        fields = {key: record[key] for key in ("name", "pattern", "eot", "n_vocab")}
        tokenizer = cls.checked(path, ranks=read_ranks(path), **fields)
        if tokenizer.fingerprint != record["fingerprint"]:
            raise UserError(
                f"{path} is not the tokenizer {tokenizer.name} that is recorded beside it: "
                "restore that file or prepare the directory again."
            )
        return tokenizer

    @classmethod
    def checked(
        cls, path: Path, name: str, pattern: str, ranks: dict[bytes, int], eot: int, n_vocab: int
    ) -> Tokenizer:
        """A tokenizer of parts from `path`, which anybody may have written.

        Raises UserError unless every text has ids and comes back from them: with less than that
        tiktoken panics, when it is made or at some later text, or leaves characters out.
        """
        if fault := fault_of(ranks, eot, n_vocab):
            raise UserError(f"{path} makes no tokenizer, {fault}: restore it or download it again.")
        try:
            regex.compile(pattern)  # it cuts prompts, too (`ptx.healing`)
            tokenizer = cls(name, pattern, ranks, eot, n_vocab)
            lost = [c for c in OF_EVERY_KIND if tokenizer.decode(tokenizer.encode(c)) != c.encode()]
        except BaseException as error:
            panic = type(error).__name__ == "PanicException"  # no Exception either
            if isinstance(error, MemoryError) or not (panic or isinstance(error, Exception)):
                raise  # says nothing about the pattern
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path} makes no tokenizer, its pattern cuts no text ({reason}): "
                "restore it or download it again."
            ) from None
        if lost:
            raise UserError(
                f"{path} makes no tokenizer, its pattern leaves out {lost[0]!r}: "
                "restore it or download it again."
            )
        return tokenizer

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Tokenizer:
        """The tokenizer of the model that `GPT.from_pretrained(name, **options)` opens."""
        return import_module("ptx.hub.pretrained").tokenizer_of(name, **options)


def fault_of(ranks: dict[bytes, int], eot: int, n_vocab: int) -> str:
    """What keeps `ranks` from being a vocabulary, as a clause; "" if nothing does."""
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        return f"byte {missing[0]} has no token"
    if b"" in ranks:
        return f"token {ranks[b'']} has no bytes"
    ids = set(ranks.values())
    if len(ids) < len(ranks):
        return "two of its tokens have one id"
    if not 0 <= min(ids) <= max(ids) < n_vocab:
        return f"its ids are not all between 0 and {n_vocab - 1:,}"
    return f"its id {eot} is end-of-text's" if eot in ids else ""


def is_record(record: object) -> bool:
    """Whether this is a `Tokenizer.record()`, of a size that fits in memory."""
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(key), str) for key in ("name", "pattern", "fingerprint"))
        and all(isinstance(record.get(key), int) for key in ("eot", "n_vocab"))
        and 0 <= record["eot"] < record["n_vocab"] <= MOST_TOKENS
    )


def rank_lines(ranks: dict[bytes, int]) -> bytes:
    """Ranks in tiktoken's file format, in the order of their ids."""
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ordered)


def read_ranks(path: Path) -> dict[bytes, int]:
    """Ranks from a file in tiktoken's format. Raises UserError naming the file."""
    try:
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a tiktoken vocabulary ({error}).") from None


@lru_cache(maxsize=4)
def get_tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `name`.

    Args:
        name: "py16k" or "py4k" (shipped, for Python), "o200k_base" (tiktoken's, downloaded once),
            or a directory: a tokenizer's or data directory that `prepare/run.py` wrote, or a
            model's.
    """
    if name in SHIPPED:
        ranks = read_ranks(Path(__file__).with_name("py16k.tiktoken"))
        last = SHIPPED[name] - 1  # end-of-text
        return python_tokenizer(name, {token: rank for token, rank in ranks.items() if rank < last})
    if name == "o200k_base":
        return o200k_base()
    if Path(name).is_dir():
        return tokenizer_in(Path(name))
    raise UserError(
        f"Unknown tokenizer {name!r}: use py16k, py4k, o200k_base, a directory written by "
        "prepare/run.py tokenizer, or a model directory."
    )


def python_tokenizer(name: str, ranks: dict[bytes, int]) -> Tokenizer:
    """A tokenizer with the split pattern for Python; `<|endoftext|>` is its last id."""
    return Tokenizer(name, PYTHON_PATTERN, ranks, eot=len(ranks), n_vocab=len(ranks) + 1)


def o200k_base() -> Tokenizer:
    """tiktoken's o200k_base, in which the ids 199,998 and 200,000 to 200,017 are unassigned."""
    try:
        parts = openai_public.o200k_base()
    except Exception:  # whatever requests, urllib or the file system raise
        raise UserError(
            "The vocabulary of o200k_base is not on this machine and cannot be downloaded: go "
            "online once, or set TIKTOKEN_CACHE_DIR to a directory that holds tiktoken's copy."
        ) from None
    return Tokenizer(
        "o200k_base",
        parts["pat_str"],
        parts["mergeable_ranks"],
        eot=parts["special_tokens"][END_OF_TEXT],
        n_vocab=max(parts["special_tokens"].values()) + 1,
        bulk=o200k_bulk,
    )


# Letters, marks and numbers that are new in Unicode 17: toktok's tables and tiktoken's differ here.
NEW_CHARACTERS = re.compile(
    "[\u088f\u0c5c\u0cdc\u1acf-\u1add\u1ae0-\u1aeb\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1"
    "\U00010940-\U00010959\U00010ec5-\U00010ec7\U00010efa\U00010efb\U00011b60-\U00011b67"
    "\U00011db0-\U00011ddb\U00011de0-\U00011de9\U00016ea0-\U00016eb8\U00016ebb-\U00016ed3"
    "\U00016ff2-\U00016ff6\U000187f8-\U000187ff\U00018d09-\U00018d1e\U00018d80-\U00018df2"
    "\U0001e6c0-\U0001e6de\U0001e6e0-\U0001e6f5\U0001e6fe\U0001e6ff\U0002b73a-\U0002b73f"
    "\U0002cea2-\U0002cead\U000323b0-\U00033479]"
)
NEW_FIRST_BYTES = (b"\xe0", b"\xe1", b"\xea", b"\xf0")  # of those characters in UTF-8


def o200k_bulk(text: str) -> np.ndarray | None:
    """tiktoken's ids ten times as fast, by toktok; None where they may differ."""
    if not text.isascii():
        data = text.encode("utf-8")  # searched for their first bytes, which is faster
        if any(first in data for first in NEW_FIRST_BYTES) and NEW_CHARACTERS.search(text):
            return None
    return toktok_o200k().encode_to_numpy(text, disallowed_special=())


@lru_cache(maxsize=1)
def toktok_o200k() -> Any:
    import toktok

    return toktok._encoding("o200k_base")  # its public functions only count the ids


def tokenizer_in(directory: Path) -> Tokenizer:
    """The tokenizer of a directory whose manifest, or configuration of a model, records it."""
    path = directory / MANIFEST_FILE
    if not path.exists() and (directory / CONFIG).exists():
        path = directory / CONFIG
    try:
        record = json.loads(path.read_text("utf-8"))["tokenizer"]
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: give a directory of prepare/run.py or a model directory (of a "
            "run, one of its checkpoints)."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} does not describe a tokenizer: give a directory of prepare/run.py or a model "
            "directory (of a run, one of its checkpoints)."
        ) from None
    return Tokenizer.load(directory, record)
