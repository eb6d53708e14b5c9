"""What a head does: how much of its attention goes where a head with a given role would look.

A role names, for each position q of a text, the positions k that a head with this role looks at,
its targets. With A the attention without the first token, each row made to sum to 1 again, a
head's score is

    mean over the q that have a target of the sum over q's targets k of A[q, k]

from 0 to 1. Averaging over such q alone makes texts comparable: in one without repetition even a
perfect induction head finds nothing to do. Beside it stands what even attention over 1 to q would
score, as a target among three tokens is hit by chance. The positions 0 and 1 ask nothing: without
the first token they have no choice.

The targets that need no code are those of TransformerLens' head detector and of Olsson et al.
(2022), "In-context Learning and Induction Heads":

    previous token    k = q - 1
    duplicate token   k < q, ids[k] = ids[q]
    induction         k - 1 < q, ids[k - 1] = ids[q]: what followed this token before

and k = q for self. TransformerLens divides by all attention instead of by the queries that have a
target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import torch
from torch import Tensor

from ptx.lens import code
from ptx.lens.text import text_of
from ptx.lens.trace import attention, checked
from ptx.lens.views import without_sink
from ptx.model import GPT
from ptx.tokenizer import Tokenizer

Links = Callable[[list[code.Lexeme]], Iterator[code.Link]]
# Who asks: the last token of a name or a bracket, which knows all of it; every token of a line.
CODE_ROLES: dict[str, tuple[Links, bool]] = {
    "matching bracket": (code.brackets, False),
    "same identifier": (code.identifiers, False),
    "definition": (code.definitions, False),
    "line start": (code.line_starts, True),
    "indentation": (code.indentations, False),
    "string or comment": (code.quotations, True),
}
ROLES = ("previous token", "self", "duplicate token", "induction", *CODE_ROLES)
SINK = "first-token sink"

CLEAR = 0.3
"""The share of the way from even attention to a perfect head from which a role is named."""
ENOUGH = 4
"""Queries with a target below which no role is named."""
RESTING = 0.9
"""Share of the sink from which a head is named after it: the rest is hardly a glance."""
REFERENCE = Path(__file__).with_name("reference.txt")


@dataclass(frozen=True)
class Roles:
    """Scores of every head, on one text or on several together; R roles, in the order of ROLES."""

    scores: Tensor
    """(R, L, H), 0 to 1; nan where no position has a target."""
    uniform: Tensor
    """(R,): what even attention would score."""
    queries: Tensor
    """(R,): positions that have a target."""
    sink: Tensor
    """(L, H): attention to the first token, averaged over all later positions."""
    uniform_sink: float
    entropy: Tensor
    """(L, H): bits of a row without the sink, averaged over the rows that have a choice."""
    uniform_entropy: float
    positions: int
    """Tokens scored."""

    def lift(self) -> Tensor:
        """(R, L, H): the share of the way from even attention to a perfect head."""
        even = self.uniform[:, None, None]
        return (self.scores - even) / (1 - even).clamp_min(torch.finfo(even.dtype).tiny)

    def label(self, layer: int, head: int) -> str:
        """The role that stands out, the sink if the head mostly rests there, or ""."""
        if self.sink[layer, head] >= RESTING:
            return SINK
        lift = self.lift()[:, layer, head]
        lift = torch.where(self.queries >= ENOUGH, lift.nan_to_num(), 0.0)
        if lift.max() >= CLEAR:
            return ROLES[int(lift.argmax())]
        return SINK if self.sink[layer, head] >= 0.5 else ""


def roles(tokenizer: Tokenizer, ids: Sequence[int], weights: Tensor) -> Roles:
    """Scores the attention of every head, (L, H, T, T), on the text that it is of."""
    T = len(ids)
    left = without_sink(weights)
    wanted = targets(tokenizer, ids)  # (R, T, T)
    queries = wanted.any(-1).sum(-1)  # (R,)
    hit = torch.einsum("lhx,rx->rlh", left.flatten(2), wanted.flatten(1).float())  # (R, L, H)
    q = torch.arange(T, dtype=torch.float32)
    even = (wanted.sum(-1) / q.clamp_min(1)).sum(-1)  # (R,): of keys 1 to q, there are q
    bits = torch.special.entr(left[:, :, 2:]).sum(-1) / log(2)  # (L, H, T - 2)
    return Roles(
        scores=hit / queries[:, None, None],
        uniform=even / queries,
        queries=queries,
        sink=weights[:, :, 1:, 0].mean(-1),
        uniform_sink=float((1 / (q[1:] + 1)).mean()),
        entropy=bits.mean(-1),
        uniform_entropy=float(q[2:].log2().mean()),
        positions=T,
    )


def together(*parts: Roles) -> Roles:
    """The scores of several texts as one, each position that is scored counting the same."""
    queries = torch.stack([p.queries for p in parts])  # (P, R)
    of_role = queries / queries.sum(0)  # (P, R)
    size = torch.tensor([float(p.positions) for p in parts])  # (P,)
    after = [(size - n).clamp_min(0) for n in (1, 2)]  # where sink and entropy begin
    of_sink, of_entropy = (n / n.sum() for n in after)  # (P,)
    scores = torch.stack([p.scores.nan_to_num() for p in parts])  # (P, R, L, H)
    uniform = torch.stack([p.uniform.nan_to_num() for p in parts])  # (P, R)
    sink = torch.stack([p.sink.nan_to_num() for p in parts])  # (P, L, H)
    entropy = torch.stack([p.entropy.nan_to_num() for p in parts])  # (P, L, H)
    even = torch.tensor([(p.uniform_sink, p.uniform_entropy) for p in parts]).nan_to_num()  # (P, 2)
    return Roles(
        scores=torch.einsum("prlh,pr->rlh", scores, of_role),
        uniform=(uniform * of_role).sum(0),
        queries=queries.sum(0),
        sink=torch.einsum("plh,p->lh", sink, of_sink),
        uniform_sink=float(even[:, 0] @ of_sink),
        entropy=torch.einsum("plh,p->lh", entropy, of_entropy),
        uniform_entropy=float(even[:, 1] @ of_entropy),
        positions=sum(p.positions for p in parts),
    )


def targets(tokenizer: Tokenizer, ids: Sequence[int]) -> Tensor:
    """Where a head with each role would look, bool (R, T, T): row q, column k <= q."""
    T = len(ids)
    tokens = torch.tensor(list(ids))
    same = (tokens[:, None] == tokens).tril(-1)  # (T, T): k < q
    induction = torch.zeros_like(same)
    induction[:, 1:] = same[:, :-1]
    eye = torch.eye(T, dtype=torch.bool)
    previous = torch.zeros_like(eye)
    previous[1:] = eye[:-1]
    found = torch.stack((previous, eye, same, induction, *_code_targets(tokenizer, ids)))
    found[:, :2] = False
    found[:, :, 0] = False
    return found


def _code_targets(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[Tensor]:
    """(T, T) for each of CODE_ROLES; a link inside one token is none."""
    text, T = text_of(tokenizer, ids), len(ids)
    lexemes = code.lex(text.string)
    for links, every in CODE_ROLES.values():
        found = torch.zeros(T, T, dtype=torch.bool).numpy()  # whose item assignment is faster
        for source, target in links(lexemes):
            asking, wanted = text.tokens_of(*source), text.tokens_of(*target)
            for q in asking if every else asking[-1:]:
                found[q, wanted.start : min(wanted.stop, q)] = True
        yield torch.from_numpy(found)


def reference_windows(tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """The reference text, cut to the context: a few kilobytes of Python written to hold what the
    roles are about. Every window begins with end-of-text, as a file does in training."""
    ids = tokenizer.encode(REFERENCE.read_bytes())
    size = max(1, context - 1)
    return [[tokenizer.eot, *ids[i : i + size]] for i in range(0, len(ids), size)]


def reference_roles(model: GPT, tokenizer: Tokenizer) -> Roles:
    """The roles of a model's heads on the reference text, the same for every model."""
    windows = reference_windows(tokenizer, model.config.context)
    # A list, as this takes seconds: before 3.14 Python fails to complete a tuple that some other
    # thread saw meanwhile in gc.get_objects(), which a Space calls when it starts.
    return together(*[roles(tokenizer, ids, attention(model, ids)) for ids in windows])


