"""Personal data and keys are replaced by placeholders, in comments and strings only.

The placeholders are StarCoder's (Li et al., 2023, section 4). The forms of keys are those that
their issuers publish and gitleaks collects. Code itself is never touched, so what parses goes on
parsing.
"""

from __future__ import annotations

import ipaddress
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

from ahocorasick_rs import BytesAhoCorasick

from prepare.cleaning.syntax import Spans

EMAIL, IP, KEY = b"<EMAIL>", b"<IP>", b"<KEY>"
NAMES = {EMAIL: "e-mail addresses", IP: "network addresses", KEY: "keys"}

Finding = tuple[int, int, bytes]  # start, stop, placeholder

# A form begins with a rare byte, for which re looks quickly; what comes before it is added after.
EMAIL_FORM = re.compile(rb"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
EMAIL_BEFORE = re.compile(rb"\b[\w.+-]{1,64}\Z")
EMAIL_EXAMPLES = re.compile(
    rb"@(?:[\w-]+\.)*(?:example\.\w+|[\w-]+\.(?:example|test|invalid|localhost))\Z", re.IGNORECASE
)
ESCAPE = re.compile(rb"\\(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
IP_FORM = re.compile(rb"\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.]|-\d)")
IP_BEFORE = re.compile(rb"(?<![\w.])\d{1,3}\Z")
VERSION_BEFORE = re.compile(rb"(?:version|release|[=<>~!]=|[<>^]|\bv)[_\s\"':=(]*\Z", re.IGNORECASE)
VERSION_LIKE = 31  # four numbers up to this are more often a version than an address

GITHUB = (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_")
# what must occur for a form to be worth a search -> the form
KEY_FORMS: dict[bytes, re.Pattern[bytes]] = {
    b"PRIVATE KEY-----": re.compile(
        rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----([\s\S]{32,8000}?)"
        rb"-----END (?:[A-Z]+ )*PRIVATE KEY-----"
    ),
    b"AKIA": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    b"ASIA": re.compile(rb"\bASIA[0-9A-Z]{16}\b"),
    **{p: re.compile(rb"\b%s[A-Za-z0-9]{36,255}\b" % p) for p in GITHUB},
    b"github_pat_": re.compile(rb"\bgithub_pat_\w{82}\b"),
    b"glpat-": re.compile(rb"\bglpat-[\w-]{20,}"),
    b"xox": re.compile(rb"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}"),
    b"AIza": re.compile(rb"\bAIza[\w-]{35}"),
    b"_live_": re.compile(rb"\b[sr]k_live_[A-Za-z0-9]{16,99}\b"),
    b"sk-": re.compile(rb"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,200}"),
    b"hf_": re.compile(rb"\bhf_[A-Za-z]{34}\b"),
    b"pypi-AgEI": re.compile(rb"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,1000}"),
    b"npm_": re.compile(rb"\bnpm_[A-Za-z0-9]{36}\b"),
    b"eyJ": re.compile(rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
}
KEY_HINTS = BytesAhoCorasick(list(KEY_FORMS))
KEY_LINE = re.compile(rb"[A-Za-z0-9+/=]{32,}")  # of a private key

URL_PASSWORD = re.compile(
    rb"://[\w.%+-]{0,64}:([^\s:/@\"'<>{}()$\\]{8,100})@(?!(?:[\w-]+\.)*example\.)"
)

# name = "value": only values that look drawn at random are taken
VALUE = re.compile(rb"[\"']([A-Za-z0-9+/_=.-]{16,200})[\"']")
NAME_BEFORE = re.compile(
    rb"(?:passw(?:or)?d|secret|token|api_?key|access_?key|auth_?key)[\w\"'\]]*"
    rb"(?:\s*:\s*\w+)?\s*[:=]\s*\Z",  # `name: str =`, too
    re.IGNORECASE,
)
HAS_DIGIT, HAS_LETTER = re.compile(rb"\d"), re.compile(rb"[A-Za-z]")
RANDOM_BITS = 3.5  # of entropy per character; English and identifiers stay below, or have no digits


def cleaned(data: bytes, spans: Spans) -> tuple[bytes, Counter[str]]:
    """`data` with placeholders, and how many of each were put in.

    spans: (start, stop) of its comments and strings, outside which nothing is looked at.
    """
    counts: Counter[str] = Counter()
    found = [*emails(data), *addresses(data), *keys(data), *in_urls(data), *assigned(data)]
    if not found:
        return data, counts
    starts = [start for start, _ in spans]
    parts, end = [], 0
    for start, stop, placeholder in sorted(found):
        i = bisect_right(starts, start) - 1
        if start < end or i < 0 or stop > spans[i][1]:
            continue  # inside another finding, or code
        parts += [data[end:start], placeholder]
        end = stop
        counts[NAMES[placeholder]] += 1
    return b"".join((*parts, data[end:])), counts


def emails(data: bytes) -> Iterator[Finding]:
    """All but those at names that are reserved for examples (RFC 2606)."""
    end = 0  # of the one before
    for match in EMAIL_FORM.finditer(data):
        before = EMAIL_BEFORE.search(data, max(end, match.start() - 65), match.start())
        if before and not EMAIL_EXAMPLES.search(match[0]):
            start = after_escape(data, before.start())
            if start < match.start():
                end = match.end()
                yield start, end, EMAIL


def after_escape(data: bytes, start: int) -> int:
    """`start`; where it is inside an escape, such as the n of "\\nfoo", the end of that."""
    first = start
    while first and data[first - 1] == ord("\\"):
        first -= 1
    escape = ESCAPE.match(data, start - 1) if (start - first) % 2 else None
    return escape.end() if escape else start


def addresses(data: bytes) -> Iterator[Finding]:
    """Public addresses: no version number, and none of a private or reserved net."""
    for match in IP_FORM.finditer(data):
        before = IP_BEFORE.search(data, max(0, match.start() - 4), match.start())
        if before and is_address(data[before.start() : match.end()]):
            start = before.start()
            if not VERSION_BEFORE.search(data, max(0, start - 20), start):
                yield start, match.end(), IP


def is_address(text: bytes) -> bool:
    try:
        address = ipaddress.IPv4Address(text.decode())
    except ValueError:
        return False
    return address.is_global and max(address.packed) > VERSION_LIKE


def keys(data: bytes) -> Iterator[Finding]:
    hints = {i for i, _, _ in KEY_HINTS.find_matches_as_indexes(data)}  # one pass for all
    for i, form in enumerate(KEY_FORMS.values()):
        if i in hints:
            for match in form.finditer(data):
                yield *match.span(), KEY
                if match.re.groups:  # a private key; if its lines are literals of their own, each
                    yield from key_lines(data, *match.span(1))


def key_lines(data: bytes, start: int, stop: int) -> Iterator[Finding]:
    for match in KEY_LINE.finditer(data, start, stop):
        if is_random(match[0]):
            yield after_escape(data, match.start()), match.end(), KEY


def in_urls(data: bytes) -> Iterator[Finding]:
    """Of scheme://user:password@host the password, if it does not look like an example's."""
    for match in URL_PASSWORD.finditer(data):
        if HAS_DIGIT.search(match[1]) and HAS_LETTER.search(match[1]):
            yield *match.span(1), KEY


def assigned(data: bytes) -> Iterator[Finding]:
    for match in VALUE.finditer(data):
        if is_random(match[1]) and NAME_BEFORE.search(
            data, max(0, match.start() - 60), match.start()
        ):
            yield *match.span(1), KEY


def is_random(value: bytes) -> bool:
    """Letters and digits with the entropy of chance."""
    if not (HAS_DIGIT.search(value) and HAS_LETTER.search(value)):
        return False
    counts = Counter(value).values()
    return -sum(c / len(value) * math.log2(c / len(value)) for c in counts) > RANDOM_BITS
