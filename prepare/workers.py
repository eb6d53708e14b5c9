"""All cores clean shards; whoever is told to stop does so at once and leaves finished shards."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized

import numpy as np

from prepare.cleaning.clean import Cleaner
from prepare.cleaning.rules import Rules
from prepare.shards import ShardFiles, clean_shard
from prepare.sources import Shard
from ptx.corpus import DTYPES, dtype_for
from ptx.errors import UserError
from ptx.tokenizer import get_tokenizer

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LOOK_EVERY = 0.2  # seconds between two looks at the progress

Task = tuple[Shard, ShardFiles]


def clean_all(
    tasks: Sequence[Task],
    steps: Rules,
    tokenizer: str,
    progress: Callable[[int], None],
    enough: Callable[[], bool],
) -> None:
    """Clean the shards on all cores, in order.

    tokenizer: its name, from which every worker opens its own.
    progress: is told now and then how many bytes of documents have been read in all.
    enough: asked before another shard is begun; true ends the work.
    """
    if not tasks:
        return
    context = multiprocessing.get_context(start_method())
    prepare_tokenizer(tokenizer)
    done = context.Value(ctypes.c_int64, 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(cores or 1, len(tasks))
    pool = ProcessPoolExecutor(count, context, start_worker, (steps, tokenizer, done))
    try:
        waiting = iter(tasks)
        running: set[Future[None]] = set()
        while True:
            while len(running) < count and not enough() and (task := next(waiting, None)):
                running.add(pool.submit(work, *task))
            if not running:
                return
            finished, running = wait(running, LOOK_EVERY, FIRST_COMPLETED)
            progress(done.value)
            for future in finished:
                future.result()
    except BrokenProcessPool:
        raise UserError(
            "A worker process was stopped, most likely for lack of memory: close other programs "
            "and run the same command again; finished parts are kept."
        ) from None
    except BaseException:  # Ctrl+C above all, which waits for no shard: what is not done comes anew
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def start_method() -> str:
    """Forked workers share the tokenizer's tables with this process, which are most of the memory.

    Only Linux forks reliably, and only a process without further threads, which a fork would leave
    behind with their locks.
    """
    alone = threading.active_count() == 1
    return "fork" if sys.platform == "linux" and alone else "spawn"


def prepare_tokenizer(name: str) -> None:
    """Load all tables before any worker begins, where their pages stay unchanged and shared."""
    get_tokenizer(name).encode_array(b"x")
    gc.collect()
    gc.freeze()
    return_free_memory()


def return_free_memory() -> None:
    """Have malloc give back what is freed: a forked worker would fill a copy of its own, and a
    document's tree, once in memory, would stay there."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 18)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 19)
        libc.malloc_trim(0)


# --- in the workers

_cleaner: Cleaner  # one per worker process, made by `start_worker`
_dtype: np.dtype
_done: Synchronized


def start_worker(steps: Rules, tokenizer: str, done: Synchronized) -> None:
    global _cleaner, _dtype, _done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=follow_parent, daemon=True).start()
    opened = get_tokenizer(tokenizer)
    _cleaner, _done = Cleaner(steps, opened), done
    _dtype = DTYPES[dtype_for(opened)]
    gc.freeze()  # the tokenizer's tables are not garbage: do not look at them again and again
    gc.set_threshold(50_000)


def follow_parent() -> None:
    """End with the parent: a worker waiting for work does not notice that it was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


def work(shard: Shard, files: ShardFiles) -> None:
    clean_shard(shard, files, _cleaner, _dtype, report)


def report(size: int) -> None:
    with _done.get_lock():
        _done.value += size
