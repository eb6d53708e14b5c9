"""Batches come in their order, whoever reads them, and stop with the run."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ptx.corpus import Corpus
from ptx.errors import UserError
from train.batches import batches
from train.parallel import World

CPU = torch.device("cpu")


def test_batches_are_those_of_the_corpus_from_any_step_on(data: Path) -> None:
    corpus = Corpus(data)
    for step, batch in enumerate(islice(batches(corpus, World(CPU), 4, 16, 7, first=5), 3), 5):
        x, y = corpus.batch(step, 4, 16, 7)
        assert (batch.ids.numpy() == x).all()
        assert (batch.targets.numpy() == y).all()
        assert batch.n_bytes == corpus.tokenizer.byte_lengths[y].sum()


def test_processes_share_every_batch_between_them(data: Path) -> None:
    corpus = Corpus(data)
    parts = [
        next(batches(corpus, World(CPU, rank, 2), 4, 16, 7, first=3)).ids.numpy() for rank in (0, 1)
    ]
    assert (np.concatenate(parts) == corpus.batch(3, 4, 16, 7)[0]).all()
    with pytest.raises(
        UserError, match=r"--batch-size \(4\) must be a multiple of the 3 processes"
    ):
        World(CPU, 0, 3).rows(4)


def test_closing_ends_the_thread_that_reads_ahead(data: Path) -> None:
    source = batches(Corpus(data), World(CPU), 4, 16, 7, first=0)
    next(source)
    source.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
