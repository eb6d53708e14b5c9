"""Reading: what the page is told about one position of one text, its cursor.

A text is a list of token ids that begins with end-of-text. The cursor stands on one of the others,
or one past the last; what is told about it is the choice that the model made there: how likely
every token was, where the heads looked, what the layers would have said. That is the output of the
position before, the query, in the window that the model saw (`ptx.stream.visible_from`).

Every question is one dict, any JSON; `model` in it is a key of `Models`, the page's first model if
left out. Every answer is a dict that JSON can hold; {"error": sentence} if the question is not one.
Bytes are in base64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ptx import lens
from ptx.errors import UserError
from ptx.playground.growth import growth_of
from ptx.playground.models import Models
from ptx.playground.openend import OpenPrompt, open_prompt
from ptx.playground.question import Question
from ptx.playground.recordings import Recordings
from ptx.playground.served import Served
from ptx.playground.told import (
    BITS,
    Answer,
    all_logits,
    base64,
    finite,
    grid,
    layers_of,
    likeliest,
    named,
    of_token,
    parts_of,
    role_of,
    row_of,
)
from ptx.playground.traces import Seen
from ptx.playground.transcript import Transcript
from ptx.sampling import CUT, Choice, Sampling
from ptx.stream import check_prompt, visible_from

BEST = 3
"""Tokens told of each layer."""
HEAD_ROWS = 2048
"""Rows of single heads in one answer."""
VIEWS = ("raw", "no sink", "weighted")
EVIDENCE = 16
"""Positions that a text must have for a role before the heads are judged on it alone."""
PATIENCE = 30.0
"""Seconds that a long computation waits for the one before it."""
PART = 1.0
"""Seconds after which a part of a long score is told."""


def answered(method: Callable[[Any, Question], Answer]) -> Callable[[Any, Any], Answer]:
    """A method for any JSON: the browser never learns of an exception, so it gets a sentence."""

    @wraps(method)
    def answer(self: Reading, request: Any) -> Answer:
        try:
            return method(self, Question(self.models, request))
        except UserError as error:
            return {"error": str(error)}

    return answer


class Reading:
    """Answers questions about any text under any model of the page. For any number of threads."""

    def __init__(self, models: Models, recordings: Recordings) -> None:
        self.models, self.recordings = models, recordings
        self._long = Lock()

    def ask(self, request: Any) -> Answer:
        """The question that `ask` in the request names; the one door for the browser."""
        name = request.get("ask") if isinstance(request, dict) else None
        methods = (self.tokens, self.score, self.look, self.maps, self.head, self.rows, self.price)
        questions = {method.__name__: method for method in methods}
        if not isinstance(name, str) or name not in questions:
            return {"error": f"ask must be one of: {', '.join(questions)}"}
        return questions[name](request)

    def door(self) -> Callable[[Any], Answer]:
        """`ask` as a function, which a panel can be given."""

        def ask(request: Any) -> Answer:
            return self.ask(request)

        return ask

    @answered
    def tokens(self, q: Question) -> Answer:
        """{text, ids = null} -> {ids, lines}: the text as the model reads it, end-of-text first; or
        the given ids, which begin with the text.

        lines: as those of `Transcript`.
        """
        text, tokenizer = q.text("text"), q.served.tokenizer
        check_prompt(text)
        ids = q.optional_ids or [tokenizer.eot, *tokenizer.encode(text)]
        transcript = Transcript(tokenizer, text)
        transcript.extend(ids)
        transcript.close()
        return {"ids": ids, "lines": transcript.lines}

    @answered
    def score(self, q: Question) -> Answer:
        """{ids, from = 0, muted = [], open = null} -> {start, bits, next}: what tokens cost.

        bits: of the tokens from `start` (which is `from`) on, each chosen in the window that
            generation would have seen; null for the first of the text, which nothing chooses.
        open: as in `look`.
        next: where to go on, null at the end: a long text is scored in parts of about a second.
        """
        ids, mute = q.ids, q.mute
        start = q.whole("from", 0, len(ids) - 1, 0)
        logprobs: list[float] = []
        first = next_ = max(1, start)
        until = time.monotonic() + PART
        while next_ < len(ids) and (not logprobs or time.monotonic() < until):
            # Up to here the window begins where it does for the first of these.
            end = min(len(ids), visible_from(next_, q.served.context) + q.served.context + 1)
            last = end == len(ids)  # the others are not looked at next
            seen = q.served.traces.at(ids, end - 1, mute, keep=last)
            logprobs += _logprobs(seen, ids[next_:end])
            next_ = end
        opened = _opened(q, ids)
        if opened and first <= opened.at < next_:
            choice = Choice(opened.after(mute)[0], Sampling())
            logprobs[opened.at - first] = choice.logprob(ids[opened.at])
        unknown = [None] if start == 0 else []
        return {
            "start": start,
            "bits": unknown + [finite(-x * BITS) for x in logprobs],
            "next": next_ if next_ < len(ids) else None,
        }

    @answered
    def look(self, q: Question) -> Answer:
        """{ids, at, against = null, muted = [], open = null} -> everything about the choice at
        `at`.

        at, start: the cursor, and the first token that the model saw.
        token, text, prob, bits, rank: of the token at the cursor; null at the end of the text.
        logits, low, step: uint16[V], `low + step * code`, where 65,535 is minus infinity.
        sharp, names: {ids: int32[n], logits: float32[n]} of the n = 256 likeliest tokens, exactly,
            best first, and their texts. Tokens that cannot come are left out.
        entropy: bits.
        open: the prompt as text, if what follows it was drawn with its end open.
        healed: the cursor is on the first token that goes beyond it, or at its end, and the
            probabilities are of all ways to cut that end. As long as there is no token, the row,
            the layers and the parts are those of the likeliest way.
        row: uint8[L][H][at - start], where each head looked; see `ptx.lens.quantize`.
        lens: {tokens: [L + 1][3] of {id, text, p}, prob: [L + 1], rank: [L + 1],
            followed: {id, text}}: after the embedding and after each block; followed is the token
            at the cursor, at the end the likeliest.
        parts: {token, against, embedding, heads: [L][H], mlps: [L], biases, total}: what lifted the
            followed token's logit above that of `against`, the likeliest other one if left out.
        """
        ids, mute, served = q.ids, q.mute, q.served
        at = q.cursor(ids)
        seen = served.traces.at(ids, at, mute)
        token = ids[at] if at < len(ids) else None
        drawn = None
        if (opened := _opened(q, ids)) and opened.at == at:
            drawn, way = opened.after(mute)
            seen = way if token is None else seen
        followed = int(drawn.argmax()) if token is None and drawn is not None else token
        layers = lens.logit_lens(served.model, seen.trace, seen.query, followed, BEST)
        choice = Choice(layers.logits[-1] if drawn is None else drawn, Sampling())
        against = q.token("against")
        if against is None:
            best, second = choice.logits.topk(2).indices.tolist()
            against = second if best == layers.token else best
        return {
            "at": at,
            "start": seen.start,
            **of_token(served.tokenizer, choice, token),
            **all_logits(choice.logits),
            **likeliest(served.tokenizer, choice.logits),
            "entropy": choice.entropy,
            "healed": bool((choice.logits == CUT).any()),
            "row": base64(lens.row(row_of(seen, at))),
            "lens": layers_of(served.tokenizer, layers),
            "parts": parts_of(served, seen, layers.token, against),
        }

    @answered
    def maps(self, q: Question) -> Answer:
        """{ids, at, view = "raw", muted = []} -> all heads, small, and what each one does.

        at, start: the window.
        side, thumbnails: uint8[L][H][side][side].
        scale: the weight that 255 stands for; 1, but for the view "weighted", where it is in the
            units of the residual stream.
        roles: [L][H] of {label, score, here}: score is the share of the way from even attention to
            a perfect head, of "first-token sink" the share of attention; label is "" where no
            role stands out. here: judged on this text, not on the reference text.
        """
        ids = q.ids
        at = q.cursor(ids)
        seen = q.served.traces.at(ids, at, q.mute)
        weights, scale = view_of(q, seen)
        L, H, T, _ = weights.shape
        roles, here = _roles(q.served, seen)
        return {
            "at": at,
            "start": seen.start,
            "side": lens.thumbnail_side(L * H, T),
            "thumbnails": base64(lens.thumbnails(weights)),
            "scale": scale,
            "roles": [
                [role_of(roles, here, layer, head) for head in range(H)] for layer in range(L)
            ],
        }

    @answered
    def head(self, q: Question) -> Answer:
        """{ids, at, layer, head, view = "raw", muted = [], exact = false} -> {at, start, triangle,
        scale}: one head, uint8 of its lower triangle row by row; scale as that of `maps`. exact:
        float32 instead, in the view's own units."""
        ids = q.ids
        at = q.cursor(ids)
        layer, head = q.head
        seen = q.served.traces.at(ids, at, q.mute)
        weights, scale = view_of(q, seen)
        if q.flag("exact"):
            size = weights.shape[-1]
            below = torch.ones(size, size, dtype=torch.bool).tril()
            cells = (weights[layer, head] * scale)[below].numpy().tobytes()
        else:
            cells = lens.triangle(weights[layer, head])
        return {"at": at, "start": seen.start, "triangle": base64(cells), "scale": scale}

    @answered
    def rows(self, q: Question) -> Answer:
        """{recording, start = 0, from = 0, size = 1, view = "raw", heads = {}} -> where the heads
        looked for the tokens of a text that is being written, as its pictures grow.

        start: the window's first token; all positions are in the window. from: the first position
            that is wanted of all heads, small. heads: {"layer.head": the first that is wanted of
            this one}. view: "raw" or "no sink".
        whole: false if rows are missing: the text has to be read.
        size: of the picture: as in the question, or more if so many tokens are there.
        from, end: the positions that are told, from the token before the first new one on at most;
            all of them, if the picture gets more room.
        top, band: its first row of pixels that is told, and uint8[L][H][n][side] of those from
            there on, side as in `maps`: to be joined by the larger value.
        heads: {"layer.head": {from, end, rows}}, uint8 of rows as those of `head`, 2,048 of all
            heads at most.
        """
        shape = q.served.model.config
        start, at = q.whole("start", 0, 2**31, 0), q.whole("from", 0, shape.context, 0)
        asked, view = q.whole("size", 1, shape.context, 1), q.one_of("view", VIEWS[:2])
        heads = q.heads_from
        growth = growth_of(self.recordings, q.text("recording"), start, shape)
        size = max(asked, growth.room)
        at = 0 if size > asked else at
        growth = growth.since(min([at, *heads.values()]))
        if view == "no sink":
            growth = growth.without_sink()
        shown, most = growth.since(at), HEAD_ROWS // max(1, len(heads))
        top, band = shown.band(size)
        large = {head: growth.since(position).at_most(most) for head, position in heads.items()}
        return {
            "whole": growth.whole,
            "size": size,
            "from": shown.first,
            "end": shown.end,
            "top": top,
            "band": base64(band.tobytes()),
            "heads": {
                f"{layer}.{head}": {
                    "from": part.first,
                    "end": part.end,
                    "rows": base64(part.of_head(layer, head)),
                }
                for (layer, head), part in large.items()
            },
        }

    @answered
    def price(self, q: Question) -> Answer:
        """{ids, at, muted = [], target = null, each = false, open = null} -> what muting costs, in
        bits.

        token: {id, text}: `target`, or the token at the cursor, at the end the likeliest.
        open: as in `look`; the loss is that of the tokens as they are.
        next, loss: how many bits more `token` costs, and a token of the window on average (null
            where there is none before the cursor).
        base_next, base_loss: what they cost in the whole model.
        each, each_loss: [L][H], the same for each head alone; null unless asked for.
        """
        ids, mute, served = q.ids, q.mute, q.served
        at = q.cursor(ids)
        token = q.token("target")
        if token is None and at < len(ids):
            token = ids[at]
        opened = _opened(q, ids)
        c = served.model.config
        mutes = [mute, *(lens.single_heads(c) if q.flag("each") else [])]
        if not self._long.acquire(timeout=PATIENCE):
            raise UserError("other visitors' heads are being muted: try again in a moment")
        try:
            window = ids[visible_from(at, c.context) : at]
            found = lens.ablate(served.model, window, mutes, token)
            if opened and opened.at == at:
                found = _at_open_end(found, opened.logprobs([lens.Mute(), *mutes]), token)
        finally:
            self._long.release()
        following = [finite(-x * BITS) for x in found.next_logprob.tolist()]
        loss = [finite(x * BITS) for x in found.loss.tolist()]
        return {
            "at": at,
            "token": named(served.tokenizer, found.token),
            "next": following[0],
            "loss": loss[0],
            "base_next": finite(-found.base_logprob * BITS),
            "base_loss": finite(found.base_loss * BITS),
            "each": grid(following[1:], c.n_head) if q.flag("each") else None,
            "each_loss": grid(loss[1:], c.n_head) if q.flag("each") else None,
        }