@dataclass(frozen=True)
class Probe:
    """What the model makes of random tokens that come twice."""

    induction: Tensor
    """(L, H): attention from each token's second occurrence to what followed its first, raw, as
    this probe is usually reported."""
    without_sink: Tensor
    """(L, H): the same with the first token taken out."""
    uniform: float
    """What even attention would score."""
    first_bits: float
    """Bits per token of the first time."""
    second_bits: float
    """Of the second time, less where the model copies; its first token is left out."""


@torch.no_grad()
def induction_probe(
    model: GPT, tokenizer: Tokenizer, length: int = 50, texts: int = 4, seed: int = 0
) -> Probe:
    """Repeated random tokens, on which nothing but induction helps (Olsson et al., 2022).

    End-of-text, then `length` different tokens twice; as many as fit the context twice.
    """
    n = min(length, (model.config.context - 1) // 2)
    random = torch.Generator().manual_seed(seed)
    weights, bits = [], []
    for _ in range(texts):
        drawn = torch.randperm(tokenizer.n_vocab - 1, generator=random)[:n]
        drawn += drawn >= tokenizer.eot  # every token but that one
        ids = [tokenizer.eot, *drawn.tolist(), *drawn.tolist()]
        record: list[Tensor] = []
        batch = checked(model, ids)
        logits = model(batch, record=record)[0].float()
        weights.append(torch.cat(record).float().cpu())  # (L, H, T, T)
        loss = torch.nn.functional.cross_entropy(logits[:-1], batch[0, 1:], reduction="none")
        bits.append(loss.cpu() / log(2))  # (2n,)
    seen, cost = torch.stack(weights), torch.stack(bits)
    q = torch.arange(n + 1, 2 * n + 1)
    return Probe(
        induction=seen[..., q, q - n + 1].mean((0, -1)),
        without_sink=without_sink(seen)[..., q, q - n + 1].mean((0, -1)),
        uniform=float((1 / (q + 1)).mean()),
        first_bits=float(cost[:, :n].mean()),
        second_bits=float(cost[:, n + 1 :].mean()),
    )
