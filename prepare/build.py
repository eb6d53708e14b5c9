"""Documents to token files: read, judge and encode in parallel, write in order."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from prepare.cleaning import Sieve, fault
from prepare.sources import Document, Project
from ptx.corpus import CorpusWriter
from ptx.errors import UserError
from ptx.tokenizer import Tokenizer, get_tokenizer

# More processes than this wait for the one that writes.
MOST_WORKERS = 8


@dataclass(frozen=True)
class Encoded:
    """What a worker found out about a document."""

    fault: str | None
    digest: bytes
    size: int
    tokens: np.ndarray  # (n,) uint32, empty where the document has a fault


def build(
    projects: dict[str, list[Project]],
    tokenizer: str,
    writer: CorpusWriter,
    progress: Callable[[int], None],
) -> tuple[dict[str, list[dict]], Sieve]:
    """Write the tokens of all projects. Returns the sources for the manifest and the counts.

    Validation goes first, so that a document which both sides have stays out of training.

    Args:
        projects: those of "train" and "val".
        tokenizer: its name, from which every worker opens its own.
        progress: called with the size of each document once it is done.
    """
    sieve = Sieve()
    order = {split: projects[split] for split in ("val", "train")}
    documents = (d for p in chain(*order.values()) for d in p.documents)
    with encoders(tokenizer) as pool:
        # In order, whoever finishes first; a chunk of files costs one message each way.
        encoded = pool.map(encode, documents, chunksize=16)
        sources = {
            split: [write(p, split, encoded, sieve, writer, progress) for p in members]
            for split, members in order.items()
        }
    kept = {split: [s for s in listed if s["tokens"]] for split, listed in sources.items()}
    return kept, sieve


def write(
    project: Project,
    split: str,
    encoded: Iterator[Encoded],
    sieve: Sieve,
    writer: CorpusWriter,
    progress: Callable[[int], None],
) -> dict:
    """Write one project's documents, each closed by an end-of-text token; its manifest entry.

    In a continuous text only a removed part, or the end, closes a document.
    """
    eot = [writer.tokenizer.eot]
    files = size = tokens = 0
    is_open = False
    for document in islice(encoded, len(project.documents)):
        kept = sieve.keeps(document.fault, document.digest, document.size)
        if is_open and not (project.continuous and kept):
            writer.write(split, eot)
            files, is_open = files + 1, False
        if kept:
            writer.write(split, document.tokens)
            size, tokens, is_open = size + document.size, tokens + len(document.tokens), True
        progress(document.size)
    if is_open:
        writer.write(split, eot)
        files += 1
    return {
        "name": project.name,
        "version": project.version,
        "licence": project.licence,
        "files": files,
        "bytes": size,
        "tokens": tokens + files,
    }


# --- in the workers

_tokenizer: Tokenizer  # one per worker process, opened by `start_worker`


@contextmanager
def encoders(tokenizer: str) -> Iterator[ProcessPoolExecutor]:
    """Worker processes with the tokenizer opened; those not started yet are cancelled on errors."""
    pool = ProcessPoolExecutor(
        max_workers=min(os.cpu_count() or 1, MOST_WORKERS),
        mp_context=multiprocessing.get_context("spawn"),  # the same on every system
        initializer=start_worker,
        initargs=(tokenizer,),
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "A worker process was stopped, most likely for lack of memory: close other programs "
            "and prepare again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker(tokenizer: str) -> None:
    global _tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=follow_parent, daemon=True).start()
    _tokenizer = get_tokenizer(tokenizer)


def follow_parent() -> None:
    """End with the parent: a worker waiting for work does not notice that it was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def encode(document: Document) -> Encoded:
    data = document.read()
    reason = fault(data)
    # Copies are rare: encoding one for nothing is cheaper than asking first.
    tokens = [] if reason else _tokenizer.encode(data)
    digest = hashlib.sha256(data).digest()
    return Encoded(reason, digest, len(data), np.array(tokens, dtype=np.uint32))
