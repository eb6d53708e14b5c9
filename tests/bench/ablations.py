"""What each part of a recipe is worth: bits per byte on validation packages after equal CPU time.

    python tests/bench/ablations.py [--preset nano] [--seconds 120] [--seeds 2] [--only NAME ...]

Every run is a process of one thread, one a core. The recipe trains for as many steps as fit in
--seconds of CPU time, measured once a sweep; a variant whose steps are dearer gets fewer of them,
by the ratio of both costs, measured in turns in one process: so other load on the machine changes
neither. The schedule is stretched over what a variant gets. Results are appended to --out one by
one, and those already there are not run again: an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from train.loop import Run  # the parent gets along without torch


BASE = {
    "nano": {
        "batch_size": 16, "micro_batch": 16, "lr": 6e-3, "muon_lr": 0.03, "warmup": 10,
        "cooldown": 0.5,
    },
    "mini": {
        "batch_size": 16, "micro_batch": 16, "lr": 4e-3, "muon_lr": 0.02, "warmup": 40,
        "cooldown": 0.5,
    },
    "shapes": {
        "batch_size": 8, "micro_batch": 8, "lr": 4e-3, "muon_lr": 0.02, "warmup": 20,
        "cooldown": 0.5,
    },
}  # fmt: skip
"""What variants differ from: the recipes before the sweeps, so that these can be repeated."""
MINI_BEFORE = {
    "context": 256, "n_layer": 6, "n_head": 4, "n_kv_head": 4, "head_size": 64, "d_model": 256,
    "d_mlp": 704,
}  # fmt: skip
PRESET = {"shapes": "mini"}
"""Of a group of variants that is not called after its own."""
MODEL = {
    "mini": MINI_BEFORE,
    "shapes": MINI_BEFORE | {"context": 512, "n_layer": 9},
}
"""The shape that a group's variants differ from, where it is not the preset's."""
PLAIN = {"precision": "fp32", "attention": "fused", "compile": "off"}
KERNELS = {"shapes": {"precision": "fp32", "attention": "math", "compile": "on"}}
"""What a group's runs compute with, where it is not PLAIN."""


