"""Byte-level BPE in two dialects: our ranks (tiktoken's) and the merges of a tokenizer.json.

Ranks let any two neighbours merge whose bytes are a token; merges list the pairs that may. They
agree whenever each token's own bytes, merged by ranks, end in a pair that is listed: that pair
makes the token in every text (see `ptx.healing`: the inside of a token does not depend on what is
around it).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ptx.errors import UserError
from ptx.merges import last_merge
from ptx.tokenizer import END_OF_TEXT, MOST_TOKENS, Tokenizer

TOKENIZER_JSON = "tokenizer.json"

# What transformers' ByteLevel cuts by, from GPT-2.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same between numbers that were cut out before, so a number ends a run of white space as the
# end of the text does.
AROUND_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

# The part of regular expressions that all engines in question read alike.
ESCAPES = re.compile(r"\\(?:p\{\w{1,2}\}|P\{\w{1,2}\}|[sSrnt]|[^\w\s])")


@cache
def alphabet() -> dict[int, str]:
    """{byte: the printable character that stands for it in a tokenizer.json}, GPT-2's."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }


def spelled(token: bytes) -> str:
    letters = alphabet()
    return "".join(letters[byte] for byte in token)


@cache
def _bytes_of() -> dict[str, int]:
    return {letter: byte for byte, letter in alphabet().items()}


def unspelled(text: str) -> bytes:
    """Raises KeyError for a character that stands for no byte."""
    letters = _bytes_of()
    return bytes(letters[letter] for letter in text)


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """`tokenizer` for transformers: the same ids for every text. It puts end-of-text before one, as
    all our models expect, unless asked not to (`add_special_tokens=False`)."""
    every = ((tokenizer.token_bytes(i), i) for i in range(tokenizer.n_vocab))
    ranks = {token: i for token, i in every if token}
    pairs = (last_merge(ranks, token) for token in sorted(ranks, key=ranks.__getitem__))
    end = {"id": END_OF_TEXT, "ids": [tokenizer.eot], "tokens": [END_OF_TEXT]}
    first = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    text = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": tokenizer.eot,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": tokenizer.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": False,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text[0]],
            "pair": [first, *text],
            "special_tokens": {END_OF_TEXT: end},
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": False,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a piece that is a token is that token, as in tiktoken
            # end-of-text too: its id may be anywhere
            "vocab": {spelled(t): i for t, i in ranks.items()} | {END_OF_TEXT: tokenizer.eot},
            "merges": [[spelled(left), spelled(right)] for left, right in filter(None, pairs)],
        },
    }


@dataclass(frozen=True)
class Converted:
    """A tokenizer from elsewhere, and what a person should know about it."""

    tokenizer: Tokenizer
    notes: list[str]


def read_tokenizer(directory: Path, name: str, n_vocab: int, eos: list[int]) -> Converted:
    """The byte-level BPE of a tokenizer.json, giving the same ids to every text (of its special
    tokens written in a text aside, which are text here).

    n_vocab: rows of the model's embedding; ids that no token has stay unassigned.
    eos: the end-of-text ids that the model's configuration names.
    Raises UserError naming the first field that P-Transformer has no equal for.
    """
    path = directory / TOKENIZER_JSON
    try:
        return _converted(path, json.loads(path.read_text("utf-8")), name, n_vocab, eos)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: save the tokenizer with transformers' "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) first, which writes it"
        ) from None
    except UserError:
        raise
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise UserError(
            f"{path} is not a byte-level BPE tokenizer ({type(error).__name__}: {error})"
        ) from None


def _converted(
    path: Path, found: dict[str, Any], name: str, n_vocab: int, eos: list[int]
) -> Converted:
    model, added = found["model"], found.get("added_tokens") or []
    special = {str(token["content"]): int(token["id"]) for token in added}
    notes = _check_normalizer(path, found.get("normalizer"))
    _check_model(path, model)
    _check_added(path, added)
    pattern = _pattern(path, found.get("pre_tokenizer"))
    eot = _end_of_text(path, special, eos)
    _check_begin(path, found.get("post_processor"), special, eot)
    ranks = _ranks(path, model, set(special))
    if not max(ranks.values()) < n_vocab <= MOST_TOKENS or eot >= n_vocab:
        raise UserError(f"{path} has ids beyond the {n_vocab:,} rows of the model's embedding")
    return Converted(Tokenizer.checked(path, name, pattern, ranks, eot, n_vocab), notes)


def _check_normalizer(path: Path, normalizer: Any) -> list[str]:
    if normalizer is None:
        return []
    if normalizer == {"type": "NFC"}:
        return ["the tokenizer's Unicode normalization (NFC) is left out: text stays as it is"]
    raise _differs(path, "normalizer", normalizer, "none")


def _check_model(path: Path, model: dict[str, Any]) -> None:
    for field, wanted in {
        "type": "BPE",
        "dropout": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "byte_fallback": False,
    }.items():
        if (model.get(field, wanted) or wanted) != wanted:
            raise _differs(path, f"model.{field}", model[field], repr(wanted))


