"""Roles are scored as they are defined: on attention patterns whose answers are known, and against
definitions written independently of ours."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ptx import lens
from ptx.lens.roles import CLEAR, SINK, targets
from ptx.model import GPT
from ptx.tokenizer import Tokenizer

SOURCE = """
def area(width, height):
    # the product
    return width * height

print(area([2], 3), "an area of", "width")
"""


@pytest.fixture(scope="module")
def ids(py16k: Tokenizer) -> list[int]:
    return [py16k.eot, *py16k.encode(SOURCE)]


def index(role: str) -> int:
    return lens.ROLES.index(role)


def one_head(rows: Tensor) -> Tensor:
    """(1, 1, T, T)"""
    return rows[None, None]


def looking_at(T: int, pairs: dict[int, int], sink: float = 0.0) -> Tensor:
    """A head that looks from q at k with all but `sink`, and everywhere alike elsewhere."""
    rows = torch.ones(T, T).tril()
    rows /= rows.sum(-1, keepdim=True)
    for q, k in pairs.items():
        rows[q] = 0
        rows[q, k] = 1 - sink
        rows[q, 0] += sink
    return one_head(rows)


def random_attention(T: int) -> Tensor:
    return torch.randn(T, T, generator=torch.Generator().manual_seed(0)).tril().masked_fill(
        torch.ones(T, T).triu(1).bool(), float("-inf")
    ).softmax(-1)  # fmt: skip


def naive_roles(ids: list[int], weights: list[list[float]]) -> dict[str, float]:
    """The three classic roles in plain loops, from their published descriptions: attention to the
    token before; to earlier copies of this token; to the tokens that came after them."""
    sums = {"previous token": [], "duplicate token": [], "induction": []}
    for q in range(2, len(ids)):
        rest = sum(weights[q][1:])
        at = [0.0, *(w / rest for w in weights[q][1:])]
        sums["previous token"].append(at[q - 1])
        copies = [j for j, token in enumerate(ids[:q]) if token == ids[q]]
        if any(copies):  # not only the first token, which is taken out
            sums["duplicate token"].append(sum(at[j] for j in copies))
        if copies:
            sums["induction"].append(sum(at[j + 1] for j in copies))
    return {role: sum(found) / len(found) for role, found in sums.items()}


@pytest.mark.parametrize("start", [0, 17], ids=["sink repeated", "sink unique"])
def test_classic_roles_equal_independent_definitions(py16k: Tokenizer, start: int) -> None:
    ids = [start, 5, 6, 7, 5, 6, 9, 9, 6, 0, 5, 7]
    weights = random_attention(len(ids))
    found = lens.roles(py16k, ids, one_head(weights))
    for role, score in naive_roles(ids, weights.tolist()).items():
        assert float(found.scores[index(role), 0, 0]) == pytest.approx(score, abs=1e-6), role


def test_self_sink_and_entropy_of_known_rows(py16k: Tokenizer) -> None:
    ids = list(range(10))
    even = looking_at(10, {})
    found = lens.roles(py16k, ids, even)
    assert float(found.sink) == pytest.approx(found.uniform_sink)
    assert float(found.entropy) == pytest.approx(found.uniform_entropy, rel=1e-5)
    # three quarters on the first token: a sink, and of what is left all on itself
    found = lens.roles(py16k, ids, looking_at(10, {q: q for q in range(1, 10)}, sink=0.75))
    assert float(found.sink) == pytest.approx(0.75)
    assert float(found.scores[index("self"), 0, 0]) == pytest.approx(1.0)
    assert float(found.scores[index("previous token"), 0, 0]) == 0
    assert float(found.entropy) == pytest.approx(0.0, abs=1e-6)
    assert found.label(0, 0) == "self"


@pytest.mark.parametrize("role", lens.ROLES)
def test_a_perfect_head_scores_one_and_an_even_one_its_share(
    py16k: Tokenizer, ids: list[int], role: str
) -> None:
    wanted = targets(py16k, ids)[index(role)]
    asking = wanted.any(-1).nonzero()[:, 0].tolist()
    assert asking
    pairs = {int(q): int(wanted[q].nonzero()[0]) for q in asking}
    found = lens.roles(py16k, ids, looking_at(len(ids), pairs, sink=0.5))
    assert float(found.scores[index(role), 0, 0]) == pytest.approx(1.0)
    even = lens.roles(py16k, ids, looking_at(len(ids), {}))
    assert float(even.scores[index(role), 0, 0]) == pytest.approx(float(even.uniform[index(role)]))
    assert even.label(0, 0) == ""


@pytest.mark.parametrize(
    ("role", "source", "target"),
    [("matching bracket", "[2^]", "area(^["), ("same identifier", "return widt^h", "area(widt^h"),
     ("definition", "* heigh^t", "widt^h, heigh^t".replace("^", "", 1)),
     ("definition", "print(are^a", "def are^a"), ("line start", "return widt^h", "product\n ^ "),
     ("indentation", "product\n ^ ", "):\n ^ "), ("string or comment", "the produc^t", "^# the"),
     ("string or comment", "an area o^f", '3), ^"')],
)  # fmt: skip
def test_code_roles_link_the_tokens_that_belong_together(
    py16k: Tokenizer, ids: list[int], role: str, source: str, target: str
) -> None:
    def token(marked: str) -> int:
        """The one that holds the character after the mark."""
        at = SOURCE.index(marked.replace("^", "")) + marked.index("^")
        return next(i for i in range(len(ids)) if len(py16k.decode(ids[: i + 1])) > at)

    assert targets(py16k, ids)[index(role), token(source), token(target)]


def test_no_target_is_in_the_future_or_on_the_sink(py16k: Tokenizer, ids: list[int]) -> None:
    wanted = targets(py16k, ids)
    assert not wanted.triu(1).any()
    assert not wanted[:, :, 0].any()
    assert not wanted[:, :2].any()


def test_a_label_needs_a_role_that_stands_out_and_a_head_that_looks(
    py16k: Tokenizer, ids: list[int]
) -> None:
    T = len(ids)
    weak = 0.5 * looking_at(T, {}) + 0.5 * looking_at(T, {q: q - 1 for q in range(2, T)})
    found = lens.roles(py16k, ids, weak)
    assert found.label(0, 0) == "previous token"
    assert lens.roles(py16k, ids, 0.8 * looking_at(T, {}) + 0.2 * weak).label(0, 0) == ""
    resting = looking_at(T, {q: q - 1 for q in range(1, T)}, sink=0.95)
    assert lens.roles(py16k, ids, resting).label(0, 0) == SINK
    few = replace(found, queries=torch.full_like(found.queries, 3))
    assert few.label(0, 0) == ""
    assert float(found.lift()[index("previous token"), 0, 0]) >= CLEAR


def test_a_role_without_an_occasion_has_no_score(py16k: Tokenizer) -> None:
    found = lens.roles(py16k, [py16k.eot, 1, 2, 3], looking_at(4, {}))
    assert found.scores[index("induction")].isnan().all()
    assert int(found.queries[index("induction")]) == 0
    assert found.label(0, 0) == ""


def test_texts_together_weigh_every_query_the_same(py16k: Tokenizer) -> None:
    long, short = [0, 5, 6, 5, 6, 5, 6], [0, 5, 8, 5]
    perfect = lens.roles(py16k, long, looking_at(7, {q: q - 1 for q in range(3, 7)}))
    blind = lens.roles(py16k, short, looking_at(4, {q: q for q in range(4)}))
    both = lens.together(perfect, blind)
    n = [float(part.queries[index("induction")]) for part in (perfect, blind)]
    scores = [float(part.scores[index("induction"), 0, 0]) for part in (perfect, blind)]
    assert n == [4, 1]
    expected = (n[0] * scores[0] + n[1] * scores[1]) / 5
    assert float(both.scores[index("induction"), 0, 0]) == pytest.approx(expected)
    assert both.positions == 11
    assert both.scores[index("matching bracket")].isnan().all()
    # a window with nothing to judge a sink or an entropy by changes neither
    one = lens.roles(py16k, [0], looking_at(1, {}))
    two = lens.roles(py16k, [0, 5], looking_at(2, {1: 1}))
    for small in (one, two):
        with_it = lens.together(perfect, small)
        assert torch.equal(with_it.entropy, perfect.entropy)
        assert with_it.uniform_entropy == pytest.approx(perfect.uniform_entropy)
        assert not with_it.sink.isnan().any()


def test_the_reference_text_occasions_every_role(model: GPT, py16k: Tokenizer) -> None:
    windows = lens.reference_windows(py16k, model.config.context)
    assert all(w[0] == py16k.eot and len(w) <= model.config.context for w in windows)
    found = lens.reference_roles(model, py16k)
    assert found.scores.shape == (len(lens.ROLES), 2, 4)
    assert (found.queries >= 20).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_the_reference_is_read_while_a_thread_holds_all_objects(
    model: GPT, py16k: Tokenizer
) -> None:
    """As the package `spaces` does when a Space starts; half-made tuples are among them."""
    held: list[list[object]] = []

    def hold(*_: object) -> None:
        held[:] = [gc.get_objects()]

    hook = model.blocks[0].register_forward_hook(hold)
    try:
        assert lens.reference_roles(model, py16k).positions > 0
    finally:
        hook.remove()


def test_the_probe_finds_induction_where_it_was_put(model: GPT, py16k: Tokenizer) -> None:
    """Against the definition, on the same ids in plain loops."""
    found = lens.induction_probe(model, py16k, length=10, texts=1, seed=3)
    drawn = torch.randperm(py16k.n_vocab - 1, generator=torch.Generator().manual_seed(3))[:10]
    ids = [py16k.eot, *drawn.tolist() * 2]  # eot is the last id: nothing is shifted
    weights = lens.attention(model, ids)
    total = torch.zeros(2, 4)
    for q in range(11, 21):
        (first,) = [i for i in range(1, 11) if ids[i] == ids[q]]
        total += weights[:, :, q, first + 1]
    torch.testing.assert_close(found.induction, total / 10)
    assert (found.without_sink >= found.induction).all()
    assert 0 < found.uniform < 0.1
    again = lens.induction_probe(model, py16k, length=10, texts=1, seed=3)
    assert torch.equal(found.induction, again.induction)


def test_the_probe_fits_a_short_context(model: GPT, py16k: Tokenizer) -> None:
    assert lens.induction_probe(model, py16k, length=500, texts=1).first_bits > 0
