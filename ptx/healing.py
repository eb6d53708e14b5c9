"""Token boundary healing: a prompt may end anywhere.

The tokenizer merges `):` with the newline and indentation that follow it, and `fibona` with `cci`,
so the tokens of a prompt are often not the first tokens of the whole text. What continues it is
drawn from the model's distribution over *canonical* token sequences (those with which the encoding
of some text begins), conditioned on the text beginning with the prompt's bytes.
Source: the covering of a string by tokens in Vieira et al., "From language models over tokens to
language models over characters" (2024), and Phan et al., "Exact byte-level probabilities from
tokenized language models" (2024); here of canonical sequences only.

Which these are follows from how a text is encoded: a regular expression cuts it into pieces, and
byte pairs are merged inside each piece.

 - A sequence is what its piece is merged into exactly if that holds for every two neighbours in it
   (van Antwerpen and Neubeck, "So many tokens, so little time", 2024). So each start of a piece
   has one canonical sequence, and one table of neighbours tells what may follow it.
 - The expression sees kinds of characters (letter, digit, white space, ...), so what it does with
   a continuation is known for all tokens that spell the same kinds: 315 in py16k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product, takewhile

import numpy as np
import regex  # tiktoken requires it; the standard library's knows no \p{L}
import torch
from torch import Tensor

from ptx.kinds import Kinds
from ptx.merges import last_merge
from ptx.tokenizer import INVALID_BYTES, Tokenizer

OPEN_PIECES = 3
"""How many of the last pieces of a prompt may be cut anew by what follows. Two in the patterns here
(`)` and the blanks after it are one piece before a newline), and one to spare for others."""

MAX_TAKEN_BACK = 2048
"""Bytes, more than three pieces of the pattern for Python. Under a pattern without such a bound
the last tokens of a longer end are open as if a piece began with them: what is drawn may then be
merged otherwise with the token before, and nothing else changes."""

PROBES = ("", "s", "1", " ", "\n", "(", "S", "e", "l", "\r\n")
"""What a pattern may look at behind a piece: characters of each kind, letters of contractions."""

Node = tuple[int, ...]
"""Tokens after `OpenEnd.kept`, inside the prompt."""
Cuts = tuple[int, ...]
"""Where pieces begin in a window of text, in characters; the last begins the piece that goes on
behind the window, or is the window's length."""


@dataclass(frozen=True)
class OpenEnd:
    """The end of a prompt, open again.

    kept: the tokens of the prompt that stay whatever follows.
    path: the prompt's own tokens after them.
    nodes: what may come after `kept` inside the prompt, a tree: every start of a node is a node.
        First `path[:j]` for j = 0..len(path), then those that need other text to follow
        (`[fib, on]` for `fibona`, before `acci`).
    node, token: (n,) int64. What reaches beyond the prompt: `kept + nodes[node[i]] + [token[i]]`.
    """

    kept: list[int]
    path: list[int]
    nodes: list[Node]
    node: Tensor
    token: Tensor

    def leaves(self) -> list[tuple[Node, list[int]]]:
        """Sequences that pass through all nodes, the path first, each with the numbers of the nodes
        on it: the model's logits after `kept + leaf[:j]` are those of node `numbers[j]`."""
        number = {node: j for j, node in enumerate(self.nodes)}
        inner = {node[:-1] for node in self.nodes if node}
        ends = [self.nodes[len(self.path)]]
        ends += [node for node in self.nodes if node not in inner and node != ends[0]]
        return [(end, [number[end[:j]] for j in range(len(end) + 1)]) for end in ends]


