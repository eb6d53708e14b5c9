"""The one exception a person is meant to read, and how a command line shows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input. Its text is one clear sentence: the file, field or limit, and the remedy."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Print a `UserError` as `error: ...` on stderr and exit with status 2.

    Wraps an entry point, as a decorator (`@report_errors()`) or in a `with` block. Any other
    exception passes through: it is a defect here, and its traceback is wanted.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
