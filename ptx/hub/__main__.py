"""python -m ptx.hub : models and the playground out into the world, and others' models in.

For example:

python -m ptx.hub push checkpoints/mini user/name (a model repository, with its card)

python -m ptx.hub space user/name (the playground on a public page)

python -m ptx.hub export checkpoints/mini OUT (for transformers)

python -m ptx.hub import HuggingFaceTB/SmolLM-135M checkpoints/smollm (from transformers)

Writing to the Hub needs a token: hf auth login, or HF_TOKEN. python -m ptx.hub COMMAND --help
explains each.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ptx.config import ModelConfig
from ptx.errors import UserError, report_errors
from ptx.hub.from_transformers import CONTEXT

Argument = tyro.conf.Positional
Revision = Annotated[
    str | None, tyro.conf.arg(help="A branch, tag or commit; the newest if left out.")
]


@dataclass
class Push:
    """Upload a model to the Hub, in one commit: weights, shape, tokenizer, metrics, and a card of
    its real figures with the training curve. Nothing else of the directory goes.

    Example: python -m ptx.hub push checkpoints/mini user/name
    """

    model: Argument[Path]
    """A model directory, or a run directory for its newest checkpoint (train/run.py release first
    measures it on held-out projects)."""
    name: Argument[str]
    """user/name; it is created if it is not there."""
    private: bool = False
    """Create it for your eyes only."""
    branch: str | None = None
    """Commit to this branch instead of main."""
    message: str | None = None
    """Of the commit."""


@dataclass
class Pull:
    """Download a model from the Hub as a model directory of its own.

    Example: python -m ptx.hub pull user/name checkpoints/name
    """

    name: Argument[str]
    """user/name. A checkpoint of transformers is converted, as import does."""
    out: Argument[Path | None] = None
    """checkpoints/NAME if left out; an earlier model there is replaced."""
    revision: Revision = None


@dataclass
class MakeSpace:
    """Create or update a Space: the playground on a public page, with one model.

    The page, the library (where there is git, what it tracks) and the model go there, nothing else
    of this directory; training is off, limits are on. It runs on the free CPU, and on ZeroGPU where
    the Space has it.

    Example: python -m ptx.hub space user/name --model checkpoints/mini
    """

    name: Argument[str]
    """user/name of the Space."""
    model: Path = Path("checkpoints/mini")
    """The model directory that the page shows."""
    hardware: str | None = None
    """What the Space asks for: cpu-basic (free), zero-a10g (ZeroGPU), t4-small, ... ; left out, it
    stays as it is."""
    secret: tuple[str, ...] = ()
    """Names of secrets that the Space gets; the values come from environment variables of these
    names, or are asked for without showing them."""
    private: bool = False
    """Create it for your eyes only."""
    dry_run: bool = False
    """Print the files that would go, and stop."""


@dataclass
class Export:
    """Write a model for transformers, with no code of its own: AutoModelForCausalLM, AutoTokenizer
    and pipeline("text-generation") open it, and whatever else reads such directories.

    Example: python -m ptx.hub export checkpoints/mini exported/mini
    """

    model: Argument[str]
    """A model directory, a run directory, or user/name on the Hub."""
    out: Argument[Path]
    """The directory to write."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights; transformers computes in it. float32 gives our logits within 1e-4."""


@dataclass
class Import:
    """Make a model directory of a transformers checkpoint with GPT-2's, Llama's, Qwen2's or Qwen3's
    shape; the page, the lens and python -m ptx open it like any other. Only safetensors are read.

    Example: python -m ptx.hub import HuggingFaceTB/SmolLM-135M checkpoints/smollm
    """

    name: Argument[str]
    """A directory, or user/name on the Hub."""
    out: Argument[Path]
    """The model directory to write."""
    context: int = CONTEXT
    """Tokens it sees at most, if its own limit is higher; attention maps grow with its square."""
    revision: Revision = None


Command = (
    Annotated[Push, tyro.conf.subcommand("push")]
    | Annotated[Pull, tyro.conf.subcommand("pull")]
    | Annotated[MakeSpace, tyro.conf.subcommand("space")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
)


@report_errors()
def main(words: list[str]) -> None:
    args = tyro.cli(Command, prog="python -m ptx.hub", description=__doc__, args=words)  # type: ignore[arg-type]
    if isinstance(args, Push):
        push(args)
    elif isinstance(args, Pull):
        pull(args)
    elif isinstance(args, MakeSpace):
        make_space(args)
    elif isinstance(args, Export):
        export(args)
    else:
        import_(args)


def push(args: Push) -> None:
    from ptx.hub.upload import push

    at = push(args.model, args.name, private=args.private or None, branch=args.branch,
              message=args.message)  # fmt: skip
    print(f"pushed {args.model} to {args.name}: {at}")


def pull(args: Pull) -> None:
    from ptx.hub.download import pull

    out = args.out or Path("checkpoints") / args.name.rpartition("/")[2]
    pull(args.name, out, args.revision)
    print(f"wrote {out}: python app.py --model {out}")


def make_space(args: MakeSpace) -> None:
    from ptx.hub.space import contents, left_here, space

    if left := left_here():
        names = f"{left[0]} and {len(left) - 1} more" if len(left) > 1 else left[0]
        note = f"note: git does not track {names}: git add what the page needs, or it stays here"
        print(note, file=sys.stderr)
    if args.dry_run:
        print("\n".join(sorted(contents(args.model))))
        return
    secrets = {name: os.environ.get(name) or _asked_for(name) for name in args.secret}
    at = space(args.name, args.model, args.hardware, secrets, args.private or None)
    print(f"the playground with {args.model} is at {at}")


def _asked_for(name: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(f"the secret {name} has no value: set the environment variable {name}")
    return getpass.getpass(f"value of the secret {name}: ")


def export(args: Export) -> None:
    from ptx.hub.download import local_model
    from ptx.hub.to_transformers import export

    name = export(local_model(args.model), args.out, args.dtype)
    print(f"wrote {args.out}, a {name} of transformers")


def import_(args: Import) -> None:
    from ptx.hub.download import pull
    from ptx.hub.from_transformers import import_model

    if Path(args.name).is_dir():
        found = import_model(Path(args.name), args.out, args.context)
        config, notes = found.config, found.notes
    else:
        from ptx.checkpoint import read_config

        pull(args.name, args.out, args.revision, args.context)
        written = read_config(args.out)
        config = ModelConfig.from_dict(written["model"])
        notes = [note for note in str(written["info"].get("notes", "")).split("; ") if note]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(
        f"wrote {args.out}: {config.n_layer} layers, {config.n_head} heads, width {config.d_model}"
        f"; python app.py --model {args.out}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