@dataclass(frozen=True)
class Candidates:
    """What may be the first token beyond the prompt; no text begins with two of them.

    node: (n,) int64, the index in `OpenEnd.nodes`; on the path that is the number of its tokens.
    token: (n,) int64; its bytes begin with what the node lacks of the prompt, and go on. After the
        whole path end-of-text is one too.
    logprob: (n,) float64, natural logarithm: of the node's tokens and this one, given `kept`. The
        probabilities sum to that of the prompt's open bytes (times that of staying canonical).
    """

    node: Tensor
    token: Tensor
    logprob: Tensor

    def together(self, rows: Tensor) -> Tensor:
        """(V,) logits of the first token beyond the prompt, whatever the way to it; -inf for one
        that does not go on with the prompt. rows: those that `Healer.candidates` was given.

        The likeliest way keeps the model's own logit, whose sign a repetition penalty looks at.
        """
        best = self.logprob.argmax()
        weights = (self.logprob - self.logprob[best]).exp()  # (n,)
        mass = weights.new_zeros(rows.shape[-1]).index_add_(0, self.token, weights)  # (V,)
        return (mass.log() + rows[self.node[best], self.token[best]]).float()


class Healer:
    """Answers, for one tokenizer, how a text may go on. Reads the whole vocabulary: keep it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._bytes = [tokenizer.token_bytes(i) for i in range(tokenizer.n_vocab)]
        self._ranks = {token: i for i, token in enumerate(self._bytes) if token}
        self._longest = max(map(len, self._bytes))
        # A byte that is not UTF-8 is its own token anywhere.
        self._invalid = np.array([self._ranks[bytes([b])] for b in range(128, 256)])
        self._pattern = regex.compile(tokenizer.pattern)
        self._kinds = Kinds(tokenizer.pattern)
        self._probes = list(dict.fromkeys(map(self._kinds, PROBES)))
        self._spellings, self._spelling = self._by_spelling()
        self._left, self._levels = self._last_merges()
        self._cuts = lru_cache(maxsize=1 << 10)(self._find_cuts)
        self._answers = lru_cache(maxsize=1 << 10)(self._no_answers)
        self._merging = lru_cache(maxsize=256)(self._find_merging)
        self._neighbours = lru_cache(maxsize=256)(self._find_neighbours)

    def open_end(self, text: str) -> OpenEnd:
        """What may follow `text` under any model. A window at its end decides that."""
        data = text.encode("utf-8", "surrogatepass")
        ids = self.tokenizer.encode(data)
        kept, window = self._window(data, ids)
        path = tuple(ids[kept:])
        found = {path: [np.append(self._invalid, self.tokenizer.eot)]}
        ways = self._cuts(self._kinds(window))
        same = takewhile(lambda cuts: len(set(cuts)) == 1, zip(*ways, strict=False))
        settled = len(list(same))
        for cuts in ways:
            for node, tokens in self._beyond(window, cuts, settled):
                found.setdefault(node, []).append(tokens)
        # What all begin with stays as well.
        while () not in found and len({node[0] for node in found}) == 1:
            found = {node[1:]: tokens for node, tokens in found.items()}
            path = path[1:]
        nodes = [path[:j] for j in range(len(path) + 1)]
        starts = {node[:j] for node in found for j in range(len(node) + 1)}
        nodes += sorted(starts - set(nodes))
        tokens = [self._all_of(found.get(node, [])) for node in nodes]
        sizes = [len(some) for some in tokens]
        return OpenEnd(
            kept=ids[: len(ids) - len(path)],
            path=list(path),
            nodes=nodes,
            # torch's would wake a thread, which then spins for a while, in the way of the next step
            node=torch.from_numpy(np.arange(len(nodes)).repeat(sizes)),
            token=torch.from_numpy(np.concatenate(tokens).astype(np.int64)),
        )

    def candidates(self, logits: Tensor, end: OpenEnd) -> Candidates:
        """How likely each continuation is.

        logits: (len(end.nodes), V); row j holds the model's after `end.kept + end.nodes[j]`.
        """
        if len(logits) != len(end.nodes):
            raise ValueError(f"{len(end.nodes)} rows of logits are needed, not {len(logits)}")
        logits = logits.float().cpu()
        norms = logits.logsumexp(-1).double()  # (nodes,)
        number = {node: j for j, node in enumerate(end.nodes)}
        so_far = torch.zeros_like(norms)
        for j in sorted(range(1, len(end.nodes)), key=lambda j: len(end.nodes[j])):
            parent, token = number[end.nodes[j][:-1]], end.nodes[j][-1]
            so_far[j] = so_far[parent] + logits[parent, token] - norms[parent]
        logprob = (so_far - norms)[end.node] + logits[end.node, end.token]
        return Candidates(end.node, end.token, logprob)

    def _all_of(self, some: list[np.ndarray]) -> np.ndarray:
        """The tokens in any of them, once each, in order."""
        there = np.zeros(len(self._bytes), dtype=bool)
        for tokens in some:
            there[tokens] = True
        return np.flatnonzero(there)

    # What may be encoded anew

    def _window(self, data: bytes, ids: list[int]) -> tuple[int, str]:
        """The end of the text that may be: how many tokens come before it, and the end itself."""
        # Invalid bytes stand alone, so the last of them ends what may.
        text = INVALID_BYTES.split(data.decode("utf-8", "surrogateescape"))[-1]
        size = len(text[self._starts(text)[-OPEN_PIECES - 1 :][0] :].encode())
        kept, end = len(ids), b""
        while len(end) < size and len(end) + len(self._bytes[ids[kept - 1]]) <= MAX_TAKEN_BACK:
            kept -= 1
            end = self._bytes[ids[kept]] + end
        while end and 0x80 <= end[0] < 0xC0:  # a character begins before the bound
            end = end[len(self._bytes[ids[kept]]) :]
            kept += 1
        return kept, end.decode()

    def _find_cuts(self, window: str) -> set[Cuts]:
        """How `window` may be cut into pieces, depending on what follows."""
        return {
            tuple(cut for cut in self._starts(window + a + b) if cut <= len(window))
            for a, b in product(self._probes, repeat=2)
        }

    def _beyond(self, window: str, cuts: Cuts, settled: int) -> Iterator[tuple[Node, np.ndarray]]:
        """With the window so cut: sequences of tokens inside it, and the tokens after each that
        reach beyond its end. settled: how many of the cuts are there whatever follows."""
        whole = [window[i:j].encode() for i, j in pairwise(cuts)]
        before = tuple(token for piece in whole for token in self._merge(piece))
        rest = window[cuts[-1] :].encode()
        # Patterns do not look back, so what is settled need not be cut again.
        start = cuts[settled - 1]
        kinds = self._kinds(window[start:])
        cuts = tuple(cut - start for cut in cuts[settled - 1 :])
        for k in range(max(0, len(rest) - self._longest), len(rest) + 1):
            tokens = self._longer_than(rest[k:])
            tokens = tokens[self._fitting(kinds, cuts, tokens, rest[k:])]
            node = self._merge(rest[:k])
            if node and len(tokens):
                tokens = tokens[self._neighbours(node[-1])[tokens]]
            if len(tokens):
                yield before + node, tokens

    def _merge(self, piece: bytes) -> Node:
        return tuple(self.tokenizer.merge(piece)) if piece else ()

    def _longer_than(self, start: bytes) -> np.ndarray:
        """The tokens (n,) that begin with `start` and go on."""
        tokens = self.tokenizer.beginning_with(start)
        return tokens[1:] if start in self._ranks else tokens

    # How the pattern cuts

    def _starts(self, text: str) -> list[int]:
        """Where pieces begin, and where the last one ends."""
        return [0, *[match.end() for match in self._pattern.finditer(text)]]

    def _no_answers(self, _window: str, _cuts: Cuts) -> dict[str, bool]:
        """To be filled in by `_failing`."""
        return {}

    def _failing(self, window: str, cuts: Cuts, new: str, known: dict[str, bool]) -> str | None:
        """The shortest start of `new` for which no text that begins with `window` and it is cut at
        `cuts` and then not before its end; None if there is none. known: of this window so cut,
        for which starts some text is."""
        # Nearly always the first character decides, or nothing fails.
        for size in (*range(1, min(2, len(new))), len(new), *range(2, len(new))):
            start, end = new[:size], len(window) + size
            if start not in known:
                probed = (self._is_cut(window + start + probe, cuts, end) for probe in self._probes)
                known[start] = any(probed)
            if known[start] == (size == len(new)):
                return None if known[start] else start
        return new

    def _is_cut(self, text: str, cuts: Cuts, end: int) -> bool:
        """Whether the pattern cuts a text at `cuts`, and then not before `end`."""
        for start, stop in pairwise(cuts):
            piece = self._pattern.match(text, start)
            if not piece or piece.end() != stop:
                return False
        last = self._pattern.match(text, cuts[-1])
        return last.end() >= end if last else cuts[-1] >= end

    def _fitting(self, window: str, cuts: Cuts, tokens: np.ndarray, known: bytes) -> np.ndarray:
        """Which (n,) bool of `tokens` may go on behind `window` with what follows `known`, with
        which they all begin."""
        answers = self._answers(window, cuts)
        try:
            skip = len(known.decode())
        except UnicodeDecodeError:  # they begin inside a character, and are few
            new = [self._kinds.spellings(self._bytes[token][len(known) :]) for token in tokens]
            fits = [
                any(self._failing(window, cuts, one, answers) is None for one in some)
                for some in new
            ]
            return np.array(fits, dtype=bool)
        numbers = self._spelling[tokens]
        asked, fits = np.zeros((2, len(self._spellings)), dtype=bool)
        asked[numbers] = True
        failing, longer = None, ""
        # backwards: of those that begin alike the longer ones first
        for number in np.flatnonzero(asked)[::-1].tolist():
            for one in self._spellings[number]:
                new = one[skip:]
                if longer.startswith(new):
                    fits[number] = True
                elif failing is None or not new.startswith(failing):
                    failing = self._failing(window, cuts, new, answers)
                    if failing is None:
                        fits[number], longer = True, new
        return fits[numbers]

    def _by_spelling(self) -> tuple[list[tuple[str, ...]], np.ndarray]:
        """The different spellings of tokens, in order, so that those that begin alike stand
        together; and the number (V,) of each token's."""
        of = [self._kinds.spellings(token) if token else () for token in self._bytes]
        different = sorted(set(of))
        number = {spellings: i for i, spellings in enumerate(different)}
        return different, np.array([number[spellings] for spellings in of])

    # How the byte pairs of a piece are merged

    def _last_merges(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The left half (V,) in the last merge of each token, -1 if there is none; and the other
        tokens by their distance (1, 2, ...) from those that have none, going to the left."""
        left = np.full(len(self._bytes), -1)
        distance = np.zeros(len(self._bytes), dtype=np.int64)
        for token, rank in self._ranks.items():
            if halves := last_merge(self._ranks, token):
                left[rank] = self._ranks[halves[0]]
                distance[rank] = distance[left[rank]] + 1
        return left, [np.flatnonzero(distance == d) for d in range(1, distance.max() + 1)]

    def _find_merging(self, left: bytes) -> tuple[np.ndarray, np.ndarray]:
        """The tokens (n,) with which `left` merges, and into which (n,)."""
        into = self._longer_than(left)
        right = [self._ranks.get(self._bytes[rank][len(left) :], -1) for rank in into.tolist()]
        right = np.array(right, dtype=np.int64)
        return right[right >= 0], into[right >= 0]

    def _find_neighbours(self, token: int) -> np.ndarray:
        """The tokens, a mask (V,), that are still there after `token` when the bytes of both are
        merged.

        The others have a start that merges with an end of `token` earlier (into a lower rank) than
        these two grow: merges come in the order of their ranks, of the same rank from the left.
        """
        never = len(self._bytes)
        earliest = np.full(never, never)  # (V,) of the merges of each start with an end of `token`
        end, grows = token, never
        while True:
            start, into = self._merging(self._bytes[end])
            start, into = start[into < grows], into[into < grows]
            earliest[start] = np.minimum(earliest[start], into)
            if self._left[end] < 0:
                break
            grows = end
            end = self._ranks[self._bytes[end][len(self._bytes[self._left[end]]) :]]
        gone = np.zeros(never, dtype=bool)
        for tokens in self._levels:
            start = self._left[tokens]
            gone[tokens] = gone[start] | (earliest[start] <= tokens)
        return ~gone & (earliest == never)


@lru_cache(maxsize=4)
def healer(tokenizer: Tokenizer) -> Healer:
    """The one of this tokenizer."""
    return Healer(tokenizer)
