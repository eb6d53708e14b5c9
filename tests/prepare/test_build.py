"""From shards to a data directory: order, end-of-text, copies, provenance, and going on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from prepare import build as module
from prepare import run, split, verify
from prepare.build import Plan, build, work_directory
from prepare.cleaning.clean import Cleaner
from prepare.cleaning.rules import OWN_CODE, Rules
from prepare.limits import parse_limit
from prepare.shards import ShardFiles, clean_shard, shard_files
from prepare.sources import Document, Source
from prepare.split import VAL_FRACTION
from prepare.workers import Task
from ptx.corpus import DTYPES, Corpus, file_sha256
from ptx.errors import UserError
from ptx.tokenizer import get_tokenizer
from tests.disk import largest_file

EOT = "<eot>"
PY16K = get_tokenizer("py16k")
PLAN = Plan("py16k", VAL_FRACTION, steps=replace(OWN_CODE, near=False))
NEAR = replace(PLAN, steps=OWN_CODE)
TRAIN, VAL = "torch", "pydantic"  # which side a project is on is decided by its name


@dataclass(frozen=True)
class Given:
    """A shard of documents that a test made."""

    contents: tuple[Document, ...]
    size: int = 0

    def documents(self) -> Iterator[Document]:
        return iter(self.contents)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean here: tests/prepare/test_run.py covers the worker processes."""

    def clean_all(
        tasks: Sequence[Task],
        steps: Rules,
        tokenizer: str,
        progress: Callable[[int], None],
        enough: Callable[[], bool],
    ) -> None:
        cleaner = Cleaner(steps, get_tokenizer(tokenizer))
        for shard, files in tasks:
            if enough():
                return
            clean_shard(shard, files, cleaner, DTYPES["uint16"], lambda size: None)

    monkeypatch.setattr(module, "clean_all", clean_all)


def documents(project: str, *contents: str, **fields: str) -> list[Document]:
    return [
        Document(content.encode(), f"{i}.py", project, **fields)
        for i, content in enumerate(contents)
    ]


def prepared(
    target: Path, *shards: list[Document], plan: Plan = PLAN, continuous: bool = False
) -> Corpus:
    source = Source("given", [Given(tuple(shard)) for shard in shards], continuous)
    build(source, target, plan, lambda done: None)
    assert list(verify.problems(target)) == []
    assert not work_directory(target).exists()
    return Corpus(target)


def shown(opened: Corpus, split: str) -> str:
    ids = getattr(opened, split)
    return "".join(EOT if i == PY16K.eot else PY16K.text([i]) for i in ids)


def test_every_file_ends_with_end_of_text_and_projects_stay_together(tmp_path: Path) -> None:
    first = documents(TRAIN, "x = 1\n", "y = 2\n", version="1.0", licence="MIT")
    second = [*documents("numpy", "z = 3\n"), *documents(VAL, "v = 4\n")]
    third = [replace(documents(TRAIN, "w = 5\n")[0], path="later.py")]
    opened = prepared(tmp_path / "data", first, second, third)
    torch, numpy = f"x = 1\n{EOT}y = 2\n{EOT}w = 5\n{EOT}", f"z = 3\n{EOT}"
    assert shown(opened, "train") in (torch + numpy, numpy + torch)
    assert shown(opened, "val") == f"v = 4\n{EOT}"
    [listed] = [s for s in opened.manifest["sources"]["train"] if s["name"] == TRAIN]
    assert listed == listed | {"version": "1.0", "licence": "MIT", "files": 3, "bytes": 18}


