"""What an answer to a browser can carry: which numbers, texts and names."""

from __future__ import annotations

from typing import Any


def clean(text: str) -> str:
    """Without halves of surrogate pairs, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode("utf-8")


def can_be_named(name: str) -> bool:
    """Whether a list may offer a file of this name: not a hidden one, which may be half written,
    and none that is no UTF-8, which no answer can carry."""
    return not name.startswith(".") and clean(name) == name


def is_number(value: Any) -> bool:
    """Whether it is a number to calculate with; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 < value < 1e300  # neither NaN nor infinite, nor too large for a float
