"""Personal data and keys go, examples and code stay, and what parsed goes on parsing."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.cleaning import secrets
from prepare.cleaning.syntax import quoted

STDLIB = Path(sysconfig.get_path("stdlib"))
# Put together here, so that no scanner takes this file for a leak.
KEY = "PRIVATE " + "KEY-----"
SECRETS = {
    "ada@lovelace.org": "<EMAIL>",
    "a.b+c@mail.some-where.co.uk": "<EMAIL>",
    "93.184.216.34": "<IP>",
    "AKIA" + "IOSFODNN7ABCDEFG": "<KEY>",
    "ghp" + "_" + "a1B2" * 9: "<KEY>",
    "xoxb" + "-123456789012-abcdefghijkl": "<KEY>",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv": "<KEY>",
    "sk" + "-proj-" + "abcDEF123456" * 4: "<KEY>",
    "hf" + "_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH": "<KEY>",
    "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3" + ".dozjgNryP4J3jVmN": "<KEY>",
}
INNOCENT = [
    "y = a@b.mean\n",
    "@app.route\ndef f(): pass\n",
    "# someone@example.com, me@my.test, x@localhost\n",
    "hosts = '127.0.0.1 10.0.0.1 192.168.1.254 0.0.0.0 255.255.255.0 203.0.113.7'\n",
    "__version__ = '11.40.2.99'\n",
    "requires = 'foo>=33.1.2.40'\n",
    "oid = '1.3.6.1.4.1.311'\n",
    "password = 'correct horse battery staple'\n",
    "token = 'aaaaaaaaaaaaaaaaaaaaaaaa1'\n",
    "url = 'postgres://user:password@localhost/db'\n",
    "url = 'http://user:{password}@host/', 'https://me:%(secret1)s@host'\n",
    "url = 'http://user:passw0rd@proxy.example.com:3128'\n",
    "token: str = 'registration'\n",
    "key = 'self.registration_token_handler_name'\n",
    "sha256 = 'd2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26'\n",
]


def cleaned(code: str) -> str:
    data = code.encode()
    return secrets.cleaned(data, quoted(data))[0].decode()


@pytest.mark.parametrize("secret", SECRETS)
def test_each_form_is_replaced_in_comments_and_strings(secret: str) -> None:
    placeholder = SECRETS[secret]
    assert cleaned(f"# ask {secret}, please\n") == f"# ask {placeholder}, please\n"
    assert cleaned(f"x = '{secret}'\n") == f"x = '{placeholder}'\n"


def test_a_private_key_is_replaced_as_a_whole() -> None:
    code = f'k = """-----BEGIN RSA {KEY}\n{"abcd" * 20}\n-----END RSA {KEY}"""\n'
    assert cleaned(code) == 'k = """<KEY>"""\n'


def test_a_private_key_in_lines_of_their_own_is_replaced_line_by_line() -> None:
    body = ["MIIEowIBAAKCAQEA7q7Zk29xLpW3v8RtY5mNb", "b8Kx3QzV+9wTfLr2HcJ6yPdS0aGe5UnMoI1"]
    lines = [f"-----BEGIN RSA {KEY}", *body, f"-----END RSA {KEY}"]
    code = "k = (" + "\n    ".join(f'"{line}\\n"' for line in lines) + ")\n"
    expected = code.replace(body[0], "<KEY>").replace(body[1], "<KEY>")
    assert cleaned(code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (r'"Contact:\nfoo@bar.com\tbob@corp.org"', r'"Contact:\n<EMAIL>\t<EMAIL>"'),
        (r'"C:\\bob@corp.org"', r'"C:\\<EMAIL>"'),
        (r'"\x41bob@corp.org \u00e9bob@corp.org \101bob@corp.org"',
         r'"\x41<EMAIL> \u00e9<EMAIL> \101<EMAIL>"'),
        (r'"\n@corp.org"', r'"\n@corp.org"'),
    ],
)  # fmt: skip
def test_an_escape_before_an_address_stays_whole(code: str, expected: str) -> None:
    assert cleaned(f"x = {code}\n") == f"x = {expected}\n"
    ast.parse(cleaned(f"x = {code}\n"))


def test_a_password_in_a_url_is_replaced() -> None:
    code = "url = 'postgres://user:{}@db/names'\n"
    assert cleaned(code.format("hunter2secret")) == code.format("<KEY>")


@pytest.mark.parametrize(
    "code",
    [
        'password = "{}"\n',
        'password: str = "{}"\n',
        '{{"api_key": "{}"}}\n',
        "AUTH_TOKEN='{}'\n",
    ],
)
def test_a_random_value_with_a_telling_name_is_replaced(code: str) -> None:
    assert cleaned(code.format("q7Zk29xLpW3v8RtY5mNb")) == code.format("<KEY>")


@pytest.mark.parametrize("code", INNOCENT)
def test_what_is_no_secret_stays(code: str) -> None:
    assert cleaned(code) == code


@given(st.lists(st.sampled_from([*SECRETS, *INNOCENT, "\n", "# ", "'", '"', " "]), max_size=12))
def test_cleaning_twice_is_cleaning_once(parts: list[str]) -> None:
    once = cleaned("".join(parts))
    assert cleaned(once) == once


@given(st.binary(max_size=200))
def test_any_bytes_pass(data: bytes) -> None:
    secrets.cleaned(data, quoted(data))


def test_the_standard_library_parses_afterwards_and_hardly_changes() -> None:
    files = sorted(STDLIB.glob("*.py"))
    changed = 0
    for path in files:
        data = path.read_bytes()
        after, counts = secrets.cleaned(data, quoted(data))
        if after != data:
            changed += 1
            ast.parse(after)
        assert counts["keys"] == 0, path
    assert changed < 0.3 * len(files)  # authors' addresses