@dataclass(frozen=True)
class Variant:
    """What differs from BASE, and besides from the preset's recipe."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    """Of train.optim."""
    data: str = ""
    """A data directory beside --data, made with another tokenizer."""


ADAMW = {"optimizer": "adamw"}
FEW = {"batch_size": 4}
SOON = FEW | {"warmup": 10}
VARIANTS = {
    "nano": [
        Variant("base"),
        Variant("adamw, lr 1e-3", ADAMW | {"lr": 1e-3}),
        Variant("adamw, lr 3e-3", ADAMW | {"lr": 3e-3}),
        Variant("adamw, lr 6e-3", ADAMW | {"lr": 6e-3}),
        Variant("muon_lr 0.01", {"muon_lr": 0.01}),
        Variant("muon_lr 0.06", {"muon_lr": 0.06}),
        Variant("lr 3e-3", {"lr": 3e-3}),
        Variant("lr 1.2e-2", {"lr": 1.2e-2}),
        Variant("Newton-Schulz 5 steps", constants={"NEWTON_SCHULZ_STEPS": 5}),
        Variant("batch 4", FEW),
        Variant("batch 8", {"batch_size": 8}),
        Variant("batch 32", {"batch_size": 32, "micro_batch": 32}),
        Variant("cooldown 0.2", {"cooldown": 0.2}),
        Variant("cooldown 0.8", {"cooldown": 0.8}),
        Variant("cooldown 1.0", {"cooldown": 1.0}),
        Variant("warmup 0", {"warmup": 0}),
        Variant("warmup 40", {"warmup": 40}),
        Variant("init gpt2", model={"init": "gpt2"}),
        Variant("no q/k norm", model={"qk_norm": False}),
        Variant("context 64", {"batch_size": 32, "micro_batch": 32}, {"context": 64}),
        Variant("context 256", {"batch_size": 8}, {"context": 256}),
        Variant("no clipping", {"clip": 0.0}),
        Variant("batch 8, lr 1.2e-2", {"batch_size": 8, "lr": 1.2e-2}),
        Variant(
            "batch 8, lr 1.2e-2, cooldown 0.3", {"batch_size": 8, "lr": 1.2e-2, "cooldown": 0.3}
        ),
        Variant(
            "the same, 8k vocabulary",
            {"batch_size": 8, "lr": 1.2e-2, "cooldown": 0.3},
            data="installed-py8k",
        ),
        Variant(
            "the same, 4k vocabulary",
            {"batch_size": 8, "lr": 1.2e-2, "cooldown": 0.3},
            data="installed-py4k",
        ),
    ],
    "mini": [
        Variant("base"),
        Variant("adamw, lr 1e-3", ADAMW | {"lr": 1e-3}),
        Variant("adamw, lr 3e-3", ADAMW | {"lr": 3e-3}),
        Variant("muon_lr 0.01", {"muon_lr": 0.01}),
        Variant("muon_lr 0.04", {"muon_lr": 0.04}),
        Variant("lr 2e-3", {"lr": 2e-3}),
        Variant("lr 8e-3", {"lr": 8e-3}),
        Variant("lr 1.6e-2", {"lr": 1.6e-2}),
        Variant("Newton-Schulz 3 steps", constants={"NEWTON_SCHULZ_STEPS": 3}),
        Variant("batch 4", FEW),
        Variant("batch 8", {"batch_size": 8}),
        Variant("batch 32", {"batch_size": 32}),
        Variant("batch 4, warmup 10", SOON),
        Variant("batch 4, warmup 10, adamw, lr 4e-3", SOON | ADAMW),
        Variant(
            "batch 4, warmup 10, lr 8e-3, Newton-Schulz 3 steps",
            SOON | {"lr": 8e-3},
            constants={"NEWTON_SCHULZ_STEPS": 3},
        ),
        Variant("batch 8, warmup 20", {"batch_size": 8, "warmup": 20}),
        Variant("batch 4, warmup 10, cooldown 0.2", SOON | {"cooldown": 0.2}),
        Variant("batch 4, warmup 10, cooldown 0.8", SOON | {"cooldown": 0.8}),
        Variant("batch 4, warmup 10, init gpt2", SOON, {"init": "gpt2"}),
        Variant("batch 4, warmup 10, no q/k norm", SOON, {"qk_norm": False}),
        Variant("batch 8, warmup 10, context 128", SOON | {"batch_size": 8}, {"context": 128}),
        Variant("batch 2, warmup 10, context 512", SOON | {"batch_size": 2}, {"context": 512}),
    ],
    "shapes": [
        Variant("base"),
        Variant("2 heads of 128", model={"n_head": 2, "n_kv_head": 2, "head_size": 128}),
        Variant(
            "8k, 7 layers, width 320",
            model={"n_layer": 7, "d_model": 320, "n_head": 5, "n_kv_head": 5, "d_mlp": 832},
            data="installed-py8k",
        ),
        Variant("8k, 11 layers", model={"n_layer": 11}, data="installed-py8k"),
        Variant("32k, 4 layers", model={"n_layer": 4}, data="installed-py32k"),
        Variant(
            "5 layers, width 320",
            model={"n_layer": 5, "d_model": 320, "n_head": 5, "n_kv_head": 5, "d_mlp": 832},
        ),
        Variant("batch 4", {"batch_size": 4}),
        Variant("batch 16", {"batch_size": 16, "micro_batch": 16}),
        Variant("muon_lr 0.03, lr 8e-3", {"muon_lr": 0.03, "lr": 8e-3}),
        Variant("context 256", {"batch_size": 16, "micro_batch": 16}, {"context": 256}),
    ],
}
VAL_WINDOWS, VAL_SPAN = 256, 512
"""Every variant is scored on the same text: these spans, cut into windows of its own context."""
FREE = {"lr", "muon_lr", "warmup", "cooldown", "init"}
"""What changes no step's cost."""
MEASURED_STEPS = 7
NEVER = 10**9
CORES = os.cpu_count() or 1
PARENT = os.getppid()