def test_the_seed_orders_the_projects(tmp_path: Path) -> None:
    many = [d for i in range(12) for d in documents(f"package-{i}", f"x = {i}\n")]
    orders = []
    for seed in (0, 0, 1):
        opened = prepared(tmp_path / "data", many, plan=replace(PLAN, seed=seed))
        orders.append([s["name"] for s in opened.manifest["sources"]["train"]])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_end_of_text_in_a_file_stays_text(tmp_path: Path) -> None:
    files = [*documents(TRAIN, "s = '<|endoftext|>'\n"), *documents(VAL, "v = 4\n")]
    opened = prepared(tmp_path / "data", files)
    assert shown(opened, "train") == f"s = '<|endoftext|>'\n{EOT}"
    assert opened.manifest["splits"]["train"]["files"] == 1


def test_a_copy_stays_in_validation_and_leaves_training(tmp_path: Path) -> None:
    train = documents(TRAIN, "x = 1\n", "shared = 2\n", "x = 1\n")
    opened = prepared(tmp_path / "data", train, documents(VAL, "shared = 2\n"))
    assert shown(opened, "train") == f"x = 1\n{EOT}"
    assert shown(opened, "val") == f"shared = 2\n{EOT}"
    assert opened.manifest["filters"]["duplicate"] == {"files": 2, "bytes": 17}


def test_a_near_twin_of_validation_leaves_training_and_is_listed(tmp_path: Path) -> None:
    text = "".join(f"def f_{i}(x):\n    return x * {i} + {i * i}\n\n" for i in range(80))
    train = documents(TRAIN, "x = 1\n", text.replace("f_7(", "g_7("))
    opened = prepared(tmp_path / "data", train, documents(VAL, "v = 4\n", text), plan=NEAR)
    assert shown(opened, "train") == f"x = 1\n{EOT}"
    assert "f_7(" in shown(opened, "val")
    [row] = pq.read_table(tmp_path / "data" / "near_duplicates.parquet").to_pylist()
    assert (row["project"], row["path"], row["kept_split"]) == (TRAIN, "1.py", "val")
    assert 0.9 < row["similarity"] < 1
    start = row["kept_start"]
    assert PY16K.text(opened.val[start : start + 4].tolist()).startswith("def f_0")


def test_a_project_of_which_nothing_is_left_is_not_listed(tmp_path: Path) -> None:
    files = [*documents(TRAIN, "x = 1\n"), *documents("gone", "", "\n"), *documents(VAL, "v = 4\n")]
    opened = prepared(tmp_path / "data", files)
    assert [s["name"] for s in opened.manifest["sources"]["train"]] == [TRAIN]


def test_a_test_side_is_kept_apart_and_comes_first_where_copies_are_concerned(
    tmp_path: Path,
) -> None:
    tested, held = "pydantic", "pillow"  # at 0.046 and 0.056 of the names' hash
    files = [
        *documents(TRAIN, "x = 1\n", "twice = 2\n", "thrice = 3\n"),
        *documents(held, "v = 4\n", "thrice = 3\n"),
        *documents(tested, "t = 5\n", "twice = 2\n", "thrice = 3\n"),
    ]
    plan = replace(PLAN, val_fraction=0.05, test_fraction=0.05)
    opened = prepared(tmp_path / "data", files, plan=plan)
    assert opened.splits == ("train", "val", "test")
    assert shown(opened, "train") == f"x = 1\n{EOT}"
    assert shown(opened, "val") == f"v = 4\n{EOT}"
    assert shown(opened, "test") == f"t = 5\n{EOT}twice = 2\n{EOT}thrice = 3\n{EOT}"
    names = {s: [p["name"] for p in opened.manifest["sources"][s]] for s in opened.splits}
    assert names == {"train": [TRAIN], "val": [held], "test": [tested]}
    assert opened.manifest["split"]["test_fraction"] == 0.05
    assert list(verify.problems(opened.path)) == []
    (opened.path / "test.bin").write_bytes((opened.path / "val.bin").read_bytes())
    with pytest.raises(UserError, match=r"test.bin holds the val split"):
        Corpus(opened.path)


