"""The one exception a person is meant to read, and how a command line shows it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the numbers of an OSError without room


class UserError(ValueError):
    """Bad input. Its text is one clear sentence: the file, field or limit, and the remedy."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Ends a command line as a person expects: one sentence on stderr and an exit status.

    2 for a `UserError` and for what the system refuses (a full disk), 130 for Ctrl+C; silently 1 if
    the reader of the output has gone. Wraps an entry point, as a decorator (`@report_errors()`) or
    in a `with` block. Any other exception is a defect here, and its traceback is wanted.
    """
    try:
        yield
    except UserError as error:
        _exit(f"error: {error}", 2)
    except KeyboardInterrupt:
        _exit("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        raise SystemExit(1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _exit(f"error: {where}{error.strerror or error}", 2)


def _exit(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    raise SystemExit(status) from None
