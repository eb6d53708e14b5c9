"""What would come after a prompt, before anything is written: its end is open.

The model's answer after the last token of a prompt is not what the first new token is drawn from:
generation weighs all ways to cut the prompt's end (`ptx.healing`). This works the same out for a
reader, on the traces that other questions need anyway.
"""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor

from ptx import lens
from ptx.playground.served import Served
from ptx.playground.traces import Seen
from ptx.stream import healer, visible_from


def after_prompt(
    served: Served, text: str, ids: list[int], mute: lens.Mute
) -> tuple[Tensor, Seen] | None:
    """(V,) logits that the first new token after `text` is drawn from, and the window in which the
    likeliest way to cut its end makes the choice; None where the end is not open, or where `ids`
    are not the tokens of the text.
    """
    tokenizer, context = served.tokenizer, served.context
    if ids != [tokenizer.eot, *tokenizer.encode(text)]:
        return None
    end = healer(tokenizer).open_end(text)
    longest = max(map(len, end.nodes))
    if len(end.nodes) == 1 or longest >= context // 2:  # as `Stream` has it
        return None
    kept = [tokenizer.eot, *end.kept]
    start = visible_from(len(kept) + longest, context)
    window = kept[start:]
    rows = torch.empty(len(end.nodes), served.model.config.vocab_size)
    [own, *others] = end.leaves()
    trace = _read(served, window, own, mute, rows)
    for leaf in others:
        _read(served, window, leaf, mute, rows)
    found = healer(tokenizer).candidates(rows, end)
    best = end.nodes[int(found.node[found.logprob.argmax()])]
    # A way that leaves the prompt's own tokens is seen where it does.
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(best, end.path))))
    return found.together(rows), Seen(start, len(kept) + same, trace)


@torch.no_grad()
def _read(
    served: Served,
    window: list[int],
    leaf: tuple[tuple[int, ...], list[int]],
    mute: lens.Mute,
    rows: Tensor,
) -> lens.Trace:
    """Fills the rows of the nodes on one way through the open end."""
    tokens, numbers = leaf
    text = [*window, *tokens]
    trace = served.traces.at(text, len(text), mute).trace
    first = len(window) - 1
    final = trace.final[first : first + len(numbers)]  # (nodes, C)
    rows[numbers] = trace.head(final).float().cpu()
    return trace
