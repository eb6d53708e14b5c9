"""Sources: every file once, with the project it belongs to."""

from __future__ import annotations

import sys
import sysconfig
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

from prepare.sources import local
from ptx.errors import UserError


def files(project: local.Project) -> list[str]:
    return [path.name for path in project.paths]


# --- installed


@pytest.fixture(scope="module")
def installed() -> dict[str, local.Project]:
    return {project.name: project for project in (local.standard_library(), *local.distributions())}


def test_installed_packages_have_their_version_and_licence(
    installed: dict[str, local.Project],
) -> None:
    assert installed["numpy"].version == metadata.version("numpy")
    assert installed["tyro"].licence == "MIT"
    assert installed["python"].version.startswith(f"{sys.version_info.major}.")
    assert installed["python"].licence == "PSF-2.0"


def test_no_file_is_read_twice(installed: dict[str, local.Project]) -> None:
    paths = [path.resolve() for project in installed.values() for path in project.paths]
    assert len(paths) == len(set(paths))


def test_the_standard_library_is_its_own_files_only(installed: dict[str, local.Project]) -> None:
    paths = installed["python"].paths
    root = Path(sysconfig.get_path("stdlib"))
    assert root / "json" / "decoder.py" in paths
    forbidden = {"site-packages", "dist-packages", "lib-dynload", "__pycache__"}
    assert not any(forbidden & set(path.relative_to(root).parts) for path in paths)


def distribution(site: Path, name: str, version: str, listed: list[str], **fields: str) -> None:
    """An installed distribution as pip leaves it: files, METADATA and RECORD."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    for file in listed:
        if not (path := site / file).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {name}\n")
    lines = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in fields.items())
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n{lines}")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in listed))


def test_only_what_a_distribution_owns_inside_site_packages_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(site))
    distribution(site, "Foo.Bar", "1.0", ["foo/a.py", "foo/b.so", "shared.py", "../bin/script.py"])
    distribution(site, "zoo", "2.0", ["zoo/__init__.py", "shared.py"], License_Expression="MIT")
    (site / "leftover.py").write_text("x = 1\n")
    (site / "outside.py").write_text("x = 1\n")
    (site / "zoo" / "link.py").symlink_to(site / "outside.py")
    (site / "zoo-2.0.dist-info" / "RECORD").open("a").write("zoo/link.py,,\nzoo/gone.py,,\n")
    foo, zoo = local.distributions()
    assert (foo.name, foo.version, foo.licence) == ("foo-bar", "1.0", "unknown")
    assert files(foo) == ["a.py", "shared.py"]
    assert (zoo.name, zoo.licence) == ("zoo", "MIT")
    assert files(zoo) == ["__init__.py"]


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "long")], "MIT OR Apache-2.0"),
        ([("License", "BSD-3-Clause")], "BSD-3-Clause"),
        ([("License", "Copyright\n 2020\n"), ("Classifier", "License :: X :: MIT")], "MIT"),
        ([("License", "UNKNOWN"), ("Classifier", "Topic :: X")], "unknown"),
        ([("Classifier", "License :: A"), ("Classifier", "License :: B")], "A AND B"),
        ([], "unknown"),
    ],
)
def test_the_licence_is_what_the_package_declares(
    fields: list[tuple[str, str]], licence: str
) -> None:
    message = Message()
    for key, value in fields:
        message[key] = value
    assert local.licence_of(message) == licence


# --- folder


def test_subfolders_are_projects_and_loose_files_are_another(tmp_path: Path) -> None:
    for name in ("b/x.py", "b/deep/y.py", "b/.git/z.py", "b/__pycache__/z.py", "b/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    for name in (".hidden/x.py", "empty/readme.txt", "a/x.py", "loose.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "link.py").symlink_to(tmp_path / "loose.py")
    found = [
        (d.project, d.path) for shard in local.folder(tmp_path).shards for d in shard.documents()
    ]
    expected = [(tmp_path.name, "loose.py"), ("a", "a/x.py"), ("b", "b/deep/y.py"), ("b", "b/x.py")]
    assert found == expected


def test_shards_hold_every_file_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SHARD", 40)
    for project in "ab":
        (tmp_path / project).mkdir()
        for i in range(7):
            (tmp_path / project / f"{i}.py").write_text("x = 1\n" * (1 + i % 3))
    shards = local.folder(tmp_path).shards
    assert len(shards) > 3
    found = [d.path for shard in shards for d in shard.documents()]
    assert found == [f"{project}/{i}.py" for project in "ab" for i in range(7)]
    assert sum(shard.size for shard in shards) == sum(
        path.stat().st_size for path in tmp_path.rglob("*.py")
    )


def test_a_changed_file_changes_its_shard(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.py").write_text("x = 1\n")
    (tmp_path / "a.py").write_text("x = 1\n")
    before = repr(local.folder(tmp_path).shards)
    assert repr(local.folder(tmp_path).shards) == before
    (tmp_path / "a.py").write_text("x = 22\n")
    assert repr(local.folder(tmp_path).shards) != before


def test_a_folder_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.py file"):
        local.folder(tmp_path)
    with pytest.raises(UserError, match="is not a directory"):
        local.folder(tmp_path / "nowhere")


# --- text

FUNCTION = "def f_{i}(x):\n    y = x + {i}\n\n    return y\n\n\n"


def blocks_of(path: Path) -> list[bytes]:
    return [d.content for shard in local.text(path).shards for d in shard.documents()]


def test_a_text_is_cut_at_top_level_lines(tmp_path: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("".join(FUNCTION.format(i=i) for i in range(30_000)))
    blocks = blocks_of(path)
    assert b"".join(blocks) == path.read_bytes()
    assert all(block.startswith(b"def ") and block.endswith(b"\n\n\n") for block in blocks)
    assert all(60_000 < len(block) < 70_000 for block in blocks[:-1])
    assert local.text(path).continuous


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_short_text_still_has_an_end_to_validate_on(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "input.txt"
    text = "".join(FUNCTION.format(i=i) for i in range(40)).replace("\n", ending)
    path.write_bytes(text.encode())
    blocks = blocks_of(path)
    assert b"".join(blocks) == path.read_bytes()
    assert len(blocks) > 10


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x7fELF\xff\xfe\n" * 99, "not UTF-8 text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "input.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        local.text(path)


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        local.text(tmp_path)
