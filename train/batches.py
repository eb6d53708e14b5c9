"""Batches of token ids, read one step ahead of the training that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ptx.corpus import Corpus
from train.parallel import World


@dataclass(frozen=True)
class Batch:
    """One process's part of an optimizer step's text."""

    ids: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64, the tokens after `ids`."""
    n_bytes: int
    """Bytes of source text that `targets` stand for."""


def batches(
    corpus: Corpus, world: World, batch_size: int, context: int, seed: int, first: int
) -> Iterator[Batch]:
    """The batches of step `first`, the one after it, and so on without end.

    A thread reads the next one meanwhile; for a GPU it waits in pinned memory, from which copies
    are asynchronous.
    """
    rows, lengths = world.rows(batch_size), corpus.tokenizer.byte_lengths

    def read(step: int) -> Batch:
        x, y = corpus.batch(step, batch_size, context, seed, rows)  # (B, T) each
        ids, targets = torch.from_numpy(x), torch.from_numpy(y)
        if world.device.type == "cuda":
            ids, targets = (part.contiguous().pin_memory() for part in (ids, targets))
        return Batch(ids, targets, int(lengths[y].sum()))

    with ThreadPoolExecutor(1, "batches") as pool:
        coming = pool.submit(read, first)
        for step in range(first + 1, 2**62):
            batch = coming.result()
            coming = pool.submit(read, step)
            yield batch
