"""Permissive licences are known by their many names, and nothing else is."""

from __future__ import annotations

import pytest

from prepare.cleaning.licences import is_permissive


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "mit",
        "MIT License",
        "The MIT License (MIT)",
        "Apache 2.0",
        "Apache License, Version 2.0",
        "Apache Software License",
        "BSD",
        "BSD License",
        "3-Clause BSD License",
        "BSD-3-Clause AND MIT",
        "BSD License AND MIT License",
        "MIT OR GPL-3.0-only",
        "Apache-2.0 WITH LLVM-exception",
        "Apache-2.0 AND (MIT OR GPL-2.0-only)",
        "Python Software Foundation License",
        "ISC License (ISCL)",
        "CC0-1.0",
    ],
)
def test_permissive(licence: str) -> None:
    assert is_permissive(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "unknown",
        "",
        "GPL-3.0-only",
        "GNU General Public License v3 (GPLv3)",
        "LGPL-2.1-or-later",
        "MPL-2.0",
        "MIT AND GPL-3.0-only",
        "MPL-2.0 AND (Apache-2.0 OR MIT)",
        "Proprietary",
        "Other/Proprietary License",
        "MIT AND something of my own",
        "((",
        "()",
        "non-commercial MIT",
    ],
)
def test_not_permissive(licence: str) -> None:
    assert not is_permissive(licence)
