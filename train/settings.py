"""What a training run is told: the command line's fields, and each preset's recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ptx.config import preset
from ptx.errors import UserError


@dataclass(frozen=True)
class Settings:
    """Train a GPT on a prepared data directory, or continue a run.

    For example:

    python train/run.py --preset nano --data data/installed

    python train/run.py --resume runs/nano

    python train/run.py --preset mini --init-from checkpoints/mini --data data/mine (train it on)

    torchrun --nproc-per-node=2 train/run.py --preset small (every process reads its part)

    python train/run.py doctor (what this machine can train, and in how many minutes)

    python train/run.py cooldown runs/mini --steps 2000 (prepare the end of a run that had none)

    python train/run.py evaluate runs/nano (bits per byte on held-out projects)

    python train/run.py release runs/mini OUT (a model directory to share)

    python train/run.py history runs/nano OUT (a dozen of its checkpoints, small)

    python train/run.py COMMAND --help (explains each)

    Fields left out take the preset's recipe (RECIPES in train/settings.py). Ctrl+C finishes the
    step, saves, and exits; nothing is lost.
    """

    preset: str = "nano"
    """The network's shape: nano (2.9M, minutes on a laptop), mini (11.4M, hours on one),
    small (GPT-2's size, for a GPU), reference (the original P-Transformer, 164.6M)."""
    data: Path = Path("data/installed")
    """A directory made by prepare/run.py."""
    name: str | None = None
    """The run's directory below --runs; the preset's name, numbered, if left out."""
    runs: Path = Path("runs")
    """Where runs are kept."""
    resume: Path | None = None
    """Continue this run directory with its own settings; on a CPU bit for bit. Only --device is
    given anew; --shard and --track can be added, and the number of processes may differ."""
    init_from: Path | None = None
    """Start a new run from this model's weights and shape instead of noise. --data must have its
    tokenizer (prepare/run.py --tokenizer MODEL); --preset is then only the recipe."""

    steps: int | None = None
    """Optimizer steps in all."""
    batch_size: int | None = None
    """Sequences per optimizer step."""
    micro_batch: int | None = None
    """Sequences that a process reads at once, at most; gradients accumulate up to --batch-size."""
    optimizer: Literal["muon", "adamw"] | None = None
    """muon: Muon for the hidden matrices, AdamW for embeddings, head and gains."""
    lr: float | None = None
    """AdamW's peak learning rate."""
    muon_lr: float | None = None
    """Muon's peak learning rate."""
    weight_decay: float | None = None
    """Decoupled, on matrices."""
    warmup: int | None = None
    """Steps of linear warm-up."""
    cooldown: float | None = None
    """The last share of the steps, with the rate falling linearly to zero; 0 keeps it constant."""
    grammar: int = 0
    """More windows of training files at each step of the cooldown: tokens that are likely there and
    that Python's parser would refuse become less likely; the text itself is learnt. 0 for none."""
    loops: int = 0
    """More windows at each step of the cooldown, with a passage copied into them again and again:
    the model learns not to write another copy, and the rest as usual. 0 for none."""
    clip: float | None = None
    """Largest gradient norm; 0 leaves gradients alone."""

    seed: int = 0
    """Of the initial weights, the dropout and the order of the data."""
    val_every: int = 100
    """Steps between validations."""
    val_windows: int = 128
    """Windows of one context each, spread evenly over the validation file: always the same ones."""
    sample_every: int = 250
    """Steps between written samples."""
    save_every: int = 250
    """Steps between checkpoints."""
    keep: int = 3
    """Newest checkpoints kept."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products; auto measures whether bf16 is faster here. Weights stay fp32."""
    attention: Literal["auto", "fused", "math"] = "auto"
    """torch's fused attention, or plain matrix products; auto measures which is faster here."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile for the blocks; auto tries it on runs long enough to pay for it."""
    shard: bool = False
    """Under torchrun: spread weights and optimizer over the processes (FSDP2), instead of a copy
    of both in each (DDP)."""
    track: Literal["none", "tensorboard"] = "none"
    """Also write the figures and samples as TensorBoard events, in the run's directory."""


LATER: dict[str, Any] = {"init_from": None, "grammar": 0, "loops": 0}
"""Settings that the runs of earlier versions do not have, and what those did."""

RECIPES: dict[str, dict[str, Any]] = {
    "nano": {
        "steps": 1000,
        "batch_size": 8,
        "micro_batch": 8,
        "optimizer": "muon",
        "lr": 1.2e-2,
        "muon_lr": 0.03,
        "weight_decay": 0.0,
        "warmup": 10,
        "cooldown": 0.3,
        "clip": 1.0,
    },
    "mini": {
        "steps": 6000,
        "batch_size": 16,
        "micro_batch": 8,
        "optimizer": "muon",
        "lr": 4e-3,
        "muon_lr": 0.02,
        "weight_decay": 0.01,
        "warmup": 40,
        "cooldown": 0.5,
        "clip": 1.0,
    },
    "small": {
        "steps": 20_000,
        "batch_size": 256,
        "micro_batch": 16,
        "optimizer": "muon",
        "lr": 3e-3,
        "muon_lr": 0.02,
        "weight_decay": 0.01,
        "warmup": 200,
        "cooldown": 0.5,
        "clip": 1.0,
    },
    # The original: AdamW's defaults at a constant rate, no clipping.
    "reference": {
        "steps": 5000,
        "batch_size": 24,
        "micro_batch": 24,
        "optimizer": "adamw",
        "lr": 3e-4,
        "muon_lr": 0.0,
        "weight_decay": 0.01,
        "warmup": 0,
        "cooldown": 0.0,
        "clip": 0.0,
    },
}


def complete(settings: Settings) -> Settings:
    """Fills the fields left out from the preset's recipe, and refuses impossible values."""
    preset(settings.preset)
    recipe = RECIPES[settings.preset]
    given = {name: value for name in recipe if (value := getattr(settings, name)) is not None}
    if "batch_size" in given and "micro_batch" not in given:
        given["micro_batch"] = largest_part(given["batch_size"], recipe["micro_batch"])
    full = replace(settings, **{**recipe, **given})
    _check(full)
    return full


def largest_part(rows: int, most: int) -> int:
    """The largest divisor of `rows` up to `most`."""
    return max(part for part in range(1, most + 1) if rows % part == 0)


def _check(s: Settings) -> None:
    for name in (
        "steps",
        "batch_size",
        "micro_batch",
        "val_every",
        "val_windows",
        "sample_every",
        "save_every",
        "keep",
    ):
        if getattr(s, name) < 1:
            raise UserError(
                f"--{name.replace('_', '-')} must be at least 1, not {getattr(s, name)}"
            )
    for name in ("lr", "muon_lr", "weight_decay", "warmup", "grammar", "loops", "clip", "seed"):
        if getattr(s, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(s, name)}")
    if s.batch_size % s.micro_batch:
        raise UserError(
            f"--batch-size ({s.batch_size}) must be a multiple of --micro-batch ({s.micro_batch})"
        )
    if not 0.0 <= s.cooldown <= 1.0:
        raise UserError(f"--cooldown is a share of the steps, from 0 to 1, not {s.cooldown}")
    for name in ("grammar", "loops"):
        if getattr(s, name) and not s.cooldown:
            raise UserError(f"--{name} is for the cooldown, and this run has none: give --cooldown")
    if s.name is not None and (not s.name or Path(s.name).name != s.name or s.name == "latest"):
        raise UserError(f"--name {s.name!r} must be one plain directory name, and not 'latest'")


def as_json(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}


def from_json(values: dict[str, Any]) -> Settings:
    """What `as_json` was given."""
    names = ("data", "runs", "init_from")
    paths = {name: Path(values[name]) for name in names if values[name] is not None}
    return Settings(**(values | paths))


def load(run: Path) -> Settings:
    """The settings that `run` was started with."""
    path = run / "config.json"
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a run's settings ({error})") from None
    known = {field.name for field in fields(Settings)}
    if not isinstance(values, dict) or set(LATER | values) != known:
        raise UserError(
            f"{path} is not the config.json of a training run of this version: start a new run "
            f"from its weights with --init-from {run}"
        )
    return from_json(LATER | values)


def resumed(run: Path, given: Settings, launched: bool = False) -> Settings:
    """The settings of a run that goes on here, `given` a command line; refuses one that asks for
    more than may change. launched: whether torchrun started this, without which nothing can be
    spread."""
    device, shard, track = given.device, given.shard, given.track
    if replace(Settings(), resume=given.resume, device=device, shard=shard, track=track) != given:
        raise UserError(
            "--resume takes the run's own settings: leave out all but --device, --shard and --track"
        )
    own = load(run)
    return replace(
        own,
        resume=run,
        device=device,
        shard=shard or (own.shard and launched),
        track=own.track if track == "none" else track,
    )
