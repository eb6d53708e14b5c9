"""The first new token after a prompt, whose end is open.

The model's answer after the last token of a prompt is not what the first new token is drawn from:
generation weighs all ways to cut the prompt's end (`ptx.healing`). This works the same out for a
reader, before and after that token is there, with any heads muted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from ptx import lens
from ptx.healing import OpenEnd, healer
from ptx.playground.served import Served
from ptx.playground.traces import Seen
from ptx.stream import visible_from

AT_ONCE = 8
"""Muted sets that are read together."""


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt with more than one way to go on, under one model."""

    served: Served
    end: OpenEnd
    start: int
    """Index of the first token that the model sees."""
    window: list[int]
    """What it sees of the tokens that stay whatever follows."""
    at: int
    """Index of the first new token in a text that begins with the prompt."""

    def after(self, mute: lens.Mute) -> tuple[Tensor, Seen]:
        """(V,) logits that the first new token is drawn from, and the window in which the likeliest
        way to cut the end makes the choice. On the traces that other questions need anyway."""
        served, rows = self.served, self._rows(1)[0]
        first = len(self.window) - 1
        traces = []
        for leaf, numbers in self.end.leaves():
            text = [*self.window, *leaf]
            trace = served.traces.at(text, len(text), mute).trace
            final = trace.final[first : first + len(numbers)]  # (nodes, C)
            with torch.no_grad():
                rows[numbers] = trace.head(final).float().cpu()
            traces.append(trace)
        found = healer(served.tokenizer).candidates(rows, self.end)
        best = self.end.nodes[int(found.node[found.logprob.argmax()])]
        # A way that leaves the prompt's own tokens is seen where it does.
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(best, self.end.path))))
        seen = Seen(self.start, self.start + len(self.window) + same, traces[0])
        return found.together(rows), seen

    def logprobs(self, mutes: Sequence[lens.Mute]) -> Tensor:
        """(N, V) natural logarithms, one row for each muted set: what `after` says, of many."""
        return torch.stack([row for i in range(0, len(mutes), AT_ONCE)
                            for row in self._together(mutes[i : i + AT_ONCE])])  # fmt: skip

    @torch.no_grad()
    def _together(self, mutes: Sequence[lens.Mute]) -> Iterator[Tensor]:
        model = lens.muted(self.served.model, mutes)
        rows = self._rows(len(mutes))
        first = len(self.window) - 1
        for leaf, numbers in self.end.leaves():
            ids = torch.tensor([*self.window, *leaf], device=model.tok_emb.weight.device)
            hidden = model.hidden(ids.expand(len(mutes), -1))  # (n, T, C)
            final = hidden[:, first : first + len(numbers)]  # (n, nodes, C)
            rows[:, numbers] = model.head(final).float().cpu()
        for one in rows:
            found = healer(self.served.tokenizer).candidates(one, self.end)
            yield found.together(one).log_softmax(-1)

    def _rows(self, n: int) -> Tensor:
        """(n, nodes, V), to be filled."""
        return torch.empty(n, len(self.end.nodes), self.served.model.config.vocab_size)


def open_prompt(served: Served, text: str, ids: list[int]) -> OpenPrompt | None:
    """The prompt `text`, with which `ids` begin; None where its end is not open, or where they do
    not go on from it as a text that was continued does."""
    tokenizer, context = served.tokenizer, served.context
    end = healer(tokenizer).open_end(text)
    longest = max(map(len, end.nodes))
    if len(end.nodes) == 1 or longest >= context // 2:  # as `Stream` has it
        return None
    kept = [tokenizer.eot, *end.kept]
    at = _first_new(kept, end, ids)
    if at is None:
        return None
    start = visible_from(len(kept) + longest, context)
    return OpenPrompt(served, end, start, kept[start:], at)


def _first_new(kept: list[int], end: OpenEnd, ids: list[int]) -> int | None:
    """Where `ids` go beyond the prompt; their end where they are the prompt's own tokens."""
    n = len(kept)
    if ids[:n] != kept:
        return None
    if ids[n:] == end.path:
        return len(ids)
    for number, node in enumerate(end.nodes):
        at = n + len(node)
        if at < len(ids) and tuple(ids[n:at]) == node and ids[at] in end.token[end.node == number]:
            return at
    return None
