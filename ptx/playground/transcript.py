"""A text on its way to the page: one line of JSON per token, only ever appended to.

Gradio sends the difference between two yields; for a string that grew it is the new end alone, so
a long text costs no more per token than a short one.
"""

from __future__ import annotations

import codecs
import json

from ptx.sampling import Choice
from ptx.tokenizer import Tokenizer

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Transcript:
    """Turns the tokens of a text into lines `[id, text, probability, own, bits, bytes,
    refused, dead]`, of which the last three may be left out.

    text: what the token adds; a character split over tokens arrives whole, with its last token.
    probability: what it was drawn with, after the knobs; null for a token that was not drawn.
    own: how many UTF-16 units of `text`, which is what JavaScript counts, belong to the prompt.
    bits: how surprised the model was, before the knobs; null if nobody asked it.
    bytes: only for a token that is not whole UTF-8 characters, as Python writes it: "b'\\xf0'".
    refused: [[id, text], ...] of tokens that were drawn before it, but with which the text could
        not become Python; dead: the ids of all that could not come for that.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        self._lines: list[str] = []
        self._tokenizer = tokenizer
        self._prompt = prompt.encode("utf-8", "surrogatepass")
        self._read = 0  # bytes of the tokens so far
        self._count = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def lines(self) -> str:
        """All of them."""
        self._lines = ["".join(self._lines)]  # once for a frame, not for every token
        return self._lines[0]

    def extend(
        self,
        ids: list[int],
        probability: float | None = None,
        bits: float | None = None,
        choice: Choice | None = None,
    ) -> None:
        """Adds what is new in `ids`, all tokens so far; all else is about the last one."""
        new = ids[self._count :]
        if not new:
            return
        self._lines += [self._line(token) for token in new[:-1]]
        self._lines.append(self._line(new[-1], probability, bits, choice))
        self._count = len(ids)

    def close(self) -> None:
        """Adds what a text that ends inside a character leaves over."""
        if rest := self._decoder.decode(b"", final=True):
            self._lines.append(_json([None, rest, None, 0, None]))

    def _line(
        self,
        token: int,
        probability: float | None = None,
        bits: float | None = None,
        choice: Choice | None = None,
    ) -> str:
        data = self._tokenizer.token_bytes(token)
        in_prompt = max(0, len(self._prompt) - self._read)
        own = self._decoder.decode(data[:in_prompt])
        text = own + self._decoder.decode(data[in_prompt:])
        self._read += len(data)
        line = [token, text, _rounded(probability), _units(own), _rounded(bits)]
        whole = text.encode("utf-8", "surrogatepass") == data
        refused = choice.refused if choice else ()
        if refused or not whole:
            line.append(None if whole else repr(data))
        if refused:
            texts = [[other, self._tokenizer.text([other])] for other in refused]
            line += [texts, choice.dead]
        return _json(line)


def _json(line: list[object]) -> str:
    return _ENCODER.encode(line) + "\n"


def _rounded(value: float | None) -> float | None:
    """Six significant digits: unlikely tokens are drawn too, and 99.999 % is not certain."""
    return None if value is None else float(f"{value:.6g}")


def _units(text: str) -> int:
    """Length in JavaScript's eyes."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
