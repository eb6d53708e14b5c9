"""Where training runs, and in which precision."""

from __future__ import annotations

import pytest
import torch

from ptx.errors import UserError
from train import device


def test_precision_follows_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for faster in ("fp32", "bf16"):
        seconds = {torch.float32: 1.0, torch.bfloat16: 2.0 if faster == "fp32" else 0.5}
        monkeypatch.setattr(device, "_matmul_seconds", seconds.get)
        assert device.pick_precision("auto", cpu) == faster
        assert device.pick_precision("fp32", cpu) == "fp32"


def test_a_device_that_is_not_there_is_refused_with_a_remedy() -> None:
    assert device.pick_device("auto").type in {"cpu", "cuda", "mps"}
    for name in ("abacus", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {name} cannot be used here"):
            device.pick_device(name)


def test_bf16_runs_matrix_products_in_bf16() -> None:
    a = torch.ones(2, 2)
    with device.autocast("bf16", a.device):
        assert (a @ a).dtype == torch.bfloat16
    with device.autocast("fp32", a.device):
        assert (a @ a).dtype == torch.float32
