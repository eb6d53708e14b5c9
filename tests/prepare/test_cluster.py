"""The datatrove pipeline on its local executor writes what prepare/run.py writes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prepare import cluster, run
from prepare.verify import problems
from ptx.corpus import Corpus

ROOT = Path(run.__file__).parent


def code(seed: int) -> str:
    draw = random.Random(seed)
    lines = (
        f"def f_{draw.randrange(10**6)}(x):\n    return x + {draw.random()}\n" for _ in range(60)
    )
    return f'"""The module number {seed}, which adds."""\n' + "".join(lines)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of rows, with exact and near copies across them."""
    root = tmp_path_factory.mktemp("rows")
    contents = [code(i) for i in range(60)]
    contents[50] = contents[3]
    contents[51] = contents[4] + "x = 1\n"
    contents[20] = contents[5].replace("return", "return ", 1)
    contents[30] = "print 'x'\n"
    for part in range(3):
        rows = [
            {"repo_name": f"repo/{i % 11}", "path": f"{i}.py", "license": "mit", "content": content}
            for i, content in enumerate(contents)
            if i % 3 == part
        ]
        (root / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def command(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("near", [True, False])
def test_the_local_executor_writes_the_same_directory(
    source: Path, tmp_path: Path, near: bool
) -> None:
    options = () if near else ("--no-near",)
    for script, name in (("run.py", "one"), ("cluster.py", "many")):
        result = command(script, "jsonl", source, "--out", tmp_path / name, *options)
        assert result.returncode == 0, result.stderr[-2_000:]
    assert list(problems(tmp_path / "many")) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many", "one"]
    manifest = Corpus(tmp_path / "many").manifest
    assert manifest["filters"]["near duplicate"]["files"] == (2 if near else 0)
    for name in ("train.bin", "val.bin", "documents.parquet", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    kept = pq.read_table(tmp_path / "many" / "documents.parquet")["path"].to_pylist()
    assert "30.py" not in kept


def test_what_a_failed_run_did_is_not_taken_for_other_data_or_options(
    source: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = (source / "0.jsonl").read_text().splitlines(keepends=True)
    (rows / "0.jsonl").write_text("".join(line for line in lines if '"repo/0"' in line))
    one = command("cluster.py", "jsonl", rows, "--out", tmp_path / "many")
    assert one.returncode == 2
    assert "only one project" in one.stderr  # said by the last task, when all others are done
    for part in range(3):
        shutil.copy(source / f"{part}.jsonl", rows / f"{part}.jsonl")
    for script, name in (("run.py", "one"), ("cluster.py", "many")):
        result = command(script, "jsonl", rows, "--out", tmp_path / name, "--tokenizer", "py4k")
        assert result.returncode == 0, result.stderr[-2_000:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many", "one", "rows"]
    for name in ("train.bin", "val.bin", "documents.parquet", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_ray_is_asked_for_the_memory_of_a_task(tmp_path: Path) -> None:
    options = cluster.Options(tmp_path / "data", executor="ray", memory=7)
    stage = cluster.executor(options, "clean", 1, [], tmp_path / "logs", None)
    assert stage.mem_per_cpu_gb == 7


def test_slurm_needs_a_partition(source: Path, tmp_path: Path) -> None:
    arguments = ("jsonl", source, "--out", tmp_path / "data", "--executor", "slurm")
    result = command("cluster.py", *arguments)
    assert result.returncode == 2
    assert "Slurm needs a --partition" in result.stderr
    assert not list(tmp_path.iterdir())


SBATCH = """#!/bin/sh
# Stands in for Slurm's: keeps each script and numbers the jobs.
for last; do :; done
n=$(($(ls "$SUBMITTED" | wc -l) / 2 + 1))
cp "$last" "$SUBMITTED/$n.sh"
printf '%s\\n' "$@" > "$SUBMITTED/$n.arguments"
echo "$n"
"""


def submit(tmp_path: Path, source: Path, *options: str) -> tuple[Path, dict[int, str]]:
    """(where the jobs are kept, the script of each stage by its number)."""
    submitted = tmp_path / "submitted"
    shutil.rmtree(submitted, ignore_errors=True)
    submitted.mkdir()
    (tmp_path / "bin").mkdir(exist_ok=True)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    result = command(
        "cluster.py",
        *("jsonl", source, "--out", tmp_path / "data", "--executor", "slurm"),
        *("--partition", "cpu", *options),
        PATH=f"{sbatch.parent}:{os.environ['PATH']}",
        SUBMITTED=str(submitted),
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    return submitted, {  # datatrove submits jobs that add up statistics between them
        int(path.stem): script
        for path in submitted.glob("*.sh")
        if "launch_pickled_pipeline" in (script := path.read_text())
    }


def test_a_run_on_slurm_that_ended_does_not_keep_the_next_from_beginning(
    source: Path, tmp_path: Path
) -> None:
    submit(tmp_path, source, "--no-near")
    logs = list(tmp_path.rglob(".data.work/**/logs"))
    assert len(logs) == 1
    for stage, tasks in (("clean", 3), ("assemble", 1)):
        for task in range(tasks):
            done = logs[0] / stage / "completions" / f"{task:05}"
            done.parent.mkdir(exist_ok=True)
            done.touch()
    assert len(submit(tmp_path, source, "--no-near")[1]) == 2


def test_slurm_is_given_a_job_for_each_stage_that_waits_for_the_one_before(
    source: Path, tmp_path: Path
) -> None:
    submitted, scripts = submit(tmp_path, source, "--hours", "3")
    stages = {"clean": 3, "pairs": 14, "clusters": 1, "assemble": 1}
    before: list[str] = []
    for number, (stage, tasks) in zip(sorted(scripts), stages.items(), strict=True):
        for line in (
            f"--job-name=ptx-{stage}",
            "--partition=cpu",
            "--time=3:00:00",
            "--mem-per-cpu=4G",
            f"--array=0-{tasks - 1}",
        ):
            assert f"#SBATCH {line}" in scripts[number]
        given = (submitted / f"{number}.arguments").read_text()
        assert re.findall(r"--dependency=afterok:(\d+)", given) == before
        before = [str(number)]