def test_one_text_ends_only_where_a_part_was_removed(tmp_path: Path) -> None:
    parts = documents("text", "a = 1\n", "b = 2\n", "", "c = 3\n", "d = 4\n", "e = 5\n", "f = 6\n")
    plan = replace(PLAN, val_fraction=0.3)
    opened = prepared(tmp_path / "data", parts[:2], parts[2:], plan=plan, continuous=True)
    assert shown(opened, "train") == f"a = 1\nb = 2\n{EOT}c = 3\nd = 4\n{EOT}"
    assert shown(opened, "val") == f"e = 5\nf = 6\n{EOT}"


@pytest.mark.parametrize(("limit", "files"), [("5files", 5), ("30bytes", 5), ("1files", 2)])
def test_a_limit_takes_the_first_documents_only(limit: str, files: int, tmp_path: Path) -> None:
    shards = [
        documents(name, f"x = {i}\n", f"y = {i}\n") for i, name in enumerate((VAL, TRAIN) * 3)
    ]
    plan = replace(PLAN, limit=parse_limit(limit))
    if files < 3:
        with pytest.raises(UserError, match="only one project"):
            prepared(tmp_path / "data", *shards, plan=plan)
        return
    opened = prepared(tmp_path / "data", *shards, plan=plan)
    assert sum(opened.manifest["splits"][split]["files"] for split in ("train", "val")) == files
    assert opened.manifest["filters"]["in"]["files"] == files


def test_a_project_beyond_the_limit_has_no_part_in_the_split(tmp_path: Path) -> None:
    draw = sorted((f"package-{i}" for i in range(40)), key=split.position)
    validates, trains = draw[0], draw[-3:]  # by their names, were all of them there
    shards = [documents(name, f"x = '{name}'\n", f"y = '{name}'\n") for name in trains]
    shards[-1] += documents(validates, "z = 1\n")
    opened = prepared(tmp_path / "data", *shards, plan=replace(PLAN, limit=parse_limit("6files")))
    names = {s: {p["name"] for p in opened.manifest["sources"][s]} for s in opened.splits}
    assert names == {"train": set(trains[1:]), "val": {trains[0]}}


def test_all_licences_and_versions_of_a_project_are_listed(tmp_path: Path) -> None:
    first = documents(TRAIN, "x = 1\n", version="1", licence="MIT")
    second = [*documents(TRAIN, "y = 2\n", "z = 3\n", licence="ISC"), *documents(VAL, "v = 4\n")]
    opened = prepared(tmp_path / "data", first, second)
    [listed] = opened.manifest["sources"]["train"]
    assert (listed["version"], listed["licence"]) == ("1", "ISC; MIT")


def test_a_licence_is_listed_only_if_a_document_within_the_limit_has_it(tmp_path: Path) -> None:
    first = [*documents(VAL, "v = 4\n"), *documents(TRAIN, "x = 1\n", licence="MIT")]
    second = documents(TRAIN, "y = 2\n", licence="ISC")
    plan = replace(PLAN, limit=parse_limit("2files"))
    [listed] = prepared(tmp_path / "data", first, second, plan=plan).manifest["sources"]["train"]
    assert listed["licence"] == "MIT"


