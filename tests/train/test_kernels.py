"""Kernels are chosen by measuring, and a compiler that fails stops nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor
from torch.utils.flop_counter import FlopCounterMode

from ptx.config import PRESETS
from ptx.model import GPT, Block
from train import kernels
from train.kernels import Kernels, choose, compile_gain, prepare, running, settle
from train.settings import Settings, complete

CPU = torch.device("cpu")
SHAPE = replace(
    PRESETS["nano"], vocab_size=64, context=16, n_head=2, n_kv_head=2, head_size=8, d_model=16
)
needs_compiler = pytest.mark.skipif(kernels.compiler() is None, reason="no C++ compiler here")


def settings(**changes: Any) -> Settings:
    return complete(Settings(preset="nano", batch_size=2, **changes))


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["fused", "math"])
def test_the_faster_kernels_are_taken(
    monkeypatch: pytest.MonkeyPatch, faster: str, attention: str
) -> None:
    def seconds(ways: list[Kernels], *_: object) -> list[float]:
        return [(w.precision != faster) + (w.attention != attention) + 0.1 for w in ways]

    monkeypatch.setattr(kernels, "block_seconds", seconds)
    monkeypatch.setattr(kernels, "_bf16_has_units", lambda _: True)
    best, notes = choose(Kernels(), {"precision", "attention"}, SHAPE, 2, CPU)
    assert (best.precision, best.attention) == (faster, attention)
    assert len(notes) == 2
    settled = settle(settings(compile="off"), SHAPE, CPU)
    assert (settled.precision, settled.attention, settled.compile) == (faster, attention, "off")


def test_a_gpu_with_bf16_units_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "block_seconds", None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    best, _ = choose(Kernels(), {"precision", "attention"}, SHAPE, 2, torch.device("cuda"))
    assert best == Kernels("bf16", "fused")


def test_what_is_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "block_seconds", None)
    wanted = settings(precision="bf16", attention="math", compile="off")
    assert settle(wanted, SHAPE, CPU) == wanted


@pytest.mark.parametrize("length", [2, 3, 8, 15, 16])
def test_plain_attention_equals_the_fused_one_at_every_length(length: int) -> None:
    torch.manual_seed(0)
    fused, plain = GPT(replace(SHAPE, init="gpt2")), GPT(replace(SHAPE, init="gpt2"))
    plain.load_state_dict(fused.state_dict())
    prepare(plain, Kernels(attention="math"))
    ids = torch.randint(64, (3, length))
    for model in (fused, plain):
        model(ids, ids).backward()
    for ours, theirs in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_bf16_runs_matrix_products_in_bf16() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with running(Kernels(precision=precision), CPU):
            assert (a @ a).dtype == dtype


def test_both_attentions_compute_the_same() -> None:
    torch.manual_seed(0)
    model, ids = GPT(replace(SHAPE, init="gpt2")), torch.randint(64, (2, 16))
    fused = model(ids)
    prepare(model, Kernels(attention="math"))
    assert all(block.attn.future is model.blocks[0].attn.future for block in model.blocks)
    torch.testing.assert_close(model(ids), fused)
    torch.testing.assert_close(model(ids[:, :5]), fused[:, :5])


def test_without_a_compiler_a_sentence_says_so_and_the_plain_block_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "compiler", lambda: None)
    assert settle(settings(compile="on"), SHAPE, CPU).compile == "off"
    assert capsys.readouterr().out == (
        "not compiled: no C++ compiler here; install g++ for faster long runs\n"
    )


def test_a_compiler_that_fails_costs_a_sentence_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "compiler", lambda: "/bin/false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    with inductor.patch({"cpp.cxx": ("/bin/false",)}):
        assert settle(settings(compile="on"), SHAPE, CPU).compile == "off"
    torch.compiler.reset()
    said = capsys.readouterr().out
    assert said.startswith("not compiled: torch.compile failed here (")
    assert said.count("\n") == 1


def test_short_runs_do_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def gain(plain: Kernels, *_: object) -> tuple[Kernels, float, str]:
        tried.append(plain)
        return replace(plain, compiled=True), 1.5, "compiled"

    monkeypatch.setattr(kernels, "compile_gain", gain)
    assert settle(settings(steps=3), SHAPE, CPU).compile == "off"
    assert not tried
    assert settle(settings(steps=10**9), SHAPE, CPU).compile == "on"


@pytest.mark.parametrize("faster", ["fused", "math"])
def test_the_faster_of_both_attentions_is_compiled(
    monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    def seconds(ways: list[Kernels], *_: object) -> list[float]:
        return [2.0 if not w.compiled else 1.0 if w.attention == faster else 1.5 for w in ways]

    monkeypatch.setattr(kernels, "block_seconds", seconds)
    monkeypatch.setattr(kernels, "compiler", lambda: "c++")
    best, gain, _ = compile_gain(Kernels(), {"attention"}, SHAPE, 2, CPU)
    assert (best, gain) == (Kernels(attention=faster, compiled=True), 2.0)
    best, _, _ = compile_gain(Kernels(attention="fused"), set(), SHAPE, 2, CPU)
    assert best.attention == "fused"


@needs_compiler
@pytest.mark.parametrize("attention", ["fused", "math"])
def test_compiled_blocks_and_loss_compute_what_plain_ones_do(attention: str) -> None:
    torch.manual_seed(0)
    plain = GPT(replace(SHAPE, init="gpt2"))
    compiled = GPT(plain.config)
    compiled.load_state_dict(plain.state_dict())
    prepare(compiled, Kernels(attention=attention, compiled=True))
    ids = torch.randint(64, (2, 17))
    for model in (plain, compiled):
        model(ids[:, :-1], ids[:, 1:]).backward()
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)


def test_flops_are_those_that_torch_counts() -> None:
    model, ids = GPT(SHAPE), torch.randint(64, (2, 17))
    prepare(model, Kernels(attention="math"))
    with FlopCounterMode(display=False) as counter:
        model.head(model.hidden(ids[:, :-1])).sum().backward()
    scores = SHAPE.n_layer * SHAPE.n_head * SHAPE.head_size * SHAPE.context
    # torch counts every pair of positions; ours are those that attention may look at.
    expected = kernels.flops_per_token(SHAPE) + 6 * scores
    assert counter.get_total_flops() / 32 == pytest.approx(expected, rel=0.02)


def test_kernels_whose_gradients_are_no_numbers_are_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a compiled block's on one kind of CPU, whose loss was right."""

    real = kernels.attend

    def attend(blocks: list[Block], attention: str) -> None:
        real(blocks, attention)
        for block in blocks if attention == "math" else []:
            block.attn.k.weight.register_hook(lambda gradient: gradient * torch.nan)

    monkeypatch.setattr(kernels, "attend", attend)
    fused, plain = kernels.block_seconds([Kernels(), Kernels(attention="math")], SHAPE, 2, CPU)
    assert fused < plain == torch.inf
    assert choose(Kernels(), {"attention"}, SHAPE, 2, CPU)[0].attention == "fused"


def test_a_compiler_whose_gradients_are_no_numbers_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        kernels, "block_seconds", lambda ways, *_: [torch.inf if w.compiled else 1.0 for w in ways]
    )
    monkeypatch.setattr(kernels, "compiler", lambda: "c++")
    best, gain, note = compile_gain(Kernels(), {"attention"}, SHAPE, 2, CPU)
    assert (best, gain) == (Kernels(), 0.0)
    assert "wrong gradients" in note
