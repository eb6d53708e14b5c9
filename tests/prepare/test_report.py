"""The report is one page that shows everything and runs nothing; `show` finds the document."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from prepare import report, show, verify
from prepare.build import Plan, build
from prepare.cleaning.rules import OWN_CODE, Rules
from prepare.sources import Document, Source
from prepare.sources.local import folder
from ptx.corpus import Corpus
from ptx.errors import UserError
from tests.prepare.test_build import Given

OFF = Rules(**{name: False for name in vars(Rules()) if name != "benchmarks"})
HOSTILE = '"""<script>alert(1)</script> & <img src=x onerror=y> \u202e \x00"""\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("projects")
    for name in ("torch", "numpy", "pydantic"):
        (root / name).mkdir()
        for i in range(4):
            code = "".join(f"def {name}_{i}_{j}(x):\n\treturn x + {i * j}\n" for j in range(30))
            (root / name / f"module_{i}.py").write_text(code)
    twin = (root / "torch" / "module_1.py").read_text() + "x = 1\n"
    (root / "torch" / "twin & <b>.py").write_text(twin)
    (root / "numpy" / "hostile.py").write_text(HOSTILE.replace("\x00", "\\0") + "x = 1\n")
    (root / "numpy" / "empty.py").write_text("")
    target = tmp_path_factory.mktemp("data") / "data"
    build(folder(root), target, Plan("py16k", 0.1, steps=OWN_CODE), lambda done: None)
    return target


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(data: Path) -> Page:
    file = data.parent / "page.html"
    report.write(data, file)
    return Page(file.read_text("utf-8"))


def test_the_page_shows_every_part(page: Page) -> None:
    for part in ("near duplicate (1 files)", "empty (1 files)", "not stated", "torch", "train.bin"):
        assert part in page.text
    assert "twin & <b>.py" in page.text
    assert "module_1.py" in page.text
    assert "never occur" in page.text


def test_the_page_is_complete_in_itself_and_runs_nothing(page: Page) -> None:
    assert not {"script", "img", "link", "iframe", "b\x00"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href")}


def test_text_of_documents_is_escaped_and_nothing_in_it_hides(page: Page) -> None:
    assert "<script>alert(1)</script>" in page.text.replace("·", " ")
    assert "\u202e" not in page.text


def test_a_directory_without_near_duplicates_has_a_page(tmp_path: Path) -> None:
    for name in ("torch", "pydantic"):
        (tmp_path / "projects" / name).mkdir(parents=True)
        (tmp_path / "projects" / name / "module.py").write_text(f"def {name}():\n    return 1\n")
    plan = Plan("py16k", 0.1, steps=OWN_CODE)
    build(folder(tmp_path / "projects"), tmp_path / "data", plan, lambda done: None)
    report.write(tmp_path / "data", tmp_path / "page.html")
    assert "None." in (tmp_path / "page.html").read_text("utf-8")


def test_a_manifest_without_the_fields_of_its_sources_is_one_sentence(
    data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["split"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    report.write(copy, tmp_path / "page.html")
    assert list(verify.problems(copy)) == []
    del manifest["sources"]["train"][0]["version"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json does not list the sources of train\.bin"):
        report.write(copy, tmp_path / "page.html")


@pytest.mark.parametrize("split", ["train", "val"])
def test_show_prints_the_document_around_a_token(data: Path, split: str) -> None:
    corpus = Corpus(data)
    tokens = getattr(corpus, split)
    for at in (0, len(tokens) // 2, len(tokens) - 1, -1):
        console = Console(width=120)
        with console.capture() as captured:
            show.show(data, split, at, 2, console)
        text = captured.get()
        shown = corpus.tokenizer.token_bytes(int(tokens[at]))
        assert "module_" in text or "hostile" in text
        assert (repr(shown)[1:] if shown else "end of text") in text


def test_show_prints_names_and_code_as_they_are_and_commands_no_terminal(tmp_path: Path) -> None:
    code = b"# \x1b]0;title\x07 [red]\r\nx = 1\r\n"
    rows = tuple(
        Document(code + bytes(name, "utf-8"), "a[/b]\x1b[2J.py", name)
        for name in ("p[/b]q", "[red]r")
    )
    source = Source("given", [Given(rows)])
    build(source, tmp_path / "data", Plan("py16k", 0.1, steps=OFF), lambda done: None)
    for split in ("train", "val"):
        console = Console(width=120)
        with console.capture() as captured:
            show.show(tmp_path / "data", split, 0, 0, console)
        text = captured.get()
        assert "p[/b]q" in text or "[red]r" in text
        assert "a[/b]\\u001b[2J.py" in text
        assert "# \\u001b]0;title\\u0007 [red]" in text
        assert "\\u000d" not in text
        assert not {"\x1b", "\x07"} & set(text)


def test_a_token_outside_and_a_directory_without_a_list_are_refused(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--at 10,000,000 is outside train\.bin"):
        show.show(data, "train", 10_000_000, 2, Console())
    with pytest.raises(UserError, match="--split must be train or val"):
        show.show(data, "test", 0, 2, Console())
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in data.iterdir():
        if not file.name.endswith(".parquet"):
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"documents\.parquet is missing: prepare the directory"):
        show.show(bare, "train", 0, 2, Console())
