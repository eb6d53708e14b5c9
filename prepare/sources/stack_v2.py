"""The Stack v2: a gated table on the Hub names files, Software Heritage's public bucket has them.

Lozhkov et al., 2024, "StarCoder 2 and The Stack v2".
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from prepare.sources import Document, Source
from prepare.sources.columns import document
from prepare.sources.hub import HubFile, listing
from ptx.errors import UserError

DATASET = "bigcode/the-stack-v2-dedup"
FOLDER = "data/Python"
BUCKET = "s3://softwareheritage/content/"
IN_FLIGHT = 64
"""Downloads at once: each is a few kilobytes, and waits some tens of milliseconds."""
ATTEMPTS = 6


@dataclass(frozen=True)
class Contents:
    """The files that one file of the table names; those that are gone have no content."""

    table: HubFile

    @property
    def size(self) -> int:
        return self.table.size

    def documents(self) -> Iterator[Document]:
        fetch_one = partial(fetched, client=bucket_client())
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            yield from in_order(pool, fetch_one, self.table.rows())


def stack_v2() -> Source:
    commit, files = listing(DATASET, FOLDER)
    shards = [Contents(HubFile(DATASET, commit, path, size, None)) for path, size in files]
    return Source("stack-v2", shards, provenance={"dataset": DATASET, "commit": commit})


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[dict[str, Any]], Document],
    rows: Iterator[dict[str, Any]],
) -> Iterator[Document]:
    """What `work` makes of each row, in their order, with a bounded number under way."""
    waiting: deque[Future[Document]] = deque(pool.submit(work, r) for r in islice(rows, IN_FLIGHT))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, row) for row in islice(rows, 1))
    finally:
        for future in waiting:
            future.cancel()


def fetched(row: dict[str, Any], client: object) -> Document:
    return document(row, content(row["blob_id"], row.get("src_encoding") or "utf-8", client))


def content(blob: str, encoding: str, client: object) -> bytes | None:
    """One file from the bucket as UTF-8; None if it is not there or not in its encoding.

    Raises UserError when the bucket cannot be reached, after ATTEMPTS.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        data = downloaded(blob, client)
    except (OSError, ClientError, BotoCoreError) as error:
        if is_gone(error):
            return None
        raise UserError(
            f"Software Heritage's bucket cannot be read ({error}): is the network up? Finished "
            "parts are kept: run the same command again."
        ) from error
    try:
        return None if data is None else data.decode(encoding).encode("utf-8")
    except (UnicodeError, LookupError):
        return None


def downloaded(blob: str, client: object) -> bytes | None:
    """The unpacked file, or None if it arrives damaged or cut off each time."""
    import smart_open

    parameters = {"client": client}
    for _ in range(ATTEMPTS):
        with (
            suppress(EOFError, gzip.BadGzipFile, zlib.error),
            smart_open.open(
                BUCKET + blob, "rb", compression=".gz", transport_params=parameters
            ) as file,
        ):
            return file.read()
    return None


def is_gone(error: BaseException) -> bool:
    """Whether the bucket answered that it has no such file."""
    from botocore.exceptions import ClientError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ClientError):
        cause = getattr(cause, "backend_error", None) or cause.__cause__
    return cause is not None and cause.response["Error"]["Code"] in ("NoSuchKey", "404")


def bucket_client() -> object:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=UNSIGNED,
        max_pool_connections=IN_FLIGHT,
        retries={"max_attempts": ATTEMPTS, "mode": "standard"},
    )
    return boto3.client("s3", region_name="us-east-1", config=config)