@pytest.mark.parametrize("limit", ["0MB", "lots", "5", "-1files", "5 hours"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(UserError, match="write 500MB, 10000files or 50Mtokens"):
        parse_limit(limit)


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    files = [*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n"), Document(None, "a", "gone")]
    opened = prepared(tmp_path / "data", files)
    assert opened.manifest["filters"]["not delivered"] == {"files": 1, "bytes": 0}


# --- going on


class Stopped(Exception):
    pass


@dataclass(frozen=True)
class Broken(Given):
    """A shard whose source fails in the middle."""

    def documents(self) -> Iterator[Document]:
        yield self.contents[0]
        raise Stopped


def directory_bytes(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_finished_shards_are_not_cleaned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [tuple(documents(name, f"x = '{name}'\n")) for name in (TRAIN, VAL, "numpy")]
    whole = Source("given", list(map(Given, shards)))
    build(whole, tmp_path / "whole", PLAN, lambda done: None)
    half = Source("given", [Given(shards[0]), Given(shards[1]), Broken(shards[2])])
    with pytest.raises(Stopped):
        build(half, tmp_path / "data", PLAN, lambda done: None)
    cleaned = []
    plain = module.clean_all
    monkeypatch.setattr(
        module, "clean_all", lambda tasks, *rest: (cleaned.extend(tasks), plain(tasks, *rest))
    )
    build(whole, tmp_path / "data", PLAN, lambda done: None)
    assert [shard for shard, _ in cleaned] == [Given(shards[2])]
    assert directory_bytes(tmp_path / "data") == directory_bytes(tmp_path / "whole")


def test_shards_of_another_plan_are_not_used(tmp_path: Path) -> None:
    files = [*documents(TRAIN, "x = 1\n", "print 'x'\n"), *documents(VAL, "v = 4\n")]
    broken = Source("given", [Given(tuple(files)), Broken(tuple(files))])
    with pytest.raises(Stopped):
        build(broken, tmp_path / "data", PLAN, lambda done: None)
    plan = replace(PLAN, steps=replace(PLAN.steps, parses=False))
    opened = prepared(tmp_path / "data", files, plan=plan)
    assert opened.manifest["splits"]["train"]["files"] == 2


def test_a_full_disk_is_one_sentence_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n"))
    source = Source("given", [Given(files), Given(files)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("prepare.shards.flush", full)
        with pytest.raises(UserError, match="is full: make room and run the same command again"):
            build(source, tmp_path / "data", PLAN, lambda done: None)
    assert not (tmp_path / "data").exists()
    build(source, tmp_path / "data", PLAN, lambda done: None)
    assert list(verify.problems(tmp_path / "data")) == []


@pytest.mark.parametrize("largest", [20_000, 100_000])
def test_a_shard_that_the_disk_did_not_take_is_not_done(tmp_path: Path, largest: int) -> None:
    numbers = ["".join(f"x = {i * 1000 + j}\n" for j in range(100)) for i in range(300)]
    shard = Given(tuple(documents(TRAIN, *numbers)))
    files = shard_files(tmp_path, 0, shard, "")
    cleaner = Cleaner(OWN_CODE, PY16K)
    with largest_file(largest), pytest.raises(UserError, match="is full: make room"):
        clean_shard(shard, files, cleaner, DTYPES["uint16"], lambda size: None)
    assert not files.done


def test_tokens_that_are_gone_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = module.assemble

    def cut(source: Source, shards: Sequence[ShardFiles], *rest: object) -> dict:
        os.truncate(shards[0].file("tokens"), 2)
        return plain(source, shards, *rest)

    monkeypatch.setattr(module, "assemble", cut)
    with pytest.raises(UserError, match=r"\.tokens ends too early: delete .*\.data\.work and run"):
        prepared(tmp_path / "data", documents(TRAIN, "x = 1\n"), documents(VAL, "v = 4\n"))
    assert not (tmp_path / "data").exists()


def test_another_benchmark_under_the_same_name_is_looked_for(tmp_path: Path) -> None:
    benchmark = tmp_path / "tasks.jsonl"
    plan = replace(PLAN, steps=replace(PLAN.steps, benchmarks=(benchmark,)))
    known = []
    for code in ("x = 1\n", "y = 2\n"):
        benchmark.write_text(json.dumps({"code": code}))
        known.append(module.cleaning_of(plan))
    assert known[0] != known[1]


def test_what_is_no_utf_8_in_a_source_is_shown_as_an_escape(tmp_path: Path) -> None:
    odd = documents(TRAIN, "x = 1\n", version="1\ud800", licence="\udfff")
    plan = replace(PLAN, steps=replace(PLAN.steps, licence=False))
    opened = prepared(tmp_path / "data", odd, documents(VAL, "v = 4\n"), plan=plan)
    [listed] = opened.manifest["sources"]["train"]
    assert (listed["version"], listed["licence"]) == ("1\\ud800", "\\udfff")


def command(*arguments: object) -> list[str]:
    return [sys.executable, run.__file__, *map(str, arguments)]


@pytest.mark.timeout(600)
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [f"name_{i}" for i in range(300)]
    lines = []
    for i in range(3_000):
        code = "".join(f"{draw.choice(words)} = {draw.choice(words)}\n" for _ in range(40))
        row = {
            "repo_name": f"repo{i % 40}",
            "path": f"{i}.py",
            "content": f"# The {i}-th file.\n{code}",
        }
        lines.append(json.dumps(row | {"license": "mit"}))
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in range(6):
        (parts / f"{i}.jsonl").write_text("\n".join(lines[i::6]))
    arguments = ("jsonl", parts, "--out")
    started = time.perf_counter()
    subprocess.run(command(*arguments, tmp_path / "whole"), check=True, capture_output=True)
    whole = time.perf_counter() - started
    kills, work = 0, tmp_path / ".data.work"
    for _ in range(12):
        process = subprocess.Popen(
            command(*arguments, tmp_path / "data"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not kills and process.poll() is None and not any(work.glob("*.json")):
            time.sleep(0.002)  # the first one once a shard is done, at any speed
        try:
            process.wait(draw.uniform(0.3, 1.0) * whole if kills else 0)
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            assert not (tmp_path / "data").exists() or Corpus(tmp_path / "data")
    else:
        subprocess.run(command(*arguments, tmp_path / "data"), check=True, capture_output=True)
    assert kills
    assert directory_bytes(tmp_path / "data") == directory_bytes(tmp_path / "whole")


def test_a_second_run_of_the_same_target_is_refused(tmp_path: Path) -> None:
    with (
        module.working_directory(tmp_path / "data"),
        pytest.raises(UserError, match="is being prepared by another process"),
    ):
        prepared(tmp_path / "data", documents(TRAIN, "x = 1\n"))


def test_the_end_of_a_run_leaves_what_the_next_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, plain, following = tmp_path / "data", module.discard, ExitStack()

    def discard(directory: Path) -> None:
        plain(directory)
        following.enter_context(module.working_directory(target))

    source = Source("given", [Given((*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n")))])
    with monkeypatch.context() as patched:
        patched.setattr(module, "discard", discard)
        build(source, target, PLAN, lambda done: None)
    assert (work_directory(target) / "lock").is_file()
    following.close()


def test_what_a_run_killed_at_its_end_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "..data.work.partial-4000000").mkdir()
    prepared(tmp_path / "data", [*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n")])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# --- verify


def test_verify_finds_a_document_that_is_not_its_text(tmp_path: Path) -> None:
    prepared(tmp_path / "data", [*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n")])
    opened = Corpus(tmp_path / "data")
    tokens = np.array(opened.train)
    tokens[0], tokens[1] = tokens[1], tokens[0]
    tokens.tofile(tmp_path / "data" / "train.bin")
    digest = file_sha256(tmp_path / "data" / "train.bin")
    manifest = tmp_path / "data" / "manifest.json"
    old = opened.manifest["splits"]["train"]["sha256"]
    manifest.write_text(manifest.read_text().replace(old, digest))
    assert any("are not its text" in problem for problem in verify.problems(tmp_path / "data"))


def test_verify_finds_a_changed_list_of_documents(tmp_path: Path) -> None:
    prepared(tmp_path / "data", [*documents(TRAIN, "x = 1\n"), *documents(VAL, "v = 4\n")])
    with (tmp_path / "data" / "documents.parquet").open("ab") as file:
        file.write(b"x")
    [problem] = verify.problems(tmp_path / "data")
    assert "documents.parquet is not the file of its manifest" in problem
    (tmp_path / "data" / "documents.parquet").unlink()
    [problem] = verify.problems(tmp_path / "data")
    assert "documents.parquet is missing" in problem
