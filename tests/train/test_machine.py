"""What a machine has."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.train.machines import CPU
from train.machine import container_memory, look, memory


def test_what_is_there_is_told_without_measuring(tmp_path: Path) -> None:
    machine = look(CPU, tmp_path)
    assert machine.threads == torch.get_num_threads()
    assert 0 < machine.base_gib < machine.memory_gib
    free, total = memory(CPU)
    assert 0 < free <= total


def test_a_containers_limit_is_the_machines_size(tmp_path: Path) -> None:
    assert container_memory(tmp_path) == (float("inf"), 0)
    (tmp_path / "memory.max").write_text("4096\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 700\nfile 300\n")
    assert container_memory(tmp_path) == (4096, 700)
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) == (float("inf"), 700)


def test_older_containers_keep_their_limit_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("4096\n")
    (folder / "memory.usage_in_bytes").write_text("1000\n")
    (folder / "memory.stat").write_text("cache 200\ntotal_cache 250\n")
    assert container_memory(tmp_path) == (4096, 750)
