"""The list of documents in a data directory: which tokens are which file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prepare.build import DOCUMENTS
from ptx.errors import UserError

BATCH = 4096  # rows held at once


def open_documents(directory: Path) -> pq.ParquetFile:
    """Raises UserError where there is no list, as in a directory that was adopted."""
    file = directory / DOCUMENTS
    try:
        return pq.ParquetFile(file)
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: prepare the directory again to have its documents listed."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read ({error}): prepare the directory again.") from None


def rows(directory: Path) -> Iterator[dict[str, object]]:
    """Every document, in the order of the source."""
    with open_documents(directory) as file:
        for batch in file.iter_batches(BATCH):
            yield from batch.to_pylist()


def around(directory: Path, split: str, token: int) -> dict[str, object]:
    """The document that holds a token of train.bin or val.bin; its end-of-text token is its own."""
    best: dict[str, object] | None = None
    with open_documents(directory) as file:
        for batch in file.iter_batches(BATCH):
            here = batch.filter(
                pc.and_(pc.equal(batch["split"], split), pc.less_equal(batch["start"], token))
            )
            if here.num_rows:
                last = int(np.argmax(here["start"].to_numpy()))
                row = here.slice(last, 1).to_pylist()[0]
                if best is None or row["start"] > best["start"]:
                    best = row
    if best is None:
        raise UserError(f"{directory / DOCUMENTS} lists no document at token {token:,} of {split}.")
    return best