def main() -> None:
    args = parse()
    if args.child:
        work = json.loads(args.child)
        print(json.dumps(train_once(work) if work["base_steps"] else base_cost(work)))
        return
    chosen = [v for v in VARIANTS[args.preset] if not args.only or v.name in args.only]
    if unknown := set(args.only or ()) - {v.name for v in chosen}:
        raise SystemExit(f"error: no variant {', '.join(unknown)} of {args.preset}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        script = snapshot(Path(directory))
        steps = base_steps(script, args)
        jobs = [job(v, seed, steps, args) for v in chosen for seed in range(args.seeds)]
        done = {key(r) for r in results(args.out)}
        run_all(script, [j for j in jobs if key(j) not in done], args.out)
    wanted = {key(j) for j in jobs}
    print(table([r for r in results(args.out) if key(r) in wanted]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=VARIANTS, default="nano")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some variants; all if left out")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "installed")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ablations.jsonl")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parent: which runs, and what came of them


def job(variant: Variant, seed: int, steps: int, args: argparse.Namespace) -> dict[str, Any]:
    """All that a child needs to know."""
    return {
        "preset": args.preset,
        "variant": asdict(variant),
        "seconds": args.seconds,
        "seed": seed,
        "base_steps": steps,
        "base_data": str(args.data.resolve()),
        "data": str((args.data.parent / (variant.data or args.data.name)).resolve()),
    }


def key(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["preset"], record["variant"]["name"], record["seconds"], record["seed"]


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def base_steps(script: Path, args: argparse.Namespace) -> int:
    """The recipe's steps in --seconds: those of the sweep's earlier results, or measured now."""
    for record in results(args.out):
        if (record["preset"], record["seconds"]) == (args.preset, args.seconds):
            return record["base_steps"]
    work = [job(Variant("base"), seed, 0, args) for seed in range(CORES)]
    costs = [answer(child)["seconds_per_step"] for child in [start(script, w) for w in work]]
    steps = max(1, round(args.seconds / statistics.mean(costs)))
    print(f"{steps:,} steps of the recipe in {args.seconds:g} s of CPU time", flush=True)
    return steps


def run_all(script: Path, jobs: list[dict[str, Any]], out: Path) -> None:
    """Runs the jobs, as many at once as there are cores, and appends each result to `out`."""
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < CORES:
                work = waiting.pop(0)
                running.append((work, start(script, work)))
            time.sleep(0.2)
            for item in [(work, child) for work, child in running if child.poll() is not None]:
                running.remove(item)
                finish(*item, out)
                print(f"{len(jobs) - len(waiting) - len(running)} of {len(jobs)}", flush=True)
    finally:
        for _, child in running:
            child.kill()
            child.wait()


def snapshot(directory: Path) -> Path:
    """This script with the code that it measures, so that edits do not reach a running sweep."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("ptx", "train"):
        shutil.copytree(ROOT / package, directory / package, ignore=ignored)
    script = directory / Path(__file__).relative_to(ROOT)
    script.parent.mkdir(parents=True)
    shutil.copy(__file__, script)
    return script


def start(script: Path, work: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, script, "--child", json.dumps(work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    """What a child printed last; its last line of errors, as RuntimeError, if it failed."""
    output, errors = child.communicate()
    if child.returncode:
        raise RuntimeError((errors.strip() or "killed").splitlines()[-1])
    return json.loads(output.splitlines()[-1])


def finish(work: dict[str, Any], child: subprocess.Popen[str], out: Path) -> None:
    """Appends a child's result, or says how it failed."""
    name = f"{work['variant']['name']}, seed {work['seed']}"
    try:
        record = work | answer(child)
    except RuntimeError as error:
        print(f"{name} failed: {error}", flush=True)
        return
    with out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(f"{name}: {record['bpb']:.4f} bits per byte, {record['steps']:,} steps", flush=True)


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a line a variant, in the order of VARIANTS."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: r["seed"]):
        by_name.setdefault(record["variant"]["name"], []).append(record)
    base = statistics.mean(r["bpb"] for r in by_name["base"]) if "base" in by_name else None
    lines = [
        "| variant | steps | tokens | bpb by seed | mean | to base |",
        "|---|---|---|---|---|---|",
    ]
    for name in [v.name for group in VARIANTS.values() for v in group]:
        if runs := by_name.pop(name, None):
            steps, tokens, bpb = (
                statistics.mean(r[k] for r in runs) for k in ("steps", "tokens", "bpb")
            )
            each = ", ".join(f"{r['bpb']:.4f}" for r in runs)
            difference = "" if base is None else f"{bpb - base:+.4f}"
            lines.append(
                f"| {name} | {steps:,.0f} | {tokens:,.0f} | {each} | {bpb:.4f} | {difference} |"
            )
    return "\n".join(lines)


# --- the child: one run


def base_cost(work: dict[str, Any]) -> dict[str, float]:
    """CPU seconds of one step of the recipe."""
    with tempfile.TemporaryDirectory() as runs:
        costs = step_costs(work, Path(runs), [Variant("base")])[0]
    return {"seconds_per_step": statistics.median(costs)}


def train_once(work: dict[str, Any]) -> dict[str, Any]:
    """Trains for as long as the recipe's steps take; returns steps, tokens and bits per byte."""
    from train.score import validate

    variant = Variant(**work["variant"])
    with tempfile.TemporaryDirectory() as runs:
        steps = max(1, round(work["base_steps"] / relative_cost(work, variant, Path(runs))))
        with (
            applied(variant, work["preset"]),
            closing(new_run(work, variant, Path(runs), steps)) as run,
        ):
            used = sum(cpu_seconds(run) for _ in range(steps - 1))
            run.step()  # which also validates, samples and saves
            x, y = run.corpus.val_windows(VAL_SPAN, VAL_WINDOWS)
            context = run.model.config.context
            windows = x.reshape(-1, context), y.reshape(-1, context)
            lengths = run.corpus.tokenizer.byte_lengths
            loss, bpb = validate(run.model, windows, lengths, run.kernels)
    return {
        "steps": steps,
        "tokens": run.progress.tokens,
        "bpb": round(bpb, 5),
        "val_loss": round(loss, 5),
        "cpu_seconds": round(used, 1),
    }


def relative_cost(work: dict[str, Any], variant: Variant, runs: Path) -> float:
    """CPU time of a variant's step, where the recipe's is 1."""
    if not variant.constants and {*variant.settings, *variant.model} <= FREE:
        return 1.0
    base, changed = step_costs(work, runs, [Variant("base"), variant])
    return statistics.median(c / b for b, c in zip(base, changed, strict=True))


def step_costs(work: dict[str, Any], runs: Path, variants: list[Variant]) -> list[list[float]]:
    """CPU seconds of warm steps of each variant, taken in turns."""
    costs: list[list[float]] = [[] for _ in variants]
    with ExitStack() as stack:
        started = []
        for variant in variants:
            with applied(variant, work["preset"]):
                started.append(new_run(work, variant, runs, steps=NEVER))
                stack.callback(started[-1].close)
        for _ in range(MEASURED_STEPS + 1):
            for variant, run, cost in zip(variants, started, costs, strict=True):
                with applied(variant, work["preset"]):
                    cost.append(cpu_seconds(run))
    return [cost[1:] for cost in costs]


def cpu_seconds(run: Run) -> float:
    """CPU time of the run's next step; ends the process when the sweep is gone."""
    if os.getppid() != PARENT:
        raise SystemExit("error: the sweep was killed")
    begun = time.process_time()
    run.step()
    return time.process_time() - begun


@contextmanager
def applied(variant: Variant, group: str) -> Iterator[None]:
    """The preset and train.optim as the variant wants them."""
    from ptx.config import PRESETS
    from train import optim

    before = {k: getattr(optim, k) for k in variant.constants}
    name = PRESET.get(group, group)
    shape = PRESETS[name]
    PRESETS[name] = replace(shape, **MODEL.get(group, {}) | variant.model)
    vars(optim).update(variant.constants)
    yield
    PRESETS[name] = shape
    vars(optim).update(before)


def new_run(work: dict[str, Any], variant: Variant, runs: Path, steps: int) -> Run:
    """A run in which nothing but training happens before the last step."""
    from train.device import keep_freed_memory
    from train.loop import Run
    from train.settings import Settings, largest_part

    keep_freed_memory()
    quiet = {"val_every": NEVER, "sample_every": NEVER, "save_every": NEVER, "val_windows": 1}
    group, data = work["preset"], Path((variant.data and work["data"]) or work["base_data"])
    kernels = {"device": "cpu"} | KERNELS.get(group, PLAIN)
    values = quiet | kernels | BASE[group] | variant.settings | {"steps": steps}
    values["micro_batch"] = largest_part(values["batch_size"], values["micro_batch"])
    values |= {"seed": work["seed"], "data": data, "runs": runs}
    return Run.start(Settings(preset=PRESET.get(group, group), **values))


if __name__ == "__main__":
    main()
