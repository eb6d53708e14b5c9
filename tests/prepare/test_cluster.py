"""The datatrove pipeline on its local executor writes what prepare/run.py writes."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from prepare import run
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


def test_slurm_is_given_a_job_for_each_stage_that_waits_for_the_one_before(
    source: Path, tmp_path: Path
) -> None:
    submitted = tmp_path / "submitted"
    submitted.mkdir()
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(SBATCH)
    sbatch.chmod(0o755)
    result = command(
        "cluster.py",
        *("jsonl", source, "--out", tmp_path / "data", "--executor", "slurm"),
        *("--partition", "cpu", "--hours", "3"),
        PATH=f"{sbatch.parent}:{os.environ['PATH']}",
        SUBMITTED=str(submitted),
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    scripts = {  # datatrove submits jobs that add up statistics between them
        int(path.stem): script
        for path in submitted.glob("*.sh")
        if "launch_pickled_pipeline" in (script := path.read_text())
    }
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