def _opened(q: Question, ids: list[int]) -> OpenPrompt | None:
    """The prompt that the question calls open, if it is one."""
    prompt = q.optional_text("open")
    if prompt is None:
        return None
    check_prompt(prompt)
    return open_prompt(q.served, prompt, ids)


def _at_open_end(found: lens.Ablation, logprobs: Tensor, token: int | None) -> lens.Ablation:
    """What is told of the next token, from (1 + N, V) of the whole model and of each muted set."""
    token = int(logprobs[0].argmax()) if token is None else token
    base, *others = logprobs[:, token].tolist()
    changes = torch.tensor(others) - base
    return replace(found, token=token, next_logprob=changes, base_logprob=base)


def view_of(q: Question, seen: Seen) -> tuple[Tensor, float]:
    """Attention in the window as it was asked for, (L, H, T, T) from 0 to 1, and what 1 means."""
    view, T = q.one_of("view", VIEWS), seen.size
    if view == "no sink":
        return lens.without_sink(seen.square()), 1.0
    if view == "weighted":
        weighted = lens.value_weighted(q.served.model, seen.trace)[:, :, :T, :T]
        return lens.to_unit(weighted), float(weighted.max())
    return seen.square(), 1.0


def _roles(served: Served, seen: Seen) -> tuple[lens.Roles, Tensor]:
    """Roles of the heads on this window where it has enough to judge them by, on the reference text
    where not; and which, bool (R + 1,), the last of the sink."""
    text = lens.roles(served.tokenizer, seen.ids, seen.square())
    reference = served.reference_roles
    enough = text.queries >= EVIDENCE  # (R,)
    long = seen.size >= EVIDENCE
    roles = lens.Roles(
        scores=torch.where(enough[:, None, None], text.scores, reference.scores),
        uniform=torch.where(enough, text.uniform, reference.uniform),
        queries=torch.where(enough, text.queries, reference.queries),
        sink=text.sink if long else reference.sink,
        uniform_sink=text.uniform_sink if long else reference.uniform_sink,
        entropy=text.entropy if long else reference.entropy,
        uniform_entropy=text.uniform_entropy if long else reference.uniform_entropy,
        positions=text.positions if long else reference.positions,
    )
    return roles, torch.cat((enough, torch.tensor([long])))


def _logprobs(seen: Seen, tokens: list[int]) -> list[float]:
    """Natural logarithms of the probabilities of the last tokens of a window and the one after."""
    found: list[Tensor] = []
    final = seen.trace.final[seen.size - len(tokens) : seen.size]  # (n, C)
    for rows, wanted in zip(final.split(64), torch.tensor(tokens).split(64)):
        with torch.no_grad():
            logits = seen.trace.head(rows).float().cpu()  # (64, V)
        found.append(logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0].double())
    return torch.cat(found).tolist()