def _check_added(path: Path, added: list[dict[str, Any]]) -> None:
    """Tokens beside the merges are only met where a text spells them, `<|like_this|>`."""
    for token in added:
        content = str(token["content"])
        if not token.get("special") and not re.fullmatch(r"[<\[].+[>\]]", content, re.DOTALL):
            raise _differs(path, "added_tokens", content, "only tokens written <like this>")


def _check_begin(path: Path, processor: Any, special: dict[str, int], eot: int) -> None:
    """What is put before a text has to be end-of-text, as it is here."""
    parts = processor["processors"] if (processor or {}).get("type") == "Sequence" else [processor]
    for part in parts:
        if part is None or part["type"] == "ByteLevel":
            continue
        if part["type"] != "TemplateProcessing":
            raise _differs(path, "post_processor", part["type"], "ByteLevel or TemplateProcessing")
        put = [piece["SpecialToken"]["id"] for piece in part["single"] if "SpecialToken" in piece]
        if any(special.get(name) != eot for name in put):
            raise _differs(path, "post_processor", f"puts {put[0]} into every text",
                           "end-of-text alone before one")  # fmt: skip


def _end_of_text(path: Path, special: dict[str, int], eos: list[int]) -> int:
    """What stands between two documents."""
    if END_OF_TEXT in special:
        return special[END_OF_TEXT]
    known = set(special.values())
    for token in eos:
        if token in known:
            return token
    raise _differs(path, "added_tokens", "no end-of-text", "one, as eos_token_id names it")


def _pattern(path: Path, pre_tokenizer: Any) -> str:
    """How text is cut into pieces, as one expression."""
    found = pre_tokenizer or {}
    steps = found["pretokenizers"] if found.get("type") == "Sequence" else [found]
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise _differs(path, "pre_tokenizer", found, "ByteLevel without a prefix space last")
    gpt2 = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and gpt2:
        return GPT2_PATTERN
    if kinds == ["Digits", "ByteLevel"] and gpt2:
        number = r"\p{N}" if steps[0].get("individual_digits") else r"\p{N}+"
        return f"{number}|{AROUND_DIGITS}"
    if kinds == ["Split", "ByteLevel"] and not gpt2:
        return _split_pattern(path, steps[0])
    raise _differs(
        path, "pre_tokenizer", kinds, "ByteLevel, Digits and ByteLevel, or Split and ByteLevel"
    )


def _split_pattern(path: Path, split: dict[str, Any]) -> str:
    pattern = split.get("pattern", {}).get("Regex")
    if split.get("behavior") != "Isolated" or split.get("invert") or not isinstance(pattern, str):
        raise _differs(path, "pre_tokenizer", split, "Split by a Regex, Isolated, not inverted")
    if "\\" in ESCAPES.sub("", pattern) or "[[" in pattern or "&&" in pattern:
        raise _differs(path, "pre_tokenizer", pattern, "classes \\p{..} and \\s only")
    return pattern


def _ranks(path: Path, model: dict[str, Any], special: set[str]) -> dict[bytes, int]:
    """Ranks under which every text is merged as the listed merges do."""
    vocab = {str(token): int(i) for token, i in model["vocab"].items()}
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    # Whether a piece that is a token is that token, whatever its bytes merge into.
    whole_pieces = bool(model.get("ignore_merges"))
    try:
        spelled_out = {unspelled(token): i for token, i in vocab.items() if token not in special}
        pairs = [(unspelled(left), unspelled(right)) for left, right in merges]
    except KeyError as error:
        raise _differs(path, "model.vocab", error.args[0], "bytes in GPT-2's spelling") from None
    except ValueError:
        raise UserError(f"{path}: model.merges has an entry that is no pair") from None
    listed: dict[bytes, set[bytes]] = {}  # token: its left halves
    before = -1
    for left, right in pairs:
        token = left + right
        if token not in spelled_out or spelled_out[token] < before:
            raise _differs(path, "model.merges", f"{spelled(token)} out of order", "ids in order")
        before = spelled_out[token]
        listed.setdefault(token, set()).add(left)
    ranks = {
        token: i
        for token, i in spelled_out.items()
        # a token that no merge makes comes only as a whole piece
        if len(token) == 1
        or token in listed
        or (whole_pieces and last_merge(spelled_out, token) is None)
    }
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise _differs(path, "model.vocab", f"no token for byte {missing[0]}", "all 256 bytes")
    for token, lefts in listed.items():
        merge = last_merge(ranks, token)
        if merge is None or merge[0] not in lefts:
            raise _differs(
                path, "model.merges", f"{spelled(token)} not from its likeliest halves", "ranks"
            )
    return ranks


def _differs(path: Path, field: str, have: Any, want: str) -> UserError:
    shown = str(have)
    shown = shown if len(shown) <= 120 else shown[:119] + "…"
    return UserError(f"{path}: {field} is {shown}, and P-Transformer takes {want}")
