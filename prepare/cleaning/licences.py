"""Which licences are permissive: the allow-list, and the many ways of naming one."""

from __future__ import annotations

import re
from functools import lru_cache

# SPDX identifiers of what The Stack took as permissive and people publish Python under.
PERMISSIVE = frozenset(
    identifier
    for line in (
        "0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause",
        "BSD-2-Clause-Patent BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause",
        "BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CNRI-Python curl ECL-2.0 HPND ICU ISC",
        "JSON Libpng MIT MIT-0 MIT-CMU MIT-Modern-Variant MS-PL MulanPSL-2.0 NCSA OFL-1.1",
        "OLDAP-2.8 OpenSSL PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 TCL Unicode-3.0",
        "Unicode-DFS-2016 Unlicense UPL-1.0 W3C WTFPL X11 Xnet Zlib zlib-acknowledgement ZPL-2.1",
    )
    for identifier in line.split()
)
BY_LOWER = {identifier.lower(): identifier for identifier in PERMISSIVE}

# What people write instead, lower case and without punctuation -> identifier.
NAMES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 20": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 20": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "2 clause bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "bsd 3": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "expat": "MIT",
    "mit": "MIT",
    "mit mit": "MIT",
    "mit no attribution": "MIT-0",
    "historical permission notice and disclaimer hpnd": "HPND",
    "hpnd": "HPND",
    "isc": "ISC",
    "isc iscl": "ISC",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "python": "PSF-2.0",
    "public domain": "Unlicense",
    "unlicense": "Unlicense",
    "the unlicense unlicense": "Unlicense",
    "zlib libpng": "Zlib",
    "zlib": "Zlib",
    "zope public": "ZPL-2.1",
    "boost software 10 bsl 10": "BSL-1.0",
    "cc0 10 universal cc0 10 public domain dedication": "CC0-1.0",
}
FILLER = re.compile(r"\b(?:the|licen[cs]ed?|version|v|osi approved|under)\b")


@lru_cache(maxsize=100_000)
def is_permissive(licence: str) -> bool:
    """Whether a source's licence field allows use and change by anybody, with credit.

    An SPDX expression is evaluated: one side of an OR is enough, of an AND both are needed.
    """
    if licence in PERMISSIVE or named(licence) in PERMISSIVE:
        return True
    from license_expression import get_spdx_licensing

    # Sources join several names by AND and leave spaces inside them.
    parts = [named(part) for part in re.split(r"\s+AND\s+", licence)]
    if len(parts) > 1 and all(part in PERMISSIVE for part in parts):
        return True
    spdx = get_spdx_licensing()
    try:
        expression = spdx.parse(licence)
    except Exception:  # not only the parser's own ones: "()" is an IndexError in it
        return False
    return expression is not None and allowed(expression)


def allowed(expression: object) -> bool:
    """Of a parsed expression: a symbol, or AND / OR of such."""
    arguments = getattr(expression, "args", ())
    if not arguments:
        symbol = getattr(expression, "license_symbol", expression)  # of `X WITH exception`, X
        return str(getattr(symbol, "key", symbol)) in PERMISSIVE
    decide = any if getattr(expression, "operator", "").strip() == "OR" else all
    return decide(map(allowed, arguments))


def named(licence: str) -> str:
    """The identifier of a licence called by one of its names; the text itself if none is known."""
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"(?<=\d)\.(?=\d)", "", licence.lower()))
    key = " ".join(FILLER.sub(" ", words).split())
    return NAMES.get(key) or BY_LOWER.get(licence.strip().lower(), licence)
